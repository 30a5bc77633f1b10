"""The ranking by hand: significant pairs, ties, geometric mean, hardest entries."""

from itertools import product

import numpy as np
import pytest

from registration.metrics import Measure, rank_methods, rank_scores, robust_subset
from registration.metrics import significance_points as points_of


def test_ties_share_the_mean_of_their_ranks():
    """Six methods: the scale is .1, .28, .46, .64, .82, 1."""
    found = rank_scores([0, 2, 4, 3, 4, 0])
    assert found == pytest.approx([0.19, 0.46, 0.91, 0.64, 0.91, 0.19])
    assert rank_scores([5, 5, 5]) == pytest.approx([0.55] * 3)
    assert rank_scores([-3, 0]) == pytest.approx([0.1, 1.0])


def slow_better(a, b):
    """Rank-sum test from its definition: normal approximation, two-sided 5 %, a larger."""
    wins = sum((x > y) + 0.5 * (x == y) for x, y in product(a, b))
    n, m = len(a), len(b)
    z = (wins - n * m / 2) / np.sqrt(n * m * (n + m + 1) / 12)
    return z > 1.959963984540054


@pytest.mark.parametrize("larger_is_better", [True, False])
def test_points_are_significant_pairs(larger_is_better):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(5, 30)) + np.array([0, 0.1, 0.6, 0.65, 2.0])[:, None]
    values = values if larger_is_better else -values
    signed = values if larger_is_better else -values
    beats = np.array([[slow_better(a, b) for b in signed] for a in signed])
    losses = points_of(values, larger_is_better=larger_is_better)
    wins = points_of(values, larger_is_better=larger_is_better, points="wins")
    assert losses.tolist() == (-beats.sum(axis=0)).tolist()
    assert wins.tolist() == beats.sum(axis=1).tolist()
    assert losses.argmax() == wins.argmax() == 4


def test_losses_and_wins_can_differ():
    """A wide spread loses to nobody and beats nobody: first by losses, last by wins."""
    steps = np.linspace(-0.1, 0.1, 20)
    wide = np.linspace(-10, 10, 20)
    values = np.stack([steps, steps + 1, wide])
    assert points_of(values, larger_is_better=True).tolist() == [-1, 0, 0]
    assert points_of(values, larger_is_better=True, points="wins").tolist() == [0, 1, 0]


def test_task_rank_is_the_geometric_mean():
    """Dice puts a over b over c, TRE c over the tied others."""
    steps = np.linspace(0, 0.01, 20)
    dice = np.stack([steps + 0.9, steps + 0.8, steps + 0.7])
    tre = np.stack([steps + 3, steps + 3, steps + 1])
    measures = {
        "dice": Measure(dice.reshape(3, 4, 5), larger_is_better=True),
        "tre": Measure(tre, larger_is_better=False),
    }
    table = rank_methods(["a", "b", "c"], measures)
    assert table.loc["a"].tolist() == pytest.approx([1.0, 0.325, np.sqrt(0.325)])
    assert table.loc["b"].tolist() == pytest.approx([0.55, 0.325, np.sqrt(0.55 * 0.325)])
    assert table.loc["c"].tolist() == pytest.approx([0.1, 1.0, np.sqrt(0.1)])
    assert table.index.tolist() == ["a", "b", "c"]
    measures["tre"] = Measure(tre, larger_is_better=False, weight=2.0)
    weighted = rank_methods(["a", "b", "c"], measures)
    assert weighted.loc["c", "rank"] == pytest.approx(0.1 ** (1 / 3))


def test_hardest_entries_are_those_of_the_initial_state():
    initial = np.array([[0.9, 0.1, 0.5, 0.8, 0.7], [0.2, 0.6, 0.95, 0.85, 0.65]])
    values = np.stack([np.arange(10.0).reshape(2, 5), 10 + np.arange(10.0).reshape(2, 5)])
    found = robust_subset(values, initial, larger_is_better=True)
    assert found.tolist() == [[1, 5, 2], [11, 15, 12]]
    by_case = robust_subset(values, initial, larger_is_better=False, by_case=True, fraction=0.4)
    assert by_case.tolist() == [[3, 0, 8, 7], [13, 10, 18, 17]]


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="must not hold NaN"):
        points_of([[1.0, np.nan], [1.0, 2.0]], larger_is_better=True)
    with pytest.raises(ValueError, match='"losses" or "wins"'):
        points_of([[1.0], [2.0]], larger_is_better=True, points="draws")
    with pytest.raises(ValueError, match="a row for each of 2 methods"):
        rank_methods(["a", "b"], {"dice": Measure(np.zeros((3, 4)), larger_is_better=True)})
    with pytest.raises(ValueError, match="must not be empty"):
        rank_methods(["a", "b"], {})
    with pytest.raises(ValueError, match="initial"):
        robust_subset(np.zeros((2, 3, 4)), np.zeros((3, 5)), larger_is_better=True)
