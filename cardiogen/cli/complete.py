"""``cardiogen complete``: the whole cardiac cycle from label maps of any frames."""

from __future__ import annotations

from collections.abc import Sequence as Listing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cardiogen.base import CardiogenError, atomic_folder
from cardiogen.cli.complete_notes import LEAST_DRAWS, broken_rules, fit_notes
from cardiogen.cli.requests import (
    MAX_FRAMES,
    check_apart,
    check_count,
    check_formats,
    check_group,
    check_seed,
    domain_reason,
    fresh_folder,
    request_factors,
    usage_error,
)
from cardiogen.cli.write import OutputOptions, write_one

if TYPE_CHECKING:
    from cardiogen.data.nifti_geometry import Prefer
    from cardiogen.data.sequence import Orientation, Sequence
    from cardiogen.export.space import Space

_MAX_SAMPLES = 1000
_INTERVAL = (5.0, 95.0)


def complete(
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
    frames: int = 25,
    samples: int = 0,
    overlap: bool = False,
    seed: int = 0,
    space: Space = "ras",
    formats: str = "all",
    prefer: Prefer | None = None,
    orientation: Orientation | None = None,
    healthy: bool = False,
    group: str | None = None,
    model: str | Path | None = None,
    allow_extrapolation: bool = False,
    overwrite: bool = False,
) -> Path:
    """Complete a heart of which some frames are known.

    Args:
        labels: label maps on one grid: 3D files, one a phase, or one 4D file.
        phases: fraction of the cycle of each map, end diastole 0; a 4D file has evenly spaced
            frames from 0, and a single map is end diastole, unless told otherwise.
        out: folder to make; by default a fresh one.
        label_map: codes of the label files; the outputs use the same. Needed unless they are
            outputs of ours with their ``parameters.json``.
        age, sex, height, weight, sbp: whatever is known of the subject.
        frames: frames of the completed cycle; a model of ED and ES alone gives those.
        samples: draws from the posterior; ``samples.csv`` has the measures of their meshes (of
            the label maps of a model that has no meshes), and from 20 draws on ``frames.csv``
            the 90 % intervals of these volumes.
        overlap: write ``labels_overlap.nii.gz`` as well, the label maps of the largest expected
            Dice with the truth over the draws (20 at least), see ``measure.decision``. Nothing is
            measured on them: where frames were not seen they reach farther than the mean heart.
        seed: same seed, same samples.
        space, formats: see :func:`cardiogen.generate`.
        prefer: which geometry of the headers to trust.
        orientation: ``trusted`` if the headers are known not to mirror the heart, ``mirrored`` if
            they do, ``assumed`` to try both and keep what fits better: the default for all files
            but outputs of ours.
        healthy: the heart is healthy, so that the model's own narrow spread holds.
        group: diagnosis, as the cohort that a model was adapted to names it.
        model: bundle folder; by default the one inside the package.
        allow_extrapolation: accept factors outside the training data.
        overwrite: whether ``out`` may be replaced.

    Returns:
        The folder: the heart over the whole cycle on the grid and in the world of the input.

    Raises:
        CardiogenError: exit 3 for labels that are no heart, exit 2 for phases that do not fit,
            for mesh files of a model of label maps (U12), for a group that the model does not
            know and for ``overlap`` of few draws or of draws without meshes (U01).
    """
    from cardiogen.export.heart import parse_formats
    from cardiogen.models.protocol import encode_condition
    from cardiogen.models.store import load_model
    from cardiogen.synthesis import complete_sequences, cycle_phases, labels_of_draws

    check_count("--frames", frames, MAX_FRAMES)
    check_seed(seed)
    if not 0 <= samples <= _MAX_SAMPLES:
        raise usage_error("--samples", samples, f"0 to {_MAX_SAMPLES}", "fewer samples")
    chosen = parse_formats(formats)
    factors = request_factors(age=age, sex=sex, height=height, weight=weight, sbp=sbp)
    folder = Path(out) if out is not None else fresh_folder(factors, Path.cwd())
    check_apart(folder, [*labels, *([] if model is None else [model])])
    observed = read_observed(labels, phases, label_map, prefer).with_(factors=factors)
    observed = observed.with_(orientation=orientation or observed.orientation)
    label_map = _one_label_map(labels, label_map)
    loaded = load_model(model)
    check_formats(formats, loaded.model)
    check_group(group, loaded.model)
    if overlap:
        _check_overlap(samples, chosen, has_meshes=loaded.model.topology is not None)
    observed = observed.with_(group=group)
    condition = encode_condition(factors)
    outside: str | None = None
    try:
        loaded.model.check_condition(condition)
    except CardiogenError as error:
        if not allow_extrapolation:
            raise
        outside = domain_reason(error)
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        posterior = loaded.model.posterior(observed, condition, healthy=healthy)
        mean, *draws = complete_sequences(
            loaded.model, posterior, cycle_phases(loaded.model, frames), samples=samples,
            seed=seed, grid=observed.grid, factors=factors,
            subject_id=Path(labels[0]).name.split(".")[0],
        )  # fmt: skip
        where = str(labels[0])
        notes = (
            *observed.notes,
            *fit_notes(posterior, samples, where),
            *broken_rules(mean, where),
        )
        parameters = {
            "command": "complete",
            "inputs": [Path(file).name for file in labels],
            "observed_phases": [float(p) for p in observed.phases],
            "healthy": healthy,
            "group": group,
            "samples": samples,
            "overlap": overlap,
            "seed": seed,
            "extrapolated": outside is not None,
            "extrapolation_reason": outside,
            "mirrored_world": posterior.pose.mirrored,
            "orientation": {"given": observed.orientation, "margin": posterior.margin},
            "notes": [str(note) for note in notes],
            "model": loaded.facts,
        }
        write_one(
            temporary,
            mean,
            parameters=parameters,
            options=OutputOptions(space=space, formats=chosen, label_map=label_map),
            extra_frames=_intervals(draws),
            overlap=labels_of_draws(draws, observed.grid) if overlap else None,
        )
        if draws:
            _write_samples(temporary, draws, extrapolated=outside is not None)
    return folder


