"""What the trainings of label models share: checks, the fit itself, and the prior afterwards."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen.engine.fit import Fitted, Task, draw_latent, fit, keyed_generator, keyed_layers
from cardiogen.engine.fit.processes import Device
from cardiogen.models.voxel.config import VoxelConfig
from cardiogen.models.voxel.examples import LabelExamples
from cardiogen.models.voxel.latents import LatentPrior, fit_prior, standard_prior
from cardiogen.models.voxel.lattice import heart_grid

# Number of a training heart -> mean and log variance (1, Z) of q(z | x, c).
Encode = Callable[[int], tuple[Tensor, Tensor]]


def check_examples(examples: LabelExamples, config: VoxelConfig) -> None:
    """Refuse (ValueError) examples of other frames or on another lattice than the model's."""
    if examples.slots.frames != config.frames:
        raise ValueError(
            f"examples must have the frames {config.frames}, got {examples.slots.frames}"
        )
    if not examples.lattice.matches(heart_grid(config.shape, config.spacing_mm)):
        raise ValueError(
            f"examples must lie on heart_grid{config.shape}, got {examples.lattice.shape}"
        )


def require_validation(validation: LabelExamples | None, config: VoxelConfig) -> None:
    """Refuse (ValueError) settings that validate where there are no hearts to validate on."""
    if config.fit.validate_every and validation is None:
        raise ValueError("validation must be given where validate_every is set, got None")


def fit_labels(
    make_task: Callable[[], Task],
    examples: LabelExamples,
    config: VoxelConfig,
    *,
    kind: str,
    folder: str | Path | None,
    resume: bool,
    device: Device,
    devices: int,
    num_nodes: int,
) -> Fitted:
    """Build a task and train it; its module is moved to the CPU.

    Args:
        make_task: builds the task, its first weights drawn from the keyed stream of ``kind``.
        examples: training hearts, by whose hash a resumed training knows them.
        config: settings.
        kind: name of the model.
        folder, resume, device, devices, num_nodes: see ``engine.fit.fit``.

    Raises:
        CardiogenError: C28, C29 if the hearts allow no fitted prior; else see ``engine.fit.fit``.
    """
    # Hours of training would be lost if the prior found only then that factors are missing.
    trained_prior(lambda _: (torch.zeros(1, config.latent),) * 2, examples, config, kind=kind)
    with keyed_layers(config.fit.seed, f"{kind}/init"):
        task = make_task()
    facts = f"{examples.fingerprint()}{config.model_dump(exclude={'fit'})}"
    fitted = fit(
        task, config.fit, folder=folder, resume=resume, device=device, devices=devices,
        num_nodes=num_nodes, fingerprint=hashlib.sha256(facts.encode()).hexdigest(),
        description=f"training {kind}",
    )  # fmt: skip
    fitted.module.cpu()
    return fitted


def trained_prior(
    encode: Encode, examples: LabelExamples, config: VoxelConfig, *, kind: str
) -> LatentPrior:
    """Return p(z | factors) of a trained encoder.

    Raises:
        CardiogenError: C29 where the fitted prior lacks factors.
    """
    conditions = examples.conditions()
    if config.prior == "standard":
        return standard_prior(config.latent, conditions)
    latents = drawn_latents(encode, len(examples), seed=config.fit.seed, kind=kind)
    return fit_prior(latents, [e.factors for e in examples.examples], conditions)


@torch.no_grad()
def drawn_latents(encode: Encode, count: int, *, seed: int, kind: str) -> NDArray[np.float64]:
    """Return one draw of q(z | x, c) of every heart, ``(N, Z)``: means alone vary too little."""
    found = []
    for index in range(count):
        mean, log_var = encode(index)
        generator = keyed_generator(seed, f"{kind}/latent", index)
        found.append(draw_latent(mean, log_var, generator=generator)[0].double().numpy())
    return np.stack(found)
