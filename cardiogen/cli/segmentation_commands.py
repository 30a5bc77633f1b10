"""Typer commands of segmentation and augmentation; like those of ``app``, they import nothing
heavy before the call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from cardiogen.cli.options import Json, LabelMap, Overwrite, Prefer


def add_segmentation_commands(app: typer.Typer) -> None:
    """Add ``train-segmentation``, ``segment`` and ``preview-augment`` to the command line."""
    app.command("train-segmentation")(train_segmentation_command)
    app.command("segment")(segment_command)
    app.command("preview-augment")(preview_augment_command)


def train_segmentation_command(
    config: Annotated[
        Path,
        typer.Option(help="TOML file, or a preset: small (laptop), large (GPU), synthetic."),
    ],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    cohort: Annotated[
        Path | None, typer.Option(help="Folder of patients, in place of the file's.")
    ] = None,
    synthetic: Annotated[
        Path | None,
        typer.Option(help="population, a bundle, or a folder of label maps, in place of the "
                     "file's."),
    ] = None,
    arm: Annotated[
        Literal["none", "random", "consistency", "adversarial", "shape"] | None,
        typer.Option(help="Augmentation, in place of the file's."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same network.")] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")
    ] = "auto",
    resume: Annotated[bool, typer.Option(help="Go on with the run that --out holds.")] = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Train a segmentation network from patients, synthetic hearts or both, and score it."""
    from cardiogen.cli.train_segmentation import train_segmentation_network

    facts = train_segmentation_network(
        config, out=out, cohort=cohort, synthetic=synthetic, arm=arm, seed=seed, device=device,
        resume=resume,
    )  # fmt: skip
    if as_json:
        plain = {name: None if value != value else value for name, value in facts.items()}
        typer.echo(json.dumps(plain, indent=2, allow_nan=False))
        return
    typer.echo(str(out))
    for name, value in facts.items():
        if isinstance(value, float):
            typer.echo(f"{name}: {value:.3f}")
    for note in facts["notes"]:
        typer.echo(f"cardiogen: note {note}", err=True)


def segment_command(
    image: Annotated[Path, typer.Argument(help="Image (NIfTI, 3D or 4D) of short-axis slices.")],
    network: Annotated[Path, typer.Option(help="Folder network of a train-segmentation.")],
    out: Annotated[Path, typer.Option(help="Label file (NIfTI) to write.")],
    label_map: LabelMap = "ukbb",
    prefer: Prefer = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")
    ] = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Segment an image by a trained network; the label map lies on the image."""
    from cardiogen.cli.segment import segment

    file = segment(
        image, network=network, out=out, label_map_name=label_map, prefer=prefer, device=device,
        overwrite=overwrite,
    )  # fmt: skip
    typer.echo(json.dumps({"labels": str(file)}, indent=2) if as_json else str(file))


def preview_augment_command(
    image: Annotated[Path, typer.Argument(help="Image (NIfTI, 3D or 4D).")],
    out: Annotated[Path, typer.Option(help="PNG to write.")],
    labels: Annotated[
        Path | None, typer.Option(help="Label map on the same grid, drawn as outlines.")
    ] = None,
    label_map: LabelMap = "ukbb",
    chain: Annotated[
        Literal["classic", "full"],
        typer.Option(help="classic: noise, bias field, affine, morph; full: everything."),
    ] = "full",
    plane: Annotated[
        bool, typer.Option(help="Treat the slice shown as a 2D image, as 2D networks see it.")
    ] = False,
    frame: Annotated[int, typer.Option(help="Frame of a 4D image, from 0.")] = 0,
    draws: Annotated[int, typer.Option(help="Random draws beside the original, 1 to 20.")] = 4,
    seed: Annotated[int, typer.Option(help="Same seed, same picture.")] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Show what augmentation does to an image: every transform alone, and the whole chain."""
    from cardiogen.cli.preview_augment import preview_augment

    file = preview_augment(
        image, out=out, labels=labels, label_map=label_map, chain=chain, plane=plane, frame=frame,
        seed=seed, draws=draws, overwrite=overwrite,
    )  # fmt: skip
    typer.echo(json.dumps({"picture": str(file)}, indent=2) if as_json else str(file))
