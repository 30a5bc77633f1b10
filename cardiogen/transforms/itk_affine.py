"""Affine matrices as ITK text files (``.tfm``, ``.txt``), as ITK, SimpleITK and ANTs read them.

Convention: ITK maps points of the fixed image to the moving one, as we do, in LPS mm:
``y = L (x - c) + c + t``. With F = diag(-1, -1, 1, 1) our RAS matrix is ``F [L, c + t - L c] F``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen.base import CardiogenError, atomic_write, read_bounded
from cardiogen.transforms.linear import Affine, Rigid

_FIRST_LINE = "#Insight Transform File V1.0"
_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
_LIMIT = 1 << 16
# Numbers of every kind: parameters, then fixed parameters.
_COUNTS = {
    "AffineTransform": (12, 3),
    "MatrixOffsetTransformBase": (12, 3),
    "Euler3DTransform": (6, 3),
    "VersorRigid3DTransform": (6, 3),
    "TranslationTransform": (3, 0),
}


def write_itk_affine(
    path: str | Path, transform: Affine | Rigid, *, overwrite: bool = False
) -> None:
    """Write one rigid or affine transform as ITK's ``AffineTransform``.

    Args:
        path: destination, ``.tfm`` or ``.txt``.
        transform: of batch 1; its center is kept.
        overwrite: replace an existing file.

    Raises:
        CardiogenError: O01 if the file exists, R01 if it cannot be written.
    """
    path = Path(path)
    if path.suffix not in (".tfm", ".txt"):
        raise ValueError(f"path must end in .tfm or .txt, got {path.name}")
    matrix = transform.matrix().detach().cpu().numpy()
    if len(matrix) != 1 or not np.isfinite(matrix).all():
        raise ValueError(f"transform must be one finite matrix, got a batch of {len(matrix)}")
    lps = _FLIP @ matrix[0] @ _FLIP
    center = _FLIP[:3, :3] @ np.array(transform.center)
    translation = lps[:3, 3] - center + lps[:3, :3] @ center
    lines = [
        _FIRST_LINE,
        "#Transform 0",
        "Transform: AffineTransform_double_3_3",
        f"Parameters: {_numbers([*lps[:3, :3].ravel(), *translation])}",
        f"FixedParameters: {_numbers(center)}",
    ]
    with atomic_write(path, overwrite=overwrite) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="ascii")


def read_itk_affine(path: str | Path) -> Tensor:
    """Return the matrix of an ITK text file, ``(1, 4, 4)`` float64, fixed to moving RAS mm.

    Affine, MatrixOffset (ANTs), Euler3D (ZXY), VersorRigid3D and Translation transforms in 3D are
    understood. ``Affine.from_matrix(grid, matrix)`` makes a transform of it.

    Raises:
        CardiogenError: S73 for what is no such file, S47 unreadable, R02 too large.
    """
    path = Path(path)
    content = read_bounded(path, limit=_LIMIT, family="S")
    kind, parameters, fixed = _parsed(content, path)
    linear, translation = _linear_part(kind, parameters, path)
    center = fixed if len(fixed) else np.zeros(3)
    lps = np.eye(4)
    lps[:3, :3] = linear
    lps[:3, 3] = translation + center - linear @ center

    return torch.from_numpy(_FLIP @ lps @ _FLIP).unsqueeze(0)


def _numbers(values: Sequence[float] | NDArray[np.float64]) -> str:
    # Adding 0 turns -0.0, which looks odd in a file, into 0.0.
    return " ".join(repr(float(v) + 0.0) for v in values)


def _parsed(content: bytes, path: Path) -> tuple[str, NDArray[np.float64], NDArray[np.float64]]:
    """Return name, parameters and fixed parameters of the only transform in the file."""
    try:
        lines = [line.strip() for line in content.decode("ascii").splitlines()]
    except UnicodeDecodeError as error:
        raise _refused(path, "a file that is not text") from error
    if not lines or lines[0] != _FIRST_LINE:
        raise _refused(path, f"another first line: {lines[0][:40] if lines else 'none'!r}")
    told = [line.split(":", 1) for line in lines if line and not line.startswith("#")]
    fields = {entry[0]: entry[1].strip() for entry in told if len(entry) == 2}
    if len(told) != 3 or set(fields) != {"Transform", "Parameters", "FixedParameters"}:
        raise _refused(path, f"{len(told)} entries: {', '.join(e[0][:40] for e in told)[:120]}")
    kind, _, scalar = fields["Transform"].partition("_")
    if kind not in _COUNTS or scalar not in ("double_3_3", "float_3_3"):
        raise _refused(path, f"transform {fields['Transform'][:60]}")
    numbers = [_floats(fields[name], path) for name in ("Parameters", "FixedParameters")]
    counts = tuple(len(values) for values in numbers)
    # Newer ITK stores a fourth fixed parameter with Euler3D: whether the order is ZYX.
    if kind == "Euler3DTransform" and counts == (6, 4) and numbers[1][3] == 0.0:
        numbers[1], counts = numbers[1][:3], (6, 3)
    if counts != _COUNTS[kind]:
        raise _refused(path, f"{counts[0]} parameters and {counts[1]} fixed ones for {kind}")
    return kind, numbers[0], numbers[1]


def _floats(text: str, path: Path) -> NDArray[np.float64]:
    try:
        values = np.array([float(word) for word in text.split()], dtype=np.float64)
    except ValueError as error:
        raise _refused(path, f"{text[:60]!r} instead of numbers") from error
    if not np.isfinite(values).all():
        raise _refused(path, "numbers that are not finite")
    return values


def _linear_part(
    kind: str, parameters: NDArray[np.float64], path: Path
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ITK's matrix and translation from the parameters of a kind."""
    match kind:
        case "TranslationTransform":
            return np.eye(3), parameters
        case "Euler3DTransform":
            x, y, z = (_rotation(axis, angle) for axis, angle in enumerate(parameters[:3]))
            return z @ x @ y, parameters[3:]
        case "VersorRigid3DTransform":
            return _versor_matrix(parameters[:3], path), parameters[3:]
    return parameters[:9].reshape(3, 3), parameters[9:]


def _rotation(axis: int, angle: float) -> NDArray[np.float64]:
    cosine, sine = math.cos(angle), math.sin(angle)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = cosine
    matrix[first, second], matrix[second, first] = -sine, sine
    return matrix


def _versor_matrix(vector: NDArray[np.float64], path: Path) -> NDArray[np.float64]:
    """Return the rotation of a unit quaternion with this vector part and a positive real part."""
    rest = 1.0 - float(vector @ vector)
    if rest < 0:
        raise _refused(path, "a versor longer than 1")
    x, y, z = vector
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + 2 * math.sqrt(rest) * cross + 2 * cross @ cross


def _refused(path: Path, found: str) -> CardiogenError:
    return CardiogenError(
        "S73", path, found=found,
        expected=f"one 3D transform in ITK's text format ({_FIRST_LINE}): {', '.join(_COUNTS)}",
        remedy="writing it so, e.g. with SimpleITK.WriteTransform to a .tfm file",
    )  # fmt: skip
