"""Validity: sound hearts break no rule, and every rule catches the heart broken for it."""

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.data.mesh import Surface, Topology
from cardiogen.data.sequence import Sequence
from cardiogen.measure import (
    check_cycle,
    check_labels,
    check_mesh,
    check_sequence,
    crossing_faces,
)
from cardiogen.measure.mesh_validity import winding_number
from cardiogen.ops.kernels import cpu_kernels, use_backend

LV, MYO, RV = Structure.LV, Structure.MYO, Structure.RV


def _rules(violations):
    return {violation.rule for violation in violations}


@pytest.mark.parametrize("name", ["volume_heart", "stack_heart"])
def test_sound_labels(name, request):
    heart = request.getfixturevalue(name)
    assert check_labels(heart.labels, heart.grid) == []


def _broken(heart, kind):
    labels = heart.labels.copy()
    angle, z = heart.polar()
    radius = np.hypot(heart.local[..., 0], heart.local[..., 1])
    if kind == "island":
        labels[1, 1, 1] = MYO
    elif kind == "two LV":
        labels[(labels == LV) & (np.abs(z + 30) < 9)] = MYO
    elif kind == "hole in wall":
        labels[tuple(np.argwhere(binary_erosion(labels == MYO))[0])] = 0
    elif kind == "hole in LV":
        labels[tuple(np.argwhere(binary_erosion(labels == LV))[0])] = 0
    elif kind == "window":
        labels[(labels == MYO) & (np.abs(angle) > 2.9) & (np.abs(z + 35) < 10)] = 0
    elif kind == "septal defect":
        labels[(labels == MYO) & (np.abs(angle) < 0.2) & (np.abs(z + 25) < 10)] = LV
    elif kind == "no RV":
        labels[labels == RV] = 0
    elif kind == "far RV":
        labels[labels == RV] = 0
        labels[(z < 0) & (z > -40) & (radius > 38) & (radius < 50) & (np.abs(angle) < 0.8)] = RV
    elif kind == "tunnel":
        labels[(labels == MYO) & (np.abs(radius - 29) < 2) & (np.abs(angle - 2.0) < 0.15)] = 0
    elif kind == "odd code":
        labels[2, 2, 2] = 7
    elif kind == "closed":
        labels[(labels == LV) & (z > -10)] = MYO
    return labels


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        ("island", "one-component"),
        ("two LV", "one-component"),
        ("hole in wall", "no-holes"),
        ("hole in LV", "no-holes"),
        ("window", "lv-enclosed"),
        ("septal defect", "lv-rv-apart"),
        ("septal defect", "lv-enclosed"),
        ("no RV", "structure-present"),
        ("far RV", "rv-on-myo"),
        ("tunnel", "solid-ventricle"),
        ("odd code", "known-labels"),
        ("closed", "lv-enclosed"),
    ],
)
@pytest.mark.parametrize("name", ["volume_heart", "stack_heart"])
def test_every_label_rule_bites(name, kind, rule, request):
    heart = request.getfixturevalue(name)
    frames = np.stack([heart.labels, _broken(heart, kind)])
    found = check_labels(frames, heart.grid)
    assert rule in _rules(found)
    assert {violation.frame for violation in found} == {1}
    assert f"{rule} (frame 1): " in " ".join(map(str, found))


def test_empty_labels():
    grid = Grid.regular((4, 5, 6), (1.0, 1.0, 1.0))
    found = check_labels(np.zeros((2, 4, 5, 6), np.uint8), grid)
    assert [(v.rule, v.frame) for v in found] == [("structure-present", k) for k in (0, 1)]
    with pytest.raises(ValueError, match="labels must be"):
        check_labels(np.zeros((5, 5, 6), np.uint8), grid)


def test_thick_slices_may_shift_by_less_than_half_their_distance():
    """A ring that a slanting wall moves from slice to slice is still one piece."""
    grid = Grid.regular((5, 40, 40), (10.0, 1.5, 1.5))
    center = np.array([18.0, 20.0])
    place = np.moveaxis(np.indices((40, 40)), 0, -1) - center
    radius = np.hypot(*np.moveaxis(place, -1, 0))
    labels = np.zeros(grid.shape, np.uint8)
    for k, r in enumerate((4, 8, 12, 12, 12)):
        labels[k][radius < r + 3] = MYO
        labels[k][radius < r] = LV
    labels[1:, :, 36:] = RV
    assert "one-component" not in _rules(check_labels(labels, grid))
    labels[0] = np.where(labels[0] > 0, 0, 0)
    labels[0][2:5, 2:5] = MYO
    assert "one-component" in _rules(check_labels(labels, grid))


def test_sound_mesh(beating_cup):
    assert check_mesh(beating_cup.vertices, beating_cup.topology) == []
    assert check_cycle(beating_cup) == []


def _with_surfaces(topology, **changed):
    surfaces = dict(topology.surfaces) | {Surface[name]: f for name, f in changed.items()}
    return Topology(surfaces, {}, topology.aha_segment, topology.region, topology.region_names)


