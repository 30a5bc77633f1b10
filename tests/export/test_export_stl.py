"""STL files: read back by numpy and by trimesh."""

import io

import numpy as np
import pytest

from cardiogen.base import CardiogenError
from cardiogen.data.mesh import Surface
from cardiogen.export import Marks, write_stl, write_stl_surfaces

SYNTHETIC, REAL = Marks(synthetic=True), Marks(synthetic=False)


@pytest.fixture
def written(toy_heart, tmp_path):
    return write_stl_surfaces(
        tmp_path, toy_heart.vertices[0], toy_heart.topology, frame_name="ED", marks=SYNTHETIC
    )


def test_names_are_those_of_ukb_atlas(written):
    assert [p.name for p in written] == ["LV_ED.stl", "RV_ED.stl", "EPI_ED.stl"]


def test_header_says_space_and_origin_and_does_not_look_like_text(written):
    for path in written:
        header = path.read_bytes()[:80]
        assert not header.startswith(b"solid")
        assert b"SPACE=RAS" in header
        assert b"synthetic" in header


def test_records_are_the_faces(toy_heart, written):
    content = written[1].read_bytes()
    faces = toy_heart.topology.surfaces[Surface.RV_ENDO]
    assert int.from_bytes(content[80:84], "little") == len(faces)
    records = np.frombuffer(
        content[84:], dtype=[("n", "<f4", 3), ("p", "<f4", (3, 3)), ("a", "<u2")]
    )
    np.testing.assert_allclose(records["p"], toy_heart.vertices[0][faces], rtol=0, atol=1e-5)
    # The sphere's outward normals run along the radius.
    center = toy_heart.vertices[0][np.unique(faces)].mean(axis=0)
    radial = records["p"].mean(axis=1) - center
    radial /= np.linalg.norm(radial, axis=1, keepdims=True)
    assert (np.sum(records["n"] * radial, axis=1) > 0.99).all()


def test_trimesh_sees_a_closed_ball_of_the_right_volume(written):
    trimesh = pytest.importorskip("trimesh")
    for path, radius in zip(written, (22.0, 20.0, 62.0), strict=True):
        mesh = trimesh.load(io.BytesIO(path.read_bytes()), file_type="stl")
        assert mesh.is_watertight
        assert mesh.volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.02)


def test_lps_and_real_hearts_are_marked(toy_heart, tmp_path):
    faces = toy_heart.topology.surfaces[Surface.EPI]
    path = write_stl(tmp_path / "e.stl", toy_heart.vertices[0], faces, name="EPI", space="lps",
                     marks=REAL)  # fmt: skip
    header = path.read_bytes()[:80]
    assert b"SPACE=LPS" in header
    assert b"synthetic" not in header


def test_faces_without_area_get_no_nan(tmp_path):
    points, faces = np.zeros((3, 3)), np.array([[0, 1, 2]])
    path = write_stl(tmp_path / "flat.stl", points, faces, name="flat", marks=SYNTHETIC)
    assert np.isfinite(np.frombuffer(path.read_bytes()[84:132], dtype="<f4")).all()


def test_existing_file_and_long_name_are_refused(toy_heart, written, tmp_path):
    faces = toy_heart.topology.surfaces[Surface.EPI]
    with pytest.raises(CardiogenError, match="CG-O01"):
        write_stl(written[0], toy_heart.vertices[0], faces, name="LV", marks=SYNTHETIC)
    with pytest.raises(ValueError, match="name must fit an 80-byte header"):
        write_stl(tmp_path / "n.stl", toy_heart.vertices[0], faces, name="x" * 60, marks=SYNTHETIC)
