"""Strain of displacements: closed forms of affine motion, the twisting annulus, real geometry."""

import numpy as np
import pytest

from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.measure import (
    SEGMENT_NAMES,
    aha_segments,
    deformation_gradient,
    directional_strain,
    field_strain,
    green_lagrange,
    local_strain,
    mesh_strain,
    strain_rate,
)
from cardiogen.measure.strain_axes import cylinder_axes
from cardiogen.population import (
    Annulus,
    Pose,
    annulus_displacement,
    annulus_grid,
    annulus_labels,
    displacement_field,
    render_labels,
    sample_heart,
    short_axis_grid,
    template_topology,
)

DERIVATIVES = ("central", "wall", "spline")
POSE = Pose.from_directions([0.58, -0.50, 0.64], [0.76, 0.60, -0.22], [12.0, -31.0, 44.0])
ANNULUS = Annulus()
PHASES = np.array([0.0, 0.3])


def voxels_of(grid):
    return np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1).reshape(-1, 3)


def affine_field(grid, matrix, shift=(3.0, -2.0, 5.0)):
    """Displacement in voxels of ``x -> matrix x + shift`` in world mm."""
    voxels = voxels_of(grid)
    moved = grid.to_world(voxels) @ np.asarray(matrix).T + shift
    return (grid.to_voxel(moved) - voxels).T.reshape(3, *grid.shape)


def turn(axis, angle):
    """Rotation matrix about an axis (Rodrigues)."""
    k = np.cross(np.eye(3), np.asarray(axis) / np.linalg.norm(axis))
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


@pytest.mark.parametrize("derivative", DERIVATIVES)
def test_affine_motion_has_its_matrix_as_gradient(oblique_grid, derivative):
    matrix = np.eye(3) + np.random.default_rng(0).normal(scale=0.2, size=(3, 3))
    wall = np.random.default_rng(1).random(oblique_grid.shape) < 0.7
    field = affine_field(oblique_grid, matrix)
    found = deformation_gradient(
        field, oblique_grid, np.argwhere(wall), derivative=derivative, wall=wall
    )
    np.testing.assert_allclose(found, np.broadcast_to(matrix, found.shape), atol=1e-9)


@pytest.mark.parametrize("derivative", DERIVATIVES)
def test_rigid_motion_has_no_strain(oblique_grid, derivative):
    field = affine_field(oblique_grid, turn([1.0, 2.0, -0.5], 0.7))
    wall = np.ones(oblique_grid.shape, dtype=bool)
    gradient = deformation_gradient(field, oblique_grid, np.argwhere(wall),
                                    derivative=derivative, wall=wall)  # fmt: skip
    np.testing.assert_allclose(green_lagrange(gradient), 0.0, atol=1e-10)
    axes = np.broadcast_to(turn([0.3, 1.0, 0.2], 1.1), gradient.shape)
    np.testing.assert_allclose(directional_strain(gradient, axes, "engineering"), 0, atol=1e-10)


def test_definitions_of_a_stretch(oblique_grid):
    """Stretch by s along an axis: engineering s - 1, Green-Lagrange (s^2 - 1) / 2."""
    axes = turn([1.0, -1.0, 0.4], 0.9)
    stretches = np.array([0.8, 1.0, 1.45])
    gradient = deformation_gradient(
        affine_field(oblique_grid, axes.T @ np.diag(stretches) @ axes), oblique_grid,
        np.array([[3, 4, 5]]), derivative="central",
    )  # fmt: skip
    engineering = directional_strain(gradient, axes[None], "engineering")[0]
    tensor = local_strain(gradient, axes[None])[0]
    np.testing.assert_allclose(engineering, stretches - 1, atol=1e-10)
    np.testing.assert_allclose(tensor, np.diag((stretches**2 - 1) / 2), atol=1e-10)
    green = directional_strain(gradient, axes[None], "green_lagrange")[0]
    np.testing.assert_allclose(green, np.diagonal(tensor), atol=1e-10)


