"""The training loop of every model: a page that reads from top to bottom.

A run is a function of (task, config): order, augmentation and noise are keyed by step, so a run
that was killed after any step and resumed ends in the weights of one that was not, bit for bit on
a CPU with the same number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from cardiogen.base import CardiogenError, Note, progress
from cardiogen.engine.fit.batches import ahead, make_shares
from cardiogen.engine.fit.checkpoint import checkpoint_path, write_checkpoint
from cardiogen.engine.fit.config import FitConfig
from cardiogen.engine.fit.folder import checkpoints_of, locked, set_out
from cardiogen.engine.fit.interrupt import interrupted, watch_signals
from cardiogen.engine.fit.logs import Row
from cardiogen.engine.fit.processes import Device, Processes, launch
from cardiogen.engine.fit.report import Report
from cardiogen.engine.fit.state import Best, Training, begin, copy_weights, weights_of
from cardiogen.engine.fit.step import take_step
from cardiogen.engine.fit.task import Task, ValidatedTask


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained model.

    Attributes:
        module: the task's own, with the weights that validated best if ``keep_best``, else the
            average of weights if there is one, else the last; in evaluation mode.
        history: rows of ``log.csv``, those of earlier parts of the run included.
        validation: rows of ``validation.csv``.
        steps: steps done.
        seconds: spent in steps and batches, over all parts of the run.
        checkpoint: the last one; None if nothing was written.
        active_units: share of latents in use in the last row; None without a KL divergence.
        best_step: after which ``module`` validated best; None unless ``keep_best``.
        notes: checkpoints that were damaged and passed over.
        rank: of this process; where it is not 0, the caller writes nothing.
    """

    module: torch.nn.Module
    history: list[Row]
    validation: list[Row]
    steps: int
    seconds: float
    checkpoint: Path | None
    active_units: float | None
    best_step: int | None
    notes: list[Note]
    rank: int


def fit(
    task: Task,
    config: FitConfig,
    *,
    folder: str | Path | None = None,
    resume: bool = False,
    fingerprint: str = "",
    device: Device = "auto",
    devices: int = 1,
    num_nodes: int = 1,
    description: str = "training",
) -> Fitted:
    """Train the module of a task.

    In ``folder`` it writes ``log.csv``, ``validation.csv``, ``checkpoints/`` and, where it is
    installed, TensorBoard's files. A first SIGINT or SIGTERM ends the run after its step with a
    checkpoint and exit status 75; the same call with ``resume`` goes on from there.

    Args:
        task: module, examples and loss.
        config: settings; ``load_config(FitConfig, path)``, or a section of a model's own.
        folder: of the run; None writes nothing and leaves signals alone.
        resume: whether to go on from the newest good checkpoint, if there is one.
        fingerprint: what tells this model and data from others, e.g. a hash; a checkpoint of
            another is refused.
        device: ``auto``, ``cpu`` or ``cuda``.
        devices: of every node; more than one needs lightning-fabric.
        num_nodes: number of machines.
        description: text of the progress bar.

    Raises:
        CardiogenError: M03 to M09 for checkpoints that are damaged, unknown or of another run and
            for losses that stay non-finite, O01 for a run that is there and not to be resumed,
            O04 for one that another process works on, R04 for too little memory of the device,
            R05 and U30 for devices that are not there, R75 (exit 75) when interrupted.
        ValueError: for a task that breaks its contract.
    """
    processes = launch(device, devices=devices, num_nodes=num_nodes)
    _check(task, config, processes)
    folder = None if folder is None else Path(folder)
    writes = folder is not None and processes.rank == 0
    with ExitStack() as stack:
        request = stack.enter_context(watch_signals(folder is not None))
        if writes:
            stack.enter_context(locked(folder))
        run = begin(task.module, config, processes.device)
        notes = set_out(run, config, folder, processes, resume=resume, fingerprint=fingerprint)
        report = stack.enter_context(closing(Report(folder if writes else None, run.step)))
        steps = range(run.step, config.steps)
        cut = processes.count * config.accumulate
        make = partial(make_shares, task, config, numbers=_own_shares(config, processes), of=cut)
        shares = stack.enter_context(ahead(make, steps, config.prefetch))
        shown = progress(steps, lambda: report.show(description))
        for step in stack.enter_context(closing(shown)):
            with _enough_memory(), run.timed():
                stop = take_step(run, task, config, shares(step), processes, asked=request.asked)
            last = run.step == config.steps
            if last or run.step % config.log_every == 0:
                report.log(run, config, len(task))
            if config.validate_every and (last or run.step % config.validate_every == 0):
                _validate(run, task, config, report)
            if writes and (last or stop or run.step % config.checkpoint_every == 0):
                report.flush()
                write_checkpoint(checkpoints_of(folder), run, config, fingerprint)
            if stop and folder is not None:
                raise _ending(folder, request.signal, run.step, config, processes)
    return _fitted(run, config, report, notes, folder, processes)


