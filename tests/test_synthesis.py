"""Synthesis: hearts as pure functions of (seed, index), completion, labels on a given grid."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from cardiogen.base import CardiogenError
from cardiogen.data.factors import Factors
from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.data.mesh import Surface
from cardiogen.measure import check_sequence, mesh_volume, sequence_volumes
from cardiogen.models import encode_condition, frame_phases, load_model
from cardiogen.models.distributions import GaussianMixture
from cardiogen.models.protocol import Posterior
from cardiogen.models.voxel import CodedLatents, heart_grid
from cardiogen.population import Pose, render_labels, typical_pose
from cardiogen.synthesis import (
    complete_sequences,
    cycle_phases,
    decode_sequence,
    draw_latent,
    generate_sequence,
    with_labels,
)

FACTORS = Factors(age=70.0, sex="F")


@pytest.fixture(scope="module")
def model():
    return load_model().model


def heart(model, index, *, frames=5, seed=0, factors=FACTORS):
    return generate_sequence(model, factors, frame_phases(frames), seed=seed, index=index)


def test_generate_is_the_same_bits_alone_and_in_any_order(model):
    forward = [heart(model, i).vertices for i in range(4)]
    for index in (3, 0, 2, 1):
        np.testing.assert_array_equal(heart(model, index).vertices, forward[index])
    assert len({v.tobytes() for v in forward}) == 4
    assert not np.array_equal(heart(model, 0, seed=1).vertices, forward[0])


_HASHES = """
import hashlib
from cardiogen.data.factors import Factors
from cardiogen.models import frame_phases, load_model
from cardiogen.synthesis import generate_sequence
model = load_model().model
for factors in (Factors(age=70, sex="F"), Factors(height=170), Factors()):
    heart = generate_sequence(model, factors, frame_phases(3), seed=1, index=5)
    print(hashlib.sha256(heart.vertices.tobytes()).hexdigest())
"""


def test_generate_is_the_same_bits_on_any_threads():
    # The number of BLAS threads is read once, when numpy is imported: new processes.
    found = [
        subprocess.run(
            [sys.executable, "-c", _HASHES], capture_output=True, text=True, check=True,
            env={**os.environ, "OMP_NUM_THREADS": n, "OPENBLAS_NUM_THREADS": n},
        ).stdout
        for n in ("1", "2", "3")
    ]  # fmt: skip
    assert len(found[0].split()) == 3
    assert found[0] == found[1] == found[2]


def test_generate_leaves_global_randomness_alone(model):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = heart(model, 1).vertices
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    torch.manual_seed(99)
    np.testing.assert_array_equal(heart(model, 1).vertices, first)


def test_generate_any_number_of_frames_is_the_same_heart(model):
    many = heart(model, 2, frames=20)
    for frames in (1, 2, 4, 5, 10):
        few = heart(model, 2, frames=frames)
        np.testing.assert_array_equal(few.vertices, many.vertices[:: 20 // frames])


def test_generate_returns_a_whole_sequence(model):
    sequence = heart(model, 0, frames=25)
    assert sequence.ed == 0
    assert 6 <= sequence.es <= 12
    assert sequence.factors == FACTORS
    few = sequence.with_(vertices=sequence.vertices[::8], phases=sequence.phases[::8], es=1)
    assert check_sequence(few) == []
    assert heart(model, 0, frames=1).es is None
    volume = mesh_volume(sequence.vertices, model.topology.surfaces[Surface.LV_ENDO])
    assert volume.argmax() == sequence.ed
    emptied = (volume.max() - volume) / np.ptp(volume)
    assert emptied[sequence.es] >= 0.995
    assert (emptied[: sequence.es] < 0.995).all()
    assert 0.28 <= sequence.phases[sequence.es] <= 0.42


def test_generate_ed_is_the_frame_nearest_to_phase_zero(model):
    sequence = generate_sequence(model, FACTORS, [0.4, 0.7, 0.98], seed=0, index=0)
    assert (sequence.ed, sequence.es) == (2, 0)


def test_generate_refuses_what_the_model_does_not_know(model):
    odd = Factors(age=17.5)
    with pytest.raises(CardiogenError, match="CG-D01 age"):
        heart(model, 0, factors=odd)
    found = generate_sequence(model, odd, [0.0], seed=0, index=0, check_domain=False)
    assert np.isfinite(found.vertices).all()


def test_decode_sequence_moves_with_the_pose(model):
    latent = draw_latent(model, encode_condition(FACTORS), seed=0, index=0)
    axes, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    pose = Pose(axes, np.array([10.0, -20.0, 30.0]))
    found = decode_sequence(model, latent, [0.0, 0.4], pose=pose)
    plain = model.decode(latent, [0.0, 0.4])
    np.testing.assert_allclose(found.vertices, plain @ axes.T + pose.origin, atol=1e-9)


@pytest.fixture(scope="module")
def posterior(model):
    """A posterior that knows the heart well: the prior's spread over ten."""
    prior = model.prior(encode_condition(FACTORS))
    center = prior.sample(torch.Generator().manual_seed(3))
    latents = GaussianMixture(torch.ones(1, dtype=torch.float64), center[None],
                              prior.factors / 10.0)  # fmt: skip
    return Posterior(latents, typical_pose(np.random.default_rng(1)))


