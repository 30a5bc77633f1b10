"""One evaluation: all tasks of a cohort, for a model and its baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cardiogen.base import CardiogenError
from cardiogen.evaluate.ageing import ageing
from cardiogen.evaluate.completion import completion
from cardiogen.evaluate.conditioning import conditioning
from cardiogen.evaluate.contests import Duel, duels
from cardiogen.evaluate.cycle_completion import cycle_completion
from cardiogen.evaluate.cycles import cycles_of
from cardiogen.evaluate.ends import require_template
from cardiogen.evaluate.generation import generation
from cardiogen.evaluate.hearts import held_out, model_hearts, population_hearts
from cardiogen.evaluate.lines import Result
from cardiogen.evaluate.memorization import TrainingData, memorization
from cardiogen.evaluate.motion import motion
from cardiogen.evaluate.patient_score import patient_score
from cardiogen.evaluate.patients import (
    patient_completion,
    patient_reconstruction,
    read_patients,
)
from cardiogen.evaluate.plausibility import plausibility
from cardiogen.evaluate.reconstruction import reconstruction
from cardiogen.evaluate.score import score
from cardiogen.evaluate.settings import Size
from cardiogen.evaluate.validity import validity
from cardiogen.models.protocol import AnyModel

POPULATION = "population"
TASKS = ("generation", "conditioning", "plausibility", "motion", "validity", "completion",
         "cycle", "reconstruction", "ageing", "score", "memorization")  # fmt: skip
PATIENT_TASKS = ("completion", "reconstruction", "score")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was found.

    Attributes:
        cohort: ``population`` or the name of a folder.
        methods: models in the order of the tables, the one that is judged first.
        results: task -> its lines, or why there are none.
        left_out: subjects of the cohort that lack a frame.
        patients: subjects of the cohort that were evaluated; None for the population.
        baseline: the method that all others are held against.
        duels: every other method against it, by group.
    """

    cohort: str
    methods: tuple[str, ...]
    results: Mapping[str, Result]
    left_out: int = 0
    patients: int | None = None
    baseline: str | None = None
    duels: tuple[Duel, ...] = ()

    @property
    def skipped(self) -> dict[str, tuple[str, ...]]:
        """Return why tasks were not done, and which."""
        reasons = dict.fromkeys(r.reason for r in self.results.values() if r.reason)
        return {
            reason: tuple(task for task, r in self.results.items() if r.reason == reason)
            for reason in reasons
        }


def evaluate_models(
    models: Mapping[str, AnyModel],
    size: Size,
    *,
    seed: int,
    cohort: str = POPULATION,
    training: TrainingData | None = None,
    tasks: Sequence[str] = TASKS,
    baseline: str | None = None,
) -> Evaluation:
    """Evaluate models on the reference population or on a folder of real patients.

    Args:
        models: name -> model, the one that is judged first.
        size: numbers of hearts.
        seed: same seed, same numbers.
        cohort: ``population`` or a cohort folder.
        training: name -> what a bundle says of its training data.
        tasks: some of ``TASKS``.
        baseline: name of the model that the others are held against, by default the last.

    Raises:
        ValueError: for an unknown task.
        CardiogenError: for a folder that is no cohort with ED and ES label maps.
    """
    if unknown := sorted(set(tasks) - set(TASKS)):
        raise ValueError(f"tasks must be some of {TASKS}, got {unknown}")
    if cohort != POPULATION:
        return _on_patients(models, size, seed, cohort, baseline, tasks)
    able, reasons = _on_template(models)
    results = dict.fromkeys(TASKS, Result(reason="; ".join(reasons.values())))
    if able:
        results |= _on_population(able, size, seed, training or {}, tasks)
    kept = {t: results[t] for t in TASKS if t in tasks}
    return _against(Evaluation(cohort, tuple(models), kept), baseline, size, seed)


