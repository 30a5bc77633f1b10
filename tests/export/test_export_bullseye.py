"""Bullseyes and strain curves: geometry by closed forms, colors, words, and files."""

from dataclasses import replace

import numpy as np
import pytest

from cardiogen.base import CardiogenError
from cardiogen.export import (
    Marks,
    bullseye_figure,
    strain_bullseye,
    strain_figure,
    write_bullseye,
    write_frames,
    write_strain_curves,
)
from cardiogen.export.bullseye import segment_wedges
from cardiogen.export.strain_curves import signed
from cardiogen.measure import Strain, Twist

MARKS = Marks(synthetic=True)


def build_strain(*, es=2, cycle_s=0.8, longitudinal=True, closed=True, count=17):
    """Strain whose segments differ by known amounts: value = -segment % at the third frame."""
    phases = np.arange(5) / 5 if closed else np.arange(5) / 9
    course = np.array([0.0, 0.5, 1.0, 0.6, 0.2])
    segments = np.arange(1, count + 1) / 100.0
    curves = course[:, None, None] * np.stack([3 * segments, -segments, -segments / 2])
    whole = curves.mean(axis=2)
    reasons = {}
    if not longitudinal:
        curves[:, 2], whole[:, 2] = np.nan, np.nan
        reasons = {("longitudinal", s): "motion known in the plane only" for s in range(18)}
    levels = np.linspace(4, 76, 10)
    rotation = course[:, None] * np.linspace(8, -4, 10)
    twist = Twist(levels=levels, rotation=rotation, twist=10.0 * course, torsion=1.5 * course,
                  torsion_unit="deg/cm", distance_mm=56.0)  # fmt: skip
    return Strain(
        components=("radial", "circumferential", "longitudinal"), whole=whole, segments=curves,
        phases=phases, ed=0, es=es, cycle_s=cycle_s, twist=twist, definition="engineering",
        method="made up", mask="none", reference="none", reasons=reasons,
        counts=np.full(count, 100),
    )  # fmt: skip


def load_png(path):
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=float) / 255, dict(image.text)


def words(figure):
    texts = [*figure.texts, *(t for axes in figure.axes for t in axes.texts)]
    texts += [axes.title for axes in figure.axes] + [axes._left_title for axes in figure.axes]
    return [text.get_text() for text in texts]


def test_wedges_tile_the_disk():
    wedges = segment_wedges(17)
    areas = {s: (o**2 - i**2) * (end - start) / 360 for s, (o, i, start, end) in wedges.items()}
    assert sorted(areas) == list(range(1, 18))
    assert sum(areas.values()) == pytest.approx(1.0)
    assert 17 not in segment_wedges(16)


@pytest.mark.parametrize(
    ("segments", "angle"),
    [((1, 7, 13), 90), ((3, 9), 210), ((14,), 180), ((4, 10, 15), 270), ((6, 12), 30), ((16,), 0)],
    ids=["anterior", "inferoseptal", "septal", "inferior", "anterolateral", "lateral"],
)
def test_walls_lie_where_cardiologists_look_for_them(segments, angle):
    wedges = segment_wedges(17)
    for segment in segments:
        start, end = wedges[segment][2:]
        assert (start + end) / 2 % 360 == angle
    outer = [wedges[s][0] for s in (1, 7, 13, 17)]
    assert outer == sorted(outer, reverse=True)


def test_colors_diverge_about_zero_and_gaps_are_gray():
    values = np.linspace(-20, 20, 17)
    values[4] = np.nan
    figure = bullseye_figure({"Radial": values}, unit="strain (%)")
    wedges = figure.axes[0].patches
    faces = np.array([wedge.get_facecolor()[:3] for wedge in wedges])
    assert faces[0][2] > faces[0][0] + 0.2  # blue where it shortens
    assert faces[16][0] > faces[16][2] + 0.2  # red where it lengthens
    assert faces[8].min() > 0.95  # white at zero
    assert np.ptp(faces[4]) < 0.05
    assert 0.85 < faces[4].mean() < 0.95
    labels = [t.get_text() for t in figure.axes[0].texts]
    assert labels[4] == "\N{EN DASH}"
    assert labels[0] == "\N{MINUS SIGN}20"
    assert labels[8] == "0"
    assert figure.axes[1].get_xlabel() == "strain (%)"


def test_color_range_is_symmetric_and_shared_unless_exceeded():
    figure = bullseye_figure({"a": np.full(16, -12.0), "b": np.full(17, 44.0)}, unit="%",
                             limits={"a": 30.0, "b": 30.0})  # fmt: skip
    assert figure.axes[1].get_xlim() == (-30, 30)
    assert figure.axes[3].get_xlim() == (-50, 50)


def test_signed_numbers():
    assert signed(-0.04, 1) == "0.0"
    assert signed(-12.34, 1) == "\N{MINUS SIGN}12.3"
    assert signed(5.0, 0) == "5"


def test_strain_bullseye_shows_end_systole_in_percent():
    found = words(strain_bullseye(build_strain(), title="a heart"))
    minus = "\N{MINUS SIGN}"
    assert "a heart" in found
    assert f"Circumferential: {minus}9.0 %" in found
    assert {f"{minus}{n}" for n in range(1, 18)} <= set(found)
    assert any("Engineering strain at end systole" in text for text in found)
    early = words(strain_bullseye(build_strain(), frame=1))
    assert any("at frame 1" in text for text in early)
    with pytest.raises(ValueError, match="frame must be given"):
        strain_bullseye(build_strain(es=None))


