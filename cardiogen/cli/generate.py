"""``cardiogen generate``: hearts from clinical factors, target phenotypes or given latents."""

from __future__ import annotations

from collections.abc import Sequence as Listing
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cardiogen.base import atomic_folder
from cardiogen.cli.generate_plan import Plan
from cardiogen.cli.generate_priors import with_priors
from cardiogen.cli.generate_request import (
    check_latents,
    check_latents_out,
    check_meshes,
    check_no_labels,
    check_numbers,
    check_resume,
    read_formats,
)
from cardiogen.cli.generate_rows import checked_rows, read_latent_rows, read_rows
from cardiogen.cli.requests import (
    MAX_FRAMES,
    MAX_HEARTS,
    check_apart,
    check_count,
    check_formats,
    check_seed,
    fresh_folder,
    request_factors,
)
from cardiogen.cli.write import OutputOptions

if TYPE_CHECKING:
    from cardiogen.cli.generate_heart import Shared
    from cardiogen.export.space import Space
    from cardiogen.models.store import LoadedModel


def generate(
    *,
    out: str | Path | None = None,
    age: float | None = None,
    sex: str | None = None,
    height: float | None = None,
    weight: float | None = None,
    sbp: float | None = None,
    cohort: str | Path | None = None,
    targets: Listing[str] = (),
    guidance: float = 1.0,
    latents: str | Path | None = None,
    latents_out: str | Path | None = None,
    n: int = 1,
    frames: int = 25,
    seed: int = 0,
    phase_only: Literal["ed", "es"] | None = None,
    space: Space = "ras",
    formats: str = "all",
    meshes_only: bool = False,
    label_map: str = "ukbb",
    spacing_mm: float = 1.25,
    heart_rate: float | None = None,
    model: str | Path | None = None,
    allow_extrapolation: bool = False,
    workers: int = 2,
    resume: bool = False,
    overwrite: bool = False,
) -> Path:
    """Generate hearts given clinical factors, any subset of them.

    Args:
        out: folder to make; by default a fresh one such as ``heart_F70_001``.
        age, sex, height, weight, sbp: years, ``F`` or ``M``, cm, kg, mmHg. What is missing is
            drawn with the heart.
        cohort: CSV table with one row of factors a subject, instead of the five flags.
        targets: phenotypes that every heart hits within 0.5 % on its meshes, such as
            ``lvedv=220`` (mL), ``lvef=35`` (%), ``lvm=120`` (g) or ``lvmi=70`` (g/m2); see
            ``models.target_values``. What they say nothing of is drawn as ever.
        guidance: how strongly factors act: 1 as learned, more moves the mean of hearts further
            from that of everyone (``models.targets.guided_prior``), as far as the training data
            reach (D09).
        latents: CSV table of ``latents_out``: its hearts are decoded, nothing is drawn.
        latents_out: CSV file to write the hearts' latents to.
        n: hearts (for each row of the table).
        frames: frames over the cycle, the first at end diastole; a model of ED and ES alone
            gives those.
        seed: same seed, same hearts. Heart k depends on neither ``n`` nor ``workers``, and with a
            table on its own row alone: on ``subject_id`` and factors, not on the row's place.
        phase_only: write only end diastole or end systole.
        space: axes of the mesh files, ``ras`` or ``lps``.
        formats: some of ``nifti,vtp,stl,glb,png,csv``, or ``all``; a model of label maps has no
            mesh files. ``zarr`` puts the meshes of all hearts into one store, instead of or
            beside a folder for each.
        meshes_only: make no label maps: measures are those of the meshes.
        label_map: codes of the label maps, ``ukbb``, ``acdc`` or ``mnms``.
        spacing_mm: voxel size of the label maps.
        heart_rate: beats per minute; only then is the cardiac output reported.
        model: bundle folder; by default the one inside the package.
        allow_extrapolation: accept factors, targets and latents outside the training data, marked
            in all outputs.
        workers: processes, used from four hearts on.
        resume: work in ``out`` itself and go on with what is there: an interrupted run, or one
            that shall have more hearts. ``n`` may grow where no table is given.
        overwrite: whether ``out`` may be replaced.

    Returns:
        The folder. One heart lies directly in it; several, or those of a table, lie in a folder
        each, with ``subjects.csv``, ``measures.csv``, ``latents.csv``, ``cohort.json`` and
        ``overview.png`` beside them: a cohort that ``cardiogen measure`` and ``check`` read. With
        ``zarr`` alone there is ``meshes.zarr`` instead of folders.

    Raises:
        CardiogenError: U.. (exit 2) for a request that makes no sense, of which U40 to U44 are of
            targets and guidance; C60 to C62 (exit 3) for latents; D01, D02, D07 or D09 (exit 5)
            outside the training data, D03 or D08 where there is no such heart; O01 (exit 8) if
            ``out`` exists, O04 or O05 if it cannot be resumed; R.. (exit 6) without room, R75
            (exit 75) for an interruption that can be resumed.
    """
    from cardiogen.data.labels import label_map as known_map
    from cardiogen.models.store import load_model

    known_map(label_map)
    check_count("-n", n, MAX_HEARTS)
    check_count("--frames", frames, MAX_FRAMES)
    check_seed(seed)
    check_numbers(workers, spacing_mm, heart_rate, guidance)
    given = request_factors(age=age, sex=sex, height=height, weight=weight, sbp=sbp)
    kinds, store = read_formats(formats)
    check_latents(latents, given, cohort, targets, guidance, n)
    rows = None if latents is not None else read_rows(given, cohort)
    check_count("-n times rows", n * len(rows or [0]), MAX_HEARTS)
    if resume:
        several = latents is not None or cohort is not None or n > 1 or store
        check_resume(out, several=several, overwrite=overwrite)
    options = OutputOptions(space=space, formats=kinds, label_map=label_map, heart_rate=heart_rate)
    loaded = load_model(model)
    check_formats(formats, loaded.model)
    check_meshes(loaded.model, meshes_only=meshes_only, store=store)
    if latents is not None:
        rows = read_latent_rows(latents, loaded, allow_extrapolation)
    rows = checked_rows(rows, loaded, allow_extrapolation)
    folder = Path(out) if out is not None else fresh_folder(given, Path.cwd())
    check_apart(folder, [path for path in (cohort, model, latents) if path is not None])
    check_latents_out(latents_out, folder, overwrite)
    rows, shared = with_priors(
        rows, targets, guidance, loaded, options, frames, allow_extrapolation
    )
    plan = Plan(
        rows=tuple(rows),
        n=n,
        from_table=cohort is not None or latents is not None,
        seed=seed,
        frames=frames,
        phase_only=phase_only,
        spacing_mm=spacing_mm,
        allow_extrapolation=allow_extrapolation,
        meshes_only=meshes_only or (store and not kinds),
    )
    if meshes_only:
        check_no_labels(formats, kinds)
    _write_all(folder, plan, loaded, shared, store, workers, resume, overwrite)
    if latents_out is not None:
        _write_latents(Path(latents_out), folder, plan, loaded, shared, overwrite)
    return folder


