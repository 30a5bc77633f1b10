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
from cardiogen.data.mesh import Surface
from cardiogen.measure import check_sequence, mesh_volume, sequence_volumes
from cardiogen.models import encode_condition, frame_phases, load_model
from cardiogen.models.distributions import GaussianMixture
from cardiogen.models.protocol import Posterior
from cardiogen.population import Pose, render_labels, typical_pose
from cardiogen.synthesis import (
    complete_sequences,
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
