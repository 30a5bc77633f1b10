"""Typer commands that train and judge models; like those of ``app``, they import nothing heavy
before the call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from cardiogen.base.errors import Note
from cardiogen.cli.options import Json, OrientationFlag, Overwrite, show, use_one_thread


def add_model_commands(app: typer.Typer) -> None:
    """Add ``train`` and ``evaluate`` to the command line."""
    app.command("train")(train_command)
    app.command("evaluate")(evaluate_command)


def train_command(
    out: Annotated[Path, typer.Option(help="Bundle folder to make.")],
    model: Annotated[
        str | None,
        typer.Option(help="linear, the default, pca, deformation, mesh, volume or sequence."),
    ] = None,
    cohort: Annotated[
        str | None,
        typer.Option(help="population, the default, or a folder of label maps (deformation)."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="Deformation bundle that is adapted to such a folder; default: shipped."
        ),
    ] = None,
    orientation: OrientationFlag = None,
    template: Annotated[
        str | None,
        typer.Option(
            help="What a deformation model deforms: population, the default, a label map of end "
            "diastole, or a bundle whose template is taken."
        ),
    ] = None,
    label_map: Annotated[
        str | None, typer.Option(help="Codes of such a label map: acdc, ukbb, ... or a TOML file.")
    ] = None,
    template_rounds: Annotated[
        int | None,
        typer.Option(help="Times that the template is moved to the mean heart; default: 0."),
    ] = None,
    n: Annotated[
        int | None, typer.Option("-n", "--n", help="Training hearts; default: 2000.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same model; default: 0.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Instead of these settings: TOML file, or a preset such as linear."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Processes that make data; same result; default: 1."),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None,
        typer.Option(help="Where networks are trained; default: auto."),
    ] = None,
    devices: Annotated[
        int | None,
        typer.Option(min=1, help="Devices of every node, for networks; default: one."),
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(min=1, help="Machines, for networks; default: one.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the interrupted training of a network."),
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train a model of anatomy and write it as a bundle."""
    use_one_thread()
    from cardiogen.cli.train import train

    folder = train(
        out, model=model, cohort=cohort, base=base, orientation=orientation, template=template,
        label_map=label_map, template_rounds=template_rounds, n=n, seed=seed, config=config,
        jobs=jobs, device=device, devices=devices, nodes=nodes, resume=resume, overwrite=overwrite,
    )  # fmt: skip
    from cardiogen.engine.fit.processes import this_rank

    # Of several processes, the first alone answers.
    if this_rank() == 0:
        show(str(folder), {"bundle": str(folder)}, as_json)


def evaluate_command(
    bundle: Annotated[
        Path | None, typer.Argument(help="Model bundle; default: the one shipped.")
    ] = None,
    *,
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    cohort: Annotated[
        str, typer.Option(help="population, or a folder of patients with ED and ES label maps.")
    ] = "population",
    size: Annotated[
        Literal["small", "full"], typer.Option(help="small takes minutes, full hours.")
    ] = "small",
    n: Annotated[
        int | None, typer.Option("-n", "--n", help="Held-out hearts instead of those of --size.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same report.")] = 0,
    beside: Annotated[
        list[Path] | None, typer.Option(help="One more bundle for the same tables; may repeat.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Bundle of the baseline; default: the one shipped.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="One of the report's tasks; may repeat; default: all.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Evaluate a model: generation, conditioning, validity, completion and more, as a report."""
    use_one_thread()
    from cardiogen.cli.evaluate import evaluate

    folder = evaluate(
        bundle, out=out, cohort=cohort, size=size, n=n, seed=seed, beside=beside or (),
        against=against, tasks=task or (), overwrite=overwrite,
    )  # fmt: skip
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    counts, skipped = report["verdicts"], report["skipped"]
    lines = [
        f"{name}: " + ", ".join(f"{count} {word}" for word, count in found.items())
        for name, found in counts.items()
    ]
    facts = {"folder": str(folder), "verdicts": counts, "skipped": skipped}
    show("\n".join([*lines, str(folder)]), facts, as_json)
    for reason, tasks in skipped.items():
        note = Note("U17", ", ".join(tasks), f"not evaluated: {reason}")
        typer.echo(f"cardiogen: note {note}", err=True)
