"""The experiment "does it help?": shifts do what they say, differences are paired, verdicts."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts"))

from bench.help_report import by_run, difference, interval, report, verdict
from bench.help_shifts import SHIFTS

from cardiogen.data import Structure

STRUCTURES = ("dice_lv", "dice_myo", "dice_rv")


def rows(gain: float = 0.0, lost: float = 0.9) -> pd.DataFrame:
    """Rows of two arms; the adversary is better by ``gain`` out of domain."""
    found = []
    for subset in range(4):
        for arm in ("random_long", "adversarial"):
            for shift in SHIFTS:
                dice = 0.8 if shift == "in_domain" else 0.5 + 0.01 * subset
                dice += gain * (arm == "adversarial" and shift != "in_domain")
                found.append(
                    {"patients": 3, "subset": subset, "seed": subset, "arm": arm, "shift": shift,
                     "steps": 10, "cpu_s": 5.0, "dice": dice, "hd95_mm": 4.0, "missed": 0}
                    | dict.fromkeys(STRUCTURES, dice) | {"dice_rv": lost}
                )  # fmt: skip
    return pd.DataFrame(found)


def test_differences_are_paired_and_in_points():
    scores = by_run(rows(0.03))
    np.testing.assert_allclose(
        difference(scores, "adversarial", "random_long", "out of domain"), 3.0
    )
    np.testing.assert_allclose(difference(scores, "adversarial", "random_long", "in domain"), 0.0)
    assert len(difference(scores, "shape", "random", "in domain")) == 0


def test_the_interval_of_a_mean_is_that_of_its_spread():
    values = np.random.default_rng(1).normal(2.0, 3.0, size=400)
    low, high = interval(values)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.05)
    assert high == pytest.approx(values.mean() + half, abs=0.05)


@pytest.mark.parametrize(("gain", "word"), [(0.03, ": PASS ("), (0.01, "NOT PASSED")])
def test_the_verdict_follows_the_bars(gain, word):
    assert word in verdict(by_run(rows(gain)))
    assert word in report(rows(gain))


def test_lost_structures_are_collapses():
    assert by_run(rows(lost=0.1))["collapsed"].sum() == 8
    assert by_run(rows())["collapsed"].sum() == 0


@pytest.mark.parametrize("name", SHIFTS)
def test_shifts_keep_hearts_and_are_the_same_every_time(heart, name):
    shifted, again = (SHIFTS[name](heart, 3) for _ in range(2))
    np.testing.assert_array_equal(shifted.images, again.images)
    assert shifted.images.dtype == np.float32
    for structure in (Structure.LV, Structure.MYO):
        count, true = ((s.labels[0] == structure).sum() for s in (shifted, heart))
        assert count == pytest.approx(true, rel=0.03)
    if name != "in_domain":
        assert not np.array_equal(shifted.images, heart.images)


def test_inversion_turns_the_contrast_round(heart):
    def contrast(sequence):
        means = [sequence.images[0][sequence.labels[0] == s].mean() for s in (1, 2)]
        return means[0] - means[1]

    assert contrast(SHIFTS["inversion"](heart, 0)) == pytest.approx(-contrast(heart), rel=1e-4)
