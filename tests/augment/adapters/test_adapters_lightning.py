"""The mixin for Lightning: batches augmented in training, draws kept in checkpoints."""

import warnings

import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    lightning = pytest.importorskip("lightning")

from augment import Adversary, Chain, EmaReference, GaussianNoise, classic_chain
from augment.adapters.for_lightning import AdversarialMixin

pytestmark = pytest.mark.filterwarnings("ignore")


class Segmenter(AdversarialMixin, lightning.LightningModule):
    def __init__(self, chain=None, share=0.5):
        super().__init__()
        torch.manual_seed(0)
        self.network = torch.nn.Conv2d(1, 4, 3, padding=1)
        self.set_up_augmentation(chain or classic_chain(), spacing=(1.4, 1.9), random_share=share)
        self.losses = []

    def training_step(self, batch, batch_idx):
        image, one_hot = batch
        loss = self.adversarial_loss(
            self.network, image, lambda out: torch.nn.functional.cross_entropy(out, one_hot)
        )
        self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


def batches(count=4):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (count, 2, 16, 24), generator=generator)
    one_hot = torch.nn.functional.one_hot(labels, 4).movedim(-1, 2).float()
    image = torch.rand(count, 2, 1, 16, 24, generator=generator)
    return list(zip(image, one_hot, strict=True))


def loader(count=4):
    return torch.utils.data.DataLoader(batches(count), batch_size=None)


def trainer(folder, **length):
    return lightning.Trainer(
        **length, accelerator="cpu", devices=1, logger=False, barebones=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        default_root_dir=folder,
    )  # fmt: skip


def test_the_example_runs(run_example, tmp_path):
    module = run_example("for_lightning")["Segmenter"]()
    trainer(tmp_path, max_steps=2).fit(module, loader(2))
    assert module._adversary.calls == 2


def test_training_batches_are_augmented_and_others_are_not():
    module = Segmenter(Chain(transforms=(GaussianNoise(),)), share=1.0)
    image, one_hot = batches()[0]
    changed, labels = module.train().on_after_batch_transfer((image, one_hot), 0)
    assert not torch.equal(changed, image)
    assert torch.equal(labels, one_hot)
    same, _ = module.eval().on_after_batch_transfer((image, one_hot), 0)
    assert same is image


def test_a_run_goes_on_as_it_was(tmp_path):
    whole, first, second = Segmenter(), Segmenter(), Segmenter()
    trainer(tmp_path, max_epochs=2).fit(whole, loader(2))
    started = trainer(tmp_path, max_epochs=1)
    started.fit(first, loader(2))
    started.save_checkpoint(tmp_path / "half.ckpt")
    assert "cardiogen_augment" in torch.load(tmp_path / "half.ckpt", weights_only=True)
    again = trainer(tmp_path, max_epochs=2)
    again.fit(second, loader(2), ckpt_path=tmp_path / "half.ckpt")
    assert second._adversary.calls == second._batches == 4
    assert [*first.losses, *second.losses] == whole.losses
    # Draws have a say in that.
    assert len(set(whole.losses)) == 4


class Ranked(Segmenter):
    """One of several processes."""

    rank, global_rank = 0, property(lambda self: self.rank)

    def log_dict(self, *given, **named):
        """Log nothing: there is no trainer."""


def ranked(rank, checkpoint=None):
    module = Ranked().train()
    module.rank = rank
    if checkpoint is not None:
        module.on_load_checkpoint(checkpoint)
    return module


def drawn(module):
    """Return what a module makes of a batch: its random change and its loss."""
    image, one_hot = batches()[0]
    changed = module.on_after_batch_transfer((image, one_hot), 0)[0]
    return changed, module.training_step((image, one_hot), 0).detach()


def test_every_process_goes_on_with_draws_of_its_own():
    modules = [ranked(rank) for rank in (0, 1)]
    for module in modules:
        for _ in range(2):
            drawn(module)
    checkpoint = {}
    modules[0].on_save_checkpoint(checkpoint)  # the first process writes for all
    found = [drawn(module) for module in modules]
    again = [drawn(ranked(rank, checkpoint)) for rank in (0, 1)]
    for one, other in zip(found, again, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
    assert not torch.equal(again[0][0], again[1][0])
    assert not torch.equal(again[0][1], again[1][1])


def test_a_checkpoint_from_before_the_mixin_is_one_to_begin_from():
    module = ranked(0)
    with pytest.warns(UserWarning, match=r"'cardiogen_augment' .* got \[\]: .*'batches'"):
        module.on_load_checkpoint({"state_dict": {}})
    fresh = ranked(0)
    assert all(torch.equal(a, b) for a, b in zip(drawn(module), drawn(fresh), strict=True))


def test_statistics_of_changed_images_and_seeds_are_stored():
    def normed(seed):
        module = ranked(0)
        module.network = torch.nn.Sequential(module.network, torch.nn.BatchNorm2d(4))
        module.set_up_augmentation(
            classic_chain(), spacing=(1.4, 1.9), random_share=0.5, seed=seed,
            adversary=Adversary(chain=classic_chain(), statistics="separate",
                                generator=torch.Generator().manual_seed(seed + 5)),
        )  # fmt: skip
        return module

    module, checkpoint = normed(3), {}
    drawn(module)
    module.on_save_checkpoint(checkpoint)
    other = normed(4)
    other.load_state_dict(module.state_dict())
    other.on_load_checkpoint(checkpoint)
    stored = other._adversary.own_buffers
    assert "1.running_mean" in stored
    for name, buffer in module._adversary.own_buffers.items():
        assert torch.equal(stored[name], buffer)
    # A checkpoint is a picture: what comes after does not change it.
    assert all(torch.equal(a, b) for a, b in zip(drawn(module), drawn(other), strict=True))


def test_a_teacher_is_what_to_agree_with():
    image, one_hot = batches()[0]
    losses = []
    for reference in (None, EmaReference(torch.nn.Conv2d(1, 4, 1)), 9 * one_hot):
        module = ranked(0)
        loss = module.adversarial_loss(
            module.network, image, lambda output: 0.0, reference=reference
        )
        losses.append(float(loss.detach()))
    assert len(set(losses)) == 3
