"""Options that several Typer commands share; nothing heavy is imported."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Literal

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Overwrite = Annotated[bool, typer.Option(help="Replace what --out names.")]
Age = Annotated[float | None, typer.Option(help="Years.")]
Sex = Annotated[str | None, typer.Option(help="F or M.")]
Height = Annotated[float | None, typer.Option(help="cm.")]
Weight = Annotated[float | None, typer.Option(help="kg.")]
Sbp = Annotated[float | None, typer.Option(help="Systolic blood pressure, mmHg.")]
LabelMap = Annotated[str, typer.Option(help="Codes of label files: ukbb, acdc or mnms.")]
AnyLabelMap = Annotated[
    str | None, typer.Option("--label-map", help="Codes of label files: ukbb, acdc or mnms.")
]
Model = Annotated[
    Path | None,
    typer.Option(help="Bundle, or a shipped one: deformation, the default, or linear."),
]
Formats = Annotated[str, typer.Option("--format", help="Some of nifti,vtp,stl,glb,png,csv; all.")]
Space = Annotated[Literal["ras", "lps"], typer.Option(help="Axes of the mesh files.")]
Prefer = Annotated[
    Literal["sform", "qform", "pixdim"] | None,
    typer.Option(help="Which geometry to trust where a header contradicts itself."),
]
OrientationFlag = Annotated[
    Literal["trusted", "assumed", "mirrored"] | None,
    typer.Option("--orientation", help="Overrides what headers say of left and right."),
]
Extrapolate = Annotated[
    bool,
    typer.Option(
        "--allow-extrapolation", help="Accept factors outside the training data; outputs say so."
    ),
]
Seed = Annotated[int, typer.Option(help="Same seed, same hearts.")]
Frames = Annotated[int, typer.Option(help="Frames over the cycle.")]


def use_one_thread() -> None:
    """Keep numpy and torch to one thread, unless the user says otherwise.

    A heart is many small operations: threads cost more than they give. Cores serve `--workers`.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def show(text: str, facts: dict[str, object], as_json: bool) -> None:
    """Print a result as text or as JSON."""
    typer.echo(json.dumps(facts, indent=2, allow_nan=False) if as_json else text)
