"""Hearts of a cohort in the order of its plan, made by this process or by several.

A worker reads the model from its bundle; it is sent no more than requests and priors.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Listing
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from cardiogen.base import CardiogenError, atomic_folder
from cardiogen.cli.generate_heart import Made, Shared, make
from cardiogen.cli.generate_plan import Plan, Request

if TYPE_CHECKING:
    from cardiogen.models.store import LoadedModel

_MIN_HEARTS_FOR_WORKERS = 4
_CHUNK = 8


def made_hearts(
    folder: Path, plan: Plan, loaded: LoadedModel, shared: Shared, first: int, workers: int,
    *, shown: int, whole: bool,
) -> Iterator[Made]:  # fmt: skip
    """Yield hearts from number ``first`` on, made by this process or by several.

    Args:
        folder: of the cohort.
        plan: all hearts.
        loaded: their model.
        shared: what they have in common.
        first: the first one that is not there yet.
        workers: processes.
        shown: the hearts before this number are shown by the overview.
        whole: each heart's folder appears as a whole.
    """
    left = len(plan) - first
    place = folder if shared.folders else None
    if workers == 1 or left < _MIN_HEARTS_FOR_WORKERS:
        for chunk in plan.chunks(first, 1):
            yield from _make_all(chunk, loaded, shared, place, first < shown, whole)
            first += 1
        return
    from joblib import Parallel, delayed

    size = max(1, min(_CHUNK, left // (4 * workers)))
    path, sha256 = loaded.bundle.path, loaded.bundle.description.weights_sha256
    sent = shared.of_model(None)
    jobs = (
        delayed(_in_worker)(chunk, path, sha256, sent, place, first + k * size < shown, whole)
        for k, chunk in enumerate(plan.chunks(first, size))
    )
    for made in Parallel(n_jobs=workers, return_as="generator")(jobs):
        yield from made


def _in_worker(
    requests: Listing[Request], path: Path, sha256: str, shared: Shared, place: Path | None,
    shown: bool, whole: bool,
) -> list[Made]:  # fmt: skip
    loaded = _loaded(path, sha256)
    return _make_all(requests, loaded, shared.of_model(loaded), place, shown, whole)


@lru_cache(maxsize=1)
def _loaded(path: Path, sha256: str) -> LoadedModel:
    """Return the model of a worker process: sent with every heart it would cost more than them."""
    from cardiogen.models.store import load_model

    loaded = load_model(path)
    found = loaded.bundle.description.weights_sha256
    if found != sha256:
        raise CardiogenError(
            "M03", path, found=f"SHA-256 {found[:16]}...", expected=f"{sha256[:16]}... as before",
            remedy="leaving the bundle alone while hearts are made",
        )  # fmt: skip
    return loaded


def _make_all(
    requests: Listing[Request], loaded: LoadedModel, shared: Shared, place: Path | None,
    shown: bool, whole: bool,
) -> list[Made]:  # fmt: skip
    found = []
    for request in requests:
        if place is None:
            found.append(make(request, loaded, shared, None, shown=shown))
        elif whole:
            # A crash may have left a folder that no table knows.
            with atomic_folder(place / request.subject_id, overwrite=True) as temporary:
                found.append(make(request, loaded, shared, temporary, shown=shown))
        else:
            own = place / request.subject_id
            own.mkdir()
            found.append(make(request, loaded, shared, own, shown=shown))
    return found
