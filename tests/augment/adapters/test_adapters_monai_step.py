"""The engine's step: MONAI's own but for a loss more, event by event."""

from typing import NamedTuple

import pytest
import torch
from torch.nn import functional

pytest.importorskip("monai")
pytest.importorskip("ignite")

from monai.data import MetaTensor
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys

from augment import Adversary, Ascent, EmaReference, classic_chain
from augment.adapters import monai_step
from augment.adapters.for_monai import AdversarialUpdate
from augment.segmentation import UNet

EVENTS = [
    IterationEvents.FORWARD_COMPLETED, IterationEvents.LOSS_COMPLETED,
    IterationEvents.BACKWARD_COMPLETED, IterationEvents.MODEL_COMPLETED,
]  # fmt: skip


class Scaled(torch.nn.Module):
    """A network that takes more than an image."""

    def __init__(self):
        super().__init__()
        self.inner = UNet(widths=(2, 3))

    def forward(self, image, factor=1.0, *, shift=0.0):
        return self.inner(image) * factor + shift


class Counted(torch.optim.SGD):
    """An optimizer that says when it steps and forgets gradients."""

    def __init__(self, parameters, seen):
        super().__init__(parameters, lr=0.1)
        self.seen = seen

    def step(self, *given, **named):
        self.seen.append("step")
        return super().step(*given, **named)

    def zero_grad(self, set_to_none=True):
        self.seen.append("zero")
        super().zero_grad(set_to_none=set_to_none)


def adversary(**changes):
    return Adversary(chain=classic_chain(), generator=torch.Generator().manual_seed(0),
                     ascent=Ascent(steps=1), **changes)  # fmt: skip


def data(count, shape=(16, 24)):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (count, *shape), generator=generator)
    one_hot = functional.one_hot(labels, 4).movedim(-1, 1).float()
    return [
        {"image": i, "label": t}
        for i, t in zip(torch.rand(count, 1, *shape, generator=generator), one_hot, strict=True)
    ]


def with_arguments(batch, device, non_blocking, **options):
    return batch["image"], batch["label"], (torch.tensor(0.5),), {"shift": torch.tensor(0.1)}


def engine(update, *, count=7, network=None, seen=None, **options):
    """Return a trainer that notes what happens, batches of one sample."""
    torch.manual_seed(0)
    network, seen = network or Scaled(), [] if seen is None else seen

    def inferer(image, net, *given, **named):
        seen.append("inferer")
        return net(image, *given, **named)

    loader = torch.utils.data.DataLoader(data(count), batch_size=1)
    made = SupervisedTrainer(
        device=torch.device("cpu"), network=network, iteration_update=update, inferer=inferer,
        optimizer=Counted(network.parameters(), seen), decollate=False,
        loss_function=functional.cross_entropy,
        **{"max_epochs": 2, "train_data_loader": loader} | options,
    )  # fmt: skip
    for event in EVENTS:
        made.add_event_handler(
            event, lambda e, name: seen.append((name, sorted(e.state.output))), event.value
        )
    return made


