"""Chains: drawn, replayed, composed; labels that stay labels; masks of what is still there."""

import pytest
import torch

from augment import (
    Affine,
    BiasField,
    Blur,
    Chain,
    Contrast,
    Draw,
    Flip,
    Gamma,
    GaussianNoise,
    Lattice,
    Morph,
    Params,
    RandomConvolution,
    RicianNoise,
    SliceCut,
    classic_chain,
    full_chain,
    placed,
)
from cardiogen.ops import argmax_labels, one_hot


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_draw_applies_again_to_the_same_bits(kit, ndim):
    lattice = kit.lattice_of(ndim)
    image = kit.image_of(lattice)
    before = torch.get_rng_state()
    draw = full_chain(ndim, most=None).sample(lattice, generator=kit.seeded(3))
    again = full_chain(ndim, most=None).sample(lattice, generator=kit.seeded(3))
    first, second = draw.apply(image), again.apply(image)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.image, second.image)
    assert torch.equal(first.image, draw.apply(image).image)
    assert first.image.shape == image.shape
    assert first.image.isfinite().all()


def test_length_order_and_choice_are_random_within_their_limits(kit):
    lattice = kit.lattice_of(2)
    transforms = (Affine(), BiasField(), Gamma(), Contrast(), GaussianNoise())
    generator = kit.seeded()
    shuffled = Chain(transforms=transforms, least=2, most=4)
    names = [tuple(t.name for t in shuffled.sample(lattice, generator=generator).transforms)
             for _ in range(60)]  # fmt: skip
    assert {len(n) for n in names} == {2, 3, 4}
    assert all(len(set(n)) == len(n) for n in names)
    assert len({frozenset(n) for n in names}) > 10
    assert any(n[0] == "Gamma" for n in names)
    kept = Chain(transforms=transforms, least=2, most=4, shuffle=False)
    order = [t.name for t in transforms]
    for _ in range(20):
        found = [order.index(t.name) for t in kept.sample(lattice, generator=generator).transforms]
        assert found == sorted(found)


def test_a_transform_of_probability_zero_leaves_samples_alone(kit):
    lattice = kit.lattice_of(2, batch=64)
    image = kit.image_of(lattice)
    chain = Chain(transforms=(Affine(), Flip(), Gamma()), least=3, probability=0.0)
    assert torch.equal(chain.sample(lattice, generator=kit.seeded()).apply(image).image, image)
    half = Chain(transforms=(Contrast(),), probability=0.5)
    moved = half.sample(lattice, generator=kit.seeded()).apply(image).image
    untouched = (moved == image).flatten(1).all(1).double().mean()
    assert 0.3 < untouched < 0.7


@pytest.mark.parametrize("ndim", [2, 3])
def test_labels_stay_probabilities_and_follow_flips_exactly(kit, ndim):
    lattice = kit.lattice_of(ndim, channels=1)
    codes = torch.randint(0, 4, (3, 1, *lattice.shape), generator=kit.seeded())
    image, hot = codes.float(), one_hot(codes, 4)
    moved, probs = full_chain(ndim, most=None).augment(
        image, codes, spacing=lattice.spacing, generator=kit.seeded(), classes=4
    )
    torch.testing.assert_close(probs.sum(1), torch.ones_like(probs[:, 0]))
    assert probs.min() > -1e-6
    flip = Chain(transforms=(Flip(probability=1.0),))
    moved, probs = flip.augment(image, hot, spacing=lattice.spacing, generator=kit.seeded())
    assert torch.equal(argmax_labels(probs).float(), moved)
    assert torch.equal(moved, image.flip(-1, -2))


def test_labels_are_linear_in_the_labels(kit):
    lattice = kit.lattice_of(2)
    draw = Chain(transforms=(Affine(), Morph())).sample(lattice, generator=kit.seeded())
    applied = draw.apply(kit.image_of(lattice))
    a, b = (torch.rand(3, 4, *lattice.shape, generator=kit.seeded(i)).softmax(1) for i in (1, 2))
    mixed = applied.labels(0.3 * a + 0.7 * b)
    torch.testing.assert_close(mixed, 0.3 * applied.labels(a) + 0.7 * applied.labels(b))