def test_missing_component_says_so():
    flat = build_strain(longitudinal=False, count=16)
    assert "Longitudinal: not measured" in words(strain_bullseye(flat))
    figure = strain_figure(flat)
    assert any("in the plane only" in text for text in words(figure))
    assert not figure.axes[2].lines  # nothing is drawn that is not known


def test_segments_without_a_value_are_hatched_and_told():
    strain = build_strain()
    for segment in (1, 6):
        strain.segments[:, :, segment - 1] = np.nan
    reasons = {("circumferential", s): "its muscle leaves the imaged planes" for s in (1, 6)}
    figure = strain_bullseye(replace(strain, reasons=reasons))
    hatched = [p for p in figure.axes[2].patches if p.get_hatch()]
    assert len(hatched) == 2
    assert not any(p.get_hatch() for p in figure.axes[0].patches)  # no reason is known there
    assert "Hatched, segments 1, 6: its muscle leaves the imaged planes" in words(figure)
    flat = strain_bullseye(build_strain(longitudinal=False))
    assert "Hatched, all segments: motion known in the plane only" in words(flat)


def test_sectors_of_one_slice_are_no_bullseye():
    strain = replace(build_strain(), level="sector")
    with pytest.raises(ValueError, match="AHA segments, got sectors"):
        strain_bullseye(strain)
    assert "sectors of the slice" in [
        text.get_text() for legend in strain_figure(strain).legends for text in legend.texts
    ]


def test_curves_start_at_ed_and_mark_it():
    """Frames in the order of the file, ED third: the plot begins and is zero there."""
    plain = build_strain()
    turned = replace(plain, ed=2, es=4, phases=np.roll(plain.phases, 2),
                     whole=np.roll(plain.whole, 2, axis=0),
                     segments=np.roll(plain.segments, 2, axis=0))  # fmt: skip
    for strain in (plain, turned):
        axes = strain_figure(strain).axes[1]
        curve = max((line for line in axes.lines if len(line.get_xdata()) > 2),
                    key=lambda line: line.get_linewidth())  # fmt: skip
        np.testing.assert_allclose(curve.get_xdata(), 0.8 * np.arange(6) / 5)
        np.testing.assert_allclose(curve.get_ydata(), 9.0 * np.array([0, -0.5, -1, -0.6, -0.2, 0]))
        marked = {text.get_text(): text.xy for text in axes.texts}
        assert marked["ED"] == pytest.approx((0.0, 0.0))
        assert marked["ES \N{MINUS SIGN}9.0 %"] == pytest.approx((0.32, -9.0))


@pytest.mark.parametrize("closed", [True, False])
def test_curves_are_thick_for_the_whole_and_thin_for_segments(closed):
    strain = build_strain(closed=closed, es=None)
    axes = strain_figure(strain).axes[1]
    curves = [line for line in axes.lines if len(line.get_xdata()) > 2]
    assert len(curves) == 18
    thickest = max(curves, key=lambda line: line.get_linewidth())
    np.testing.assert_allclose(thickest.get_ydata()[:5], 100 * strain.curve("circumferential"))
    assert thickest.get_linewidth() > 2 * min(line.get_linewidth() for line in curves)
    # Only a whole cycle comes back to its first frame.
    assert len(thickest.get_xdata()) == 5 + closed
    assert thickest.get_xdata()[-1] == pytest.approx(0.8 if closed else 0.8 * 4 / 9)


def test_end_systole_is_marked():
    strain = build_strain()
    figure = strain_figure(strain)
    assert "ES \N{MINUS SIGN}9.0 %" in words(figure)
    assert "ES 10.0\N{DEGREE SIGN}" in words(figure)
    assert figure.axes[0].get_xlabel() == "time (s)"
    unknown = strain_figure(build_strain(es=None, cycle_s=None))
    assert not any(text.startswith("ES") for text in words(unknown))
    assert unknown.axes[0].get_xlabel() == "fraction of the cycle"


@pytest.mark.parametrize("write", [write_bullseye, write_strain_curves])
def test_files_are_whole_marked_and_the_same_each_time(write, tmp_path):
    strain = build_strain()
    first = write(tmp_path / "a.png", strain, title="heart 7", marks=MARKS)
    second = write(tmp_path / "b.png", strain, title="heart 7", marks=MARKS)
    assert first.read_bytes() == second.read_bytes()
    picture, text = load_png(first)
    assert text["Description"] == "synthetic heart"
    assert picture.std() > 0.05
    assert (picture[[0, -1]] == 1.0).all()  # nothing runs over the edge
    assert (picture[:, [0, -1]] == 1.0).all()
    with pytest.raises(CardiogenError, match="CG-O01"):
        write(first, strain, marks=MARKS)
    write(first, strain, marks=MARKS, overwrite=True)


def test_table_of_strain_is_written_and_read_back(tmp_path):
    import pandas as pd

    strain = build_strain(longitudinal=False)
    path = write_frames(tmp_path / "strain.csv", "heart_7", strain.to_table(), marks=MARKS)
    table = pd.read_csv(path)
    row = table.query("frame == 2 and segment == 9 and component == 'circumferential'")
    assert row["value"].item() == pytest.approx(-9.0)
    assert row["name"].item() == "mid inferoseptal"
    assert row["synthetic"].item() == 1
    lost = table.query("component == 'longitudinal'")
    assert lost["value"].isna().all()
    assert (lost["reason"] == "motion known in the plane only").all()
    assert "-0.0," not in path.read_text()


def test_what_is_no_bullseye_is_refused():
    with pytest.raises(ValueError, match="16 or 17 segments"):
        bullseye_figure({"a": np.zeros(6)}, unit="%")
    with pytest.raises(ValueError, match="at least one bullseye"):
        bullseye_figure({}, unit="%")
