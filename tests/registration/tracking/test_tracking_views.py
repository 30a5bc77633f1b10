"""Further views in tracking: their term is exact, and they show what short axes cannot."""

import numpy as np
import pytest
import torch

from cardiogen import ops
from cardiogen.base import CardiogenError
from cardiogen.data import Grid, Structure
from cardiogen.data.sequence import Sequence
from cardiogen.population import Annulus, Pose, annulus_cine, annulus_grid
from registration.tracking import GroupwiseConfig, TrackingConfig, track
from registration.tracking.basis import time_basis
from registration.tracking.view_term import ViewLevels, ViewTerm
from registration.tracking.views import View

AXES = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
POSE = Pose(AXES * np.array([1, 1, np.sign(np.linalg.det(AXES))]), np.array([12.0, -30.0, 7.0]))
# Shortens by 20 %: motion along the axis that slices 12 mm apart all but hide.
HEART = Annulus(inner_ed=14.0, outer_ed=20.0, length=44.0, inner=10.5, stretch=0.8, twist=0.0)
QUICK = TrackingConfig(margin_mm=10.0, groupwise=GroupwiseConfig(
    harmonics=3, iterations=(8, 6, 4), finest_mm=1.0))  # fmt: skip


def long_axis_grid(angle, pixel_mm=1.7, half_mm=32.0):
    """Return one plane through the axis of the annulus, at an angle about it."""
    across = np.cos(angle) * POSE.axes[:, 0] + np.sin(angle) * POSE.axes[:, 1]
    axes = np.stack([np.cross(POSE.axes[:, 2], across), POSE.axes[:, 2], across], axis=1)
    rows, columns = int(70 / pixel_mm), int(2 * half_mm / pixel_mm)
    origin = POSE.origin + axes @ np.array([0.0, -12.0, -half_mm])
    return Grid.regular((1, rows, columns), (6.0, pixel_mm, pixel_mm), origin, axes)


def cine_on(grid, frames, snr=60.0):
    phases = np.arange(frames) / frames
    return annulus_cine(HEART, grid, POSE, phases=phases, snr=snr, texture=0.3)


@pytest.fixture(scope="module")
def short():
    return cine_on(annulus_grid(HEART, POSE, (12.0, 2.2, 2.3), margin_mm=12.0), 8)


@pytest.fixture(scope="module")
def long():
    """Two long axes, of other numbers of frames than the short axis."""
    return tuple(
        cine_on(long_axis_grid(angle), frames).sequence
        for angle, frames in ((0.2, 8), (0.2 + np.pi / 2, 11))
    )


@pytest.fixture(scope="module")
def tracked(short, long):
    return track(short.sequence, short.sequence.labels[0], config=QUICK, views=long)


def longitudinal(result, cine):
    """Return mean absolute error along the axis in the wall, and motion there, mm."""
    window = tuple(slice(a, a + n) for a, n in zip(result.start, result.region.shape, strict=True))
    wall = (cine.sequence.labels[0] == Structure.MYO)[window]
    exact = cine.displacements()[(slice(None), slice(None), *window)][:, :, wall]
    along = POSE.axes[:, 2] @ result.region.affine[:3, :3]
    found = result.forward.numpy()[:, :, wall]
    error = np.abs(np.einsum("i,tin->tn", along, found - exact))
    return error.mean(), np.abs(np.einsum("i,tin->tn", along, exact)).mean()


def a_term(grid, lattice, images, frames=6, flat=True):
    phases = torch.arange(frames, dtype=torch.float64) / frames
    sequence = Sequence(phases=phases.numpy(), grid=grid, images=images[:, 0].numpy())
    view = View(sequence=sequence, grid=grid, start=(0, 0, 0), region=lattice, flat=flat,
                share=0.4)  # fmt: skip
    return ViewTerm(view, images, grid, lattice, time_basis(phases, 2), 1.5)


@pytest.fixture
def oblique(make_grid):
    """Lattice of a motion, and a plane that cuts it obliquely and leads out of it."""
    lattice = make_grid((5, 12, 13), (7.0, 2.1, 2.3))
    turn = np.linalg.qr(np.random.default_rng(8).normal(size=(3, 3)))[0]
    middle = lattice.to_world([2.0, 5.5, 6.0])
    origin = middle - turn @ (np.array([0.0, 9.0, 8.0]) * [4.0, 1.9, 1.6])
    return lattice, Grid.regular((1, 19, 17), (4.0, 1.9, 1.6), origin, turn)