def test_complete_gives_the_mean_then_samples(model, posterior):
    phases = frame_phases(3)
    found = complete_sequences(model, posterior, phases, samples=3, seed=4, subject_id="p1")
    assert len(found) == 4
    mean = posterior.pose.to_world(model.decode(posterior.latents.mean, phases))
    np.testing.assert_array_equal(found[0].vertices, mean)
    for sample in found[1:]:
        distance = np.linalg.norm(sample.vertices[0] - mean[0], axis=-1).mean()
        assert 0.05 < distance < 4.0, "samples stay near the observed end diastole"
        assert sample.subject_id == "p1"
    assert not np.array_equal(found[1].vertices, found[2].vertices)


def test_complete_samples_do_not_depend_on_their_number(model, posterior):
    few = complete_sequences(model, posterior, [0.0], samples=1, seed=4)
    many = complete_sequences(model, posterior, [0.0], samples=3, seed=4)
    for a, b in zip(few, many, strict=False):
        np.testing.assert_array_equal(a.vertices, b.vertices)
    assert len(complete_sequences(model, posterior, [0.0])) == 1


def test_with_labels_on_a_given_grid(model):
    sequence, pose = heart(model, 3, frames=2), typical_pose()
    grid = Grid.around(sequence.vertices.reshape(-1, 3), (3.0, 2.5, 2.0))
    found = with_labels(sequence, pose, grid=grid)
    assert found.grid is grid
    assert found.labels.shape == (2, *grid.shape)
    for labels, vertices in zip(found.labels, sequence.vertices, strict=True):
        np.testing.assert_array_equal(labels, render_labels(vertices, model.topology, grid))
    own = with_labels(sequence, pose, spacing_mm=3.0)
    np.testing.assert_allclose(own.grid.spacing, 3.0)
    assert set(np.unique(own.labels)) == {0, 1, 2, 3}
    assert not (own.labels[:, [0, -1]] > 0).any(), "the heart lies within its grid"


def test_a_heart_in_a_mirrored_world_is_the_same_heart(model):
    latent = draw_latent(model, encode_condition(Factors(age=50.0)), seed=2, index=0)
    axes = typical_pose().axes
    plain = decode_sequence(model, latent, frame_phases(10), pose=Pose(axes, np.zeros(3)))
    mirror = np.diag([-1.0, 1.0, 1.0])
    turned = decode_sequence(
        model, latent, frame_phases(10), pose=Pose(mirror @ axes, np.zeros(3))
    )
    np.testing.assert_allclose(turned.vertices, plain.vertices @ mirror, atol=1e-12)
    assert (turned.ed, turned.es) == (plain.ed, plain.es)
    for structure, volume in sequence_volumes(plain, source="mesh").items():
        np.testing.assert_allclose(sequence_volumes(turned, source="mesh")[structure], volume)
    assert check_sequence(turned) == []


def test_decode_sequence_renders_on_the_grid_that_is_asked_for(model):
    latent = draw_latent(model, encode_condition(FACTORS), seed=0, index=2)
    pose, phases = typical_pose(), [0.0, 0.4]
    bare = decode_sequence(model, latent, phases, pose=pose)
    assert bare.labels is None
    spaced = decode_sequence(model, latent, phases, pose=pose, spacing_mm=3.0)
    np.testing.assert_array_equal(spaced.labels, with_labels(bare, pose, spacing_mm=3.0).labels)
    grid = Grid.around(bare.vertices.reshape(-1, 3), (3.0, 2.5, 2.0))
    placed = decode_sequence(model, latent, phases, pose=pose, grid=grid)
    np.testing.assert_array_equal(placed.labels, with_labels(bare, pose, grid=grid).labels)
    np.testing.assert_array_equal(placed.vertices, bare.vertices)
    assert (placed.ed, placed.es) == (bare.ed, bare.es) == (0, 1)


LATTICE = heart_grid((31, 33, 35), (4.0, 3.5, 3.0))
# Heart frame, mm: planes between which the structures lie, from the apex up.
LEVELS = (-80.0, -60.0, -30.0, -10.0)


class Layers:
    """Structures between planes across the long axis, which the first latent moves up.

    Probabilities rise linearly over two voxels, so that linear interpolation finds each plane.
    """

    topology = None
    known_phases = ()

    def __init__(self, *, possible=lambda latent: True):
        self.is_possible = possible

    def check_condition(self, condition):
        pass

    def prior(self, condition):
        spread = torch.eye(2, dtype=torch.float64)[None]
        z = GaussianMixture(torch.ones(1, dtype=torch.float64), spread[:, 0] * 0.0, spread)
        return CodedLatents(z, torch.tensor([7.0], dtype=torch.float64))

    def decode_probs(self, latent, phases):
        voxels = np.moveaxis(np.indices(LATTICE.shape), 0, -1)
        height = torch.from_numpy(LATTICE.to_world(voxels)[..., 2])
        frames = []
        for phase in phases:
            # The upper plane of the left ventricle comes down as it empties.
            levels = np.array(LEVELS) + float(latent[0])
            levels[2] -= 10.0 * np.sin(np.pi * phase)
            above = [((height - level) / 8.0 + 0.5).clamp(0, 1) for level in levels]
            myocardium, lv, rv = (above[k] - above[k + 1] for k in range(3))
            parts = [1 - above[0] + above[3], lv, myocardium, rv]
            frames.append(torch.stack(parts))
        return torch.stack(frames).float(), LATTICE


