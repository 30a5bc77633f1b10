"""A submission to Learn2Reg: a folder with one displacement file per pair, named by the pair.

The files themselves are those of ``transforms.write_learn2reg``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import Tensor

from cardiogen.base import CardiogenError
from cardiogen.data import Grid
from cardiogen.transforms import write_learn2reg
from registration.metrics.entries import Pair, name_parts

Form = Literal["npz", "nii.gz"]

_FORMS: tuple[Form, ...] = ("npz", "nii.gz")


def write_submission(
    folder: str | Path,
    pair: Pair,
    displacement: Tensor,
    grid: Grid,
    *,
    form: Form = "npz",
    half: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write the displacement of a pair into a submission folder and return the file's path.

    Args:
        folder: existing folder.
        pair: fixed and moving image; they name the file.
        displacement: ``fixed_to_moving`` ``(1, 3, D, H, W)``, voxels.
        grid: lattice of the fixed image.
        form: ``"npz"`` or ``"nii.gz"``.
        half: half size in float16, as in 2020 and 2021; npz and even sizes only.
        overwrite: replace an existing file.

    Raises:
        CardiogenError: O01 if the file exists, R01 if it cannot be written.
    """
    if form not in _FORMS:
        raise ValueError(f'form must be "npz" or "nii.gz", got {form!r}')
    path = Path(folder) / f"{file_stems(pair)[0]}.{form}"
    write_learn2reg(path, displacement, grid, half=half, overwrite=overwrite)

    return path


def find_submission(folder: str | Path, pair: Pair) -> Path:
    """Return the file of a pair: the short name where it is allowed, npz before nii.gz.

    Raises:
        CardiogenError: N60 if there is none.
    """
    names = [f"{stem}.{form}" for stem in file_stems(pair) for form in _FORMS]
    for name in names:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    raise CardiogenError(
        "N60", folder, found=f"no displacement for {pair.case}", expected=" or ".join(names),
        remedy="registering this pair too, or another folder",
    )  # fmt: skip


def file_stems(pair: Pair) -> list[str]:
    """Return the names that the file of a pair may have, without ending, preferred first.

    The short one (``disp_0001_0001``) is for modality 0000 as fixed and 0001 as moving alone; the
    long one (``disp_0001_0000_0002_0000``) for all.
    """
    (fixed, fixed_mod), (moving, moving_mod) = name_parts(pair.fixed), name_parts(pair.moving)
    long = f"disp_{fixed}_{fixed_mod}_{moving}_{moving_mod}"
    if (fixed_mod, moving_mod) == ("0000", "0001"):
        return [f"disp_{fixed}_{moving}", long]

    return [long]
