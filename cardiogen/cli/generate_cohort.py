"""Cohorts of any size: hearts go to disk one by one, and nothing is kept of those that are there.

Tables and mesh store grow together and are committed every 32 hearts (``export.cohort_tables``).
A run that may be resumed works in its final folder, where only whole hearts ever stand; any other
builds a folder that appears as a whole at the end.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cardiogen.base import CardiogenError, Exit, atomic_folder, progress
from cardiogen.cli.generate_heart import Made, Shared, decoded, thumbnail
from cardiogen.cli.generate_latents import latent_count, latent_of
from cardiogen.cli.generate_plan import Plan, Request
from cardiogen.cli.generate_workers import made_hearts
from cardiogen.export.cohort_tables import CohortTables, require_same_cohort
from cardiogen.export.latents import latent_row
from cardiogen.export.marks import Marks
from cardiogen.export.mesh_store import SHARD, STORE, MeshStore
from cardiogen.export.tables import rounded_cells, subject_row
from cardiogen.measure.volumes import PHENOTYPES

if TYPE_CHECKING:
    from cardiogen.data.sequence import Sequence
    from cardiogen.models.store import LoadedModel

OVERVIEW_HEARTS = 48
_TEMPORARY = ".cg-tmp-*"


def write_cohort(
    folder: Path, plan: Plan, loaded: LoadedModel, shared: Shared, facts: dict, workers: int
) -> None:
    """Write all hearts of a plan, their tables, store and overview into an empty folder."""
    _begin(folder, plan, loaded, shared, facts)
    _go_on(folder, plan, loaded, shared, facts, workers, whole=False)


def resume_cohort(
    folder: Path, plan: Plan, loaded: LoadedModel, shared: Shared, facts: dict, workers: int
) -> None:
    """Begin a cohort in its final folder, or go on with one; every heart there is whole.

    Raises:
        CardiogenError: O04 (exit 8) if another process works on it, O05 (exit 8) for a folder of
            another request, R75 (exit 75) when interrupted: the same call goes on from there.
    """
    if not folder.exists() or not any(folder.iterdir()):
        with atomic_folder(folder) as temporary:
            _begin(temporary, plan, loaded, shared, facts)
    with _locked(folder):
        # First of all: nothing is removed from a folder that is not ours.
        require_same_cohort(folder, facts)
        for stale in folder.glob(_TEMPORARY):
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
        try:
            _go_on(folder, plan, loaded, shared, facts, workers, whole=True)
        except (KeyboardInterrupt, SystemExit) as stop:
            raise CardiogenError(
                "R75", folder, found="an interruption; whole hearts are kept",
                expected=f"{len(plan)} hearts", remedy="the same command again",
                exit_code=Exit.INTERRUPTED,
            ) from stop  # fmt: skip


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a cohort against other processes; the lock ends with its process."""
    import fcntl  # not on every system

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise CardiogenError(
            "O04", folder, found="a cohort that another process works on",
            expected="one process a folder", remedy="waiting for it, or another --out",
        ) from error  # fmt: skip
    finally:
        os.close(descriptor)


def _columns(loaded: LoadedModel) -> dict[str, list[str]]:
    """Return the columns of every table."""
    marks = Marks(synthetic=True)
    size = latent_count(loaded.model)
    subject = list(subject_row("", None, {}, marks=marks))
    latent = latent_row("", None, [0.0] * size, sha256="", marks=marks)
    return {
        "subjects.csv": [*subject, "n_frames", "ed_frame", "es_frame", "label_map"],
        "measures.csv": [*subject, *PHENOTYPES],
        "latents.csv": list(latent),
    }


def _begin(folder: Path, plan: Plan, loaded: LoadedModel, shared: Shared, facts: dict) -> None:
    CohortTables.begin(folder, _columns(loaded), facts, len(plan))
    if shared.store:
        from cardiogen.models.protocol import frame_phases

        model = loaded.model
        phases = {None: frame_phases(plan.frames), "ed": [0.0], "es": [0.0]}[plan.phase_only]
        MeshStore.create(
            folder / STORE, model.topology, phases, space=shared.options.space,
            facts={"synthetic": True, "extrapolated": plan.extrapolated,
                   "phase_only": plan.phase_only, "model": loaded.facts},
        )  # fmt: skip