POSE = Pose(np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0], np.array([9.0, -30, 4]))


def test_label_maps_lie_where_the_model_puts_them_at_any_spacing():
    latent = torch.tensor([1.3, 0.0, 7.0], dtype=torch.float64)
    native = decode_sequence(Layers(), latent, [0.0, 0.5], pose=POSE)
    assert native.vertices is None
    assert native.labels.shape == (2, *LATTICE.shape)
    np.testing.assert_allclose(native.grid.spacing, LATTICE.spacing)
    fine = decode_sequence(Layers(), latent, [0.0, 0.5], pose=POSE, spacing_mm=1.25)
    np.testing.assert_allclose(fine.grid.spacing, 1.25)
    for structure, low, high in (
        (Structure.MYO, LEVELS[0], LEVELS[1]),
        (Structure.LV, LEVELS[1], LEVELS[2]),
        (Structure.RV, LEVELS[2], LEVELS[3]),
    ):
        world = fine.grid.to_world(np.argwhere(fine.labels[0] == structure))
        height = POSE.to_heart(world)[:, 2]
        # A plane lies half a fine voxel from the outermost centers; native voxels have 4 mm.
        assert height.min() == pytest.approx(low + 1.3, abs=0.7)
        assert height.max() == pytest.approx(high + 1.3, abs=0.7)
    assert fine.labels.max(initial=0) == 3


def test_label_maps_on_a_given_grid_are_background_beyond_the_lattice():
    latent = torch.tensor([0.0, 0.0, 7.0], dtype=torch.float64)
    center = POSE.to_world(np.array([20.0, 2.0, -50.0]))
    grid = Grid.regular((40, 41, 42), (6.0, 5.0, 7.0), center - 125.0)
    found = decode_sequence(Layers(), latent, [0.0], pose=POSE, grid=grid)
    assert found.grid is grid
    voxels = LATTICE.to_voxel(POSE.to_heart(grid.to_world(np.argwhere(found.labels[0]))))
    assert len(voxels) > 1000
    assert (voxels > -1.0).all()
    assert (voxels < LATTICE.shape).all()
    apart = Grid.regular((5, 6, 7), (2.0, 2.0, 2.0), center + 900.0)
    assert not decode_sequence(Layers(), latent, [0.0], pose=POSE, grid=apart).labels.any()


def test_ed_and_es_of_label_maps_do_not_depend_on_the_grid():
    latent = torch.tensor([0.0, 0.0, 7.0], dtype=torch.float64)
    center = POSE.to_world(np.array([20.0, 2.0, -75.0]))
    # This grid shows the wall alone.
    grid = Grid.regular((4, 4, 4), (2.0, 2.0, 2.0), center)
    for where in (None, grid):
        found = decode_sequence(Layers(), latent, [0.1, 0.5, 0.99, 0.8], pose=POSE, grid=where)
        assert (found.ed, found.es) == (2, 1)


def test_latents_of_label_maps_are_drawn_again_until_they_are_hearts():
    condition = encode_condition(Factors())
    plain = [draw_latent(Layers(), condition, seed=1, index=k) for k in range(20)]
    picky = Layers(possible=lambda latent: float(latent[0]) > 0.0)
    chosen = [draw_latent(picky, condition, seed=1, index=k) for k in range(20)]
    assert all(float(z[0]) > 0 for z in chosen)
    kept = [torch.equal(a, b) for a, b in zip(plain, chosen, strict=True)]
    assert kept == [float(z[0]) > 0 for z in plain]
    assert 3 < sum(kept) < 17
    with pytest.raises(CardiogenError, match=r"CG-D03 .*100 draws in a row"):
        draw_latent(Layers(possible=lambda latent: False), condition, seed=1, index=0)


def test_completed_label_maps_are_the_mean_on_the_grid_and_samples_on_their_own():
    posterior = Posterior(Layers().prior(None), POSE)
    grid = Grid.regular((9, 8, 7), (8.0, 9.0, 10.0), POSE.to_world(np.array([0.0, 0.0, -40.0])))
    mean, *draws = complete_sequences(Layers(), posterior, [0.0, 0.5], samples=2, grid=grid)
    assert mean.grid is grid
    assert all(d.labels.shape[1:] == LATTICE.shape for d in draws)
    assert not np.array_equal(draws[0].labels, draws[1].labels)


def test_a_cycle_has_the_phases_that_a_model_knows(model):
    assert cycle_phases(model, 4) == cycle_phases(Layers(), 4) == [0.0, 0.25, 0.5, 0.75]
    two = Layers()
    two.known_phases = (0.0, 0.35)
    assert cycle_phases(two, 25) == [0.0, 0.35]
