"""Parts of the mesh VAE: time code, Gaussians, coarse graphs, conditions, PCA over the cycle."""

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from cardiogen.base import CardiogenError
from cardiogen.models.mesh import SmoothNoise, describe_conditions, rigid_pose
from cardiogen.models.mesh.coarsening import apply_sparse, build_levels, sparse_tensor
from cardiogen.models.mesh.conditions import drop_conditions
from cardiogen.models.mesh.cycles import fit_cycles
from cardiogen.models.mesh.gaussian import Gaussian, divergence, linear_update, unit_triangle
from cardiogen.models.mesh.prior import ConditionalPrior
from cardiogen.models.mesh.time import time_code


def ball(rings=5, columns=7, center=(0.0, 0.0, 0.0)):
    """Points and faces of a sphere of radius 1."""
    polar = np.linspace(0, np.pi, rings + 2)[1:-1]
    around = 2 * np.pi * np.arange(columns) / columns
    sheet = np.stack(
        [
            np.outer(np.sin(polar), np.cos(around)),
            np.outer(np.sin(polar), np.sin(around)),
            np.outer(np.cos(polar), np.ones(columns)),
        ],
        axis=-1,
    ).reshape(-1, 3)
    index = np.arange(rings * columns).reshape(rings, columns)
    a, b = index[:-1], np.roll(index, -1, axis=1)[:-1]
    c, d = np.roll(index, -1, axis=1)[1:], index[1:]
    top, bottom = rings * columns, rings * columns + 1
    faces = [np.stack([a, d, c], -1).reshape(-1, 3), np.stack([a, c, b], -1).reshape(-1, 3)]
    faces.append(np.stack([np.full(columns, top), index[0], np.roll(index[0], -1)], -1))
    faces.append(np.stack([np.full(columns, bottom), np.roll(index[-1], -1), index[-1]], -1))
    points = np.concatenate([sheet, [[0, 0, 1.0], [0, 0, -1.0]]]) + np.array(center)
    return points, np.concatenate(faces)


