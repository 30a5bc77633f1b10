"""Hearts in the heart frame, and back in the world of their patient."""

import numpy as np
import pytest

from cardiogen.base import CardiogenError
from cardiogen.data.cohort import load_sequence, read_cohort
from cardiogen.data.factors import Factors
from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.data.sequence import Sequence
from cardiogen.engine.map_estimate import initial_pose
from cardiogen.measure.volumes import label_volumes
from cardiogen.models.voxel import (
    Slots,
    find_pose,
    heart_grid,
    mean_dice,
    population_example,
    population_examples,
    posed_grid,
    sequence_example,
    sequence_examples,
    to_heart,
    training_heart,
)
from cardiogen.population import (
    Pose,
    heart_vertices,
    render_sequence,
    sample_heart,
    template_topology,
)

LATTICE = heart_grid((37, 33, 34), (4.0, 4.0, 3.9))
AXES = np.linalg.qr(np.random.default_rng(8).normal(size=(3, 3)))[0]


def pose(*, mirrored: bool = False) -> Pose:
    return Pose.from_directions(AXES[:, 0], AXES[:, 1], (12.0, -40.0, 95.0), mirrored=mirrored)


def patient(
    *, mirrored: bool = False, phases=(0.0, 0.35), orientation="trusted", step=4.1
) -> Sequence:
    """A population heart in an oblique, anisotropic scan of its own."""
    heart = sample_heart(5, 1, Factors(age=60.0))
    placed = pose(mirrored=mirrored)
    vertices = placed.to_world(heart_vertices(heart.coordinates(phases)))
    topology = template_topology()
    topology = topology.mirrored() if mirrored else topology
    axes = -placed.axes[:, ::-1]
    along = (vertices.reshape(-1, 3) - placed.origin) @ axes
    low, high = along.min(axis=0) - 12, along.max(axis=0) + 12
    spacing = np.array([step, 1.7, 2.3])
    shape = tuple(int(n) for n in np.ceil((high - low) / spacing) + 1)
    grid = Grid.regular(shape, spacing, placed.origin + axes @ low, axes)
    labels = render_sequence(vertices, topology, grid)
    return Sequence(
        phases=np.array(phases), es=len(phases) - 1, labels=labels, grid=grid,
        factors=heart.factors, orientation=orientation, subject_id="patient",
    )  # fmt: skip


def test_the_lattice_runs_from_base_to_apex_and_away_from_the_right_ventricle():
    assert LATTICE.spacing == pytest.approx((4.0, 4.0, 3.9))
    steps = LATTICE.to_world(np.eye(3)) - LATTICE.to_world(np.zeros(3))
    np.testing.assert_allclose(steps, [[0, 0, -4.0], [0, -4.0, 0], [-3.9, 0, 0]], atol=1e-12)
    other = heart_grid((20, 31, 17), (6.0, 5.0, 4.0))
    np.testing.assert_allclose(other.corners().mean(axis=0), LATTICE.corners().mean(axis=0))


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_posed_lattice_is_the_lattice_seen_through_the_pose(mirrored):
    placed = pose(mirrored=mirrored)
    voxels = np.array([[0.0, 0, 0], [3, 7, 11], [36, 32, 33]])
    expected = placed.to_world(LATTICE.to_world(voxels))
    np.testing.assert_allclose(posed_grid(LATTICE, placed).to_world(voxels), expected)


