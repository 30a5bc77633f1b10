"""Small smooth pairs with known motion, on oblique anisotropic grids of odd sizes."""

import numpy as np
import pytest
import torch

from cardiogen import ops
from cardiogen.data import Grid
from cardiogen.transforms import SVF
from registration import PrepareConfig, RegistrationConfig, StageConfig, TermConfig


def oblique_grid(shape=(7, 33, 38), spacing=(6.0, 1.7, 1.5)):
    axes, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    return Grid.regular(shape, spacing, origin=(12.0, -30.0, 7.0), axes=axes)


def blobs(grid, count=14, seed=0, width_mm=6.0):
    """Return an image ``(1, 1, *S)`` of Gaussian blobs, about 0 to 1."""
    rng = np.random.default_rng(seed)
    steps = np.array(grid.spacing)[:, None, None, None]
    mm = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij")) * steps
    ends = np.array(grid.shape) * grid.spacing
    image = np.zeros(grid.shape)
    for _ in range(count):
        center = rng.uniform(0.15, 0.85, 3) * ends
        wide = width_mm * rng.uniform(0.8, 1.6) * np.array([1.5, 1, 1])
        away = (mm - center[:, None, None, None]) / wide[:, None, None, None]
        image += rng.uniform(0.3, 1.0) * np.exp(-0.5 * (away**2).sum(axis=0))
    return torch.from_numpy(image / image.max()).float()[None, None]


def swirl(grid, size_mm=3.0, seed=1, through=0.0):
    """Return a smooth velocity ``(1, 3, *S)``, voxels, 0 at the border of the plane."""
    noise = torch.randn(1, 3, *grid.shape, generator=torch.Generator().manual_seed(seed))
    smooth = ops.gaussian(noise, (12.0, 12.0, 12.0), spacing=grid.spacing)
    h, w = (torch.sin(torch.linspace(0, torch.pi, n)) for n in grid.shape[1:])
    smooth = smooth * (h.view(-1, 1) * w)
    smooth[:, 0] *= through
    lengths = torch.tensor(grid.spacing).view(1, 3, 1, 1, 1)
    return smooth / (smooth * lengths).abs().max() * size_mm / lengths * lengths.min()


@pytest.fixture
def grid():
    return oblique_grid()


@pytest.fixture
def make_grid():
    return oblique_grid


@pytest.fixture
def make_image():
    return blobs


@pytest.fixture
def make_velocity():
    return swirl


@pytest.fixture
def pair(grid):
    """Return fixed, moving and the displacement that leads from one to the other."""
    moving = blobs(grid)
    truth = SVF(grid, swirl(grid)).displacement()
    return ops.warp(moving, truth), moving, truth


@pytest.fixture
def make_config():
    """Return a function that makes a config of one stage from settings and terms."""

    def make(prepare="none", unfold=True, **settings):
        terms = settings.pop("terms", {"similarity": "mse", "smoothness": ("diffusion", 1e-3)})
        entries = {
            name: TermConfig(term=t) if isinstance(t, str) else TermConfig(term=t[0], weight=t[1])
            for name, t in terms.items()
        }
        stage = StageConfig(terms=entries, **settings)
        return RegistrationConfig(
            prepare=PrepareConfig(scale=prepare), stages=(stage,), unfold=unfold
        )

    return make
