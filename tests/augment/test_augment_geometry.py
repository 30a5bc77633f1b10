"""Geometry in millimeters: rotations are rotations, nothing folds, inverses invert, masks fit."""

import math

import numpy as np
import pytest
import torch

from augment import Affine, Chain, Draw, Flip, Geometry, Lattice, Morph, Params, SliceShift
from augment.geometry import inside
from cardiogen import ops
from cardiogen.data import Grid


def geometry_of(transforms, lattice, seed=0, scale=1.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    params = [t.sample(lattice, generator=generator) for t in transforms]
    params = [p.mapped(lambda t: scale * t.to(dtype)) for p in params]
    maps = [
        lambda inverse, t=t, p=p: t.pull_back(p, lattice, inverse=inverse)
        for t, p in zip(transforms, params, strict=True)
    ]
    return Geometry(maps, lattice)


@pytest.mark.parametrize(("shape", "spacing"), [
    ((96, 160), (1.4, 1.9)), ((160, 96), (2.0, 0.7)), ((10, 96, 160), (10.0, 1.4, 1.4)),
])  # fmt: skip
def test_a_rotation_is_a_rotation_in_mm(shape, spacing):
    lattice = Lattice(shape=shape, spacing=spacing)
    affine = Affine(rotation_deg=30.0, tilt_deg=20.0, scale=1.0, shear=0.0)
    size = 12 if len(shape) == 3 else 6
    matrix = affine.pull_back(Params(free=torch.ones(1, size)), lattice)[0].double()
    steps = torch.tensor(spacing, dtype=torch.float64)
    linear = steps.view(-1, 1) * matrix[:-1, :-1] / steps
    values = torch.linalg.svdvals(linear)
    torch.testing.assert_close(values, torch.ones_like(values), atol=1e-5, rtol=0)
    if len(shape) == 2:
        turned = math.degrees(math.atan2(linear[1, 0], linear[0, 0]))
        assert turned == pytest.approx(30.0, abs=1e-3)


def test_the_center_moves_by_the_shift_alone(kit):
    for ndim in (2, 3):
        lattice = kit.lattice_of(ndim)
        affine = Affine(shift_mm=7.0)
        params = affine.sample(lattice, generator=kit.seeded())
        matrix = affine.pull_back(params, lattice)
        center = torch.tensor([(n - 1) / 2 for n in lattice.shape]).expand(3, 1, -1)
        moved = (ops.transform_points(center, matrix) - center)[:, 0]
        wanted = params.free[:, -ndim:] * 7.0 / torch.tensor(lattice.spacing)
        torch.testing.assert_close(moved, wanted, atol=1e-4, rtol=1e-4)


def test_flips_mirror_exactly_and_undo_themselves(kit):
    lattice = kit.lattice_of(3)
    image = kit.image_of(lattice)
    flip = Flip(axes=(1, 2), probability=1.0)
    params = flip.sample(lattice, generator=kit.seeded())
    torch.testing.assert_close(flip.apply(image, params, lattice), image.flip(3, 4))
    forth, back = (flip.pull_back(params, lattice, inverse=i) for i in (False, True))
    torch.testing.assert_close(forth @ back, torch.eye(4).expand(3, -1, -1))


def test_ten_thousand_morphs_do_not_fold():
    lattice = Lattice(shape=(40, 56), spacing=(2.0, 1.6), batch=500)
    morph, generator = Morph(rms_mm=6.0, control_mm=20.0), torch.Generator().manual_seed(0)
    smallest = math.inf
    for _ in range(20):
        params = morph.sample(lattice, generator=generator)
        # The whole bound, wherever the draw lies within it.
        full = morph.project(params.mapped(lambda t: 1e9 * t), lattice)
        field = morph.pull_back(full, lattice)
        smallest = min(smallest, float(ops.folding_determinants(field).min()))
    assert smallest > 0.1


@pytest.mark.parametrize(("shape", "spacing"), [
    ((9, 10, 11), (3.0, 2.5, 2.0)), ((5, 12, 11), (8.0, 2.0, 2.6)),
])  # fmt: skip
def test_ten_thousand_morphs_of_volumes_do_not_fold(shape, spacing):
    lattice = Lattice(shape=shape, spacing=spacing, batch=500)
    morph, generator = Morph(rms_mm=6.0, control_mm=6.0), torch.Generator().manual_seed(1)
    smallest = math.inf
    for draw in range(10):
        params = morph.sample(lattice, generator=generator)
        full = morph.project(params.mapped(lambda t: 1e9 * t), lattice)
        field = morph.pull_back(full, lattice, inverse=draw % 2 == 1)
        smallest = min(smallest, float(ops.folding_determinants(field).min()))
    assert smallest > 0.05


def test_morphs_map_the_image_onto_itself(kit):
    for ndim in (2, 3):
        lattice = kit.lattice_of(ndim)
        morph = Morph()
        field = morph.pull_back(morph.sample(lattice, generator=kit.seeded()), lattice)
        assert inside(field).all()
        for axis in range(ndim):
            ends = field[:, axis].transpose(1, axis + 1)[:, [0, -1]]
            assert ends.abs().max() < 1e-6


def largest_error(geometry):
    """Return the largest distance of there and back inside, voxels: interior, and border."""
    forth, back = geometry.displacement.float(), geometry.inverse.float()
    found = []
    for first, second in ((forth, back), (back, forth)):
        rest = ops.compose(first, second).norm(dim=1, keepdim=True)
        known = inside(first)
        edge = torch.ones_like(known)
        margins = [min(4, n // 4) for n in forth.shape[2:]]
        edge[(..., *[slice(m, -m) for m in margins])] = False
        found.append([rest[known & ~edge].max(), rest[known & edge].max()])
    return torch.tensor(found).amax(0).tolist()


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((96, 120), (1.4, 1.4)), ((32, 36, 40), (2.0,) * 3), ((10, 80, 88), (8.0, 1.4, 1.4)),
     ((9, 64, 72), (10.0, 1.9, 1.6))],
)  # fmt: skip
def test_the_inverse_undoes_a_morph_also_at_the_border(shape, spacing):
    lattice = Lattice(shape=shape, spacing=spacing, batch=6)
    geometry = geometry_of([Morph()], lattice)
    interior, border = largest_error(geometry)
    assert interior < 0.05
    assert border < 0.05


def test_the_inverse_undoes_a_chain_in_view(kit):
    lattice = Lattice(shape=(96, 120), spacing=(1.4, 1.1), batch=8)
    for order in ([Affine(), Morph()], [Morph(), Affine()]):
        interior, border = largest_error(geometry_of(order, lattice))
        assert interior < 0.08
        assert border < 0.08
    stack = kit.lattice_of(3)
    in_plane = Affine(tilt_deg=0.0, scale=1.0, shear=0.0, shift_mm=0.0)
    interior, border = largest_error(geometry_of([SliceShift(), in_plane], stack))
    assert max(interior, border) < 1e-3


def true_positions(lattice, params, morph, affine, *, finer=3):
    """Return where a morph after an affine reads the image, by a field three times as fine."""
    shape = tuple((n - 1) * finer + 1 for n in lattice.shape)
    fine = Lattice(shape=shape, spacing=tuple(s / finer for s in lattice.spacing),
                   batch=lattice.batch)  # fmt: skip
    velocity = morph.velocity_mm(params[0].free, fine)
    velocity = velocity / torch.tensor(fine.spacing, dtype=torch.float64).view(1, -1, 1, 1)
    field = ops.exponentiate(velocity, steps=10)
    matrix = affine.pull_back(params[1], lattice).double()
    places = ops.identity_coords(lattice.shape, dtype=torch.float64).flatten(2).mT
    places = ops.transform_points(places.expand(lattice.batch, -1, -1), matrix)
    moved = ops.sample(field, (places * finer).mT.contiguous()) / finer
    return places.mT + moved


def test_predictions_on_shifted_slices_come_back(kit):
    """Shifts change from slice to slice: an inverse read between them would be off by voxels."""
    lattice = Lattice(shape=(10, 48, 48), spacing=(8.0, 1.4, 1.4), batch=3)
    affine = Affine(rotation_deg=10.0, tilt_deg=5.0, scale=1.05, shear=0.0, shift_mm=3.0)
    places = torch.stack(torch.meshgrid(
        *(torch.arange(n, dtype=torch.float32) for n in lattice.shape), indexing="ij"
    )).expand(3, -1, -1, -1, -1)  # fmt: skip
    for transforms in ((SliceShift(), affine), (affine, SliceShift())):
        chain = Chain(transforms=transforms, least=2, shuffle=False)
        draw = chain.sample(lattice, generator=kit.seeded(3))
        geometry = draw.apply(torch.rand(3, 1, *lattice.shape)).geometry
        assert float(geometry.displacement[:, 1:].abs().amax()) > 3
        seen = geometry.back(geometry.image(places), exclusive=False)
        # Places are linear in themselves, so that only positions can be wrong; away from borders.
        inner = (slice(None), slice(None), slice(2, -2), slice(12, -12), slice(12, -12))
        assert (seen - places)[inner].abs().amax() < 0.05


def test_the_mask_is_what_is_in_view():
    lattice = Lattice(shape=(160, 184), spacing=(1.4, 1.1), batch=2)
    morph, affine = Morph(), Affine(rotation_deg=40.0, shift_mm=30.0)
    generator = torch.Generator().manual_seed(2)
    params = [t.sample(lattice, generator=generator).mapped(torch.Tensor.double)
              for t in (morph, affine)]  # fmt: skip
    truth = true_positions(lattice, params, morph, affine)
    sizes = torch.tensor(lattice.shape, dtype=torch.float64).view(1, -1, 1)
    wanted = ((truth >= 0) & (truth <= sizes - 1)).all(dim=1)
    # Acting on the image first, the morph is what the affine's positions are read from.
    draw = Draw((morph, affine), tuple(p.mapped(torch.Tensor.float) for p in params), lattice)
    applied = draw.apply(torch.zeros(2, 1, *lattice.shape))
    found = applied.geometry.in_view.flatten(1)
    union, both = (found | wanted).sum(), (found & wanted).sum()
    assert both / union >= 0.999
    assert 0.5 < wanted.double().mean() < 0.95
    image = torch.zeros(2, 1, *lattice.shape)
    assert torch.equal(applied.geometry.in_view, draw.apply(image - 1).geometry.in_view)


def waves(coords):
    """Return a smooth function of positions ``(B, 2, ...)`` in voxels."""
    return torch.sin(coords[:, :1] / 3.1) * torch.cos(coords[:, 1:] / 2.7)


def test_a_chain_of_four_costs_one_resample(monkeypatch):
    lattice = Lattice(shape=(96, 112), spacing=(1.4, 1.1), batch=4)
    transforms = [Affine(), Morph(), Affine(), Morph()]
    geometry = geometry_of(transforms, lattice, scale=0.6, dtype=torch.float32)
    image = waves(ops.identity_coords(lattice.shape)).expand(4, -1, -1, -1).contiguous()
    single = geometry_of([Affine()], lattice, scale=0.6, dtype=torch.float32)
    calls = []
    warp = ops.warp
    monkeypatch.setattr("augment.geometry.warp", lambda *a, **k: calls.append(1) or warp(*a, **k))

    def error(one):
        truth = waves(ops.displaced_coords(one.displacement))
        rest = (one.image(image) - truth)[one.in_view]
        return rest.square().mean().sqrt()

    assert error(geometry) <= 1.05 * error(single)
    assert len(calls) == 2


@pytest.mark.parametrize("transforms", [[Affine()], [Affine(), Morph()], [Morph(), SliceShift()]])
def test_points_move_with_the_image(oblique_grid, transforms):
    lattice = Lattice(shape=oblique_grid.shape, spacing=oblique_grid.spacing, batch=2)
    small = [Affine(rotation_deg=10.0, tilt_deg=2.0, shift_mm=3.0) if isinstance(t, Affine) else
             Morph(rms_mm=1.0) if isinstance(t, Morph) else SliceShift(shift_mm=2.0)
             for t in transforms]  # fmt: skip
    geometry = geometry_of(small, lattice, dtype=torch.float32)
    # World positions as an image: where a point lands, the moved image shows where it came from.
    places = ops.identity_coords(lattice.shape).flatten(2).mT.double()
    world = ops.transform_points(places, ops.grid_to_world(oblique_grid))
    image = world.mT.view(1, 3, *lattice.shape).expand(2, -1, -1, -1, -1).contiguous().float()
    points = world[:, torch.randperm(910, generator=torch.Generator().manual_seed(0))[:200]]
    voxels = ops.transform_points(points, ops.world_to_grid(oblique_grid))
    middle = ((voxels >= 2) & (voxels <= torch.tensor(lattice.shape) - 3)).all(2)[0]
    points = points[:, middle].expand(2, -1, -1)
    moved = geometry.points(points, oblique_grid)
    shown = ops.sample_at_points(geometry.image(image), moved.float(), oblique_grid)
    assert (shown - points).norm(dim=2).max() < 0.25 * min(oblique_grid.spacing)


def test_meshes_agree_with_labels():
    grid = Grid.regular((20, 60, 64), (4.0, 1.4, 1.4), (0.0, 0.0, 0.0))
    lattice = Lattice(shape=grid.shape, spacing=grid.spacing, batch=3)
    center, radii = np.array([38.0, 41.3, 44.1]), np.array([26.0, 20.0, 22.0])
    voxels = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    level = np.linalg.norm((grid.to_world(voxels) - center) / radii, axis=-1)
    distance = torch.from_numpy((level - 1) * radii.min()).float().expand(3, 1, -1, -1, -1)
    directions = np.random.default_rng(0).normal(size=(500, 3))
    sphere = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    vertices = torch.from_numpy(center + radii * sphere).expand(3, -1, -1)
    geometry = geometry_of([Affine(tilt_deg=3.0), Morph()], lattice, 3, dtype=torch.float32)
    moved = geometry.points(vertices, grid)
    where = ops.transform_points(moved, ops.world_to_grid(grid))
    seen = ((where > 1) & (where < torch.tensor(grid.shape) - 2)).all(dim=2)
    assert seen.double().mean() > 0.7
    # The moved labels' border is where the moved distance is 0: half a voxel at most away.
    rest = ops.sample_at_points(geometry.image(distance.contiguous()), moved.float(), grid)
    assert rest[..., 0][seen].abs().max() < 0.5 * min(grid.spacing)
    hot = torch.cat([(distance > 0).float(), (distance <= 0).float()], dim=1)
    labels = geometry.labels(hot)[:, 1:]
    inner, outer = (
        ops.sample_at_points(labels, (c * (moved - moved.mean(1, keepdim=True)) +
                                      moved.mean(1, keepdim=True)).float(), grid)[..., 0]
        for c in (0.8, 1.2)
    )  # fmt: skip
    assert (inner[seen] > 0.5).double().mean() > 0.98
    assert (outer[seen] < 0.5).double().mean() > 0.98


def test_affine_geometry_moves_points_outside_the_image_too(kit):
    grid = Grid.regular((7, 30, 25), (8.0, 1.4, 1.9), (3.0, 4.0, 5.0))
    lattice = kit.lattice_of(3, batch=1)
    geometry = geometry_of([Affine(), Flip(probability=1.0)], lattice)
    far = torch.tensor([[[500.0, -300.0, 80.0]]], dtype=torch.float64)
    world = ops.grid_to_world(grid) @ geometry.pull_back[0] @ ops.world_to_grid(grid)
    back = ops.transform_points(geometry.points(far, grid), world)
    torch.testing.assert_close(back, far)


def test_chains_of_geometry_without_any_leave_everything(kit):
    lattice = kit.lattice_of(2)
    chain = Chain(transforms=(Affine(),), least=0, most=0)
    draw = chain.sample(lattice, generator=kit.seeded())
    image = kit.image_of(lattice)
    applied = draw.apply(image)
    assert applied.image is image
    assert applied.valid.all()
    assert applied.valid_back.all()
