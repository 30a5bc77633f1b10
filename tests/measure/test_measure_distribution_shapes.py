"""Sets of shapes: distances against loops, two-sample laws, PCA laws."""

import tracemalloc

import numpy as np
import pytest

from cardiogen.measure.distribution import (
    SetDistances,
    compactness,
    diversity_ratio,
    generalization,
    matching_distance,
    mode_variances,
    nearest_shapes,
    one_nna,
    repeat_draws,
    set_coverage,
    set_distances,
    specificity,
    vertex_distances,
)


def shapes(count, seed=0, vertices=11, shift=0.0):
    """Points about (80, -40, 200) mm, 5 mm deviation."""
    rng = np.random.default_rng(seed)
    return np.array([80.0 + shift, -40.0, 200.0]) + 5 * rng.normal(size=(count, vertices, 3))


def direct(a, b):
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=-1).mean(axis=-1))


def on_a_line(real, synthetic):
    real, synthetic = np.asarray(real, float), np.asarray(synthetic, float)
    return SetDistances(
        *(np.abs(a[:, None] - b[None])
          for a, b in ((real, real), (synthetic, synthetic), (real, synthetic)))
    )  # fmt: skip


@pytest.mark.parametrize("block", [1, 7, 256])
def test_blockwise_distances_are_the_direct_ones(block):
    a, b = shapes(23), shapes(15, 1)
    np.testing.assert_allclose(vertex_distances(a, b, block=block), direct(a, b), rtol=1e-10)
    own = vertex_distances(a, block=block)
    np.testing.assert_allclose(own, direct(a, a), rtol=1e-10)
    assert (own == own.T).all()
    assert (own.diagonal() == 0).all()


def test_distance_of_a_translation_is_its_length():
    a = shapes(5)
    far = vertex_distances(a, a + np.array([3.0, 0.0, -4.0]))
    np.testing.assert_allclose(far.diagonal(), 5.0)
    whole = (100 * a).astype(np.int16)
    np.testing.assert_allclose(vertex_distances(whole), direct(1.0 * whole, 1.0 * whole))


def test_copies_and_near_copies_keep_their_digits():
    """The matrix product alone would lose distances below 1e-7 of the coordinates."""
    a = shapes(9)
    b = a + 1e-7 * np.random.default_rng(1).normal(size=a.shape)
    found = vertex_distances(a, np.concatenate([b, a]), block=4)
    np.testing.assert_allclose(found[:, :9].diagonal(), direct(a, b).diagonal(), rtol=1e-9)
    assert (found[:, 9:].diagonal() == 0).all()


@pytest.mark.parametrize("block", [1, 6, 100])
def test_nearest_shapes(block):
    a, b = shapes(23), shapes(15, 1)
    distance, index = nearest_shapes(a, b, block=block)
    np.testing.assert_allclose(distance, direct(a, b).min(axis=1), rtol=1e-10)
    assert (index == direct(a, b).argmin(axis=1)).all()
    others = direct(a, a) + np.diag(np.full(23, np.inf))
    distance, index = nearest_shapes(a, block=block)
    np.testing.assert_allclose(distance, others.min(axis=1), rtol=1e-10)
    assert (index == others.argmin(axis=1)).all()


def test_memory_does_not_grow_with_the_cohort():
    """No matrix of 900 x 900 is made, nor are all shapes copied to float64."""
    a = shapes(900).astype(np.float32)
    tracemalloc.start()
    nearest_shapes(a, block=32)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 900 * 33 / 2


def test_one_nna_by_hand():
    # 0 1 | 10 11: every neighbor is of the own set; interleaved: none is.
    assert one_nna(on_a_line([0, 1], [10, 11.5])) == 1.0
    assert one_nna(on_a_line([0, 5], [1, 6.5])) == 0.0
    # Real 0 lies 2 from both 2 (real) and -2 (synthetic): half a hit. Real 2 has 0: a hit.
    # Synthetic -2 has real 0: a miss. Synthetic -9 has -2: a hit.
    assert one_nna(on_a_line([0, 2], [-2, -9])) == pytest.approx(2.5 / 4)


