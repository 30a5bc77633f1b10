"""Training of the sequence model."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from cardiogen.base import CardiogenError
from cardiogen.engine.fit.processes import Device
from cardiogen.models.sequence.config import SequenceConfig
from cardiogen.models.sequence.model import SequenceModel
from cardiogen.models.sequence.network import SequenceNetwork
from cardiogen.models.sequence.task import SequenceTask
from cardiogen.models.voxel import (
    LabelExamples,
    channels,
    check_examples,
    fit_labels,
    mean_base_mm,
    require_validation,
    trained_prior,
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
        ValueError: without ``validation`` where ``config.fit.validate_every`` is set.
    """
    examples.require_enough()
    for cohort in (examples, *([] if validation is None else [validation])):
        check_examples(cohort, config)
        _require_ed(cohort)
    require_validation(validation, config)
    fitted = fit_labels(
        lambda: SequenceTask(examples, config, validation=validation), examples, config,
        kind="sequence", folder=folder, resume=resume, device=device, devices=devices,
        num_nodes=num_nodes,
    )  # fmt: skip
    network = fitted.module
    prior = trained_prior(
        partial(encoded_ed, network, examples), examples, config, kind="sequence"
    )
    return SequenceModel(
        network, prior, config, base_mm=mean_base_mm(examples), notes=tuple(fitted.notes)
    )


def encoded_ed(
    network: SequenceNetwork, examples: LabelExamples, index: int
) -> tuple[Tensor, Tensor]:
    """Return mean and log variance ``(1, Z)`` of a heart's end diastole."""
    labels = torch.from_numpy(examples.labels(index, [0]))[None]
    hot = channels(labels, torch.ones(1, 1, dtype=torch.bool))
    return network.encode(hot, torch.zeros(1), network.mapping(examples.conditions([index])))


def _require_ed(examples: LabelExamples) -> None:
    for example in examples.examples:
        # The pose is that of ED, whatever the encoder reads.
        if not example.present[0]:
            raise CardiogenError(
                "L49", example.subject_id, found="no end-diastolic frame",
                expected="one of every training heart, since hearts are posed by it",
                remedy="leaving this heart out",
            )  # fmt: skip
