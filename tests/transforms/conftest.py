"""Grids and smooth random parameters for laws about transforms."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from cardiogen import ops
from cardiogen.data.grid import Grid

MakeSmooth = Callable[..., Tensor]


def axes(seed: int, sign: float) -> np.ndarray:
    """Return random orthonormal axes whose determinant has the sign told."""
    found, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return found * np.array([1.0, 1.0, sign * np.sign(np.linalg.det(found))])


@pytest.fixture(params=[1.0, -1.0], ids=["right-handed", "mirrored"])
def grid(request: pytest.FixtureRequest) -> Grid:
    """Odd, anisotropic and oblique, in both handednesses."""
    return Grid.regular((7, 11, 13), (8.0, 1.5, 1.9), (5.0, -20.0, 31.0), axes(3, request.param))


@pytest.fixture
def other_grid() -> Grid:
    """Another oblique lattice that lies well inside ``grid``'s world for small motion."""
    return Grid.regular((5, 6, 4), (3.0, 1.1, 1.3), (7.0, -21.0, 33.0), axes(8, 1.0))


@pytest.fixture(scope="session")
def smooth() -> MakeSmooth:
    """Make smooth random tensors ``(N, C, *S)`` with largest entry ``size``."""

    def make(*shape: int, seed: int = 0, size: float = 1.0, sigma: float = 1.5) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(*shape, generator=generator, dtype=torch.float64)
        blurred = ops.gaussian(noise, (sigma,) * (len(shape) - 2))
        return blurred / blurred.abs().max() * size

    return make