@pytest.mark.parametrize(("derivative", "power"), [("central", 4), ("wall", 2), ("spline", 3)])
def test_differences_are_exact_for_polynomials(derivative, power):
    grid = Grid.regular((9, 11, 13), (2.0, 1.5, 1.1))
    position = np.indices(grid.shape).astype(float)
    field = 0.01 * position**power  # each component along its own axis
    wall = np.zeros(grid.shape, dtype=bool)
    wall[1:8, 2:9, 2:7] = True
    voxels = np.argwhere(wall)
    inner = voxels[((voxels >= [2, 3, 3]) & (voxels <= [6, 7, 5])).all(axis=1)]
    found = deformation_gradient(field, grid, inner, derivative=derivative, wall=wall)
    for axis in range(3):
        wanted = 1 + 0.01 * power * inner[:, axis].astype(float) ** (power - 1)
        np.testing.assert_allclose(found[:, axis, axis], wanted, atol=1e-9)


def test_inside_the_wall_nothing_beyond_counts():
    grid = Grid.regular((8, 9, 11), (2.0, 1.4, 1.7))
    wall = np.zeros(grid.shape, dtype=bool)
    wall[2:6, 2:7, 3:9] = True
    field = affine_field(grid, np.diag([1.2, 0.9, 1.1]))
    clean = deformation_gradient(field, grid, np.argwhere(wall), wall=wall)
    field[:, ~wall] = np.random.default_rng(0).normal(size=(3, int((~wall).sum())))
    np.testing.assert_allclose(
        deformation_gradient(field, grid, np.argwhere(wall), wall=wall), clean, atol=1e-12
    )
    beyond = deformation_gradient(field, grid, np.argwhere(wall), derivative="central")
    assert np.abs(beyond - clean).max() > 0.1


def ring_errors(grid, derivative):
    """Errors of (rr, cc, zz, cz) at every voxel of the annulus' wall away from its ends."""
    field = annulus_displacement(ANNULUS, grid, POSE)
    voxels = voxels_of(grid)
    points = POSE.to_heart(grid.to_world(voxels))
    radius = np.hypot(*points[:, :2].T)
    inside = (radius >= 25) & (radius <= 35) & (points[:, 2] > 0) & (points[:, 2] < 20)
    outward = points[inside] * [1, 1, 0] @ POSE.axes.T / radius[inside, None]
    along = np.broadcast_to(POSE.axes[:, 2], outward.shape)
    axes = np.stack([outward, np.cross(along, outward), along], axis=1)
    gradient = deformation_gradient(field, grid, voxels[inside], derivative=derivative,
                                    wall=inside.reshape(grid.shape))  # fmt: skip
    tensor, wanted = local_strain(gradient, axes), ANNULUS.strain(radius[inside])
    found = [tensor[:, 0, 0], tensor[:, 1, 1], tensor[:, 2, 2], tensor[:, 1, 2]]
    return np.stack(found, axis=1) - np.stack([wanted.rr, wanted.cc, wanted.zz, wanted.cz], axis=1)


@pytest.mark.parametrize("oblique", [False, True], ids=["aligned", "oblique"])
@pytest.mark.parametrize(
    ("derivative", "most"), [("central", 0.001), ("spline", 0.005), ("wall", 0.015)]
)
def test_annulus_strain_at_one_millimeter(oblique, derivative, most):
    axes = turn([1.0, 0.3, -0.8], 0.6) if oblique else -POSE.axes[:, [2, 1, 0]]
    shape = (101, 99, 97) if oblique else (27, 83, 81)
    middle = POSE.to_world([0.0, 0.0, 10.0]) - axes @ ((np.array(shape) - 1) / 2)
    errors = ring_errors(Grid.regular(shape, (1.0, 1.0, 1.0), middle, axes), derivative)
    assert len(errors) > 30000
    assert np.abs(errors).max() < most
    assert np.abs(errors.mean(axis=0)).max() < 2e-4
    assert np.percentile(np.abs(errors), 99) < 0.005


