"""Training of a segmentation network, from frames to a network in evaluation mode."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence as Listing
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from augment.segmentation.arms import Arm, Consistent
from augment.segmentation.config import SegmentationConfig
from augment.segmentation.examples import SliceExamples, require_examples, require_validation
from augment.segmentation.prepare import Frame
from augment.segmentation.store import build_network
from augment.segmentation.task import SegmentationTask
from augment.segmentation.taught import Taught, student_of
from augment.segmentation.unet import UNet
from cardiogen.engine.fit import Fitted, fit, keyed_layers
from cardiogen.engine.fit.processes import Device


@dataclass(frozen=True, eq=False)
class TrainedSegmentation:
    """A trained network and the record of its training.

    Attributes:
        network: on the CPU, in evaluation mode.
        fitted: what the training loop tells: history, validation, seconds.
    """

    network: UNet
    fitted: Fitted


def train_segmentation(
    config: SegmentationConfig,
    *,
    real: Listing[Frame] = (),
    synthetic: Listing[Frame] = (),
    validation: Listing[Frame] = (),
    arm: Arm | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    device: Device = "auto",
    devices: int = 1,
    num_nodes: int = 1,
) -> TrainedSegmentation:
    """Train a U-Net.

    Args:
        config: settings; ``data`` matters for the share of synthetic slices alone.
        real: prepared frames of patients, with labels.
        synthetic: prepared frames of synthetic hearts, with labels.
        validation: prepared frames for ``fit.validate_every``.
        arm: what is done with a batch; by default no augmentation.
        folder, resume, device, devices, num_nodes: see ``engine.fit.fit``.

    Raises:
        CardiogenError: C28 without any heart, or without one for a validation that is set; else
            see ``engine.fit.fit``.
    """
    parts = [SliceExamples(tuple(frames), config.image) for frames in (real, synthetic)]
    require_examples(*parts)
    require_validation(config.fit, len(validation))
    with keyed_layers(config.fit.seed, "segmentation/init"):
        network = build_network(config.network)
    module = _with_teacher(network, arm)
    task = SegmentationTask(
        module, config, real=parts[0], synthetic=parts[1], validation=validation, arm=arm
    )
    fitted = fit(
        task, config.fit, folder=folder, resume=resume, device=device, devices=devices,
        num_nodes=num_nodes, fingerprint=_fingerprint(config, parts),
        description="training segmentation",
    )  # fmt: skip
    return TrainedSegmentation(student_of(fitted.module).cpu(), fitted)


def _with_teacher(network: UNet, arm: Arm | None) -> nn.Module:
    """Return the network, with a teacher if its arm wants one."""
    decay = arm.teacher_decay if isinstance(arm, Consistent) else None
    return network if decay is None else Taught(network, decay=decay)


def _fingerprint(config: SegmentationConfig, parts: Listing[SliceExamples]) -> str:
    """Return what tells this network and these hearts from others."""
    settings = config.model_dump(include={"image", "network", "augmentation"})
    share = config.data.synthetic_share
    facts = f"{settings}{share}{[part.fingerprint() for part in parts]}"
    return hashlib.sha256(facts.encode()).hexdigest()
