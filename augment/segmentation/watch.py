"""What a training tells of itself: structures that a network has lost, and what a search did.

Every number is a sum or a mean over the steps of a row of ``log.csv``, or a row of
``validation.csv``, and everything else is made from those rows at the end. So nothing is lost when
a run is interrupted, and watching changes no bit of what is learned.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Listing
from dataclasses import dataclass

import torch
from torch import Tensor

from augment.diagnostics import Diagnostics
from augment.guards import CollapseMonitor, found_and_there
from augment.segmentation.prepare import CLASSES
from augment.segmentation.unet import main_logits
from cardiogen.base import Note
from cardiogen.data import Structure
from cardiogen.engine.fit import Fitted

Row = dict[str, float]
PREFIX = "adversary/"
# By channel, without background.
_STRUCTURES = tuple(s.name for s in (Structure.LV, Structure.MYO, Structure.RV))
_NAMES = tuple(name.lower() for name in _STRUCTURES)
_NAN = float("nan")


@dataclass(frozen=True)
class Lost:
    """A structure that a network does not find.

    Attributes:
        structure: its name.
        recall: share of it that is found.
        step: when that was seen.
        last_found: step when it was last seen to be found; None for never.
        on: ``the validation`` or ``training patches``.
    """

    structure: str
    recall: float
    step: int
    last_found: int | None
    on: str

    def note(self) -> Note:
        """Return this as a note for the user."""
        since = "never found" if self.last_found is None else f"last found at {self.last_found}"
        return Note(
            "M31", f"network, {self.structure}",
            f"collapsed: {self.recall:.0%} of it is found in {self.on} at step {self.step}, "
            f"{since}; more steps, a weaker or later agreement (weight, ramp_share), or "
            "another seed may help",
        )  # fmt: skip


@torch.no_grad()
def chosen(scores: Tensor) -> Tensor:
    """Return the most probable class as one-hot ``(B, K, *S)`` float32, none where NaN is.

    A network that has learned nothing gives every class a share of every voxel: only what it
    decides for says that it finds a structure.

    Args:
        scores: probabilities or logits ``(B, K, *S)``.
    """
    hot = torch.zeros_like(scores, dtype=torch.float32)
    # The same as argmax in an eighth of its time, which is a tenth of a step on a CPU.
    hot.scatter_(1, scores.max(dim=1, keepdim=True).indices, 1.0)
    return hot * ~scores.isnan().any(dim=1, keepdim=True)


@torch.no_grad()
def batch_shares(output: Tensor | list[Tensor], target: Tensor) -> dict[str, Tensor]:
    """Return the share of a batch's pixels that is a structure, and the share that is found.

    Their sums over steps give a recall that batches without a structure do not spoil.

    Args:
        output: logits ``(B, 4, H, W)``, or a list that begins with them.
        target: shares of classes ``(B, 4, H, W)``, background first.
    """
    choice = chosen(main_logits(output))
    pixels = choice.numel() / choice.shape[1]
    found, there = (part[1:] / pixels for part in found_and_there(choice, target))
    return {
        **{f"found_{name}": value for name, value in zip(_NAMES, found, strict=True)},
        **{f"there_{name}": value for name, value in zip(_NAMES, there, strict=True)},
    }


def recalls(found: Tensor, there: Tensor) -> dict[str, float]:
    """Return the recall of every structure, NaN for one that is not there.

    Args:
        found: sums by class ``(4,)``, background first; see ``augment.guards.found_and_there``.
        there: the same of what there is.
    """
    parts = zip(_NAMES, found[1:].tolist(), there[1:].tolist(), strict=True)
    return {f"recall_{name}": f / t if t else _NAN for name, f, t in parts}


def collapse_table(fitted: Fitted) -> list[dict[str, object]]:
    """Return recalls and the names of what is collapsed, for every row that tells them.

    Columns ``step``, ``recall_lv``, ``recall_myo``, ``recall_rv`` (NaN for one that was not
    there) and ``collapsed``; from the validation if there was one, else from the log.
    """
    return [
        {"step": step, **dict(zip([f"recall_{n}" for n in _NAMES], found, strict=True)),
         "collapsed": " ".join(_STRUCTURES[k] for k in sorted(collapsed))}
        for step, found, collapsed in _watched(fitted)
    ]  # fmt: skip


def lost_structures(fitted: Fitted) -> list[Lost]:
    """Return what the trained network has lost, or never learned: of the weights it was given."""
    rows = list(_watched(fitted))
    if fitted.best_step is not None:
        # The weights are those of that step, whatever came after.
        rows = [row for row in rows if row[0] <= fitted.best_step]
    if not rows:
        return []
    step, found, collapsed = rows[-1]
    on = "the validation" if fitted.validation else "training patches"
    return [
        Lost(_STRUCTURES[k], found[k], step,
             max((s for s, _, gone in rows if k not in gone), default=None), on)
        for k in sorted(collapsed)
    ]  # fmt: skip


def _watched(fitted: Fitted) -> Iterator[tuple[int, list[float], set[int]]]:
    """Yield step, recalls and collapsed structures (by number) of every row."""
    # A row is a mean over patients or over many batches already.
    monitor = CollapseMonitor(decay=0.0, patience=1)
    for row in fitted.validation or fitted.history:
        found, there = _sums(row)
        monitor.add(found, there)
        shown = torch.where(there > 0, found / there, _NAN).tolist()
        yield int(row["step"]), shown, set(monitor.collapsed)


def _sums(row: Row) -> tuple[Tensor, Tensor]:
    """Return what is found and what is there by structure, 0 there for what cannot be judged."""
    if f"recall_{_NAMES[0]}" in row:
        found = torch.tensor([row[f"recall_{n}"] for n in _NAMES])
        return found.nan_to_num(), (~found.isnan()).float()
    found = torch.tensor([row[f"found_{n}"] for n in _NAMES])
    # A row whose steps were all skipped has NaN: they changed nothing, so they tell nothing.
    return found, torch.tensor([row[f"there_{n}"] for n in _NAMES]).nan_to_num()


def told_names(transforms: Listing[str]) -> tuple[str, ...]:
    """Return the columns of ``log.csv`` for the search of a chain of these transforms."""
    return tuple(PREFIX + name for name in Diagnostics.sum_names(transforms, CLASSES))


def adversary_table(fitted: Fitted) -> list[dict[str, object]]:
    """Return what the search did in every row of the log; no rows for a training without.

    Columns ``step``, ``steps`` (how many were searched in), ``risen`` (share that ended above the
    random start), ``rise`` (loss over that of the start), ``strength/NAME`` (share of a
    transform's bound that is used) and ``worst/STRUCTURE``, the transform whose chains cost it
    most overlap. None where a row tells nothing of it.
    """
    return [
        {"step": int(row["step"]), **_summary(sums, _transforms(sums))}
        for row, sums in _searched(fitted)
    ]


def adversary_summary(fitted: Fitted) -> dict[str, object]:
    """Return the same over the whole training; empty for one without a search."""
    total: Row = {}
    for _, sums in _searched(fitted):
        total = {name: total.get(name, 0.0) + value for name, value in sums.items()}
    return _summary(total, _transforms(total)) if total else {}


def _searched(fitted: Fitted) -> Iterator[tuple[Row, Row]]:
    """Yield the rows of the log with their sums over the steps of a search."""
    before = 0
    for row in fitted.history:
        count, before = row["step"] - before - row["skipped"], row["step"]
        # Without a step that counted, means are NaN.
        sums = {name.removeprefix(PREFIX): value * count if count else 0.0
                for name, value in row.items() if name.startswith(PREFIX)}  # fmt: skip
        if sums:
            yield row, sums


def _transforms(sums: Row) -> list[str]:
    return [name.removeprefix("used/") for name in sums if name.startswith("used/")]


def _summary(sums: Row, transforms: list[str]) -> dict[str, object]:
    seen = Diagnostics.of_sums(sums, transforms, CLASSES).summary()
    return {
        "steps": round(sums["steps"]),
        **{name: seen.get(name) for name in ("risen", "rise")},
        **{f"strength/{name}": seen.get(f"strength/{name}") for name in transforms},
        **{f"worst/{s}": seen.get(f"worst/{k}") for k, s in enumerate(_STRUCTURES, start=1)},
    }
