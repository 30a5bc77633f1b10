"""What holds for every registration: batches, threads, starts, labels, masks, bad input."""

import pytest
import torch

from cardiogen import ops
from cardiogen.base import CardiogenError
from cardiogen.transforms import SVF, Affine, Composition
from registration import load_preset, register, register_pairs


def labels_of(image):
    return (image > 0.35).long() + (image > 0.6).long() + (image > 0.8).long()


def test_equal_images_stay_where_they_are(grid, make_image, make_config):
    image = make_image(grid)
    for kind in ("svf", "displacement"):
        result = register(image, image, grid, config=make_config(transform=kind))
        assert result.displacement.abs().max() < 1e-6
    for preset in ("fast", "accurate"):
        assert register(image, image, grid, preset=preset).displacement.abs().max() < 1e-5


@pytest.mark.parametrize("solver", ["gauss_newton", "adam", "lbfgs"])
def test_a_pair_does_not_depend_on_its_batch(grid, make_image, make_config, solver):
    images = torch.cat([make_image(grid, seed=k) for k in range(4)])
    fixed, moving = images[:2], images[2:]
    config = make_config(solver=solver, iterations=(3, 2))
    both = register(fixed, moving, grid, config=config)
    assert len(both) == 2
    for k in range(2):
        alone = register(fixed[k : k + 1], moving[k : k + 1], grid, config=config)
        assert torch.equal(both.displacement[k], alone.displacement[0])
        rows = both.energies[both.energies["pair"] == k]
        assert rows["energy"].tolist() == alone.energies["energy"].tolist()


@pytest.mark.parametrize("solver", ["gauss_newton", "adam", "lbfgs"])
def test_solvers_keep_pairs_of_a_batch_apart(grid, make_image, make_config, solver):
    """On a GPU pairs are solved together: the solvers themselves must not mix them."""
    from registration.problem import Problem
    from registration.solvers import SOLVERS

    images = torch.cat([make_image(grid, seed=k) for k in range(4)])
    stage = make_config(solver=solver, iterations=(4,)).stages[0]
    terms = stage.weighted_terms()
    solve = SOLVERS[solver]

    def found(rows):
        problem = Problem(grid=grid, fixed=images[:2][rows], moving=images[2:][rows])
        start = SVF.identity(grid, batch=problem.batch).detached()
        return solve(problem, start, terms, stage=stage, iterations=4)[0].params

    both = found([0, 1])
    for k in range(2):
        torch.testing.assert_close(both[k : k + 1], found([k]), atol=2e-3, rtol=0)


def test_threads_do_not_change_the_result(pair, grid, make_config):
    fixed, moving, _ = pair
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(register(fixed, moving, grid, config=make_config()).displacement)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found[0], found[1], atol=1e-3, rtol=0)
    again = register(fixed, moving, grid, config=make_config()).displacement
    assert torch.equal(again, register(fixed, moving, grid, config=make_config()).displacement)


def test_a_single_slice_moves_in_its_plane(make_grid, make_image, make_velocity, make_config):
    grid = make_grid(shape=(1, 41, 45), spacing=(8.0, 1.5, 1.5))
    moving = make_image(grid, width_mm=6.0)
    truth = SVF(grid, make_velocity(grid)).displacement()
    fixed = ops.warp(moving, truth)
    for in_plane in (True, False):
        result = register(fixed, moving, grid, config=make_config(in_plane=in_plane))
        moved = result.moved(moving)
        assert (moved - fixed).square().mean() < 0.1 * (moving - fixed).square().mean()
        assert result.folds == (0.0,)
    assert register(fixed, moving, grid, preset="fast").folds == (0.0,)


def test_affine_then_velocity_finds_both(grid, make_image, make_velocity, make_config):
    moving = make_image(grid, width_mm=8.0)
    params = torch.zeros(1, 3, 4)
    params[0, :, 3] = torch.tensor([3.0, -2.0, 1.0])
    truth = Composition([SVF(grid, make_velocity(grid, 2.0)), Affine(grid, params)])
    fixed = ops.warp(moving, truth.displacement())
    first = make_config(solver="lbfgs", transform="affine", terms={"a": "mse"}).stages[0]
    second = make_config(iterations=(8, 8)).stages[0]
    config = make_config().model_copy(update={"stages": (first, second)})
    result = register(fixed, moving, grid, config=config)
    assert isinstance(result.transform, Composition)
    assert set(result.energies["stage"]) == {1, 2}
    moved = ops.warp(moving, result.displacement)
    assert (moved - fixed).square().mean() < 0.1 * (moving - fixed).square().mean()


