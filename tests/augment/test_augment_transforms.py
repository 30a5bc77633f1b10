"""Laws of every transform: zeros change nothing, samples are alone, bounds hold at any size."""

import math

import pytest
import torch

from augment import (
    Affine,
    BiasField,
    Blur,
    Contrast,
    Flip,
    Gamma,
    GaussianNoise,
    Gibbs,
    KSpaceMotion,
    Lattice,
    LowResolution,
    Morph,
    RandomConvolution,
    RicianNoise,
    SliceCut,
    SliceShift,
    SliceThickness,
)
from augment.transforms.axes import coarse_matrix

BOTH = [Affine(), Flip(), Morph(), BiasField(), GaussianNoise(), RicianNoise(), Gamma(),
        Contrast(), Blur(), LowResolution(), KSpaceMotion(), KSpaceMotion(order="sequential"),
        Gibbs(), RandomConvolution()]  # fmt: skip
STACKS = [SliceShift(), SliceCut(), SliceThickness(thickness_mm=14.0)]
CASES = [(t, d) for d in (2, 3) for t in BOTH] + [(t, 3) for t in STACKS]
each = pytest.mark.parametrize(("transform", "ndim"), CASES, ids=lambda v: getattr(v, "name", v))


@each
def test_zeros_change_nothing_bit_for_bit(kit, transform, ndim):
    lattice = kit.lattice_of(ndim)
    image = kit.image_of(lattice)
    params = transform.sample(lattice, generator=kit.seeded()).mapped(torch.zeros_like)
    assert torch.equal(transform.apply(image, params, lattice), image)


@each
def test_a_sample_does_not_depend_on_its_batch(kit, transform, ndim):
    lattice = kit.lattice_of(ndim)
    image = kit.image_of(lattice)
    params = transform.sample(lattice, generator=kit.seeded(1))
    together = transform.apply(image, params, lattice)
    for i in range(lattice.batch):
        alone = params.mapped(lambda t, i=i: t[i : i + 1])
        one = transform.apply(image[i : i + 1], alone, lattice.part(torch.tensor([i])))
        torch.testing.assert_close(one[0], together[i], rtol=1e-5, atol=1e-4)


@each
def test_draws_are_within_bounds_and_use_no_global_randomness(kit, transform, ndim):
    lattice = kit.lattice_of(ndim, batch=16)
    before = torch.get_rng_state()
    params = transform.sample(lattice, generator=kit.seeded(2))
    again = transform.sample(lattice, generator=kit.seeded(2))
    assert torch.equal(params.free, again.free)
    assert torch.equal(before, torch.get_rng_state())
    assert (transform.strength(params.free, lattice) <= 1 + 1e-5).all()
    torch.testing.assert_close(transform.project(params, lattice).free, params.free)


@each
def test_projection_brings_anything_into_bounds_and_stays_there(kit, transform, ndim):
    lattice = kit.lattice_of(ndim)
    params = transform.sample(lattice, generator=kit.seeded(3))
    inside = transform.project(params.mapped(lambda t: 30 * t + 0.1), lattice)
    assert (transform.strength(inside.free, lattice) <= 1 + 1e-5).all()
    again = transform.project(inside, lattice)
    torch.testing.assert_close(again.free, inside.free)


@each
def test_gradients_by_free_parameters_agree_with_differences(kit, transform, ndim):
    if transform.name == "Flip":
        return
    shape = {2: (9, 11), 3: (4, 6, 7)}[ndim]
    lattice = Lattice(shape=shape, spacing=kit.SHAPES[ndim][1], batch=1, channels=1)
    image = torch.rand(1, 1, *shape, dtype=torch.float64, generator=kit.seeded())
    image = torch.nn.functional.avg_pool2d(image.flatten(0, 1), 3, 1, 1).view(image.shape)
    params = transform.sample(lattice, generator=kit.seeded(5)).mapped(lambda t: 0.5 * t.double())
    free = params.free.requires_grad_()
    weights = torch.rand(image.shape, dtype=torch.float64, generator=kit.seeded(6))

    def value(free):
        return (transform.apply(image, params.with_free(free), lattice) * weights).sum()

    (slope,) = torch.autograd.grad(value(free), free)
    assert slope.isfinite().all()
    direction = torch.randn(free.shape, dtype=torch.float64, generator=kit.seeded(7))
    step = 1e-6
    difference = (value(free + step * direction) - value(free - step * direction)) / (2 * step)
    torch.testing.assert_close((slope * direction).sum(), difference, rtol=1e-4, atol=1e-6)


