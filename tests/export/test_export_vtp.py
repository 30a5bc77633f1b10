"""VTP and PVD files: read back by an independent little parser, and by VTK where it is there."""

import struct
import warnings
import zlib
from xml.etree import ElementTree

import numpy as np
import pytest

from cardiogen.base import CardiogenError
from cardiogen.export import Marks, write_mesh_series, write_vtp
from cardiogen.export.vtp import encode_array

SYNTHETIC, REAL = Marks(synthetic=True), Marks(synthetic=False)

NUMPY = {"UInt8": "<u1", "Int32": "<i4", "Int64": "<i8", "Float32": "<f4", "Float64": "<f8"}


def parse_vtp(path):
    """Return arrays by name and field texts of a VTP file with one compressed appended block."""
    content = path.read_bytes()
    head, rest = content.split(b'<AppendedData encoding="raw">\n_', 1)
    root = ElementTree.fromstring(head + b"</VTKFile>")
    assert root.attrib["byte_order"] == "LittleEndian"
    arrays, fields = {}, {}
    for element in root.iter("DataArray"):
        kind = NUMPY[element.attrib["type"]]
        if element.attrib["format"] == "ascii":
            fields[element.attrib["Name"]] = np.array(element.text.split(), dtype=float)
            continue
        offset = int(element.attrib["offset"])
        blocks, size, last, packed = struct.unpack_from("<4I", rest, offset)
        raw = zlib.decompress(rest[offset + 16 : offset + 16 + packed])
        assert (blocks, last, len(raw)) == (1, 0, size)
        values = np.frombuffer(raw, dtype=kind)
        components = int(element.attrib["NumberOfComponents"])
        arrays[element.attrib["Name"]] = values.reshape(-1, components).squeeze()
    for element in root.iter("Array"):
        codes = bytes(int(code) for code in element.text.split())
        fields[element.attrib["Name"]] = codes.decode().split("\0")[:-1]
    return root, arrays, fields


@pytest.fixture
def series(toy_heart, tmp_path):
    times = toy_heart.phases * 0.8
    return write_mesh_series(
        tmp_path, toy_heart.vertices, toy_heart.topology, times=times, marks=SYNTHETIC,
        point_data={"wall_thickness_mm": np.linalg.norm(toy_heart.vertices, axis=-1)},
    )  # fmt: skip


def test_every_frame_holds_points_faces_scalars_and_names(toy_heart, series):
    topology = toy_heart.topology
    for t, path in enumerate(series[:-1]):
        assert path.name == f"frame_{t:03d}.vtp"
        root, arrays, fields = parse_vtp(path)
        piece = next(root.iter("Piece")).attrib
        assert int(piece["NumberOfPoints"]) == topology.vertex_count
        assert int(piece["NumberOfPolys"]) == len(topology.all_faces)
        np.testing.assert_allclose(arrays["Points"], toy_heart.vertices[t], rtol=0, atol=1e-5)
        np.testing.assert_array_equal(arrays["connectivity"].reshape(-1, 3), topology.all_faces)
        np.testing.assert_array_equal(arrays["offsets"], 3 * (np.arange(piece_faces(root)) + 1))
        np.testing.assert_array_equal(arrays["aha_segment"], topology.aha_segment)
        np.testing.assert_array_equal(arrays["region"], topology.region)
        np.testing.assert_array_equal(arrays["part"], topology.face_part)
        moved = np.linalg.norm(toy_heart.vertices[t] - toy_heart.vertices[0], axis=1)
        np.testing.assert_allclose(arrays["displacement_mm"], moved, atol=1e-5)
        assert fields["SPACE"] == ["RAS"]
        assert fields["unit"] == ["mm"]
        assert fields["synthetic"] == [1]
        assert fields["region_names"] == list(topology.region_names)
        assert fields["part_names"] == list(topology.parts)
        assert fields["TimeValue"] == pytest.approx([t / 5 * 0.8])


def piece_faces(root):
    return int(next(root.iter("Piece")).attrib["NumberOfPolys"])


def test_pvd_lists_frames_with_their_times(toy_heart, series):
    assert series[-1].name == "heart.pvd"
    sets = list(ElementTree.parse(series[-1]).getroot().iter("DataSet"))
    assert [float(s.attrib["timestep"]) for s in sets] == pytest.approx(toy_heart.phases * 0.8)
    for data_set, path in zip(sets, series, strict=False):
        assert series[-1].parent / data_set.attrib["file"] == path
    assert "<!-- cardiogen synthetic -->" in series[-1].read_text()


def test_same_heart_gives_same_bytes(toy_heart, series, tmp_path):
    again = write_mesh_series(
        tmp_path / "again", toy_heart.vertices, toy_heart.topology, times=toy_heart.phases * 0.8,
        marks=SYNTHETIC,
        point_data={"wall_thickness_mm": np.linalg.norm(toy_heart.vertices, axis=-1)},
    )  # fmt: skip
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in series]


def test_lps_negates_x_and_y_and_says_so(toy_heart, tmp_path):
    faces = toy_heart.topology.all_faces
    path = write_vtp(tmp_path / "m.vtp", toy_heart.vertices[0], faces, space="lps", marks=REAL)
    _, arrays, fields = parse_vtp(path)
    expected = toy_heart.vertices[0] * [-1, -1, 1]
    np.testing.assert_allclose(arrays["Points"], expected, rtol=0, atol=1e-5)
    assert (fields["SPACE"], fields["synthetic"]) == (["LPS"], [0])


def test_vtk_reads_what_was_written(toy_heart, series):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pv = pytest.importorskip("pyvista")
        frame = pv.read(series[2])
        reader = pv.get_reader(series[-1])
        reader.set_active_time_point(2)
        played = reader.read()[0]
    np.testing.assert_allclose(frame.points, toy_heart.vertices[2], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(
        frame.faces.reshape(-1, 4)[:, 1:], toy_heart.topology.all_faces
    )  # fmt: skip
    np.testing.assert_array_equal(frame.point_data["aha_segment"], toy_heart.topology.aha_segment)
    np.testing.assert_array_equal(frame.cell_data["part"], toy_heart.topology.face_part)
    assert frame.point_data["wall_thickness_mm"].shape == (toy_heart.topology.vertex_count,)
    assert list(frame.field_data["SPACE"]) == ["RAS"]
    assert list(frame.field_data["region_names"]) == list(toy_heart.topology.region_names)
    assert reader.time_values == pytest.approx(toy_heart.phases * 0.8)
    np.testing.assert_array_equal(played.points, frame.points)


def test_existing_files_are_kept(toy_heart, series):
    before = series[0].read_bytes()
    with pytest.raises(CardiogenError, match="CG-O01"):
        write_vtp(series[0], toy_heart.vertices[1], toy_heart.topology.all_faces, marks=SYNTHETIC)
    assert series[0].read_bytes() == before


def test_times_must_increase(toy_heart, tmp_path):
    with pytest.raises(ValueError, match="times must be 5 increasing numbers"):
        write_mesh_series(
            tmp_path,
            toy_heart.vertices,
            toy_heart.topology,
            times=[0, 1, 1, 2, 3],
            marks=SYNTHETIC,
        )


@pytest.mark.parametrize("values", [np.zeros(0), np.zeros((2, 2, 2)), np.zeros(3, dtype=complex)])
def test_arrays_that_vtk_cannot_hold_are_refused(values):
    with pytest.raises(ValueError, match="values of odd must be a filled"):
        encode_array("odd", values)
