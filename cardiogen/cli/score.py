"""``cardiogen score``: how far a heart lies from healthy hearts of its factors."""

from __future__ import annotations

from collections.abc import Sequence as Listing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import CardiogenError, Note, atomic_folder, atomic_write, progress, write_json
from cardiogen.cli.requests import (
    check_apart,
    check_seed,
    fresh_folder,
    request_factors,
    usage_error,
)
from cardiogen.cli.subject import Reading, check_domain, observe, require_gaussian
from cardiogen.cli.write import versions

if TYPE_CHECKING:
    from torch import Tensor

    from cardiogen.data.nifti_geometry import Prefer
    from cardiogen.data.sequence import Orientation
    from cardiogen.export.marks import Marks
    from cardiogen.export.space import Space
    from cardiogen.models.normative import LatentParts, Setting
    from cardiogen.models.protocol import AnatomyModel, Posterior

Array = NDArray[np.float64]

_MAX_REFERENCE, _MAX_WORKERS = 10_000, 256
_EXPECTED, _NORM, _KNOWN = 999, 200, 50  # draws: deviations, healthy hearts, this heart
# With fewer resolved latents than this a part of the deviation says nothing.
_LEAST_EXPECTED = 0.5


@dataclass(frozen=True, eq=False, kw_only=True)
class _Norm:
    """Healthy hearts with the factors of a subject, and the subject, in the heart's frame.

    Attributes:
        measures: names of the phenotypes.
        subject, draws: phenotypes of the subject ``(K,)`` and of healthy hearts ``(n, K)``.
        known: phenotypes of draws from the subject's posterior ``(k, K)``.
        mesh, meshes: at end diastole, ``(V, 3)`` and ``(n, V, 3)``.
    """

    measures: tuple[str, ...]
    subject: Array
    draws: Array
    known: Array
    mesh: Array
    meshes: Array


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
        norm = _norm(loaded.model, posterior, condition, seed)
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
        _write(temporary, loaded.model, posterior, norm, facts, space)
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


def _norm(model: AnatomyModel, posterior: Posterior, condition: Tensor, seed: int) -> _Norm:
    """Return phenotypes and meshes of the subject and of healthy hearts."""
    import torch

    from cardiogen.base import keyed_seed
    from cardiogen.models.normative import norm_latents

    healthy = norm_latents(model, condition, draws=_NORM, seed=seed)
    known = [
        posterior.latents.sample(torch.Generator().manual_seed(keyed_seed(seed, "score/known", k)))
        for k in range(_KNOWN)
    ]
    subject, mesh = _phenotypes(model, posterior.latents.mean)
    drawn = [_phenotypes(model, latent) for latent in healthy]
    draws = [_phenotypes(model, latent)[0] for latent in known if model.is_possible(latent)]
    names = tuple(subject)
    return _Norm(
        measures=names,
        subject=np.array(list(subject.values())),
        draws=np.array([list(row.values()) for row, _ in drawn]),
        known=np.array([list(row.values()) for row in draws]).reshape(len(draws), len(names)),
        mesh=mesh,
        meshes=np.stack([vertices for _, vertices in drawn]),
    )


def _phenotypes(model: AnatomyModel, latent: Tensor) -> tuple[dict[str, float], Array]:
    """Return the measures of a latent's meshes and its mesh at end diastole, in heart frame."""
    from cardiogen.measure.volumes import measure_sequence
    from cardiogen.population.pose import Pose
    from cardiogen.synthesis import decode_sequence

    still = Pose(np.eye(3), np.zeros(3))
    cycle = decode_sequence(model, latent, [0.0, model.end_systole(latent)], pose=still)
    measures, _ = measure_sequence(cycle, source="mesh")
    return {k: v for k, v in measures.items() if np.isfinite(v)}, cycle.vertices[0]


