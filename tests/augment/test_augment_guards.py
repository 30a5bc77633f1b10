"""Teacher, ramp, watch over classes, and what diagnostics say."""

import copy
import math

import pytest
import torch
from torch import nn

from augment import (
    Adversary,
    Affine,
    Ascent,
    Chain,
    CollapseMonitor,
    Contrast,
    Diagnostics,
    EmaReference,
    Gamma,
    Ramp,
)
from cardiogen.ops import one_hot

SPACING = (2.0, 2.0)


def test_the_teacher_is_the_moving_average():
    net = nn.Linear(2, 1)
    teacher = EmaReference(net, decay=0.5)
    start = net.weight.detach().clone()
    with torch.no_grad():
        net.weight += 1.0
    teacher.update(net)
    share = 1 - min(0.5, 2 / 11)
    torch.testing.assert_close(teacher.teacher.weight, start + share)
    for _ in range(60):
        teacher.update(net)
    torch.testing.assert_close(teacher.teacher.weight, net.weight)


def test_the_teacher_predicts_alone_and_can_be_stored(kit, batch_net):
    image, _ = kit.phantoms(2, seed=3)
    teacher = EmaReference(batch_net)
    before = torch.get_rng_state()
    found = teacher(image)
    assert torch.equal(before, torch.get_rng_state())
    assert not found.requires_grad
    torch.testing.assert_close(found, copy.deepcopy(batch_net).eval()(image))
    assert batch_net.training
    teacher.update(batch_net)
    other = EmaReference(kit.trained_net(steps=1, seed=9))
    other.load(teacher.state())
    assert other.updates == 1
    torch.testing.assert_close(other(image), teacher(image))


@pytest.mark.parametrize("shape", ["linear", "sigmoid"])
def test_ramps_rise_from_nothing_to_the_weight(shape):
    ramp = Ramp(weight=2.0, start=10, length=100, shape=shape)
    values = [ramp.at(step) for step in range(150)]
    assert values[:10] == [0.0] * 10
    assert values[110:] == [2.0] * 40
    assert values == sorted(values)
    halfway = 1.0 if shape == "linear" else 2.0 * math.exp(-1.25)
    assert ramp.at(60) == pytest.approx(halfway)
    assert Ramp(weight=0.5).at(0) == 0.5


def batch(found):
    """Return labels of three classes, and predictions that find ``found`` of class 2."""
    labels = torch.arange(3).repeat_interleave(12).view(1, 1, 6, 6)
    hot = one_hot(labels, 3)
    probs = hot.clone()
    probs[:, 2] *= found
    probs[:, 0] += 1 - probs.sum(1)
    return probs, hot


def test_a_class_that_vanishes_stops_the_term_until_it_is_back():
    monitor = CollapseMonitor(patience=3, decay=0.5)
    for _ in range(5):
        monitor.update(*batch(0.9))
    assert monitor.weight() == 1.0
    torch.testing.assert_close(monitor.recall, torch.tensor([1.0, 1.0, 0.9]))
    for _ in range(8):
        monitor.update(*batch(0.0))
    assert monitor.collapsed == {2}
    assert monitor.weight() == 0.0
    monitor.update(*batch(0.3))
    assert monitor.collapsed == {2}
    for _ in range(4):
        monitor.update(*batch(0.9))
    assert monitor.weight() == 1.0


def test_a_class_that_is_not_there_is_not_judged():
    monitor = CollapseMonitor(patience=1)
    probs, hot = batch(1.0)
    gone = hot.clone()
    gone[:, 0] += gone[:, 2]
    gone[:, 2] = 0
    for _ in range(20):
        monitor.update(probs * 0 + gone, gone)
    assert monitor.weight() == 1.0
    assert monitor.recall[2].isnan()
    with pytest.raises(ValueError, match="one_hot must have the shape of probs"):
        monitor.update(probs, hot[:, :2])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_predictions_that_are_not_finite_are_a_collapse(value):
    monitor = CollapseMonitor(patience=3, decay=0.5)
    probs, hot = batch(0.9)
    for _ in range(5):
        monitor.update(probs, hot)
    for _ in range(6):
        monitor.update(torch.full_like(probs, value), hot)
    assert monitor.collapsed == {0, 1, 2}
    assert monitor.weight() == 0.0
    assert monitor.recall.isfinite().all()
    for _ in range(4):
        monitor.update(probs, hot)
    assert monitor.weight() == 1.0