def _check(task: Task, config: FitConfig, processes: Processes) -> None:
    if not isinstance(task, Task):
        raise ValueError(f"task must have module, batch, loss and len, got {type(task).__name__}")
    if len(task) < 1:
        raise ValueError("task must have an example at least, got none")
    if config.validate_every and not isinstance(task, ValidatedTask):
        raise ValueError("task must have validate where validate_every is set, got none")
    cut = processes.count * config.accumulate
    if config.batch_size < cut:
        raise CardiogenError(
            "M07", "batch_size", found=str(config.batch_size),
            expected=f"at least {processes.count} devices x accumulate = {cut}",
            remedy="a larger batch_size, or fewer devices",
        )  # fmt: skip


def _own_shares(config: FitConfig, processes: Processes) -> range:
    first = processes.rank * config.accumulate
    return range(first, first + config.accumulate)


@contextmanager
def _enough_memory() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise CardiogenError(
            "R04", "device memory", found="too little of it", expected="room for a share",
            remedy="a larger accumulate, which takes the batch in smaller shares",
        ) from error  # fmt: skip


def _validate(run: Training, task: ValidatedTask, config: FitConfig, report: Report) -> None:
    """Judge the weights on held-out examples, and keep them if they are the best so far."""
    module = run.judged.eval()
    with torch.no_grad():
        found = task.validate(module)
    run.module.train()
    row = {"step": run.step, **{name: float(value) for name, value in found.items()}}
    report.validate(row)
    if not config.keep_best:
        return
    if "loss" not in row:
        raise ValueError(f"validate must return 'loss' where keep_best is set, got {list(found)}")
    best = math.inf if run.best.loss is None else run.best.loss
    if math.isfinite(row["loss"]) and row["loss"] < best:
        kept = {name: t.to("cpu", copy=True) for name, t in weights_of(module).items()}
        run.best = Best(row["loss"], run.step, kept)


def _ending(
    folder: Path, signal_name: str | None, step: int, config: FitConfig, processes: Processes
) -> BaseException:
    """Return what ends an interrupted run, once process 0 has written its checkpoint."""
    processes.from_first(step)
    if processes.rank:
        # Fabric kills every process once one fails: the first alone tells of the interruption.
        return SystemExit(0)
    return interrupted(folder, signal_name or "a signal to another process", step, config.steps)


def _fitted(
    run: Training,
    config: FitConfig,
    report: Report,
    notes: list[Note],
    folder: Path | None,
    processes: Processes,
) -> Fitted:
    """Put the chosen weights into the module and return it with what was reported."""
    if run.best.weights:
        copy_weights(run.best.weights, run.module)
    elif run.average is not None:
        copy_weights(weights_of(run.average.module), run.module)
    return Fitted(
        module=run.module.eval(),
        history=report.log_table.rows,
        validation=report.validation_table.rows,
        steps=run.step,
        seconds=run.seconds,
        checkpoint=None if folder is None else checkpoint_path(checkpoints_of(folder), run.step),
        active_units=report.latest("active_units"),
        best_step=run.best.step if run.best.weights else None,
        notes=notes,
        rank=processes.rank,
    )
