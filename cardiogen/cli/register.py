"""``cardiogen register``: two images or label maps to a displacement, a picture and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cardiogen.base import CardiogenError, Note
from cardiogen.base.files import atomic_folder, check_replaceable, sha256_file, write_json
from cardiogen.cli.requests import check_apart, usage_error
from cardiogen.cli.warp import read_transform

if TYPE_CHECKING:
    from torch import Tensor

    from cardiogen.data import Grid, Image
    from cardiogen.data.nifti_geometry import Prefer
    from registration import RegistrationConfig, RegistrationResult

FieldFormat = Literal["nifti", "itk", "learn2reg"]


@dataclass(frozen=True, eq=False, kw_only=True)
class _Pair:
    """Two images (or None) and label maps (or None) on the grid of the fixed one."""

    grid: Grid
    fixed: Tensor | None
    moving: Tensor | None
    fixed_labels: Tensor | None
    moving_labels: Tensor | None
    inside: Tensor
    mask: Tensor | None
    notes: tuple[Note, ...]


def register_files(
    fixed: str | Path,
    moving: str | Path,
    *,
    out: str | Path,
    preset: str | None = None,
    config: str | Path | None = None,
    fixed_labels: str | Path | None = None,
    moving_labels: str | Path | None = None,
    label_map: str | None = None,
    mask: str | Path | None = None,
    initial: str | Path | None = None,
    field_format: FieldFormat = "nifti",
    device: str = "cpu",
    prefer: Prefer | None = None,
    overwrite: bool = False,
) -> dict[str, object]:
    """Register two files and write a folder.

    Files: ``displacement.nii.gz`` (RAS mm), with another ``field_format`` also
    ``displacement_itk.nii.gz`` (LPS mm) or ``displacement_l2r.npz`` (voxels); ``moved.nii.gz``
    (0 where the moving image does not reach) and, with labels, ``moved_labels.nii.gz`` in the
    codes of the label map; ``transform.safetensors``; ``energies.csv``; ``result.json``;
    ``overview.png``.

    Args:
        fixed: image, or label map where the config compares labels alone.
        moving: the same; on a grid of its own if need be.
        out: folder to make.
        preset: name of a preset, by default ``fast``.
        config: TOML file instead of a preset.
        fixed_labels: label map on the grid of ``fixed``; scored, and fitted if the config says so.
        moving_labels: label map on the grid of ``moving``.
        label_map: codes of label maps.
        mask: image on the grid of ``fixed``; only voxels that are not 0 there are compared.
        initial: transform from ``fixed`` to ``moving`` to start from, as ``warp`` reads it.
        field_format: further form of the displacement.
        device: ``auto``, ``cpu`` or ``cuda``.
        prefer: which geometry of a header to trust where its parts disagree.
        overwrite: replace a folder of ours.

    Returns:
        What ``result.json`` holds.

    Raises:
        CardiogenError: N55 for grids that do not overlap, L40a for labels on another grid than
            their image, N01-N49 and L37-L40d for bad files, M07 for bad settings, O01 if ``out``
            exists.
    """
    from registration import register
    from registration.config import DEFAULT_PRESET, resolve_config

    out = Path(out)
    inputs = [Path(p) for p in (fixed, moving, fixed_labels, moving_labels, config, mask,
                                 initial) if p]  # fmt: skip
    check_apart(out, inputs)
    check_replaceable(out, overwrite)
    if config is not None and preset is not None:
        raise usage_error("--config", "--preset beside it", "one of them", "one of them alone")
    settings = resolve_config(preset, config)
    pair = _read_pair(Path(fixed), Path(moving), settings, label_map=label_map, prefer=prefer,
                      fixed_labels=fixed_labels, moving_labels=moving_labels,
                      mask=mask)  # fmt: skip
    start = None if initial is None else read_transform(Path(initial), pair.grid, prefer)
    result = register(
        pair.fixed, pair.moving, pair.grid, config=settings, fixed_labels=pair.fixed_labels,
        moving_labels=pair.moving_labels, device=_device(device), mask=pair.mask, initial=start,
    )  # fmt: skip
    named = (preset or DEFAULT_PRESET) if config is None else None
    facts = _facts(result, pair, inputs, named, label_map)
    with atomic_folder(out, overwrite=overwrite) as folder:
        _write(folder, result, pair, facts, label_map, field_format)

    return facts


def _read_pair(
    fixed: Path,
    moving: Path,
    settings: RegistrationConfig,
    *,
    fixed_labels: str | Path | None,
    moving_labels: str | Path | None,
    label_map: str | None,
    prefer: Prefer | None,
    mask: str | Path | None,
) -> _Pair:
    from registration.world import check_overlap, labels_onto_grid, onto_grid

    if (fixed_labels is None) != (moving_labels is None):
        raise usage_error("--fixed-labels", "labels of one image alone", "labels of both or none",
                          "both label maps")  # fmt: skip
    if fixed_labels is None and settings.wants("label"):
        if settings.wants("image"):
            raise usage_error("--fixed-labels", "none", "labels, which the config compares",
                              "--fixed-labels and --moving-labels")  # fmt: skip
        fixed_labels, moving_labels = fixed, moving
    images: list[Image | None] = [None, None]
    if settings.wants("image"):
        images = [_image(path, prefer) for path in (fixed, moving)]
    labels: list[Image | None] = [None, None]
    if fixed_labels is not None:
        labels = [_labels(path, label_map, prefer) for path in (fixed_labels, moving_labels)]
        for image, found, path in zip(images, labels, (fixed_labels, moving_labels), strict=True):
            _check_grids(image, found, path)
    grids = [(i if i is not None else x).grid for i, x in zip(images, labels, strict=True)]
    inside, notes = check_overlap(*grids, where=str(moving))
    on_fixed = [None if i is None else _tensor(i, "float32") for i in images]
    if on_fixed[1] is not None:
        on_fixed[1] = onto_grid(on_fixed[1], grids[1], grids[0])
    maps = [None if x is None else _tensor(x, "uint8") for x in labels]
    if maps[1] is not None:
        maps[1] = labels_onto_grid(maps[1], grids[1], grids[0])
    said = [note for x in (*images, *labels) if x is not None for note in x.notes]

    return _Pair(
        grid=grids[0], fixed=on_fixed[0], moving=on_fixed[1], fixed_labels=maps[0],
        moving_labels=maps[1], inside=inside, mask=_mask(mask, inside, grids[0], prefer),
        notes=tuple(dict.fromkeys([*said, *notes])),
    )  # fmt: skip


def _mask(
    path: str | Path | None, inside: Tensor, grid: Grid, prefer: Prefer | None
) -> Tensor | None:
    """Return where voxels are compared: in both images, and in the mask if there is one."""
    if path is None:
        return None if bool(inside.all()) else inside
    from cardiogen.data import read_image

    image = read_image(path, prefer=prefer, frames="one", contrast=False)
    _check_grids_match(image.grid, grid, path)
    chosen = _tensor(image, "float32") != 0
    if not bool((chosen & (inside > 0)).any()):
        raise CardiogenError(
            "N55", path, found="no voxel that both images show",
            expected="a mask of what to align",
            remedy="a mask on the grid of the fixed image that is not 0 there",
        )  # fmt: skip
    return chosen & (inside > 0)


def _image(path: Path, prefer: Prefer | None) -> Image:
    from cardiogen.data import read_image

    return read_image(path, prefer=prefer, frames="one")


def _labels(path: str | Path, label_map: str | None, prefer: Prefer | None) -> Image:
    from cardiogen.data import LABEL_MAPS, read_labels

    if label_map is None:
        raise CardiogenError(
            "U11", "--label-map", found="none", expected=f"one of {', '.join(LABEL_MAPS)}",
            remedy="the map that the label files follow",
        )  # fmt: skip
    return read_labels(path, label_map=label_map, prefer=prefer, frames="one")


def _check_grids(image: Image | None, labels: Image, path: str | Path) -> None:
    if image is not None:
        _check_grids_match(labels.grid, image.grid, path)


def _check_grids_match(found: Grid, wanted: Grid, path: str | Path) -> None:
    if found.matches(wanted, tolerance_mm=0.05):
        return
    raise CardiogenError(
        "L40a", path,
        found=f"labels or a mask of shape {found.shape}, {wanted.distance_mm(found):.3g} mm "
        "from the image",
        expected=f"the grid of their image, {wanted.shape}",
        remedy="the labels or mask of this very image",
    )  # fmt: skip


def _tensor(image: Image, dtype: str) -> Tensor:
    import numpy as np
    import torch

    return torch.from_numpy(np.asarray(image.data).astype(dtype))[None, None]


def _device(name: str) -> str:
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise usage_error("--device", name, "auto, cpu or cuda", "auto")
    if name == "cuda" and not torch.cuda.is_available():
        raise CardiogenError(
            "R05", "--device", found="no CUDA device", expected="one", remedy="--device cpu"
        )
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def _facts(
    result: RegistrationResult,
    pair: _Pair,
    inputs: list[Path],
    preset: str | None,
    label_map: str | None,
) -> dict[str, object]:
    facts = result.as_dict()
    facts["notes"] = [str(note) for note in (*pair.notes, *result.notes)]
    facts["provenance"] |= {
        "preset": preset,
        "files": {str(path.name): sha256_file(path) for path in inputs},
        "label_map": label_map,
    }
    return facts


def _write(
    folder: Path,
    result: RegistrationResult,
    pair: _Pair,
    facts: dict[str, object],
    label_map: str | None,
    field_format: FieldFormat,
) -> None:
    from cardiogen import ops
    from cardiogen.data import encode_labels, write_image
    from cardiogen.transforms import write_displacement, write_learn2reg
    from registration.overview import draw_overview

    result.write_into(folder)
    write_json(folder / "result.json", facts, overwrite=True)
    field = result.displacement.cpu()
    if field_format == "itk":
        write_displacement(folder / "displacement_itk.nii.gz", field, pair.grid, convention="itk")
    elif field_format == "learn2reg":
        write_learn2reg(folder / "displacement_l2r.npz", field, pair.grid)
    if pair.moving is not None:
        # The border, repeated further than a voxel, would look like anatomy; see ``warp_file``.
        seen = ops.warp(pair.inside, field, padding="zeros") > 0
        moved = result.moved(pair.moving).cpu().where(seen, 0)[0, 0].numpy()
        write_image(folder / "moved.nii.gz", moved, pair.grid)
    if pair.moving_labels is not None:
        labels = result.moved_labels(pair.moving_labels)[0, 0].numpy()
        write_image(folder / "moved_labels.nii.gz", encode_labels(labels, label_map), pair.grid)
    shown = (pair.fixed, pair.moving) if pair.fixed is not None else (
        pair.fixed_labels, pair.moving_labels
    )  # fmt: skip
    moving = shown[1].float() * pair.inside
    draw_overview(folder / "overview.png", shown[0].float(), moving, field, pair.grid,
                  title=_title(facts))  # fmt: skip


def _title(facts: dict[str, object]) -> str:
    metrics, folds = facts["metrics"][0], facts["folding_fraction"][0]
    # Without labels, or where too little is inside the mask, numbers are missing.
    numbers = {"Dice": metrics["mean_dice"], "SD log J": metrics["field"]["sdlogj"]}
    shown = [f"{name} {value:.3f}" for name, value in numbers.items() if value is not None]

    return ", ".join([*shown, f"folds {folds:.2g}", f"{facts['timings_s']['total']:.2f} s"])