def test_a_network_that_gives_nan_from_the_first_batch_on_is_collapsed():
    monitor = CollapseMonitor(patience=2)
    probs, hot = batch(1.0)
    for _ in range(2):
        monitor.update(probs * math.nan, hot)
    assert monitor.collapsed == {0, 1, 2}


def test_a_voxel_of_nan_costs_its_own_class_alone():
    monitor = CollapseMonitor(patience=1)
    probs, hot = batch(1.0)
    # Class 2 lies at the end: its last voxel goes from every class's probability.
    probs[..., -1, -1] = math.nan
    monitor.update(probs, hot)
    torch.testing.assert_close(monitor.recall, torch.tensor([1.0, 1.0, 11 / 12]))
    with pytest.raises(ValueError, match="labels must be finite"):
        monitor.update(hot, hot * math.nan)
    with pytest.raises(ValueError, match="found and there must be"):
        monitor.add(torch.ones(2), torch.ones(2))


def test_diagnostics_tell_rises_strengths_and_the_worst_transform(kit, instance_net):
    image, _ = kit.phantoms(24, seed=7)
    strong = Affine(rotation_deg=90.0, scale=1.0, shear=0.0, shift_mm=0.0)
    chain = Chain(transforms=(strong, Contrast(factor=1.01, brightness_sd=0.01)), most=1)
    one = Adversary(
        chain=chain, generator=torch.Generator().manual_seed(3), ascent=Ascent(), every=2
    )
    found = Diagnostics()
    for part in image.split(1):
        found.add(one.consistency_loss(instance_net, part, spacing=SPACING))
    summary = found.summary()
    assert summary["steps"] == found.searched == 12
    assert summary["risen"] >= 0.9
    assert summary["rise"] > 1
    assert 0 < summary["strength/Affine"] <= 1
    # A turned phantom is one that this net has never seen; a hundredth of contrast is nothing.
    assert summary["worst/3"] == "Affine"
    assert Diagnostics().add(one.consistency_loss(instance_net, image, spacing=SPACING))
    with pytest.raises(ValueError, match="at least one result"):
        Diagnostics().worst_transform(0)


def test_sums_of_diagnostics_add_up(kit, instance_net):
    image, _ = kit.phantoms(6, seed=7)
    chain = Chain(transforms=(Affine(), Contrast(), Gamma()), most=1)
    one = Adversary(chain=chain, generator=torch.Generator().manual_seed(0), ascent=Ascent())
    names = ("Affine", "Contrast", "Gamma")
    whole, total = Diagnostics(), dict.fromkeys(Diagnostics.sum_names(names, 4), 0.0)
    for part in image.split(1):
        result, alone = one.consistency_loss(instance_net, part, spacing=SPACING), Diagnostics()
        whole.add(result)
        alone.add(result)
        sums = alone.sums(names, 4)
        assert list(sums) == list(total)
        total = {name: total[name] + value / 6 for name, value in sums.items()}
    again = Diagnostics.of_sums(total, names, 4).summary()
    # Means over steps: all but the number of steps is the same.
    assert again.pop("steps") == pytest.approx(1.0)
    wanted = whole.summary()
    assert set(again) == set(wanted) - {"steps"}
    for name, value in again.items():
        assert value == (wanted[name] if "worst" in name else pytest.approx(wanted[name]))
    empty = Diagnostics.of_sums(Diagnostics().sums(names, 4), names, 4)
    assert empty.summary() == {"steps": 0.0}


def test_a_teacher_is_stored_with_the_module_it_belongs_to(kit, batch_net):
    module = nn.ModuleDict({"network": batch_net, "teacher": EmaReference(batch_net)}).train()
    assert batch_net.training
    assert not module["teacher"].teacher.training
    module["teacher"].update(batch_net)
    state = {name: t.clone() for name, t in module.state_dict().items()}
    module["teacher"].update(kit.trained_net(steps=1, seed=9))
    module.load_state_dict(state)
    assert module["teacher"].updates == 1


@pytest.mark.parametrize(("make", "message"), [
    (lambda: EmaReference(nn.Linear(1, 1), decay=1.0), "decay must lie"),
    (lambda: Ramp(weight=-1.0), "weight must be finite and not negative"),
    (lambda: Ramp(weight=math.inf), "weight must be finite"),
    (lambda: Ramp(start=-1), "start and length must not be negative"),
    (lambda: Ramp(shape="step"), "shape must be linear or sigmoid"),
    (lambda: CollapseMonitor(least=0.5, recovered=0.2), "0 <= least <= recovered"),
    (lambda: CollapseMonitor(patience=0), "patience must be at least 1"),
])  # fmt: skip
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
