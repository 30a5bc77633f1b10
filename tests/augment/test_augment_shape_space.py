"""Hearts of a model's prior: modes move vertices as the decoder does, images with their labels."""

import numpy as np
import pytest
import torch

from augment import (
    Adversary,
    Ascent,
    Chain,
    GaussianNoise,
    Lattice,
    ShapeModes,
    ShapeSpace,
    voxel_to_heart,
)
from cardiogen import ops
from cardiogen.base import CardiogenError
from cardiogen.data import Grid
from cardiogen.population.heart import sample_heart
from cardiogen.population.render import render_labels, short_axis_grid
from cardiogen.population.template import template_topology


def sphere(count=600, radius=25.0):
    index = np.arange(count) + 0.5
    polar, turn = np.arccos(1 - 2 * index / count), np.pi * (1 + 5**0.5) * index
    return radius * np.stack(
        [np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], axis=1
    )


BALL = sphere()


def decode(latent):
    """Return a ball that grows with the first latent, and is longer with the second."""
    grow, stretch = float(latent[0]), float(latent[1])
    return BALL * np.exp([0.05 * grow, 0.05 * grow, 0.05 * grow + 0.03 * stretch])


@pytest.fixture(scope="module")
def modes():
    return ShapeModes.from_decoder(
        decode, torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    )


def stack_of(grid, batch=2):
    """Return the lattice of a stack whose voxels lie on the heart as the grid says."""
    to_heart = torch.tensor(grid.affine).expand(batch, -1, -1)
    return Lattice(shape=grid.shape, spacing=grid.spacing, batch=batch, to_heart=to_heart)


@pytest.fixture
def grid():
    half = np.array([14 * 5.0, 24 * 2.0, 26 * 2.0]) / 2
    axes = np.eye(3)[:, ::-1]
    return Grid.regular((15, 25, 27), (5.0, 4.0, 4.0), (axes @ (-half * [1, 2, 2])), axes)


def test_modes_are_directions_of_the_latents_that_move_anything(modes):
    assert len(modes.fields) == 2
    torch.testing.assert_close(modes.directions[:, 2].abs(), torch.zeros(2, dtype=torch.float64))
    product = modes.directions @ modes.directions.T
    torch.testing.assert_close(product, torch.eye(2, dtype=torch.float64))
    one = modes.latents(torch.tensor([[2.0, 0.0]]))
    assert one.norm() == pytest.approx(2.0)


def test_vertices_move_as_the_decoder_moves_them(modes, grid):
    lattice = stack_of(grid, batch=4)
    space = ShapeSpace(modes=modes, sds=2.0)
    params = space.sample(lattice, generator=torch.Generator().manual_seed(0))
    outward = space.pull_back(params, lattice, inverse=True)
    start = torch.from_numpy(BALL).expand(4, -1, -1)
    moved = ops.warp_points(start, outward, grid)
    for found, latent in zip(moved, space.latents(params), strict=True):
        wanted = torch.from_numpy(decode(latent))
        size = (wanted - start[0]).norm(dim=1).mean()
        assert (found - wanted).norm(dim=1).mean() < max(0.15 * size, 0.1)


def test_the_latent_stays_within_its_standard_deviations(modes, grid):
    lattice = stack_of(grid, batch=32)
    space = ShapeSpace(modes=modes, sds=1.5)
    params = space.sample(lattice, generator=torch.Generator().manual_seed(0))
    for p in (params, space.project(params.mapped(lambda t: 50 * t), lattice)):
        assert (space.latents(p).norm(dim=1) <= 1.5 + 1e-4).all()
        for inverse in (False, True):
            field = space.pull_back(p, lattice, inverse=inverse)
            assert ops.folding_determinants(field).min() > 0


def test_a_slice_moves_as_it_does_in_its_stack(modes, grid):
    lattice = stack_of(grid)
    space = ShapeSpace(modes=modes, calm_mm=0.0)
    params = space.sample(lattice, generator=torch.Generator().manual_seed(1))
    whole = space.velocity(params.free, lattice)
    shift = torch.eye(4, dtype=torch.float64)
    shift[0, 3] = 4.0
    plane = Lattice(shape=grid.shape[1:], spacing=grid.spacing[1:], batch=2,
                    to_heart=lattice.to_heart @ shift)  # fmt: skip
    flat = space.velocity(params.free, plane)
    inner = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(flat[inner], whole[:, 1:, 4][inner], atol=1e-5, rtol=1e-5)


