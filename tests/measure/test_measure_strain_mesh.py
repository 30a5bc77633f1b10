"""Strain of meshes: scaling, turning and twisting cups with closed forms; a fitted human heart."""

from dataclasses import replace

import numpy as np
import pytest

from cardiogen.data.mesh import Surface, Topology
from cardiogen.measure import mesh_strain
from cardiogen.measure.strain_lattice import lv_walls, mesh_frame, ray_hits
from cardiogen.population import sample_heart, template_topology

PHASES = np.array([0.0, 0.4])
TOPOLOGY = template_topology()


def turn(axis, angle):
    k = np.cross(np.eye(3), np.asarray(axis) / np.linalg.norm(axis))
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


@pytest.fixture(scope="module")
def heart():
    """A population heart at ED in its own frame (z from apex to base), and its world pose."""
    drawn = sample_heart(11, 1)
    return drawn, drawn.pose.to_heart(drawn.vertices([0.0])[0])


def strain_of(start, moved, **options):
    options = {"phases": PHASES, "es": 1, "topology": TOPOLOGY} | options
    return mesh_strain(np.stack([start, moved]), options.pop("topology"), **options)


def test_rays_meet_the_triangle_they_aim_at():
    rng = np.random.default_rng(0)
    vertices = rng.normal(size=(9, 3)) + 4 * np.eye(3)[[0, 0, 0, 1, 1, 1, 2, 2, 2]]
    faces = np.arange(9).reshape(3, 3)
    weights = np.array([0.2, 0.3, 0.5])
    origin = np.array([0.1, -0.2, 0.05])
    targets = np.einsum("k,fkc->fc", weights, vertices[faces])
    corners, found = ray_hits(origin, targets - origin, vertices, faces)
    np.testing.assert_array_equal(corners, faces)
    np.testing.assert_allclose(found, np.tile(weights, (3, 1)), atol=1e-12)
    assert np.isnan(ray_hits(origin, origin - targets, vertices, faces)[1]).all()


def test_frame_of_a_mesh_is_its_pose(heart):
    drawn, start = heart
    frame = mesh_frame(start, lv_walls(TOPOLOGY)[0])
    assert np.degrees(np.arccos(frame.axis[2])) < 2.0
    cavity = start[np.unique(TOPOLOGY.surfaces[Surface.LV_ENDO])]
    assert frame.base - frame.apex == pytest.approx(np.ptp(cavity[:, 2]), abs=1.0)
    moved = mesh_frame(drawn.pose.to_world(start), lv_walls(TOPOLOGY)[0])
    np.testing.assert_allclose(moved.axis, drawn.pose.axes @ frame.axis, atol=1e-9)
    np.testing.assert_allclose(moved.center, drawn.pose.to_world(frame.center), atol=1e-8)


@pytest.mark.parametrize("definition", ["engineering", "green_lagrange"])
@pytest.mark.parametrize("scale", [0.8, 1.15])
def test_even_scaling_is_the_same_in_all_directions(heart, definition, scale):
    strain = strain_of(heart[1], scale * heart[1], definition=definition)
    wanted = scale - 1 if definition == "engineering" else (scale**2 - 1) / 2
    area = scale**2 - 1 if definition == "engineering" else (scale**4 - 1) / 2
    known = [c for c in strain.components if c != "area_endo"]
    for component in known:
        assert strain.curve(component)[1] == pytest.approx(wanted, abs=1e-9)
        np.testing.assert_allclose(strain.at_es(component)[:16], wanted, atol=1e-9)
    assert strain.curve("area_endo")[1] == pytest.approx(area, abs=1e-9)


def test_scaling_along_and_across_the_axis(heart):
    """Rings only feel the scale across; lines that mostly run along, mostly that along."""
    frame = mesh_frame(heart[1], lv_walls(TOPOLOGY)[0])
    shrink = 0.75 * np.eye(3) + (0.9 - 0.75) * np.outer(frame.axis, frame.axis)
    strain = strain_of(heart[1], heart[1] @ shrink)
    for layer in ("", "_endo", "_epi"):
        assert strain.curve(f"circumferential{layer}")[1] == pytest.approx(-0.25, abs=1e-9)
        assert -0.20 < strain.curve(f"longitudinal{layer}")[1] < -0.10
    basal = strain.at_es("longitudinal")[:6]
    np.testing.assert_allclose(basal, -0.10, atol=0.012)