def physical(transform, params, lattice, image):
    """Return the strength of every sample in the transform's own unit."""
    if isinstance(transform, Morph):
        velocity = transform.velocity_mm(params.free, lattice)
        return velocity.square().sum(1).flatten(1).mean(1).sqrt()
    if isinstance(transform, BiasField):
        ratio = transform.apply(image, params, lattice) / image
        return ratio.log().abs().flatten(1).amax(1)
    if isinstance(transform, GaussianNoise):
        change = transform.apply(image, params, lattice) - image
        return change.flatten(1).square().mean(1).sqrt() / image.flatten(1).std(1)
    raise AssertionError(transform)


@pytest.mark.parametrize("transform", [Morph(), BiasField(), GaussianNoise()])
@pytest.mark.parametrize("same", ["field of view", "spacing"])
def test_strength_is_the_same_at_any_size(kit, transform, same):
    found = []
    for size, coarse in ((64, 5.6), (256, 1.4)):
        spacing = (coarse,) * 2 if same == "field of view" else (1.4, 1.4)
        lattice = Lattice(shape=(size, size), spacing=spacing, batch=24)
        image = torch.rand(24, 1, size, size, generator=kit.seeded()) + 0.5
        params = transform.sample(lattice, generator=kit.seeded(8))
        bound = transform.project(params.mapped(lambda t: 1e9 * t), lattice)
        found.append(physical(transform, bound, lattice, image).mean())
    assert abs(found[1] / found[0] - 1) < 0.02


@pytest.mark.parametrize(
    "transform", [Affine(), BiasField(), Gamma(), Contrast()], ids=lambda t: t.name
)
def test_a_change_is_the_same_on_a_lattice_four_times_as_fine(kit, transform):
    """One scene of 250 mm, 64 and 253 pixels wide: every fourth pixel shows the same change."""
    found = []
    for finer in (1, 4):
        size = 63 * finer + 1
        lattice = Lattice(shape=(size, size), spacing=(4.0 / finer,) * 2, batch=2)
        place = torch.arange(size) * (4.0 / finer)
        image = 2 + torch.sin(place / 40).view(-1, 1) * torch.cos(place / 31)
        image = image.expand(2, 1, -1, -1)
        params = transform.sample(lattice, generator=kit.seeded(9))
        changed = transform.apply(image, params, lattice) - image
        found.append(changed[..., ::finer, ::finer])
    coarse, fine = (change[..., 8:-8, 8:-8] for change in found)
    assert (coarse - fine).square().mean().sqrt() <= 0.02 * fine.square().mean().sqrt() + 1e-6


def test_blur_has_the_width_that_it_says_in_mm(kit):
    for spacing in ((1.0, 1.0), (0.5, 1.25)):
        lattice = Lattice(shape=(81, 65), spacing=spacing)
        image = torch.zeros(1, 1, 81, 65)
        image[0, 0, 40, 32] = 1.0
        blur = Blur(sigma_mm=3.0)
        params = blur.sample(lattice, generator=kit.seeded())
        spread = blur.apply(image, params.with_free(torch.ones(1, 1)), lattice)[0, 0]
        offsets = (torch.arange(65) - 32) * spacing[1]
        variance = (spread.sum(0) * offsets.square()).sum() / spread.sum()
        assert math.sqrt(float(variance)) == pytest.approx(3.0, rel=0.01)


def test_coarse_sampling_keeps_lines_and_loses_detail():
    matrix = coarse_matrix(torch.tensor([1.0, 2.0, 2.7], dtype=torch.float64), 41)
    line = torch.linspace(-1, 1, 41, dtype=torch.float64)
    assert torch.equal(matrix[0], torch.eye(41, dtype=torch.float64))
    inner = slice(4, -4)
    torch.testing.assert_close((matrix @ line)[:, inner], line[inner].expand(3, -1))
    checks = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(21)[:41]
    assert ((matrix[1:] @ checks).abs().mean(1) < 1.01).all()


def test_gibbs_removes_the_high_frequencies_alone(kit):
    lattice = Lattice(shape=(32, 40), spacing=(1.0, 1.0))
    w = torch.arange(40, dtype=torch.float32)
    low, high = (torch.cos(2 * torch.pi * k * w / 40).expand(1, 1, 32, 40) for k in (3, 17))
    gibbs = Gibbs(lost=0.5)
    params = gibbs.sample(lattice, generator=kit.seeded()).with_free(torch.ones(1, 2))
    found = gibbs.apply(low + high, params, lattice)
    torch.testing.assert_close(found, low.contiguous(), atol=1e-5, rtol=0)


