"""What tracking does not see stays empty, with words: long axis, RV, base, one slice."""

import numpy as np
import pytest

from cardiogen.data import Grid, Structure
from cardiogen.data.sequence import Sequence
from cardiogen.population import Annulus, Pose, annulus_cine, annulus_grid
from registration.tracking import GroupwiseConfig, TrackingConfig, track
from registration.tracking.longitudinal import WallShape
from registration.tracking.strain import leaving_wall, through_plane_doubt

SMALL = Annulus(inner_ed=14.0, outer_ed=20.0, length=30.0, inner=11.0, stretch=0.93, twist=0.0)
QUICK = TrackingConfig(margin_mm=8.0, groupwise=GroupwiseConfig(
    harmonics=2, iterations=(4, 3), finest_mm=2.0))  # fmt: skip
POSE = Pose.from_directions([0.58, -0.50, 0.64], [0.76, 0.60, -0.22], [12.0, -31.0, 44.0])
RV = ("RVESV (mL)", "RVSV (mL)", "RVEF (%)")


def a_cine(spacing, frames=5):
    grid = annulus_grid(SMALL, POSE, spacing, margin_mm=8.0)
    return annulus_cine(SMALL, grid, POSE, phases=np.arange(frames) / frames).sequence


@pytest.fixture(scope="module")
def thick():
    cine = a_cine((7.0, 2.5, 2.6))
    return cine, track(cine, cine.labels[0], config=QUICK)


def test_longitudinal_strain_of_thick_slices_is_empty_with_a_reason(thick):
    result = thick[1]
    assert not result.in_plane
    assert np.isnan(result.strain.curve("longitudinal")).all()
    assert np.isfinite(result.strain.curve("circumferential")).all()
    table, summary = result.strain.to_table(), result.strain.summary()
    lost = table[table.component.isin(["longitudinal", "longitudinal rate"])]
    assert lost.value.isna().all()
    assert lost.reason.str.startswith("not measured: motion through slices 7 mm thick").all()
    row = summary[(summary.component == "longitudinal") & (summary.segment == 0)].iloc[0]
    assert np.isnan(row["peak (%)"])
    assert "--view" in row.reason


@pytest.mark.parametrize(("spacing", "views", "measured"), [
    ((2.0, 1.5, 1.4), 0, True), ((2.9, 1.5, 1.4), 0, True), ((3.0, 1.5, 1.4), 0, False),
    ((8.0, 1.5, 1.4), 0, False), ((17.7, 1.4, 1.4), 1, True),
])  # fmt: skip
def test_rule_of_what_is_measured(spacing, views, measured):
    assert (through_plane_doubt(Grid.regular((5, 9, 11), spacing), views=views) == "") == measured


def test_voxels_near_cubes_show_longitudinal_strain():
    cine = a_cine((4.0, 2.5, 2.6), frames=4)
    result = track(cine, cine.labels[0], config=QUICK)
    assert np.isfinite(result.strain.curve("longitudinal")).all()
    assert result.withheld == {}
    assert result.as_dict()["through_plane"] == "tracked"


def test_right_ventricle_is_left_empty_but_at_ed(thick):
    result = thick[1]
    measures, curves = result.measures
    assert all(np.isnan(measures[name]) for name in RV)
    assert measures["RVEDV (mL)"] > 1
    assert measures["LVEF (%)"] > 10
    assert tuple(result.withheld) == RV
    for column in ("RV (mL)", "RV labels (mL)"):
        assert np.isfinite(curves[column]).tolist() == [True, False, False, False, False]
    assert np.isfinite(curves["LV (mL)"]).all()
    facts = result.as_dict()
    assert facts["measures"]["RVEF (%)"] is None
    assert facts["withheld"]["RVEF (%)"].startswith("it ejects along its long axis")
    assert any(note.startswith("S87") and "RVEF" in note for note in facts["notes"])


def test_phases_count_from_ed_whatever_frame_it_is(thick):
    cine, first = thick
    turned = Sequence(phases=np.arange(5) / 5, ed=2, grid=cine.grid,
                      images=np.roll(cine.images, 2, axis=0))  # fmt: skip
    result = track(turned, cine.labels[0], config=QUICK)
    expected = np.array([3, 4, 0, 1, 2]) / 5
    assert result.sequence.phases == pytest.approx(expected)
    assert result.strain.phases == pytest.approx(expected)
    assert result.curves["phase"].to_numpy() == pytest.approx(expected)
    there = np.roll(result.strain.curve("circumferential"), -2)
    assert there == pytest.approx(first.strain.curve("circumferential"), abs=1e-3)
    assert result.strain.closes


