"""What a segmentation network brings to the training loop: patches, losses, validation."""

from __future__ import annotations

from collections.abc import Sequence as Listing

import numpy as np
import torch
from torch import Tensor, nn

from augment.guards import found_and_there
from augment.segmentation.arms import Arm, Batch, Plain
from augment.segmentation.config import SegmentationConfig
from augment.segmentation.examples import SliceExamples, mix, require_examples
from augment.segmentation.losses import segmentation_losses
from augment.segmentation.predict import predict_frame
from augment.segmentation.prepare import Frame, indicator_channels
from augment.segmentation.taught import Taught
from augment.segmentation.watch import batch_shares, chosen, recalls
from cardiogen.data import Structure
from cardiogen.engine.fit import StepInfo
from cardiogen.measure import dice
from cardiogen.ops import argmax_labels

_STRUCTURES = (Structure.LV, Structure.MYO, Structure.RV)


class SegmentationTask:
    """``engine.fit.Task`` of a segmentation network.

    Args:
        module: the network.
        config: settings.
        real: slices of patients; None for a training on synthetic hearts alone.
        synthetic: slices that take the place of real ones with ``data.synthetic_share``.
        validation: frames to judge the weights on, for ``validate_every``.
        arm: what is done with a batch; by default no augmentation.

    Raises:
        CardiogenError: C28 without any example.
    """

    def __init__(
        self,
        module: nn.Module,
        config: SegmentationConfig,
        *,
        real: SliceExamples | None = None,
        synthetic: SliceExamples | None = None,
        validation: Listing[Frame] = (),
        arm: Arm | None = None,
    ) -> None:
        require_examples(real, synthetic)
        self.module, self.config, self.arm = module, config, arm or Plain()
        self.real, self.synthetic = real or None, synthetic or None
        self.validation = tuple(validation)

    def __len__(self) -> int:
        return len(self.real or self.synthetic)

    def batch(self, indices: Listing[int], generator: torch.Generator) -> Batch:
        """Return patches ``(B, 1, P, P)`` and shares of classes ``(B, 4, P, P)``."""
        share = self.config.data.synthetic_share
        return mix(indices, self.real, self.synthetic, share, generator)

    def loss(
        self, batch: Batch, *, step: StepInfo, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the losses of the arm; see ``augment.segmentation.arms``.

        Without a validation they hold what ``watch`` tells collapses from.
        """
        if isinstance(self.module, Taught):
            self.module.follow(step.step)
        return self.arm.losses(
            self.module, batch, self._supervised, step=step, generator=generator
        )

    def _supervised(self, output: Tensor | list[Tensor], target: Tensor) -> dict[str, Tensor]:
        spacing = (self.config.image.spacing_mm,) * 2
        found = segmentation_losses(output, target, spacing=spacing)
        # Patients that are not learned from tell more; patches are watched where there are none.
        watched = self.validation and self.config.fit.validate_every
        return found if watched else {**found, **batch_shares(output, target)}

    def validate(self, module: nn.Module) -> dict[str, float]:
        """Return ``1 - mean Dice`` on the held-out frames, and Dice and recall of structures.

        The recall is that of ``augment.CollapseMonitor``, over all frames; NaN for a structure
        that none of them has.
        """
        if not self.validation:
            raise ValueError("validation must be given where validate_every is set, got none")
        device = next(module.parameters()).device
        judged = [self._judged(module, frame, device) for frame in self.validation]
        scores = np.array([overlaps for overlaps, _, _ in judged])
        found, there = (torch.stack([each[n] for each in judged]).sum(dim=0) for n in (1, 2))
        # A structure that no frame has cannot be judged; a missed one counts 0.
        means = [float(np.nanmean(s)) if not np.isnan(s).all() else 1.0 for s in scores.T]
        return {
            "loss": 1.0 - float(np.mean(means)),
            **{f"dice_{s.name.lower()}": m for s, m in zip(_STRUCTURES, means, strict=True)},
            **recalls(found, there),
        }

    def _judged(
        self, module: nn.Module, frame: Frame, device: torch.device
    ) -> tuple[list[float], Tensor, Tensor]:
        """Return Dice by structure, and sums of what is found and what is there by class."""
        image, prediction = self.config.image, self.config.prediction
        probs = predict_frame(module, frame, image, prediction, device=device)
        found = argmax_labels(probs[None])[0, 0].numpy()
        # A voxel that is half a structure and half another goes to the first, like a prediction.
        shares = indicator_channels(frame.structures[None])
        true = shares[0].argmax(dim=0).numpy()
        overlaps = [dice(found == s, true == s) for s in _STRUCTURES]
        return overlaps, *found_and_there(chosen(probs[None]), shares)
