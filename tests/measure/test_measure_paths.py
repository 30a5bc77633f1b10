"""Measuring files and folders, and what faulty ones say."""

import struct

import numpy as np
import pytest

from cardiogen.base import CardiogenError
from cardiogen.data import Factors, encode_labels, write_image
from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.measure import (
    closed_volume,
    label_volumes,
    measure_path,
    read_mesh,
    reference,
    z_score_row,
)

GRID = Grid.regular((5, 30, 30), (8.0, 1.5, 1.5), axes=np.eye(3)[:, ::-1])


def _frame(lv_radius, rv=20):
    place = np.moveaxis(np.indices((30, 30)), 0, -1) - 13.0
    radius = np.hypot(*np.moveaxis(place, -1, 0))
    labels = np.zeros(GRID.shape, np.uint8)
    labels[:, 4 : 4 + rv, 22:28] = Structure.RV
    labels[:, radius < 10] = Structure.MYO
    labels[1:, radius < lv_radius] = Structure.LV
    return labels


def test_4d_file(tmp_path):
    frames = np.stack([_frame(5), _frame(7), _frame(6), _frame(4)])
    path = tmp_path / "heart.nii.gz"
    write_image(path, encode_labels(frames, "acdc"), GRID, frame_time_s=0.2)
    measured = measure_path(path, label_map="acdc", segments=17)
    volumes = label_volumes(frames, GRID)[Structure.LV]
    row = measured.table.iloc[0]
    assert row["subject"] == "heart"
    assert row["LVEDV (mL)"] == pytest.approx(volumes[1], rel=1e-5)
    assert row["LVESV (mL)"] == pytest.approx(volumes[3], rel=1e-5)
    assert row["LVCO (L/min)"] == pytest.approx(row["LVSV (mL)"] * 60 / 0.8 / 1000, rel=1e-5)
    assert list(measured.frames["ED/ES"]) == ["", "ED", "", "ES"]
    np.testing.assert_allclose(measured.frames["LV (mL)"], volumes, rtol=1e-5)
    assert len(measured.segments) == 17
    assert measured.failures == ()


def test_3d_file_is_ed_unless_named_es(tmp_path):
    for name in ("heart", "seg_sa_ES"):
        write_image(tmp_path / f"{name}.nii", encode_labels(_frame(6), "ukbb"), GRID)
    ed = measure_path(tmp_path / "heart.nii", label_map="ukbb")
    es = measure_path(tmp_path / "seg_sa_ES.nii", label_map="ukbb")
    known = {name for name in ed.table.columns[1:] if np.isfinite(ed.table[name][0])}
    assert known == {"LVEDV (mL)", "RVEDV (mL)", "LVM (g)", "LVM/LVEDV (g/mL)"}
    known = {name for name in es.table.columns[1:] if np.isfinite(es.table[name][0])}
    assert known == {"LVESV (mL)", "RVESV (mL)"}
    assert es.table["LVESV (mL)"][0] == pytest.approx(ed.table["LVEDV (mL)"][0])
    assert any("taken as ED" in note.text for note in ed.notes)
    assert list(es.frames["ED/ES"]) == ["ES"]
    with pytest.raises(CardiogenError, match="CG-N37 .*end systole alone.*without --segments"):  # noqa: RUF043
        measure_path(tmp_path / "seg_sa_ES.nii", label_map="ukbb", segments=17)


def test_bad_case_does_not_stop_the_others(tmp_path):
    for name in ("b", "a", "d"):
        write_image(tmp_path / f"{name}.nii.gz", encode_labels(_frame(6), "acdc"), GRID)
    (tmp_path / "c.nii.gz").write_bytes(b"")
    write_image(tmp_path / "e.nii.gz", np.full(GRID.shape, 7, np.uint8), GRID)
    measured = measure_path(tmp_path, label_map="acdc")
    assert list(measured.table["subject"]) == ["a", "b", "d"]
    assert [error.code for error in measured.failures] == ["N01", "L39"]
    assert measured.failures[0].where == str(tmp_path / "c.nii.gz")
    with pytest.raises(CardiogenError, match="CG-N01"):
        measure_path(tmp_path / "c.nii.gz", label_map="acdc")


def test_segments_that_cannot_be_told_name_the_file(tmp_path):
    write_image(tmp_path / "x.nii", encode_labels(_frame(6, rv=0), "acdc"), GRID)
    write_image(tmp_path / "y.nii", encode_labels(_frame(6), "acdc"), GRID)
    measured = measure_path(tmp_path, label_map="acdc", segments=16)
    assert [(e.code, e.where) for e in measured.failures] == [("L62", str(tmp_path / "x.nii"))]
    assert set(measured.segments["subject"]) == {"y"}