def _against(found: Evaluation, baseline: str | None, size: Size, seed: int) -> Evaluation:
    """Return an evaluation with every method held against the baseline, by default the last."""
    rival = baseline or found.methods[-1]
    contests = [contest for r in found.results.values() for contest in r.contests]
    with np.errstate(invalid="ignore"):
        met = duels(contests, found.methods, rival, resamples=size.resamples, seed=seed)
    return replace(found, baseline=rival, duels=tuple(met))


def _on_template(models: Mapping[str, AnyModel]) -> tuple[dict[str, AnyModel], dict[str, str]]:
    """Return the models whose hearts can be compared, and why the others cannot."""
    able, reasons = {}, {}
    for name, model in models.items():
        try:
            require_template(model)
        except CardiogenError as error:
            reasons[name] = f"{name}: {error}"
        else:
            able[name] = model
    # A baseline alone would judge nothing.
    return (able, reasons) if next(iter(models)) in able else ({}, reasons)


def _on_population(
    models: Mapping[str, AnyModel],
    size: Size,
    seed: int,
    training: TrainingData,
    tasks: Sequence[str],
) -> dict[str, Result]:
    hearts = [held_out(seed, "truth", i) for i in range(size.hearts)]
    factors = [heart.factors for heart in hearts]
    others = [held_out(seed, "other", i, given) for i, given in enumerate(factors)]
    truth = population_hearts(hearts, "held-out hearts")
    real = population_hearts(others, "other real hearts")
    methods = {
        name: model_hearts(model, factors, seed=seed, purpose="generation")
        for name, model in models.items()
    } | {"real": real}
    beating = {"motion", "validity"} & set(tasks)
    cycles = cycles_of(hearts, models, size, seed=seed) if beating else {}
    work: dict[str, Callable[[], Result]] = {
        "generation": lambda: generation(truth, methods, size, seed=seed),
        "conditioning": lambda: conditioning(truth, factors, methods, models, size, seed=seed),
        "plausibility": lambda: plausibility(factors, methods, size, seed=seed),
        "motion": lambda: motion(cycles, size, seed=seed),
        "validity": lambda: validity(cycles, size, seed=seed),
        "completion": lambda: completion(hearts, real, models, size, seed=seed),
        "cycle": lambda: cycle_completion(hearts, models, size, seed=seed),
        "reconstruction": lambda: reconstruction(hearts, models, size, seed=seed),
        "ageing": lambda: ageing(models, size, seed=seed),
        "score": lambda: score(models, size, seed=seed),
        "memorization": lambda: memorization(truth, models, training, size, seed=seed),
    }
    return {task: _or_reason(run) for task, run in work.items() if task in tasks}


def _on_patients(
    models: Mapping[str, AnyModel],
    size: Size,
    seed: int,
    cohort: str,
    baseline: str | None,
    tasks: Sequence[str],
) -> Evaluation:
    patients = read_patients(cohort, size.completed)
    reason = "needs hearts whose truth is known: --cohort population"
    results = {task: Result(reason=reason) for task in TASKS if task not in PATIENT_TASKS}
    work = {
        "completion": lambda: patient_completion(patients, models, size, seed=seed),
        "reconstruction": lambda: patient_reconstruction(patients, models, size, seed=seed),
        "score": lambda: patient_score(patients.hearts, models, size, seed=seed),
    }
    results |= {task: _or_reason(run) for task, run in work.items() if task in tasks}
    found = {task: results[task] for task in TASKS if task in tasks}

    evaluation = Evaluation(
        Path(cohort).name, tuple(models), found, patients.left_out, len(patients.hearts)
    )

    return _against(evaluation, baseline, size, seed)


def _or_reason(work: Callable[[], Result]) -> Result:
    """Run a task; what a model lacks for it becomes the reason that stands in the report."""
    try:
        with np.errstate(invalid="ignore"):
            return work()
    except CardiogenError as error:
        return Result(reason=str(error))
