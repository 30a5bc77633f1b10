"""Laws of the time basis and of pairwise strategies."""

import math

import numpy as np
import pytest
import torch

from cardiogen import ops
from cardiogen.transforms.temporal import fourier_basis
from registration.tracking.basis import time_basis


@pytest.mark.parametrize(("frames", "harmonics"), [(11, 5), (25, 4), (8, 9), (2, 3)])
def test_functions_are_orthonormal_and_rest_at_ed(frames, harmonics):
    basis = time_basis(torch.arange(frames, dtype=torch.float64) / frames, harmonics)
    product = basis.frames.T @ basis.frames / frames
    assert torch.allclose(product, torch.eye(len(product), dtype=torch.float64), atol=1e-9)
    assert basis.frames[0].abs().max() == 0
    assert basis.harmonics <= max(1, (frames - 1) // 2)


def test_functions_are_fourier_series_and_priced_by_their_derivative():
    phases = torch.arange(21, dtype=torch.float64) / 21
    basis = time_basis(phases, 3)
    dense = torch.arange(4096, dtype=torch.float64) / 4096
    curves = fourier_basis(dense, 3) @ basis.to_fourier
    assert torch.allclose(fourier_basis(phases, 3) @ basis.to_fourier, basis.frames)
    slopes = (curves.roll(-1, 0) - curves.roll(1, 0)) * 4096 / 2
    energy = slopes.square().mean(dim=0) / (2 * math.pi) ** 2
    # Twice the energy, since sin^2 is 1/2 in the mean: sin 2 pi t alone would cost 1.
    assert torch.allclose(2 * energy * 0.5, basis.price * 0.5, rtol=1e-3)
    cross = slopes.T @ slopes / 4096
    assert (cross - cross.diag().diag()).abs().max() < 1e-6 * cross.abs().max()


def test_unequal_phases_need_no_order():
    phases = torch.tensor([0.3, 0.0, 0.55, 0.9, 0.71, 0.12], dtype=torch.float64)
    basis = time_basis(phases, 2)
    assert basis.frames[1].abs().max() == 0
    assert torch.isfinite(basis.frames).all()


def test_composition_is_lagrangian(make_grid, make_velocity):
    """Two steps of one stationary flow are the flow of twice the time."""
    from registration.tracking.pairwise import _composed

    velocity = make_velocity(make_grid())
    step, twice = ops.exponentiate(velocity), ops.exponentiate(2 * velocity)
    composed = _composed(torch.cat([step, step]))
    assert torch.equal(composed[:1], step)
    assert (composed[1:] - twice).abs().max() < 0.05
    assert np.isfinite(composed.numpy()).all()
