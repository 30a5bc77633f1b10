"""Meshes: areas, normals and volumes in closed form; voxels inside against winding numbers."""

import math

import numpy as np
import pytest
import torch
import trimesh

from cardiogen.data.grid import Grid
from cardiogen.ops import face_normals, mesh_edges, mesh_volume_ml, vertex_normals, voxelize


def ellipsoid(radii=(20.0, 27.0, 34.0), center=(3.0, -8.0, 12.0), *, level=4):
    ball = trimesh.creation.icosphere(subdivisions=level)
    vertices = torch.from_numpy(ball.vertices * radii + np.array(center))
    return vertices, torch.from_numpy(np.array(ball.faces))


def oblique_around(center, shape, spacing, seed=3):
    axes, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    corner = np.array(center) - axes @ (np.array(spacing) * (np.array(shape) - 1) / 2)
    return Grid.regular(shape, spacing, corner, axes)


def winding_number(vertices, faces, points):
    """Solid angle over 4 pi (van Oosterom and Strackee, IEEE Trans. Biomed. Eng. 1983)."""
    a, b, c = (vertices[faces[:, k]][None] - points[:, None] for k in range(3))
    la, lb, lc = (np.linalg.norm(v, axis=-1) for v in (a, b, c))
    triple = np.einsum("pfi,pfi->pf", a, np.cross(b, c))
    down = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
    return np.arctan2(triple, down).sum(1) / (2 * math.pi)


def centers(grid):
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    return grid.to_world(index).reshape(-1, 3)


def test_volume_and_normals_of_an_ellipsoid():
    vertices, faces = ellipsoid(level=5)
    volume = mesh_volume_ml(vertices.unsqueeze(0), faces).item()
    assert volume == pytest.approx(4 / 3 * math.pi * 20 * 27 * 34 / 1000, rel=2e-3)
    assert mesh_volume_ml(vertices.unsqueeze(0), faces.flip(1)).item() == pytest.approx(-volume)
    far = mesh_volume_ml(vertices.unsqueeze(0) + 1e5, faces).item()
    assert far == pytest.approx(volume, rel=1e-8)
    normals = vertex_normals(vertices.unsqueeze(0), faces)[0]
    radii = torch.tensor([20.0, 27.0, 34.0]).double()
    analytic = torch.nn.functional.normalize(
        (vertices - torch.tensor([3.0, -8, 12])) / radii**2, dim=1
    )
    assert (normals * analytic).sum(1).min() > 0.9995


def test_box_has_exact_volume_area_and_edges():
    mesh = trimesh.creation.box(extents=(2.0, 3.0, 5.0))
    vertices = torch.from_numpy(mesh.vertices).unsqueeze(0)
    faces = torch.from_numpy(np.array(mesh.faces))
    assert mesh_volume_ml(vertices, faces).item() == pytest.approx(0.030)
    areas = face_normals(vertices, faces).norm(dim=-1)
    assert areas.sum().item() == pytest.approx(2 * (6 + 10 + 15))
    edges = mesh_edges(faces)
    assert edges.shape == (18, 2)
    assert (edges[:, 0] < edges[:, 1]).all()


def test_volume_derivative_is_the_area_normal():
    vertices, faces = ellipsoid(level=1)
    vertices = vertices.unsqueeze(0).requires_grad_()
    (slope,) = torch.autograd.grad(mesh_volume_ml(vertices, faces).sum(), vertices)
    # dV/dx of a vertex is a third of the area vectors around it.
    wanted = torch.zeros_like(slope)
    for corner in range(3):
        wanted.index_add_(1, faces[:, corner], face_normals(vertices, faces).detach() / 3)
    torch.testing.assert_close(slope * 1000, wanted)
    assert torch.autograd.gradcheck(lambda v: vertex_normals(v, faces), vertices, fast_mode=True)


def test_ellipsoid_membership_is_analytic_away_from_the_surface():
    vertices, faces = ellipsoid()
    grid = oblique_around((3.0, -8.0, 12.0), (17, 50, 47), (5.0, 1.6, 1.9))
    inside = voxelize(vertices, faces, grid)
    assert inside.shape == grid.shape
    assert inside.dtype == torch.bool
    radius = np.linalg.norm((centers(grid) - [3, -8, 12]) / [20, 27, 34], axis=1)
    found = inside.numpy().ravel()
    assert found[radius < 0.995].all()
    assert not found[radius > 1].any()


def test_voxel_volume_converges_to_the_mesh_volume():
    vertices, faces = ellipsoid(level=5)
    wanted = mesh_volume_ml(vertices.unsqueeze(0), faces).item()
    errors = []
    for spacing in (4.0, 2.0, 1.0):
        shape = tuple(int(90 / spacing) for _ in range(3))
        grid = oblique_around((3.0, -8.0, 12.0), shape, (spacing,) * 3)
        volume = voxelize(vertices, faces, grid).sum().item() * grid.voxel_volume_ml
        errors.append(abs(volume / wanted - 1))
    assert errors[-1] < 5e-4
    assert max(errors) < 1e-2