def test_spreading_is_the_adjoint_of_reading(oblique):
    lattice, grid = oblique
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(6, 1, *grid.shape, dtype=torch.float64, generator=generator)
    term = a_term(grid, lattice, images)
    assert 0 < term.kept.sum() < term.kept.numel()
    rank = term.mix.shape[1]
    a, b = torch.randn(2, rank, 3, *lattice.shape, dtype=torch.float64, generator=generator)
    seen = term.seen(torch.zeros(5, 3, *lattice.shape, dtype=torch.float64))
    left, right = (a * term.curvature(seen, b)).sum(), (b * term.curvature(seen, a)).sum()
    assert left == pytest.approx(float(right), rel=1e-12)
    assert (a * term.curvature(seen, a)).sum() > 0
    # <a, pull> sees the slopes along a, read by the views' own sampler.
    read = torch.stack([torch.einsum("tr,rv->tv", term.mix, _read(term, a)[:, k])
                        for k in range(3)], dim=1)  # fmt: skip
    rise = (seen.slope * read).sum(dim=1)
    scale = term.weight * term.voxels
    assert (a * term.pull(seen)).sum() == pytest.approx(
        float(scale * (rise * seen.residual).sum()), rel=1e-12
    )


def _read(term, coefficients):
    return torch.stack([ops.sample(c[None], term.places)[0] for c in coefficients])


