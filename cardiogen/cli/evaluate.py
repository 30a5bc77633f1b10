"""``cardiogen evaluate``: every task of the evaluation, for a bundle and its baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cardiogen.base import atomic_folder
from cardiogen.base.files import check_replaceable
from cardiogen.cli.requests import check_apart, check_count, check_seed, usage_error

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
    overwrite: bool = False,
) -> Path:
    """Evaluate a bundle beside the shipped linear model and simple baselines.

    Args:
        bundle: bundle folder; by default the one inside the package.
        out: folder to make: ``report.json`` with everything, ``report.md``, CSV and PNG files.
        cohort: ``population``, or a folder of patients with label maps at ED and ES.
        size: ``small`` takes minutes, ``full`` hours.
        n: held-out hearts (or patients) instead of those of ``size``.
        seed: same seed, same report.
        overwrite: whether ``out`` may be replaced.

    Returns:
        The folder.

    Raises:
        CardiogenError: U01 for a size or number that means nothing, M.. for a bundle that is none,
            the codes of ``read_cohort`` for a cohort that is none, O01 if ``out`` exists.
    """
    from cardiogen.evaluate import LEAST_HEARTS, POPULATION, SIZES, evaluate_models, write_report
    from cardiogen.models.store import load_model

    if size not in SIZES:
        raise usage_error("--size", size, " or ".join(SIZES), "--size small")
    wanted = SIZES[size]
    if n is not None:
        check_count("-n", n, _MOST_HEARTS)
        if cohort == POPULATION and n < LEAST_HEARTS:
            raise usage_error("-n", n, f"{LEAST_HEARTS} to {_MOST_HEARTS}", "more hearts")
        wanted = wanted.with_hearts(n)
    check_seed(seed)
    folder = Path(out)
    # Before the work, not after it.
    check_replaceable(folder, overwrite)
    inputs = [] if bundle is None else [bundle]
    check_apart(folder, [*inputs, *([] if cohort == POPULATION else [cohort])])
    judged, shipped = load_model(bundle), load_model(None)
    name = judged.facts["name"]
    loaded = {f"{name} (bundle)" if name in _TAKEN else name: judged}
    if judged.facts["weights_sha256"] != shipped.facts["weights_sha256"]:
        baseline = shipped.facts["name"]
        loaded[f"{baseline} (shipped)" if baseline in loaded else baseline] = shipped
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        evaluation = evaluate_models(
            {name: each.model for name, each in loaded.items()}, wanted, seed=seed,
            cohort=str(cohort),
            training={k: each.bundle.description.training_data for k, each in loaded.items()},
        )  # fmt: skip
        provenance = {
            "model": judged.facts,
            "baseline": shipped.facts,
            "training_data": judged.bundle.description.training_data,
            "cohort": POPULATION if cohort == POPULATION else Path(cohort).name,
            "seed": seed,
            "size": wanted.as_dict(),
        }
        write_report(temporary, evaluation, provenance)
    return folder