def test_motion_of_all_other_shots_ghosts_along_the_phase_axis(kit):
    lattice = Lattice(shape=(32, 40), spacing=(1.0, 1.0))
    image = torch.zeros(1, 1, 32, 40)
    image[..., 8, 20] = 1.0
    motion = KSpaceMotion(shift_mm=2.0, shots=2)
    params = motion.sample(lattice, generator=kit.seeded())
    shift = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    along_h = params.with_free(shift).mapped(lambda t: t)
    along_h = type(params)(free=shift, fixed=torch.zeros(1, 1))
    moved = motion.apply(image, along_h, lattice)[0, 0]
    # Odd lines carry the half of the image that differs from its copy half a field away.
    assert moved[8, 20] == pytest.approx(0.5, abs=1e-5)
    assert moved[24, 20] == pytest.approx(0.5, abs=1e-5)
    assert moved[10, 20] == pytest.approx(0.5, abs=1e-5)
    assert moved[26, 20] == pytest.approx(-0.5, abs=1e-5)


def test_cut_slices_are_dark_and_no_longer_covered(kit):
    lattice = kit.lattice_of(3)
    image = kit.image_of(lattice) + 1
    cut = SliceCut(cut_mm=16.0)
    params = cut.sample(lattice, generator=kit.seeded()).with_free(torch.tensor([[1.0, 0.5]] * 3))
    found, kept = cut.apply(image, params, lattice), cut.coverage(params, lattice)
    slices = kept[0, 0, :, 0, 0]
    torch.testing.assert_close(slices, torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0]))
    assert torch.equal(found[:, :, 2:6], image[:, :, 2:6])
    assert (found[:, :, 0].flatten(2).amax(2) == image.flatten(2).amin(2)).all()


def test_slices_shift_by_millimeters_and_back(kit):
    lattice = kit.lattice_of(3)
    shift = SliceShift(shift_mm=3.8)
    params = shift.sample(lattice, generator=kit.seeded()).with_free(torch.ones(3, 2, 7))
    forth, back = (shift.pull_back(params, lattice, inverse=i) for i in (False, True))
    torch.testing.assert_close(forth[:, 1], torch.full((3, 7, 30, 25), 3.8 / 1.4))
    torch.testing.assert_close(forth[:, 2], torch.full((3, 7, 30, 25), 2.0))
    assert not forth[:, 0].any()
    assert torch.equal(forth, -back)


def test_rician_noise_lifts_the_dark_more_than_the_bright(kit):
    lattice = Lattice(shape=(64, 64), spacing=(1.0, 1.0))
    image = torch.zeros(1, 1, 64, 64)
    image[..., 32:] = 1.0
    noise = RicianNoise(sd=0.2)
    params = noise.sample(lattice, generator=kit.seeded())
    change = noise.apply(image, params, lattice) - image
    assert change[..., :32].mean() > 5 * change[..., 32:].mean().abs()


@pytest.mark.parametrize("make", [
    lambda: Affine(rotation_deg=-1.0), lambda: Affine(scale=0.5), lambda: Morph(steepest=2.0),
    lambda: BiasField(factor=0.9), lambda: GaussianNoise(sd=float("nan")),
    lambda: Gibbs(lost=1.0), lambda: Blur(sigma_mm=float("inf")), lambda: Gamma(exponent=0.2),
    lambda: RandomConvolution(share=1.5), lambda: Flip(probability=2.0),
])  # fmt: skip
def test_impossible_bounds_are_refused(make):
    with pytest.raises(ValueError, match="must be a finite number from"):
        make()


def test_stack_transforms_refuse_images_without_slices(kit):
    for transform in STACKS:
        with pytest.raises(ValueError, match="needs images \\(B, C, D, H, W\\)"):
            transform.sample(kit.lattice_of(2), generator=kit.seeded())


@pytest.mark.parametrize(("image", "message"), [
    (torch.zeros(0, 1, 8, 8), "at least one sample"),
    (torch.zeros(1, 8, 8), "must be floating point of shape"),
    (torch.zeros(1, 1, 8, 8, dtype=torch.long), "must be floating point of shape"),
])  # fmt: skip
def test_batches_that_are_no_images_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        Lattice.of(image, spacing=(1.0, 1.0))
