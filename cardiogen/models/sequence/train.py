"""Training of the sequence model."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cardiogen.base import CardiogenError
from cardiogen.engine.fit import draw_latent, fit, keyed_generator, keyed_layers
from cardiogen.engine.fit.processes import Device
from cardiogen.models.sequence.config import SequenceConfig
from cardiogen.models.sequence.frames import at_own_base
from cardiogen.models.sequence.model import SequenceModel
from cardiogen.models.sequence.network import SequenceNetwork
from cardiogen.models.sequence.task import SequenceTask
from cardiogen.models.voxel import (
    LabelExamples,
    channels,
    fit_prior,
    heart_grid,
    mean_base_mm,
    standard_prior,
)


def train_sequence(
    examples: LabelExamples,
    config: SequenceConfig,
    *,
    validation: LabelExamples | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    device: Device = "auto",
    devices: int = 1,
    num_nodes: int = 1,
) -> SequenceModel:
    """Train a sequence model.

    Args:
        examples: training hearts on ``heart_grid(config.shape, config.spacing_mm)``, with
            ``config.frames`` slots; frames that were not observed do not count.
        config: settings.
        validation: held-out hearts, for ``fit.validate_every``.
        folder, resume, device, devices, num_nodes: see ``engine.fit.fit``.

    Raises:
        CardiogenError: C28 for too few hearts, C29 where the fitted prior lacks factors, L49 for
            a heart without ED; else see ``engine.fit.fit``.
    """
    examples.require_enough()
    for cohort in (examples, *([] if validation is None else [validation])):
        _check(cohort, config)
    with keyed_layers(config.fit.seed, "sequence/init"):
        task = SequenceTask(examples, config, validation=validation)
    facts = f"{examples.fingerprint()}{config.model_dump(exclude={'fit'})}"
    fitted = fit(
        task, config.fit, folder=folder, resume=resume, device=device, devices=devices,
        num_nodes=num_nodes, fingerprint=hashlib.sha256(facts.encode()).hexdigest(),
        description="training sequence",
    )  # fmt: skip
    network = fitted.module.cpu()
    conditions = examples.conditions()
    if config.prior == "fitted":
        latents = drawn_latents(network, examples, config)
        prior = fit_prior(latents, [e.factors for e in examples.examples], conditions)
    else:
        prior = standard_prior(config.latent, conditions)
    return SequenceModel(network, prior, config, base_mm=mean_base_mm(examples))


@torch.no_grad()
def drawn_latents(
    network: SequenceNetwork, examples: LabelExamples, config: SequenceConfig
) -> NDArray[np.float64]:
    """Return one draw of q(z | x, c) of the first frame of every heart, ``(N, Z)``."""
    found = []
    for index, example in enumerate(examples.examples):
        slot = int(np.flatnonzero(example.present)[0])
        labels = examples.labels(index, [slot])[0]
        if slot:
            labels = at_own_base(labels, examples.lattice)
        hot = channels(torch.from_numpy(labels)[None, None], torch.ones(1, 1, dtype=torch.bool))
        phase = torch.tensor([slot / config.frames])
        code = network.mapping(examples.conditions([index]))
        mean, log_var = network.encode(hot, phase, code)
        generator = keyed_generator(config.fit.seed, "sequence/latent", index)
        found.append(draw_latent(mean, log_var, generator=generator)[0].double().numpy())
    return np.stack(found)


def _check(examples: LabelExamples, config: SequenceConfig) -> None:
    if examples.slots.frames != config.frames:
        raise ValueError(f"examples must have {config.frames} frames, got {examples.slots.frames}")
    if not examples.lattice.matches(heart_grid(config.shape, config.spacing_mm)):
        raise ValueError(
            f"examples must lie on heart_grid{config.shape}, got {examples.lattice.shape}"
        )
    for example in examples.examples:
        # The pose is that of ED, whatever the encoder reads.
        if not example.present[0]:
            raise CardiogenError(
                "L49", example.subject_id, found="no end-diastolic frame",
                expected="one of every training heart, since hearts are posed by it",
                remedy="leaving this heart out",
            )  # fmt: skip