def random_gaussian(seed, batch=3, size=5):
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(batch, size, generator=generator, dtype=torch.float64)
    entries = torch.randn(batch, size * (size - 1) // 2, generator=generator, dtype=torch.float64)
    scale = torch.rand(batch, size, generator=generator, dtype=torch.float64) + 0.3
    return Gaussian(mean, unit_triangle(entries, size) * scale[:, None])


def law(gaussian):
    return MultivariateNormal(gaussian.mean, scale_tril=gaussian.tril)


def test_time_code_closes_exactly_and_is_orthogonal():
    phases = torch.tensor([0.0, 0.3, 0.71], dtype=torch.float64)
    assert torch.equal(time_code(phases, 4)[0], time_code(phases + 1, 4)[0])
    even = time_code(torch.arange(11, dtype=torch.float64) / 11, 3)
    power = torch.tensor([1.0, *[0.5] * 6], dtype=torch.float64)
    torch.testing.assert_close(even.T @ even / 11, torch.diag(power))
    assert time_code(phases, 0).tolist() == [[1.0]] * 3


def test_divergence_is_that_of_multivariate_normals():
    q, p = random_gaussian(1), random_gaussian(2)
    torch.testing.assert_close(divergence(q, p).sum(1), kl_divergence(law(q), law(p)))
    assert divergence(q, q).abs().max() < 1e-12
    half = [Gaussian(*(part.to(torch.bfloat16) for part in one)) for one in (q, p)]
    rounded = divergence(*half)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(
        rounded.sum(1).double(), divergence(q, p).sum(1), rtol=0.1, atol=0.5
    )


def test_unit_triangle_has_its_entries_row_by_row():
    wanted = torch.tensor([[1.0, 0, 0], [2, 1, 0], [3, 4, 1]])
    assert torch.equal(unit_triangle(torch.tensor([2.0, 3, 4]), 3), wanted)


def test_linear_update_is_the_conjugate_posterior():
    prior = random_gaussian(3)
    design = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    precision, pull = design.mT @ design, torch.arange(15.0, dtype=torch.float64).reshape(3, 5)
    found = linear_update(prior, precision, pull)
    inverse = torch.linalg.inv(prior.tril @ prior.tril.mT)
    covariance = torch.linalg.inv(inverse + precision)
    mean = covariance @ (pull[..., None] + inverse @ prior.mean[..., None])
    torch.testing.assert_close(found.mean, mean[..., 0])
    torch.testing.assert_close(found.tril @ found.tril.mT, covariance, atol=1e-9, rtol=1e-9)
    nothing = linear_update(prior, torch.zeros_like(precision), torch.zeros(3, 5).double())
    torch.testing.assert_close(nothing.mean, prior.mean)
    torch.testing.assert_close(nothing.tril @ nothing.tril.mT, prior.tril @ prior.tril.mT)


def test_draws_have_their_mean_and_covariance():
    one = random_gaussian(4, batch=1, size=3)
    many = Gaussian(one.mean.expand(40_000, -1), one.tril.expand(40_000, -1, -1))
    drawn = many.draw(torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.mean(0), one.mean[0], atol=0.05, rtol=0)
    wanted = (one.tril @ one.tril.mT)[0]
    torch.testing.assert_close(torch.cov(drawn.T), wanted, atol=0.08 * float(wanted.max()), rtol=0)


def test_coarse_graphs_keep_constants_and_surfaces_apart():
    near, faces = ball()
    far, _ = ball(center=(0.4, 0.0, 0.0))  # it cuts through the first, but hangs together alone
    points = np.concatenate([near, far])
    both = np.concatenate([faces, faces + len(near)])
    levels = build_levels(points, both, ratio=4, levels=3)
    assert [len(level.points) for level in levels] == [74, 18, 4]
    owner = (np.arange(len(points)) >= len(near)).astype(float)
    for level in levels[:-1]:
        for matrix in (level.neighbors, level.pool, level.unpool):
            np.testing.assert_allclose(matrix.sum(axis=1), 1.0)
        pooled = level.pool @ owner
        np.testing.assert_allclose(pooled, np.rint(pooled), atol=1e-12)
        pooled = np.rint(pooled)
        np.testing.assert_allclose(level.unpool @ pooled, owner)
        owner = pooled
    assert levels[-1].pool is None


def test_interpolation_between_clusters_is_smooth():
    points, faces = ball(13, 17)
    fine = build_levels(points, faces, ratio=4, levels=2)[0]
    smooth = fine.unpool @ (fine.pool @ points[:, 2])
    assert np.corrcoef(smooth, points[:, 2])[0, 1] > 0.98


def test_neighbors_of_a_single_vertex_are_itself():
    level = build_levels(np.zeros((3, 3)), np.zeros((0, 3), int), ratio=2, levels=1)[0]
    np.testing.assert_array_equal(level.neighbors.toarray(), np.eye(3))


def test_faces_must_index_the_points():
    with pytest.raises(ValueError, match="faces must index 3 points, got 0 to 3"):
        build_levels(np.zeros((3, 3)), np.array([[0, 1, 3]]), ratio=2, levels=1)


def test_sparse_product_is_the_dense_one():
    points, faces = ball()
    matrix = build_levels(points, faces, ratio=4, levels=2)[0].pool
    features = torch.randn(37, 5, 2, generator=torch.Generator().manual_seed(0))
    dense = torch.from_numpy(matrix.toarray()).float()
    wanted = torch.einsum("uv,vnc->unc", dense, features)
    torch.testing.assert_close(apply_sparse(sparse_tensor(matrix), features), wanted)


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    edv = rng.normal(70, 10, 500)
    values = np.stack([edv, 0.5 * edv + rng.normal(30, 2, 500)], axis=1)
    return describe_conditions(values, names=("EDVI", "EF"), units=("mL/m2", "%"))


def test_conditions_out_of_range_are_refused_by_name_and_unit(table):
    table.check([70.0, 65.0])
    table.check([np.nan, np.nan])
    with pytest.raises(CardiogenError, match=r"CG-D01 EDVI: found 170 mL/m2"):
        table.check([170.0, np.nan])
    # Each is within its range, together they are not.
    low = [np.percentile([table.low[0], 70], 40), table.high[1] - 1]
    table.check([low[0], np.nan])
    with pytest.raises(CardiogenError, match="CG-D02 conditions"):
        table.check(low)
    with pytest.raises(ValueError, match=r"condition must be \(2,\), got \(3,\)"):
        table.check([1.0, 2.0, 3.0])


def test_description_leaves_missing_values_out():
    values = np.array([[1.0, 2.0], [3.0, np.nan], [5.0, 4.0]])
    found = describe_conditions(values, names=("a", "b"), units=("", ""))
    np.testing.assert_allclose(found.mean, [3.0, 3.0])
    np.testing.assert_allclose(found.low, [1.0, 2.0])
    with pytest.raises(CardiogenError, match="CG-C28 b: found 1 known values"):
        describe_conditions(values[:2], names=("a", "b"), units=("", ""))
    with pytest.raises(ValueError, match=r"conditions must be \(N, 1\)"):
        describe_conditions(values, names=("a",), units=("",))


def latents_and_conditions(count=20_000, seed=0, curvature=0.0):
    """Latents that follow two conditions: slopes, a product term and noise, both of known size."""
    rng = np.random.default_rng(seed)
    x = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], count)
    slopes, spread = np.array([[1.0, 0.0, -0.5], [0.3, 0.8, 0.0]]), np.array([0.5, 1.0, 0.2])
    z = x @ slopes + spread * rng.normal(size=(count, 3))
    z[:, 1] += curvature * x[:, 0] * x[:, 1]
    narrow = 0.1 * torch.eye(3, dtype=torch.float64).expand(count, 3, 3)
    conditions = torch.from_numpy(x * [10, 5] + [70, 60])
    return conditions, Gaussian(torch.from_numpy(z), narrow), slopes, spread


