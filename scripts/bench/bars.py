"""The numbers that the kernels must reach, and whether a run reached them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.cases import FORWARD, TO_FIELD
from bench.contenders import ALONE, FORMULA, MONAI, OURS
from bench.measure import FLOOR, ONE_THREAD, Row


@dataclass(frozen=True)
class Run:
    """Rows of a run and the bandwidth of a large copy beside them, bytes per second."""

    rows: list[Row]
    bandwidth: float
    device: str
    quick: bool

    def row(self, case: str, pass_name: str, contender: str) -> Row | None:
        """Return the row of a contender, or None if it was not measured."""
        key = (case, pass_name, contender)

        return next((r for r in self.rows if (r.case, r.pass_name, r.contender) == key), None)


@dataclass(frozen=True)
class Bar:
    """A bar: what it says, which device it is for, how it is measured, and its limit.

    Quick runs have sizes that the bars do not mean, and answer only those for any device.
    """

    what: str
    device: str
    measure: Callable[[Run], float | None]
    limit: float
    at_most: bool = False
    form: str = "{:.1f}x"

    def result(self, run: Run) -> tuple[str, str, str]:
        """Return wanted, measured, and met or missed."""
        wanted = ("≤ " if self.at_most else "≥ ") + self.form.format(self.limit)
        counts = self.device == "any" or (self.device == run.device and not run.quick)
        value = self.measure(run) if counts else None
        if value is None:
            return wanted, "not measured", "-"
        met = value <= self.limit if self.at_most else value >= self.limit

        return wanted, self.form.format(value), "met" if met else "missed"


def _faster(case: str, pass_name: str, contender: str) -> Callable[[Run], float | None]:
    def measure(run: Run) -> float | None:
        row = run.row(case, pass_name, contender)
        return row.speedup if row else None

    return measure


def _floors(run: Run) -> float | None:
    row = run.row("warp 128³", FORWARD, FLOOR)

    return 1 / row.speedup if row else None


def _bandwidth_share(run: Run) -> float | None:
    row = run.row("warp 192³", FORWARD, OURS)

    return row.gb_per_s * 1e9 / run.bandwidth if row else None


def _memory_share(run: Run) -> float | None:
    ours, formula = (run.row("svf 160³", TO_FIELD, name) for name in (OURS, FORMULA))
    if not (ours and formula and ours.peak_mib is not None and formula.peak_mib):
        return None

    return ours.peak_mib / formula.peak_mib


def _worst(run: Run, *, forward: bool) -> float | None:
    """Return the largest error of ours: absolute of results, relative (L2) of gradients."""
    rows = [r for r in run.rows if r.contender == OURS and (r.pass_name == FORWARD) == forward]
    errors = [r.max_error if forward else r.relative_error for r in rows]

    return max(errors, default=None)


BARS = (
    Bar("warp 128³ forward, formula", "cpu", _faster("warp 128³", FORWARD, FORMULA), 14),
    Bar("warp 128³ forward, grid_sample alone", "cpu", _faster("warp 128³", FORWARD, ALONE), 11),
    Bar("warp 128³ forward, MONAI", "cpu", _faster("warp 128³", FORWARD, MONAI), 18),
    Bar("warp 128³ forward, multiple of the memory floor", "cpu", _floors, 2.3, at_most=True),
    Bar("warp 128³ forward+backward to field, formula", "cpu",
        _faster("warp 128³", TO_FIELD, FORMULA), 10),
    Bar("SVF 96³ forward, formula", "cpu", _faster("svf 96³", FORWARD, FORMULA), 14),
    Bar("SVF 96³ forward+backward, formula", "cpu", _faster("svf 96³", TO_FIELD, FORMULA), 8),
    Bar("2D 60x256² forward, formula", "cpu", _faster("warp 60x256²", FORWARD, FORMULA), 7),
    Bar("sequence 30x12x256² forward, formula", "cpu",
        _faster("warp sequence 30x12x256²", FORWARD, FORMULA), 12),
    Bar("sequence 30x12x256² forward+backward, formula", "cpu",
        _faster("warp sequence 30x12x256²", TO_FIELD, FORMULA), 10),
    Bar("1 -> 2 threads, warp 128³ forward", "cpu", _faster("warp 128³", FORWARD, ONE_THREAD),
        1.7, form="{:.2f}x"),
    Bar("1 -> 2 threads, warp 128³ forward+backward", "cpu",
        _faster("warp 128³", TO_FIELD, ONE_THREAD), 1.7, form="{:.2f}x"),
    Bar("1 -> 2 threads, SVF 96³ forward", "cpu", _faster("svf 96³", FORWARD, ONE_THREAD), 1.7,
        form="{:.2f}x"),
    Bar("1 -> 2 threads, SVF 96³ forward+backward", "cpu",
        _faster("svf 96³", TO_FIELD, ONE_THREAD), 1.7, form="{:.2f}x"),
    Bar("GPU warp 192³ forward, share of copy bandwidth", "cuda", _bandwidth_share, 0.6,
        form="{:.0%}"),
    Bar("GPU warp 192³ forward, formula", "cuda", _faster("warp 192³", FORWARD, FORMULA), 3),
    Bar("GPU SVF 160³ forward+backward, formula", "cuda",
        _faster("svf 160³", TO_FIELD, FORMULA), 3),
    Bar("GPU SVF 160³ forward+backward, peak memory of the formula's", "cuda", _memory_share,
        0.5, at_most=True, form="{:.0%}"),
    Bar("largest error of a result against float64", "any",
        lambda run: _worst(run, forward=True), 1e-5, at_most=True, form="{:.1e}"),
    Bar("largest relative error of a gradient against float64", "any",
        lambda run: _worst(run, forward=False), 1e-4, at_most=True, form="{:.1e}"),
)  # fmt: skip