def test_labels_on_the_posed_lattice_come_back_unchanged():
    labels = np.zeros((1, *LATTICE.shape), np.uint8)
    labels[0, 10:20, 8:17, 11:19] = Structure.LV
    labels[0, 10:20, 8:17, 19:25] = Structure.RV
    placed = pose(mirrored=True)
    back = to_heart(labels, posed_grid(LATTICE, placed), placed, LATTICE, where="here")
    np.testing.assert_array_equal(back, labels)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_patient_comes_to_the_heart_frame_and_back(mirrored):
    scan = patient(mirrored=mirrored, orientation="mirrored" if mirrored else "trusted")
    example = sequence_example(scan, LATTICE, Slots("ed+es"))
    assert example.pose.mirrored == mirrored
    assert example.factors == scan.factors
    assert example.es_phase == pytest.approx(0.35)
    examples = sequence_examples([scan] * 5, LATTICE, Slots("ed+es"))
    labels = examples.labels(0)
    # The same heart without the scan, posed as its own labels show it.
    heart = heart_vertices(sample_heart(5, 1, Factors(age=60.0)).coordinates(scan.phases))
    world = pose(mirrored=mirrored).to_world(heart)
    truth = render_sequence(example.pose.to_heart(world), template_topology(), LATTICE)
    assert all((mean_dice(a, b) > [0.93, 0.85, 0.9]).all()
               for a, b in zip(labels, truth, strict=True))  # fmt: skip
    # And back: what was decoded lies on the scan.
    posed = posed_grid(LATTICE, example.pose)
    for structure in (Structure.LV, Structure.RV):
        ours = posed.to_world(np.argwhere(labels[0] == structure)).mean(axis=0)
        theirs = scan.grid.to_world(np.argwhere(scan.labels[0] == structure)).mean(axis=0)
        assert np.linalg.norm(ours - theirs) < 1.5


def test_where_the_world_is_assumed_the_better_chirality_is_taken():
    scan = patient(mirrored=True, orientation="assumed", phases=(0.0,), step=13.0)
    found, margin = find_pose(scan)
    assert found.mirrored
    assert margin > 0
    assert find_pose(scan.with_(orientation="trusted"))[1] is None


def test_a_heart_that_leaves_the_lattice_is_refused():
    small = heart_grid((20, 20, 20), (3.0, 3.0, 3.0))
    with pytest.raises(CardiogenError, match=r"L48 patient: found .* 60 x 60 x 60 mm"):
        sequence_example(patient(), small, Slots("ed"))
    with pytest.raises(CardiogenError, match=r"L48 population_000002"):
        population_example(0, 2, small, Slots("ed"))


def test_population_examples_are_posed_as_their_labels_show():
    fine = heart_grid((60, 50, 52), (2.4, 2.5, 2.6))
    for index in range(3):
        cohort = population_examples(1, 4, fine, Slots("ed"), first=index)
        found = initial_pose(cohort.labels(0)[0], fine, mirrored=False)
        np.testing.assert_allclose(found.axes, np.eye(3), atol=0.06)
        np.testing.assert_allclose(found.origin, 0.0, atol=2.0)


def test_a_population_example_depends_on_its_number_alone():
    together = population_examples(3, 9, LATTICE, Slots(3))
    alone = population_examples(1, 9, LATTICE, Slots(3), first=2)
    assert together.examples[2].frames == alone.examples[0].frames
    assert alone.examples[0].factors == training_heart(9, 2).factors
    volumes = [(frame == Structure.LV).sum() for frame in alone.labels(0)]
    assert volumes[1] < 0.8 * volumes[0]


def test_a_real_patient_keeps_its_volumes_in_the_heart_frame(real_data):
    subject = read_cohort(real_data / "acdc_dev25")[0]
    # Known of this cohort (DESIGN section 3); finding it out takes seconds.
    scan = load_sequence(subject).with_(orientation="mirrored")
    lattice = heart_grid((56, 52, 52), (3.0, 3.0, 3.0))
    cohort = sequence_examples([scan] * 5, lattice, Slots("ed+es"))
    assert cohort.examples[0].pose.mirrored
    for ours, theirs in zip(cohort.labels(0), scan.labels, strict=True):
        volumes = label_volumes(ours, lattice), label_volumes(theirs, scan.grid)
        for structure in (Structure.LV, Structure.MYO, Structure.RV):
            assert volumes[0][structure] == pytest.approx(volumes[1][structure], rel=0.1)