def test_starts_are_refined_or_followed(pair, grid, make_config):
    fixed, moving, _ = pair
    config = make_config(iterations=(8, 8))
    cold = register(fixed, moving, grid, config=config)
    warm = register(fixed, moving, grid, config=make_config(iterations=(1,)),
                    initial=cold.transform)  # fmt: skip
    assert isinstance(warm.transform, SVF)
    assert warm.energies["energy"].iloc[0] < 0.2 * cold.energies["energy"].iloc[0]
    params = torch.zeros(1, 3, 4)
    params[0, :, 3] = 0.5
    after = register(fixed, moving, grid, config=config, initial=Affine(grid, params))
    assert isinstance(after.transform, Composition)
    batch = register(fixed.repeat(2, 1, 1, 1, 1), moving.repeat(2, 1, 1, 1, 1), grid,
                     config=make_config(iterations=(1,)), initial=cold.transform)  # fmt: skip
    assert torch.equal(batch.displacement[0], batch.displacement[1])


def test_labels_alone_can_be_registered(pair, grid):
    _, moving, truth = pair
    fixed_labels = ops.argmax_labels(ops.warp_labels(labels_of(moving), truth, classes=4))
    result = register(None, None, grid, preset="labels", fixed_labels=fixed_labels,
                      moving_labels=labels_of(moving))  # fmt: skip
    before = register(None, None, grid, preset="labels", fixed_labels=fixed_labels,
                      moving_labels=fixed_labels).metrics[0]  # fmt: skip
    assert before.mean_dice > 0.99
    assert result.metrics[0].mean_dice > 0.9
    assert result.folds == (0.0,)


def test_labels_are_scored_and_do_not_enter_the_fit(pair, grid, make_config):
    fixed, moving, truth = pair
    labels = labels_of(moving)
    fixed_labels = ops.argmax_labels(ops.warp_labels(labels, truth, classes=4))
    bare = register(fixed, moving, grid, config=make_config())
    scored = register(fixed, moving, grid, config=make_config(), fixed_labels=fixed_labels,
                      moving_labels=labels)  # fmt: skip
    assert torch.equal(bare.displacement, scored.displacement)
    assert scored.metrics[0].mean_dice > 0.85
    assert bare.metrics[0].structures == {}


def test_what_lies_outside_the_mask_does_not_pull(pair, grid, make_config):
    fixed, moving, _ = pair
    mask = torch.ones(1, 1, *grid.shape)
    mask[..., 20:] = 0
    broken = fixed.clone()
    broken[..., 22:] = torch.rand(
        broken[..., 22:].shape, generator=torch.Generator().manual_seed(0)
    )
    config = make_config(symmetric=False, iterations=(6,))
    results = [register(x, moving, grid, config=config, mask=mask) for x in (fixed, broken)]
    torch.testing.assert_close(results[0].displacement, results[1].displacement, atol=1e-4, rtol=0)


@pytest.mark.parametrize("term", ["ncc", "lncc", "mind"])
def test_gauss_newton_minimizes_other_terms(pair, grid, make_config, term):
    fixed, moving, _ = pair
    brighter = 0.4 * fixed + 0.3
    config = make_config(terms={"a": term, "b": ("diffusion", 0.02)}, iterations=(8, 8))
    found = register(brighter, moving, grid, config=config).displacement
    assert (ops.warp(moving, found) - fixed).square().mean() < 0.5 * (
        moving - fixed
    ).square().mean()


def test_pairs_on_grids_of_their_own(make_grid, make_image, make_config):
    grids = [make_grid(), make_grid(shape=(5, 29, 31))]
    images = [[make_image(g, seed=s) for g in grids] for s in (0, 1)]
    results = register_pairs(*images, grids, config=make_config(iterations=(2,)))
    assert [r.grid.shape for r in results] == [g.shape for g in grids]
    with pytest.raises(ValueError, match="one length"):
        register_pairs(images[0], images[1][:1], grids)


def test_bad_input_is_named(pair, grid, make_config):
    fixed, moving, _ = pair
    holed = fixed.clone()
    holed[0, 0, 0, 0, 0] = float("nan")
    with pytest.raises(CardiogenError, match="CG-N26 fixed image"):
        register(holed, moving, grid)
    with pytest.raises(ValueError, match="moving must be"):
        register(fixed, moving[..., 1:], grid)
    with pytest.raises(ValueError, match="fixed must be given"):
        register(None, None, grid, fixed_labels=labels_of(fixed))
    with pytest.raises(CardiogenError, match="CG-L37"):
        register(fixed, moving, grid, preset="labels")
    with pytest.raises(CardiogenError, match="CG-L37 fixed_labels: found an empty"):
        register(None, None, grid, preset="labels", fixed_labels=torch.zeros(fixed.shape).long(),
                 moving_labels=labels_of(moving))  # fmt: skip
    with pytest.raises(ValueError, match="mask must be"):
        register(fixed, moving, grid, mask=torch.ones(1, 1, 2, 2, 2))
    with pytest.raises(ValueError, match="not both"):
        register(fixed, moving, grid, preset="fast", config=load_preset("fast"))
    with pytest.raises(CardiogenError, match=r"CG-U14 .*fast, accurate"):
        register(fixed, moving, grid, preset="fastest")
