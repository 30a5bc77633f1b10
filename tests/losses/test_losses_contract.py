"""What every energy term promises, over all of them and their variants."""

import inspect
from dataclasses import FrozenInstanceError, fields, replace

import pytest
import torch

import cardiogen.losses as losses
from cardiogen.losses import (
    LNCC,
    MI,
    MIND,
    MSE,
    NCC,
    NGF,
    NMI,
    TERMS,
    Bending,
    CrossEntropy,
    CycleClosure,
    Dice,
    Diffusion,
    Divergence,
    Elastic,
    EnergyTerm,
    Folding,
    Incompressibility,
    Jaccard,
    MultiScaleDice,
    TemporalSmoothness,
    TotalVariation,
)

SPACING = {2: (1.4, 1.9), 3: (8.0, 1.4, 1.9)}
SHAPES = {2: (9, 7), 3: (5, 7, 6)}
# Ranges are fixed because those of the data are constants of differentiation.
RANGES = {"fixed_range": (-4.0, 4.0), "moved_range": (-4.0, 4.0), "bins": 8}
ALL = [
    MSE(),
    MSE(sigma=0.3),
    NCC(),
    NCC(squared=True),
    LNCC(radius_mm=2.0),
    LNCC(radius_mm=2.0, squared=False),
    LNCC(radius_mm=2.0, window="gaussian"),
    MI(**RANGES),
    NMI(**RANGES),
    NGF(),
    MIND(distance_mm=1.5, radius_mm=1.5),
    Dice(),
    Jaccard(),
    CrossEntropy(),
    MultiScaleDice(scales_mm=(0.0, 2.0)),
    Diffusion(),
    Bending(),
    Elastic(lam=0.5),
    Divergence(),
    Incompressibility(),
    Incompressibility(form="log"),
    TotalVariation(),
    Folding(margin=0.5),
    TemporalSmoothness(order=1, periodic=False),
    TemporalSmoothness(),
    CycleClosure(),
    CycleClosure(given="path"),
]
PAIRS = [term for term in ALL if term.kind in ("image", "label")]
IMAGES = [term for term in ALL if term.kind == "image"]
FIELDS = [term for term in ALL if term.kind in ("field", "sequence")]
every_term = pytest.mark.parametrize("term", ALL, ids=repr)
every_pair = pytest.mark.parametrize("term", PAIRS, ids=repr)
every_field = pytest.mark.parametrize("term", FIELDS, ids=repr)
dimensions = pytest.mark.parametrize("ndim", [2, 3])


