"""Tracking of a small annulus with exact motion, and what its result promises."""

import numpy as np
import pytest
import torch

from cardiogen import ops
from cardiogen.base import CardiogenError
from cardiogen.data import Grid, Structure
from cardiogen.data.sequence import Sequence
from cardiogen.measure import mesh_volumes
from cardiogen.population import Annulus, Pose, annulus_cine, annulus_grid
from registration.tracking import (
    GroupwiseConfig,
    TrackingConfig,
    load_tracking_preset,
    track,
)
from registration.tracking.surface import surfaces_of

SMALL = Annulus(inner_ed=14.0, outer_ed=20.0, length=30.0, inner=11.0, stretch=0.93,
                twist=float(np.radians(6) / 30))  # fmt: skip
QUICK = TrackingConfig(margin_mm=10.0, groupwise=GroupwiseConfig(
    harmonics=3, iterations=(6, 5, 4), finest_mm=1.0, smoothness=0.008))  # fmt: skip


def pose():
    axes, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    return Pose(axes * np.array([1, 1, np.sign(np.linalg.det(axes))]), np.array([12.0, -30, 7]))


def a_cine(spacing=(4.0, 1.9, 1.8), frames=7, snr=40.0):
    grid = annulus_grid(SMALL, pose(), spacing, margin_mm=8.0)
    return annulus_cine(SMALL, grid, pose(), phases=np.arange(frames) / frames, snr=snr)


@pytest.fixture(scope="module")
def cine():
    return a_cine()


@pytest.fixture(scope="module")
def tracked(cine):
    return track(cine.sequence, cine.sequence.labels[0], config=QUICK)


def window(result):
    return tuple(slice(a, a + n) for a, n in zip(result.start, result.region.shape, strict=True))


def in_plane_error(result, cine):
    exact = cine.displacements()[(slice(None), slice(None), *window(result))]
    wall = (cine.sequence.labels[0] == Structure.MYO)[window(result)]
    error = (result.forward.numpy() - exact)[:, 1:, wall]
    return np.linalg.norm(error, axis=1).mean(), np.linalg.norm(exact[:, 1:, wall], axis=1).mean()


def test_follows_the_exact_motion(tracked, cine):
    error, motion = in_plane_error(tracked, cine)
    assert error < 0.3
    assert error < 0.35 * motion
    assert not tracked.in_plane
    assert tracked.strain is not None


def test_rests_at_ed_and_closes_exactly(tracked):
    assert tracked.forward[0].abs().max() == 0
    assert tracked.backward[0].abs().max() == 0
    assert tracked.closure_mm == 0
    assert tracked.motion.displacement([0.0, 1.0, 3.0]).abs().max() == 0


def test_maps_are_inverse_and_do_not_fold(tracked):
    assert tracked.consistency_mm.max() < 0.3
    assert tracked.consistency_mm[0] == 0
    assert tracked.folds.max() == 0


def test_mesh_moves_by_the_field_and_labels_by_its_inverse(tracked, cine):
    sequence = tracked.sequence
    assert np.array_equal(sequence.labels[0], cine.sequence.labels[0])
    points = torch.from_numpy(sequence.vertices[:1])
    field = tracked.ed_to_frame[3:4]
    moved = ops.warp_points(points, field, sequence.grid)[0].numpy()
    assert np.allclose(moved, sequence.vertices[3], atol=1e-3)
    for frame in (2, 3):
        truth = cine.sequence.labels[frame] == Structure.MYO
        found = sequence.labels[frame] == Structure.MYO
        still = cine.sequence.labels[0] == Structure.MYO
        dice = 2 * (found & truth).sum() / (found.sum() + truth.sum())
        assert dice > 2 * (still & truth).sum() / (still.sum() + truth.sum()) + 0.02
        assert dice > 0.85


def test_volumes_follow_the_phantom(tracked, cine):
    curve = tracked.curves["LV (mL)"].to_numpy()
    exact = np.array([1 - s.ejection_fraction for s in cine.states])
    assert abs(curve / curve[0] - exact).max() < 0.1
    assert tracked.sequence.es == int(np.argmin(curve))


def test_ed_may_be_any_frame(cine):
    """Frames rolled round the cycle give the same motion, rolled."""
    images = torch.from_numpy(cine.sequence.images)[:, None]
    labels = cine.sequence.labels[0]
    first = track(images, labels, grid=cine.sequence.grid, config=QUICK)
    rolled = track(images.roll(2, 0), labels, grid=cine.sequence.grid, ed=2, config=QUICK)
    assert torch.allclose(rolled.forward.roll(-2, 0), first.forward, atol=1e-3)
    assert rolled.sequence.ed == 2
    assert rolled.forward[2].abs().max() == 0


