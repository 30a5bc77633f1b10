"""The Typer command ``generate``; nothing heavy is imported before the call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from cardiogen.cli.options import (
    Age,
    Frames,
    Height,
    Json,
    LabelMap,
    Model,
    Overwrite,
    Sbp,
    Seed,
    Sex,
    Space,
    Weight,
    use_one_thread,
)

_TARGETS = """A phenotype to hit, such as lvedv=220 (mL), lvef=35 (%), lvm=120 (g), lvmi=70 (g/m2);
also lvesv, lvsv, rvedv, rvesv, rvsv, rvef, and volumes with i behind per m2. Repeat it."""


def generate_command(
    out: Annotated[
        Path | None, typer.Option(help="Folder to make; default: a fresh name.")
    ] = None,
    age: Age = None,
    sex: Sex = None,
    height: Height = None,
    weight: Weight = None,
    sbp: Sbp = None,
    cohort: Annotated[
        Path | None, typer.Option(help="CSV with a row of factors for each subject.")
    ] = None,
    target: Annotated[list[str] | None, typer.Option(help=_TARGETS)] = None,
    guidance: Annotated[
        float, typer.Option(help="How strongly factors act: 1 as learned, at most 5.")
    ] = 1.0,
    latents: Annotated[
        Path | None, typer.Option(help="CSV of --latents-out: decode its hearts, draw none.")
    ] = None,
    latents_out: Annotated[
        Path | None, typer.Option(help="CSV file for the latents of the hearts.")
    ] = None,
    n: Annotated[int, typer.Option("-n", "--n", help="Number of hearts.")] = 1,
    frames: Frames = 25,
    seed: Seed = 0,
    phase_only: Annotated[
        Literal["ed", "es"] | None, typer.Option(help="Only end diastole or end systole.")
    ] = None,
    space: Space = "ras",
    formats: Annotated[
        str, typer.Option("--format", help="Some of nifti,vtp,stl,glb,png,csv; all; zarr.")
    ] = "all",
    meshes_only: Annotated[
        bool, typer.Option("--meshes-only", help="No label maps; measures of the meshes.")
    ] = False,
    label_map: LabelMap = "ukbb",
    spacing: Annotated[float, typer.Option(help="Voxel size of the label maps, mm.")] = 1.25,
    heart_rate: Annotated[
        float | None, typer.Option(help="Beats per minute, for the cardiac output.")
    ] = None,
    model: Model = None,
    allow_extrapolation: Annotated[
        bool,
        typer.Option(help="Accept what is outside the training data; outputs say so."),
    ] = False,
    workers: Annotated[
        int, typer.Option("--workers", "--jobs", help="Processes, from four hearts on.")
    ] = 2,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the cohort in --out, or begin one to go on with."
        ),
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Generate beating hearts from clinical factors, any of which may be missing."""
    use_one_thread()
    from cardiogen.cli.generate import generate

    folder = generate(
        out=out, age=age, sex=sex, height=height, weight=weight, sbp=sbp, cohort=cohort,
        targets=tuple(target or ()), guidance=guidance, latents=latents, latents_out=latents_out,
        n=n, frames=frames, seed=seed, phase_only=phase_only, space=space, formats=formats,
        meshes_only=meshes_only, label_map=label_map, spacing_mm=spacing, heart_rate=heart_rate,
        model=model, allow_extrapolation=allow_extrapolation, workers=workers, resume=resume,
        overwrite=overwrite,
    )  # fmt: skip
    facts = {"folder": str(folder), "hearts": _count(folder)}
    typer.echo(json.dumps(facts, indent=2) if as_json else str(folder))


def _count(folder: Path) -> int:
    """Return the number of hearts in a folder: that of its journal, or one."""
    journal = folder / "cohort.json"
    return json.loads(journal.read_text(encoding="utf-8"))["done"] if journal.is_file() else 1
