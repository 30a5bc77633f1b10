"""``cardiogen evaluate``: every task of the evaluation, for a bundle and its baselines."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cardiogen.base import atomic_folder
from cardiogen.base.files import check_replaceable
from cardiogen.cli.requests import check_apart, check_count, check_seed, usage_error

if TYPE_CHECKING:
    from cardiogen.evaluate.run import Evaluation
    from cardiogen.models.store import LoadedModel

SizeName = Literal["small", "full"]
_MOST_HEARTS = 10_000
# Names of rows that are no model.
_TAKEN = ("real", "copy ED", "mean motion")


def evaluate(
    bundle: str | Path | None = None,
    *,
    out: str | Path,
    cohort: str = "population",
    size: SizeName = "small",
    n: int | None = None,
    seed: int = 0,
    beside: Iterable[str | Path] = (),
    against: str | Path | None = None,
    tasks: Iterable[str] = (),
    overwrite: bool = False,
) -> Path:
    """Evaluate a bundle beside a baseline, other bundles and simple rivals.

    Args:
        bundle: bundle folder; by default the one inside the package.
        out: folder to make: ``report.json`` with everything, ``report.html``, ``report.md``, CSV
            and PNG files.
        cohort: ``population``, or a folder of patients with label maps at ED and ES.
        size: ``small`` takes minutes, ``full`` hours.
        n: held-out hearts, or patients of the folder at most, instead of those of ``size``.
        seed: same seed, same report.
        beside: more bundles, for the same tables.
        against: the baseline that all are held against; by default the shipped linear model.
        tasks: some of ``cardiogen.evaluate.TASKS``; by default all.
        overwrite: whether ``out`` may be replaced.

    Returns:
        The folder.

    Raises:
        CardiogenError: U01 for a size, task or number that means nothing and where no task can
            be done, M.. for a bundle that is none, the codes of ``read_cohort`` for a cohort that
            is none, O01 if ``out`` exists.
    """
    from cardiogen.evaluate import (
        LEAST_HEARTS,
        PATIENT_TASKS,
        POPULATION,
        SIZES,
        TASKS,
        evaluate_models,
        write_report,
    )
    from cardiogen.models.store import load_model

    if size not in SIZES:
        raise usage_error("--size", size, " or ".join(SIZES), "--size small")
    chosen = tuple(tasks) or TASKS
    if unknown := sorted(set(chosen) - set(TASKS)):
        raise usage_error("--task", ", ".join(unknown), " or ".join(TASKS), "--task completion")
    if cohort != POPULATION and not set(chosen) & set(PATIENT_TASKS):
        raise usage_error(
            "--task", ", ".join(chosen), f"{' or '.join(PATIENT_TASKS)} of patients",
            "one of these, or --cohort population, whose truth is known",
        )  # fmt: skip
    wanted = SIZES[size]
    if n is not None:
        check_count("-n", n, _MOST_HEARTS)
        if cohort == POPULATION and n < LEAST_HEARTS:
            raise usage_error("-n", n, f"{LEAST_HEARTS} to {_MOST_HEARTS}", "more hearts")
        wanted = wanted.with_hearts(n) if cohort == POPULATION else wanted.with_patients(n)
    check_seed(seed)
    folder = Path(out)
    # Before the work, not after it.
    check_replaceable(folder, overwrite)
    others = list(beside)
    inputs = [each for each in (bundle, against, *others) if each is not None]
    check_apart(folder, [*inputs, *([] if cohort == POPULATION else [cohort])])
    judged, rival = load_model(bundle), load_model("linear" if against is None else against)
    loaded = _named([judged, *(load_model(other) for other in others)], rival)
    baseline = next(reversed(loaded))
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        evaluation = evaluate_models(
            {name: each.model for name, each in loaded.items()}, wanted, seed=seed,
            cohort=str(cohort), baseline=baseline, tasks=chosen,
            training={k: each.bundle.description.training_data for k, each in loaded.items()},
        )  # fmt: skip
        _require_some(evaluation)
        if evaluation.patients is not None:
            wanted = wanted.with_hearts(evaluation.patients)
        provenance = {
            "model": judged.facts,
            "models": {name: each.facts for name, each in loaded.items()},
            "training_data": judged.bundle.description.training_data,
            "cohort": POPULATION if cohort == POPULATION else Path(cohort).name,
            "seed": seed,
            "size": wanted.as_dict(),
        }
        write_report(temporary, evaluation, provenance)
    return folder


def _require_some(evaluation: Evaluation) -> None:
    """Refuse (U01) a report of nothing, with the reasons."""
    if any(result.lines for result in evaluation.results.values()):
        return
    raise usage_error(
        "--task", f"nothing that could be evaluated: {'; '.join(evaluation.skipped)}",
        "a task that can be done", "another task, model or --cohort",
    )  # fmt: skip


def _named(judged: Iterable[LoadedModel], rival: LoadedModel) -> dict[str, LoadedModel]:
    """Return models under names of their own, none twice, the baseline last."""
    named: dict[str, LoadedModel] = {}
    seen = {rival.facts["weights_sha256"]}
    for each in judged:
        if each.facts["weights_sha256"] in seen:
            continue
        seen.add(each.facts["weights_sha256"])
        name = each.facts["name"]
        name = f"{name} (bundle)" if name in _TAKEN else name
        named[f"{name} ({len(named) + 1})" if name in named else name] = each
    name = rival.facts["name"]
    return named | {f"{name} (baseline)" if name in named else name: rival}
