"""From NIfTI header fields to one trustworthy voxel-to-world affine, or a refusal that says why.

A header describes its world up to three times (sform, qform, pixdim). Here they must agree, unless
the user says which one to believe. Matrices in this file act on stored indices (x, y, z).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import CardiogenError, Note

Prefer = Literal["sform", "qform", "pixdim"]
Affine = NDArray[np.float64]

_SPACING_MM = (0.2, 25.0)
# Outside these, squares overflow or vanish before any other check can speak.
_MIN_MM, _MAX_MM = 1e-9, 1e9
_IN_PLANE_MM = 5.0
_MAX_COSINE = 1e-3
_MAX_CONFLICT_MM = 0.1
_MAX_NORM_RATIO = 0.01
_UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 1e-3}
_UNIT_NAMES = {0: "unknown", 1: "metre", 2: "mm", 3: "micron"}


@dataclass(frozen=True, eq=False)
class Placement:
    """Affine of the stored axes (x, y, z), whether to trust its orientation, and notes."""

    affine: Affine
    orientation: Literal["trusted", "assumed"]
    notes: tuple[Note, ...]


def place(
    header: np.void,
    shape: tuple[int, int, int],
    path: str | Path,
    *,
    prefer: Prefer | None = None,
    repair_shear: bool = False,
) -> Placement:
    """Choose the affine of a header.

    Args:
        header: fields by their NIfTI names.
        shape: stored size (x, y, z).
        path: for messages.
        prefer: the one description to believe; by default all that are present must agree.
            ``"pixdim"`` takes axes from the sform or qform where they are sound, as stored
            otherwise, and lengths from pixdim; its orientation counts as assumed.
        repair_shear: replace sheared axes by the nearest perpendicular ones, with a note.

    Raises:
        CardiogenError: N13-N19, N22, N24, N25.
    """
    zooms = _checked_zooms(header, path)
    if prefer == "pixdim":
        affine, orientation, notes = _from_pixdim(header, zooms, path)
    else:
        affine = _agreed(header, zooms, shape, path, prefer=prefer, repair=repair_shear)
        orientation, notes = "trusted", ()
    affine, repair_notes = _square_up(affine, shape, path, repair=repair_shear)
    affine, unit_notes = _in_mm(header, affine, path)
    return Placement(affine, orientation, notes + repair_notes + unit_notes)


def check_lattice(affine: Affine, where: str | Path) -> None:
    """Refuse spacings that no heart image has (N22) and axes that are not perpendicular (N19)."""
    _refuse_spacing(np.linalg.norm(affine[:3, :3], axis=0), where, "mm")
    _refuse_shear(affine, where)


def _checked_zooms(header: np.void, path: str | Path) -> NDArray[np.float64]:
    zooms = header["pixdim"][1:4].astype(np.float64)
    for axis, zoom in enumerate(zooms, start=1):
        if not _MIN_MM < zoom < _MAX_MM:
            finite = abs(zoom) < _MAX_MM
            code = "N15" if not finite else "N14" if zoom < 0 else "N13"
            wrong = {"N13": "spacing 0", "N14": "pixdim<0", "N15": "not finite"}[code]
            raise CardiogenError(
                code, path, found=f"pixdim[{axis}]={zoom:g} ({wrong})",
                expected="positive, finite voxel spacings", remedy="exporting the file again",
            )  # fmt: skip
    return zooms


def _sform(header: np.void, path: str | Path) -> Affine | None:
    """Return the sform, or None if its code says there is none."""
    if header["sform_code"] <= 0:
        return None
    affine = np.eye(4)
    for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
        affine[row] = header[name]
        if not (abs(affine[row]) < _MAX_MM).all():
            wrong = "beyond all bounds" if np.isfinite(affine[row]).all() else "not finite"
            raise CardiogenError(
                "N16", path, found=f"{name} {wrong}", expected="a finite sform",
                remedy="--prefer qform or --prefer pixdim",
            )  # fmt: skip
    norms = np.linalg.norm(affine[:3, :3], axis=0)
    if norms.min() < _MIN_MM or abs(np.linalg.det(affine[:3, :3] / norms)) < 1e-6:
        raise CardiogenError(
            "N17", path, found="a singular sform", expected="three independent axes",
            remedy="--prefer qform or --prefer pixdim",
        )  # fmt: skip
    return affine


def _qform(header: np.void, zooms: NDArray[np.float64], path: str | Path) -> Affine | None:
    """Return the qform, or None if its code says there is none."""
    from nibabel.quaternions import fillpositive, quat2mat

    if header["qform_code"] <= 0:
        return None
    vector = np.array([header[f"quatern_{c}"] for c in "bcd"], dtype=np.float64)
    origin = np.array([header[f"qoffset_{c}"] for c in "xyz"], dtype=np.float64)
    length = math.hypot(*vector)
    if not length <= 1 + 1e-5 or not (abs(origin) < _MAX_MM).all():
        raise CardiogenError(
            "N24", path, found=f"a qform whose quaternion has length {length:g}",
            expected="a finite qform with a unit quaternion",
            remedy="--prefer sform or --prefer pixdim",
        )  # fmt: skip
    rotation = quat2mat(fillpositive(vector / max(length, 1.0)))
    qfac = -1.0 if header["pixdim"][0] < 0 else 1.0
    affine = np.eye(4)
    affine[:3, :3] = rotation * (zooms * np.array([1.0, 1.0, qfac]))
    affine[:3, 3] = origin
    return affine


def _agreed(
    header: np.void,
    zooms: NDArray[np.float64],
    shape: tuple[int, int, int],
    path: str | Path,
    *,
    prefer: Prefer | None,
    repair: bool,
) -> Affine:
    """Return the preferred matrix, or the one on which all present matrices agree."""
    sform = None if prefer == "qform" else _sform(header, path)
    if sform is not None:
        # First, since a qform cannot shear: the conflict below would hide the true reason.
        _refuse_shear(sform, path, repair=repair)
        if prefer is None:
            _check_norms(sform, zooms, path)
    qform = None if prefer == "sform" else _qform(header, zooms, path)
    if sform is None and qform is None:
        codes = f"sform_code={header['sform_code']} and qform_code={header['qform_code']}"
        raise CardiogenError(
            "N25", path, found=f"no orientation: {codes}",
            expected=f"a {prefer}" if prefer else "an sform or a qform",
            remedy="--prefer pixdim to assume axes as stored",
        )  # fmt: skip
    if sform is None or qform is None:
        return qform if sform is None else sform
    gap = _corner_distance(_perpendicular(sform, np.zeros(3)), qform, shape)
    if gap > _MAX_CONFLICT_MM:
        raise CardiogenError(
            "N18", path,
            found=f"{gap:.3g} mm apart: sform {_show(sform)}, qform {_show(qform)}",
            expected=f"both within {_MAX_CONFLICT_MM} mm at the corners",
            remedy="--prefer sform or --prefer qform",
        )  # fmt: skip
    return sform


def _check_norms(sform: Affine, zooms: NDArray[np.float64], path: str | Path) -> None:
    norms = np.linalg.norm(sform[:3, :3], axis=0)
    if np.any(abs(norms / zooms - 1) > _MAX_NORM_RATIO):
        raise CardiogenError(
            "N18b", path,
            found=f"sform spacing {_lengths(norms)} against pixdim {_lengths(zooms)}",
            expected=f"both within {_MAX_NORM_RATIO:.0%}",
            remedy="--prefer pixdim (or --prefer sform, if you know that it is right)",
        )  # fmt: skip


def _from_pixdim(
    header: np.void, zooms: NDArray[np.float64], path: str | Path
) -> tuple[Affine, Literal["assumed"], tuple[Note, ...]]:
    """Return lengths of pixdim along the axes of the first sound matrix, or as stored."""
    sources = {"sform": lambda: _sform(header, path), "qform": lambda: _qform(header, zooms, path)}
    affine, source = np.eye(4), "storage"
    for name, matrix_of in sources.items():
        try:
            matrix = matrix_of()
        except CardiogenError:
            continue  # An unsound matrix is what the user chose pixdim for.
        if matrix is not None:
            affine, source = matrix, name
            break
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    affine[:3, :3] = axes * zooms
    text = f"lengths from pixdim {_lengths(zooms)}, axes from {source}; orientation assumed"
    return affine, "assumed", (Note("N18b" if source != "storage" else "N25", str(path), text),)


def _shear(affine: Affine) -> tuple[float, str]:
    """Return the largest cosine between two axes, and the names of the two."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = {"x-y": axes[:, 0] @ axes[:, 1], "x-z": axes[:, 0] @ axes[:, 2],
               "y-z": axes[:, 1] @ axes[:, 2]}  # fmt: skip
    pair = max(cosines, key=lambda name: abs(cosines[name]))
    return float(abs(cosines[pair])), pair