def test_rigid_motion_has_no_strain_and_no_twist(heart):
    moved = heart[1] @ turn([1.0, -0.4, 0.6], 0.5).T + [8.0, -3.0, 12.0]
    strain = strain_of(heart[1], moved)
    np.testing.assert_allclose(strain.whole, 0.0, atol=1e-9)
    about = strain_of(heart[1], heart[1] @ turn([0.0, 0.0, 1.0], -0.2).T)
    np.testing.assert_allclose(about.twist.twist, 0.0, atol=0.05)
    # Clockwise about the axis from apex to base is counterclockwise seen from the apex.
    np.testing.assert_allclose(about.twist.rotation[1], np.degrees(0.2), atol=0.1)


def test_twisting_turns_every_level(heart):
    frame = mesh_frame(heart[1], lv_walls(TOPOLOGY)[0])
    rate = np.radians(0.15)  # per mm towards the base, about the axis to the base
    height = frame.level(heart[1])
    offset = heart[1] - frame.center - height[:, None] * frame.axis
    angle = rate * height[:, None]
    moved = (frame.center + height[:, None] * frame.axis + np.cos(angle) * offset
             + np.sin(angle) * np.cross(frame.axis, offset))  # fmt: skip
    twist = strain_of(heart[1], moved).twist
    assert twist.twist[1] == pytest.approx(0.15 * twist.distance_mm, rel=0.01)
    assert twist.torsion[1] == pytest.approx(1.5, rel=0.01)
    assert (np.diff(twist.rotation[1]) < 0).all()


def test_mirrored_copy_has_the_same_strain(heart):
    drawn = heart[0]
    vertices = drawn.vertices(np.array([0.0, 0.36]))
    flip = np.array([-1.0, 1.0, 1.0])
    plain = mesh_strain(vertices, TOPOLOGY, phases=PHASES, es=1)
    other = mesh_strain(vertices * flip, TOPOLOGY.mirrored(), phases=PHASES, es=1,
                        orientation="mirrored")  # fmt: skip
    np.testing.assert_allclose(other.whole, plain.whole, atol=2e-3)
    np.testing.assert_allclose(other.segments, plain.segments, atol=1e-2)
    np.testing.assert_allclose(other.twist.twist, plain.twist.twist, atol=0.05)
    assert plain.twist.twist[1] > 3.0


def test_a_contracting_heart_has_the_signs_and_layers_of_one(heart):
    vertices = heart[0].vertices(np.array([0.0, 0.36]))
    strain = mesh_strain(vertices, TOPOLOGY, phases=PHASES, es=1)
    es = dict(zip(strain.components, strain.whole[1], strict=True))
    assert es["radial"] > 0.25
    for direction in ("circumferential", "longitudinal"):
        assert es[f"{direction}_endo"] < es[direction] < es[f"{direction}_epi"] < 0
    assert es["area_endo"] < -0.3
    assert np.isfinite(strain.segments[:, :, :16]).all()


def test_contours_are_relative_lengths(heart):
    """With the engineering definition a curve is the change of the contours' total length."""
    from cardiogen.measure.strain_lattice import wall_lattice

    vertices = heart[0].vertices(np.array([0.0, 0.36]))
    faces = lv_walls(TOPOLOGY)[0]
    frame = mesh_frame(vertices[0], faces)
    rings = wall_lattice(vertices[0], faces, frame).rings.at(vertices)
    length = np.linalg.norm(np.roll(rings, -1, axis=2) - rings, axis=-1).sum(axis=(1, 2))
    strain = mesh_strain(vertices, TOPOLOGY, phases=PHASES, es=1)
    wanted = length[1] / length[0] - 1
    assert strain.curve("circumferential_endo")[1] == pytest.approx(wanted, abs=1e-12)
    # All points of a ring lie in one short-axis plane at ED.
    assert np.ptp(frame.level(rings[0]), axis=1).max() < 1e-9