def test_every_topological_rule_bites(beating_cup):
    vertices, topology = beating_cup.vertices[0], beating_cup.topology
    right = topology.surfaces[Surface.RV_ENDO]
    open_ = _with_surfaces(topology, RV_ENDO=right[1:])
    assert _rules(check_mesh(vertices, open_)) == {"closed"}
    twisted = right.copy()
    twisted[0] = twisted[0, ::-1]
    assert "oriented" in _rules(check_mesh(vertices, _with_surfaces(topology, RV_ENDO=twisted)))
    inward = _with_surfaces(topology, RV_ENDO=right[:, ::-1])
    assert _rules(check_mesh(vertices, inward)) == {"outward"}
    doubled = _with_surfaces(topology, RV_ENDO=np.concatenate([right, right]))
    assert "closed" in _rules(check_mesh(vertices, doubled))


def test_every_geometric_rule_bites(beating_cup):
    topology, sound = beating_cup.topology, beating_cup.vertices[0]
    endo = np.unique(topology.surfaces[Surface.LV_ENDO])
    frames = np.stack([sound] * 6)
    frames[1, 3] = np.nan
    frames[2, 20] = frames[2, 21]
    frames[3, 35] *= 1.8  # one endocardial vertex pushed through the wall
    frames[4, endo] *= 3.0
    frames[5, 2 * 145 + 1 :] -= [60.0, 0.0, 0.0]  # the right ventricle inside the left one
    found = check_mesh(frames, topology)
    by_frame = [{v.rule for v in found if v.frame == k} for k in range(6)]
    assert by_frame[0] == set()
    assert by_frame[1] == {"finite"}
    assert "no-zero-area" in by_frame[2]
    assert "no-crossing" in by_frame[3]
    assert "endo-inside-epi" in by_frame[4]
    assert "no-crossing" in by_frame[5]
    thin = sound.copy()
    thin[endo] *= 1.34
    assert "wall-thickness" in _rules(check_mesh(thin, topology))
    with pytest.raises(ValueError, match="vertices must be"):
        check_mesh(sound[:-1], topology)


def test_winding_number(beating_cup):
    vertices, topology = beating_cup.vertices[0], beating_cup.topology
    triangles = vertices[topology.surfaces[Surface.LV_EPI]]
    points = np.array([[0.0, 0, -40], [5.0, -9, -80], [0, 0, 10], [80.0, 0, -40]])
    np.testing.assert_allclose(winding_number(points, triangles), [1, 1, 0, 0], atol=1e-12)


def _crosses(a, b, skip):
    """Does an edge of one triangle pass through the other? With the plane's own formula."""
    for one, other in ((a, b), (b, a)):
        normal = np.cross(other[1] - other[0], other[2] - other[0])
        for k in range(3):
            tail, head = one[k], one[(k + 1) % 3]
            if any(np.array_equal(p, q) for p in (tail, head) for q in skip):
                continue
            low, high = (tail - other[0]) @ normal, (head - other[0]) @ normal
            if low * high >= 0:
                continue
            hit = tail + (head - tail) * low / (low - high)
            sides = [np.cross(other[(i + 1) % 3] - other[i], hit - other[i]) @ normal
                     for i in range(3)]  # fmt: skip
            if min(sides) > 0:
                return True
    return False


@pytest.fixture(params=["reference", "auto"])
def backend(request):
    with use_backend(request.param):
        yield request.param


def test_crossing_faces_against_all_pairs(backend):
    rng = np.random.default_rng(4)
    vertices = rng.normal(size=(60, 3)) * 9 + 300
    faces = np.array([rng.choice(60, 3, replace=False) for _ in range(80)])
    wanted = []
    for i in range(80):
        for j in range(i + 1, 80):
            shared = vertices[np.intersect1d(faces[i], faces[j])]
            if len(shared) < 2 and _crosses(vertices[faces[i]], vertices[faces[j]], shared):
                wanted.append((i, j))
    assert len(wanted) > 100
    np.testing.assert_array_equal(crossing_faces(vertices, faces), wanted)


def test_crossing_in_one_plane(backend):
    flat = np.array([[0.0, 0, 0], [4, 0, 0], [0, 4, 0], [1, 1, 0], [5, 1, 0], [1, 5, 0],
                     [4, 4, 0], [9.0, 9, 0]])  # fmt: skip
    overlap = np.array([[0, 1, 2], [3, 4, 5]])
    beside = np.array([[0, 1, 2], [6, 7, 4]])
    tilt = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    for vertices in (flat, flat @ tilt + 50.0):
        np.testing.assert_array_equal(crossing_faces(vertices, overlap), [[0, 1]])
        assert len(crossing_faces(vertices, beside)) == 0
        # Two faces that meet at an edge or a corner only touch.
        assert len(crossing_faces(vertices, np.array([[0, 1, 2], [1, 6, 2], [6, 7, 1]]))) == 0
    assert crossing_faces(flat, overlap[:1]).shape == (0, 2)


