"""Shared fixtures: where the real hearts lie, and float64 grids that swap no axis unnoticed."""

import os
from pathlib import Path

import numpy as np
import pytest

from cardiogen.data.grid import Grid

_SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real hearts; skips where there is none (they may not be redistributed)."""
    folder = Path(os.environ.get("CARDIOGEN_REAL_DATA", _SHARED))
    if not (folder / "acdc_dev25").is_dir():
        pytest.skip(f"no real hearts at {folder}; set CARDIOGEN_REAL_DATA to test on them")
    return folder


def oblique_axes(seed: int = 0, *, mirrored: bool = False) -> np.ndarray:
    """Return a random orthonormal 3 x 3 matrix; its determinant is -1 if ``mirrored``."""
    axes, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    wanted = -1.0 if mirrored else 1.0
    return axes * np.array([1.0, 1.0, wanted * np.sign(np.linalg.det(axes))])


@pytest.fixture
def oblique_grid() -> Grid:
    """Odd, non-cubic, anisotropic and oblique: (7, 10, 13) voxels of 8 x 1.4 x 1.9 mm."""
    return Grid.regular((7, 10, 13), (8.0, 1.4, 1.9), (5.0, -20.0, 31.0), oblique_axes(3))