def test_ukbb_layout(tmp_path):
    for subject in ("001", "002"):
        folder = tmp_path / subject
        folder.mkdir()
        for phase, radius in (("ED", 7), ("ES", 5)):
            path = folder / f"seg_sa_{phase}.nii.gz"
            write_image(path, encode_labels(_frame(radius), "ukbb"), GRID)
    measured = measure_path(tmp_path)
    assert list(measured.table["subject"]) == ["001", "002"]
    volumes = label_volumes(np.stack([_frame(7), _frame(5)]), GRID)[Structure.LV]
    np.testing.assert_allclose(measured.table["LVEF (%)"], 100 * (1 - volumes[1] / volumes[0]))
    one = measure_path(tmp_path / "002")
    assert one.table["LVEDV (mL)"][0] == measured.table["LVEDV (mL)"][1]


def test_folder_and_file_without_hearts(tmp_path):
    with pytest.raises(CardiogenError, match="CG-L50"):
        measure_path(tmp_path)
    path = tmp_path / "heart.nii"
    write_image(path, encode_labels(_frame(6), "acdc"), GRID)
    with pytest.raises(CardiogenError, match=r"CG-U11 --label-map"):
        measure_path(path)
    with pytest.raises(CardiogenError, match="CG-N47"):
        measure_path(tmp_path / "nothing.nii", label_map="acdc")


def test_z_scores():
    row = {"LVEDV (mL)": 150.0, "LVEF (%)": 60.0, "LVCO (L/min)": 5.0}
    scores = z_score_row(row, Factors(sex="F", age=50.0))
    expected = reference("LVEDV", sex="F", age=50.0)
    assert scores["LVEDV z"] == pytest.approx((150 - expected.mean) / expected.sd)
    assert set(scores) == {"LVEDV z", "LVEF z"}
    for factors in (None, Factors(age=50.0), Factors(sex="M", age=95.0)):
        assert np.isnan(list(z_score_row(row, factors).values())).all()


TETRA = np.array([[0.0, 0, 0], [30.0, 0, 0], [0, 20.0, 0], [0, 0, 10.0]])
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])


def _stl(faces=FACES, count=None):
    body = b"".join(struct.pack("<12fH", 0, 0, 0, *TETRA[face].reshape(-1), 0) for face in faces)
    return (
        b"any header".ljust(80) + struct.pack("<I", len(faces) if count is None else count) + body
    )


def _ply(vertices=4, faces=4, *, index=3, kind="double", order=(0, 1, 2), extra=""):
    header = (
        "ply\nformat binary_little_endian 1.0\ncomment made by a test\n"
        f"element vertex {vertices}\n"
        + "".join(f"property {kind} {'xyz'[axis]}\n" for axis in order)
        + extra
        + f"element face {faces}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    points = TETRA[:, list(order)].astype("<f8" if kind == "double" else "<f4").tobytes()
    rows = FACES.copy()
    rows[rows == 3] = index
    return header.encode() + points + b"".join(struct.pack("<B3i", 3, *row) for row in rows)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.stl", _stl()), ("b.ply", _ply()), ("c.PLY", _ply(kind="float", order=(2, 0, 1)))],
)
def test_closed_mesh_files(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    assert closed_volume(path) == pytest.approx(1.0, rel=1e-6)
    vertices, faces = read_mesh(path)
    assert (vertices.shape, faces.shape) == ((4, 3), (4, 3))
    assert measure_path(path).table.iloc[0].to_dict() == {
        "subject": path.stem, "Volume (mL)": pytest.approx(1.0, rel=1e-6),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.stl", _stl(count=2**32 - 1), "S61 .*4294967295 faces"),
        ("a.stl", _stl()[:-1], "S61"),
        ("a.stl", b"", "S61 .*0 bytes"),
        ("a.stl", b"solid cube\n" + b" facet normal 0 0 0\n" * 9, "S60 .*text STL"),
        ("a.stl", _stl(faces=FACES[:0]), "S62 .*no faces"),
        ("a.stl", _stl(faces=FACES[:3]), "S65 .*closed"),
        ("a.ply", _ply(vertices=10**12), "S61"),
        ("a.ply", _ply(faces=3), "S61"),
        ("a.ply", _ply(index=4), "S64 .*for 4 vertices"),
        ("a.ply", _ply(index=-1), "S64"),
        ("a.ply", _ply().replace(b"binary_little_endian", b"ascii"), "S60 .*format ascii"),
        ("a.ply", _ply(extra="property double x\n"), "S60 .*no x, y, z"),
        ("a.ply", _ply(extra="property quad w\n"), "S60 .*property quad w"),
        ("a.ply", b"OFF\n4 4 0\n", "S60 .*no PLY header"),
        ("a.ply", _ply().replace(struct.pack("<d", 30.0), struct.pack("<d", np.nan)), "S63"),
    ],
)
def test_malformed_mesh_files(tmp_path, name, content, match):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CardiogenError, match=f"CG-{match}") as caught:
        measure_path(path)
    assert caught.value.exit_code == 3
