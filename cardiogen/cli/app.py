"""Typer commands: text in, one function call, text out. Nothing heavy is imported before the
call."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from cardiogen import __version__
from cardiogen.base.errors import CardiogenError, Exit
from cardiogen.cli.generate_command import generate_command
from cardiogen.cli.individual import add_individual_commands
from cardiogen.cli.model_commands import add_model_commands
from cardiogen.cli.motion import add_commands
from cardiogen.cli.options import (
    Age,
    AnyLabelMap,
    Formats,
    Frames,
    Height,
    Json,
    Model,
    OrientationFlag,
    Overwrite,
    Prefer,
    Sbp,
    Seed,
    Sex,
    Space,
    Weight,
    show,
    use_one_thread,
)
from cardiogen.cli.segmentation_commands import add_segmentation_commands

if TYPE_CHECKING:
    import pandas as pd

# The base of typer's usage errors: click's own or typer's copy of it, depending on the version.
_UsageError = typer.BadParameter.__mro__[1]
_TERMINATED = 128 + int(signal.SIGTERM)

app = typer.Typer(
    name="cardiogen",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Learn, generate and use 3D and 4D cardiac anatomy.",
)


def _records(table: pd.DataFrame) -> list[dict[str, object]]:
    """Return the rows of a table; NaN becomes null."""
    return json.loads(table.to_json(orient="records"))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Learn, generate and use 3D and 4D cardiac anatomy."""


app.command("generate")(generate_command)


@app.command("complete")
def complete_command(
    labels: Annotated[list[Path], typer.Argument(help="Label maps (NIfTI), 3D or 4D.")],
    phase: Annotated[
        list[float] | None, typer.Option(help="Phase of each map in [0, 1); ED is 0. Repeat it.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to make; default: a fresh name.")
    ] = None,
    label_map: AnyLabelMap = None,
    age: Age = None,
    sex: Sex = None,
    height: Height = None,
    weight: Weight = None,
    sbp: Sbp = None,
    frames: Frames = 25,
    samples: Annotated[
        int, typer.Option(help="Draws that show the uncertainty; 20 or more give intervals.")
    ] = 0,
    overlap: Annotated[
        bool, typer.Option(help="Label maps of largest expected Dice over the samples.")
    ] = False,
    seed: Seed = 0,
    space: Space = "ras",
    formats: Formats = "all",
    prefer: Prefer = None,
    orientation: Annotated[
        Literal["trusted", "assumed", "mirrored"] | None,
        typer.Option(help="Whether headers mirror the heart; default: what fits better."),
    ] = None,
    healthy: Annotated[
        bool, typer.Option(help="The heart is healthy: narrower, better predictions.")
    ] = False,
    group: Annotated[
        str | None, typer.Option(help="Diagnosis, as the model's own cohort names it.")
    ] = None,
    model: Model = None,
    allow_extrapolation: Annotated[
        bool, typer.Option(help="Accept factors outside the training data; outputs say so.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Complete the cardiac cycle from label maps of any frames, e.g. one ED map."""
    use_one_thread()
    from cardiogen.cli.complete import complete

    folder = complete(
        labels, phases=phase, out=out, label_map=label_map, age=age, sex=sex, height=height,
        weight=weight, sbp=sbp, frames=frames, samples=samples, overlap=overlap, seed=seed,
        space=space, formats=formats, prefer=prefer, orientation=orientation, healthy=healthy,
        group=group, model=model, allow_extrapolation=allow_extrapolation, overwrite=overwrite,
    )  # fmt: skip
    show(str(folder), {"folder": str(folder)}, as_json)
    for note in json.loads((folder / "parameters.json").read_text())["notes"]:
        typer.echo(f"cardiogen: note {note}", err=True)


@app.command("measure")
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


@app.command("check")
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


add_commands(app)
add_individual_commands(app)
add_model_commands(app)
add_segmentation_commands(app)


def main() -> None:
    """Run the command line; faults that users can mend show one line and a documented exit."""
    try:
        with _terminable():
            # Typer turns Ctrl-C into this status or, in other versions, into Abort.
            status = app(sys.argv[1:] or ["--help"], prog_name="cardiogen", standalone_mode=False)
    except CardiogenError as error:
        _fail(error)
    except _UsageError as error:
        _fail(_usage_fault(error))
    except MemoryError:
        _fail(CardiogenError(
            "R04", "memory", found="too little of it", expected="room for the whole request",
            remedy="a smaller request or smaller files, or a machine with more memory",
        ))  # fmt: skip
    except OSError as error:
        _fail(CardiogenError(
            "R01", error.filename or "system", found=error.strerror or type(error).__name__,
            expected="files that can be read and written", remedy="checking path and permissions",
        ))  # fmt: skip
    except (KeyboardInterrupt, typer.Abort):
        status = Exit.CTRL_C
    if status == Exit.CTRL_C:
        typer.echo("cardiogen: interrupted; nothing was written", err=True)
    sys.exit(int(status or 0))


def _fail(error: CardiogenError) -> NoReturn:
    if "--json" in sys.argv:
        typer.echo(json.dumps({"error": error.as_dict()}, indent=2), err=True)
    else:
        typer.echo(f"cardiogen: {error}", err=True)
    sys.exit(int(error.exit_code))


def _usage_fault(error: Exception) -> CardiogenError:
    """Return a fault of typer's own parsing in the form of all others."""
    command = getattr(getattr(error, "ctx", None), "command_path", "cardiogen")
    return CardiogenError(
        "U02", command, found=" ".join(error.format_message().split()).rstrip("."),
        expected="what the command's help lists", remedy=f"{command} --help",
    )  # fmt: skip


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM unwind, as Ctrl-C does, so that temporary files vanish."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> NoReturn:
        raise SystemExit(_TERMINATED)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
