"""GLB files: structure by the glTF 2.0 rules, and the motion that a player would show."""

import itertools
import json
import struct

import numpy as np
import pytest

from cardiogen.base import CardiogenError
from cardiogen.data.mesh import Surface
from cardiogen.export import Marks, write_glb
from cardiogen.export.surface import compact

SYNTHETIC, REAL = Marks(synthetic=True), Marks(synthetic=False)

DTYPES = {5126: np.dtype("<f4"), 5123: np.dtype("<u2"), 5125: np.dtype("<u4")}
WIDTH = {"SCALAR": 1, "VEC3": 3}


def parse_glb(path):
    content = path.read_bytes()
    magic, version, total = struct.unpack_from("<4sII", content)
    assert (magic, version, total) == (b"glTF", 2, len(content))
    length, kind = struct.unpack_from("<I4s", content, 12)
    assert kind == b"JSON"
    assert length % 4 == 0
    tree = json.loads(content[20 : 20 + length])
    size, kind = struct.unpack_from("<I4s", content, 20 + length)
    assert kind == b"BIN\0"
    assert size == tree["buffers"][0]["byteLength"]
    assert size % 4 == 0
    return tree, content[28 + length :]


def read_accessor(tree, data, index):
    accessor = tree["accessors"][index]
    view = tree["bufferViews"][accessor["bufferView"]]
    dtype = DTYPES[accessor["componentType"]]
    assert view["byteOffset"] % 4 == 0
    assert view["byteOffset"] + view["byteLength"] <= len(data)
    assert view["byteLength"] == accessor["count"] * WIDTH[accessor["type"]] * dtype.itemsize
    raw = data[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
    values = np.frombuffer(raw, dtype=dtype).reshape(accessor["count"], WIDTH[accessor["type"]])
    np.testing.assert_array_equal(values.min(axis=0), np.array(accessor["min"], dtype=dtype))
    np.testing.assert_array_equal(values.max(axis=0), np.array(accessor["max"], dtype=dtype))
    return values


@pytest.fixture
def glb(toy_heart, tmp_path):
    return write_glb(
        tmp_path / "heart.glb", toy_heart.vertices, toy_heart.topology, phases=toy_heart.phases,
        cycle_s=0.8, marks=SYNTHETIC, extras={"subject_id": "toy_001"},
    )  # fmt: skip


def shape_at(tree, data, mesh, time):
    """Return the positions that a player shows: base + targets by linearly mixed weights."""
    sampler = tree["animations"][0]["samplers"][0]
    times = read_accessor(tree, data, sampler["input"])[:, 0]
    primitive = mesh["primitives"][0]
    weights = read_accessor(tree, data, sampler["output"]).reshape(len(times), -1)
    base = read_accessor(tree, data, primitive["attributes"]["POSITION"]).astype(float)
    mixed = [np.interp(time, times, weights[:, k]) for k in range(weights.shape[1])]
    for weight, target in zip(mixed, primitive["targets"], strict=True):
        base = base + weight * read_accessor(tree, data, target["POSITION"])
    return base


def test_structure_follows_the_specification(toy_heart, glb):
    tree, data = parse_glb(glb)
    assert tree["asset"]["version"] == "2.0"
    assert [m["name"] for m in tree["meshes"]] == ["LV", "RV", "EPI"]
    for mesh in tree["meshes"]:
        (primitive,) = mesh["primitives"]
        assert len(primitive["targets"]) == len(mesh["weights"]) == len(toy_heart) - 1
        assert len(mesh["extras"]["targetNames"]) == len(toy_heart) - 1
        count = tree["accessors"][primitive["attributes"]["POSITION"]]["count"]
        normals = read_accessor(tree, data, primitive["attributes"]["NORMAL"])
        np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)
        assert len(normals) == count
        assert read_accessor(tree, data, primitive["indices"]).max() == count - 1
        for target in primitive["targets"]:
            assert len(read_accessor(tree, data, target["POSITION"])) == count
    views = [(v["byteOffset"], v["byteLength"]) for v in tree["bufferViews"]]
    for (start, length), (following, _) in itertools.pairwise(views):
        assert start + length <= following


def test_animation_drives_every_mesh_and_returns_to_its_start(toy_heart, glb):
    tree, data = parse_glb(glb)
    (animation,) = tree["animations"]
    (sampler,) = animation["samplers"]
    assert sampler["interpolation"] == "LINEAR"
    times = read_accessor(tree, data, sampler["input"])[:, 0]
    np.testing.assert_allclose(times, np.arange(6) / 5 * 0.8, atol=1e-6)
    weights = read_accessor(tree, data, sampler["output"]).reshape(6, 4)
    np.testing.assert_array_equal(weights[0], weights[-1])
    driven = {c["target"]["node"] for c in animation["channels"]}
    assert driven == {n for n, node in enumerate(tree["nodes"]) if "mesh" in node}
    assert all(c["target"]["path"] == "weights" for c in animation["channels"])


