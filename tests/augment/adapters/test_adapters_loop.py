"""A plain loop, and nnU-Net's step on a stand-in with nnU-Net's own attributes."""

import importlib
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

import augment
from augment import (
    Adversary,
    Ascent,
    DeepSupervision,
    EmaReference,
    classic_chain,
    sigmoid_output,
)
from augment.adapters import AdversarialStep, adversarial_loss
from augment.adapters.nnunet_step import spacing_of, weight_of
from augment.segmentation import UNet


def data(size=2):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(size, 1, 16, 24, generator=generator)
    labels = torch.randint(0, 4, (size, 16, 24), generator=generator)
    return image, labels


def normed():
    """A network in training mode with running statistics."""
    return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.BatchNorm2d(4))


def adversary(**changes):
    return Adversary(chain=classic_chain(), generator=torch.Generator().manual_seed(0), **changes)


def test_the_example_runs(run_example):
    names = run_example("loop")
    assert torch.isfinite(names["loss"].detach())
    assert names["result"] is not None


def test_the_loss_is_the_supervised_one_and_the_disagreement():
    torch.manual_seed(0)
    network, (image, labels) = UNet(widths=(2, 3)), data()

    def supervised(output):
        return functional.cross_entropy(output, labels)

    loss, output, result = adversarial_loss(
        network, image, supervised, adversary=adversary(), spacing=(1.4, 1.9), weight=0.5
    )
    torch.testing.assert_close(loss, supervised(output) + 0.5 * result.loss)
    loss, output, result = adversarial_loss(
        network, image, supervised, adversary=adversary(), spacing=(1.4, 1.9), weight=0.0
    )
    assert result is None
    torch.testing.assert_close(loss, supervised(output))


@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf")])
def test_a_weight_that_is_no_weight_is_refused(weight):
    with pytest.raises(ValueError, match=f"weight must not be negative or infinite, got {weight}"):
        adversarial_loss(
            UNet(widths=(2, 3)), data()[0], lambda output: 0.0,
            adversary=adversary(), spacing=(1, 1), weight=weight,
        )  # fmt: skip


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("weight", [0.0, 1.0])
@pytest.mark.parametrize("nothing", [0.0, 0, torch.zeros(())])
def test_images_without_labels_give_a_loss_to_learn_from(nothing, weight, every):
    """Also where nothing is to be learned: gradients are zero, not missing."""
    network, robust = UNet(widths=(2, 3)), adversary(every=every, calls=1)
    loss, _, result = adversarial_loss(
        network, data()[0], lambda output: nothing,
        adversary=robust, spacing=(1.4, 1.9), weight=weight,
    )  # fmt: skip
    loss.backward()
    gradients = [p.grad for p in network.parameters()]
    assert all(g is not None for g in gradients)
    learned = weight > 0 and every == 1
    assert any(bool(g.any()) for g in gradients) is learned
    assert float(loss.detach()) == (pytest.approx(float(result.loss.detach())) if learned else 0)


@pytest.mark.parametrize("wrong", [None, torch.zeros(2), "0"])
def test_a_supervised_loss_of_several_numbers_or_none_is_refused(wrong):
    with pytest.raises(ValueError, match="supervised must return one number or a tensor of one"):
        adversarial_loss(
            UNet(widths=(2, 3)), data()[0], lambda output: wrong,
            adversary=adversary(), spacing=(1.4, 1.9), weight=0,
        )  # fmt: skip


def test_the_semi_supervised_example_runs(run_example):
    names = run_example("loop", 1)
    assert torch.isfinite(names["loss"].detach())
    assert names["teacher"].updates == 3
    assert len(names["result"].index) == len(names["both"]) == 6


def test_a_teacher_is_what_to_agree_with():
    network, teacher, (image, _) = UNet(widths=(2, 3)).eval(), UNet(widths=(2, 3)), data()
    steady, found = EmaReference(teacher), []
    for reference in (None, network(image), steady, teacher.eval(), steady(image)):
        _, _, result = adversarial_loss(
            network, image, lambda output: 0.0,
            adversary=adversary(), spacing=(1.4, 1.9), reference=reference,
        )  # fmt: skip
        found.append(result.loss.detach())
        assert not result.reference[0].probs.requires_grad
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[2], found[3])
    assert torch.equal(found[2], found[4])
    assert not torch.equal(found[0], found[2])


