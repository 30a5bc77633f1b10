"""Compositions: points meet the first transform first, and no grid's border clamps another."""

import numpy as np
import torch

from cardiogen import ops
from cardiogen.data.grid import Grid
from cardiogen.transforms import SVF, Affine, Composition, Displacement


def shifted(grid, voxels):
    """Return the displacement that moves by a constant number of voxels."""
    field = torch.tensor(voxels, dtype=torch.float64).view(1, 3, 1, 1, 1)
    return Displacement(grid, field.expand(1, 3, *grid.shape).clone())


def test_points_meet_the_first_transform_first(grid, other_grid, smooth):
    first = SVF(grid, smooth(1, 3, *grid.shape, size=0.5))
    matrix = ops.affine_matrix(torch.tensor([[4.0, -3.0, 2.0]]).double(),
                               rotation=torch.tensor([[0.3, 0.2, -0.4]]).double())  # fmt: skip
    second = Affine.from_matrix(other_grid, matrix)
    points = torch.from_numpy(grid.to_world(np.array([[3.0, 4.2, 5.1], [2.0, 7.7, 6.6]])))[None]
    both = Composition([first, second])
    assert torch.allclose(both.points(points), second.points(first.points(points)), atol=1e-9)
    swapped = Composition([second, first]).points(points)
    assert (swapped - both.points(points)).abs().max() > 0.1
    nested = Composition([Composition([first, second]), first])
    wanted = first.points(second.points(first.points(points)))
    assert torch.allclose(nested.points(points), wanted, atol=1e-9)


def test_on_one_grid_it_is_compose(grid, smooth):
    a_to_b = Displacement(grid, smooth(2, 3, *grid.shape, seed=1))
    b_to_c = Displacement(grid, smooth(1, 3, *grid.shape, seed=2))
    found = Composition([a_to_b, b_to_c]).displacement()
    wanted = ops.compose(a_to_b.displacement(), b_to_c.displacement())
    assert torch.allclose(found, wanted, atol=1e-12)


def test_matrices_multiply(grid, other_grid):
    matrices = [ops.affine_matrix(torch.tensor([[3.0, 1.0, -2.0]]).double() * k,
                                  rotation=torch.tensor([[0.3, 0.2, -0.4]]).double() * k,
                                  scale=torch.tensor([[1.1, 0.9, 1.05]]).double())
                for k in (1.0, -0.7)]  # fmt: skip
    parts = [Affine.from_matrix(g, m) for g, m in zip((grid, other_grid), matrices, strict=True)]
    found = Composition(parts).displacement(grid)
    wanted = ops.affine_to_displacement(matrices[1] @ matrices[0], grid, dtype=torch.float64)
    # Far outside any grid too, where a sampled field would have been clamped at its border.
    assert torch.allclose(found, wanted, atol=1e-9)


def test_a_second_field_is_read_where_points_have_come_to():
    near = Grid.regular((5, 6, 7), (2.0, 2.0, 2.0))
    far = Grid.regular((5, 6, 7), (2.0, 2.0, 2.0), (1000.0, 0.0, 0.0))
    there = shifted(near, (500.0, 0.0, 0.0))
    field = torch.zeros(1, 3, 5, 6, 7, dtype=torch.float64)
    field[:, 1] = torch.arange(5).view(1, 5, 1, 1)
    found = Composition([there, Displacement(far, field)]).displacement()
    assert torch.allclose(found[:, 0], torch.tensor(500.0).double())
    assert torch.allclose(found[:, 1], field[:, 1], atol=1e-9)


def test_the_inverse_reverses_the_order(grid, other_grid, smooth):
    affine = Affine(other_grid, 0.05 * torch.ones(1, 3, 4, dtype=torch.float64))
    both = Composition([affine, SVF(grid, smooth(1, 3, *grid.shape, size=0.2))])
    inverse = both.inverse()
    assert isinstance(inverse.transforms[0], SVF)
    points = torch.from_numpy(grid.to_world(np.array([[3.0, 4.2, 5.1], [2.6, 6.7, 6.6]])))[None]
    back = inverse.points(both.points(points))
    assert (back - points).abs().max() < 0.02


def test_parts_are_refined_and_batches_broadcast(grid, smooth):
    fine = grid.resized((13, 21, 25))
    both = Composition([
        Affine(grid, 0.02 * torch.ones(2, 3, 4, dtype=torch.float64)),
        Displacement(grid, smooth(1, 3, *grid.shape, size=0.3)),
    ])  # fmt: skip
    assert both.displacement().shape == (2, 3, *grid.shape)
    refined = both.refined(fine)
    assert refined.grid is fine
    assert torch.allclose(refined.displacement(), both.displacement(fine), atol=1e-9)
