"""What a request for hearts asks of ``cardiogen generate``, and what it may not ask together."""

from __future__ import annotations

import math
from collections.abc import Sequence as Listing
from pathlib import Path
from typing import TYPE_CHECKING

from cardiogen.base import CardiogenError
from cardiogen.cli.requests import usage_error
from cardiogen.data.factors import Factors

if TYPE_CHECKING:
    from cardiogen.export.heart import Format
    from cardiogen.models.protocol import AnyModel

_MAX_WORKERS = 256
_MAX_GUIDANCE = 5.0
_LABEL_FORMATS = {"nifti"}


def check_numbers(
    workers: int, spacing_mm: float, heart_rate: float | None, guidance: float
) -> None:
    """Refuse numbers that no run can go by."""
    if not 1 <= workers <= _MAX_WORKERS:
        raise usage_error("--workers", workers, f"1 to {_MAX_WORKERS}", "2")
    if not 0.5 <= spacing_mm <= 10.0:
        raise usage_error("--spacing", spacing_mm, "0.5 to 10 mm", "1.25, the default")
    if heart_rate is not None and not 20.0 <= heart_rate <= 250.0:
        raise usage_error("--heart-rate", heart_rate, "20 to 250 beats per minute", "64")
    if not 0.0 <= guidance <= _MAX_GUIDANCE or not math.isfinite(guidance):
        raise usage_error("--guidance", guidance, f"0 to {_MAX_GUIDANCE:g}", "1, the default")


def read_formats(text: str) -> tuple[tuple[Format, ...], bool]:
    """Return the formats of each heart's folder, and whether there is a store of all meshes."""
    from cardiogen.export.heart import parse_formats
    from cardiogen.export.mesh_store import require_zarr

    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    rest = [name for name in names if name != "zarr"]
    if len(rest) == len(names):
        return parse_formats(text), False
    require_zarr()
    # Tables are always there: with nothing else to write no heart needs a folder.
    kinds = parse_formats(",".join(rest)) if rest else ()
    return (() if kinds == ("csv",) else kinds), True


def check_latents(
    latents: str | Path | None,
    given: Factors,
    cohort: str | Path | None,
    targets: Listing[str],
    guidance: float,
    n: int,
) -> None:
    """Refuse, beside given latents, whatever would draw hearts."""
    if latents is None:
        return
    others = {
        "factors": given != Factors(),
        "--cohort": cohort is not None,
        "--target": bool(targets),
        "--guidance": guidance != 1.0,
        "-n": n != 1,
    }
    for name, there in others.items():
        if there:
            raise usage_error(
                "--latents", f"{name} beside given latents", "latents alone: nothing is drawn",
                f"leaving {name} out",
            )  # fmt: skip


def check_latents_out(path: str | Path | None, folder: Path, overwrite: bool) -> None:
    """Refuse, before any work, a table that could not be written after it."""
    if path is None:
        return
    path = Path(path)
    if folder.resolve() in path.resolve().parents:
        raise usage_error("--latents-out", path, "a file outside --out", "another place")
    if path.exists() and (not overwrite or not path.is_file()):
        raise CardiogenError(
            "O01", path, found="an existing output", expected="a path that is not there yet",
            remedy="another --latents-out, or --overwrite to replace it",
        )  # fmt: skip


def check_resume(out: str | Path | None, *, several: bool, overwrite: bool) -> None:
    """Refuse to go on where there is nothing to go on with."""
    if out is None or overwrite:
        raise usage_error(
            "--resume", "no --out" if out is None else "--overwrite", "the folder to go on with",
            "--out DIR, and no --overwrite",
        )  # fmt: skip
    if not several:
        raise usage_error("--resume", "a single heart", "a cohort", "-n, or no --resume")


def check_meshes(model: AnyModel, *, meshes_only: bool, store: bool) -> None:
    """Refuse meshes, alone or in a store, of a model that has none."""
    if (meshes_only or store) and model.topology is None:
        flag = "--meshes-only" if meshes_only else "--format"
        raise usage_error(flag, "a model of label maps", "a model of meshes", "another --model")


def check_no_labels(formats: str, kinds: Listing[Format]) -> None:
    """Refuse files of label maps that are asked by name and not made."""
    if _LABEL_FORMATS & set(kinds) and formats.strip().lower() != "all":
        raise usage_error("--format", "nifti without label maps", "files of meshes", "vtp")
