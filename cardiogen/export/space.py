"""World space of exported meshes: RAS as inside cardiogen, or LPS as DICOM and ITK have it.

3D Slicer takes a mesh file for LPS unless its header says ``SPACE=RAS``; ParaView shows what is
in the file. So every mesh file that we write names its space.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.base import CardiogenError

Space = Literal["ras", "lps"]

_SIGNS = {"ras": (1.0, 1.0, 1.0), "lps": (-1.0, -1.0, 1.0)}


def check_space(space: str) -> Space:
    """Return ``space`` in lower case.

    Raises:
        CardiogenError: U12 for anything but ``ras`` and ``lps``.
    """
    if space.lower() not in _SIGNS:
        raise CardiogenError(
            "U12", "--space", found=repr(space), expected=" or ".join(get_args(Space)),
            remedy="ras (NIfTI, ParaView, cardiogen) or lps (DICOM, ITK)",
        )  # fmt: skip
    return space.lower()


def to_space(points: ArrayLike, space: Space) -> NDArray[np.float64]:
    """Return world RAS points ``(..., 3)`` mm in ``space``: ``(x, y, z) -> (-x, -y, z)`` for LPS.

    That is half a turn about z and no mirror image, so the winding of faces stays outward.
    """
    return np.asarray(points, dtype=np.float64) * _SIGNS[check_space(space)]


def space_tag(space: Space) -> str:
    """Return the words that 3D Slicer searches in STL headers and comments."""
    return f"SPACE={check_space(space).upper()}"
