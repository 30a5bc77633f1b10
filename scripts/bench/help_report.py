"""What the runs say: means of all, paired differences, bootstrap intervals, the verdict."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.help_shifts import OUTSIDE, WITHIN

_DRAWS = 10_000
_GAIN, _LOSS = 2.0, 0.5  # Dice points out of domain and in domain
_COLLAPSED = 0.3  # Dice of a structure in domain below which it is lost
_GROUPS = {"in domain": ("in_domain",), "within": tuple(WITHIN), "outside": tuple(OUTSIDE)}
_STRUCTURES = ["dice_lv", "dice_myo", "dice_rv"]
_RUN = ["patients", "subset", "arm"]
# Arm, and the one that it is held against.
_PAIRS = (
    ("random", "none"), ("random_long", "random"), ("consistency", "random"),
    ("adversarial", "consistency"), ("adversarial", "random_long"), ("both", "random_long"),
    ("shape", "adversarial"), ("shape", "random_long"), ("synthetic", "random"),
)  # fmt: skip


def report(rows: pd.DataFrame) -> str:
    """Return the text of the report: every arm, every pair, and what was asked for."""
    scores = by_run(rows)
    lines = ["Dice (%), mean over runs; collapsed: runs that lost a structure in domain", ""]
    columns = [*_GROUPS, "out of domain", "cpu_s", "collapsed"]
    means = scores.groupby(["patients", "arm"])[columns].mean()
    means["collapsed"] = scores.groupby(["patients", "arm"])["collapsed"].sum()
    means["runs"] = scores.groupby(["patients", "arm"]).size()
    lines += [means.to_string(float_format=lambda x: f"{x:.1f}"), ""]
    lines += ["Paired differences (Dice points), with 95 % bootstrap intervals over runs", ""]
    for arm, other in _PAIRS:
        lines += [text for group in ("in domain", "within", "outside", "out of domain")
                  if (text := _line(scores, arm, other, group))]  # fmt: skip
    return "\n".join([*lines, "", verdict(scores)])


def by_run(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each run: means over groups of shifts, in percent, and collapse."""
    table = rows.set_index([*_RUN, "shift"]).sort_index()
    found = {}
    for run, part in table.groupby(level=_RUN):
        dice = part["dice"].droplevel(_RUN) * 100
        groups = {g: dice.reindex(list(names)).mean() for g, names in _GROUPS.items()}
        shifted = dice.drop("in_domain", errors="ignore")
        inside = part.xs("in_domain", level="shift")[_STRUCTURES]
        found[run] = groups | {
            "out of domain": shifted.mean(),
            "cpu_s": part["cpu_s"].iloc[0],
            "collapsed": float((inside < _COLLAPSED).any(axis=None)),
        }
    return pd.DataFrame.from_dict(found, orient="index").rename_axis(_RUN).reset_index()


def difference(scores: pd.DataFrame, arm: str, other: str, group: str) -> NDArray[np.float64]:
    """Return ``arm - other`` of every pair of runs with one training set and seed."""
    wide = scores.pivot(index=["patients", "subset"], columns="arm", values=group)
    if not {arm, other} <= set(wide.columns):
        return np.zeros(0)
    return (wide[arm] - wide[other]).dropna().to_numpy()


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a mean."""
    rng = np.random.default_rng(0)
    means = rng.choice(values, size=(_DRAWS, len(values))).mean(axis=1)
    return tuple(float(p) for p in np.percentile(means, (2.5, 97.5)))


def verdict(scores: pd.DataFrame, arm: str = "adversarial") -> str:
    """Return whether the adversary may be said to help."""
    gain = difference(scores, arm, "random_long", "out of domain")
    loss = -difference(scores, arm, "random_long", "in domain")
    if len(gain) < 2:
        return "verdict: too few pairs of runs to say"
    low, _ = interval(gain)
    lost = scores.groupby("arm")["collapsed"].sum()
    met = {
        f"gain out of domain {gain.mean():.1f} >= {_GAIN}": gain.mean() >= _GAIN,
        f"its interval from {low:.1f} above 0": low > 0,
        f"loss in domain {loss.mean():.1f} <= {_LOSS}": loss.mean() <= _LOSS,
        f"collapses {lost[arm]:.0f} <= {lost['random_long']:.0f}": lost[arm]
        <= lost["random_long"],
    }
    words = "; ".join(f"{text}: {'met' if ok else 'missed'}" for text, ok in met.items())
    passed = "PASS" if all(met.values()) else "NOT PASSED: it ships off by default"
    return f"verdict, {arm} against random at equal CPU time: {passed} ({words})"


def _line(scores: pd.DataFrame, arm: str, other: str, group: str) -> str:
    values = difference(scores, arm, other, group)
    if not len(values):
        return ""
    low, high = interval(values)
    return (f"{arm:>12} - {other:<12} {group:<14} {values.mean():+6.1f}  [{low:+.1f}, {high:+.1f}]"
            f"  {len(values)} pairs")  # fmt: skip