def test_a_teacher_is_asked_only_where_it_counts_and_left_as_it_was():
    teacher, asked = normed(), []
    before = [b.clone() for b in teacher.buffers()]
    teacher.register_forward_pre_hook(lambda module, given: asked.append(torch.is_grad_enabled()))
    robust = adversary(every=2)
    for weight in (0.0, 1.0, 1.0, 1.0):
        adversarial_loss(
            UNet(widths=(2, 3)), data()[0], lambda output: 0.0,
            adversary=robust, spacing=(1.4, 1.9), weight=weight, reference=teacher,
        )  # fmt: skip
    assert asked == [False, False]
    assert teacher.training
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.buffers(), strict=True))
    assert all(p.requires_grad for p in teacher.parameters())


def test_a_reference_of_another_batch_is_refused():
    network, image = UNet(widths=(2, 3)), data(3)[0]
    with pytest.raises(ValueError, match="for all 3 samples of image, got one for 1"):
        adversarial_loss(
            network, image, lambda output: 0.0,
            adversary=adversary(), spacing=(1.4, 1.9), reference=network(image[:1]),
        )  # fmt: skip


def test_statistics_of_changed_images_stay_out_of_references():
    """Neither a teacher, whose buffers are others, nor an unchanged image is read with them."""
    network, (image, _) = normed(), data()
    robust = adversary(statistics="separate")
    for _ in range(2):
        robust.consistency_loss(network, 5 * image, spacing=(1.4, 1.9))
    assert robust.own_buffers
    teacher = torch.nn.Sequential(torch.nn.BatchNorm2d(1), torch.nn.Conv2d(1, 4, 1)).eval()
    network.eval()
    for reference, asked in ((None, network), (teacher, teacher)):
        result = robust.consistency_loss(network, image, spacing=(1.4, 1.9), reference=reference)
        assert torch.equal(result.reference[0].probs, asked(image).softmax(dim=1))


class PlainTrainer:
    """What nnU-Net 2.8's trainer offers to its training step, and that step."""

    def __init__(self, *, deep=True, regions=False):
        torch.manual_seed(0)
        self.device, self.local_rank = torch.device("cpu"), 0
        self.network = UNet(widths=(2, 3, 4), deep_supervision=deep)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.1, momentum=0.9)
        self.grad_scaler, self.current_epoch, self.num_epochs = None, 0, 10
        self.configuration_manager = SimpleNamespace(spacing=[1.4, 1.9])
        self.label_manager = SimpleNamespace(has_regions=regions)
        self.regions = regions

    def loss(self, output, target):
        pairs = (
            zip(output, target, strict=True) if isinstance(output, list) else [(output, target)]
        )
        if self.regions:
            return sum(functional.binary_cross_entropy_with_logits(o, t) for o, t in pairs)
        return sum(functional.cross_entropy(o, t[:, 0]) for o, t in pairs)

    def train_step(self, batch):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.network(batch["data"]), batch["target"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12)
        self.optimizer.step()
        return {"loss": loss.detach().cpu().numpy()}


class RobustTrainer(AdversarialStep, PlainTrainer):
    ramp_share = 0.5


def batch(*, deep=True, regions=False):
    image, labels = data()
    if regions:
        target = torch.stack([(labels > k).float() for k in range(4)], dim=1)
    else:
        target = labels[:, None]
    return {"data": image, "target": [target, target[..., ::2, ::2]] if deep else target}


