"""Training of the volume model."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from cardiogen.base import CardiogenError
from cardiogen.engine.fit.processes import Device
from cardiogen.models.volume.config import VolumeConfig
from cardiogen.models.volume.model import VolumeModel
from cardiogen.models.volume.network import VolumeNetwork
from cardiogen.models.volume.task import VolumeTask
from cardiogen.models.voxel import (
    LabelExamples,
    channels,
    check_examples,
    fit_labels,
    mean_base_mm,
    require_validation,
    trained_prior,
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
        ValueError: without ``validation`` where ``config.fit.validate_every`` is set.
    """
    examples.require_enough()
    for cohort in (examples, *([] if validation is None else [validation])):
        check_examples(cohort, config)
        _require_ages(cohort, config)
    require_validation(validation, config)
    fitted = fit_labels(
        lambda: VolumeTask(examples, config, validation=validation), examples, config,
        kind="volume", folder=folder, resume=resume, device=device, devices=devices,
        num_nodes=num_nodes,
    )  # fmt: skip
    network = fitted.module.network
    prior = trained_prior(
        partial(encoded_frames, network, examples), examples, config, kind="volume"
    )
    return VolumeModel(
        network, prior, config, es_phase=examples.es_phase, base_mm=mean_base_mm(examples),
        notes=tuple(fitted.notes),
    )  # fmt: skip


def encoded_frames(
    network: VolumeNetwork, examples: LabelExamples, index: int
) -> tuple[Tensor, Tensor]:
    """Return mean and log variance ``(1, Z)`` of all frames of a heart."""
    labels = torch.from_numpy(examples.labels(index))[None]
    hot = channels(labels, torch.from_numpy(examples.examples[index].present)[None])
    return network.encode(hot, network.mapping(examples.conditions([index])))


def _require_ages(examples: LabelExamples, config: VolumeConfig) -> None:
    if config.ageing.wanted and torch.isnan(examples.conditions()[:, 0]).all():
        raise CardiogenError(
            "C29", "cohort", found="no heart whose age is known",
            expected="ages for the terms of ageing", remedy="a table of factors with ages",
        )  # fmt: skip
