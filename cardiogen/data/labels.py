"""Structures of the heart and the named label maps that files use for them.

File codes mean nothing without a map: ACDC and UK Biobank number the same structures in opposite
order. Volumes follow the "smooth" convention (papillary muscles belong to the blood pool).
"""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.base import CardiogenError


class Structure(IntEnum):
    """Labels inside cardiogen: LV is the left blood pool, MYO the left ventricular wall."""

    BACKGROUND = 0
    LV = 1
    MYO = 2
    RV = 3


_B, _LV, _MYO, _RV = Structure

# Code in the file -> structure. acdc: ACDC challenge; ukbb: ukbb_cardiac; mnms: M&Ms challenge.
LABEL_MAPS: dict[str, dict[int, Structure]] = {
    "acdc": {0: _B, 1: _RV, 2: _MYO, 3: _LV},
    "ukbb": {0: _B, 1: _LV, 2: _MYO, 3: _RV},
    "mnms": {0: _B, 1: _LV, 2: _MYO, 3: _RV},
}

# An image taken for a label map has thousands of codes; a message shows so many.
_SHOWN = 8


def label_map(name: str) -> dict[int, Structure]:
    """Return the label map called ``name``.

    Raises:
        CardiogenError: U11 for an unknown name.
    """
    if name not in LABEL_MAPS:
        raise CardiogenError(
            "U11", "--label-map", found=repr(name), expected=f"one of {', '.join(LABEL_MAPS)}",
            remedy="the map that your label files follow",
        )  # fmt: skip
    return LABEL_MAPS[name]


def decode_labels(
    codes: ArrayLike, map_name: str, *, where: str | Path = "labels"
) -> NDArray[np.uint8]:
    """Translate file codes to structures.

    Args:
        codes: array of any shape and real dtype, with whole numbers of the map.
        map_name: name of the label map.
        where: path for error messages.

    Raises:
        CardiogenError: L38 for values that are not whole, L39 for codes outside the map.
    """
    mapping = label_map(map_name)
    codes = np.asarray(codes)
    whole = np.rint(codes)
    if not np.array_equal(whole, codes):
        odd = codes[whole != codes].flat[0]
        raise CardiogenError(
            "L38", where, found=f"non-integer label {odd:g}", expected="whole label codes",
            remedy="labels resampled with nearest neighbors, or argmax of probabilities",
        )  # fmt: skip
    whole = whole.astype(np.int64)
    present = np.unique(whole)
    unknown = [int(c) for c in present if int(c) not in mapping]
    if unknown:
        known = ", ".join(f"{c}={s.name}" for c, s in mapping.items())
        rest = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        raise CardiogenError(
            "L39", where, found=f"label codes {unknown[:_SHOWN]}{rest}",
            expected=f"{map_name}: {known}", remedy="another --label-map, or relabeling the file",
        )  # fmt: skip
    table = np.zeros(max(mapping) + 1, dtype=np.uint8)
    table[list(mapping)] = list(mapping.values())
    return table[whole]


def encode_labels(labels: ArrayLike, map_name: str) -> NDArray[np.uint8]:
    """Translate structures to the file codes of a label map."""
    table = np.zeros(len(Structure), dtype=np.uint8)
    for code, structure in label_map(map_name).items():
        table[structure] = code
    return table[np.asarray(labels, dtype=np.uint8)]