@pytest.mark.parametrize("prepare", [None, with_arguments], ids=["pairs", "arguments"])
@pytest.mark.parametrize("parts", [1, 3])
def test_without_weight_the_step_is_monais_own(parts, prepare):
    options = {"accumulation_steps": parts, "optim_set_to_none": True}
    options |= {} if prepare is None else {"prepare_batch": prepare}
    found = []
    for update in (None, AdversarialUpdate(adversary(), spacing=(1.4, 1.9), weight=0.0)):
        seen, losses = [], []
        made = engine(update, seen=seen, **options)
        made.add_event_handler(
            IterationEvents.MODEL_COMPLETED,
            lambda e, kept: kept.append(e.state.output["loss"].detach()), losses,
        )  # fmt: skip
        made.run()
        found.append((seen, losses, list(made.network.parameters())))
    assert found[0][0] == found[1][0]
    assert found[0][0].count("step") == {1: 14, 3: 6}[parts]
    assert torch.equal(torch.stack(found[0][1]), torch.stack(found[1][1]))
    for one, other in zip(found[0][2], found[1][2], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("prepare", [None, with_arguments], ids=["pairs", "arguments"])
def test_with_weight_only_passes_are_more(prepare):
    options = {"accumulation_steps": 3} | ({} if prepare is None else {"prepare_batch": prepare})
    plain, robust = [], []
    engine(None, seen=plain, **options).run()
    made = engine(AdversarialUpdate(adversary(), spacing=(1.4, 1.9)), seen=robust, **options)
    made.run()
    assert robust.count("inferer") >= 3 * plain.count("inferer")
    assert [s for s in robust if s != "inferer"] == [s for s in plain if s != "inferer"]


def test_gradients_of_parts_of_a_step_add_up_to_their_mean():
    """The step after two batches is that of half the sum of their losses."""
    made = engine(
        AdversarialUpdate(adversary(), spacing=(1.4, 1.9)), count=2, accumulation_steps=2,
        max_epochs=1,
    )  # fmt: skip
    losses, before = [], [p.detach().clone() for p in made.network.parameters()]
    made.add_event_handler(
        IterationEvents.LOSS_COMPLETED, lambda e: losses.append(e.state.output["loss"])
    )
    made.add_event_handler(
        IterationEvents.LOSS_COMPLETED,
        lambda e: gradients.append(
            torch.autograd.grad(losses[-1], made.network.parameters(), retain_graph=True)
        ),
    )
    gradients = []
    made.run()
    for old, new, one, other in zip(before, made.network.parameters(), *gradients, strict=True):
        torch.testing.assert_close(new.detach(), old - 0.1 * (one + other) / 2)


def test_mixed_precision_is_the_engines_own(monkeypatch):
    """What amp_kwargs ask for is given to autocast, and the scaler takes the step."""
    asked, autocast = [], torch.autocast

    def spy(kind, **named):
        if kind == "cuda":
            asked.append(named)
        return autocast("cpu", **named) if kind == "cuda" else autocast(kind, **named)

    monkeypatch.setattr(torch, "autocast", spy)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    monkeypatch.setattr(torch.cuda.amp, "GradScaler", lambda: scaler)
    made = engine(
        AdversarialUpdate(adversary(), spacing=(1.4, 1.9)), count=1, max_epochs=1,
        amp=True, amp_kwargs={"dtype": torch.bfloat16},
    )  # fmt: skip
    before = [p.detach().clone() for p in made.network.parameters()]
    made.run()
    assert asked == [{"dtype": torch.bfloat16}]
    assert made.state.output["pred"].dtype == torch.bfloat16
    assert any(
        not torch.equal(a, b) for a, b in zip(before, made.network.parameters(), strict=True)
    )


def test_handlers_may_change_the_prediction_and_metadata_stay():
    affine = torch.diag(torch.tensor([1.4, 1.9, 8.0, 1.0], dtype=torch.float64))

    def prepare(batch, device, non_blocking, **options):
        return MetaTensor(batch["image"], affine=affine), MetaTensor(batch["label"], affine=affine)

    made = engine(
        AdversarialUpdate(adversary(), spacing=(1.4, 1.9)), count=1, max_epochs=1,
        prepare_batch=prepare,
    )  # fmt: skip

    def spoil(e):
        assert isinstance(e.state.output["pred"], MetaTensor)
        e.state.output["pred"] = e.state.output["pred"] * float("nan")

    made.add_event_handler(IterationEvents.FORWARD_COMPLETED, spoil)
    made.run()
    assert made.state.output["loss"].isnan()
    for key in (CommonKeys.IMAGE, CommonKeys.LABEL, CommonKeys.PRED):
        assert torch.equal(made.state.output[key].affine, affine)


def test_slices_of_the_search_lie_along_z(monkeypatch):
    """Volumes come as (X, Y, Z); chains shift and tilt slices along their first axis."""
    shapes, straight = [], []
    image = data(1, shape=(16, 24, 6))[0]
    network = torch.nn.Conv3d(1, 4, 3, padding=1)
    network.register_forward_pre_hook(lambda module, given: straight.append(given[0].shape[2:]))
    of = monai_step.adversarial_loss

    def spy(net, turned, *given, **named):
        shapes.append((tuple(turned.shape[2:]), named["spacing"]))
        return of(net, turned, *given, **named)

    monkeypatch.setattr(monai_step, "adversarial_loss", spy)
    made = engine(
        AdversarialUpdate(adversary(), spacing=(1.4, 1.9, 8.0)), network=network, max_epochs=1,
        train_data_loader=torch.utils.data.DataLoader([image], batch_size=1),
    )  # fmt: skip
    made.run()
    assert shapes == [((6, 24, 16), (8.0, 1.9, 1.4))]
    assert set(straight) == {(16, 24, 6)}
    assert made.state.output["pred"].shape == (1, 4, 16, 24, 6)


class Pair(NamedTuple):
    fine: torch.Tensor
    scores: torch.Tensor


def test_outputs_of_any_build_are_turned_and_turned_back():
    tensor, scores = torch.rand(2, 3, 4, 5, 6), torch.rand(2, 7)
    stacked = torch.rand(2, 2, 3, 4, 5, 6)
    output = {"a": [tensor, scores], "b": (tensor,), "c": Pair(tensor, scores), "d": stacked}
    turned = monai_step._turned(output, 3)
    assert turned["a"][0].shape == turned["c"].fine.shape == (2, 3, 6, 5, 4)
    assert turned["d"].shape == (2, 2, 3, 6, 5, 4)
    assert turned["a"][1] is scores
    back = monai_step._turned(turned, 3)
    assert torch.equal(back["b"][0], tensor)
    assert torch.equal(back["d"], stacked)
    assert isinstance(back["c"], Pair)


def test_a_teacher_is_asked_by_the_inferer():
    seen, network = [], Scaled()
    teacher = EmaReference(network)
    update = AdversarialUpdate(adversary(), spacing=(1.4, 1.9), reference=teacher)
    made = engine(update, count=2, network=network, seen=seen, max_epochs=1)
    plain = []
    engine(AdversarialUpdate(adversary(), spacing=(1.4, 1.9)), count=2, seen=plain, max_epochs=1,
           network=Scaled()).run()  # fmt: skip
    made.add_event_handler(IterationEvents.MODEL_COMPLETED, lambda e: teacher.update(e.network))
    made.run()
    assert teacher.updates == 2
    assert seen.count("inferer") >= plain.count("inferer") + 1
    with pytest.raises(ValueError, match=r"reference must be a function .* got Tensor"):
        AdversarialUpdate(adversary(), spacing=(1.4, 1.9), reference=torch.rand(1))


def run_once(update, prepare):
    return engine(update, count=1, max_epochs=1, prepare_batch=prepare).run()


@pytest.mark.filterwarnings("ignore")
def test_what_cannot_go_with_changed_images_is_refused():
    def image_like(batch, device, non_blocking, **options):
        return batch["image"], batch["label"], (), {"shift": batch["image"]}

    def three(batch, device, non_blocking, **options):
        return batch["image"], batch["label"], ()

    def listed(batch, device, non_blocking, **options):
        return [batch["image"]], batch["label"]

    plain = AdversarialUpdate(adversary(), spacing=(1.4, 1.9))
    part = AdversarialUpdate(adversary(share=0.5), spacing=(1.4, 1.9))
    taught = AdversarialUpdate(adversary(), spacing=(1.4, 1.9), reference=lambda x: x)
    for update, prepare, message in (
        (plain, image_like, r"argument 'shift' .* has the voxels of the image, \(16, 24\)"),
        (plain, three, r"prepare_batch must give .* got \['Tensor', 'Tensor', 'tuple'\]"),
        (plain, listed, r"prepare_batch must give .* got \['list', 'Tensor'\]"),
        (part, with_arguments, r"cannot go with share < 1, got 1 args and \['shift'\]"),
        (taught, with_arguments, "cannot go with a reference"),
    ):
        with pytest.raises(ValueError, match=message):
            run_once(update, prepare)
    with pytest.raises(ValueError, match="batchdata must be the batch of this iteration"):
        plain(None, None)


def test_the_network_is_guarded_behind_the_inferer():
    """Running statistics are those of the images themselves, as without the adversary."""
    found = []
    for update in (None, AdversarialUpdate(adversary(), spacing=(1.4, 1.9))):
        network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.BatchNorm2d(4))
        made = engine(update, count=1, max_epochs=1, network=network)
        with torch.no_grad():
            network[0].weight.fill_(0.1)
            network[0].bias.zero_()
        made.run()
        found.append(network[1].running_mean)
        assert int(network[1].num_batches_tracked) == 1
    assert torch.equal(*found)


def test_only_what_can_do_without_exchange_is_taken_for_distributed():
    """A search of a distributed network must not exchange gradients, and makes more passes."""
    made = engine(None, count=1)
    assert not hasattr(monai_step._Inferred(made, made.network, (), {}), "no_sync")
    made.network.no_sync = lambda: "quiet"
    assert monai_step._Inferred(made, made.network, (), {}).no_sync() == "quiet"
