"""Which subjects train, validate and test: named ones, or counts drawn by a seed."""

from __future__ import annotations

from collections.abc import Sequence as Listing
from dataclasses import dataclass

from augment.segmentation.config import DataConfig
from cardiogen.base import CardiogenError, keyed_rng
from cardiogen.data import Subject


@dataclass(frozen=True)
class Split:
    """Subjects by part, each in the order of their ids."""

    train: tuple[Subject, ...]
    validation: tuple[Subject, ...]
    test: tuple[Subject, ...]


def split_subjects(subjects: Listing[Subject], config: DataConfig) -> Split:
    """Return the parts that ``config`` names or counts; no subject is in two.

    Counted parts are drawn from one order of all subjects: the test from its end, then the
    validation, the training from its start. So a larger training holds a smaller one, and neither
    number changes the test.

    Raises:
        CardiogenError: C29 for ids that the cohort lacks or that are named twice, C28 for more
            subjects than there are.
    """
    by_id = {subject.subject_id: subject for subject in subjects}
    named = _named(config, by_id)
    ordered = [s.subject_id for s in sorted(subjects, key=lambda s: s.subject_id)]
    order = keyed_rng(config.split_seed, "segmentation/split").permutation(len(ordered))
    free = [ordered[i] for i in order if ordered[i] not in set().union(*named.values())]
    parts: dict[str, list[str]] = {}
    for name in ("test", "validation", "train"):
        wanted = getattr(config, name)
        if not isinstance(wanted, int):
            parts[name] = list(named[name])
            continue
        count = len(free) if wanted == -1 else wanted
        if count > len(free):
            raise CardiogenError(
                "C28", f"data.{name}", found=f"{len(free)} subjects left for {count}",
                expected=f"{count} besides the other parts of a cohort of {len(subjects)}",
                remedy="fewer subjects",
            )  # fmt: skip
        taken = free[:count] if name == "train" else free[len(free) - count :]
        free = [each for each in free if each not in taken]
        parts[name] = taken
    return Split(**{name: tuple(by_id[i] for i in sorted(ids)) for name, ids in parts.items()})


def _named(config: DataConfig, by_id: dict[str, Subject]) -> dict[str, tuple[str, ...]]:
    """Return the ids of the parts that are named."""
    named = {
        name: getattr(config, name)
        for name in ("train", "validation", "test")
        if not isinstance(getattr(config, name), int)
    }
    every = [each for ids in named.values() for each in ids]
    for each in every:
        if each not in by_id or every.count(each) > 1:
            raise CardiogenError(
                "C29", "data", found=f"subject {each!r}, "
                + ("named twice" if each in by_id else "which the cohort lacks"),
                expected="ids of the cohort, each in one part", remedy="checking the names",
            )  # fmt: skip
    return named
