"""compose, exponentiate and invert obey the laws of a (local) group of diffeomorphisms."""

from itertools import pairwise

import pytest
import torch

from cardiogen.ops import (
    affine_exp,
    affine_log,
    automatic_steps,
    compose,
    exponentiate,
    folding,
    gaussian,
    invert,
    use_backend,
    voxel_affine_to_displacement,
)

SHAPE = (6, 9, 14)


def smooth_field(shape, *, amplitude, sigma=2.0, seed=0, batch=1):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch, len(shape), *shape, generator=generator, dtype=torch.float64)
    field = gaussian(noise, tuple(sigma if n > 1 else 0.0 for n in shape))
    return amplitude * field / torch.linalg.vector_norm(field, dim=1).max()


def linear_velocity(shape, generator):
    """v(x) = G (x - center), which linear interpolation reproduces."""
    ndim = len(shape)
    center = torch.tensor([(n - 1) / 2 for n in shape], dtype=torch.float64)
    matrix = torch.eye(ndim + 1, dtype=torch.float64).unsqueeze(0)
    matrix[0, :ndim, :ndim] += generator
    matrix[0, :ndim, ndim] -= generator @ center
    return voxel_affine_to_displacement(matrix, shape), generator, center


def middle(field, margin):
    """Cut away the border, where paths have left the grid."""
    cut = [slice(m, field.shape[2 + a] - m) for a, m in enumerate(margin)]
    return field[(slice(None), slice(None), *cut)]


def test_zero_is_neutral():
    field, zero = smooth_field(SHAPE, amplitude=2.0), torch.zeros(1, 3, *SHAPE).double()
    assert torch.equal(compose(zero, field), field)
    assert torch.equal(compose(field, zero), field)
    assert torch.equal(exponentiate(zero), zero)
    assert torch.equal(invert(zero).displacement, zero)


def test_affine_fields_compose_as_their_matrices():
    shape = (9, 11, 14)
    change = 0.04 * torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0)).double()
    a, generator_a, center = linear_velocity(shape, change[0])
    b, generator_b, _ = linear_velocity(shape, change[1])
    eye = torch.eye(3).double()
    product = (eye + generator_b) @ (eye + generator_a) - eye
    wanted, _, _ = linear_velocity(shape, product)
    found = compose(a, b)
    assert (middle(found - wanted, (2, 2, 2))).abs().max() < 1e-10
    assert center.tolist() == [4.0, 5.0, 6.5]


def rotation_velocity(shape, angle):
    generator = torch.zeros(3, 3, dtype=torch.float64)
    generator[1, 2], generator[2, 1] = -angle, angle
    return linear_velocity(shape, generator)


def test_exponential_of_a_rotation_converges_at_first_order():
    shape, margin = (3, 27, 29), (0, 9, 9)
    velocity, generator, _ = rotation_velocity(shape, 0.8)
    matrix = torch.linalg.matrix_exp(generator) - torch.eye(3).double()
    wanted, _, _ = linear_velocity(shape, matrix)
    errors = [
        middle(exponentiate(velocity, steps=steps) - wanted, margin).abs().max().item()
        for steps in (3, 4, 5, 6, 7)
    ]
    ratios = [coarse / fine for coarse, fine in pairwise(errors)]
    assert all(1.85 < ratio < 2.15 for ratio in ratios), ratios


def test_residual_of_exp_and_its_inverse_falls_at_first_order():
    shape, margin = (3, 27, 29), (0, 9, 9)
    velocity, _, _ = rotation_velocity(shape, 0.8)
    residuals = [
        middle(compose(exponentiate(velocity, steps=s), exponentiate(-velocity, steps=s)), margin)
        .abs().max().item()
        for s in (3, 4, 5, 6, 7)
    ]  # fmt: skip
    ratios = [coarse / fine for coarse, fine in pairwise(residuals)]
    assert all(1.85 < ratio < 2.15 for ratio in ratios), ratios


def test_residual_of_a_smooth_velocity_falls_to_the_interpolation_floor():
    velocity = smooth_field((13, 21, 18), amplitude=3.0, sigma=3.0)

    def residual(steps):
        back = compose(exponentiate(velocity, steps=steps), exponentiate(-velocity, steps=steps))
        return torch.linalg.vector_norm(middle(back, (3, 3, 3)), dim=1).mean().item()

    found = [residual(steps) for steps in (1, 3, 5)]
    assert found[0] > 2 * found[1] > 2 * found[2]
    assert found[2] < 0.005


def test_automatic_steps_keep_the_first_step_below_a_sixteenth():
    velocity = torch.cat([smooth_field(SHAPE, amplitude=a, seed=3) for a in (0.06, 1.0, 7.0, 0.0)])
    counts = automatic_steps(velocity)
    assert counts == [0, 4, 7, 0]
    assert torch.equal(exponentiate(velocity)[2:3], exponentiate(velocity[2:3], steps=7))