def test_intensities_before_the_geometry_move_with_the_image(kit):
    lattice = kit.lattice_of(2, channels=1)
    image = kit.image_of(lattice)
    bias, flip = BiasField(factor=4.0), Flip(probability=1.0)
    drawn = [t.sample(lattice, generator=kit.seeded(4)) for t in (bias, flip)]
    early = Draw((bias, flip), tuple(drawn), lattice).apply(image).image
    late = Draw((flip, bias), tuple(reversed(drawn)), lattice).apply(image).image
    biased = bias.apply(image, drawn[0], lattice)
    torch.testing.assert_close(early, biased.flip(-1, -2))
    torch.testing.assert_close(late, bias.apply(image.flip(-1, -2), drawn[0], lattice))
    assert (early - late).abs().max() > 0.1


def test_cut_slices_leave_the_valid_region_and_the_labels(kit):
    lattice = Lattice(shape=(6, 8, 8), spacing=(10.0, 1.0, 1.0))
    cut, flip = SliceCut(cut_mm=20.0), Flip(axes=(3,), probability=1.0)
    free = Params(free=torch.tensor([[1.0, 0.0]]))
    turned = flip.sample(lattice, generator=kit.seeded())
    image = torch.rand(1, 1, 6, 8, 8, generator=kit.seeded()) + 1
    hot = one_hot(torch.ones(1, 1, 6, 8, 8, dtype=torch.long), 2)
    for order in (((cut, flip), (free, turned)), ((flip, cut), (turned, free))):
        applied = Draw(*order, lattice).apply(image)
        gone = (applied.image == image.min()).flatten(3).all(3)[0, 0]
        valid, back = (m[0, 0, :, 0, 0] for m in (applied.valid, applied.valid_back))
        assert torch.equal(valid, (~gone).float())
        assert torch.equal(back.flip(0), valid)
        labels = applied.labels(hot)[0, :, :, 0, 0]
        torch.testing.assert_close(labels[1], valid)
        torch.testing.assert_close(labels[0], 1 - valid)


def test_float64_and_half_precision_keep_their_dtype(kit):
    lattice = kit.lattice_of(2)
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        image = kit.image_of(lattice).to(dtype)
        draw = placed(full_chain(2, most=None).sample(lattice, generator=kit.seeded()), image)
        moved = draw.apply(image).image
        assert moved.dtype == dtype
        assert moved.isfinite().all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = draw.apply(kit.image_of(lattice)).image
    torch.testing.assert_close(inside, draw.apply(kit.image_of(lattice)).image)


def test_padding_is_zeros_where_asked(kit):
    lattice = Lattice(shape=(20, 20), spacing=(1.0, 1.0))
    image = torch.ones(1, 1, 20, 20)
    affine = Affine(rotation_deg=0.0, scale=1.0, shear=0.0, shift_mm=6.0)
    params = Params(free=torch.tensor([[0.0, 0.0, 0.0, 0.0, 1.0, 0.0]]))
    draw = Draw((affine,), (params,), lattice)
    assert torch.equal(draw.apply(image).image, image)
    shown = draw.apply(image, padding="zeros")
    torch.testing.assert_close(shown.image, shown.valid)
    assert shown.valid.sum() == 14 * 20


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Chain(transforms=()), "one transform or more"),
    (lambda: Chain(transforms=(Blur(),), least=2), "0 <= least <= most <= 1"),
    (lambda: Chain(transforms=(3,)), "one transform or more, got .3"),
    (lambda: Chain(transforms=(Blur(),), least=0.5), "must be whole"),
    (lambda: Chain(transforms=(Blur(),), probability=1.5), "probability must lie"),
])  # fmt: skip
def test_impossible_chains_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_bad_batches_are_refused_with_what_is_wrong(kit):
    chain = classic_chain()
    options = {"spacing": (1.0, 1.0), "generator": kit.seeded()}
    image = torch.zeros(2, 1, 16, 16)
    labels = torch.zeros(2, 1, 16, 16, dtype=torch.long)
    with pytest.raises(ValueError, match="finite, got NaN or infinity in sample 1"):
        chain.augment(torch.stack([image[0], image[1] * float("nan")]), **options)
    with pytest.raises(ValueError, match="labels must lie in 0 to 3, got 0 to 7"):
        chain.augment(image, labels + 7 * (torch.arange(2).view(2, 1, 1, 1)), classes=4, **options)
    with pytest.raises(ValueError, match="classes must be given"):
        chain.augment(image, labels, **options)
    with pytest.raises(ValueError, match="batch and voxels of image"):
        chain.augment(image, torch.zeros(2, 4, 16, 8), **options)
    with pytest.raises(ValueError, match="at least one sample"):
        chain.augment(image[:0], **options)
    with pytest.raises(ValueError, match="spacing must be 2 positive numbers"):
        chain.augment(image, spacing=(1.0, 0.0), generator=kit.seeded())
    draw = chain.sample(Lattice(shape=(8, 8), spacing=(1.0, 1.0)), generator=kit.seeded())
    with pytest.raises(ValueError, match="shape of its draw"):
        draw.apply(image)


