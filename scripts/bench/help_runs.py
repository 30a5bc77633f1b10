"""Runs of "does augmentation help?": paired arms, one row of a CSV for each run and shift."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from augment.segmentation import (
    AugmentationConfig,
    Frame,
    ImageConfig,
    NetworkConfig,
    PredictionConfig,
    SegmentationConfig,
    overlap_table,
    population_sequence,
    prepare_sequence,
    segment_sequence,
    summarize,
    train_segmentation,
)
from augment.segmentation.build import build_arm
from augment.shape_space import ShapeSpace
from bench.help_shifts import SHIFTS
from cardiogen.base import keyed_rng
from cardiogen.data import Sequence, Subject, load_sequence, read_cohort
from cardiogen.engine.fit import FitConfig

# In the order in which they run: what comes first tells the others their steps.
ARMS = ("adversarial", "random", "random_long", "consistency", "none", "shape", "both",
        "synthetic")  # fmt: skip
COLUMNS = ("patients", "subset", "seed", "arm", "shift", "steps", "cpu_s", "dice", "dice_lv",
           "dice_myo", "dice_rv", "hd95_mm", "missed")  # fmt: skip

_WARM_UP = 3

# Arm to what it sets; ``both`` learns labels on random transforms and agreement on hard ones.
_SETTINGS: dict[str, dict[str, object]] = {
    "none": {"arm": "none"},
    "random": {"arm": "random"},
    "random_long": {"arm": "random"},
    "synthetic": {"arm": "random"},
    "consistency": {"arm": "consistency"},
    "adversarial": {"arm": "adversarial"},
    "shape": {"arm": "shape"},
    "both": {"arm": "adversarial", "supervised": "random"},
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is compared.

    Attributes:
        cohort: folder of the patients.
        arms: names of ``ARMS``.
        patients: sizes of the training.
        subsets: draws of training patients; each is also a seed of the network.
        steps: of every arm but ``random_long``.
        test: patients of the test, the same for all runs.
        shifts: names of ``SHIFTS``.
        hearts: synthetic ones of the arm ``synthetic``.
    """

    cohort: Path
    arms: tuple[str, ...] = ARMS
    patients: tuple[int, ...] = (1, 3, 10)
    subsets: int = 3
    steps: int = 1000
    test: int = 10
    shifts: tuple[str, ...] = tuple(SHIFTS)
    hearts: int = 30