def _write_all(
    folder: Path,
    plan: Plan,
    loaded: LoadedModel,
    shared: Shared,
    store: bool,
    workers: int,
    resume: bool,
    overwrite: bool,
) -> None:
    from dataclasses import replace

    from cardiogen.cli.generate_cohort import resume_cohort, write_cohort
    from cardiogen.cli.generate_heart import make_heart, write_files

    if len(plan) == 1 and not plan.from_table and not store:
        request = plan.request(0)
        with atomic_folder(folder, overwrite=overwrite) as temporary:
            sequence = make_heart(request, loaded, shared=shared)
            write_files(temporary, request, sequence, loaded, shared)
        return
    shared = replace(shared, folders=bool(shared.options.formats), store=store)
    facts = _facts(plan, loaded, shared)
    if resume:
        resume_cohort(folder, plan, loaded, shared, facts, workers)
        return
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        write_cohort(temporary, plan, loaded, shared, facts, workers)


def _facts(plan: Plan, loaded: LoadedModel, shared: Shared) -> dict[str, object]:
    """Return what decides the bits of a cohort, for its journal."""
    from cardiogen import __version__

    asked = sorted({text for targets in shared.targets.values() for text in targets.asked})
    return {
        "command": "generate",
        "cardiogen": __version__,
        "synthetic": True,
        "extrapolated": plan.extrapolated,
        "model": loaded.facts,
        **plan.facts(),
        "targets": asked,
        "guidance": shared.guidance,
        "formats": list(shared.options.formats),
        "store": shared.store,
        "space": shared.options.space,
        "label_map": shared.options.label_map,
        "heart_rate_bpm": shared.options.heart_rate,
    }


def _write_latents(
    path: Path, folder: Path, plan: Plan, loaded: LoadedModel, shared: Shared, overwrite: bool
) -> None:
    """Write the table of latents: the cohort's, or the row of a single heart."""
    import shutil

    from cardiogen.base import atomic_write
    from cardiogen.cli.generate_latents import latent_of
    from cardiogen.export.latents import latent_row, write_latents
    from cardiogen.export.marks import Marks

    if (folder / "latents.csv").is_file():
        with atomic_write(path, overwrite=overwrite) as temporary:
            shutil.copyfile(folder / "latents.csv", temporary)
        return
    request = plan.request(0)
    latent = latent_of(request, loaded.model, shared.priors.get(request.factors))
    row = latent_row(
        request.subject_id, request.factors, latent.tolist(),
        sha256=loaded.bundle.description.weights_sha256,
        marks=Marks(synthetic=True, extrapolated=plan.extrapolated),
    )  # fmt: skip
    write_latents(path, [row], overwrite=overwrite)