@pytest.mark.parametrize("deep", [True, False])
def test_without_weight_the_step_is_nnu_nets_own(deep):
    plain, robust = PlainTrainer(deep=deep), RobustTrainer(deep=deep)
    for _ in range(3):
        one, other = (t.train_step(batch(deep=deep)) for t in (plain, robust))
        np.testing.assert_array_equal(one["loss"], other["loss"])
    for one, other in zip(*(t.network.parameters() for t in (plain, robust)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("deep", "regions"), [(True, False), (False, True), (True, True)])
def test_with_weight_the_adversary_is_learned_from(deep, regions):
    plain = PlainTrainer(deep=deep, regions=regions)
    robust = RobustTrainer(deep=deep, regions=regions)
    robust.current_epoch = 5
    given = batch(deep=deep, regions=regions)
    # The loss that is logged stays comparable: it is the supervised one.
    np.testing.assert_array_equal(*(t.train_step(given)["loss"] for t in (plain, robust)))
    apart = [
        not torch.equal(a, b)
        for a, b in zip(*(t.network.parameters() for t in (plain, robust)), strict=True)
    ]
    assert any(apart)
    assert (robust._adversary.output is sigmoid_output) is regions


def test_the_weight_rises_over_epochs_and_the_spacing_is_that_of_the_patch():
    trainer = RobustTrainer()
    weights = []
    for trainer.current_epoch in (0, 1, 5, 9):
        weights.append(weight_of(trainer))
    assert weights == pytest.approx([0, 0.2, 1, 1])
    three = SimpleNamespace(spacing=[8.0, 1.4, 1.9])
    assert spacing_of(three, torch.zeros(1, 1, 4, 4)) == (1.4, 1.9)
    assert spacing_of(three, torch.zeros(1, 1, 4, 4, 4)) == (8.0, 1.4, 1.9)


def test_an_adversary_may_look_at_all_levels():
    class Deep(RobustTrainer):
        def adversary(self):
            return adversary(output=DeepSupervision(weights=(1.0, 0.5)), ascent=Ascent(steps=2))

    trainer = Deep()
    trainer.current_epoch = 9
    assert np.isfinite(trainer.train_step(batch())["loss"])


def epochs_of(trainer, epochs, steps=3):
    """Train as nnU-Net does, and return the draws' places at the ends of steps."""
    places = []
    for trainer.current_epoch in epochs:
        for _ in range(steps):
            trainer.train_step(batch())
            places.append(trainer._adversary.generator.get_state())
    return places


class SparseTrainer(RobustTrainer):
    ramp_share, every = 0.0, 2


def test_a_continued_training_draws_what_one_without_a_break_does():
    """nnU-Net stores weights and the epoch, nothing of ours; ``every`` does not divide 3."""
    whole, later = SparseTrainer(), SparseTrainer()
    places = epochs_of(whole, [4, 5])
    first = SparseTrainer()
    epochs_of(first, [4])
    later.network.load_state_dict(first.network.state_dict())
    later.optimizer.load_state_dict(first.optimizer.state_dict())
    continued = epochs_of(later, [5])
    assert all(torch.equal(a, b) for a, b in zip(places[3:], continued, strict=True))
    assert not torch.equal(places[0], places[3])
    for one, other in zip(whole.network.parameters(), later.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_every_process_draws_its_own():
    places = []
    for rank in (0, 1):
        trainer = SparseTrainer()
        trainer.local_rank = rank
        places += epochs_of(trainer, [4], steps=1)
    assert not torch.equal(*places)


def test_a_trainer_may_agree_with_a_teacher():
    class Taught(RobustTrainer):
        ramp_share, teacher_decay = 0.0, 0.9

    plain, taught = RobustTrainer(), Taught()
    plain.ramp_share = 0.0
    for trainer in (plain, taught):
        epochs_of(trainer, [0], steps=3)
    assert taught._teacher.updates == 3
    assert plain._teacher is None
    pairs = zip(plain.network.parameters(), taught.network.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_a_teacher_is_of_the_network_itself_and_not_of_its_wrapper():
    """What torch.compile gives has the network as ``_orig_mod``; parameters are the same."""

    class Compiled(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self._orig_mod = inner

        def forward(self, image):
            return self._orig_mod(image)

    class Taught(RobustTrainer):
        ramp_share, teacher_decay = 0.0, 0.9

    trainer = Taught()
    trainer.network = Compiled(trainer.network)
    epochs_of(trainer, [0], steps=2)
    assert isinstance(trainer._teacher.teacher, UNet)
    weights = zip(trainer._teacher.teacher.parameters(), trainer.network.parameters(), strict=True)
    assert any(not torch.equal(mine, new) for mine, new in weights)


def load_trainer(monkeypatch):
    """Load the trainer's file as nnU-Net does: by its folder, with nnU-Net's base beside it."""
    name = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer"
    module = types.ModuleType(name)
    module.nnUNetTrainer = PlainTrainer
    for end in range(1, 5):
        parent = ".".join(name.split(".")[:end])
        monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.syspath_prepend(Path(augment.__file__).parent / "adapters" / "nnunet_trainers")
    return importlib.import_module("nnUNetTrainerCardiogen").nnUNetTrainerCardiogen


def test_the_shipped_trainer_takes_the_step(monkeypatch):
    trainer = load_trainer(monkeypatch)(deep=True)
    trainer.current_epoch = 9
    assert np.isfinite(trainer.train_step(batch())["loss"])
    assert trainer._adversary.calls == 1
    monkeypatch.delitem(sys.modules, "nnUNetTrainerCardiogen")