def fitted_prior(conditions, posterior):
    prior = ConditionalPrior([70.0, 60.0], [10.0, 5.0], latents=3)
    prior.fit(conditions, posterior)
    return prior


def test_prior_is_the_conditional_of_the_joint_gaussian():
    conditions, posterior, slopes, spread = latents_and_conditions()
    prior = fitted_prior(conditions, posterior)
    nan = float("nan")
    given = torch.tensor([[85.0, 55.0], [85.0, nan], [nan, 55.0], [nan, nan]]).double()
    found = prior(given)
    covariance = (found.tril @ found.tril.mT).numpy()
    own = np.diag(spread**2 + 0.1**2)  # what conditions leave, and the posteriors' own spread
    x, rho = np.array([1.5, -1.0]), 0.5
    expected = [x @ slopes, x[0] * (slopes[0] + rho * slopes[1]),
                x[1] * (slopes[1] + rho * slopes[0]), np.zeros(3)]  # fmt: skip
    lost = [np.zeros((2, 2)), np.diag([0, 1 - rho**2]), np.diag([1 - rho**2, 0]),
            np.array([[1, rho], [rho, 1]])]  # fmt: skip
    for k in range(4):
        np.testing.assert_allclose(found.mean[k], expected[k], atol=0.08)
        np.testing.assert_allclose(covariance[k], own + slopes.T @ lost[k] @ slopes, atol=0.06)


def test_prior_bends_with_its_conditions():
    conditions, posterior, slopes, _ = latents_and_conditions(curvature=0.7)
    found = fitted_prior(conditions, posterior)(torch.tensor([[85.0, 70.0]]).double())
    wanted = np.array([1.5, 2.0]) @ slopes + [0, 0.7 * 1.5 * 2.0, 0]
    np.testing.assert_allclose(found.mean[0], wanted, atol=0.1)


def test_prior_learns_from_hearts_with_missing_conditions():
    conditions, posterior, slopes, spread = latents_and_conditions()
    gone = torch.rand(conditions.shape, generator=torch.Generator().manual_seed(0)) < 0.4
    prior = fitted_prior(conditions.masked_fill(gone, float("nan")), posterior)
    found = prior(torch.tensor([[85.0, 55.0]]).double())
    np.testing.assert_allclose(found.mean[0], np.array([1.5, -1.0]) @ slopes, atol=0.15)
    np.testing.assert_allclose(
        (found.tril @ found.tril.mT)[0], np.diag(spread**2 + 0.1**2), atol=0.1
    )


