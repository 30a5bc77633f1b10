"""``cardiogen warp``: an image or label map through a displacement or transform."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cardiogen.base import CardiogenError
from cardiogen.cli.requests import check_apart, usage_error

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from cardiogen.data import Grid
    from cardiogen.data.nifti_geometry import Prefer
    from cardiogen.transforms import Transform

# More codes than this are an image taken for a label map.
_MOST_CODES = 256


def warp_file(
    image: str | Path,
    field: str | Path,
    *,
    out: str | Path,
    labels: bool = False,
    inverse: bool = False,
    reference: str | Path | None = None,
    phase: float | None = None,
    order: int = 1,
    prefer: Prefer | None = None,
    overwrite: bool = False,
) -> Path:
    """Pull an image through ``fixed_to_moving`` and write it on the grid of the field.

    ``moved(p) = image(T(p))`` is read once, wherever the image's own grid lies in the world; it is
    0 where ``T(p)`` leaves the image by a voxel or more (its border is repeated so far, since
    motion through thick slices often leads past the last one).

    Args:
        image: NIfTI, 3D or 4D (every frame is moved alike).
        field: displacement (NIfTI vectors of ours, ITK or ANTs), ``transform.safetensors``,
            Learn2Reg's ``.npz`` with ``reference``, or the ``motion.safetensors`` of a tracked
            cine with ``phase``.
        out: ``.nii`` or ``.nii.gz`` to write.
        labels: codes instead of intensities: every code is moved as probabilities, the most
            probable one is written.
        inverse: use ``moving_to_fixed``.
        reference: image whose grid the result takes; by default that of the field.
        phase: fraction of the cycle since ED, 0 to 1, of the motion: the image at that phase is
            pulled onto ED, and with ``inverse`` the image at ED onto that phase.
        order: 0, 1 or 3, the interpolation of intensities.
        prefer: which geometry of a header to trust where its parts disagree.
        overwrite: replace an existing file.

    Raises:
        CardiogenError: N52, S70-S74 for files that are no field, N55 if nothing of the image is
            seen, S78 where a field has no inverse, O01 if ``out`` exists.
    """
    import torch

    from cardiogen.data import read_image, write_image

    out = Path(out)
    check_apart(out, [p for p in (image, field, reference) if p is not None])
    if not out.name.endswith((".nii", ".nii.gz")):
        raise usage_error("--out", out.name, "a name that ends in .nii or .nii.gz", "such a name")
    if order not in (0, 1, 3):
        raise usage_error("--order", order, "0, 1 or 3", "1")
    if phase is not None and not 0 <= phase <= 1:
        raise usage_error("--phase", phase, "a fraction of the cycle, 0 to 1", "0.35")
    if out.exists() and not overwrite:
        raise CardiogenError(
            "O01", out, found="an existing output", expected="a path that is not there yet",
            remedy="another --out, or --overwrite to replace it",
        )  # fmt: skip
    source = read_image(image, prefer=prefer, contrast=False)
    target = None
    if reference is not None:
        target = read_image(reference, prefer=prefer, contrast=False).grid
    transform = read_transform(Path(field), target, prefer, phase)
    grid = transform.grid if target is None else target
    with torch.no_grad():
        coords = _coords(_inverse(transform, field) if inverse else transform, grid, source.grid)
        _check_seen(coords, source.grid.shape, image)
        move = _moved_codes if labels else _moved
        frames = [move(frame, coords, order, image) for frame in source.frames]
    data = frames[0] if source.data.ndim == 3 else _stacked(frames)
    write_image(out, data, grid, frame_time_s=source.frame_time_s, overwrite=overwrite)

    return out


def read_transform(
    path: Path, grid: Grid | None, prefer: Prefer | None, phase: float | None = None
) -> Transform:
    """Return one transform of a file of ours, of ANTs or ITK, or of Learn2Reg (on ``grid``)."""
    from cardiogen.transforms import TemporalSVF, load_transform, read_displacement, read_learn2reg

    found = load_transform(path) if path.suffix == ".safetensors" else None
    if isinstance(found, TemporalSVF) and phase is not None and _batch(found) == 1:
        return found.at(phase)
    if phase is not None:
        raise usage_error("--phase", f"{phase:g} with {path.name}", "the motion of one heart",
                          "motion.safetensors of cardiogen track, or no --phase")  # fmt: skip
    if path.suffix == ".npz":
        if grid is None:
            raise usage_error("--reference", "none", "the fixed image, since .npz has no grid",
                              "--reference FIXED")  # fmt: skip
        return read_learn2reg(path, grid)
    if found is None:
        return read_displacement(path, prefer=prefer)
    if isinstance(found, TemporalSVF) or _batch(found) != 1:
        raise CardiogenError(
            "S70", path, found="the motion of a sequence or of several pairs",
            expected="one transform",
            remedy="--phase for the motion of one heart, or the displacement of one frame",
        )  # fmt: skip
    return found


def _batch(transform: Transform) -> int:
    return max(len(params) for params in transform.buffers())


def _inverse(transform: Transform, field: str | Path) -> Transform:
    try:
        return transform.inverse()
    except ValueError as error:
        raise CardiogenError(
            "S78", field, found="a field that cannot be inverted; it may fold",
            expected="a one-to-one field", remedy="registering with a stiffer preset",
        ) from error  # fmt: skip


def _coords(transform: Transform, grid: Grid, image_grid: Grid) -> Tensor:
    """Return where every voxel of ``grid`` is read, ``(1, 3, *S)`` in voxels of the image."""
    from cardiogen import ops

    identity = ops.identity_coords(grid.shape)
    seen = identity + transform.displacement(grid)
    matrix = ops.world_to_grid(image_grid) @ ops.grid_to_world(grid)
    points = ops.transform_points(seen.double().flatten(2).movedim(1, -1), matrix)

    return points.movedim(-1, 1).unflatten(2, grid.shape).float()


def _seen(coords: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return which positions are less than a voxel away from an image, ``(1, 1, *S)``."""
    ends = coords.new_tensor(shape).view(1, 3, 1, 1, 1)

    return ((coords > -1) & (coords < ends)).all(dim=1, keepdim=True)


