"""Training of the volume model."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cardiogen.base import CardiogenError
from cardiogen.engine.fit import draw_latent, fit, keyed_generator, keyed_layers
from cardiogen.engine.fit.processes import Device
from cardiogen.models.volume.config import VolumeConfig
from cardiogen.models.volume.model import VolumeModel
from cardiogen.models.volume.network import VolumeNetwork
from cardiogen.models.volume.task import VolumeTask
from cardiogen.models.voxel import (
    LabelExamples,
    channels,
    fit_prior,
    heart_grid,
    mean_base_mm,
    standard_prior,
)


def train_volume(
    examples: LabelExamples,
    config: VolumeConfig,
    *,
    validation: LabelExamples | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    device: Device = "auto",
    devices: int = 1,
    num_nodes: int = 1,
) -> VolumeModel:
    """Train a volume model.

    Args:
        examples: training hearts on ``heart_grid(config.shape, config.spacing_mm)``, with the
            slots ``config.frames``.
        config: settings.
        validation: held-out hearts, for ``fit.validate_every``.
        folder, resume, device, devices, num_nodes: see ``engine.fit.fit``.

    Raises:
        CardiogenError: C28 for too few hearts, C29 where the fitted prior lacks factors or a term
            of ageing lacks ages; else see ``engine.fit.fit``.
    """
    examples.require_enough()
    _check(examples, config)
    if validation is not None:
        _check(validation, config)
    with keyed_layers(config.fit.seed, "volume/init"):
        task = VolumeTask(examples, config, validation=validation)
    facts = f"{examples.fingerprint()}{config.model_dump(exclude={'fit'})}"
    fitted = fit(
        task, config.fit, folder=folder, resume=resume, device=device, devices=devices,
        num_nodes=num_nodes, fingerprint=hashlib.sha256(facts.encode()).hexdigest(),
        description="training volume",
    )  # fmt: skip
    network = fitted.module.network.cpu()
    conditions = examples.conditions()
    if config.prior == "fitted":
        latents = drawn_latents(network, examples, config.fit.seed)
        prior = fit_prior(latents, [e.factors for e in examples.examples], conditions)
    else:
        prior = standard_prior(config.latent, conditions)
    return VolumeModel(
        network, prior, config, es_phase=examples.es_phase, base_mm=mean_base_mm(examples)
    )


@torch.no_grad()
def drawn_latents(
    network: VolumeNetwork, examples: LabelExamples, seed: int
) -> NDArray[np.float64]:
    """Return one draw of q(z | x, c) of every heart, ``(N, Z)``: means alone vary too little."""
    found = []
    for index, example in enumerate(examples.examples):
        labels = torch.from_numpy(examples.labels(index))[None]
        hot = channels(labels, torch.from_numpy(example.present)[None])
        mean, log_var = network.encode(hot, network.mapping(examples.conditions([index])))
        generator = keyed_generator(seed, "volume/latent", index)
        found.append(draw_latent(mean, log_var, generator=generator)[0].double().numpy())
    return np.stack(found)


def _check(examples: LabelExamples, config: VolumeConfig) -> None:
    if examples.slots.frames != config.frames:
        raise ValueError(
            f"examples must have the frames {config.frames}, got {examples.slots.frames}"
        )
    if not examples.lattice.matches(heart_grid(config.shape, config.spacing_mm)):
        raise ValueError(
            f"examples must lie on heart_grid{config.shape}, got {examples.lattice.shape}"
        )
    if config.ageing.wanted and torch.isnan(examples.conditions()[:, 0]).all():
        raise CardiogenError(
            "C29", "cohort", found="no heart whose age is known",
            expected="ages for the terms of ageing", remedy="a table of factors with ages",
        )  # fmt: skip
