"""Fourier motion: closed cycle, identity at end diastole, each phase an exponential."""

import math

import numpy as np
import pytest
import torch

from cardiogen import ops
from cardiogen.models.cycle import fourier_basis as model_basis
from cardiogen.transforms import SVF, SVFFD, TemporalSVF, fourier_basis

PHASES = [0.0, 0.13, 0.37, 0.5, 0.91]


@pytest.fixture(params=["dense", "dense_2d", "control", "control_2d"])
def motion(request, grid, smooth):
    in_plane = request.param.endswith("_2d")
    control = 6.4 if request.param.startswith("control") else None
    shape = TemporalSVF.identity(
        grid, harmonics=2, control_spacing=control, in_plane=in_plane
    ).params.shape[2:]
    params = smooth(8, *shape, size=0.3).unflatten(0, (2, 4))
    return TemporalSVF(grid, params, control_spacing=control, in_plane=in_plane)


def test_the_cycle_closes_exactly_and_starts_with_the_identity(motion):
    field = motion.displacement([0.0, 1.0, -3.0, 0.25, 1.25, -0.75])
    assert field.shape == (2, 6, 3, *motion.grid.shape)
    assert torch.equal(field[:, :3], torch.zeros_like(field[:, :3]))
    assert field[:, 3].abs().max() > 0.1
    assert torch.equal(field[:, 3], field[:, 4])
    assert torch.equal(field[:, 3], field[:, 5])


def test_the_velocity_is_the_series(motion):
    a1, b1, a2, b2 = motion.coefficients().unbind(1)
    for index, phase in enumerate(PHASES):
        angle = 2 * math.pi * phase
        wanted = (a1 * (math.cos(angle) - 1) + b1 * math.sin(angle)
                  + a2 * (math.cos(2 * angle) - 1) + b2 * math.sin(2 * angle))  # fmt: skip
        found = motion.velocity(PHASES)[:, index]
        assert torch.allclose(found, wanted, atol=1e-12)


def test_one_phase_is_a_stationary_velocity(motion, grid, other_grid):
    fields = motion.displacement(PHASES)
    seen = motion.displacement(PHASES, other_grid)
    points = torch.from_numpy(grid.to_world(np.array([[3.2, 4.1, 6.6], [2.0, 5.5, 5.1]])))[None]
    moved = motion.points(points.expand(2, -1, -1), PHASES)
    for index, phase in enumerate(PHASES):
        alone = motion.at(phase)
        assert isinstance(alone, SVF if motion.control_spacing is None else SVFFD)
        assert torch.allclose(alone.displacement(), fields[:, index], atol=1e-12)
        assert torch.allclose(alone.displacement(other_grid), seen[:, index], atol=1e-12)
        assert torch.allclose(alone.points(points.expand(2, -1, -1)), moved[:, index], atol=1e-10)
    assert torch.equal(motion.points(points, PHASES), moved)


def test_jacobians_follow_the_fields(motion):
    field = motion.displacement([0.4])[:, 0]
    found = motion.jacobian_determinant([0.4])
    assert torch.equal(found[:, 0], ops.jacobian_determinant(field))
    spacing = motion.grid.spacing
    assert torch.equal(motion.jacobian([0.4])[:, 0], ops.jacobian(field, spacing=spacing))


def test_the_inverse_returns_to_end_diastole(motion, grid):
    points = torch.from_numpy(grid.to_world(np.array([[3.2, 5.1, 6.6], [2.6, 5.5, 5.1]])))[None]
    for phase in (0.2, 0.6):
        there = motion.at(phase).points(points.expand(2, -1, -1))
        back = motion.inverse().at(phase).points(there)
        assert (back - points).norm(dim=-1).max() < 0.1 * (there - points).norm(dim=-1).max()


def test_harmonics_come_and_go(motion):
    more = motion.with_harmonics(4)
    assert more.harmonics == 4
    assert torch.allclose(more.displacement(PHASES), motion.displacement(PHASES), atol=1e-13)
    assert torch.equal(more.with_harmonics(2).params, motion.params)
    first = motion.with_harmonics(1)
    assert torch.equal(first.params, motion.params[:, :2])
    with pytest.raises(ValueError, match="harmonics must be at least 1"):
        motion.with_harmonics(0)


def test_the_basis_is_that_of_the_models():
    # The models keep all cosines before all sines; here a harmonic's two stand together.
    found = fourier_basis(PHASES, 8).numpy()
    blocks = np.concatenate([found[:, ::2], found[:, 1::2]], axis=1)
    assert np.allclose(blocks, model_basis(PHASES), atol=1e-14)


def test_gradients_reach_every_coefficient(motion):
    made = motion.trainable()
    made.displacement([0.2, 0.7]).square().sum().backward()
    assert (made.params.grad.flatten(2).abs().amax(dim=2) > 0).all()
    assert not motion.detached().displacement([0.2]).requires_grad


def test_any_number_of_any_phases_alone_or_together(motion):
    together = motion.displacement(torch.linspace(0, 1, 9))
    assert torch.allclose(motion.displacement([0.375]), together[:, 3:4], atol=1e-12)


def test_faults_name_what_was_wanted(grid):
    with pytest.raises(ValueError, match=r"\(B, 2 K, ...\)"):
        TemporalSVF(grid, torch.zeros(1, 3, 3, *grid.shape))
    with pytest.raises(ValueError, match="phases must be finite"):
        TemporalSVF.identity(grid, harmonics=1).displacement([float("nan")])