def test_images_without_a_heart_are_left_alone(modes, grid):
    lattice = stack_of(grid)
    lost = lattice.to_heart.clone()
    lost[1] = float("nan")
    lattice = Lattice(shape=grid.shape, spacing=grid.spacing, batch=2, to_heart=lost)
    space = ShapeSpace(modes=modes)
    image = torch.rand(2, 1, *grid.shape, generator=torch.Generator().manual_seed(0))
    params = space.sample(lattice, generator=torch.Generator().manual_seed(1))
    moved = space.apply(image, params, lattice)
    assert torch.equal(moved[1], image[1])
    assert not torch.equal(moved[0], image[0])


def test_an_adversary_searches_the_latents(modes, grid):
    lattice = stack_of(grid, batch=4)
    places = torch.from_numpy(grid.to_world(np.argwhere(np.ones(grid.shape)))).float()
    radius = places.norm(dim=1).view(1, 1, *grid.shape).expand(4, -1, -1, -1, -1)
    image = torch.sigmoid(25.0 - radius)
    seen = []

    def network(x):
        """A network that knows the mean heart and takes whatever it sees for it."""
        seen.append(len(x))
        inside = 6 * (2 * torch.sigmoid(25.0 - radius) - 1) + 0.5 * x
        return torch.cat([-inside, inside], dim=1)

    chain = Chain(transforms=(ShapeSpace(modes=modes), GaussianNoise()), least=2)
    one = Adversary(
        chain=chain, generator=torch.Generator().manual_seed(0), ascent=Ascent(steps=3, step=0.5)
    )
    result = one.consistency_loss(network, image, spacing=grid.spacing, to_heart=lattice.to_heart)
    assert result.report()["rise"] > 1
    number = [t.name for t in result.last.draw.transforms].index("ShapeSpace")
    found = result.last.draw.params[number]
    assert (chain.transforms[0].latents(found).norm(dim=1) <= 2 + 1e-4).all()
    # One field for image and labels: what is inside in one is inside in the other.
    inside = (image > 0.5).float()
    hot = torch.cat([1 - inside, inside], dim=1)
    applied = result.last.draw.apply(image)
    labels = applied.labels(hot)[:, 1:]
    clean = torch.sigmoid(25.0 - applied.geometry.image(radius))
    assert ((labels > 0.5) != (clean > 0.5)).double().mean() < 0.02


def in_world(points, mirrored):
    """Return world points, or their mirror image: what a header that lies would say."""
    return points * np.array([-1.0, 1.0, 1.0]) if mirrored else points


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_heart_is_found_from_labels(mirrored):
    away = []
    for index in range(6):
        heart = sample_heart(1, index)
        vertices = heart.vertices([0.0])[0]
        grid = short_axis_grid(vertices, heart.pose, (8.0, 2.0, 2.0))
        labels = render_labels(vertices, template_topology(), grid)
        voxels = np.argwhere(labels > 0)
        wanted = heart.pose.to_heart(grid.to_world(voxels))
        flip = np.diag([-1.0 if mirrored else 1.0, 1.0, 1.0, 1.0])
        shown = Grid(grid.shape, flip @ grid.affine)
        np.testing.assert_allclose(
            shown.to_world(voxels), in_world(grid.to_world(voxels), mirrored), atol=1e-9
        )
        matrix = voxel_to_heart(labels, shown, mirrored=mirrored)
        found = voxels @ matrix[:3, :3].T + matrix[:3, 3]
        away.append(np.linalg.norm(found - wanted, axis=1).mean())
    # What hearts differ by from the template's mean septum, and the cavity's center from its base.
    assert np.mean(away) < 3.5
    assert np.max(away) < 6.0
    with pytest.raises(ValueError, match="must hold a right ventricle"):
        voxel_to_heart(np.where(labels == 3, 0, labels), grid)
    with pytest.raises(CardiogenError, match="L6"):
        voxel_to_heart(np.where(labels == 3, 3, 0).astype(np.uint8), grid)


def test_a_lattice_that_does_not_say_where_the_heart_is_is_refused(modes, grid):
    space = ShapeSpace(modes=modes)
    lattice = Lattice(shape=grid.shape, spacing=grid.spacing)
    with pytest.raises(ValueError, match="to_heart must say where the heart lies"):
        space.sample(lattice, generator=torch.Generator())
    with pytest.raises(ValueError, match="to_heart must have shape \\(B=2, 4, 4\\)"):
        Lattice(shape=grid.shape, spacing=grid.spacing, batch=2, to_heart=torch.eye(4)[None])
    with pytest.raises(ValueError, match="sds must be a finite number"):
        ShapeSpace(modes=modes, sds=-1.0)
