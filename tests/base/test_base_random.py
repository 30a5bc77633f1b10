"""Randomness is a pure function of (seed, purpose, index); no global state is read or changed."""

import numpy as np
import pytest

from cardiogen.base import keyed_rng, keyed_seed


def draw(*key):
    return keyed_rng(*key).standard_normal(5)


def test_equal_keys_give_equal_bits():
    assert np.array_equal(draw(3, "shape", 7), draw(3, "shape", 7))


@pytest.mark.parametrize("other", [(4, "shape", 7), (3, "motion", 7), (3, "shape", 8)])
def test_other_keys_give_other_bits(other):
    assert not np.array_equal(draw(3, "shape", 7), draw(*other))
    assert keyed_seed(3, "shape", 7) != keyed_seed(*other)


def test_item_is_the_same_in_any_order():
    forward = [draw(1, "x", i) for i in range(4)]
    backward = [draw(1, "x", i) for i in reversed(range(4))][::-1]
    assert np.array_equal(forward, backward)


def test_global_state_is_neither_read_nor_changed():
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = draw(1, "x", 0)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    assert np.array_equal(draw(1, "x", 0), first)


def test_streams_are_independent_normals():
    draws = np.array([keyed_rng(5, "x", i).standard_normal(50) for i in range(400)])
    # 20,000 draws: the mean has SD 1/141, the correlation of neighbors 1/sqrt(400 * 50).
    assert abs(draws.mean()) < 5 / 141
    assert abs((draws[:-1] * draws[1:]).mean()) < 5 / 141


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_out_of_range(seed):
    with pytest.raises(ValueError, match="seed must be in"):
        keyed_rng(seed, "x")


def test_negative_index():
    with pytest.raises(ValueError, match="index must not be negative"):
        keyed_seed(0, "x", -1)


def test_seeds_fit_63_bits_and_largest_seed_works():
    assert all(0 <= keyed_seed(2**64 - 1, "x", i) < 2**63 for i in range(100))