@pytest.fixture(scope="module")
def annulus_heart():
    grid = annulus_grid(ANNULUS, POSE, (7.9, 1.7, 1.6))
    field = np.stack([annulus_displacement(ANNULUS.at(e), grid, POSE) for e in (0.0, 1.0)])
    return field, annulus_labels(ANNULUS.at(0.0), grid, POSE), grid


def annulus_strain(heart, **options):
    field, labels, grid = heart
    options = {"segments": 16, "directions": "cylindrical", "phases": PHASES, "es": 1} | options
    return field_strain(field, labels, grid, **options)


def exact_means(grid, labels, names):
    points = POSE.to_heart(grid.to_world(np.argwhere(labels == Structure.MYO)))
    radius = np.hypot(*points[points[:, 2] > 0, :2].T)
    strain = ANNULUS.strain(radius)
    return [getattr(strain, name).mean() for name in names]


@pytest.mark.parametrize(
    ("definition", "names"),
    [
        ("engineering", ("engineering_rr", "engineering_cc", "engineering_zz")),
        ("green_lagrange", ("rr", "cc", "zz")),
    ],
)
@pytest.mark.parametrize("derivative", DERIVATIVES)
def test_annulus_as_a_ventricle(annulus_heart, definition, names, derivative):
    strain = annulus_strain(annulus_heart, definition=definition, derivative=derivative)
    wanted = exact_means(annulus_heart[2], annulus_heart[1], names)
    np.testing.assert_allclose(strain.whole[0], 0.0, atol=1e-9)
    np.testing.assert_allclose(strain.whole[1], wanted, atol=0.002)
    np.testing.assert_allclose(strain.segments[1], np.tile(wanted, (16, 1)).T, atol=0.008)
    assert strain.definition == definition
    assert not strain.reasons


def test_twist_and_torsion_of_the_annulus(annulus_heart):
    strain = annulus_strain(annulus_heart)
    twist, slope = strain.twist, np.degrees(ANNULUS.twist)
    assert twist.twist[0] == pytest.approx(0.0, abs=1e-9)
    assert twist.twist[1] == pytest.approx(slope * twist.distance_mm, rel=1e-3)
    assert twist.torsion[1] == pytest.approx(10 * slope, rel=1e-3)
    # Z is 0 at the apical end: every plane turns with its level, clockwise seen from the apex.
    np.testing.assert_allclose(twist.rotation[1], -slope * twist.levels, atol=1e-3)
    shear = annulus_strain(annulus_heart, torsion="rad").twist
    assert shear.torsion[1] == pytest.approx(ANNULUS.twist * 30.2, rel=0.01)
    assert shear.torsion_unit == "rad"
    assert "counterclockwise seen from the apex" in twist.definition


def test_planar_mode_ignores_motion_through_the_plane(annulus_heart):
    field, labels, grid = annulus_heart
    full = annulus_strain(annulus_heart)
    through = field.copy()
    through[:, 0] += np.random.default_rng(0).normal(size=through[:, 0].shape)
    planar = annulus_strain((through, labels, grid), planar=True)
    np.testing.assert_allclose(planar.whole[1, :2], full.whole[1, :2], atol=1e-3)
    np.testing.assert_allclose(planar.twist.twist, full.twist.twist, atol=1e-6)
    assert np.isnan(planar.whole[:, 2]).all()
    assert np.isnan(planar.segments[:, 2]).all()
    for segment in range(17):
        assert "plane only" in planar.reasons["longitudinal", segment]
    assert "slices" in planar.reference


def test_one_slice_needs_the_planar_mode(annulus_heart):
    grid = Grid.regular((1, 9, 11), (8.0, 1.5, 1.5))
    voxels = np.array([[0, 4, 5]])
    field = affine_field(grid, np.diag([1.1, 1.2, 0.9]))
    with pytest.raises(ValueError, match="two voxels or more along axis 0"):
        deformation_gradient(field, grid, voxels, derivative="central")
    found = deformation_gradient(field, grid, voxels, derivative="central", across=0)
    np.testing.assert_allclose(found[0], np.diag([1.0, 1.2, 0.9]), atol=1e-12)


