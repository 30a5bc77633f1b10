"""Refinement keeps the function: exactly where lattices nest, nearly elsewhere."""

import numpy as np
import pytest
import torch

from cardiogen import ops
from cardiogen.data.grid import Grid
from cardiogen.transforms import FFD, SVF, SVFFD, Displacement, TemporalSVF, carry

FIELDS = {"ffd": FFD, "svffd": SVFFD}


def finer(grid):
    """Return the grid with every interval halved: all old voxels are among the new ones."""
    return grid.resized(tuple(2 * n - 1 for n in grid.shape))


def in_mm(field, grid):
    linear = torch.tensor(grid.affine[:3, :3])
    return torch.einsum("ij,bj...->bi...", linear, field.double())


def made(kind, grid, smooth, *, in_plane=False, control_spacing=6.4, size=0.6):
    one = FIELDS[kind].identity(grid, control_spacing=control_spacing, in_plane=in_plane)
    params = smooth(2, *one.params.shape[1:], size=size, sigma=0.7)
    return FIELDS[kind](grid, params, control_spacing=one.control_spacing, in_plane=in_plane)


@pytest.mark.parametrize("in_plane", [False, True])
def test_subdivided_splines_are_the_same_function(grid, smooth, in_plane):
    coarse = made("ffd", grid, smooth, in_plane=in_plane)
    spacing = coarse.control_spacing
    assert spacing == ((6.4, 6.4) if in_plane else (8.0, 6.4, 6.4))
    halved = tuple(s / 2 for s in spacing)
    fine_grid = grid.resized((7, 21, 25)) if in_plane else finer(grid)
    fine = coarse.refined(fine_grid, control_spacing=halved)
    assert fine.control_spacing == halved
    step = tuple((m - 1) // (n - 1) for n, m in zip(grid.shape, fine_grid.shape, strict=True))
    there = in_mm(fine.displacement(), fine_grid)[..., :: step[0], :: step[1], :: step[2]]
    assert torch.allclose(there, in_mm(coarse.displacement(), grid), atol=1e-11)
    # Not only at the old voxels: expanding the old spline on the new grid gives the same.
    kept = coarse.refined(fine_grid)
    assert kept.control_spacing == spacing
    assert torch.allclose(kept.displacement(), fine.displacement(), atol=1e-11)


def test_axes_may_be_halved_alone_and_twice(grid, smooth):
    coarse = made("ffd", grid, smooth)
    fine = coarse.refined(grid, control_spacing=(8.0, 1.6, 3.2))
    assert fine.params.shape[2:] == ops.control_shape(
        grid.shape, spacing=grid.spacing, control_spacing=(8.0, 1.6, 3.2)
    )
    assert torch.allclose(fine.displacement(), coarse.displacement(), atol=1e-11)


def test_other_control_points_give_the_nearest_spline(smooth):
    grid = Grid.regular((9, 17, 19), (2.0, 1.0, 1.0))
    coarse = made("ffd", grid, smooth, control_spacing=6.0)
    fine = coarse.refined(grid, control_spacing=2.6)
    error = (fine.displacement() - coarse.displacement()).abs().max()
    assert error < 0.02 * coarse.displacement().abs().max()
    # Nested but not by halves: the space of the old splines lies in that of the new ones.
    third = coarse.refined(grid, control_spacing=2.0)
    assert torch.allclose(third.displacement(), coarse.displacement(), atol=1e-10)


def test_linear_fields_survive_any_grid(grid, other_grid):
    # A linear field is reproduced by splines and by interpolation, so nothing may change.
    matrix = torch.eye(4, dtype=torch.float64)[None].clone()
    matrix[0, :3, :3] += 0.02 * torch.tensor(np.random.default_rng(3).normal(size=(3, 3)))
    matrix[0, :3, 3] = torch.tensor([0.5, -0.3, 0.2])
    dense = Displacement(grid, ops.affine_to_displacement(matrix, grid, dtype=torch.float64))
    inner = Grid.regular((4, 5, 6), (3.0, 1.2, 1.6), grid.to_world((2, 3, 3)),
                         grid.affine[:3, :3] / grid.spacing)  # fmt: skip
    tilted = Grid(inner.shape, inner.affine @ np.array(
        [[1, 0.05, 0, 0.2], [-0.05, 1, 0.1, 0.1], [0, -0.1, 1, 0.3], [0, 0, 0, 1]]))  # fmt: skip
    wanted = ops.affine_to_displacement(matrix, tilted, dtype=torch.float64)
    assert torch.allclose(dense.displacement(tilted), wanted, atol=1e-10)
    assert torch.allclose(dense.refined(tilted).params, wanted, atol=1e-10)
    ffd = FFD.identity(grid, control_spacing=8.0, dtype=torch.float64)
    centers = ops.control_coords(grid.shape, spacing=grid.spacing,
                                 control_spacing=ffd.control_spacing)  # fmt: skip
    in_voxels = ops.world_to_grid(grid) @ matrix @ ops.grid_to_world(grid)
    flat = centers.flatten(2).movedim(1, -1)
    moved = (ops.transform_points(flat, in_voxels) - flat).movedim(-1, 1)
    ffd = ffd.with_parameters(moved.unflatten(2, ffd.params.shape[2:]))
    assert torch.allclose(ffd.refined(tilted).displacement(), wanted, atol=1e-9)


def test_velocities_refine_with_their_displacement(grid, smooth):
    coarse = SVF(grid, smooth(1, 3, *grid.shape, size=0.8))
    fine = coarse.refined(finer(grid))
    assert torch.equal(fine.velocity(), carry(coarse.velocity(), grid, finer(grid)))
    # Exponentials on two lattices agree to the error of interpolating between voxels.
    error = in_mm(fine.displacement() - coarse.displacement(finer(grid)), finer(grid))
    assert error.abs().mean() < 0.05 * in_mm(fine.displacement(), finer(grid)).abs().mean()


def test_velocity_splines_refine_exactly(grid, smooth):
    coarse = made("svffd", grid, smooth)
    halved = tuple(s / 2 for s in coarse.control_spacing)
    fine = coarse.refined(finer(grid), control_spacing=halved)
    there = in_mm(fine.velocity(), finer(grid))[..., ::2, ::2, ::2]
    assert torch.allclose(there, in_mm(coarse.velocity(), grid), atol=1e-11)


@pytest.mark.parametrize("in_plane", [False, True])
def test_motion_refines_in_space(grid, smooth, in_plane):
    shape = TemporalSVF.identity(
        grid, harmonics=2, control_spacing=6.4, in_plane=in_plane
    ).params.shape[2:]
    params = smooth(8, *shape, sigma=0.7).unflatten(0, (2, 4))
    coarse = TemporalSVF(grid, params, control_spacing=6.4, in_plane=in_plane)
    halved = tuple(s / 2 for s in coarse.control_spacing)
    fine_grid = grid.resized((7, 21, 25))
    halved = halved if in_plane else (8.0, *halved[1:])
    fine = coarse.refined(fine_grid, control_spacing=halved)
    there = in_mm(fine.velocity([0.3, 0.9]).flatten(0, 1), fine_grid)[..., ::2, ::2]
    assert torch.allclose(
        there, in_mm(coarse.velocity([0.3, 0.9]).flatten(0, 1), grid), atol=1e-11
    )


def test_refinement_is_differentiable(grid, smooth):
    one = made("svffd", grid, smooth).trainable()
    one.refined(finer(grid)).displacement().square().sum().backward()
    assert one.params.grad.abs().max() > 0


def test_what_cannot_be_refined_is_refused(grid, other_grid):
    with pytest.raises(ValueError, match="slices' planes"):
        SVF.identity(grid, in_plane=True).refined(other_grid)
    with pytest.raises(ValueError, match="without control points"):
        TemporalSVF.identity(grid, harmonics=1).refined(grid, control_spacing=9.0)