def test_one_nna_does_not_favor_a_set_when_all_tie():
    """Equal distances everywhere: n - 1 of the 2n - 1 neighbors are of the own set."""
    n = 6
    flat = SetDistances(*np.ones((3, n, n)))
    assert one_nna(flat) == pytest.approx((n - 1) / (2 * n - 1))
    jitter = 1 + 1e-13 * np.random.default_rng(0).random((3, n, n))
    assert one_nna(SetDistances(*jitter)) == pytest.approx((n - 1) / (2 * n - 1))


def test_one_nna_of_copies_is_zero_and_of_far_sets_one():
    a = shapes(30)
    assert one_nna(set_distances(a, a)) == 0.0
    assert one_nna(set_distances(a, shapes(30, 1, shift=200.0))) == 1.0


def test_one_nna_of_one_distribution_is_half():
    """Mean over 60 pairs of sets; its standard error is told by the pairs themselves."""
    n = 40
    values = np.array([
        one_nna(set_distances(shapes(n, 2 * k, 3), shapes(n, 2 * k + 1, 3))) for k in range(60)
    ])  # fmt: skip
    error = values.std(ddof=1) / np.sqrt(60)
    assert abs(values.mean() - (n - 1) / (2 * n - 1)) < 3.5 * error
    assert error < 0.015


def test_one_nna_needs_equal_sets():
    with pytest.raises(ValueError, match="as many real as synthetic shapes, 2 or more: 5, 4"):
        one_nna(set_distances(shapes(5), shapes(4, 1)))


def test_matching_distance_and_coverage_by_hand():
    sets = on_a_line([0, 10, 20, 30], [1, 2, 19])
    assert matching_distance(sets) == pytest.approx((1 + 8 + 1 + 11) / 4)
    assert set_coverage(sets) == 0.5
    # 15 chooses 10 or 20 with equal chances.
    assert set_coverage(on_a_line([0, 10, 20, 30], [15])) == pytest.approx(0.25)
    assert set_coverage(on_a_line([0, 10, 20, 30], [15, 15])) == pytest.approx(0.375)


def test_diversity_ratio_is_the_scale():
    a = shapes(12)
    shrunk = a.mean(axis=0) + 0.7 * (a - a.mean(axis=0))
    sets = set_distances(a, shrunk)
    assert diversity_ratio(sets) == pytest.approx(0.7)
    scaled = set_distances(10 * a, 10 * shrunk)
    for metric in (diversity_ratio, one_nna, set_coverage):
        assert metric(scaled) == pytest.approx(metric(sets))
    assert matching_distance(scaled) == pytest.approx(10 * matching_distance(sets))
    with pytest.raises(ValueError, match="synthetic shapes must differ"):
        diversity_ratio(set_distances(a, np.repeat(a[:1], 5, axis=0)))


def test_draws_are_a_prefix_and_of_equal_size():
    sets = set_distances(shapes(20), shapes(50, 1))
    sizes = []

    def size_of(drawn):
        sizes.append(drawn.cross.shape)
        return one_nna(drawn)

    many = repeat_draws(size_of, sets, draws=8, seed=3)
    assert set(sizes) == {(20, 20)}
    few = repeat_draws(one_nna, sets, draws=3, seed=3)
    np.testing.assert_array_equal(few.values, many.values[:3])
    assert many.mean == pytest.approx(many.values.mean())
    assert many.standard_error == pytest.approx(many.values.std(ddof=1) / np.sqrt(8))
    assert not np.array_equal(repeat_draws(one_nna, sets, draws=3, seed=4).values, few.values)


def test_paired_draws_keep_subject_and_sample_together():
    """Each synthetic shape carries its subject as a coordinate; cross shows who meets whom."""
    real = np.arange(7.0)
    subjects = np.array([3, 0, 6, 2, 1, 4, 5, 3, 3, 0, 6, 5, 2, 1, 4])
    sets = on_a_line(100 * real, 100 * real[subjects] + 1)
    own = repeat_draws(
        lambda d: float(d.cross.diagonal().max()), sets, subjects=subjects, size=5, draws=6
    )
    assert (own.values == 1.0).all()


