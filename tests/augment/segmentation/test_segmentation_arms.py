"""The slot for augmentation: what reaches the network, when, and how much it weighs."""

import pytest
import torch

from augment.segmentation import (
    Augmented,
    Batch,
    Consistent,
    Disagreed,
    Plain,
    UNet,
    segmentation_losses,
)
from augment.segmentation.arms import settled
from augment.segmentation.build import build_arm, default_chain
from augment.segmentation.config import AugmentationConfig
from cardiogen.engine.fit import StepInfo

ARMS = ("none", "random", "consistency", "adversarial")


def step(number=5, steps=10):
    return StepInfo(step=number, steps=steps, epoch=0, kl_weight=0.0, free_bits=0.0,
                    device=torch.device("cpu"))  # fmt: skip


def batch(size=3):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(size, 1, 16, 24, generator=generator)
    target = torch.zeros(size, 4, 16, 24)
    target[:, 0] = 1
    target[:, :, 4:11, 6:15] = torch.tensor([0.0, 1, 0, 0]).view(4, 1, 1)
    return Batch(image, target, torch.full((size, 4, 4), float("nan"), dtype=torch.float64))


def supervised(output, target):
    return segmentation_losses(output, target, spacing=(1.9, 2.1))


def run(arm, network, *, number=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return arm.losses(network, batch(), supervised, step=step(number), generator=generator)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return UNet(widths=(2, 3, 4))


def test_no_augmentation_is_the_supervised_loss(network):
    image, target, _ = batch()
    assert torch.equal(run(Plain(), network)["loss"], supervised(network(image), target)["loss"])


@pytest.mark.parametrize(
    ("share", "least", "most"), [(0.0, 0, 0), (0.5, 100, 200), (1.0, 300, 300)]
)
def test_a_share_of_the_batch_is_augmented_image_and_labels_alike(share, least, most):
    def turned_round(image, one_hot, generator):
        return image.flip(-1), one_hot.flip(-1)

    image, target, _ = whole = batch(300)
    arm = Augmented(turned_round, share)
    moved, labels, _ = arm.changed(whole, torch.Generator().manual_seed(3))
    changed = [n for n in range(300) if not torch.equal(moved[n], image[n])]
    assert least <= len(changed) <= most
    for n in changed:
        assert torch.equal(moved[n], image[n].flip(-1))
        assert torch.equal(labels[n], target[n].flip(-1))
    assert torch.equal(image, batch(300)[0])


@pytest.mark.parametrize("arm", ARMS)
def test_arms_are_functions_of_their_generator(network, arm):
    made = build_arm(AugmentationConfig(arm=arm, ramp_share=0.0), spacing=(1.9, 2.1))
    state = torch.get_rng_state()
    one, same = (run(made, network)["loss"] for _ in range(2))
    assert torch.equal(one, same)
    assert torch.equal(torch.get_rng_state(), state)
    if arm != "none":
        assert not torch.equal(one, run(made, network, seed=2)["loss"])


@pytest.mark.parametrize("arm", ARMS)
def test_arms_leave_gradients_and_weights_alone_until_their_loss_is_used(network, arm):
    made = build_arm(AugmentationConfig(arm=arm, ramp_share=0.0), spacing=(1.9, 2.1))
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    loss = run(made, network)["loss"]
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in network.parameters())
    assert all(torch.equal(before[n], t) for n, t in network.state_dict().items())
    assert all(p.requires_grad for p in network.parameters())
    loss.backward()
    assert any((p.grad != 1).any() for p in network.parameters())


def test_a_search_never_ends_below_its_start(network):
    made = build_arm(
        AugmentationConfig(arm="adversarial", ramp_share=0.0, ascent_steps=2), spacing=(1.9, 2.1)
    )
    for seed in range(5):
        found = run(made, network, seed=seed)
        assert float(found["consistency"]) >= float(found["start"]) - 1e-6


def test_the_weight_of_agreement_rises_and_is_left_out_between_searches(network):
    calls = []

    def disagreement(network, batch, output, generator):
        calls.append(1)
        return Disagreed(output.mean() * 0 + 3.0, torch.tensor(2.0))

    arm = Consistent(disagreement, weight=0.8, ramp_share=0.5, every=2)
    plain = float(run(Plain(), network)["loss"].detach())
    totals = {
        n: float(run(arm, network, number=n)["loss"].detach()) - plain for n in (0, 1, 2, 4, 6, 8)
    }
    assert totals == pytest.approx({0: 0, 1: 0, 2: 0.96, 4: 1.92, 6: 2.4, 8: 2.4}, abs=1e-5)
    assert len(calls) == 4
    assert run(arm, network, number=1).keys() == run(arm, network, number=2).keys()


def test_labels_can_be_the_reference(network):
    config = AugmentationConfig(arm="consistency", ramp_share=0.0, reference="labels")
    whole = batch()
    made = build_arm(config, spacing=(1.9, 2.1))
    generator = torch.Generator().manual_seed(1)
    perfect = 40 * whole.target - 20

    def knows(images):
        return perfect

    term = made.disagreement(knows, whole, perfect, generator).loss
    guess = torch.zeros_like(perfect)
    other = made.disagreement(knows, whole, guess, torch.Generator().manual_seed(1)).loss
    # What the network said of the clean image plays no part.
    assert torch.equal(term, other)


def test_strength_scales_the_bounds():
    weak, usual = default_chain(0.5).transforms, default_chain().transforms
    assert weak[0].rotation_deg == pytest.approx(usual[0].rotation_deg / 2)
    assert weak[2].factor == pytest.approx(usual[2].factor ** 0.5)


@pytest.mark.parametrize("arm", ["consistency", "adversarial"])
def test_letting_go_of_the_supervised_graph_changes_no_gradient(arm, network, monkeypatch):
    made = build_arm(AugmentationConfig(arm=arm, weight=2.0), spacing=(1.9, 2.1))

    def gradients():
        network.zero_grad()
        losses = run(made, network)
        losses["loss"].backward()
        return losses["loss"].detach(), [p.grad.clone() for p in network.parameters()]

    found, theirs = gradients()
    monkeypatch.setattr("augment.segmentation.arms.settled", lambda loss, network: loss)
    wanted, ours = gradients()
    torch.testing.assert_close(found, wanted)
    for a, b in zip(theirs, ours, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_a_settled_loss_has_no_graph_but_its_gradients(network):
    next(network.parameters()).requires_grad_(False)
    image, target, _ = batch()
    loss = supervised(network(image), target)["loss"]
    kept = settled(loss, network)
    assert torch.equal(kept, loss)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()
    kept.backward()
    wanted = torch.autograd.grad(
        supervised(network(image), target)["loss"], list(network.parameters())[1:]
    )
    for p, gradient in zip(list(network.parameters())[1:], wanted, strict=True):
        torch.testing.assert_close(p.grad, gradient)
    with torch.no_grad():
        plain = supervised(network(image), target)["loss"]
        assert settled(plain, network) is plain
