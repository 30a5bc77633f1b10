"""Image distances against loops, entropies, numeric minimization and invariances."""

from itertools import product

import numpy as np
import pytest
import torch
from torch.optim import LBFGS

from cardiogen.losses import LNCC, MI, MIND, MSE, NCC, NGF, NMI
from cardiogen.losses.histogram import joint_histogram, mean_over_bins
from cardiogen.losses.windows import reach_voxels
from cardiogen.ops import gradient

SPACING = (8.0, 1.4, 1.9)
SHAPE = (5, 7, 6)


def random_images(*shape, seed=0, count=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, 1, *shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("squared", [False, True])
def test_ncc_is_pearsons_correlation(squared):
    fixed, moved = random_images(*SHAPE)
    moved = 0.5 * moved - fixed
    correlation = np.corrcoef(fixed.flatten(), moved.flatten())[0, 1]
    found = NCC(squared=squared).value(fixed, moved, spacing=SPACING)
    np.testing.assert_allclose(found, 1 - (correlation**2 if squared else correlation))


@pytest.mark.parametrize("term", [NCC(), NCC(squared=True), LNCC(), NGF(), MIND()], ids=repr)
def test_affine_changes_of_intensity_do_not_matter(term):
    fixed, moved = random_images(*SHAPE)
    wanted = term.map(fixed, moved, spacing=SPACING)
    torch.testing.assert_close(term.map(fixed, 20 * moved + 300, spacing=SPACING), wanted)
    torch.testing.assert_close(term.map(0.1 * fixed - 5, moved, spacing=SPACING), wanted)


@pytest.mark.parametrize("term", [NCC(squared=True), NGF(), MIND(), LNCC(noise=1e-4)], ids=repr)
def test_inverted_contrast_matches(term):
    fixed, _ = random_images(*SHAPE)
    inverted = term.value(fixed, 7 - fixed, spacing=SPACING)
    assert inverted < 1e-6
    assert NCC().value(fixed, 7 - fixed, spacing=SPACING) > 1.99


@pytest.mark.parametrize("masked", [False, True])
def test_lncc_is_the_correlation_in_every_window(masked):
    fixed, moved = random_images(*SHAPE)
    moved = moved + fixed
    term = LNCC(radius_mm=2.9, noise=1e-5)  # windows of 1, 5 and 5 voxels
    mask = torch.ones(1, 1, *SHAPE)
    if masked:
        mask[..., :3, :, :4] = 0
    found = term.map(fixed, moved, spacing=SPACING, mask=mask if masked else None)
    inside = mask[0, 0].numpy() > 0
    for d, h, w in product(*(range(n) for n in SHAPE)):
        rows, columns = (
            np.clip(np.arange(x - 2, x + 3), 0, n - 1)
            for x, n in zip((h, w), SHAPE[1:], strict=True)
        )
        window = d, rows[:, None], columns[None, :]
        f, m = (t[0, 0].numpy()[window][inside[window]] for t in (fixed, moved))
        if inside[d, h, w] and len(set(f)) > 1:
            wanted = 1 - np.corrcoef(f, m)[0, 1] ** 2
            np.testing.assert_allclose(found[0, 0, d, h, w], wanted, atol=1e-6)


@pytest.mark.parametrize("window", ["box", "gaussian"])
def test_lncc_is_safe_in_float32_on_bright_backgrounds(window):
    """Where squares of the raw image give negative variances, ours agree with float64."""
    generator = torch.Generator().manual_seed(5)
    image = 100 + 2e-3 * torch.randn(1, 1, 24, 24, 24, generator=generator)
    image[..., 1:9, 1:9, 1:9] -= 50 * torch.rand(1, 1, 8, 8, 8, generator=generator)
    other = image.roll(1, -1)

    raw = torch.nn.functional.avg_pool3d(image, 9, 1)
    naive = torch.nn.functional.avg_pool3d(image.square(), 9, 1) - raw.square()
    assert (naive < 0).any()

    term = LNCC(radius_mm=4.0, window=window)
    spacing = (1.0, 1.0, 1.0)
    narrow = term.map(image, other, spacing=spacing)
    exact = term.map(image.double(), other.double(), spacing=spacing)
    torch.testing.assert_close(narrow.double(), exact, rtol=0, atol=2e-4)
    assert narrow.min() > -1e-6
    assert narrow.max() < 1 + 1e-6
    moved = other.clone().requires_grad_()
    (slope,) = torch.autograd.grad(term.value(image, moved, spacing=spacing).sum(), moved)
    pull = (slope.unsqueeze(2) * gradient(other, spacing=spacing)).abs()
    assert pull[..., -9:, -9:, -9:].max() < 1e-3 * pull.max()


def test_lncc_windows_are_mm():
    coarse, fine = (4.0, 2.0, 2.0), (2.0, 1.0, 1.0)
    assert reach_voxels(4.0, SHAPE, coarse, at_least=1) == (1, 2, 2)
    assert reach_voxels(4.0, SHAPE, fine, at_least=1) == (2, 4, 4)
    assert reach_voxels(0.1, SHAPE, SPACING, at_least=1) == (0, 1, 0)
    assert reach_voxels(0.1, SHAPE, SPACING, at_least=2) == (0, 1, 1)
    assert reach_voxels(9.0, (1, 7, 6), SPACING, at_least=1) == (0, 6, 5)
    with pytest.raises(ValueError, match="images must have 2 axes of more than one voxel"):
        reach_voxels(1.0, (1, 7, 1), SPACING, at_least=2)


def smooth_pair(spacing, shape):
    """Return two smooth images of the same world on a grid of the given spacing."""
    axes = [torch.arange(n, dtype=torch.float64) * s for n, s in zip(shape, spacing, strict=True)]
    x, y = torch.meshgrid(*axes, indexing="ij")
    fixed = torch.sin(x / 9) + torch.cos(y / 7 + x / 15)
    moved = torch.sin(x / 9 + 0.4) + torch.cos(y / 8)
    return fixed[None, None], moved[None, None]


@pytest.mark.parametrize(
    "term",
    [
        MSE(), NCC(), MI(), NMI(), NGF(), LNCC(radius_mm=6.0),
        LNCC(radius_mm=6.0, window="gaussian"), MIND(distance_mm=4.0, radius_mm=4.0),
    ],
    ids=repr,
)  # fmt: skip
def test_the_same_world_on_other_voxels_has_the_same_value(term):
    fine = term.value(*smooth_pair((0.5, 0.4), (161, 201)), spacing=(0.5, 0.4))
    coarse = term.value(*smooth_pair((1.0, 0.8), (81, 101)), spacing=(1.0, 0.8))
    torch.testing.assert_close(coarse, fine, rtol=0.06, atol=0.01)


def entropy(*columns):
    """Entropy in nats of the rows of integer columns."""
    _, counts = np.unique(np.stack(columns), axis=1, return_counts=True)
    shares = counts / counts.sum()
    return -(shares * np.log(shares)).sum()


def test_linear_windows_on_bin_centers_give_histogram_entropies():
    rng = np.random.default_rng(0)
    fixed = rng.integers(0, 8, size=(9, 11, 7))
    moved = (fixed**2 + rng.integers(0, 3, size=fixed.shape)) % 8
    options = {"bins": 8, "degree": 1, "fixed_range": (0.0, 7.0), "moved_range": (0.0, 7.0)}
    pair = [torch.tensor(t, dtype=torch.float64)[None, None] for t in (fixed, moved)]
    f, m = entropy(fixed.ravel()), entropy(moved.ravel())
    both = entropy(fixed.ravel(), moved.ravel())
    found = MI(**options).value(*pair, spacing=SPACING)
    np.testing.assert_allclose(found, [-(f + m - both)])
    np.testing.assert_allclose(NMI(**options).value(*pair, spacing=SPACING), [2 - (f + m) / both])
    same = MI(**options).value(pair[0], pair[0], spacing=SPACING)
    np.testing.assert_allclose(same, [-f])
    np.testing.assert_allclose(NMI(**options).value(pair[0], pair[0], spacing=SPACING), [0])


@pytest.mark.parametrize("degree", [1, 3])
def test_independent_images_share_no_information(degree):
    ramp = torch.linspace(0, 1, 40, dtype=torch.float64)
    rows, columns = torch.meshgrid(ramp, ramp, indexing="ij")
    pair = rows[None, None], columns[None, None]
    spacing = (1.4, 1.9)
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    torch.testing.assert_close(MI(degree=degree).value(*pair, spacing=spacing), zero)
    torch.testing.assert_close(NMI(degree=degree).value(*pair, spacing=spacing), one)
    flat = pair[0], torch.full_like(pair[1], 3.0)
    torch.testing.assert_close(NMI(degree=degree).value(*flat, spacing=spacing), one)


def test_information_of_correlated_gaussians():
    generator = torch.Generator().manual_seed(6)
    fixed, noise = torch.randn(2, 1, 1, 300, 400, generator=generator, dtype=torch.float64)
    bins = 48
    blur = (10 / (bins - 3)) ** 2 / 3  # variance of the cubic window
    for correlation in (0.5, 0.9):
        moved = correlation * fixed + (1 - correlation**2) ** 0.5 * noise
        wanted = -0.5 * np.log(1 - (correlation / (1 + blur)) ** 2)
        found = MI(bins=bins, fixed_range=(-5, 5), moved_range=(-5, 5)).value(
            fixed, moved, spacing=(1.0, 1.0)
        )
        assert -found == pytest.approx(wanted, rel=0.01, abs=0.01)


@pytest.mark.parametrize("term", [MI(bins=8), NMI(bins=8)], ids=repr)
def test_intensities_next_to_knots_have_finite_slopes(term):
    """Windows that only just reach a bin put shares below float32's inverses into it."""
    steps = torch.arange(-8, 9) * 6e-8
    fixed, moved = torch.meshgrid(0.4 + steps, 0.6 + steps, indexing="ij")
    ends = torch.tensor([[0.0, 1.0]]).repeat(2, 17)
    fixed, moved = (torch.cat([t, ends[:, :17]])[None, None] for t in (fixed, moved))
    moved.requires_grad_()
    value = term.value(fixed, moved, spacing=(1.0, 1.0))
    assert torch.autograd.grad(value.sum(), moved)[0].isfinite().all()


@pytest.mark.parametrize("scale", [1e-9, 1e9])
@pytest.mark.parametrize("term", [NCC(), LNCC(), NGF(), MIND(), MI(), NMI()], ids=repr)
def test_extreme_units_of_intensity_do_not_matter_in_float32(term, scale):
    fixed, moved = random_images(*SHAPE).float()
    moved = (fixed + moved).requires_grad_()
    wanted = term.value(fixed, moved, spacing=SPACING)
    torch.testing.assert_close(
        term.value(fixed, scale * moved, spacing=SPACING), wanted, rtol=1e-3, atol=1e-5
    )
    tiny = (scale * moved).detach().requires_grad_()
    (slope,) = torch.autograd.grad(term.value(fixed, tiny, spacing=SPACING).sum(), tiny)
    (wanted,) = torch.autograd.grad(wanted.sum(), moved)
    torch.testing.assert_close(scale * slope, wanted, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("remap", [lambda x: 5 - 3 * x, lambda x: (x - 0.4).abs()])
def test_information_sees_through_contrast(remap):
    image = torch.nn.functional.avg_pool2d(torch.rand(1, 1, 44, 45), 5, 1)
    image = (image - image.min()) / (image.max() - image.min())
    for term in (MI(), NMI()):
        aligned = term.value(image, remap(image), spacing=(1.0, 1.0))
        shifted = term.value(image, remap(image).roll(3, -1), spacing=(1.0, 1.0))
        assert aligned < shifted


@pytest.mark.parametrize("degree", [1, 3])
def test_joint_histogram_in_pieces_is_the_sum_over_voxels(degree, monkeypatch):
    monkeypatch.setattr("cardiogen.losses.histogram._PIECE", 13)
    bins, count = 6, 40
    generator = torch.Generator().manual_seed(7)
    low, high = (degree - 1) / 2, bins - 1 - (degree - 1) / 2
    places = low + (high - low) * torch.rand(2, 2, count, generator=generator).double()
    places[:, :, :2] = torch.tensor([low, high])
    weights = torch.rand(2, count, generator=generator).double()
    centers = torch.arange(bins).double()

    def spline(x):
        x = x.abs()
        if degree == 1:
            return (1 - x).clamp(min=0)
        return (2 / 3 - x**2 + x**3 / 2).where(x < 1, (2 - x).clamp(min=0) ** 3 / 6)

    f, m = (spline(p.unsqueeze(-1) - centers) for p in places)
    wanted = torch.einsum("bx,bxi,bxj->bij", weights, f, m)
    found = joint_histogram(*places, weights, bins=bins, degree=degree)
    torch.testing.assert_close(found, wanted)
    table = torch.randn(2, bins, bins, generator=generator).double()
    shares = mean_over_bins(table, *places, degree=degree)
    torch.testing.assert_close(shares, torch.einsum("bxi,bij,bxj->bx", f, table, m))
    torch.testing.assert_close((weights * shares).sum(1), (found * table).sum((1, 2)))

    inner = places[:, :, 2:].clone().requires_grad_()

    def histogram(fixed, moved):
        return joint_histogram(fixed, moved, weights[:, 2:], bins=bins, degree=degree)

    assert torch.autograd.gradcheck(histogram, tuple(inner), fast_mode=True)
    assert torch.autograd.gradgradcheck(histogram, tuple(inner), fast_mode=True)


@pytest.mark.parametrize("shape", [(5, 7, 6), (7, 6)])
def test_mind_has_twelve_or_four_distances_in_the_unit_interval(shape):
    (image,) = random_images(*shape, count=1)
    spacing = (2.0, 1.4, 1.9)[-len(shape) :]
    found = MIND().descriptor(image, spacing=spacing)
    assert found.shape == (1, 12 if len(shape) == 3 else 4, *shape)
    assert found.min() > 0
    torch.testing.assert_close(found.amax(1), torch.ones(1, *shape, dtype=torch.float64))


def test_mind_distances_by_loop():
    (image,) = random_images(7, 6, count=1)
    found = MIND(distance_mm=2.0, radius_mm=1.0).descriptor(image, spacing=(1.0, 2.0))
    pixels = image[0, 0].numpy()

    def at(h, w):
        return pixels[np.clip(h, 0, 6), np.clip(w, 0, 5)]

    def squared(h, w, up, right):
        h, w = np.clip(h, 0, 6), np.clip(w, 0, 5)
        return (at(h + up, w) - at(h, w + right)) ** 2

    signs = list(product((-2, 2), (-1, 1)))
    distances = np.array(
        [
            [[np.mean([squared(h + r, w, *s) for r in (-1, 0, 1)]) for w in range(6)]
             for h in range(7)]
            for s in signs
        ]
    )  # fmt: skip
    distances -= distances.min(axis=0)
    np.testing.assert_allclose(found[0], np.exp(-distances / distances.mean(axis=0)))


def assert_minimizes(energy, point, start):
    """Check that descent from elsewhere comes near and that the slope there is 0."""
    solver = LBFGS([start.requires_grad_()], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        solver.zero_grad()
        value = energy(start)
        value.backward()
        return value

    solver.step(closure)
    torch.testing.assert_close(point, start.detach(), rtol=0, atol=1e-3)
    point = point.clone().requires_grad_()
    (slope,) = torch.autograd.grad(energy(point), point)
    assert slope.abs().max() < 1e-12


@pytest.mark.parametrize("term", [MSE(), MSE(sigma=0.4)], ids=repr)
def test_prox_of_squares_is_the_minimizer(term):
    fixed, moved = random_images(4, 5, 3)
    fixed, moved = (torch.cat([t, 2 * t + 1], dim=1) for t in (fixed, moved))
    step = 0.7

    def energy(image):
        price = term.value(fixed, image, spacing=SPACING, reduction="sum").sum()
        return step * price + (image - moved).square().sum() / 2

    assert_minimizes(energy, term.prox(fixed, moved, step=step), moved.clone())


@pytest.mark.parametrize("term", [MSE(), MSE(sigma=0.4)], ids=repr)
def test_linearized_prox_is_the_minimizer(term):
    residual, down, right, h, w = random_images(4, 5, count=5)
    slope, field = torch.cat([down, right], dim=1), torch.cat([h, w], dim=1)
    step = 0.7

    def energy(moved_to):
        change = residual + (slope * (moved_to - field)).sum(dim=1, keepdim=True)
        price = term.value(
            torch.zeros_like(change), change, spacing=(1.0, 1.0), reduction="sum"
        ).sum()
        return step * price + (moved_to - field).square().sum() / 2

    found = term.prox_linearized(field, residual, slope, step=step)
    assert_minimizes(energy, found, field.clone())


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_normalizer_of_squares_is_the_gaussian_one(reduction):
    shape, sigma, weight = (2, 3, 4, 5), 0.3, torch.tensor([0.5, 2.0], dtype=torch.float64)
    fixed, moved = (torch.randn(1, *shape).double() for _ in range(2))
    term = MSE(sigma=sigma)
    log_z = term.log_normalizer(
        shape, spacing=SPACING, weight=weight / sigma**2, reduction=reduction
    )
    energy = term.value(
        fixed, moved, spacing=SPACING, weight=weight / sigma**2, reduction=reduction
    )
    # The mean over two channels and the reduction widen the noise of every value.
    voxels = 60 if reduction == "mean" else 1
    deviation = (2 * voxels * sigma**4 / weight).sqrt()
    density = [
        torch.distributions.Normal(fixed, spread).log_prob(moved).sum() for spread in deviation
    ]
    torch.testing.assert_close(-energy - log_z, torch.stack(density))


def test_unusable_constants_are_refused():
    for make, message in (
        (lambda: MSE(sigma=0.0), "sigma must be positive, got 0.0"),
        (lambda: LNCC(window="disk"), "window must be box or gaussian, got 'disk'"),
        (lambda: LNCC(radius_mm=-1.0), "radius_mm and noise must be positive"),
        (lambda: MI(bins=3), "bins must be at least 4, got 3"),
        (lambda: NMI(degree=2), "degree must be 1 or 3, got 2"),
        (lambda: NGF(edge=0.0), "edge must be positive, got 0.0"),
        (lambda: MIND(distance_mm=0.0), "distance_mm and radius_mm must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(ValueError, match="fixed must have the spatial shape of moved"):
        MSE().value(torch.zeros(1, 1, 4, 5), torch.zeros(1, 1, 5, 4), spacing=(1.0, 1.0))
    with pytest.raises(ValueError, match="moved must be floating point"):
        MSE().value(torch.zeros(1, 1, 4, 5), torch.zeros(1, 1, 4, 5).int(), spacing=(1.0, 1.0))