def _check_seen(coords: Tensor, shape: tuple[int, ...], where: str | Path) -> None:
    if not bool(_seen(coords, shape).any()):
        raise CardiogenError(
            "N55", where, found="grids that do not overlap: the field leads past the image",
            expected="image and field of one place in one world",
            remedy="the moving image that the field was made for",
        )  # fmt: skip


def _moved(frame: NDArray, coords: Tensor, order: int, _where: str | Path) -> NDArray:
    import numpy as np
    import torch

    from cardiogen import ops

    values = torch.from_numpy(np.ascontiguousarray(frame, dtype=np.float32))[None, None]
    moved = ops.sample(values, coords, order=order)

    # The border repeated outwards would look like anatomy.
    return moved.where(_seen(coords, frame.shape), 0)[0, 0].numpy()


def _moved_codes(frame: NDArray, coords: Tensor, _order: int, where: str | Path) -> NDArray:
    """Return the most probable code; outside the image lies 0, or a lower code if there is one."""
    import numpy as np
    import torch

    from cardiogen import ops

    codes, index = np.unique(np.append(frame, 0), return_inverse=True)
    if len(codes) > _MOST_CODES or not np.array_equal(codes, np.rint(codes)):
        raise CardiogenError(
            "L38", where, found=f"{len(codes)} values", expected="whole label codes",
            remedy="leaving out --labels, or the label map",
        )  # fmt: skip
    index = torch.from_numpy(index[:-1].reshape(frame.shape))
    best = torch.zeros(coords.shape[2:])
    found = torch.zeros(coords.shape[2:], dtype=torch.long)
    # Code by code, so that memory does not grow with their number; the background gets the rest.
    shares = torch.zeros_like(best)
    for code in range(1, len(codes)):
        mask = (index == code).float()[None, None]
        share = ops.sample(mask, coords, padding="zeros")[0, 0]
        shares += share
        better = share > best
        best, found = torch.where(better, share, best), torch.where(better, code, found)
    found = torch.where(1 - shares >= best, 0, found)

    return codes.astype(_code_type(codes))[found.numpy()]


def _code_type(codes: NDArray) -> np.dtype:
    import numpy as np

    return np.result_type(np.min_scalar_type(int(codes.min())), np.min_scalar_type(
        int(codes.max())))  # fmt: skip


def _stacked(frames: list[NDArray]) -> NDArray:
    import numpy as np

    return np.stack(frames)
