"""Laws of whole hearts: exact truth, closure, reproducible bits, true handedness, validity."""

import numpy as np
import pytest

from cardiogen.base import CardiogenError
from cardiogen.data.factors import Factors
from cardiogen.data.mesh import Surface
from cardiogen.measure import MYOCARDIAL_DENSITY, check_sequence, mesh_volume
from cardiogen.population import (
    Pose,
    sample_heart,
    short_axis_grid,
    template_topology,
    typical_pose,
)
from cardiogen.population.render import render_sequence

TOPOLOGY = template_topology()
PHASES = np.arange(25) / 25


def volumes(vertices):
    found = {s: mesh_volume(vertices, f) for s, f in TOPOLOGY.surfaces.items()}
    wall = found[Surface.LV_EPI] - found[Surface.LV_ENDO]
    return found[Surface.LV_ENDO], wall, found[Surface.RV_ENDO]


def test_heart_has_its_phenotypes(hearts):
    for heart in hearts:
        p = heart.phenotypes
        left, wall, right = volumes(heart.vertices([0.0, heart.timing.systole]))
        np.testing.assert_allclose(left, [p.lvedv, p.lvesv], rtol=1e-7)
        np.testing.assert_allclose(right, [p.rvedv, p.rvesv], rtol=1e-7)
        assert wall[0] * MYOCARDIAL_DENSITY == pytest.approx(p.lvm, rel=1e-7)


def test_heart_over_the_cycle(hearts):
    for heart in hearts:
        left, wall, right = volumes(heart.vertices(PHASES))
        assert np.abs(wall / wall[0] - 1).max() < 0.05
        assert np.ptp(right) / np.ptp(left) == pytest.approx(1.0, abs=0.1)
        assert left.argmax() == right.argmax() == 0
        assert (right > 0).all()


def test_heart_closes_exactly(hearts):
    for heart in hearts:
        start, end, before = heart.vertices([0.0, 1.0, -1.0])
        np.testing.assert_array_equal(end, start)
        np.testing.assert_array_equal(before, start)


def test_heart_moves_smoothly(hearts):
    vertices = hearts[0].vertices(np.arange(80) / 80)
    speed = np.diff(vertices, axis=0, append=vertices[:1])
    change = np.linalg.norm(np.roll(speed, -1, axis=0) - speed, axis=-1).max()
    assert change < 0.35 * np.linalg.norm(speed, axis=-1).max()


def test_heart_is_the_same_bits_alone_and_after_others():
    alone = sample_heart(7, 3)
    others = [sample_heart(7, i) for i in range(5)]
    np.random.default_rng(0).normal(size=100)
    again = others[3]
    assert again.factors == alone.factors
    assert again.phenotypes == alone.phenotypes
    for name in ("ed", "systole"):
        np.testing.assert_array_equal(getattr(again, name), getattr(alone, name))
    np.testing.assert_array_equal(again.vertices([0.2])[0], alone.vertices(PHASES)[5])
    assert not np.array_equal(others[2].ed, alone.ed)
    assert sample_heart(8, 3).phenotypes != alone.phenotypes


def test_heart_frame_is_the_same_bits_among_any_frames(hearts):
    whole = hearts[1].vertices(PHASES)
    for chosen in ([0], [9], [24, 3], list(range(0, 25, 5))):
        np.testing.assert_array_equal(hearts[1].vertices(PHASES[chosen]), whole[chosen])


def test_heart_keeps_given_factors():
    given = Factors(age=71.5, sex="F", height=158.0)
    heart = sample_heart(1, 0, given)
    assert (heart.factors.age, heart.factors.sex, heart.factors.height) == (71.5, "F", 158.0)
    with pytest.raises(CardiogenError, match="CG-D01 age"):
        sample_heart(1, 0, Factors(age=95))


def test_hearts_of_equal_volumes_differ():
    """Shape varies beyond the volumes."""
    first, second = sample_heart(2, 0), sample_heart(2, 1)
    vector = second.ed.copy()
    vector[:3] = first.ed[:3]
    from cardiogen.population import heart_vertices

    a, b = heart_vertices(np.stack([first.ed, vector]))
    for measured in volumes(np.stack([a, b])):
        assert measured[0] == pytest.approx(measured[1], rel=1e-6)
    assert np.sqrt(np.mean((a - b) ** 2)) > 1.0


def test_sequence_of_a_heart(hearts):
    sequence = hearts[0].sequence(20)
    assert len(sequence) == 20
    assert sequence.ed == 0
    assert abs(sequence.phases[sequence.es] - hearts[0].timing.systole) <= 0.05
    assert sequence.cycle_s == hearts[0].timing.cycle_s
    np.testing.assert_array_equal(sequence.vertices, hearts[0].vertices(np.arange(20) / 20))


def test_heart_is_valid_over_the_cycle(hearts):
    for heart in hearts[:2]:
        assert check_sequence(heart.sequence(25)) == []