def test_cup_without_named_segments_and_without_epicardium(build_cup):
    topology, start = build_cup([25.0, 25.0, 80.0], [34.0, 34.0, 88.0])
    strain = strain_of(start, 0.9 * start, topology=topology)
    np.testing.assert_allclose(strain.curve("circumferential")[1], -0.1, atol=1e-9)
    assert np.isnan(strain.segments).all()
    assert strain.reasons["radial", 3] == "no AHA segments: topology names none"
    walls = lv_walls(topology)[0]
    alone = replace(topology, surfaces={Surface.LV_ENDO: walls})
    strain = strain_of(start, 0.9 * start, topology=alone)
    assert strain.curve("longitudinal_endo")[1] == pytest.approx(-0.1, abs=1e-9)
    assert np.isnan(strain.curve("radial")).all()
    assert "LV_EPI" in strain.reasons["radial", 0]
    closed = replace(topology, surfaces={Surface.LV_ENDO: topology.surfaces[Surface.LV_ENDO]})
    with pytest.raises(ValueError, match="open at the base"):
        strain_of(start, start, topology=closed)
    with pytest.raises(ValueError, match="must have LV_ENDO"):
        strain_of(start, start, topology=replace(topology, surfaces={}))
    with pytest.raises(ValueError, match="vertices must be"):
        mesh_strain(start, topology, phases=[0.0])
    with pytest.raises(ValueError, match="segments must be 16 or 17"):
        strain_of(start, start, topology=topology, segments=15)


def test_cap_has_a_reason(heart):
    drawn = sample_heart(11, 2)
    strain = mesh_strain(drawn.vertices([0.0, 0.36]), TOPOLOGY, phases=PHASES, es=1)
    for component in ("radial", "circumferential"):
        assert np.isnan(strain.curve(component, 17)).all()
        assert "cap" in strain.reasons[component, 17]
    assert np.isfinite(strain.curve("longitudinal", 17)).all()


def test_segments_from_insertions_agree_with_the_template(heart):
    from cardiogen.measure import lv_frame, rv_insertions
    from cardiogen.population import render_labels, short_axis_grid

    drawn = heart[0]
    vertices = drawn.vertices(np.array([0.0, 0.36]))
    grid = short_axis_grid(vertices, drawn.pose, (2.3, 2.1, 2.2))
    labels = render_labels(vertices[0], TOPOLOGY, grid)
    frame = lv_frame(labels, grid)
    named = mesh_strain(vertices, TOPOLOGY, phases=PHASES, es=1)
    measured = mesh_strain(vertices, TOPOLOGY, phases=PHASES, es=1, frame=frame,
                           insertions=rv_insertions(labels, grid, frame))  # fmt: skip
    for component in ("radial", "circumferential", "longitudinal"):
        difference = measured.at_es(component) - named.at_es(component)
        assert np.nanmax(np.abs(difference[:16])) < 0.05
        assert measured.curve(component)[1] == pytest.approx(named.curve(component)[1], abs=0.02)


def test_fitted_mesh_of_a_human_heart(real_data):
    """The endocardium of human_cine shortens as hearts of 59 % ejection fraction do."""
    meshes = np.load(real_data / "human_cine" / "biventricular_mesh_sequence.npz")
    points = meshes["LV_ENDOCARDIAL_points"] * np.array([-1.0, -1.0, 1.0])
    faces = meshes["LV_ENDOCARDIAL_faces"].astype(np.int64)
    none = np.zeros(points.shape[1], dtype=np.uint8)
    topology = Topology({Surface.LV_ENDO: faces}, {}, none, none, ("all",))
    phases = np.arange(25) / 25
    strain = mesh_strain(points, topology, phases=phases, ed=24, es=9, cycle_s=0.831)
    assert -0.36 < strain.curve("circumferential_endo")[9] < -0.22
    assert -0.28 < strain.curve("longitudinal_endo")[9] < -0.14
    assert np.abs(strain.whole[24][~np.isnan(strain.whole[24])]).max() < 1e-12
    rates = strain.rate("circumferential_endo")
    assert rates[:9].min() < -0.5  # ejection
    assert rates[9:].max() > 0.5  # filling