def test_compiled_crossing_is_the_reference():
    assert cpu_kernels() is not None
    rng = np.random.default_rng(6)
    # A sheet 200 mm long, a fan whose faces reach all across it, and a blade along it, which
    # crosses more faces than there is room for at first.
    x, y = (a.ravel() for a in np.meshgrid(np.arange(40.0) * 5, np.arange(20.0) * 5))
    corner = (np.arange(39)[:, None] + 40 * np.arange(19)).ravel()
    sheet = np.concatenate([np.stack([corner, corner + 1, corner + 40], 1),
                            np.stack([corner + 1, corner + 41, corner + 40], 1)])  # fmt: skip
    fan = np.stack([[800, 801 + k, 802 + k] for k in range(20)])
    rim = np.stack([np.linspace(0, 195, 21), np.full(21, 95.0), np.linspace(-9, 9, 21)], axis=1)
    for noise in (0.0, 0.5, 4.0):
        flat = np.stack([x, y, rng.normal(size=800) * noise], axis=1)
        blade = [[-2.0, 41, -9], [-2, 41, 9], [199, 42, 0.5]]
        vertices = np.concatenate([flat, [[90.0, -3.0, 2.0]], rim, blade])
        faces = rng.permutation(np.concatenate([sheet, fan, [[822, 823, 824]]]))
        with use_backend("reference"):
            wanted = crossing_faces(vertices, faces)
        np.testing.assert_array_equal(crossing_faces(vertices, faces), wanted)
        assert len(wanted) > 40


def test_crossing_faces_refuses_what_is_not_finite():
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, np.nan, 0], [1, 1, 1]])
    with pytest.raises(ValueError, match="finite"):
        crossing_faces(vertices, np.array([[0, 1, 2], [1, 2, 3]]))


def _cycle(lv, **given):
    """A sequence whose LV, MYO and RV have given volumes in mL: rows of 1 mL voxels."""
    frames = len(lv)
    given = {"myo": [100] * frames, "rv": list(lv)} | given
    labels = np.zeros((frames, 3, 1, 450), np.uint8)
    for t in range(frames):
        for row, (structure, volume) in enumerate(
            ((LV, lv[t]), (MYO, given["myo"][t]), (RV, given["rv"][t]))
        ):
            labels[t, row, 0, : round(volume)] = structure
    phases = np.arange(frames) / frames
    grid = Grid.regular((3, 1, 450), (10.0, 10.0, 10.0))
    return Sequence(phases=phases, labels=labels, grid=grid)


def _curve(frames=20):
    return 150 - 90 * np.sin(np.pi * np.arange(frames) / frames) ** 2


def test_sound_cycle():
    assert check_cycle(_cycle(_curve())) == []
    assert check_cycle(_cycle([150, 60])) == []  # ED and ES alone


@pytest.mark.parametrize(
    ("sequence", "rule"),
    [
        (_cycle([30, 12]), "bounds"),
        (_cycle([150, 145]), "bounds"),
        (_cycle([150, 60], myo=[400, 400]), "bounds"),
        (_cycle([150, 60], rv=[150, 130]), "stroke-ratio"),
        (_cycle(_curve(), myo=[100] * 9 + [111] + [100] * 10), "myo-volume"),
        (_cycle(np.roll(_curve(), 5)), "ed-largest"),
        (_cycle(_curve() + 30 * np.sin(4 * np.pi * np.arange(20) / 20) ** 2), "one-minimum"),
        (_cycle(150 - 4.0 * np.arange(20)), "closure"),
    ],
)  # fmt: skip
def test_every_cycle_rule_bites(sequence, rule):
    assert rule in _rules(check_cycle(sequence))


def test_motion_of_vertices(beating_cup):
    jump = beating_cup.vertices.copy()
    jump[12:14] += [0.0, 0.0, 13.0]
    found = check_cycle(beating_cup.with_(vertices=jump))
    assert [v.frame for v in found if v.rule == "smooth-motion"] == [11, 13]
    drift = beating_cup.vertices + np.linspace(0, 7, 25)[:, None, None] * np.array([1.0, 0, 0])
    assert _rules(check_cycle(beating_cup.with_(vertices=drift))) == {"closure"}


def test_sequence_joins_all_rules(beating_cup, stack_heart):
    sequence = beating_cup.with_(
        labels=np.stack([_broken(stack_heart, "island")] * 25), grid=stack_heart.grid
    )
    assert _rules(check_sequence(sequence)) == {"one-component", "solid-ventricle", "bounds"}
    assert check_sequence(beating_cup) == []


def test_real_hearts_are_possible(real_data):
    """25 patients of five groups: no rule but the three that manual contours do break."""
    from cardiogen.data import load_sequence, read_cohort

    broken = set()
    for subject in read_cohort(real_data / "acdc_dev25"):
        broken |= _rules(check_sequence(load_sequence(subject)))
    # One- or two-voxel gaps between contours, LV on RV in basal slices, islands of some voxels.
    assert broken <= {"no-holes", "lv-rv-apart", "one-component"}