class Comparison:
    """All runs of a plan, with the hearts that they share.

    Args:
        plan: what is compared.
        file: CSV that holds the rows; runs that it has are not made again.
    """

    def __init__(self, plan: Plan, file: Path) -> None:
        self.plan, self.file = plan, file
        order = keyed_rng(0, "help/patients").permutation(len(self.subjects))
        self.test = [self.subjects[i] for i in order[: plan.test]]
        self.rest = [self.subjects[i] for i in order[plan.test :]]
        if max(plan.patients) > len(self.rest):
            raise ValueError(f"patients must be at most {len(self.rest)}, got {plan.patients}")

    @cached_property
    def subjects(self) -> list[Subject]:
        """Patients of the cohort."""
        return read_cohort(self.plan.cohort)

    @cached_property
    def test_hearts(self) -> list[Sequence]:
        """Patients of the test, with images."""
        return [load_sequence(subject, images=True) for subject in self.test]

    @cached_property
    def synthetic(self) -> list[Frame]:
        """Frames of hearts of the reference population."""
        image = self.settings("random", 1, 0).image
        place = {"spacing_mm": image.spacing_mm, "size": image.patch}
        hearts = (population_sequence(0, index, **place) for index in range(self.plan.hearts))
        return [f for h in hearts for f in prepare_sequence(h, image, frames="ed+es")]

    @cached_property
    def shape(self) -> ShapeSpace:
        """Changes of anatomy of the shipped model."""
        from cardiogen.cli.segmentation_data import shape_space

        return shape_space(None)

    def settings(self, arm: str, steps: int, seed: int) -> SegmentationConfig:
        """Return the settings of an arm: all the same but for the augmentation."""
        return SegmentationConfig(
            image=ImageConfig(spacing_mm=2.0, patch=96),
            network=NetworkConfig(widths=(8, 16, 32, 64)),
            augmentation=AugmentationConfig.model_validate(_SETTINGS[arm]),
            prediction=PredictionConfig(overlap=0.25),
            fit=FitConfig(steps=steps, batch_size=4, learning_rate=2e-3, warmup_steps=20,
                          seed=seed),
        )  # fmt: skip

    def run(self) -> Iterator[dict[str, object]]:
        """Make the runs that the file lacks, and yield each one's rows as they are written."""
        done = read_rows(self.file)
        for patients in self.plan.patients:
            for subset in range(self.plan.subsets):
                mine = {"patients": patients, "subset": subset}
                place = (str(patients), str(subset))
                cpu = {r["arm"]: float(r["cpu_s"]) for r in done
                       if (r["patients"], r["subset"]) == place}  # fmt: skip
                real = self._frames(patients, subset)
                for arm in (a for a in ARMS if a in self.plan.arms and a not in cpu):
                    rows = [mine | row for row in self._run(arm, subset, real, cpu)]
                    cpu[arm] = float(rows[0]["cpu_s"])
                    append_rows(self.file, rows)
                    yield from rows

    def _frames(self, patients: int, subset: int) -> list[Frame]:
        """Return the training hearts; a larger number holds a smaller one of the same subset."""
        order = keyed_rng(0, "help/subset", subset).permutation(len(self.rest))[:patients]
        image = self.settings("none", 1, 0).image
        hearts = (load_sequence(self.rest[i], images=True) for i in order)
        return [f for h in hearts for f in prepare_sequence(h, image, frames="ed+es")]

    def _run(
        self, arm: str, subset: int, real: list[Frame], cpu: dict[str, float]
    ) -> Iterator[dict[str, object]]:
        settings = self.settings(arm, self._steps(arm, cpu), subset)
        chosen = settings.augmentation
        made = build_arm(chosen, spacing=(settings.image.spacing_mm,) * 2,
                         shape=self.shape if arm == "shape" else None)  # fmt: skip
        given = {"real": real, "synthetic": self.synthetic if arm == "synthetic" else (),
                 "arm": made, "device": "cpu"}  # fmt: skip
        # What the first steps of a process compile is no cost of an arm.
        train_segmentation(self.settings(arm, _WARM_UP, subset), **given)
        start = time.process_time()
        trained = train_segmentation(settings, **given)
        spent = time.process_time() - start
        facts = {"seed": subset, "arm": arm, "steps": settings.fit.steps,
                 "cpu_s": round(spent, 1)}  # fmt: skip
        for name in self.plan.shifts:
            segmented = [
                segment_sequence(trained.network, SHIFTS[name](heart, number), settings.image,
                                 settings.prediction)
                for number, heart in enumerate(self.test_hearts)
            ]  # fmt: skip
            found = summarize(overlap_table(segmented))
            yield (
                facts
                | {"shift": name, "hd95_mm": found["hd95 (mm)"]}
                | {key: found[key] for key in ("dice", "dice_lv", "dice_myo", "dice_rv", "missed")}
            )

    def _steps(self, arm: str, cpu: dict[str, float]) -> int:
        """Return the steps of an arm; ``random_long`` takes the time of the adversary."""
        if arm != "random_long":
            return self.plan.steps
        if not {"random", "adversarial"} <= cpu.keys():
            raise ValueError("random_long needs the arms adversarial and random beside it")
        return round(self.plan.steps * cpu["adversarial"] / cpu["random"])


def read_rows(file: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV, none if there is no file."""
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def append_rows(file: Path, rows: list[dict[str, object]]) -> None:
    """Add rows to a CSV; a run is there as a whole or not at all."""
    new = not file.is_file()
    with file.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerows(rows)