def test_a_sample_does_not_depend_on_its_batch():
    velocity = torch.cat([smooth_field(SHAPE, amplitude=a, seed=4) for a in (0.3, 4.0, 1.1)])
    together = exponentiate(velocity)
    folds_not = invert(together).displacement
    for index in range(3):
        alone = exponentiate(velocity[index : index + 1])
        assert torch.equal(together[index : index + 1], alone)
        assert torch.equal(folds_not[index : index + 1], invert(alone).displacement)


def test_exponential_of_a_smooth_velocity_does_not_fold():
    velocity = smooth_field((11, 14, 17), amplitude=6.0, sigma=3.0)
    assert folding(exponentiate(velocity)).fraction.item() == 0
    assert folding(velocity).fraction.item() > 0


@pytest.mark.parametrize("shape", [(11, 14, 17), (14, 17), (1, 14, 17)])
def test_inverse_undoes_a_field(shape):
    velocity = smooth_field(shape, amplitude=4.0, sigma=3.0)
    if shape[0] == 1:
        velocity[:, 0] = 0
    field = exponentiate(velocity)
    found = invert(field, tolerance=1e-8)
    assert found.residual.item() <= 1e-8
    assert found.iterations.item() >= 1
    assert compose(found.displacement, field).abs().max() <= 1e-8
    # On the other side the inverse is itself interpolated, so only nearly.
    assert (
        middle(compose(field, found.displacement), [min(3, n // 3) for n in shape]).abs().mean()
        < 0.05
    )


def test_inverse_of_an_affine_field_is_the_inverse_affine():
    generator = affine_exp(
        0.1 * torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(1)).double()
    )
    linear = generator[0, :3, :3] - torch.eye(3).double()
    field, _, _ = linear_velocity((13, 14, 15), linear)
    wanted, _, _ = linear_velocity(
        (13, 14, 15), torch.linalg.inv(generator[0, :3, :3]) - torch.eye(3).double()
    )
    found = invert(field, tolerance=1e-10).displacement
    assert middle(found - wanted, (4, 4, 4)).abs().max() < 1e-9
    assert affine_log(generator).abs().max() < 0.5


def test_a_fold_is_reported_not_returned():
    field = torch.zeros(1, 2, 7, 9, dtype=torch.float64)
    field[:, 1] = -2.5 * (torch.arange(9) - 4).double()
    with pytest.raises(ValueError, match=r"displacement must be invertible to 0\.001 voxels in 8"):
        invert(compose(field, field) + torch.randn(1, 2, 7, 9).double(), max_iterations=8)
    nan = torch.full((1, 2, 7, 9), torch.nan)
    with pytest.raises(ValueError, match="got a residual of nan voxels"):
        invert(nan)
    kept = invert(nan, require_convergence=False)
    assert kept.residual.isnan().all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30])
def test_strange_fields_have_defined_results(value):
    field = torch.zeros(1, 3, *SHAPE)
    field[0, 1, 2, 3, 4] = value
    result = exponentiate(field)
    # NaN stays; a voxel that is thrown out of the grid still leaves the others alone.
    assert bool(result[0, 1, 2, 3, 4].isnan()) == bool(torch.tensor(value).isnan())
    assert torch.isfinite(result[0, :, 5, 8, 13]).all()
    assert compose(field, field).shape == field.shape


def test_half_precision_fields_are_widened():
    velocity = smooth_field(SHAPE, amplitude=2.0).bfloat16()
    assert exponentiate(velocity).dtype == torch.float32
    torch.testing.assert_close(exponentiate(velocity), exponentiate(velocity.float()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(exponentiate(velocity), exponentiate(velocity.float()))


@pytest.mark.parametrize("shape", [(4, 5, 3), (4, 5), (1, 4, 5)])
def test_two_derivatives(shape):
    fields = [
        (0.2 + 0.6 * torch.rand(1, len(shape), *shape, dtype=torch.float64)).requires_grad_()
        for _ in range(2)
    ]
    velocity = smooth_field(shape, amplitude=0.7, sigma=1.0, seed=2).requires_grad_()
    for function, inputs in (
        (compose, fields),
        (lambda v: exponentiate(v, steps=2), [velocity]),
        (exponentiate, [velocity]),
    ):
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


def test_the_inverse_has_two_derivatives():
    field = smooth_field((4, 5, 3), amplitude=0.5, sigma=1.0, seed=5).requires_grad_()
    function = lambda u: invert(u, tolerance=1e-12).displacement  # noqa: E731
    assert torch.autograd.gradcheck(function, field)
    assert torch.autograd.gradgradcheck(function, field, fast_mode=True)


def test_errors_and_back_ends():
    field = torch.zeros(1, 3, *SHAPE)
    with pytest.raises(ValueError, match="steps must be 'auto' or a whole number from 0, got -1"):
        exponentiate(field, steps=-1)
    with pytest.raises(ValueError, match="b_to_c must have the spatial shape of a_to_b"):
        compose(field, field[..., 1:])
    with pytest.raises(ValueError, match=r"velocity must have shape .* got \(1, 1, 6, 9, 14\)"):
        exponentiate(field[:, :1])
    with use_backend("reference"):
        assert torch.equal(compose(field, field), field)
