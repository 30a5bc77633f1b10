"""``cardiogen generate``: hearts from clinical factors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cardiogen.base import CardiogenError, atomic_folder, keyed_seed, progress
from cardiogen.cli.requests import (
    MAX_FRAMES,
    MAX_HEARTS,
    check_apart,
    check_count,
    check_seed,
    domain_reason,
    fresh_folder,
    request_factors,
    usage_error,
)
from cardiogen.cli.write import OutputOptions, write_one
from cardiogen.data.factors import Factors

if TYPE_CHECKING:
    from collections.abc import Sequence as Listing

    from cardiogen.data.sequence import Sequence
    from cardiogen.export.space import Space
    from cardiogen.models.store import LoadedModel

_MIN_HEARTS_FOR_WORKERS = 4
_MAX_WORKERS = 256
# Files beside the hearts of a cohort, whose names no heart can have.
_COHORT_FILES = {"subjects.csv", "measures.csv", "overview.png"}
_OVERVIEW_HEARTS = 48


@dataclass(frozen=True, kw_only=True)
class Request:
    """One heart to make; a pure function of these fields and the model.

    Attributes:
        subject_id: name of the heart; nothing is drawn from it.
        row_id: id of its row in a table, if there is one.
        index: number of the heart among those of the same row or of the same flags, from 0.
    """

    subject_id: str
    row_id: str | None = None
    factors: Factors
    index: int
    seed: int
    frames: int
    phase_only: Literal["ed", "es"] | None
    spacing_mm: float
    allow_extrapolation: bool

    @property
    def draw_seed(self) -> int:
        """Seed that the heart is drawn with: each row of a table has its own.

        So other rows, their order and ``-n`` change nothing; flags with this seed give the same.
        """
        if self.row_id is None:
            return self.seed
        return keyed_seed(self.seed, f"generate/row/{self.row_id}")


def generate(
    *,
    out: str | Path | None = None,
    age: float | None = None,
    sex: str | None = None,
    height: float | None = None,
    weight: float | None = None,
    sbp: float | None = None,
    cohort: str | Path | None = None,
    n: int = 1,
    frames: int = 25,
    seed: int = 0,
    phase_only: Literal["ed", "es"] | None = None,
    space: Space = "ras",
    formats: str = "all",
    label_map: str = "ukbb",
    spacing_mm: float = 1.25,
    heart_rate: float | None = None,
    model: str | Path | None = None,
    allow_extrapolation: bool = False,
    workers: int = 2,
    overwrite: bool = False,
) -> Path:
    """Generate hearts given clinical factors, any subset of them.

    Args:
        out: folder to make; by default a fresh one such as ``heart_F70_001``.
        age, sex, height, weight, sbp: years, ``F`` or ``M``, cm, kg, mmHg. What is missing is
            drawn with the heart.
        cohort: CSV table with one row of factors a subject, instead of the five flags.
        n: hearts (for each row of the table).
        frames: frames over the cycle, the first at end diastole.
        seed: same seed, same hearts. Heart k depends on neither ``n`` nor ``workers``, and with a
            table on its own row alone: on ``subject_id`` and factors, not on the row's place.
        phase_only: write only end diastole or end systole.
        space: axes of the mesh files, ``ras`` or ``lps``.
        formats: some of ``nifti,vtp,stl,glb,png,csv``, or ``all``.
        label_map: codes of the label maps, ``ukbb``, ``acdc`` or ``mnms``.
        spacing_mm: voxel size of the label maps.
        heart_rate: beats per minute; only then is the cardiac output reported.
        model: bundle folder; by default the one inside the package.
        allow_extrapolation: accept factors outside the training data, marked in all outputs.
        workers: processes, used from four hearts on.
        overwrite: whether ``out`` may be replaced.

    Returns:
        The folder. One heart lies directly in it; several, or those of a table, lie in a folder
        each, with ``subjects.csv``, ``measures.csv`` and ``overview.png`` beside them: a cohort
        that ``cardiogen measure`` and ``check`` read.

    Raises:
        CardiogenError: U.. (exit 2) for a request that makes no sense, D01 or D02 (exit 5) outside
            the training data, O01 (exit 8) if ``out`` exists, R.. (exit 6) without room.
    """
    from cardiogen.data.labels import label_map as known_map
    from cardiogen.export.heart import parse_formats
    from cardiogen.models.store import load_model

    known_map(label_map)
    check_count("-n", n, MAX_HEARTS)
    check_count("--frames", frames, MAX_FRAMES)
    check_seed(seed)
    if not 1 <= workers <= _MAX_WORKERS:
        raise usage_error("--workers", workers, f"1 to {_MAX_WORKERS}", "2")
    if not 0.5 <= spacing_mm <= 10.0:
        raise usage_error("--spacing", spacing_mm, "0.5 to 10 mm", "1.25, the default")
    if heart_rate is not None and not 20.0 <= heart_rate <= 250.0:
        raise usage_error("--heart-rate", heart_rate, "20 to 250 beats per minute", "64")
    given = request_factors(age=age, sex=sex, height=height, weight=weight, sbp=sbp)
    rows = _rows(given, cohort)
    check_count("-n times rows", n * len(rows), MAX_HEARTS)
    options = OutputOptions(
        space=space, formats=parse_formats(formats), label_map=label_map, heart_rate=heart_rate
    )
    requests = [
        Request(
            subject_id=_name(row_id, k, n, cohort is not None),
            row_id=None if cohort is None else row_id,
            factors=factors,
            index=k,
            seed=seed,
            frames=frames,
            phase_only=phase_only,
            spacing_mm=spacing_mm,
            allow_extrapolation=allow_extrapolation,
        )
        for row_id, factors in rows
        for k in range(n)
    ]
    loaded = load_model(model)
    extrapolated = _check_domain(loaded, rows, allow_extrapolation)
    folder = Path(out) if out is not None else fresh_folder(given, Path.cwd())
    check_apart(folder, [path for path in (cohort, model) if path is not None])
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        if len(requests) == 1 and cohort is None:
            _write(temporary, requests[0], loaded, options, extrapolated)
        else:
            _write_cohort(temporary, requests, loaded, options, extrapolated, workers)
    return folder


def _rows(given: Factors, cohort: str | Path | None) -> list[tuple[str, Factors]]:
    from cardiogen.data.factor_table import read_factor_table

    if cohort is None:
        return [("heart", given)]
    if given != Factors():
        raise usage_error(
            "--cohort", "factors beside a table", "either a table or flags", "columns in the table"
        )
    rows = read_factor_table(cohort)
    for row_id, _ in rows:
        if row_id.lower() in _COHORT_FILES or row_id.startswith(".") or len(row_id.encode()) > 200:
            raise CardiogenError(
                "C33", f"{cohort}/subject_id", found=f"id {row_id[:80]!r}",
                expected="a name for a folder: no dot in front, at most 200 bytes, none of "
                + ", ".join(sorted(_COHORT_FILES)), remedy="renaming it",
            )  # fmt: skip
    return rows


def _name(row_id: str, k: int, n: int, from_table: bool) -> str:
    """Name the folder of heart k: numbered if there are several of a kind.

    From two on, names do not depend on ``n``: the folders of ``-n 3`` are among those of
    ``-n 50``. Only a single heart does without a number; it is the same heart as number 1.
    """
    if not from_table:
        return f"heart_{k + 1:05d}" if n > 1 else "heart"
    return f"{row_id}_{k + 1:05d}" if n > 1 else row_id


def _check_domain(
    loaded: LoadedModel, rows: Listing[tuple[str, Factors]], allow: bool
) -> dict[Factors, str]:
    """Return why each row is an extrapolation; without ``allow`` the first one is an error."""
    from cardiogen.models.protocol import encode_condition

    outside = {}
    for row_id, factors in rows:
        try:
            loaded.model.check_condition(encode_condition(factors))
        except CardiogenError as error:
            if not allow:
                raise error if len(rows) == 1 else error.at(f"{row_id}/{error.where}") from error
            outside[factors] = domain_reason(error)
    return outside


def make_heart(request: Request, loaded: LoadedModel) -> Sequence:
    """Return the heart of a request, with meshes and label maps."""
    from cardiogen.models.protocol import encode_condition, frame_phases
    from cardiogen.population.pose import typical_pose
    from cardiogen.synthesis import draw_latent, generate_sequence, with_labels

    phases = frame_phases(request.frames)
    if request.phase_only == "ed":
        phases = [0.0]
    elif request.phase_only == "es":
        latent = draw_latent(
            loaded.model, encode_condition(request.factors), seed=request.draw_seed,
            index=request.index,
        )  # fmt: skip
        phases = [loaded.model.end_systole(latent)]
    sequence = generate_sequence(
        loaded.model,
        request.factors,
        phases,
        seed=request.draw_seed,
        index=request.index,
        check_domain=False,
        subject_id=request.subject_id,
    )
    if request.phase_only == "es":
        sequence = sequence.with_(es=0)
    return with_labels(sequence, typical_pose(), spacing_mm=request.spacing_mm)


def _write(
    folder: Path,
    request: Request,
    loaded: LoadedModel,
    options: OutputOptions,
    extrapolated: dict[Factors, str],
) -> tuple[Sequence, dict[str, float]]:
    sequence = make_heart(request, loaded)
    parameters = {
        "command": "generate",
        "seed": request.seed,
        "row_id": request.row_id,
        "draw_seed": request.draw_seed,
        "index": request.index,
        "frames": request.frames,
        "phase_only": request.phase_only,
        "spacing_mm": request.spacing_mm,
        "extrapolated": request.factors in extrapolated,
        "extrapolation_reason": extrapolated.get(request.factors),
        "model": loaded.facts,
    }
    measures = write_one(folder, sequence, parameters=parameters, options=options)
    return sequence, measures


@dataclass(frozen=True, kw_only=True)
class _Made:
    """What the tables and the overview of a cohort need of one heart."""

    measures: dict[str, float]
    files: dict[str, int | None]
    thumbnail: Sequence | None


def _write_cohort(
    folder: Path,
    requests: Listing[Request],
    loaded: LoadedModel,
    options: OutputOptions,
    extrapolated: dict[Factors, str],
    workers: int,
) -> None:
    """Write one folder a heart, and the tables and the overview of them all.

    Label maps are kept of the hearts in the overview only, so that memory holds any number.
    """
    from joblib import Parallel, delayed

    def one(request: Request, shown: bool) -> _Made:
        place = folder / request.subject_id
        place.mkdir()
        sequence, measures = _write(place, request, loaded, options, extrapolated)
        return _Made(
            measures=measures,
            files=file_facts(sequence, request),
            thumbnail=_thumbnail(sequence) if shown else None,
        )

    shown = _OVERVIEW_HEARTS if "png" in options.formats else 0
    jobs = workers if len(requests) >= _MIN_HEARTS_FOR_WORKERS else 1
    results = Parallel(n_jobs=jobs, return_as="generator")(
        delayed(one)(request, k < shown) for k, request in enumerate(requests)
    )
    done = list(progress(results, "generating hearts", total=len(requests)))
    _write_tables(folder, requests, done, options, extrapolated)


def _thumbnail(sequence: Sequence) -> Sequence:
    """Return the label maps of ED and ES without anything else."""
    keep = [sequence.ed] if sequence.es is None else [sequence.ed, sequence.es]
    return sequence.with_(
        phases=sequence.phases[keep], labels=sequence.labels[keep], vertices=None, ed=0,
        es=None if len(keep) == 1 else 1,
    )  # fmt: skip


def _write_tables(
    folder: Path,
    requests: Listing[Request],
    done: Listing[_Made],
    options: OutputOptions,
    extrapolated: dict[Factors, str],
) -> None:
    from cardiogen.export.marks import Marks
    from cardiogen.export.sheet import write_contact_sheet
    from cardiogen.export.tables import subject_row, write_measures

    rows, subjects, captions = [], [], []
    for request, made in zip(requests, done, strict=True):
        name, factors = request.subject_id, request.factors
        marks = Marks(synthetic=True, extrapolated=factors in extrapolated)
        rows.append(subject_row(name, factors, made.measures, marks=marks))
        files = made.files | {"label_map": options.label_map}
        subjects.append(subject_row(name, factors, {}, marks=marks) | files)
        captions.append(f"{name}, extrapolated" if marks.extrapolated else name)
    write_measures(folder / "measures.csv", rows)
    write_measures(folder / "subjects.csv", subjects)
    if "png" in options.formats:
        write_contact_sheet(
            folder / "overview.png",
            [made.thumbnail for made in done[:_OVERVIEW_HEARTS]],
            captions=captions[:_OVERVIEW_HEARTS],
            title=f"{len(done)} generated hearts",
            marks=Marks(synthetic=True, extrapolated=bool(extrapolated)),
        )


def file_facts(sequence: Sequence, request: Request) -> dict[str, int | None]:
    """Return how many frames the label file of a heart has, and which are ED and ES."""
    if request.phase_only is not None:
        only = f"{request.phase_only}_frame"
        return {"n_frames": 1, "ed_frame": None, "es_frame": None} | {only: 0}
    es = None if sequence.es is None else float(sequence.phases[sequence.es]) * request.frames
    return {
        "n_frames": request.frames,
        "ed_frame": 0,
        "es_frame": None if es is None else round(es),
    }
