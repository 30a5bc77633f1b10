"""``cardiogen preview-augment``: what augmentation does to an image, as a grid of slices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from cardiogen.base.errors import CardiogenError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from augment.chain import Chain
    from cardiogen.data.grid import Grid

ChainName = Literal["classic", "full"]

_SAME_MM = 0.1


def preview_augment(
    image: str | Path,
    *,
    out: str | Path,
    labels: str | Path | None = None,
    label_map: str = "ukbb",
    chain: ChainName = "full",
    plane: bool = False,
    frame: int = 0,
    seed: int = 0,
    draws: int = 4,
    overwrite: bool = False,
) -> Path:
    """Write a PNG with every transform of a chain, and the chain, at random strengths.

    Args:
        image: NIfTI image, 3D or 4D.
        out: PNG to write.
        labels: label map on the same grid, or None.
        label_map: codes of the label file.
        chain: ``classic`` (noise, bias field, affine, morph) or ``full``.
        plane: treat the slice shown as a 2D image, as 2D networks see it.
        frame: of a 4D image.
        seed: same seed, same picture.
        draws: columns beside the original.
        overwrite: replace the file.

    Raises:
        CardiogenError: what is wrong with the files; U12 for impossible settings, L40a and L40b
            for labels of another shape or at another place than the image.
    """
    import numpy as np
    import torch

    from augment.preview import write_preview_grid
    from cardiogen.data.nifti import read_image, read_labels

    if Path(out).suffix.lower() != ".png":
        raise CardiogenError("U12", "--out", found=str(out), expected="a name that ends in .png",
                             remedy="grid.png")  # fmt: skip
    if chain not in get_args(ChainName):
        raise CardiogenError("U12", "--chain", found=repr(chain), expected="classic or full",
                             remedy="--chain full")  # fmt: skip
    if not 1 <= draws <= 20:
        raise CardiogenError("U12", "--draws", found=str(draws), expected="1 to 20",
                             remedy="--draws 4")  # fmt: skip
    if not 0 <= seed < 2**63:
        raise CardiogenError("U12", "--seed", found=str(seed), expected="0 to 2^63 - 1",
                             remedy="--seed 0")  # fmt: skip
    picture = read_image(image)
    shown = _frame(picture.frames, frame, image).astype(np.float32)
    codes = None
    if labels is not None:
        found = read_labels(labels, label_map=label_map)
        _check_grid(found.grid, picture.grid, labels)
        codes = _frame(found.frames, frame if len(found.frames) > 1 else 0, labels)
    spacing: tuple[float, ...] = picture.grid.spacing
    if plane or shown.shape[0] == 1:
        level = _fullest(codes, len(shown))
        shown, spacing = shown[level], spacing[1:]
        codes = None if codes is None else codes[level]

    return write_preview_grid(
        out, torch.from_numpy(shown)[None, None], chain=_chain(chain, shown.ndim), spacing=spacing,
        seed=seed, draws=draws, overwrite=overwrite,
        labels=None if codes is None else torch.from_numpy(codes.astype(np.int64))[None, None],
    )  # fmt: skip


def _chain(name: ChainName, ndim: int) -> Chain:
    from augment.presets import classic_chain, full_chain

    return classic_chain() if name == "classic" else full_chain(ndim)


def _frame(frames: NDArray, number: int, where: str | Path) -> NDArray:
    if not 0 <= number < len(frames):
        raise CardiogenError(
            "U12", where, found=f"--frame {number} of {len(frames)} frames",
            expected=f"0 to {len(frames) - 1}", remedy="--frame 0",
        )  # fmt: skip
    return frames[number]


def _check_grid(found: Grid, wanted: Grid, where: str | Path) -> None:
    if found.shape != wanted.shape:
        raise CardiogenError(
            "L40a", where, found=f"labels of shape {found.shape}",
            expected=f"the image's, {wanted.shape}", remedy="the labels of this image",
        )  # fmt: skip
    if not found.matches(wanted, tolerance_mm=_SAME_MM):
        raise CardiogenError(
            "L40b", where, found=f"corners {found.distance_mm(wanted):.3g} mm from the image's",
            expected="the grid of the image", remedy="resampling the labels onto the image",
        )  # fmt: skip


def _fullest(codes: NDArray | None, slices: int) -> int:
    """Return the slice with most labels, or the middle one."""
    if codes is None or not codes.any():
        return slices // 2

    return int((codes > 0).sum(axis=(1, 2)).argmax())