def _refuse_shear(affine: Affine, where: str | Path, *, repair: bool = False) -> None:
    cosine, pair = _shear(affine)
    if cosine > _MAX_COSINE and not repair:
        raise CardiogenError(
            "N19", where, found=f"a sheared affine: shear {cosine:.4g} between axes {pair}",
            expected=f"perpendicular axes (shear at most {_MAX_COSINE})", remedy="--repair-shear",
        )  # fmt: skip


def _perpendicular(affine: Affine, pivot: NDArray[np.float64]) -> Affine:
    """Return the nearest affine with perpendicular axes of equal lengths; ``pivot`` stays put."""
    norms = np.linalg.norm(affine[:3, :3], axis=0)
    left, _, right = np.linalg.svd(affine[:3, :3] / norms)
    repaired = affine.copy()
    repaired[:3, :3] = left @ right * norms
    repaired[:3, 3] += (affine[:3, :3] - repaired[:3, :3]) @ pivot
    return repaired


def _square_up(
    affine: Affine, shape: tuple[int, int, int], path: str | Path, *, repair: bool
) -> tuple[Affine, tuple[Note, ...]]:
    """Refuse shear, or repair it about the center of the image with a note."""
    _refuse_shear(affine, path, repair=repair)
    cosine, _ = _shear(affine)
    if cosine <= _MAX_COSINE:
        return affine, ()
    repaired = _perpendicular(affine, (np.array(shape) - 1) / 2)
    moved = _corner_distance(affine, repaired, shape)
    text = f"shear {cosine:.4g} repaired, corners moved by up to {moved:.3g} mm"
    return repaired, (Note("N19", str(path), text),)