def test_mirrored_world_has_the_same_strain(annulus_heart):
    field, labels, grid = annulus_heart
    mirrored = Grid(grid.shape, np.diag([-1.0, 1.0, 1.0, 1.0]) @ grid.affine)
    plain = annulus_strain(annulus_heart)
    other = annulus_strain((field, labels, mirrored), orientation="mirrored")
    np.testing.assert_allclose(other.whole, plain.whole, atol=1e-9)
    np.testing.assert_allclose(other.segments, plain.segments, atol=1e-9)
    np.testing.assert_allclose(other.twist.rotation, plain.twist.rotation, atol=1e-9)
    # Taken at its word, the mirrored world turns the other way.
    trusting = annulus_strain((field, labels, mirrored))
    np.testing.assert_allclose(trusting.twist.twist, -plain.twist.twist, atol=1e-9)


def test_result_says_what_it_means(annulus_heart):
    facts = annulus_strain(annulus_heart, orientation="assumed", planar=True).facts
    assert facts["definition"] == "engineering"
    assert "MYO at ED but for the cap" in facts["mask"]
    assert "Lagrangian, ED (frame 0)" in facts["reference"]
    assert "rest on the header" in facts["reference"]
    assert facts["unit of strain"] == "%"
    assert facts["unit of torsion"] == "deg/cm"


def test_storage_order_does_not_matter(annulus_heart):
    field, labels, grid = annulus_heart
    plain = annulus_strain(annulus_heart, directions="wall")
    order, flips = (2, 0, 1), (True, False, True)
    turned = grid.permuted(order, flips)
    flip = tuple(slice(None, None, -1 if f else 1) for f in flips)
    signs = np.where(flips, -1.0, 1.0)[None, :, None, None, None]
    moved = field[:, order].transpose(0, 1, *(a + 2 for a in order))[:, :, *flip] * signs
    other = annulus_strain((moved, labels.transpose(order)[flip], turned), directions="wall")
    np.testing.assert_allclose(other.whole, plain.whole, atol=1e-9)
    np.testing.assert_allclose(other.segments, plain.segments, atol=1e-9)


def test_map_holds_what_was_averaged(annulus_heart):
    strain = annulus_strain(annulus_heart)
    picture = strain.map("circumferential", 1, annulus_heart[2].shape)
    assert np.isfinite(picture).sum() == len(strain.voxels)
    assert np.nanmean(picture) == pytest.approx(strain.whole[1, 1], abs=1e-6)
    with pytest.raises(ValueError, match="component must be one of"):
        strain.map("area", 1, annulus_heart[2].shape)


def test_segments_that_cannot_be_had_say_why(annulus_heart):
    field, labels, grid = annulus_heart
    bare = np.where(labels == Structure.RV, 0, labels).astype(np.uint8)
    strain = annulus_strain((field, bare, grid))
    assert np.isfinite(strain.whole).all()
    assert np.isnan(strain.segments).all()
    assert "no right ventricle" in strain.reasons["radial", 5]
    mask = labels == Structure.MYO
    points = POSE.to_heart(grid.to_world(voxels_of(grid))).reshape(*grid.shape, 3)
    upper = mask & (points[..., 2] > 60)
    part = annulus_strain(annulus_heart, mask=upper)
    assert np.isfinite(part.segments[..., :6]).all()
    assert np.isnan(part.segments[..., 6:]).all()
    assert part.reasons["longitudinal", 9] == "0 voxels of known strain, 5 needed"
    assert "given mask" in part.mask
    assert np.isnan(part.twist.twist).all()
    assert "apical" in part.reasons["twist", 0]
    holes = field.copy()
    holes[:, :, upper] = np.nan
    broken = annulus_strain((holes, labels, grid))
    assert np.isnan(broken.segments[..., :6]).any()
    assert np.isfinite(broken.segments[..., 12:]).all()