@pytest.mark.parametrize("kind", ["dented", "torus", "two"])
def test_membership_is_that_of_the_winding_number(kind):
    if kind == "torus":
        mesh = trimesh.creation.torus(9.0, 4.0, major_sections=21, minor_sections=11)
        vertices, faces = mesh.vertices, np.array(mesh.faces)
    else:
        mesh = trimesh.creation.icosphere(subdivisions=2)
        bumps = 1 + 0.35 * np.random.default_rng(0).uniform(-1, 1, (len(mesh.vertices), 1))
        vertices, faces = 11 * mesh.vertices * bumps, np.array(mesh.faces)
    if kind == "two":
        vertices = np.concatenate([vertices, vertices * 0.3 + [1, 2, 0]])
        faces = np.concatenate([faces, faces[:, ::-1] + len(mesh.vertices)])
    grid = oblique_around((0.3, 0.1, -0.2), (9, 14, 17), (3.1, 1.9, 1.7))
    wanted = winding_number(vertices, faces, centers(grid)) > 0.5
    found = voxelize(torch.from_numpy(vertices), torch.from_numpy(faces.copy()), grid)
    np.testing.assert_array_equal(found.numpy().ravel(), wanted)
    assert 20 < wanted.sum() < wanted.size - 20


def test_faces_through_voxel_centers_are_half_open():
    """A box from 1 to 4 on integer centers holds 1, 2, 3 and not 4, on every axis: no leaks."""
    mesh = trimesh.creation.box(bounds=[[1, 1, 1], [4, 4, 4]])
    grid = Grid.regular((6, 7, 8), (1.0, 1.0, 1.0))
    found = voxelize(torch.from_numpy(mesh.vertices), torch.from_numpy(np.array(mesh.faces)), grid)
    wanted = torch.zeros(6, 7, 8, dtype=torch.bool)
    wanted[1:4, 1:4, 1:4] = True
    assert torch.equal(found, wanted)


def test_vertices_on_centers_do_not_leak():
    """Integer vertices put corners and edges exactly on the rays."""
    mesh = trimesh.creation.icosphere(subdivisions=2)
    vertices = np.round(mesh.vertices * 6) + 8.0
    faces = np.array(mesh.faces)
    grid = Grid.regular((17, 19, 18), (1.0, 1.0, 1.0))
    found = voxelize(torch.from_numpy(vertices), torch.from_numpy(faces), grid).numpy().ravel()
    # Half-open cuts are the same as moving all centers up a little, by far the least along d.
    moved = centers(grid) + np.array([1e-9, 1e-6, 1e-3])
    np.testing.assert_array_equal(found, winding_number(vertices, faces, moved) > 0.5)


def test_vertices_that_are_stored_twice_do_not_leak():
    vertices, faces = ellipsoid(level=3)
    grid = oblique_around((3.0, -8.0, 12.0), (13, 30, 27), (6.0, 2.6, 2.9))
    soup = vertices[faces].reshape(-1, 3)
    apart = torch.arange(len(soup)).view(-1, 3)
    found = voxelize(soup, apart, grid)
    assert torch.equal(found, voxelize(vertices, faces, grid))
    assert torch.equal(found, voxelize(vertices, faces.flip(1), grid))
    shuffled = faces[torch.randperm(len(faces), generator=torch.Generator().manual_seed(0))]
    assert torch.equal(found, voxelize(vertices, shuffled, grid))


def test_a_crop_of_the_grid_gives_a_crop_of_the_mask():
    vertices, faces = ellipsoid(level=3)
    grid = oblique_around((3.0, -8.0, 12.0), (13, 30, 27), (6.0, 2.6, 2.9))
    whole = voxelize(vertices, faces, grid)
    start, shape = (4, 9, 11), (3, 8, 6)
    part = voxelize(vertices, faces, grid.cropped(start, shape))
    cut = tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))
    assert torch.equal(part, whole[cut])
    beyond = voxelize(vertices + 1e4, faces, grid)
    assert not beyond.any()
    assert not voxelize(vertices, faces[:0], grid).any()


def test_any_number_of_threads_gives_the_same_bits():
    vertices, faces = ellipsoid()
    grid = oblique_around((3.0, -8.0, 12.0), (17, 50, 47), (5.0, 1.6, 1.9))
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(voxelize(vertices, faces, grid))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_errors_name_argument_wanted_and_got():
    vertices, faces = ellipsoid(level=2)
    grid = oblique_around((3.0, -8.0, 12.0), (17, 50, 47), (5.0, 1.6, 1.9))
    with pytest.raises(ValueError, match="faces must bound a closed surface, got one with a hole"):
        voxelize(vertices, faces[40:], grid)
    with pytest.raises(ValueError, match="vertices must be finite"):
        voxelize(vertices / torch.tensor([1.0, 1.0, 0.0]), faces, grid)
    with pytest.raises(ValueError, match=r"faces must index vertices 0 to 9, got 0 to"):
        voxelize(vertices[:10], faces, grid)
    with pytest.raises(ValueError, match=r"vertices must have shape \(V, 3\)"):
        voxelize(vertices.unsqueeze(0), faces, grid)
    with pytest.raises(ValueError, match=r"faces must have shape \(F, 3\)"):
        mesh_edges(faces[:, :2])
