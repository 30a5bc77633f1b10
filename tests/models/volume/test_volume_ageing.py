"""The terms of ageing reach the encoder, and each player of a game learns its own side."""

import pytest
import torch

from cardiogen.engine.fit import FitConfig, StepInfo, draw_latent, keyed_layers
from cardiogen.models.volume import AgeingConfig, VolumeConfig, VolumeTask, train_volume
from cardiogen.models.volume.ageing import _mean_known, age_consistency, at_age, known_factors
from cardiogen.models.voxel import channels, population_examples
from cardiogen.models.voxel.lattice import heart_grid
from cardiogen.models.voxel.slots import Slots

NAN = float("nan")
EVERY = AgeingConfig(
    latent_adversary=0.5, image_adversary=0.5, age_consistency=0.5, cycle=0.5, width=8
)
TERMS = ("latent_adversary", "image_adversary", "age_consistency", "cycle")
INFO = StepInfo(step=0, steps=1, epoch=0, kl_weight=1.0, free_bits=0.0, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def config(volume_config) -> VolumeConfig:
    return volume_config.model_copy(update={"ageing": EVERY, "condition_dropout": 0.4})


@pytest.fixture
def task(volume_examples, config) -> VolumeTask:
    with keyed_layers(2, "test"):
        return VolumeTask(volume_examples.subset(range(6)), config)


def terms_of(task: VolumeTask) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    batch = task.batch(range(6), generator)
    network = task.module.network
    code = network.mapping(batch["condition"])
    mean, log_var = network.encode(channels(batch["labels"], batch["shown"]), code)
    z = draw_latent(mean, log_var, generator=generator)
    return task.ageing_terms(z, batch, generator)


def gradient(module: torch.nn.Module) -> float:
    return sum(float(p.grad.abs().sum()) for p in module.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", TERMS)
def test_each_term_alone_reaches_every_layer_of_the_encoder(task, name):
    terms_of(task)[name].backward()
    network = task.module.network
    for part in (*network.encoder.parameters(), *network.head.parameters()):
        assert part.grad.abs().max() > 0
    if name != "latent_adversary":
        assert gradient(network.decoder) > 0


def test_the_regressor_learns_from_real_hearts_alone(task):
    terms = terms_of(task)
    terms["age_consistency"].backward(retain_graph=True)
    assert gradient(task.module.heads.regressor) == 0
    task.module.zero_grad()
    terms["age_regression"].backward()
    assert gradient(task.module.heads.regressor) > 0
    assert gradient(task.module.network) == 0


@pytest.mark.parametrize("name", ["latent_adversary", "image_adversary"])
def test_players_of_a_game_pull_against_each_other(task, name):
    """A step down for the critic lowers its loss; the same step for the encoder raises it."""
    network, heads = task.module.network, task.module.heads
    critic = getattr(heads, name.replace("adversary", "critic"))
    for module, sign in ((critic, 1.0), (network, -1.0)):
        task.module.zero_grad()
        loss = terms_of(task)[name]
        loss.backward()
        parts = [p for p in module.parameters() if p.grad is not None]
        scale = 1e-3 / max(float(p.grad.norm()) for p in parts)
        with torch.no_grad():
            for p in parts:
                p -= scale * p.grad
        assert sign * (float(loss.detach()) - float(terms_of(task)[name].detach())) > 0


def test_gradients_of_the_total_reach_every_parameter(task):
    generator = torch.Generator().manual_seed(4)
    losses = task.loss(task.batch(range(6), generator), step=INFO, generator=generator)
    assert set(TERMS) | {"loss", "cross_entropy", "dice", "age_regression"} <= set(losses)
    losses["loss"].backward()
    missing = [n for n, p in task.module.named_parameters() if not p.grad.abs().max() > 0]
    assert not missing


def test_terms_of_weight_zero_are_left_out(volume_examples, volume_config):
    partly = volume_config.model_copy(update={"ageing": AgeingConfig(cycle=0.1)})
    task = VolumeTask(volume_examples.subset(range(6)), partly)
    assert list(terms_of(task)) == ["cycle"]
    assert not list(task.module.heads.parameters())
    assert VolumeTask(volume_examples, volume_config).module.heads is None


def test_unknown_ages_do_not_count():
    assert float(_mean_known(torch.tensor([1.0, NAN, 3.0]))) == 2.0
    assert float(_mean_known(torch.tensor([NAN]))) == 0.0
    condition = torch.tensor([[NAN, 1.0], [50.0, NAN]])
    assert at_age(condition, torch.tensor([60.0, 70.0]))[:, 0].tolist() == [60.0, 70.0]
    assert known_factors(condition).tolist() == [[0, 1, 0, 1], [50, 0, 1, 0]]


def test_a_perfect_regressor_asks_nothing():
    class Told(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = torch.nn.Parameter(torch.ones(()))

        def forward(self, hot, given):
            return self.gain * hot[:, 0, 0, 0, 0]

    hot = torch.arange(3.0).view(3, 1, 1, 1, 1).expand(-1, -1, 2, 2, 2)
    assert float(age_consistency(Told(), hot, torch.tensor([0.0, 1.0, NAN])).detach()) == 0.0


def test_training_with_every_term_goes_on_and_leaves_critics_behind(config):
    lattice = heart_grid(config.shape, config.spacing_mm)
    examples = population_examples(6, 8, lattice, Slots("ed+es"))
    settings = config.model_copy(
        update={"prior": "standard", "fit": FitConfig(steps=3, batch_size=4)}
    )
    model = train_volume(examples, settings, device="cpu")
    assert not any("critic" in n or "regressor" in n for n in model.tensors())
    assert model.is_possible(model.prior(examples.conditions([0])[0]).mean) in (True, False)