@pytest.fixture(scope="module")
def population_pair():
    """A heart's meshes at ED and ES with their strain."""
    heart, phases = sample_heart(11, 2), np.array([0.0, 0.36])
    vertices = heart.vertices(phases)
    return heart, vertices, mesh_strain(vertices, template_topology(), phases=phases, es=1)


@pytest.mark.parametrize("spacing", [(8.0, 1.6, 1.5), (2.1, 2.0, 1.9)], ids=["stack", "volume"])
def test_field_and_mesh_of_one_heart_agree(population_pair, spacing):
    heart, vertices, mesh = population_pair
    grid = short_axis_grid(vertices, heart.pose, spacing)
    labels = render_labels(vertices[0], template_topology(), grid)
    field = np.stack([displacement_field(heart, grid, from_phase=0.0, to_phase=p)
                      for p in mesh.phases])  # fmt: skip
    strain = field_strain(field, labels, grid, phases=mesh.phases, es=1)
    for component, points in (("radial", 4), ("circumferential", 2), ("longitudinal", 3)):
        whole = strain.curve(component)[1], mesh.curve(component)[1]
        assert np.sign(whole[0]) == np.sign(whole[1])
        assert abs(whole[0] - whole[1]) < points / 100
        both = strain.at_es(component)[:16] - mesh.at_es(component)[:16]
        assert np.abs(both).max() < 2.5 * points / 100
    assert strain.twist.torsion[1] == pytest.approx(mesh.twist.torsion[1], rel=0.06)
    assert strain.twist.twist[1] > 3.0  # a healthy heart: the apex counterclockwise


def test_table_is_tidy_and_in_percent(annulus_heart):
    strain = annulus_strain(annulus_heart, cycle_s=0.8)
    table = strain.to_table()
    columns = "frame time_s phase level segment name component value unit definition reason"
    assert list(table.columns) == columns.split()
    assert len(table) == 2 * (17 * 3 * 2 + 2)
    row = table[(table.frame == 1) & (table.segment == 7) & (table.component == "radial")]
    assert row.value.item() == pytest.approx(100 * strain.segments[1, 0, 6])
    assert row["name"].item() == SEGMENT_NAMES[6]
    assert (row["unit"].item(), row["level"].item()) == ("%", "segment")
    assert row.time_s.item() == pytest.approx(0.24)
    twist = table[(table.component == "twist") & (table.frame == 1)]
    assert twist.value.item() == pytest.approx(strain.twist.twist[1])
    known = table[table.value.notna()]
    assert (known.reason == "").all()


def test_summary_names_peaks(annulus_heart):
    field, labels, grid = annulus_heart
    three = np.stack([field[0], field[1], annulus_displacement(ANNULUS.at(0.4), grid, POSE)])
    strain = annulus_strain((three, labels, grid), phases=[0.0, 0.35, 0.7], cycle_s=0.8)
    table = strain.summary().set_index(["segment", "component"])
    first = table.loc[(0, "circumferential")]
    assert first["peak (%)"] == pytest.approx(100 * strain.whole[1, 1])
    assert first["time to peak (s)"] == pytest.approx(0.28)
    assert table.loc[(0, "radial")]["peak (%)"] == pytest.approx(100 * strain.whole[1, 0])
    assert table.loc[(4, "longitudinal")]["end-systolic (%)"] < -10
    assert first["least rate (1/s)"] < 0 < first["largest rate (1/s)"]


@pytest.mark.parametrize("count", [40, 61])
def test_rate_of_a_closed_cycle_is_periodic(count):
    phases = np.sort(np.r_[0.0, (np.arange(1, count) + 0.2 * np.sin(np.arange(1, count))) / count])
    found = strain_rate(np.sin(2 * np.pi * phases), phases, cycle_s=0.8)
    wanted = 2 * np.pi / 0.8 * np.cos(2 * np.pi * phases)
    np.testing.assert_allclose(found, wanted, atol=0.05 * 2 * np.pi / 0.8)
    shifted = strain_rate(np.roll(np.sin(2 * np.pi * np.arange(30) / 30), 7), np.arange(30) / 30,
                          cycle_s=1.0)  # fmt: skip
    plain = strain_rate(np.sin(2 * np.pi * np.arange(30) / 30), np.arange(30) / 30, cycle_s=1.0)
    np.testing.assert_allclose(shifted, np.roll(plain, 7), atol=1e-12)


