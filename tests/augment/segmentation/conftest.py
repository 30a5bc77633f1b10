"""Phantoms with closed forms: discs and rings on oblique, anisotropic, odd grids."""

from __future__ import annotations

import numpy as np
import pytest

from cardiogen.data import Grid, Sequence, Structure


def phantom(index: int = 0, *, shape=(3, 45, 39), spacing=(9.0, 1.9, 2.1)) -> Sequence:
    """Return ED and ES of a disc (LV) in a ring (MYO) with a disc beside it (RV).

    Radii in mm are round in the world, so their areas are known; ES is smaller.
    """
    rng = np.random.default_rng(index)
    axes, _ = np.linalg.qr(np.random.default_rng(7).normal(size=(3, 3)))
    grid = Grid.regular(shape, spacing, (3.0, -11.0, 20.0), axes)
    rows, columns = np.meshgrid(
        np.arange(shape[1]) * spacing[1], np.arange(shape[2]) * spacing[2], indexing="ij"
    )
    middle = np.array([shape[1] * spacing[1], shape[2] * spacing[2]]) / 2 + rng.uniform(-3, 3, 2)
    labels = np.zeros((2, *shape), dtype=np.uint8)
    for frame, inner in enumerate((13.0, 9.0)):
        away = np.hypot(rows - middle[0], columns - middle[1] - 4)
        right = np.hypot(rows - middle[0], columns - middle[1] + 16)
        plane = np.where(right < 15, Structure.RV, 0)
        plane = np.where(away < inner + 8, Structure.MYO, plane)
        labels[frame] = np.where(away < inner, Structure.LV, plane)
    signal = np.array([0.25, 1.0, 0.05, 0.8])[labels]
    images = signal + rng.normal(scale=0.05, size=labels.shape)
    return Sequence(
        phases=np.array([0.0, 0.4]), ed=0, es=1, grid=grid, labels=labels,
        images=images.astype(np.float32), subject_id=f"phantom{index:02d}",
    )  # fmt: skip


@pytest.fixture
def heart() -> Sequence:
    return phantom()


@pytest.fixture(scope="session")
def hearts() -> list[Sequence]:
    return [phantom(index) for index in range(4)]
