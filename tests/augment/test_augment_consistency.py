"""Disagreement of predictions: closed forms, and the same value at any size and batch."""

import math

import pytest
import torch

from augment import (
    KL,
    Affine,
    Chain,
    Consistency,
    Contour,
    DeepSupervision,
    Flip,
    Head,
    Lattice,
    Morph,
    MultiHead,
    label_heads,
    sigmoid_output,
    softmax_output,
)

ALL = Consistency(kl=1.0, mse=1.0, dice=1.0, contour=1.0)


def nothing(lattice):
    chain = Chain(transforms=(Affine(),), least=0, most=0)
    return chain.sample(lattice, generator=torch.Generator()).apply(
        torch.zeros(lattice.batch, 1, *lattice.shape)
    )


def predictions(shape, batch=2, seed=0, channels=4):
    """Return probabilities that are background at the border, so that tiles fit together."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(batch, channels, *shape, generator=generator, dtype=torch.float64)
    edge = torch.ones(shape, dtype=torch.bool)
    edge[tuple(slice(2, -2) for _ in shape)] = False
    logits = torch.where(edge, 0.0, logits)
    return logits.softmax(1)


def test_divergence_is_that_of_the_textbook():
    a = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64).view(1, 3, 1, 1).expand(1, 3, 5, 4)
    b = torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64).view(1, 3, 1, 1).expand(1, 3, 5, 4)
    wanted = sum(p * math.log(p / q) for p, q in ((0.7, 0.1), (0.2, 0.3), (0.1, 0.6)))
    found = KL(smoothing=1e-5).mean(a, b, spacing=(1.0, 1.0))
    assert found.item() == pytest.approx(wanted, rel=1e-3)
    assert KL().mean(a, a, spacing=(1.0, 1.0)).item() == 0.0
    regions = KL(exclusive=False, smoothing=1e-5).mean(a[:, :1], b[:, :1], spacing=(1.0, 1.0))
    binary = 0.7 * math.log(7) + 0.3 * math.log(0.3 / 0.9)
    assert regions.item() == pytest.approx(binary, rel=1e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_contours_of_ramps_differ_by_their_slopes_per_mm(axis):
    shape, spacing = (6, 7, 9), (8.0, 1.4, 1.9)
    along = [shape[a] if a == axis else 1 for a in range(3)]
    ramp = torch.arange(shape[axis], dtype=torch.float64).view(1, 1, *along) * 0.01
    ramp = ramp.expand(1, 1, *shape)
    found = Contour(length_mm=2.0).mean(ramp, 3 * ramp, spacing=spacing)
    assert found.item() == pytest.approx((2.0 * 0.02 / spacing[axis]) ** 2)


@pytest.mark.parametrize("shape", [(12, 15), (8, 9, 11)])
def test_losses_do_not_depend_on_size_or_batch(shape):
    spacing = (1.4,) * len(shape)
    a, b = (predictions(shape, seed=i) for i in (1, 2))
    once = ALL(
        [Head(probs=a)], [Head(probs=b)], nothing(Lattice(shape=shape, spacing=spacing, batch=2))
    )
    tiles = (1, 1, *[3] * len(shape))
    many = Lattice(shape=tuple(3 * n for n in shape), spacing=spacing, batch=2)
    large = ALL([Head(probs=a.repeat(tiles))], [Head(probs=b.repeat(tiles))], nothing(many))
    torch.testing.assert_close(large, once, rtol=1e-5, atol=1e-7)
    twice = Lattice(shape=shape, spacing=spacing, batch=4)
    both = ALL([Head(probs=torch.cat([a, b]))], [Head(probs=torch.cat([b, a]))], nothing(twice))
    torch.testing.assert_close(both[:2], once, rtol=1e-5, atol=1e-7)
    assert (once > 0.1).all()


def test_voxels_out_of_view_do_not_count():
    lattice = Lattice(shape=(40, 44), spacing=(1.4, 1.1), batch=2)
    draw = Chain(transforms=(Affine(rotation_deg=60.0, shift_mm=20.0),)).sample(
        lattice, generator=torch.Generator().manual_seed(0)
    )
    applied = draw.apply(torch.zeros(2, 1, 40, 44))
    reference = predictions((40, 44))
    hidden = applied.valid_back == 0
    assert 0.1 < hidden.double().mean() < 0.9
    other = torch.where(hidden, predictions((40, 44), seed=5), reference)
    seen = applied.labels(reference)
    same = [ALL([Head(probs=r)], [Head(probs=seen)], applied) for r in (reference, other)]
    torch.testing.assert_close(*same)


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_network_that_follows_the_geometry_agrees_with_itself(exclusive):
    lattice = Lattice(shape=(96, 90), spacing=(1.4, 1.4), batch=2)
    chain = Chain(transforms=(Affine(shift_mm=5.0), Morph(), Flip()), least=3)
    applied = chain.sample(lattice, generator=torch.Generator().manual_seed(1)).apply(
        torch.zeros(2, 1, 96, 90)
    )
    h, w = torch.meshgrid(torch.linspace(-1, 1, 96), torch.linspace(-1, 1, 90), indexing="ij")
    disc = torch.sigmoid(12 * (0.5 - (h.square() + (w - 0.1).square()).sqrt()))
    probs = torch.stack([1 - disc, disc] if exclusive else [disc]).expand(2, -1, -1, -1)
    head = Head(probs=probs, exclusive=exclusive)
    moved = Head(probs=applied.labels(probs, exclusive=exclusive), exclusive=exclusive)
    agreeing, not_following = (ALL([head], [other], applied) for other in (moved, head))
    assert (agreeing < 0.005).all()
    assert (not_following > 20 * agreeing).all()


def test_confidence_leaves_unsure_voxels_out():
    shape = (12, 15)
    lattice = Lattice(shape=shape, spacing=(1.0, 1.0), batch=2)
    reference, other = predictions(shape), predictions(shape, seed=3)
    sure = reference.amax(1, keepdim=True) >= 0.8
    changed = torch.where(sure, other, predictions(shape, seed=4))
    strict = Consistency(mse=1.0, kl=1.0, confidence=0.8)
    found = [strict([Head(probs=reference)], [Head(probs=p)], nothing(lattice))
             for p in (other, changed)]  # fmt: skip
    torch.testing.assert_close(*found)


def test_coarse_heads_are_compared_on_their_own_lattice():
    lattice = Lattice(shape=(33, 41), spacing=(1.4, 1.4), batch=2)
    draw = Chain(transforms=(Morph(), Flip()), least=2).sample(
        lattice, generator=torch.Generator().manual_seed(0)
    )
    applied = draw.apply(torch.zeros(2, 1, 33, 41))
    fine = predictions((33, 41)).float()
    coarse = fine[..., ::2, ::2]
    heads = DeepSupervision(weights=(1.0, 0.5))([fine.log(), coarse.log()])
    assert [h.weight for h in heads] == [1.0, 0.5]
    alone = [ALL([h], [h], applied) for h in heads]
    both = ALL(heads, heads, applied)
    torch.testing.assert_close(both, (alone[0] + 0.5 * alone[1]) / 1.5)


def test_adapters_take_what_networks_return():
    logits = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    (head,) = softmax_output(logits)
    assert head.exclusive
    assert head.probs.dtype == torch.float32
    torch.testing.assert_close(head.probs.sum(1), torch.ones(2, 6, 5))
    assert softmax_output([logits, logits[..., :3]])[0].probs.shape == logits.shape
    (region,) = sigmoid_output(logits)
    assert not region.exclusive
    several = MultiHead(heads={"a": softmax_output, "b": sigmoid_output})
    found = several({"a": logits, "b": logits, "boundary": None})
    assert [h.exclusive for h in found] == [True, False]
    assert label_heads(head.probs)[0].probs.shape == logits.shape


@pytest.mark.parametrize(("call", "message"), [
    (lambda: softmax_output(torch.zeros(1, 1, 4, 4)), "at least 2 channels"),
    (lambda: softmax_output({"out": 1}), "output must be a tensor or a list"),
    (lambda: DeepSupervision()(torch.zeros(1)), "output must be a list of tensors"),
    (lambda: MultiHead(heads={"a": softmax_output})({"b": 1}), "a mapping with \\['a'\\]"),
    (lambda: Consistency(kl=0.0), "weights must not be negative nor all 0"),
    (lambda: Consistency(mse=-1.0), "weights must not be negative"),
    (lambda: Consistency(kl=math.nan), "weights must be finite"),
    (lambda: Consistency(kl=math.inf), "weights must be finite"),
    (lambda: Consistency(contour=math.nan), "weights must be finite"),
    (lambda: Consistency(confidence=math.nan), "confidence must lie"),
    (lambda: Consistency(confidence=1.0), "confidence must lie"),
    (lambda: KL(smoothing=0.0), "smoothing must lie"),
    (lambda: Contour(length_mm=0.0), "length_mm must be positive"),
])  # fmt: skip
def test_impossible_requests_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_heads_that_do_not_match_are_refused():
    lattice = Lattice(shape=(12, 15), spacing=(1.0, 1.0), batch=2)
    head, other = (Head(probs=predictions((12, 15), channels=c)) for c in (4, 3))
    with pytest.raises(ValueError, match="reference must have the 2 heads"):
        ALL([head], [head, head], nothing(lattice))
    with pytest.raises(ValueError, match="reference must have the shape of the prediction"):
        ALL([head], [other], nothing(lattice))