def _in_mm(header: np.void, affine: Affine, path: str | Path) -> tuple[Affine, tuple[Note, ...]]:
    unit = int(header["xyzt_units"]) & 7
    name = _UNIT_NAMES.get(unit, "unknown")
    scale = _UNIT_MM.get(unit, 1.0)
    affine = affine.copy()
    affine[:3] *= scale
    _refuse_spacing(np.linalg.norm(affine[:3, :3], axis=0), path, name)
    if name == "unknown":
        return affine, (Note("N22c", str(path), "the unit of length is unknown; assumed mm"),)
    if scale != 1.0:
        return affine, (Note("N22", str(path), f"lengths converted from {name} to mm"),)
    return affine, ()


def _refuse_spacing(spacing: NDArray[np.float64], where: str | Path, unit: str) -> None:
    low, high = _SPACING_MM
    # Header fields are float32, so that 5 mm may read as 5.0000002.
    if spacing.min() < low * (1 - 1e-5) or spacing.max() > high * (1 + 1e-5) or (
        np.sort(spacing)[1] > _IN_PLANE_MM * (1 + 1e-5)
    ):  # fmt: skip
        raise CardiogenError(
            "N22", where, found=f"spacing {_lengths(spacing)} implausible (unit: {unit})",
            expected=f"{low:g} to {high:g} mm, in plane at most {_IN_PLANE_MM:g} mm",
            remedy="correcting the unit or spacing in the file",
        )  # fmt: skip


def _corner_distance(one: Affine, other: Affine, shape: tuple[int, int, int]) -> float:
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij"), -1).reshape(-1, 3)
    gap = corners @ (one - other)[:3, :3].T + (one - other)[:3, 3]
    return float(np.linalg.norm(gap, axis=-1).max())


def _lengths(values: NDArray[np.float64]) -> str:
    return " x ".join(f"{v:.4g}" for v in values) + " mm"


def _show(affine: Affine) -> str:
    return str(np.round(affine[:3], 3).tolist())
