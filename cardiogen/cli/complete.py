"""``cardiogen complete``: the whole cardiac cycle from label maps of any frames."""

from __future__ import annotations

from collections.abc import Sequence as Listing
from pathlib import Path
from typing import TYPE_CHECKING

from cardiogen.base import CardiogenError, atomic_folder
from cardiogen.cli.complete_draws import (
    check_overlap,
    check_samples,
    few_draws,
    intervals,
    write_samples,
)
from cardiogen.cli.heart_notes import broken_rules, chirality_notes
from cardiogen.cli.observed import one_label_map, read_observed
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
)
from cardiogen.cli.write import OutputOptions, write_one

if TYPE_CHECKING:
    from cardiogen.data.nifti_geometry import Prefer
    from cardiogen.data.sequence import Orientation
    from cardiogen.export.space import Space


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
    check_samples(samples)
    chosen = parse_formats(formats)
    factors = request_factors(age=age, sex=sex, height=height, weight=weight, sbp=sbp)
    folder = Path(out) if out is not None else fresh_folder(factors, Path.cwd())
    check_apart(folder, [*labels, *([] if model is None else [model])])
    observed = read_observed(labels, phases, label_map, prefer).with_(factors=factors)
    observed = observed.with_(orientation=orientation or observed.orientation)
    label_map = one_label_map(labels, label_map)
    loaded = load_model(model)
    check_formats(formats, loaded.model)
    check_group(group, loaded.model)
    if overlap:
        check_overlap(samples, chosen, has_meshes=loaded.model.topology is not None)
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
            *chirality_notes(posterior, where),
            *few_draws(samples),
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
            extra_frames=intervals(draws),
            overlap=labels_of_draws(draws, observed.grid) if overlap else None,
        )
        if draws:
            write_samples(temporary, draws, extrapolated=outside is not None)
    return folder