def inputs_of(term, ndim=3, batch=2, seed=0):
    """Return random float64 inputs of a term on the odd, anisotropic grid."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    shape = SHAPES[ndim]
    if term.kind == "image":
        fixed = random(batch, 2, *shape)
        return fixed, 0.6 * fixed + 0.5 * random(batch, 2, *shape)
    if term.kind == "label":
        return tuple(random(batch, 3, *shape).softmax(dim=1) for _ in range(2))
    if term.kind == "field":
        return (0.2 * random(batch, ndim, *shape),)
    return (0.2 * random(batch, 3, ndim, *shape),)


def block_mask(ndim):
    """Return a mask of the voxels near the first corner."""
    mask = torch.zeros(1, 1, *SHAPES[ndim], dtype=torch.bool)
    mask[(..., *[slice(0, 4)] * 2)] = True
    return mask


def test_all_terms_are_here_and_in_the_table():
    concrete = {
        thing
        for name in losses.__all__
        if inspect.isclass(thing := getattr(losses, name))
        and issubclass(thing, EnergyTerm)
        and not inspect.isabstract(thing)
    }
    assert concrete == set(TERMS.values()) == {type(term) for term in ALL}
    for name in losses.__all__:
        assert name in ("Kind", "Reduction", "Weight", "TERMS") or getattr(losses, name).__doc__


@every_term
def test_terms_are_values(term):
    same = replace(term)
    assert same == term
    assert hash(same) == hash(term)
    for field in fields(term):
        with pytest.raises(FrozenInstanceError, match="cannot assign"):
            setattr(term, field.name, 1.0)


@dimensions
@every_term
def test_mean_is_that_of_the_map_and_sum_is_times_voxels(term, ndim):
    inputs, spacing = inputs_of(term, ndim), SPACING[ndim]
    soft = torch.rand(1, 1, *SHAPES[ndim], generator=torch.Generator().manual_seed(1)).double()
    for mask, voxels in (
        (None, torch.Size(SHAPES[ndim]).numel()),
        (block_mask(ndim), block_mask(ndim).sum()),
        (soft, soft.sum()),
    ):
        found = term.map(*inputs, spacing=spacing, mask=mask)
        assert found.shape == (2, 1, *SHAPES[ndim])
        weights = torch.ones_like(found[:1]) if mask is None else mask
        wanted = (found * weights).flatten(1).sum(1) / weights.sum()
        mean = term.value(*inputs, spacing=spacing, mask=mask)
        torch.testing.assert_close(mean, wanted)
        total = term.value(*inputs, spacing=spacing, mask=mask, reduction="sum")
        torch.testing.assert_close(total, mean * voxels)


@dimensions
@every_term
def test_a_mask_of_ones_is_no_mask(term, ndim):
    inputs, spacing = inputs_of(term, ndim), SPACING[ndim]
    ones = torch.ones(1, 1, *SHAPES[ndim], dtype=torch.bool)
    for function in (term.map, term.mean):
        torch.testing.assert_close(
            function(*inputs, spacing=spacing, mask=ones), function(*inputs, spacing=spacing)
        )


@dimensions
@pytest.mark.parametrize("garbage", [float("nan"), 1e9])
@every_pair
def test_images_outside_the_mask_are_not_read(term, garbage, ndim):
    mask = block_mask(ndim)
    fixed, moved = inputs_of(term, ndim)
    moved.requires_grad_()
    clean = term.value(fixed, moved, spacing=SPACING[ndim], mask=mask)
    dirty = term.value(
        fixed.where(mask, garbage), moved.where(mask, garbage), spacing=SPACING[ndim], mask=mask
    )
    torch.testing.assert_close(dirty, clean, rtol=0, atol=0)
    slope = torch.autograd.grad(dirty.sum(), moved)[0]
    assert slope.isfinite().all()
    assert torch.count_nonzero(slope.where(mask, 0)) > 0
    assert torch.count_nonzero(slope.where(~mask, 0)) == 0


@dimensions
@every_field
def test_fields_far_from_the_mask_do_not_matter(term, ndim):
    mask = torch.zeros(1, 1, *SHAPES[ndim], dtype=torch.bool)
    mask[..., :2] = True  # differences reach two voxels, paths of three small steps three
    (field,) = inputs_of(term, ndim)
    changed = field.clone()
    changed[..., 5:] *= 2.0
    spacing = SPACING[ndim]
    assert not torch.equal(
        term.value(changed, spacing=spacing), term.value(field, spacing=spacing)
    )
    torch.testing.assert_close(
        term.value(changed, spacing=spacing, mask=mask),
        term.value(field, spacing=spacing, mask=mask),
        rtol=0, atol=0,
    )  # fmt: skip


@every_term
def test_an_empty_mask_costs_nothing(term):
    inputs = [t.requires_grad_() for t in inputs_of(term)]
    mask = torch.zeros(2, 1, *SHAPES[3])
    mask[1] = 1
    found = term.value(*inputs, spacing=SPACING[3], mask=mask)
    assert found[0] == 0
    whole = term.value(*inputs, spacing=SPACING[3])
    torch.testing.assert_close(found[1], whole[1])
    assert torch.autograd.grad(found.sum(), inputs[-1])[0].isfinite().all()


@dimensions
@every_term
def test_a_sample_alone_is_as_in_its_batch(term, ndim):
    inputs, spacing = inputs_of(term, ndim, batch=3), SPACING[ndim]
    batch = term.value(*inputs, spacing=spacing)
    for index in range(3):
        alone = term.value(*(t[index : index + 1] for t in inputs), spacing=spacing)
        torch.testing.assert_close(batch[index : index + 1], alone, rtol=1e-12, atol=1e-14)


@every_pair
def test_one_fixed_image_serves_a_batch(term):
    fixed, moved = inputs_of(term)
    shared = term.value(fixed[:1], moved, spacing=SPACING[3])
    repeated = term.value(fixed[:1].expand_as(fixed), moved, spacing=SPACING[3])
    torch.testing.assert_close(shared, repeated)


@dimensions
@every_term
def test_first_derivative(term, ndim):
    inputs = [t[:1].requires_grad_() for t in inputs_of(term, ndim)]
    mask = torch.rand(1, 1, *SHAPES[ndim], generator=torch.Generator().manual_seed(2)).double()
    for kept in (None, mask.where(mask > 0.3, 0)):
        assert torch.autograd.gradcheck(
            lambda *t, kept=kept: term.value(*t, spacing=SPACING[ndim], mask=kept),
            inputs,
            fast_mode=True,
        )


@every_term
def test_second_derivative_for_unrolled_solvers(term):
    inputs = [t[:1, ..., :4].requires_grad_() for t in inputs_of(term, 2)]
    assert torch.autograd.gradgradcheck(
        lambda *t: term.value(*t, spacing=SPACING[2]), inputs, fast_mode=True, atol=1e-4
    )


@every_term
def test_weights_of_every_form(term):
    inputs, spacing = inputs_of(term), SPACING[3]
    plain = term.value(*inputs, spacing=spacing)
    each = torch.tensor([0.5, 3.0], dtype=torch.float64, requires_grad=True)
    flat = torch.full((1, 1, *SHAPES[3]), 2.0, dtype=torch.float64)
    torch.testing.assert_close(term.value(*inputs, spacing=spacing, weight=2.0), 2 * plain)
    torch.testing.assert_close(term.value(*inputs, spacing=spacing, weight=flat), 2 * plain)
    found = term.value(*inputs, spacing=spacing, weight=each)
    torch.testing.assert_close(found, each * plain)
    torch.testing.assert_close(torch.autograd.grad(found.sum(), each)[0], plain)
    mask = block_mask(3)
    part = term.map(*inputs, spacing=spacing, mask=None) * mask
    torch.testing.assert_close(
        term.value(*inputs, spacing=spacing, weight=mask.double()), part.flatten(1).mean(1)
    )


@dimensions
@every_pair
def test_a_perfect_match_is_the_minimum(term, ndim):
    fixed, _ = inputs_of(term, ndim)
    if term.kind == "label":
        fixed = torch.nn.functional.one_hot(fixed.argmax(1), 3).movedim(-1, 1).double()
    spacing = SPACING[ndim]
    best = term.value(fixed, fixed, spacing=spacing)
    if not isinstance(term, MI | NMI | CrossEntropy):
        torch.testing.assert_close(best, torch.zeros_like(best), atol=1e-12, rtol=0)
    blurred = isinstance(term, MI | NMI)  # bins are blind to noise far below their width
    for size in (0.3, 3.0) if blurred else (0.02, 0.3, 3.0):
        noise = torch.randn(fixed.shape, generator=torch.Generator().manual_seed(3)).double()
        other = fixed + size * noise
        if term.kind == "label":
            other = (1 - size / 4) * fixed + size / 4 * noise.softmax(dim=1)
        assert (term.value(fixed, other, spacing=spacing) > best).all(), size


@every_field
def test_no_motion_costs_nothing(term):
    shape = (1, 3, *SHAPES[3]) if term.kind == "field" else (1, 4, 3, *SHAPES[3])
    field = torch.zeros(shape, requires_grad=True)
    found = term.value(field, spacing=SPACING[3])
    assert found == 0
    assert torch.autograd.grad(found.sum(), field)[0].isfinite().all()
    (moving,) = inputs_of(term)
    assert (term.value(moving, spacing=SPACING[3]) > 0).all()


@pytest.mark.parametrize("term", [t for t in FIELDS if t.kind == "field"], ids=repr)
def test_moving_everything_costs_nothing(term):
    (field,) = inputs_of(term)
    shift = torch.tensor([0.7, -2.0, 1.3], dtype=torch.float64).view(1, 3, 1, 1, 1)
    torch.testing.assert_close(
        term.map(field + shift, spacing=SPACING[3]), term.map(field, spacing=SPACING[3])
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("background", [0.0, 1.0, 1000.0])
@pytest.mark.parametrize("term", IMAGES, ids=repr)
def test_flat_backgrounds_are_harmless(term, background, dtype):
    """Flat with flat, flat with texture, and an organ on a large flat background."""
    flat = torch.full((1, 1, 9, 17, 15), background, dtype=dtype)
    organ = flat.clone()
    texture = torch.rand(3, 5, 5, generator=torch.Generator().manual_seed(4))
    organ[..., 3:6, 6:11, 5:10] += (texture * max(background, 1.0)).to(dtype)
    if isinstance(term, MI | NMI):
        term = replace(term, fixed_range=None, moved_range=None)
    for fixed, moved in ((flat, flat), (flat, organ), (organ, flat), (organ, organ.roll(1, -1))):
        moved = moved.clone().requires_grad_()
        voxels = term.map(fixed, moved, spacing=SPACING[3])
        assert voxels.dtype == torch.float32
        assert voxels.isfinite().all()
        value = term.value(fixed, moved, spacing=SPACING[3]).sum()
        slope = torch.autograd.grad(value, moved)[0]
        assert slope.isfinite().all()
        if not isinstance(term, MI | NMI | MSE):
            assert -1e-5 <= voxels.min() <= voxels.mean() <= 1 + 1e-5


@pytest.mark.parametrize("term", IMAGES, ids=repr)
def test_axes_of_one_voxel_are_planes(term):
    fixed, moved = inputs_of(term, 2)
    slab = term.value(fixed.unsqueeze(2), moved.unsqueeze(2), spacing=(8.0, *SPACING[2]))
    torch.testing.assert_close(slab, term.value(fixed, moved, spacing=SPACING[2]))


# The ten determinants of a slice hold the four of a plane unequally often.
@pytest.mark.parametrize("term", [t for t in FIELDS if not isinstance(t, Folding)], ids=repr)
def test_a_plane_in_a_single_slice_costs_the_same(term):
    (plane,) = inputs_of(term, 2)
    still = torch.zeros_like(plane.narrow(-3, 0, 1))
    slab = torch.cat([still, plane], dim=-3).unsqueeze(-3)
    torch.testing.assert_close(
        term.value(slab, spacing=(8.0, *SPACING[2])), term.value(plane, spacing=SPACING[2])
    )


UNIT_POWERS = {Bending: -2, TemporalSmoothness: 2, CycleClosure: 2}


@every_term
def test_the_unit_of_the_world_only_scales_the_value(term):
    """All lengths times k: 1 for ratios, k^2 for mm^2, k^-2 for 1/mm^2."""
    inputs, factor = inputs_of(term), 2.5
    in_mm = [field.name for field in fields(term) if field.name.endswith("_mm")]
    scaled = {}
    for name in in_mm:
        length = getattr(term, name)
        many = isinstance(length, tuple)
        scaled[name] = tuple(factor * x for x in length) if many else factor * length
    small = term.value(*inputs, spacing=SPACING[3])
    large = replace(term, **scaled).value(*inputs, spacing=tuple(factor * s for s in SPACING[3]))
    torch.testing.assert_close(large, small * factor ** UNIT_POWERS.get(type(term), 0))


@every_term
def test_unknown_normalizers_say_so(term):
    if isinstance(term, MSE | Diffusion | Bending):
        return
    with pytest.raises(ValueError, match=f"log_normalizer of {type(term).__name__} is not known"):
        term.log_normalizer((3, 4, 5, 6), spacing=SPACING[3])


@every_term
def test_bad_arguments_are_named(term):
    inputs = inputs_of(term)
    with pytest.raises(ValueError, match="spacing must have 3 values, one per axis, got 2"):
        term.value(*inputs, spacing=(1.0, 1.0))
    with pytest.raises(ValueError, match="reduction must be mean or sum, got 'none'"):
        term.value(*inputs, spacing=SPACING[3], reduction="none")
    with pytest.raises(ValueError, match=r"mask must have shape \(B or 1, 1, \*S\)"):
        term.value(*inputs, spacing=SPACING[3], mask=torch.ones(SHAPES[3]))
    with pytest.raises(ValueError, match="weight must have the spatial shape of the inputs"):
        term.value(*inputs, spacing=SPACING[3], weight=torch.ones(1, 1, 2, 2, 2))
