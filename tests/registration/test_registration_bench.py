"""The benchmark's protocol and its peers' conventions."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cardiogen import ops
from cardiogen.transforms import SVF

SCRIPTS = str(Path(__file__).resolve().parents[2] / "scripts")


@pytest.fixture
def bench(monkeypatch):
    """Return the modules of the benchmark, imported as its script does."""
    monkeypatch.syspath_prepend(SCRIPTS)
    from bench import acdc_pairs, registrars

    yield acdc_pairs, registrars
    for name in [n for n in sys.modules if n == "bench" or n.startswith("bench.")]:
        del sys.modules[name]


def test_box_of_the_heart_has_its_margin_and_spacing(bench, make_grid):
    native = make_grid(shape=(9, 80, 90), spacing=(10.0, 1.3, 1.2))
    labels = np.zeros(native.shape, dtype=np.uint8)
    labels[3:6, 40:45, 50:60] = 1
    grid = bench[0].heart_grid(labels, native)
    assert grid.spacing == pytest.approx((10.0, 1.5, 1.5))
    low = native.to_voxel(grid.to_world((0, 0, 0)))
    assert low == pytest.approx([1, 40 - 25 / 1.3, 50 - 25 / 1.2])
    assert grid.shape[0] == 7
    high = native.to_voxel(grid.to_world([n - 1 for n in grid.shape]))
    assert high[1] == pytest.approx(44 + 25 / 1.3, abs=1.5 / 1.3)


@pytest.mark.parametrize("name", ["ours fast", "SimpleITK demons"])
def test_contenders_agree_on_what_a_field_is(bench, make_grid, make_image, make_velocity, name):
    pytest.importorskip("SimpleITK")
    acdc_pairs, registrars = bench
    grid = make_grid(shape=(6, 49, 56), spacing=(8.0, 1.7, 1.5))
    moving = make_image(grid, width_mm=7.0, count=20)
    truth = SVF(grid, make_velocity(grid, 5.0)).displacement()
    fixed = ops.warp(moving, truth)
    labels = (fixed > 0.5).to(torch.uint8)
    pair = acdc_pairs.CardiacPair("a", "NOR", grid, fixed, moving, labels, labels)
    field = registrars.registrars([name])[name](pair)
    assert field.shape == truth.shape
    moved = ops.warp(moving, field)
    assert (moved - fixed).square().mean() < 0.2 * (moving - fixed).square().mean()