def test_rate_does_not_depend_on_where_the_file_begins():
    """Phases count from an ED that is not the first frame, also of uneven frames."""
    phases = np.sort(np.random.default_rng(2).uniform(0.0, 1.0, 12))
    phases[0] = 0.0
    values = np.sin(2 * np.pi * phases)
    plain = strain_rate(values, phases, cycle_s=0.9)
    for shift in (1, 5, 11):
        found = strain_rate(np.roll(values, shift), np.roll(phases, shift), cycle_s=0.9)
        np.testing.assert_allclose(found, np.roll(plain, shift), atol=1e-9)


def test_phases_return_to_zero_at_ed_alone(annulus_heart):
    field, labels, grid = annulus_heart
    turned = (field[::-1], labels, grid)
    strain = annulus_strain(turned, phases=[0.7, 0.0], ed=1, es=0)
    np.testing.assert_allclose(strain.whole[::-1], annulus_strain(annulus_heart).whole)
    with pytest.raises(ValueError, match="phases must increase"):
        annulus_strain(turned, phases=[0.7, 0.0], ed=0)
    three = (field[[0, 1, 1]], labels, grid)
    with pytest.raises(ValueError, match="phases must increase"):
        annulus_strain(three, phases=[0.2, 0.4, 0.3], ed=2)


def test_component_that_is_not_measured_has_a_reason(annulus_heart):
    strain = annulus_strain(annulus_heart, unmeasured={"longitudinal": "thick slices"})
    full = annulus_strain(annulus_heart)
    np.testing.assert_allclose(strain.whole[:, :2], full.whole[:, :2])
    assert np.isnan(strain.whole[:, 2]).all()
    assert np.isnan(strain.segments[:, 2]).all()
    assert np.isnan(strain.voxel_strain[..., 2]).all()
    table = strain.to_table()
    assert (table[table.component == "longitudinal"].reason == "thick slices").all()


def test_muscle_that_leaves_the_planes_is_left_out(annulus_heart):
    _, labels, grid = annulus_heart
    full = annulus_strain(annulus_heart)
    segment = aha_segments(labels, grid)
    strain = annulus_strain(annulus_heart, leaving=(segment == 2) | (segment == 3))
    for lost in (2, 3):
        assert np.isnan(strain.curve("circumferential", lost)).all()
        assert "leaves the imaged planes (100% of it)" in strain.reasons["circumferential", lost]
    np.testing.assert_allclose(strain.curve("radial", 9), full.curve("radial", 9))
    assert np.isfinite(strain.whole).all()
    wall = labels == Structure.MYO
    few = wall & (np.random.default_rng(0).random(labels.shape) < 0.3)
    partly = annulus_strain(annulus_heart, leaving=few)
    assert np.isfinite(partly.segments[:, :, :12]).all()
    assert partly.counts.sum() < full.counts.sum()


