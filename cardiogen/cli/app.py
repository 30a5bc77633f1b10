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
from typing import Annotated, Literal, NoReturn

import typer

from cardiogen import __version__
from cardiogen.base.errors import CardiogenError, Exit
from cardiogen.cli.generate_command import generate_command
from cardiogen.cli.individual import add_individual_commands
from cardiogen.cli.measure_commands import add_measure_commands
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


add_measure_commands(app)
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
