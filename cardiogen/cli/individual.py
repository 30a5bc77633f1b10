"""Typer commands about one person's heart, ``age`` and ``score``; nothing heavy is imported before
the call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from cardiogen.cli.options import (
    Age,
    AnyLabelMap,
    Extrapolate,
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
    use_one_thread,
)

Labels = Annotated[list[Path], typer.Argument(help="Label maps (NIfTI), 3D or 4D.")]
Phases = Annotated[
    list[float] | None,
    typer.Option("--phase", help="Phase of each map in [0, 1); ED is 0. Repeat it."),
]
Out = Annotated[Path | None, typer.Option(help="Folder to make; default: a fresh name.")]


def add_individual_commands(app: typer.Typer) -> None:
    """Add ``age`` and ``score`` to the command line."""
    app.command("age")(age_command)
    app.command("score")(score_command)


def age_command(
    labels: Annotated[
        list[Path], typer.Argument(help="Label maps (NIfTI), or a folder of cardiogen generate.")
    ],
    to: Annotated[
        list[float] | None, typer.Option(help="Age to show the heart at, years. Repeat it.")
    ] = None,
    to_sex: Annotated[
        Literal["F", "M"] | None, typer.Option(help="Show it as a heart of this sex.")
    ] = None,
    to_weight: Annotated[float | None, typer.Option(help="Show it at this weight, kg.")] = None,
    phase: Phases = None,
    out: Out = None,
    label_map: AnyLabelMap = None,
    age: Age = None,
    sex: Sex = None,
    height: Height = None,
    weight: Weight = None,
    sbp: Sbp = None,
    frames: Frames = 25,
    space: Space = "ras",
    formats: Formats = "all",
    prefer: Prefer = None,
    orientation: OrientationFlag = None,
    healthy: Annotated[
        bool, typer.Option(help="The heart is healthy: narrower, better completion.")
    ] = False,
    model: Model = None,
    allow_extrapolation: Extrapolate = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Show a heart at other ages, as hearts differ between people (cross-sectional)."""
    use_one_thread()
    from cardiogen.cli.age import age as show

    folder = show(
        labels, to=tuple(to or ()), to_sex=to_sex, to_weight=to_weight, phases=phase, out=out,
        label_map=label_map, age=age, sex=sex, height=height, weight=weight, sbp=sbp,
        frames=frames, space=space, formats=formats, prefer=prefer, orientation=orientation,
        healthy=healthy, model=model, allow_extrapolation=allow_extrapolation,
        overwrite=overwrite,
    )  # fmt: skip
    facts = json.loads((folder / "parameters.json").read_text(encoding="utf-8"))
    told = {"folder": str(folder), "hearts": facts["hearts"], "caveat": facts["caveat"]}
    typer.echo(json.dumps(told, indent=2) if as_json else str(folder))
    _show_notes([*facts["notes"], *([] if as_json else [facts["caveat"]])])


def score_command(
    labels: Labels,
    phase: Phases = None,
    out: Out = None,
    label_map: AnyLabelMap = None,
    age: Age = None,
    sex: Sex = None,
    height: Height = None,
    weight: Weight = None,
    sbp: Sbp = None,
    reference: Annotated[
        int, typer.Option(help="Healthy hearts to rank among; 0: only what the model expects.")
    ] = 39,
    seed: Seed = 0,
    space: Space = "ras",
    prefer: Prefer = None,
    orientation: OrientationFlag = None,
    model: Model = None,
    allow_extrapolation: Extrapolate = False,
    workers: Annotated[int, typer.Option(help="Processes for the healthy hearts.")] = 2,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Score how far a heart lies from healthy hearts of its factors; not a diagnosis."""
    use_one_thread()
    from cardiogen.cli.score import score

    folder = score(
        labels, phases=phase, out=out, label_map=label_map, age=age, sex=sex, height=height,
        weight=weight, sbp=sbp, reference=reference, seed=seed, space=space, prefer=prefer,
        orientation=orientation, model=model, allow_extrapolation=allow_extrapolation,
        workers=workers, overwrite=overwrite,
    )  # fmt: skip
    facts = json.loads((folder / "score.json").read_text(encoding="utf-8"))
    told = {"folder": str(folder), "meaning": facts["meaning"], "deviation": facts["deviation"]}
    typer.echo(json.dumps(told, indent=2) if as_json else _summary(folder, facts))
    _show_notes(facts["notes"])


def _summary(folder: Path, facts: dict) -> str:
    lines = [str(folder)]
    for name, found in facts["deviation"].items():
        if found["squared_deviation"] is None:
            lines.append(f"{name:7} not seen on these label maps")
            continue
        p = found["p"] if found["p"] is not None else found["p_by_model"]
        source = "" if found["p"] is not None else " (by the model alone)"
        if found["p"] is not None and p * (facts["reference"]["hearts"] + 1) < 1.5:
            source = f" (the least that {facts['reference']['hearts']} healthy hearts can tell)"
        lines.append(f"{name:7} squared deviation {found['squared_deviation']:.1f}, "
                     f"p {p:.3f}{source}")  # fmt: skip
    return "\n".join([*lines, facts["meaning"]])


def _show_notes(notes: list[str]) -> None:
    for note in notes:
        typer.echo(f"cardiogen: note {note}", err=True)
