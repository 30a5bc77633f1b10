"""Laws that hold for every transform: agreement of its doors, inverse, gradients, batches."""

import numpy as np
import pytest
import torch
from torch import nn

from cardiogen import ops
from cardiogen.data.grid import Grid
from cardiogen.transforms import (
    FFD,
    SVF,
    SVFFD,
    Affine,
    Composition,
    Displacement,
    Rigid,
    TemporalSVF,
)

KINDS = ["rigid", "affine", "displacement", "ffd", "svf", "svffd", "composition",
         "displacement_2d", "ffd_2d", "svf_2d", "svffd_2d", "phase"]  # fmt: skip
CONTROL = 6.0


def make(kind, grid, smooth, *, batch=2, size=0.4):
    """Return a transform of moderate size with float64 parameters."""
    generator = torch.Generator().manual_seed(5)
    in_plane = kind.endswith("_2d")
    name = kind.removesuffix("_2d")
    linear = torch.randn(batch, 12, generator=generator, dtype=torch.float64)
    if name == "rigid":
        return Rigid(grid, linear[:, :6] * torch.tensor([0.1] * 3 + [2.0] * 3))
    if name == "affine":
        return Affine(grid, linear.view(batch, 3, 4) * torch.tensor([0.05] * 3 + [2.0]))
    if name == "composition":
        return Composition([make("affine", grid, smooth), make("svf", grid, smooth)])
    if name == "phase":
        params = smooth(batch * 4, 3, *grid.shape, size=size / 3).unflatten(0, (batch, 4))
        return TemporalSVF(grid, params).at(0.3)
    control = {"control_spacing": CONTROL} if name in ("ffd", "svffd") else {}
    made = {"displacement": Displacement, "svf": SVF, "ffd": FFD, "svffd": SVFFD}[name]
    shape = made.identity(grid, in_plane=in_plane, **control).params.shape[1:]
    return made(grid, smooth(batch, *shape, size=size), in_plane=in_plane, **control)


def middle_points(grid, count=17):
    """Return world points (1, V, 3) in the middle half of a grid, off its voxels."""
    share = np.random.default_rng(2).uniform(0.3, 0.7, size=(count, 3))
    return torch.from_numpy(grid.to_world(share * (np.array(grid.shape) - 1)))[None]


def voxel_points(grid):
    coords = ops.identity_coords(grid.shape, dtype=torch.float64)
    return ops.transform_points(coords.flatten(2).movedim(1, -1), ops.grid_to_world(grid))


@pytest.fixture(params=KINDS)
def transform(request, grid, smooth):
    return make(request.param, grid, smooth)


def test_points_at_voxels_are_the_displacement(transform, grid):
    moved = transform.points(voxel_points(grid).expand(2, -1, -1))
    voxels = ops.transform_points(moved, ops.world_to_grid(grid)).movedim(-1, 1)
    coords = ops.identity_coords(grid.shape, dtype=torch.float64)
    found = voxels.unflatten(2, grid.shape) - coords
    assert torch.allclose(found, transform.displacement(), atol=1e-9)


def test_any_grid_sees_the_same_map(transform, other_grid):
    moved = transform.points(voxel_points(other_grid).expand(2, -1, -1))
    voxels = ops.transform_points(moved, ops.world_to_grid(other_grid)).movedim(-1, 1)
    coords = ops.identity_coords(other_grid.shape, dtype=torch.float64)
    found = voxels.unflatten(2, other_grid.shape) - coords
    # Two fields of a composition meet between voxels in either order of interpolation.
    assert torch.allclose(found, transform.displacement(other_grid), atol=1e-9)


def test_the_inverse_takes_points_back(transform, grid):
    points = middle_points(grid)
    back = transform.inverse().points(transform.points(points.expand(2, -1, -1)))
    moved = (transform.points(points.expand(2, -1, -1)) - points).norm(dim=-1).mean()
    assert moved > 0.05
    # Exponentials and interpolated inverses are inverse to the error of interpolation.
    linear = isinstance(transform, Affine | Rigid)
    assert (back - points).norm(dim=-1).max() < (1e-10 if linear else 0.15 * moved)
    assert (back - points).norm(dim=-1).mean() < (1e-10 if linear else 0.03 * moved)


def test_the_module_moves_images(transform, grid, smooth):
    image = smooth(1, 2, *grid.shape, seed=9)
    assert torch.equal(transform(image), ops.warp(image, transform.displacement()))


def test_the_jacobian_is_that_of_the_map_in_mm(transform, grid):
    # Per-axis differences of moved points along the grid's own unit axes.
    unit = torch.from_numpy(grid.affine[:3, :3] / grid.spacing)
    moved = transform.points(voxel_points(grid).expand(2, -1, -1)).unflatten(1, grid.shape)
    along = torch.einsum("ij,bdhwj->bidhw", torch.linalg.inv(unit), moved)
    slopes = ops.gradient(along, spacing=grid.spacing)
    found = transform.jacobian()
    # Linear maps are exact up to the border, where one-sided differences are exact too.
    assert torch.allclose(found, slopes.view_as(found), atol=1e-9)
    dets = torch.linalg.det(found.movedim((1, 2), (-2, -1)))
    assert torch.allclose(transform.jacobian_determinant()[:, 0], dets, atol=1e-9)


