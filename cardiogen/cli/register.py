"""``cardiogen register``: two images or label maps to a displacement, a picture and numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cardiogen.base.files import atomic_folder, check_replaceable, sha256_file, write_json
from cardiogen.cli.register_inputs import Pair, read_pair
from cardiogen.cli.requests import check_apart, check_device, usage_error
from cardiogen.cli.warp import read_transform

if TYPE_CHECKING:
    from cardiogen.data.nifti_geometry import Prefer
    from registration import RegistrationResult

FieldFormat = Literal["nifti", "itk", "learn2reg"]


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
    pair = read_pair(Path(fixed), Path(moving), settings, label_map=label_map, prefer=prefer,
                     fixed_labels=fixed_labels, moving_labels=moving_labels,
                     mask=mask)  # fmt: skip
    start = None if initial is None else read_transform(Path(initial), pair.grid, prefer)
    result = register(
        pair.fixed, pair.moving, pair.grid, config=settings, fixed_labels=pair.fixed_labels,
        moving_labels=pair.moving_labels, device=check_device(device), mask=pair.mask,
        initial=start,
    )  # fmt: skip
    named = (preset or DEFAULT_PRESET) if config is None else None
    facts = _facts(result, pair, inputs, named, label_map)
    with atomic_folder(out, overwrite=overwrite) as folder:
        _write(folder, result, pair, facts, label_map, field_format)

    return facts


def _facts(
    result: RegistrationResult,
    pair: Pair,
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
    pair: Pair,
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