def test_heart_labels_are_valid(hearts):
    for heart in hearts[2:4]:
        sequence = heart.sequence(25)
        few = sequence.with_(
            phases=sequence.phases[::8], vertices=None, topology=None,
            es=1, labels=None,
        )  # fmt: skip
        vertices = sequence.vertices[::8]
        grid = short_axis_grid(vertices, heart.pose, (1.5, 1.5, 1.5))
        few = few.with_(labels=render_sequence(vertices, TOPOLOGY, grid), grid=grid)
        assert check_sequence(few) == []


def axes_of(left, right):
    """Unit z (apex to base) and x (to the right ventricle) of ventricles given as points."""
    around = left - left.mean(axis=0)
    z = np.linalg.svd(around, full_matrices=False)[2][0]
    wide = [np.linalg.norm(around[side] - np.outer(around[side] @ z, z), axis=1).mean()
            for side in (around @ z > 20, around @ z < -20)]  # fmt: skip
    z = z if wide[0] > wide[1] else -z
    x = right.mean(axis=0) - left.mean(axis=0)
    x = x - (x @ z) * z
    return z, x / np.linalg.norm(x)


def test_heart_lies_like_a_real_one(real_data, hearts):
    """Axes within 35 degrees of a human heart's, the right ventricle to the right and in front."""
    meshes = np.load(real_data / "human_cine" / "biventricular_mesh_sequence.npz")
    to_ras = np.array([-1.0, -1.0, 1.0])
    real = axes_of(*(meshes[f"{s}_ENDOCARDIAL_points"][0] * to_ras for s in ("LV", "RV")))
    surfaces = TOPOLOGY.surfaces

    def angles(vertices):
        parts = (vertices[np.unique(surfaces[s])] for s in (Surface.LV_ENDO, Surface.RV_ENDO))
        ours = axes_of(*parts)
        return [np.degrees(np.arccos(a @ b)) for a, b in zip(ours, real, strict=True)]

    assert real[1][0] > 0.3, "the right ventricle lies to the right (RAS)"
    assert real[1][1] > 0.2, "and in front"
    for heart in hearts:
        found = angles(heart.vertices([0.0])[0])
        assert max(found) < 45.0  # each is tilted by some 6 degrees
    middle = typical_pose()
    straight = [angles(middle.to_world(h.pose.to_heart(h.vertices([0.0])[0]))) for h in hearts]
    assert np.median(straight, axis=0).max() < 35.0


def test_heart_has_the_handedness_of_a_real_one(real_data, hearts):
    """With one apex and one right side, the anterior wall tells a heart from its mirror image."""
    meshes = np.load(real_data / "human_cine" / "biventricular_mesh_sequence.npz")
    points = {k: meshes[k][0] * [-1.0, -1.0, 1.0] for k in meshes.files if k.endswith("_points")}
    left, right = points["LV_ENDOCARDIAL_points"], points["RV_ENDOCARDIAL_points"]
    z, x = axes_of(left, right)
    y = np.cross(z, x)
    # Seen from the apex, the outflow tract of the right ventricle points to the anterior wall:
    # the right base reaches further there than at the inferior side.
    base = right[(right - left.mean(axis=0)) @ z > 25.0]
    assert np.mean((base - left.mean(axis=0)) @ y) > 0
    assert y[2] > 0.5, "anterior of the heart is up in a lying patient"
    for heart in hearts:
        y_ours = heart.pose.axes[:, 1]
        assert y_ours @ y > 0.6
        mirror = Pose.from_directions(
            heart.pose.axes[:, 2], heart.pose.axes[:, 0], np.zeros(3), mirrored=True
        )
        assert mirror.axes[:, 1] @ y < -0.6
        assert mirror.mirrored
        assert not heart.pose.mirrored


def test_heart_twists_and_shortens_like_a_heart(hearts):
    """Seen from the apex the apex turns counter-clockwise against the base; the base descends."""
    for heart in hearts:
        start, end = heart.pose.to_heart(heart.vertices([0.0, heart.timing.systole]))
        angle = np.arctan2(end[:, 1], end[:, 0]) - np.arctan2(start[:, 1], start[:, 0])
        angle = np.angle(np.exp(1j * angle))
        row = 48
        base, apex = angle[:row], angle[20 * row : 21 * row]
        # About apex -> base, clockwise seen from the base is negative.
        assert apex.mean() < base.mean() - np.radians(3.0)
        assert (start[:row, 2] - end[:row, 2]).mean() > 4.0
        assert abs(start[1152, 2] - end[1152, 2]) < 6.0, "the apex hardly moves"


def test_pose_round_trip():
    pose = typical_pose(np.random.default_rng(0))
    points = np.random.default_rng(1).normal(scale=50, size=(40, 3))
    np.testing.assert_allclose(pose.to_heart(pose.to_world(points)), points, atol=1e-12)
    np.testing.assert_allclose(pose.axes.T @ pose.axes, np.eye(3), atol=1e-12)
    assert np.linalg.det(pose.axes) == pytest.approx(1.0)
    assert np.linalg.det(
        Pose.from_directions([0, 0, 2], [3, 0, 1], [1, 2, 3], mirrored=True).axes
    ) == pytest.approx(-1.0)