def _go_on(
    folder: Path, plan: Plan, loaded: LoadedModel, shared: Shared, facts: dict, workers: int,
    *, whole: bool,
) -> None:  # fmt: skip
    """Make the hearts that are not there yet, and the overview.

    Args:
        whole: each heart's folder appears as a whole.
    """
    tables = CohortTables.resume(folder, _columns(loaded), facts, len(plan))
    if tables.done > len(plan):
        text = f"{folder} holds {tables.done} hearts, more than -n {len(plan)}: all are kept"
        typer.echo(f"cardiogen: note O05 {text}", err=True)
    store = MeshStore.open(folder / STORE) if shared.store else None
    if store is not None:
        store.truncate(tables.done)
    first = tables.done
    pictured = "png" in shared.options.formats and shared.folders and not plan.meshes_only
    shown = min(OVERVIEW_HEARTS, len(plan)) if pictured else 0
    hearts = made_hearts(folder, plan, loaded, shared, first, workers, shown=shown, whole=whole)
    sha256 = loaded.bundle.description.weights_sha256
    thumbnails = _keep(hearts, tables, store, sha256, max(0, len(plan) - first))
    if shown > first or (shown and not (folder / "overview.png").exists()):
        before = [_again(plan.request(k), loaded, shared) for k in range(min(first, shown))]
        _write_overview(folder, plan, before + thumbnails)


def _keep(
    hearts: Iterable[Made], tables: CohortTables, store: MeshStore | None, sha256: str, total: int
) -> list[Sequence]:
    """Bring hearts to the tables and the store as they come; returns those of the overview."""
    waiting, thumbnails = [], []

    def commit() -> None:
        if store is not None and waiting:
            store.append(waiting)
            waiting.clear()
        tables.commit()

    try:
        for made in progress(hearts, "generating hearts", total=total):
            # Both belong to a heart or neither: an interruption comes between two hearts.
            if made.meshes is not None:
                waiting.append(made.meshes)
            tables.append(_rows(made, sha256))
            if made.thumbnail is not None:
                thumbnails.append(made.thumbnail)
            if tables.done % SHARD == 0:
                commit()
    finally:
        commit()
    return thumbnails


def _rows(made: Made, sha256: str) -> dict[str, list]:
    request = made.request
    name, factors = request.subject_id, request.factors
    marks = Marks(synthetic=True, extrapolated=request.extrapolation_reason is not None)
    latent = latent_row(name, factors, made.latent, sha256=sha256, marks=marks)
    return {
        "subjects.csv": rounded_cells(subject_row(name, factors, {}, marks=marks) | made.files),
        "measures.csv": rounded_cells(subject_row(name, factors, made.measures, marks=marks)),
        "latents.csv": list(latent.values()),
    }


def _again(request: Request, loaded: LoadedModel, shared: Shared) -> Sequence:
    """Return the thumbnail of a heart of an earlier run."""
    latent = latent_of(request, loaded.model, shared.priors.get(request.factors))
    return thumbnail(decoded(request, loaded, latent))


def _write_overview(folder: Path, plan: Plan, thumbnails: list[Sequence]) -> None:
    from cardiogen.export.sheet import write_contact_sheet

    hearts = [plan.request(k) for k in range(min(OVERVIEW_HEARTS, len(plan)))]
    write_contact_sheet(
        folder / "overview.png",
        thumbnails[: len(hearts)],
        captions=[
            f"{h.subject_id}, extrapolated" if h.extrapolation_reason else h.subject_id
            for h in hearts
        ],
        title=f"{len(plan)} generated hearts",
        marks=Marks(synthetic=True, extrapolated=plan.extrapolated),
        overwrite=True,
    )
