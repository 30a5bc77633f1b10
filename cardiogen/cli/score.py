"""``cardiogen score``: how far a heart lies from healthy hearts of its factors."""

from __future__ import annotations

from collections.abc import Sequence as Listing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import CardiogenError, Note, atomic_folder, progress
from cardiogen.cli.heart_notes import misfit_notes
from cardiogen.cli.requests import (
    check_apart,
    check_seed,
    fresh_folder,
    request_factors,
    usage_error,
)
from cardiogen.cli.score_files import write_score
from cardiogen.cli.score_norm import subject_norm
from cardiogen.cli.subject import Reading, check_domain, observe, require_gaussian
from cardiogen.cli.write import versions

if TYPE_CHECKING:
    from cardiogen.data.nifti_geometry import Prefer
    from cardiogen.data.sequence import Orientation
    from cardiogen.export.space import Space
    from cardiogen.models.normative import LatentParts, Setting
    from cardiogen.models.protocol import AnatomyModel

Array = NDArray[np.float64]

_MAX_REFERENCE, _MAX_WORKERS = 10_000, 256
_EXPECTED = 999  # draws of deviations
# With fewer resolved latents than this a part of the deviation says nothing.
_LEAST_EXPECTED = 0.5


def score(
    labels: Listing[str | Path],
    *,
    phases: Listing[float] | None = None,
    out: str | Path | None = None,
    label_map: str | None = None,
    age: float | None = None,
    sex: str | None = None,
    height: float | None = None,
    weight: float | None = None,
    sbp: float | None = None,
    reference: int = 39,
    seed: int = 0,
    space: Space = "ras",
    prefer: Prefer | None = None,
    orientation: Orientation | None = None,
    model: str | Path | None = None,
    allow_extrapolation: bool = False,
    workers: int = 2,
    overwrite: bool = False,
) -> Path:
    """Score a heart against healthy hearts of its factors (``models.normative``).

    Args:
        labels, phases, label_map, prefer, orientation: see :func:`cardiogen.complete`.
        out: folder to make; by default a fresh one.
        age, sex, height, weight, sbp: what is known of the subject; what is not widens the norm.
        reference: healthy hearts of the reference population, with these factors, that are
            rendered onto the subject's grid and scored in the same way. The rank among them is
            the p-value, at least ``1 / (reference + 1)``. They take one fit each; 0 leaves only
            what the model itself expects, which for shape is about 1.8 times what healthy hearts
            show (``scripts/eval_score.py``): that p is then too large.
        seed: same seed, same reference.
        space: axes of the mesh file.
        model: bundle folder; by default the one inside the package.
        allow_extrapolation: accept factors outside the training data, marked in all outputs.
        workers: processes for the reference.
        overwrite: whether ``out`` may be replaced.

    Returns:
        The folder: ``score.json``, ``phenotypes.csv``, ``segments.csv``, ``norm_map.vtp`` and
        ``bullseye.png``.

    Raises:
        CardiogenError: exit 3 for labels that are no heart, exit 5 outside the training data.
    """
    from cardiogen.models.normative import (
        Setting,
        expected_deviations,
        latent_parts,
        score_posterior,
    )
    from cardiogen.models.protocol import encode_condition
    from cardiogen.models.store import load_model

    if not 0 <= reference <= _MAX_REFERENCE:
        raise usage_error("--reference", reference, f"0 to {_MAX_REFERENCE}", "39, the default")
    if not 1 <= workers <= _MAX_WORKERS:
        raise usage_error("--workers", workers, f"1 to {_MAX_WORKERS}", "2")
    check_seed(seed)
    factors = request_factors(age=age, sex=sex, height=height, weight=weight, sbp=sbp)
    folder = Path(out) if out is not None else fresh_folder(factors, Path.cwd())
    check_apart(folder, [*labels, *([] if model is None else [model])])
    loaded = load_model(model)
    require_gaussian(loaded)
    outside = check_domain(loaded, factors, allow=allow_extrapolation)
    reading = Reading(phases=phases, label_map=label_map, prefer=prefer, orientation=orientation,
                      healthy=True)  # fmt: skip
    condition = encode_condition(factors)
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        seen, posterior, notes, _ = observe(labels, factors, loaded, reading)
        parts = latent_parts(loaded.model, loaded.model.prior(condition).mean)
        setting = Setting(factors=factors, grid=seen.grid, pose=posterior.pose,
                          phases=np.asarray(seen.phases))  # fmt: skip
        expected = expected_deviations(
            loaded.model, posterior, condition, parts, draws=_EXPECTED, seed=seed
        )
        if outside is not None and reference:
            text = "no reference hearts: the population has none with these factors"
            notes, reference = (*notes, Note("D06", "--reference", text)), 0
        others, lost = _reference(loaded.model, setting, parts, reference, seed, workers)
        found = score_posterior(loaded.model, posterior, condition, parts)
        norm = subject_norm(loaded.model, posterior, condition, seed)
        shown = dict(zip(norm.measures, norm.subject, strict=True))
        notes = (*notes, *misfit_notes(shown, seen, Path(labels[0]).name))
        facts = {
            "command": "score",
            "inputs": [Path(file).name for file in labels],
            "observed_phases": [float(p) for p in seen.phases],
            "factors": factors.as_dict(),
            "deviation": _verdicts(found, expected, others),
            "reference": {"hearts": len(others), "not_on_grid": lost, "seed": seed},
            "mirrored_world": posterior.pose.mirrored,
            "extrapolated": outside is not None,
            "extrapolation_reason": outside,
            "notes": [str(note) for note in notes],
            "model": loaded.facts,
            "versions": versions(),
        }
        write_score(temporary, loaded.model, posterior, norm, facts, space)
    return folder


def _reference(
    model: AnatomyModel, setting: Setting, parts: LatentParts, count: int, seed: int, workers: int
) -> tuple[Array, int]:
    """Return the deviations ``(n, 4)`` of healthy hearts, and how many the grid did not hold."""
    from joblib import Parallel, delayed

    from cardiogen.models.normative import reference_deviation

    found = Parallel(n_jobs=min(workers, max(count, 1)), return_as="generator")(
        delayed(reference_deviation)(model, setting, parts, seed=seed, index=index)
        for index in range(count)
    )
    kept = [row for row in progress(found, "healthy hearts", total=count) if row is not None]
    if count and len(kept) < count / 2:
        raise CardiogenError(
            "L65", "labels", found=f"a grid that {count - len(kept)} of {count} healthy hearts "
            "with these factors do not fit", expected="label maps that hold a whole heart",
            remedy="label maps of more slices, or --reference 0",
        )  # fmt: skip
    return np.array(kept).reshape(len(kept), 4), count - len(kept)


def _verdicts(found: Array, expected: Array, others: Array) -> dict[str, dict[str, float | None]]:
    """Return squared deviation, its expectation in health and p-values, by part."""
    from cardiogen.measure.distribution import conformal_p_values
    from cardiogen.models.normative import PARTS

    verdicts = {}
    for k, name in enumerate(("total", *PARTS)):
        told = float(expected[:, k].mean()) >= _LEAST_EXPECTED
        ranked = told and len(others) > 0
        verdicts[name] = {
            "squared_deviation": float(found[k]) if told else None,
            "expected_by_model": float(expected[:, k].mean()),
            "median_of_reference": float(np.median(others[:, k])) if ranked else None,
            "p": float(conformal_p_values([found[k]], others[:, k])[0]) if ranked else None,
            "p_by_model": (
                float(conformal_p_values([found[k]], expected[:, k])[0]) if told else None
            ),
        }
    return verdicts
