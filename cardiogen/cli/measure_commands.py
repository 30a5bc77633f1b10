"""Typer commands that judge hearts, ``measure`` and ``check``; nothing heavy is imported before
the call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cardiogen.base.errors import Exit
from cardiogen.cli.options import AnyLabelMap, Json, OrientationFlag, Overwrite, Prefer

if TYPE_CHECKING:
    import pandas as pd


def add_measure_commands(app: typer.Typer) -> None:
    """Add ``measure`` and ``check`` to the command line."""
    app.command("measure")(measure_command)
    app.command("check")(check_command)


def measure_command(
    path: Annotated[
        Path, typer.Argument(help="NIfTI file, closed mesh, subject or cohort folder.")
    ],
    label_map: AnyLabelMap = None,
    out: Annotated[Path | None, typer.Option(help="CSV to write; default: print.")] = None,
    frames: Annotated[bool, typer.Option(help="Also write OUT_frames.csv.")] = False,
    segments: Annotated[
        int | None, typer.Option(help="16 or 17: also write OUT_segments.csv by AHA segment.")
    ] = None,
    z_scores: Annotated[
        bool, typer.Option(help="Add z-scores where sex and age are known.")
    ] = False,
    prefer: Prefer = None,
    orientation: OrientationFlag = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Measure volumes, mass, ejection fraction and wall thickness of label maps or meshes."""
    from cardiogen.cli.measure import measure
    from cardiogen.cli.requests import usage_error

    if segments not in (None, 16, 17):
        raise usage_error("--segments", segments, "16 or 17", "16")
    if (frames or segments) and out is None and not as_json:
        flag = "--frames" if frames else "--segments"
        raise usage_error(flag, "no --out", "a file to name the further table by", "--out FILE")
    measured = measure(
        path, label_map=label_map, out=out, frames=frames, segments=segments, z_scores=z_scores,
        prefer=prefer, orientation=orientation, overwrite=overwrite,
    )  # fmt: skip
    if as_json:
        facts = {
            "subjects": _records(measured.table),
            **({"frames": _records(measured.frames)} if frames else {}),
            **({"segments": _records(measured.segments)} if segments else {}),
            "failures": [failure.as_dict() for failure in measured.failures],
            "notes": [str(note) for note in measured.notes],
        }
        typer.echo(json.dumps(facts, indent=2))
    elif out is None:
        typer.echo(measured.table.to_string(index=False, float_format=lambda x: f"{x:.2f}"))
    else:
        typer.echo(str(out))
    for note in measured.notes if not as_json else ():
        typer.echo(f"cardiogen: note {note}", err=True)
    for failure in measured.failures:
        typer.echo(f"cardiogen: {failure}", err=True)
    if measured.failures:
        raise typer.Exit(int(Exit.FAILURES))


def check_command(
    cohort: Annotated[Path, typer.Argument(help="Cohort folder.")],
    layout: Annotated[
        str | None, typer.Option(help="cardiogen, acdc, acdc_dev25 or ukbb; default: found.")
    ] = None,
    label_map: AnyLabelMap = None,
    as_json: Json = False,
) -> None:
    """Name every fault of a cohort in one pass; nothing is changed."""
    from cardiogen.cli.check import check, describe

    report = check(cohort, layout=layout, label_map=label_map)
    typer.echo(json.dumps(report.as_dict(), indent=2) if as_json else describe(report))
    raise typer.Exit(int(report.exit_code))


def _records(table: pd.DataFrame) -> list[dict[str, object]]:
    """Return the rows of a table; NaN becomes null."""
    return json.loads(table.to_json(orient="records"))