def test_result_in_numbers(tracked):
    facts = tracked.as_dict()
    assert facts["mode"] == "3D+t"
    assert facts["frames"] == 7
    assert set(facts["timings_s"]) >= {"total", "motion", "mesh", "strain"}
    assert facts["provenance"]["config"]["groupwise"]["harmonics"] == 3
    assert tracked.ed_to_frame.shape == (7, 3, *tracked.sequence.grid.shape)


@pytest.mark.parametrize("strategy", ["direct", "sequential", "blend"])
def test_other_strategies(strategy):
    cine = a_cine(spacing=(8.0, 2.4, 2.3), frames=5)
    result = track(cine.sequence, cine.sequence.labels[0], config=QUICK, strategy=strategy)
    error, motion = in_plane_error(result, cine)
    assert error < 0.6 * motion
    assert result.forward[0].abs().max() == 0
    assert result.motion is None
    assert (result.closure_mm > 0) == (strategy == "sequential")


def test_slices_far_apart_are_tracked_on_their_own():
    cine = a_cine(spacing=(11.0, 2.2, 2.1), frames=6)
    labels = cine.sequence.labels[0]
    result = track(cine.sequence, labels, config=QUICK)
    assert result.in_plane
    assert result.notes[0].code == "S80"
    if result.stretch is not None:
        assert result.stretch[0] == 1
        assert "inferred" in result.as_dict()["through_plane"]
    assert result.strain.reasons["longitudinal", 0].startswith("motion known in the plane only")
    flat = track(cine.sequence, labels, config=QUICK.model_copy(update={"longitudinal": False}))
    assert flat.stretch is None
    assert flat.forward[:, 0].abs().max() == 0


def test_two_frames_are_enough(cine):
    pair = Sequence(phases=np.array([0.0, 0.43]), grid=cine.sequence.grid,
                    images=cine.sequence.images[[0, 3]])  # fmt: skip
    result = track(pair, cine.sequence.labels[0], config=QUICK)
    assert result.forward[0].abs().max() == 0
    assert result.forward[1].abs().max() > 0.5


@pytest.mark.parametrize("spacing", [(4.0, 1.9, 1.8), (11.0, 1.6, 1.7)])
def test_surfaces_hold_the_volume_of_the_labels(spacing):
    cine = a_cine(spacing, frames=2)
    labels, grid = cine.sequence.labels[0], cine.sequence.grid
    vertices, topology = surfaces_of(labels, grid)
    found = mesh_volumes(vertices, topology)
    for structure in (Structure.LV, Structure.MYO, Structure.RV):
        wanted = (labels == structure).sum() * grid.voxel_volume_ml
        assert found[structure][0] == pytest.approx(wanted, rel=1e-6)
    for faces in topology.surfaces.values():
        edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
        assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()


def test_bad_inputs_are_named(cine):
    images, labels = torch.from_numpy(cine.sequence.images)[:, None], cine.sequence.labels[0]
    grid = cine.sequence.grid

    def fails(code, values=images, maps=labels, **options):
        with pytest.raises(CardiogenError, match=f"CG-{code} "):
            track(values, maps, grid=grid, config=QUICK, **options)

    broken = images.clone()
    broken[2, 0, 1, 3, 4] = torch.nan
    fails("N36", images[:1])
    fails("N26", broken)
    fails("N39", torch.zeros_like(images))
    fails("L37", maps=np.zeros_like(labels))
    fails("L60", maps=np.where(labels == Structure.RV, labels, 0))
    fails("L40a", maps=labels[:-1])
    fails("N23", cycle_s=830.0)
    fails("U15", strategy="guess")
    with pytest.raises(CardiogenError, match="CG-U14 "):
        load_tracking_preset("best")
    with pytest.raises(ValueError, match="images must be"):
        track(images[:, 0], labels, grid=grid)
    with pytest.raises(ValueError, match="ed must be a frame below 7"):
        track(images, labels, grid=grid, ed=7)


@pytest.mark.parametrize("name", ["default", "accurate", "ukbb"])
def test_presets_load(name):
    config = load_tracking_preset(name)
    assert config.strategy in ("groupwise", "blend")
    pairs = config.pair_config(in_plane=True)
    assert pairs.prepare.scale == "none"
    assert all(stage.in_plane for stage in pairs.stages)


def test_grid_of_labels_is_the_cines():
    other = Grid.regular((3, 9, 9), (5.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="images must be"):
        track(torch.zeros(3, 1, 3, 9, 8), np.ones((3, 9, 8)), grid=other)