@pytest.mark.parametrize("flat", [True, False])
def test_pull_is_the_gradient(oblique, flat):
    """Where frames are ramps of one slope, each at its own height, the solver's slope is exact."""
    lattice, plane = oblique
    grid = plane if flat else plane.cropped((-4, 0, 0), (9, *plane.shape[1:]))
    place = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    ramp = torch.from_numpy(place @ np.array([0.05, 0.03, -0.02]))
    heights = torch.tensor([0.0, 0.3, -0.2, 0.5, 0.1, -0.4], dtype=torch.float64)
    term = a_term(grid, lattice, ramp + heights.view(-1, 1, 1, 1, 1), flat=flat)
    bump = torch.zeros(term.mix.shape[1], 3, *lattice.shape, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    bump[:, :, 2, 5:7, 6:8] = torch.randn(
        len(bump), 3, 2, 2, dtype=bump.dtype, generator=generator
    )
    inner = torch.zeros_like(term.kept)
    inner[(slice(None) if flat else slice(1, -1), slice(1, -1), slice(1, -1))] = True
    touched = _read(term, bump.abs()).sum(dim=(0, 1)) > 0
    # Beyond the border of the view images do not go on as ramps.
    assert touched.any()
    assert inner[term.kept][touched].all()

    def energy(step):
        return term.seen(torch.einsum("tr,rn...->tn...", term.mix, step * bump)).energy

    slope = (energy(1e-3) - energy(-1e-3)) / 2e-3
    rest = term.seen(torch.zeros(5, 3, *lattice.shape, dtype=torch.float64))
    found = 2 * float((bump * term.pull(rest)).sum()) / term.voxels
    assert abs(slope) > 1e-6
    assert found == pytest.approx(slope, rel=1e-7)


def test_one_plane_says_nothing_of_motion_out_of_it(oblique):
    lattice, grid = oblique
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(6, 1, *grid.shape, dtype=torch.float64, generator=generator)
    term = a_term(grid, lattice, images)
    normal = lattice.inverse[:3, :3] @ grid.affine[:3, 0]
    out = torch.from_numpy(normal).view(1, 3, 1, 1, 1).expand(5, 3, *lattice.shape)
    rest = term.seen(torch.zeros(5, 3, *lattice.shape, dtype=torch.float64))
    assert term.seen(2 * out).energy == pytest.approx(rest.energy, rel=1e-12)
    assert (rest.slope * out[0, :, 0, 0, :1].unsqueeze(0)).sum(dim=1).abs().max() < 1e-12


def test_weight_is_per_area_whatever_the_pixels(long):
    """A view of half the pixels pulls as much."""
    region = annulus_grid(HEART, POSE, (12.0, 2.2, 2.3), margin_mm=5.0)
    phases = torch.arange(8, dtype=torch.float64) / 8
    energies = []
    for pixel in (1.5, 3.0):
        made = cine_on(long_axis_grid(0.4, pixel), 8, snr=float("inf")).sequence
        images = torch.from_numpy(made.images)[:, None]
        view = View(sequence=made, grid=made.grid, start=(0, 0, 0), region=region, flat=True,
                    share=0.1)  # fmt: skip
        term = ViewTerm(view, images, made.grid, region, time_basis(phases, 3), 1.0)
        energies.append(term.seen(torch.zeros(7, 3, *region.shape)).energy)
    assert energies[1] == pytest.approx(energies[0], rel=0.1)


def test_levels_follow_the_lattice(long):
    view = View(sequence=long[0], grid=long[0].grid, start=(0, 0, 0), region=long[0].grid,
                flat=True, share=1.0)  # fmt: skip
    levels = ViewLevels(view, torch.from_numpy(long[0].images)[:, None])
    basis = time_basis(view.phases, 2)
    for spacing in (0.5, 1.7, 3.5, 7.0):
        lattice = Grid.regular((3, 9, 10), (9.0, spacing, spacing))
        pixels = levels.at(lattice, basis, 1.0).fixed.shape[-2:]
        wanted = max(1.7, spacing)
        assert (long[0].grid.shape[1] - 1) / (pixels[0] - 1) * 1.7 == pytest.approx(
            wanted, rel=0.2
        )


def test_long_axes_show_longitudinal_motion(tracked, short):
    """Without, it is inferred or all but invisible; with two long axes it is found."""
    labels = short.sequence.labels[0]
    with_views, moves = longitudinal(tracked, short)
    inferred, _ = longitudinal(track(short.sequence, labels, config=QUICK), short)
    without, _ = longitudinal(track(short.sequence, labels, config=QUICK, in_plane=False), short)
    assert with_views < 0.6 * min(without, inferred)
    assert with_views < 0.35 * moves
    assert not tracked.in_plane
    assert tracked.stretch is None


def test_promises_hold_with_views(tracked):
    assert tracked.forward[0].abs().max() == 0
    assert tracked.closure_mm == 0
    assert tracked.folds.max() == 0
    assert tracked.consistency_mm.max() < 0.5


def test_result_says_what_was_used(tracked, long):
    facts = tracked.as_dict()
    assert [v["frames"] for v in facts["views"]] == [8, 11]
    for report in facts["views"]:
        assert report["tells_of"] == "motion in its planes"
        assert report["rms_difference"]["after"] < 0.6 * report["rms_difference"]["before"]
        assert report["ed_correlation_with_cine"] > 0.8
    assert len(facts["provenance"]["views_sha256"]) == len(long)
    assert "further views" in facts["through_plane"]
    assert {"S80", "S85"} <= {note.code for note in tracked.notes}
    assert "S86" not in {note.code for note in tracked.notes}


def test_frames_lie_at_their_own_phases(short, long):
    """A view that starts at another frame is the same view."""
    first = long[1]
    rolled = first.with_(images=np.roll(first.images, 4, axis=0), labels=None, ed=4,
                         phases=np.roll(first.phases, 4))  # fmt: skip
    labels = short.sequence.labels[0]
    a, b = (track(short.sequence, labels, config=QUICK, views=(v,)) for v in (first, rolled))
    assert torch.allclose(a.forward, b.forward, atol=2e-2)


def test_no_views_change_nothing(short):
    labels = short.sequence.labels[0]
    a = track(short.sequence, labels, config=QUICK, in_plane=False)
    b = track(short.sequence, labels, config=QUICK, in_plane=False, views=())
    assert torch.equal(a.forward, b.forward)
    assert a.as_dict()["views"] == []
    assert "views_sha256" not in a.provenance
    assert "S85" not in {note.code for note in a.notes}


def test_one_slice_and_a_long_axis(short, long):
    grid = short.sequence.grid
    middle = grid.shape[0] // 2
    one = Sequence(phases=short.sequence.phases, grid=grid.cropped((middle, 0, 0),
                   (1, *grid.shape[1:])), images=short.sequence.images[:, middle : middle + 1],
                   )  # fmt: skip
    result = track(one, short.sequence.labels[0, middle : middle + 1], config=QUICK, views=long)
    assert torch.isfinite(result.forward).all()
    assert result.forward[4, 0].abs().mean() * grid.spacing[0] > 1


def test_views_of_another_world_are_doubted(short, long):
    """A view whose header puts it elsewhere in the heart is noted."""
    grid = long[0].grid
    turned = Grid.regular(grid.shape, grid.spacing, grid.affine[:3, 3] + 14 * POSE.axes[:, 0],
                          (grid.affine[:3, :3] / grid.spacing) * [1, 1, 1])  # fmt: skip
    noise = np.random.default_rng(0).random(long[0].images.shape, dtype=np.float32)
    view = Sequence(phases=long[0].phases, grid=turned, images=noise)
    result = track(short.sequence, short.sequence.labels[0], config=QUICK, views=(view,))
    assert "S86" in {note.code for note in result.notes}


def test_bad_views_are_named(short, long):
    labels, good = short.sequence.labels[0], long[0]
    grid = good.grid
    bare = Sequence(phases=good.phases, grid=grid, images=good.images)

    def fails(code, view, **options):
        with pytest.raises(CardiogenError, match=f"CG-{code} "):
            track(short.sequence, labels, config=QUICK, views=(view,), **options)

    broken = good.images.copy()
    broken[2, 0, 3, 4] = np.nan
    away = Grid(grid.shape, np.vstack([np.c_[grid.affine[:3, :3], grid.affine[:3, 3] + 500],
                                       grid.affine[3]]))  # fmt: skip
    fails("N36", Sequence(phases=np.zeros(1), grid=grid, images=good.images[:1]))
    fails("N26", bare.with_(images=broken))
    fails("N39", bare.with_(images=np.zeros_like(good.images)))
    fails("N55", bare.with_(grid=away))
    fails("U16", bare, strategy="direct")
    fails("U16", bare, in_plane=True)
    with pytest.raises(ValueError, match="views must have images"):
        track(short.sequence, labels, config=QUICK, views=(bare.with_(images=None),))