def _check_overlap(samples: int, formats: Listing[str], *, has_meshes: bool) -> None:
    """Refuse (U01) ``--overlap`` of what gives no such label maps."""
    if not has_meshes:
        raise usage_error("--overlap", "a model of label maps", "a model of meshes",
                          "--model deformation, or no --overlap")  # fmt: skip
    if samples < LEAST_DRAWS:
        raise usage_error("--overlap", f"{samples} draws", f"{LEAST_DRAWS} at least",
                          f"--samples {LEAST_DRAWS}")  # fmt: skip
    if "nifti" not in formats:
        raise usage_error("--overlap", f"--format {','.join(formats)}", "nifti among the formats",
                          "--format all")  # fmt: skip


def read_observed(
    labels: Listing[str | Path],
    phases: Listing[float] | None,
    label_map: str | None,
    prefer: Prefer | None,
) -> Sequence:
    """Read label maps of some frames as one sequence, in the order of their phases.

    Headers of other programs may mirror the heart (ACDC's do) without a sign of it: only what is
    said beside outputs of ours counts as known.
    """
    from cardiogen.data.cohort import require_same_grid
    from cardiogen.data.heart_facts import facts_beside
    from cardiogen.data.nifti import read_labels
    from cardiogen.data.sequence import Sequence

    label_map = _one_label_map(labels, label_map)
    images = [read_labels(path, label_map=label_map, prefer=prefer) for path in labels]
    told = {facts_beside(Path(path)).orientation or "assumed" for path in labels}
    for path, image in zip(labels[1:], images[1:], strict=True):
        require_same_grid(images[0], image, labels[0], path)
    maps = np.concatenate([image.frames for image in images])
    given = _default_phases(len(maps), len(images)) if phases is None else list(phases)
    sound = all(0.0 <= p < 1.0 for p in given) and len(set(given)) == len(given)
    if len(given) != len(maps) or not sound:
        raise usage_error(
            "--phase", f"{given} for {len(maps)} frames",
            "one phase in [0, 1) for each frame, no two alike",
            "repeating --phase, end diastole being 0",
        )  # fmt: skip
    order = np.argsort(given, kind="stable")
    phase = np.array(given)[order]
    nearest = int(np.argmin(np.minimum(phase, 1 - phase)))
    return Sequence(
        phases=phase,
        ed=nearest,
        grid=images[0].grid,
        labels=maps[order],
        subject_id=Path(labels[0]).name.split(".")[0],
        orientation=told.pop() if len(told) == 1 else "assumed",
        notes=tuple(note for image in images for note in image.notes),
    )


def _one_label_map(labels: Listing[str | Path], given: str | None) -> str:
    from cardiogen.data.heart_facts import require_label_map

    names = sorted({require_label_map(Path(path), given) for path in labels})
    if len(names) > 1:
        raise usage_error("--label-map", names, "files with one map of codes", "converting some")
    return names[0]


def _default_phases(frames: int, files: int) -> list[float]:
    if files > 1:
        raise usage_error(
            "--phase", f"{files} files without phases", "a phase for each", "repeating --phase"
        )
    return [k / frames for k in range(frames)]


def _volumes(draws: Listing[Sequence]) -> dict[str, np.ndarray]:
    """Left and right cavity volumes of all draws, ``(S, T)`` mL each."""
    from cardiogen.data.labels import Structure
    from cardiogen.measure.volumes import sequence_volumes

    found = [sequence_volumes(draw) for draw in draws]
    return {s.name: np.stack([v[s] for v in found]) for s in (Structure.LV, Structure.RV)}


def _intervals(draws: Listing[Sequence]) -> dict[str, list[float]]:
    """90 % interval of the draws' volumes in every frame, as columns of ``frames.csv``."""
    if len(draws) < LEAST_DRAWS:
        return {}
    columns = {}
    source = "labels" if draws[0].vertices is None else "mesh"
    for name, values in _volumes(draws).items():
        low, high = np.percentile(values, _INTERVAL, axis=0)
        columns[f"{name} {source} lower 90 % (mL)"] = low.tolist()
        columns[f"{name} {source} upper 90 % (mL)"] = high.tolist()
    return columns


def _write_samples(folder: Path, draws: Listing[Sequence], *, extrapolated: bool) -> None:
    """Write the phenotypes of every draw to ``samples.csv``."""
    from cardiogen.export.marks import Marks
    from cardiogen.export.tables import subject_row, write_measures
    from cardiogen.measure.volumes import measure_sequence

    marks = Marks(synthetic=True, extrapolated=extrapolated)
    rows = [
        subject_row(f"sample_{k + 1:03d}", draw.factors, measure_sequence(draw)[0], marks=marks)
        for k, draw in enumerate(draws)
    ]
    write_measures(folder / "samples.csv", rows)