@pytest.mark.parametrize(("mesh", "surface"), list(enumerate([Surface.LV_ENDO, Surface.RV_ENDO])))
def test_every_frame_is_shown_at_its_time(toy_heart, glb, mesh, surface):
    tree, data = parse_glb(glb)
    used, _ = compact(toy_heart.topology.surfaces[surface])
    frames = toy_heart.vertices[:, used]
    for t, frame in enumerate(frames):
        shown = shape_at(tree, data, tree["meshes"][mesh], t / 5 * 0.8)
        np.testing.assert_allclose(shown, frame, rtol=0, atol=2e-5)
    halfway = shape_at(tree, data, tree["meshes"][mesh], 2.5 / 5 * 0.8)
    np.testing.assert_allclose(halfway, (frames[2] + frames[3]) / 2, rtol=0, atol=2e-5)
    closing = shape_at(tree, data, tree["meshes"][mesh], 4.5 / 5 * 0.8)
    np.testing.assert_allclose(closing, (frames[4] + frames[0]) / 2, rtol=0, atol=2e-5)


def test_both_spaces_stand_alike_in_meters_y_up(toy_heart, glb, tmp_path):
    lps = write_glb(
        tmp_path / "lps.glb", toy_heart.vertices, toy_heart.topology, phases=toy_heart.phases,
        space="lps", marks=REAL,
    )  # fmt: skip
    placed = []
    for path in (glb, lps):
        tree, data = parse_glb(path)
        matrix = np.array(tree["nodes"][0]["matrix"]).reshape(4, 4).T
        position = tree["meshes"][0]["primitives"][0]["attributes"]["POSITION"]
        points = read_accessor(tree, data, position).astype(float)
        placed.append(points @ matrix[:3, :3].T + matrix[:3, 3])
        assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1e-9)
    np.testing.assert_allclose(placed[0], placed[1], rtol=0, atol=1e-7)
    used, _ = compact(toy_heart.topology.surfaces[Surface.LV_ENDO])
    world = toy_heart.vertices[0][used]
    relative = (world - world.mean(axis=0)) / 1000
    shown = placed[0] - placed[0].mean(axis=0)
    np.testing.assert_allclose(shown, relative[:, [0, 2, 1]] * [-1, 1, 1], atol=1e-7)
    assert parse_glb(glb)[0]["asset"]["extras"]["synthetic"] is True
    assert parse_glb(lps)[0]["asset"]["extras"]["synthetic"] is False
    assert "LPS" in parse_glb(lps)[0]["asset"]["extras"]["space"]


def test_trimesh_loads_closed_meshes_of_the_right_size(glb):
    trimesh = pytest.importorskip("trimesh")
    scene = trimesh.load(glb)
    assert set(scene.geometry) == {"LV", "RV", "EPI"}
    # The epicardium is a ball of 62 mm radius around the origin.
    np.testing.assert_allclose(np.abs(scene.bounds), 0.062, rtol=0.01)
    assert scene.geometry["LV"].volume == pytest.approx(4 / 3 * np.pi * 22**3, rel=0.02)
    assert scene.geometry["EPI"].visual.material.alphaMode == "BLEND"


def test_one_frame_is_a_still_heart(toy_heart, tmp_path):
    path = write_glb(
        tmp_path / "still.glb", toy_heart.vertices[:1], toy_heart.topology, phases=[0.0],
        marks=SYNTHETIC,
    )  # fmt: skip
    tree, _ = parse_glb(path)
    assert "animations" not in tree
    assert "targets" not in tree["meshes"][0]["primitives"][0]


def test_same_heart_gives_same_bytes(toy_heart, glb, tmp_path):
    again = write_glb(
        tmp_path / "again.glb", toy_heart.vertices, toy_heart.topology, phases=toy_heart.phases,
        cycle_s=0.8, marks=SYNTHETIC, extras={"subject_id": "toy_001"},
    )  # fmt: skip
    assert again.read_bytes() == glb.read_bytes()


def test_a_full_heart_stays_under_three_megabytes(toy_heart, tmp_path):
    points, faces = np.random.default_rng(0).normal(size=(25, 6900, 3)), np.arange(6900)
    surfaces = dict(zip(Surface, faces.reshape(4, -1, 3)[[0, 0, 1, 2]], strict=True))
    topology = toy_heart.topology.__class__(
        surfaces=surfaces, parts={}, aha_segment=np.zeros(6900, np.uint8),
        region=np.zeros(6900, np.uint8), region_names=(),
    )  # fmt: skip
    path = write_glb(
        tmp_path / "big.glb", points, topology, phases=np.arange(25) / 25, marks=SYNTHETIC
    )
    assert path.stat().st_size < 3_000_000


@pytest.mark.parametrize(
    ("phases", "message"),
    [([0, 0.5, 0.5, 0.6, 0.7], "increasing numbers"), ([0, 0.3, 0.6, 0.9, 1.0], "one cycle")],
)
def test_phases_outside_one_cycle_are_refused(toy_heart, tmp_path, phases, message):
    with pytest.raises(ValueError, match=message):
        write_glb(
            tmp_path / "x.glb", toy_heart.vertices, toy_heart.topology, phases=phases,
            marks=SYNTHETIC,
        )  # fmt: skip


def test_existing_file_is_kept(toy_heart, glb):
    with pytest.raises(CardiogenError, match="CG-O01"):
        write_glb(
            glb, toy_heart.vertices, toy_heart.topology, phases=toy_heart.phases, marks=SYNTHETIC
        )