def test_prior_of_few_hearts_is_a_proper_gaussian():
    conditions, posterior, _, _ = latents_and_conditions(count=4)
    found = fitted_prior(conditions, posterior)(conditions)
    assert torch.isfinite(found.mean).all()
    assert (found.tril.diagonal(dim1=1, dim2=2) > 0).all()


def test_conditions_are_dropped_singly_and_together():
    full = torch.zeros(20_000, 2)
    gone = torch.isnan(drop_conditions(full, 0.2, torch.Generator().manual_seed(0)))
    assert float(gone.float().mean()) == pytest.approx(1 - 0.8**2, abs=0.01)
    assert float(gone.all(1).float().mean()) == pytest.approx(0.2 + 0.8 * 0.04, abs=0.01)
    assert not torch.isnan(drop_conditions(full, 0.0, torch.Generator())).any()


def cycle_fields(hearts=60, frames=9, modes=3, size=30, seed=0):
    """Fields of two harmonics with known modes, and their time codes."""
    rng = np.random.default_rng(seed)
    phases = (np.arange(frames) + rng.uniform(-0.3, 0.3, (hearts, frames))) / frames
    codes = time_code(torch.from_numpy(phases), 2).numpy()
    truth = rng.normal(size=(modes, 5, size))
    mean, e = rng.normal(size=(5, size)), rng.normal(size=(hearts, modes))
    return codes @ (mean + np.einsum("nr,rbs->nbs", e, truth)), codes, truth


def test_cycle_pca_recovers_what_has_few_modes():
    fields, codes, truth = cycle_fields(hearts=400)
    found = fit_cycles(fields, codes, frame_modes=20, modes=3)
    assert found.rest_mm < 1e-6
    np.testing.assert_allclose(found.modes @ found.modes.T, np.eye(len(found.modes)), atol=1e-9)
    covariance = np.einsum("bpr,cqr->bpcq", found.loadings, found.loadings)
    at = codes[0]
    spread = np.einsum("tb,bpcq,uc,ps,qs->tu", at, covariance, at, found.modes, found.modes)
    wanted = np.einsum("tb,rbs,rcs,uc->tu", at, truth, truth, at)
    np.testing.assert_allclose(spread, wanted, rtol=0.3, atol=0.15 * np.abs(wanted).max())
    fewer = fit_cycles(fields, codes, frame_modes=20, modes=2)
    assert fewer.rest_mm > 0.1


def test_cycle_pca_of_few_hearts_leaves_empty_loadings():
    fields, codes, _ = cycle_fields(hearts=3)
    found = fit_cycles(fields, codes, frame_modes=20, modes=6)
    assert found.loadings.shape == (5, len(found.modes), 6)
    assert np.abs(found.loadings[..., 2:]).max() == 0


def test_noise_is_inferred_from_what_is_seen():
    fields, codes, _ = cycle_fields(hearts=100)
    pca = fit_cycles(fields, codes, frame_modes=20, modes=3)
    noise = SmoothNoise(
        *(a.astype(np.float32) for a in (pca.mean, pca.modes, pca.loadings)), rest_mm=pca.rest_mm
    )
    e = np.array([0.7, -1.2, 0.4])
    residual = noise.field(e[None], codes[0])[0]
    mean, covariance = noise.given(residual, codes[0], 1e6)
    np.testing.assert_allclose(mean, e, atol=1e-3)
    assert np.linalg.eigvalsh(covariance).max() < 1e-3
    mean, covariance = noise.given(residual, codes[0], 0.0)
    np.testing.assert_allclose(mean, 0)
    np.testing.assert_allclose(covariance, np.eye(3))


@pytest.mark.parametrize("mirrored", [False, True])
def test_rigid_pose_recovers_a_motion(mirrored):
    rng = np.random.default_rng(3)
    axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    axes *= np.array([1, 1, np.sign(np.linalg.det(axes)) * (-1 if mirrored else 1)])
    heart = rng.normal(size=(20, 3))
    found = rigid_pose(heart, heart @ axes.T + [5.0, -7.0, 9.0], mirrored=mirrored)
    np.testing.assert_allclose(found.axes, axes, atol=1e-12)
    np.testing.assert_allclose(found.origin, [5.0, -7.0, 9.0], atol=1e-12)
    assert found.mirrored == mirrored