def test_uneven_phases_with_a_late_ed(thick):
    cine = thick[0]
    phases = np.array([0.1, 0.25, 0.5, 0.62, 0.9])
    uneven = Sequence(phases=phases, ed=3, grid=cine.grid, images=cine.images, cycle_s=0.8)
    result = track(uneven, cine.labels[0], config=QUICK)
    assert result.strain.phases == pytest.approx([0.48, 0.63, 0.88, 0.0, 0.28])
    assert result.strain.curve("circumferential")[3] == pytest.approx(0.0, abs=1e-6)
    assert np.isfinite(result.strain.rate("circumferential")).all()


@pytest.mark.parametrize(("stretch", "step", "gone"), [
    (None, 17.7, [5]),  # 12 mm of descent pass the middle of the last slice, at 8.85 mm
    (None, 5.0, [4, 5]), (None, 30.0, []),
    (np.array([1.0, 0.85]), 17.7, [5]), (np.array([1.0, 0.97]), 17.7, []),
])  # fmt: skip
def test_slices_that_the_base_passes(stretch, step, gone):
    """A cylinder of six slices, on one side of five: each side loses its own last slices."""
    away = np.indices((41, 43)) - np.array([20, 21])[:, None, None]
    ring = np.abs(np.hypot(*away) - 12) < 3
    labels = np.where(ring, np.uint8(Structure.MYO), np.uint8(0))[None].repeat(6, axis=0)
    shorter = (away[1] > 0)[None] & (np.arange(6) == 5)[:, None, None]
    labels[shorter] = 0
    shape = WallShape(apex=-0.5, centers=np.tile([20.0, 21.0], (6, 1)), radii=np.full(6, 15.0),
                      areas=np.ones(6), usable=np.ones(6, bool))  # fmt: skip
    found = leaving_wall(labels, shape, stretch, step_mm=step)
    assert not found[labels == 0].any()
    left, right = ring & (away[1] < -3), ring & (away[1] > 3)
    # A ring that loses one half is lost as a whole.
    assert [d for d in range(6) if found[d][left].all()] == sorted({*gone, *(d - 1 for d in gone)})
    assert [d for d in range(6) if found[d][right].any()] == [d - 1 for d in gone]


def test_segments_that_leave_the_planes_have_no_value():
    cine = a_cine((10.5, 2.2, 2.1))
    result = track(cine, cine.labels[0], config=QUICK, in_plane=True)
    basal = [s for s in range(1, 7) if ("circumferential", s) in result.strain.reasons]
    assert basal == [1, 2, 3, 4, 5, 6]
    for segment in basal:
        assert np.isnan(result.strain.curve("circumferential", segment)).all()
        assert "leaves the imaged planes" in result.strain.reasons["circumferential", segment]
    assert np.isfinite(result.strain.curve("circumferential")).all()
    assert "left out" in result.strain.mask


def test_one_slice_has_strain_and_no_volumes():
    whole = a_cine((10.5, 2.2, 2.1))
    cut = whole.grid.shape[0] // 2
    grid = whole.grid.cropped((cut, 0, 0), (1, *whole.grid.shape[1:]))
    cine = Sequence(phases=whole.phases, grid=grid, images=whole.images[:, cut : cut + 1])
    labels = whole.labels[0, cut : cut + 1]
    assert (labels == Structure.RV).any()
    result = track(cine, labels, config=QUICK)
    assert result.strain.curve("circumferential").min() < -0.05
    assert result.strain.segments.shape == (5, 3, 6)
    assert np.isfinite(result.strain.segments[:, :2]).all()
    summary = result.strain.summary()
    sectors = summary[(summary.level == "sector") & (summary.component == "radial")]
    assert sectors.name.tolist()[0] == "anterior sector"
    assert sectors.reason.str.contains("cannot be known from one slice").all()
    measures, curves = result.measures
    assert np.isnan(list(measures.values())).all()
    assert curves["LV (mL)"].isna().all()
    assert set(result.withheld) == set(measures)
    assert "one slice" in result.withheld["LVEF (%)"]
    assert np.isnan(result.strain.twist.twist).all()