def test_single_samples_equal_batches(transform):
    if isinstance(transform, Composition):
        parts = [part.with_parameters(part.params[1:]) for part in transform.transforms]
        alone = Composition(parts)
    else:
        alone = transform.with_parameters(transform.params[1:])
    assert torch.allclose(alone.displacement(), transform.displacement()[1:], atol=1e-12)


def test_trainable_has_leaves_and_every_parameter_gets_gradient(transform, grid):
    made = transform.trainable()
    leaves = list(made.parameters())
    assert leaves
    assert not list(transform.parameters())
    assert torch.equal(made.displacement(), transform.displacement())
    weight = torch.linspace(0.5, 1.5, made.displacement().numel()).view_as(made.displacement())
    (made.displacement() * weight).sum().backward()
    assert all(leaf.grad is not None and leaf.grad.abs().max() > 0 for leaf in leaves)
    assert not any(p.requires_grad for p in made.detached().parameters())
    assert not made.detached().displacement().requires_grad


def test_gradients_flow_through_the_inverse(grid, smooth):
    for kind in ("affine", "svf", "svffd", "displacement_2d"):
        made = make(kind, grid, smooth, size=0.2).trainable()
        made.inverse().displacement().square().sum().backward()
        assert made.params.grad.abs().max() > 0


@pytest.mark.parametrize("kind", ["rigid", "affine", "ffd", "svf", "svffd_2d"])
def test_gradcheck(kind, smooth):
    small = Grid.regular((3, 4, 5), (8.0, 3.0, 2.0), (1.0, 2.0, 3.0))
    start = make(kind, small, smooth, batch=1, size=0.3)
    points = middle_points(small, count=3)

    def moved(params):
        made = start.with_parameters(params)
        return made.points(points), made.displacement()[:, :, ::2, ::3, ::2]

    assert torch.autograd.gradcheck(moved, (start.params.requires_grad_(),), atol=1e-6)


def test_identities_move_nothing(grid):
    control = {"control_spacing": CONTROL}
    made = [Affine.identity(grid), Rigid.identity(grid, batch=2), Displacement.identity(grid),
            SVF.identity(grid, in_plane=True), FFD.identity(grid, **control),
            SVFFD.identity(grid, **control, in_plane=True)]  # fmt: skip
    for transform in made:
        assert isinstance(transform.params, nn.Parameter)
        # The affine passes through the world and back.
        assert transform.displacement().abs().max() < 1e-5
        assert transform.displacement().dtype == torch.float32


@pytest.mark.parametrize("kind", ["displacement_2d", "ffd_2d", "svf_2d", "svffd_2d"])
def test_in_plane_motion_stays_in_the_slice_and_slices_do_not_couple(kind, grid, smooth):
    transform = make(kind, grid, smooth)
    field = transform.displacement()
    assert torch.equal(field[:, 0], torch.zeros_like(field[:, 0]))
    params = transform.params.clone()
    params[:, :, 3] += 0.5
    changed = transform.with_parameters(params).displacement()
    different = (changed - field).abs().amax(dim=(0, 1, 3, 4)) > 0
    assert different.tolist() == [k == 3 for k in range(7)]


def test_a_network_output_is_used_as_it_is(grid, smooth):
    source = smooth(1, 3, *grid.shape).requires_grad_()
    SVF(grid, 2 * source).displacement().square().sum().backward()
    assert source.grad.abs().max() > 0


def test_faults_name_what_was_wanted(grid):
    with pytest.raises(ValueError, match=r"params must be floating point of shape \(B, 3, 7"):
        SVF(grid, torch.zeros(1, 3, 7, 11, 12))
    with pytest.raises(ValueError, match="at least one Transform"):
        Composition([])
    with pytest.raises(ValueError, match="center must be three finite numbers"):
        Affine(grid, torch.zeros(1, 3, 4), center=(0.0, 1.0))
    with pytest.raises(ValueError, match="control_spacing must not be below the voxel spacing"):
        FFD.identity(grid, control_spacing=(4.0, 4.0, 4.0))


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_one_slice_is_a_2d_image(kind, smooth):
    flat = Grid.regular((1, 9, 11), (8.0, 1.5, 1.9), (5.0, -20.0, 31.0))
    transform = make(kind, flat, smooth)
    field = transform.displacement()
    assert field.shape == (2, 3, 1, 9, 11)
    finer = flat.resized((1, 17, 21))
    seen = transform.displacement(finer)[..., ::2, ::2] * torch.tensor([1, 0.5, 0.5]).view(
        1, 3, 1, 1, 1
    )
    assert torch.allclose(seen, field, atol=1e-12)
    refined = transform.refined(finer).displacement()
    assert refined.shape == (2, 3, 1, 17, 21)
    assert torch.isfinite(transform.jacobian_determinant()).all()


@pytest.mark.parametrize("kind", ["ffd_2d", "svffd_2d", "svf_2d"])
def test_in_plane_fields_are_the_2d_operators_slice_by_slice(kind, grid, smooth):
    transform = make(kind, grid, smooth)
    field = transform.params[:, :, 2]
    if kind != "svf_2d":
        assert transform.control_spacing == (CONTROL, CONTROL)
        field = ops.expand(
            field, grid.shape[1:], spacing=grid.spacing[1:], control_spacing=(CONTROL, CONTROL)
        )
    if kind != "ffd_2d":
        field = ops.exponentiate(field)
    assert torch.equal(transform.displacement()[:, 1:, 2], field)