def test_one_slice_is_the_middle_of_a_stack(annulus_heart):
    """Global strain and sectors of a slice are those of that slice in the stack's mid segments."""
    field, labels, grid = annulus_heart
    axis = int(np.argmax(np.abs(POSE.axes[:, 2] @ (grid.affine[:3, :3] / grid.spacing))))
    assert axis == 0
    cut = grid.shape[0] // 2
    alone = grid.cropped((cut, 0, 0), (1, *grid.shape[1:]))
    options = {"phases": PHASES, "es": 1, "planar": True, "derivative": "central"}
    one = field_strain(field[:, :, cut : cut + 1], labels[cut : cut + 1], alone, **options)
    here = np.zeros(labels.shape, bool)
    here[cut] = labels[cut] == Structure.MYO
    many = field_strain(field, labels, grid, mask=here, **options)
    np.testing.assert_allclose(one.whole, many.whole, atol=5e-3)
    np.testing.assert_allclose(one.segments, many.segments[:, :, 6:12], atol=0.02)
    assert one.level == "sector"
    assert one.names[0] == "anterior sector"
    assert "cannot be known from one slice" in one.reasons["radial", 4]
    assert one.reasons["twist", 0].startswith("one slice")
    mirrored = field_strain(field[:, :, cut : cut + 1], labels[cut : cut + 1], alone,
                            orientation="mirrored", **options)  # fmt: skip
    assert np.isnan(mirrored.segments).all()
    assert "side of the apex" in mirrored.reasons["radial", 1]
    np.testing.assert_allclose(mirrored.whole, one.whole)


def test_rate_of_an_open_cycle_is_one_sided():
    phases = np.linspace(0.0, 0.5, 9)
    parabola = 3 * phases**2 - phases
    np.testing.assert_allclose(strain_rate(parabola, phases, cycle_s=2.0),
                               (6 * phases - 1) / 2.0, atol=1e-12)  # fmt: skip


def test_rate_without_times_is_not_guessed(annulus_heart):
    strain = annulus_strain(annulus_heart)
    assert np.isnan(strain.rate("radial")).all()
    table = strain.to_table()
    rates = table[table.component == "radial rate"]
    assert (rates.reason == "duration of the cycle unknown").all()
    assert np.isnan(strain_rate(np.zeros(2), [0.0, 0.5], cycle_s=1.0)).all()


def test_cylinder_axes_are_a_right_handed_frame(stack_heart):
    from cardiogen.measure import lv_frame

    frame = lv_frame(stack_heart.labels, stack_heart.grid)
    points = stack_heart.grid.to_world(np.argwhere(stack_heart.labels == Structure.MYO))
    points = points[np.linalg.norm(frame.radial(points), axis=1) > 1e-6]
    axes = cylinder_axes(points, frame)
    products = axes @ np.swapaxes(axes, 1, 2)
    np.testing.assert_allclose(products, np.broadcast_to(np.eye(3), products.shape), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(axes), 1.0)
    assert np.isnan(cylinder_axes(frame.center[None], frame)[0, 0]).all()


def test_arguments_are_checked(annulus_heart):
    field, labels, grid = annulus_heart
    with pytest.raises(ValueError, match=r"ed_to_frame must be \(T, 3, D, H, W\)"):
        field_strain(field[0], labels, grid, phases=PHASES)
    with pytest.raises(ValueError, match="phases must have shape"):
        annulus_strain(annulus_heart, phases=[0.0])
    with pytest.raises(ValueError, match="phases must increase"):
        annulus_strain(annulus_heart, phases=[0.3, 0.0])
    with pytest.raises(ValueError, match="es must be a frame below 2"):
        annulus_strain(annulus_heart, es=2)
    with pytest.raises(ValueError, match="segments must be 16 or 17"):
        annulus_strain(annulus_heart, segments=18)
    with pytest.raises(ValueError, match="definition must be one of"):
        annulus_strain(annulus_heart, definition="almansi")
    with pytest.raises(ValueError, match="derivative must be one of"):
        annulus_strain(annulus_heart, derivative="forward")
    with pytest.raises(ValueError, match="directions must be one of"):
        annulus_strain(annulus_heart, directions="fiber")
    with pytest.raises(ValueError, match="torsion must be one of"):
        annulus_strain(annulus_heart, torsion="deg/mm")
    with pytest.raises(ValueError, match="mask must be"):
        annulus_strain(annulus_heart, mask=np.zeros(grid.shape, dtype=bool))
    holes = field.copy()
    holes[:, :, labels == Structure.LV] = np.nan
    with pytest.raises(ValueError, match="finite along every line"):
        annulus_strain((holes, labels, grid), derivative="spline")