def test_draw_faults_are_told():
    sets = set_distances(shapes(6), shapes(6, 1))
    with pytest.raises(ValueError, match=r"all draws of 6 .* are the same"):
        repeat_draws(one_nna, sets)
    assert len(repeat_draws(one_nna, sets, draws=1).values) == 1
    assert np.isnan(repeat_draws(one_nna, sets, draws=1).standard_error)
    with pytest.raises(ValueError, match="size must be 2 to 6"):
        repeat_draws(one_nna, sets, size=7)
    with pytest.raises(ValueError, match="5 of 6 real shapes have no synthetic one"):
        repeat_draws(one_nna, sets, subjects=np.zeros(6, dtype=int))
    with pytest.raises(ValueError, match="subjects must be 6 rows of the 6 real shapes"):
        repeat_draws(one_nna, sets, subjects=np.arange(1, 7))
    with pytest.raises(ValueError, match="real must be distances"):
        SetDistances(np.ones((3, 3)), np.ones((4, 4)), np.ones((4, 4)))
    with pytest.raises(ValueError, match="b must be shapes"):
        vertex_distances(shapes(3), np.ones((3, 5)))
    with pytest.raises(ValueError, match="shapes must correspond"):
        vertex_distances(shapes(3), shapes(3, vertices=4))
    broken = shapes(3)
    broken[1, 0, 2] = np.nan
    with pytest.raises(ValueError, match="shapes must be finite, got 1 failed"):
        nearest_shapes(shapes(3), broken)


def test_modes_and_compactness():
    """Orthonormal directions of known variances come back, whatever the mean."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(31, 4))
    scores = np.linalg.qr(scores - scores.mean(axis=0))[0] * np.sqrt(30)
    axes = np.linalg.qr(rng.normal(size=(33, 4)))[0].T
    sd = np.array([9.0, 4.0, 2.0, 1.0])
    built = shapes(1) + (scores * sd @ axes).reshape(31, 11, 3)
    np.testing.assert_allclose(mode_variances(built, block=8), sd**2 / 11, rtol=1e-9)
    np.testing.assert_allclose(compactness(built), np.cumsum(sd**2) / 102, rtol=1e-9)
    errors = generalization(built, [0, 2, 4], folds=31)
    assert errors.shape == (31, 3)
    assert (np.diff(errors, axis=1) <= 1e-9).all()
    np.testing.assert_allclose(errors[:, 2], 0.0, atol=1e-5)


def test_generalization_is_a_pca_of_the_others():
    x = shapes(19)
    errors = generalization(x, [0, 1, 5], folds=19, block=5)
    for i in (0, 7, 18):
        others = np.delete(x, i, axis=0).reshape(18, -1)
        gap = x[i].ravel() - others.mean(axis=0)
        axes = np.linalg.svd(others - others.mean(axis=0), full_matrices=False)[2]
        for column, modes in enumerate((0, 1, 5)):
            rest = gap - axes[:modes].T @ (axes[:modes] @ gap)
            assert errors[i, column] == pytest.approx(np.sqrt(rest @ rest / 11), rel=1e-7)
    parts = generalization(x, [3], folds=4, seed=1)
    np.testing.assert_array_equal(parts, generalization(x, [3], folds=4, seed=1))


def test_specificity():
    a = shapes(9)
    assert specificity(a[:4], a) == 0.0
    assert specificity(a[:4] + np.array([0.0, 0.003, 0.004]), a) == pytest.approx(0.005)


def test_model_faults_are_told():
    with pytest.raises(ValueError, match="modes must lie in 0 to 6"):
        generalization(shapes(9), [7], folds=9 - 1)
    with pytest.raises(ValueError, match="folds must be 2 to 9"):
        generalization(shapes(9), [1])
    with pytest.raises(ValueError, match="shapes must differ"):
        mode_variances(np.ones((4, 5, 3)))
    with pytest.raises(ValueError, match="at least 2 shapes"):
        mode_variances(shapes(1))


def test_real_ventricles_halves_look_alike(real_data):
    """Two halves of one cohort: no nearest neighbor tells them apart."""
    stored = np.load(real_data / "mesa_lv_dev1000" / "shapes.npz")["ed"][:, ::7]
    sets = set_distances(stored[0:400:2] / 100.0, stored[1:400:2] / 100.0)
    told = repeat_draws(one_nna, sets, size=150)
    assert abs(told.mean - 0.5) < 0.08
    assert diversity_ratio(sets) == pytest.approx(1.0, abs=0.08)