def test_presets_exist_for_planes_and_volumes_alone():
    assert len(full_chain(3).transforms) == len(full_chain(2).transforms) + 3
    with pytest.raises(ValueError, match="ndim must be 2 or 3"):
        full_chain(4)


def test_images_of_other_channels_move_alike(kit):
    noises = (GaussianNoise(sd=1e-6), RicianNoise(sd=1e-6), RandomConvolution())
    chain = Chain(transforms=(*noises, Affine(), Morph()), least=5, probability=0.7)
    for seed in range(4):
        moved = []
        for channels in (1, 3):
            lattice = kit.lattice_of(2, channels=channels)
            draw = chain.sample(lattice, generator=kit.seeded(seed))
            moved.append(draw.apply(kit.image_of(lattice)).geometry.displacement)
        torch.testing.assert_close(moved[0], moved[1], rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"channels and shape of its draw, \(3, .* got \(1, "):
        draw.apply(kit.image_of(kit.lattice_of(2, channels=1)))


def test_codes_may_be_floats_but_nothing_between(kit):
    image, codes = kit.phantoms(2, size=24)
    chain = Chain(transforms=(Affine(),))

    def labels_of(labels, classes=None):
        return chain.augment(
            image, labels, spacing=(1.4, 1.4), generator=kit.seeded(), classes=classes
        )[1]

    torch.testing.assert_close(labels_of(codes.float(), 4), labels_of(codes, 4), rtol=0, atol=0)
    for labels, classes, message in (
        (codes.float() * 9, 4, "labels must"),
        (codes.float() + 0.5, 4, "must be codes 0 to 3, got fractions"),
        (codes.float(), None, "must be probabilities in .0, 1., got 0 to 3"),
        (-one_hot(codes, 4), None, "must be probabilities"),
    ):
        with pytest.raises(ValueError, match=message):
            labels_of(labels, classes)


def test_a_single_slice_of_a_volume_moves_in_its_plane(kit):
    image, codes = kit.phantoms(6, size=48)
    turned = Affine(rotation_deg=0.0, scale=1.0, shear=0.0, shift_mm=0.0, tilt_deg=15.0)
    for transform in (turned, Affine(scale=1.0, shift_mm=0.0), SliceCut(), Morph()):
        chain = Chain(transforms=(transform,))
        moved, labels = chain.augment(
            image.unsqueeze(2), codes.unsqueeze(2), spacing=(8.0, 1.4, 1.4),
            generator=kit.seeded(), classes=4,
        )  # fmt: skip
        before = (codes > 0).flatten(1).sum(dim=1)
        kept = (1 - labels[:, 0]).flatten(1).sum(dim=1) / before
        assert (kept - 1).abs().max() < 0.06, transform
        still = torch.equal(moved[:, :, 0], image)
        assert still == (transform is turned or isinstance(transform, SliceCut))
