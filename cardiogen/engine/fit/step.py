"""One step: gradients of all shares, their sum over processes, and the update if it is finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from cardiogen.base import CardiogenError
from cardiogen.engine.fit.batches import Share, keyed_generator, keyed_layers
from cardiogen.engine.fit.config import FitConfig, Precision, kl_weight, learning_rate
from cardiogen.engine.fit.processes import Processes
from cardiogen.engine.fit.state import Training
from cardiogen.engine.fit.task import KL_PER_LATENT, StepInfo, Task, to_device

_HALF = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
_SCALE_PATIENCE = 2000  # good steps before a larger loss scale is tried


def take_step(
    run: Training,
    task: Task,
    config: FitConfig,
    shares: list[Share],
    processes: Processes,
    *,
    asked: Callable[[], bool],
) -> bool:
    """Take one optimizer step, in place; return whether any process was asked to stop.

    A step whose loss or gradient is not finite changes no weight.

    Args:
        run: what changes.
        task: model and loss.
        config: of the run.
        shares: of the batch, those that this process takes.
        processes: that take the others.
        asked: whether this process was asked to stop; looked at late in the step.

    Raises:
        CardiogenError: M09 after more than ``max_skipped`` steps in a row that were not finite.
    """
    names, sums = _accumulate(run, task, config, shares, processes.device)
    processes.add_up(run.gradient)
    norm = torch.linalg.vector_norm(run.gradient)
    # One transfer brings every number of the step to the host.
    told = torch.cat([sums.double(), sums.new_full((1,), float(asked()), dtype=torch.float64)])
    processes.add_up(told)
    *values, stops, size = torch.cat([told, norm.double().view(1)]).tolist()
    size /= run.loss_scale
    told_names, numbers = ("gradient_norm", *names), [size, *values]
    if math.isfinite(size) and math.isfinite(values[names.index("loss")]):
        _update(run, config, size)
        run.window.add(told_names, numbers)
    else:
        run.window.skip(told_names)
        _skip(run, config, dict(zip(told_names, numbers, strict=True)))
    run.step += 1
    return stops > 0


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager:
    """Return the context in which a loss is computed."""
    if precision == "32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_HALF[precision])


def clip_gradient(gradient: Tensor, norm: float, limit: float) -> None:
    """Scale a gradient of a known norm down to ``limit``, in place; 0 limits nothing."""
    if 0 < limit < norm:
        gradient.mul_(limit / norm)


def _accumulate(
    run: Training, task: Task, config: FitConfig, shares: list[Share], device: torch.device
) -> tuple[tuple[str, ...], Tensor]:
    """Add the gradients of shares up in ``run.gradient``; return names and sums of the losses."""
    run.gradient.zero_()
    step, names, sums = run.step, (), torch.zeros(0, device=device)
    info = StepInfo(
        step=step, steps=config.steps, epoch=step * config.batch_size // len(task),
        kl_weight=kl_weight(config, step), free_bits=config.free_bits, device=device,
    )  # fmt: skip
    for share in shares:
        generator = keyed_generator(config.seed, f"fit/loss/{share.number}", step, device)
        examples = to_device(share.examples, device)
        with keyed_layers(config.seed, f"fit/layers/{share.number}", step, device):
            with autocast(config.precision, device):
                losses = task.loss(examples, step=info, generator=generator)
            names, values = _flat(losses)
            (losses["loss"] * (share.weight * run.loss_scale)).backward()
        part = values * share.weight
        sums = part if share is shares[0] else sums + part
    return names, sums


def _flat(losses: Mapping[str, Tensor]) -> tuple[tuple[str, ...], Tensor]:
    """Return names and values end to end, ``kl_per_latent`` last and once for every latent."""
    scalars = {n: v.detach().float() for n, v in losses.items() if n != KL_PER_LATENT}
    wrong = [name for name, value in scalars.items() if value.ndim]
    if "loss" not in scalars:
        raise ValueError(f"losses must have 'loss', got {list(losses)}")
    if wrong:
        raise ValueError(
            f"losses must be scalars, got {wrong[0]} {tuple(scalars[wrong[0]].shape)}"
        )
    values = [torch.stack(list(scalars.values()))]
    names = list(scalars)
    if KL_PER_LATENT in losses:
        values.append(losses[KL_PER_LATENT].detach().float().flatten())
        names += [KL_PER_LATENT] * len(values[-1])
    return tuple(names), torch.cat(values)


def _update(run: Training, config: FitConfig, norm: float) -> None:
    if run.loss_scale != 1:
        run.gradient.div_(run.loss_scale)
    clip_gradient(run.gradient, norm, config.gradient_clip)
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(config, run.step)
    run.optimizer.step()
    if run.average is not None:
        # Early on, an average over the whole run forgets the random start sooner.
        decay = min(config.ema_decay, (1 + run.step) / (10 + run.step))
        run.average.update(decay)
    run.bad_steps = 0
    run.good_steps += 1
    if config.precision == "16-mixed" and run.good_steps % _SCALE_PATIENCE == 0:
        run.loss_scale *= 2


def _skip(run: Training, config: FitConfig, told: dict[str, float]) -> None:
    run.bad_steps += 1
    run.good_steps = 0
    if config.precision == "16-mixed":
        run.loss_scale /= 2
    if run.bad_steps > config.max_skipped:
        shown = ", ".join(f"{name} {value:.3g}" for name, value in told.items())
        raise CardiogenError(
            "M09", f"step {run.step + 1}",
            found=f"{run.bad_steps} steps in a row that are not finite ({shown})",
            expected="finite losses and gradients",
            remedy="a smaller learning_rate, more warmup_steps, or precision 32; checkpoints are "
            "from before",
        )  # fmt: skip
