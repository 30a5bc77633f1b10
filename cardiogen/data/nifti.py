"""Read NIfTI images and label maps, checked to the last byte; nothing doubtful passes in silence.

Convention: NIfTI stores (x, y, z[, t]) with x fastest. Here, and nowhere else, that becomes
``([T,] D, H, W)`` with D=z, H=y, W=x, and the columns of the affine are reversed with it:
``grid.affine @ [d, h, w, 1]`` is world RAS mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import CardiogenError, Note
from cardiogen.data.anatomy_hints import require_label_map
from cardiogen.data.grid import Grid
from cardiogen.data.labels import decode_labels
from cardiogen.data.labels import label_map as known_map
from cardiogen.data.nifti_bytes import RawNifti, load_raw
from cardiogen.data.nifti_geometry import Prefer, place

Frames = Literal["any", "one", "many"]

_MAX_VALUE = 1e6
_MAX_FRAME_S = 5.0  # longer than any heart beat: such frame times are milliseconds
_MAX_CYCLE_S = 5.0
_TIME_UNIT_S = {8: 1.0, 16: 1e-3, 24: 1e-6}
_WRAP_SHARE = 1e-3


@dataclass(frozen=True, eq=False)
class Image:
    """One image or label map of a file.

    Attributes:
        data: ``(D, H, W)`` or ``(T, D, H, W)``: stored values with the header's scaling applied,
            or structures (uint8) of a label map.
        grid: lattice of one frame.
        frame_time_s: time between frames in seconds; None if there is one frame or it is unknown.
        orientation: whether the header's axes can be trusted not to mirror the heart.
        notes: what was assumed or repaired.
    """

    data: NDArray
    grid: Grid
    frame_time_s: float | None
    orientation: Literal["trusted", "assumed"]
    notes: tuple[Note, ...]

    @property
    def frames(self) -> NDArray:
        """Data as ``(T, D, H, W)``, whether or not the file has a time axis."""
        return self.data if self.data.ndim == 4 else self.data[None]


def read_image(
    path: str | Path,
    *,
    prefer: Prefer | None = None,
    repair_shear: bool = False,
    frames: Frames = "any",
    limit: int | None = None,
    contrast: bool = True,
) -> Image:
    """Read an image of real intensities.

    Args:
        path: ``.nii`` or ``.nii.gz``; the content decides, not the name.
        prefer: which of sform, qform, pixdim to believe where they disagree.
        repair_shear: accept sheared axes, made perpendicular with a note.
        frames: ``"one"`` wants a 3D image, ``"many"`` a 4D one with at least two frames.
        limit: most bytes to accept, by default 4 GiB.
        contrast: refuse an image of one value (N39); False for masks and displacement fields.

    Returns:
        Image in float32 or, where nothing is scaled, in the stored type.

    Raises:
        CardiogenError: N01-N49 for what is wrong with the file (exit 3; N07 and N08: exit 6).
    """
    image = _read(path, prefer=prefer, repair_shear=repair_shear, frames=frames, limit=limit)
    if contrast and image.data.min() == image.data.max():
        raise CardiogenError(
            "N39", path, found=f"zero variance: every voxel is {image.data.flat[0]:g}",
            expected="an image with contrast", remedy="exporting the file again",
        )  # fmt: skip
    return image


def read_labels(
    path: str | Path,
    *,
    label_map: str,
    prefer: Prefer | None = None,
    repair_shear: bool = False,
    frames: Frames = "any",
    limit: int | None = None,
    anatomy: bool = True,
) -> Image:
    """Read a label map and translate its codes to structures (uint8).

    Args:
        path: see :func:`read_image`, as for the other arguments.
        label_map: name of the map of file codes (``acdc``, ``ukbb``, ``mnms``).
        anatomy: refuse labels in which the wall surrounds the RV instead of the LV (L41): they
            follow another map. False for a check that reports it beside other faults.

    Raises:
        CardiogenError: as :func:`read_image`; L37 without any structure, L38 for codes that are
            not whole, L39 for codes outside the map, L40d for NaN or Inf, L41 for LV and RV
            swapped by the map.
    """
    known_map(label_map)
    image = _read(path, prefer=prefer, repair_shear=repair_shear, frames=frames, limit=limit,
                  finite_code="L40d")  # fmt: skip
    labels = _structures(image.data, label_map, path)
    if anatomy:
        require_label_map(labels, path, image.grid, label_map)
    return Image(labels, image.grid, image.frame_time_s, image.orientation, image.notes)


def _read(
    path: str | Path,
    *,
    prefer: Prefer | None,
    repair_shear: bool,
    frames: Frames,
    limit: int | None,
    finite_code: str | None = None,
) -> Image:
    raw = load_raw(path, limit=limit)
    _check_axes(raw.shape, frames, path)
    # Hostile headers hold signaling NaN; the checks speak of them, NumPy's warnings need not.
    with np.errstate(all="ignore"):
        placement = place(
            raw.header, raw.shape[:3], path, prefer=prefer, repair_shear=repair_shear
        )
    stored = np.frombuffer(raw.voxels, _dtype(raw)).reshape(raw.shape[::-1])
    _check_finite(stored, path, code=finite_code)
    data, data_notes = _scaled(stored, raw.header, path)
    with np.errstate(all="ignore"):
        frame_time_s, time_notes = _frame_time(raw, path)
    # (x, y, z) -> (d, h, w) = (z, y, x): the columns are reversed, the origin stays.
    grid = Grid(raw.shape[2::-1], placement.affine[:, [2, 1, 0, 3]])
    notes = raw.notes + placement.notes + data_notes + time_notes
    return Image(data, grid, frame_time_s, placement.orientation, notes)


def _check_axes(shape: tuple[int, ...], frames: Frames, path: str | Path) -> None:
    wanted = {"any": (3, 4), "one": (3,), "many": (4,)}[frames]
    names = {"any": "(X, Y, Z) or (X, Y, Z, T)", "one": "(X, Y, Z)", "many": "(X, Y, Z, T)"}
    if len(shape) not in wanted or (frames == "many" and shape[3] < 2):
        raise CardiogenError(
            "N36", path, found=f"shape {shape}",
            expected=names[frames] + (" with T of at least 2" if frames == "many" else ""),
            remedy="a file with these axes",
        )  # fmt: skip


def _dtype(raw: RawNifti) -> np.dtype:
    from nibabel.nifti1 import data_type_codes

    order = ">" if raw.header.dtype["dim"].base.str.startswith(">") else "<"
    return data_type_codes.dtype[int(raw.header["datatype"])].newbyteorder(order)


def _check_finite(stored: NDArray, path: str | Path, *, code: str | None) -> None:
    if stored.dtype.kind != "f":
        return
    bad = ~np.isfinite(stored)
    if not bad.any():
        return
    first = np.unravel_index(int(bad.argmax()), bad.shape)[::-1]
    nans = int(np.isnan(stored).sum())
    kind, count = ("NaN", nans) if nans else ("Inf", int(bad.sum()))
    raise CardiogenError(
        code or ("N26" if nans else "N27"), path,
        found=f"{count} {kind} voxels, the first at index {tuple(int(i) for i in first)}",
        expected="finite values", remedy="exporting or repairing the file",
    )  # fmt: skip


def _scaled(
    stored: NDArray, header: np.void, path: str | Path
) -> tuple[NDArray, tuple[Note, ...]]:
    """Apply slope and intercept; refuse what leaves the range of intensities."""
    with np.errstate(all="ignore"):
        slope, inter, notes = _scaling(header, path)
        ends = np.array([stored.min(), stored.max()], dtype=np.float64) * slope + inter
    if not abs(ends).max() <= _MAX_VALUE:
        raise CardiogenError(
            "N28d", path, found=f"value range {ends.min():g} to {ends.max():g}",
            expected=f"values within +-{_MAX_VALUE:g}",
            remedy="correcting scl_slope or the voxel type",
        )  # fmt: skip
    if stored.dtype == np.int16 or stored.dtype == np.dtype(">i2"):
        notes += _wrap_notes(stored, path)
    native = stored.dtype.newbyteorder("=")
    if (slope, inter) == (1.0, 0.0):
        # Aligned and writable, which views of file bytes need not be and torch asks for.
        return np.require(stored, dtype=native, requirements=["A", "W"]), notes
    exact = native.itemsize <= 2 or native == np.float32
    wide = np.float32 if exact else np.float64
    return (stored * np.float64(slope) + np.float64(inter)).astype(wide), notes


def _scaling(header: np.void, path: str | Path) -> tuple[float, float, tuple[Note, ...]]:
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or np.isnan(slope):
        note = Note("N28", str(path), f"scl_slope={slope:g}, so values are not scaled (NIfTI)")
        return 1.0, 0.0, (note,)
    for name, value, code in (("scl_slope", slope, "N28c"), ("scl_inter", inter, "N28e")):
        if not np.isfinite(value):
            raise CardiogenError(
                code, path, found=f"{name}={value:g}", expected=f"a finite {name}",
                remedy="exporting the file again",
            )  # fmt: skip
    return slope, inter, ()


def _wrap_notes(stored: NDArray, path: str | Path) -> tuple[Note, ...]:
    """Tell of values piled up at both ends of int16: an unsigned image that wrapped around."""
    low, high = float((stored < -32000).mean()), float((stored > 32000).mean())
    if min(low, high) < _WRAP_SHARE:
        return ()
    text = f"saturation share {low + high:.2%} at both ends of int16; values may have wrapped"
    return (Note("N29", str(path), text),)


def _frame_time(raw: RawNifti, path: str | Path) -> tuple[float | None, tuple[Note, ...]]:
    if len(raw.shape) < 4:
        return None, ()
    # By way of text, so that a float32 0.04 is 0.04 and not 0.03999999910593033.
    value = float(str(raw.header["pixdim"][4]))
    unit = int(raw.header["xyzt_units"]) & 56
    if not np.isfinite(value) or value <= 0:
        text = f"frame time pixdim[4]={value:g}; treated as unknown"
        return None, (Note("N23", str(path), text),)
    seconds, notes = value * _TIME_UNIT_S.get(unit, 1.0), ()
    cycle_s = seconds * raw.shape[3]
    # Many short frames in milliseconds: no frame is long, but only so the cycle is a heart's.
    if seconds > _MAX_FRAME_S or (cycle_s > _MAX_CYCLE_S and 0.3 <= cycle_s / 1000.0 <= 2.0):
        text = f"frame time {seconds:.6g} s is longer than a heart beat; taken as milliseconds"
        seconds, notes = seconds / 1000.0, (Note("N23", str(path), text),)
    elif unit not in _TIME_UNIT_S:
        text = f"frame time {value:.6g} without a unit; taken as seconds"
        notes = (Note("N23", str(path), text),)
    if seconds * raw.shape[3] > _MAX_CYCLE_S:
        text = f"frame time {seconds:.6g} s gives no plausible cycle; treated as unknown"
        return None, (Note("N23", str(path), text),)
    return seconds, notes


def _structures(codes: NDArray, map_name: str, path: str | Path) -> NDArray[np.uint8]:
    if codes.dtype == np.uint8:
        # The usual case, kept free of sorting and of wide copies: 255 marks unknown codes.
        table = np.full(256, 255, dtype=np.uint8)
        for code, structure in known_map(map_name).items():
            table[code] = structure
        labels = np.take(table, codes)
        if labels.max() == 255:
            decode_labels(np.unique(codes), map_name, where=path)
    else:
        present, inverse = np.unique(codes, return_inverse=True)
        labels = decode_labels(present, map_name, where=path)[inverse].reshape(codes.shape)
    if not labels.any():
        raise CardiogenError(
            "L37", path, found="an empty label map, classes missing: LV, MYO, RV",
            expected="labeled structures", remedy="the file that holds the labels",
        )  # fmt: skip
    return labels
