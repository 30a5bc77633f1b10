"""Typer commands of registration; like those of ``app``, they import nothing heavy before the
call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from cardiogen.cli.options import Json, Overwrite, Prefer


def add_commands(app: typer.Typer) -> None:
    """Add ``register``, ``track`` and ``warp`` to the command line."""
    app.command("register")(register_command)
    app.command("track")(track_command)
    app.command("warp")(warp_command)


def register_command(
    fixed: Annotated[Path, typer.Argument(help="Image (NIfTI, 3D) whose grid the result has.")],
    moving: Annotated[Path, typer.Argument(help="Image to bring there; any grid in one world.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    preset: Annotated[
        str | None,
        typer.Option(help="fast (default), accurate, multimodal, affine_mi, affine_nmi, "
                     "affine_ngf, affine_mind, labels (both files are label maps), ukbb_ffd, "
                     "deepreg_affine, deepreg_nonrigid."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file instead of a preset.")] = None,
    fixed_labels: Annotated[
        Path | None,
        typer.Option(help="Label map of FIXED: scored; fitted by configs with label terms."),
    ] = None,
    moving_labels: Annotated[Path | None, typer.Option(help="Label map of MOVING.")] = None,
    label_map: Annotated[
        str | None, typer.Option(help="Codes of label files: ukbb, acdc or mnms.")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="Image on FIXED's grid: compare only where it is not 0.")
    ] = None,
    initial: Annotated[
        Path | None, typer.Option(help="Transform FIXED to MOVING to start from.")
    ] = None,
    field_format: Annotated[
        Literal["nifti", "itk", "learn2reg"],
        typer.Option("--format", help="Beside our NIfTI (RAS mm): itk (LPS mm), learn2reg (npz)."),
    ] = "nifti",
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")
    ] = "auto",
    prefer: Prefer = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Register two images or label maps: displacement, moved image, numbers and a picture."""
    from cardiogen.cli.register import register_files

    facts = register_files(
        fixed, moving, out=out, preset=preset, config=config, fixed_labels=fixed_labels,
        moving_labels=moving_labels, label_map=label_map, mask=mask, initial=initial,
        field_format=field_format, device=device, prefer=prefer, overwrite=overwrite,
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps({"folder": str(out), **facts}, indent=2, allow_nan=False))
        return
    typer.echo(str(out))
    for note in facts["notes"]:
        typer.echo(f"cardiogen: note {note}", err=True)


def track_command(
    cine: Annotated[Path, typer.Argument(help="Cine (NIfTI, 4D), slices along its third axis.")],
    ed_labels: Annotated[Path, typer.Option(help="Label map (3D) of the ED frame.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    label_map: Annotated[
        str | None, typer.Option(help="Codes of label files: ukbb, acdc or mnms.")
    ] = None,
    view: Annotated[
        list[Path] | None,
        typer.Option(help="Further cine (NIfTI, 4D) on other planes, such as a long axis; repeat "
                     "for more. One motion in 3D then explains all of them."),
    ] = None,
    ed: Annotated[int, typer.Option(help="Frame of end diastole, from 0.")] = 0,
    preset: Annotated[
        str | None, typer.Option(help="default, accurate or ukbb (neighbors by FFD, blended).")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file instead of a preset.")] = None,
    strategy: Annotated[
        str | None,
        typer.Option(help="groupwise (default), direct, sequential or blend, instead of the "
                     "preset's."),
    ] = None,
    in_plane: Annotated[
        bool | None,
        typer.Option("--in-plane/--through-plane", help="Track slices on their own, or in 3D; "
                     "default: on their own if over 10 mm apart."),
    ] = None,
    frame_time_ms: Annotated[
        float | None, typer.Option(help="Time between frames; default: the header's.")
    ] = None,
    resample_labels: Annotated[
        bool, typer.Option(help="Accept labels on another grid of the same world.")
    ] = False,
    space: Annotated[Literal["ras", "lps"], typer.Option(help="Axes of the mesh files.")] = "ras",
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")
    ] = "auto",
    prefer: Prefer = None,
    orientation: Annotated[
        Literal["trusted", "assumed", "mirrored"] | None,
        typer.Option(help="Overrides what the header says of left and right."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Track a cine from its ED labels: motion, labels, meshes, volumes and strain."""
    from cardiogen.cli.track import track_files

    facts = track_files(
        cine, ed_labels=ed_labels, out=out, label_map=label_map, views=view or (), ed=ed,
        preset=preset, config=config, strategy=strategy, in_plane=in_plane,
        frame_time_ms=frame_time_ms, resample_labels=resample_labels, space=space, device=device,
        prefer=prefer, orientation=orientation, overwrite=overwrite,
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps({"folder": str(out), **facts}, indent=2, allow_nan=False))
        return
    typer.echo(str(out))
    for note in facts["notes"]:
        typer.echo(f"cardiogen: note {note}", err=True)


def warp_command(
    image: Annotated[Path, typer.Argument(help="Image or label map (NIfTI, 3D or 4D).")],
    field: Annotated[
        Path,
        typer.Argument(help="Displacement (NIfTI, or .npz with --reference), transform, or "
                       "motion.safetensors of a tracked cine with --phase."),
    ],
    out: Annotated[Path, typer.Option(help="NIfTI file to write.")],
    labels: Annotated[bool, typer.Option(help="The image holds label codes.")] = False,
    inverse: Annotated[bool, typer.Option(help="Use the inverse of the field.")] = False,
    reference: Annotated[
        Path | None, typer.Option(help="Image whose grid the result takes; default: the field's.")
    ] = None,
    phase: Annotated[
        float | None,
        typer.Option(help="Fraction of the cycle since ED at which to take the motion: its image "
                     "goes onto ED, with --inverse that of ED onto it."),
    ] = None,
    order: Annotated[int, typer.Option(help="Interpolation of intensities: 0, 1 or 3.")] = 1,
    prefer: Prefer = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Move an image or label map by a displacement or transform."""
    from cardiogen.cli.warp import warp_file

    path = warp_file(
        image, field, out=out, labels=labels, inverse=inverse, reference=reference, phase=phase,
        order=order, prefer=prefer, overwrite=overwrite,
    )  # fmt: skip
    typer.echo(json.dumps({"file": str(path)}, indent=2) if as_json else str(path))