def _write(
    folder: Path,
    model: AnatomyModel,
    posterior: Posterior,
    norm: _Norm,
    facts: dict[str, object],
    space: Space,
) -> None:
    from cardiogen.export.marks import Marks
    from cardiogen.export.norm_map import NOT_A_DIAGNOSIS
    from cardiogen.export.tables import write_measures
    from cardiogen.models.normative import z_scores

    marks = Marks(synthetic=False, extrapolated=bool(facts["extrapolated"]))
    z, percentile = z_scores(norm.subject, norm.draws)
    spread = norm.draws.std(axis=0, ddof=1)
    # What of the spread between healthy hearts the label maps resolve.
    left = norm.known.std(axis=0, ddof=1) if len(norm.known) > 1 else np.full_like(spread, np.nan)
    resolved = 100.0 * (1.0 - np.minimum(left / np.where(spread > 0, spread, np.nan), 1.0) ** 2)
    rows = [
        {"measure": name, "value": float(norm.subject[k]),
         "norm mean": float(norm.draws[:, k].mean()), "norm SD": float(spread[k]),
         "z": float(z[k]), "percentile": float(percentile[k]), "resolved (%)": float(resolved[k])}
        | marks.cells
        for k, name in enumerate(norm.measures)
    ]  # fmt: skip
    write_measures(folder / "phenotypes.csv", rows)
    _write_maps(folder, model, posterior, norm, marks, space)
    told = {"meaning": NOT_A_DIAGNOSIS} | facts
    write_json(folder / "score.json", told)
    with atomic_write(folder / "README.txt") as temporary:
        temporary.write_text(_README.format(NOT_A_DIAGNOSIS), encoding="utf-8")


def _write_maps(
    folder: Path,
    model: AnatomyModel,
    posterior: Posterior,
    norm: _Norm,
    marks: Marks,
    space: Space,
) -> None:
    """Write the mesh with its z-scores, and the wall thickness by AHA segment."""
    from cardiogen.export.norm_map import NOT_A_DIAGNOSIS, write_norm_bullseye
    from cardiogen.export.tables import write_measures
    from cardiogen.export.vtp import write_vtp
    from cardiogen.measure.aha import SEGMENT_NAMES, segment_means
    from cardiogen.measure.mesh_thickness import mesh_thickness
    from cardiogen.models.normative import outward_shift, z_scores

    topology, mean = model.topology, norm.meshes.mean(axis=0)
    shift = outward_shift(norm.mesh, mean, topology.all_faces)
    position, _ = z_scores(shift, outward_shift(norm.meshes, mean, topology.all_faces))
    own, others = (mesh_thickness(m, topology) for m in (norm.mesh, norm.meshes))
    wall, _ = z_scores(own, others)
    segments = topology.aha_segment
    mine = segment_means(own, segments)
    theirs = np.stack([segment_means(row, segments) for row in others])
    z, percentile = z_scores(mine, theirs)
    table = [
        {"segment": k + 1, "name": name, "thickness (mm)": float(mine[k]),
         "norm mean (mm)": float(theirs[:, k].mean()),
         "norm SD (mm)": float(theirs[:, k].std(ddof=1)),
         "z": float(z[k]), "percentile": float(percentile[k])} | marks.cells
        for k, name in enumerate(SEGMENT_NAMES)
    ]  # fmt: skip
    write_measures(folder / "segments.csv", table)
    write_norm_bullseye(folder / "bullseye.png", z, title="Against the norm", marks=marks)
    shown = topology.mirrored() if posterior.pose.mirrored else topology
    write_vtp(
        folder / "norm_map.vtp", posterior.pose.to_world(norm.mesh), shown.all_faces,
        point_data={
            "position_z": position, "position_mm": shift, "thickness_mm": own, "thickness_z": wall,
            "aha_segment": segments,
        },
        fields={"meaning": NOT_A_DIAGNOSIS}, space=space, marks=marks,
    )  # fmt: skip


_README = """{}

score.json       Squared deviation of the whole heart, of its size, of the rest of its
                 end-diastolic shape and of its motion; p: rank among healthy hearts observed and
                 scored in the same way; p_by_model: what the model itself expects.
phenotypes.csv   Measures, z-scores and percentiles among healthy hearts with these factors.
                 Where little is resolved, the value is what the factors tell.
segments.csv     Wall thickness at end diastole by AHA segment.
norm_map.vtp     Mesh at end diastole: position_z (outward wall position), thickness_z; in SD.
bullseye.png     Wall thickness, SD of the norm.
"""
