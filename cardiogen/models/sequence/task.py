"""What the sequence model brings to the training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen.engine.fit import StepInfo, draw_latent, gaussian_kl, kl_loss
from cardiogen.models.sequence.config import SequenceConfig
from cardiogen.models.sequence.frames import at_own_base
from cardiogen.models.sequence.network import SequenceNetwork
from cardiogen.models.voxel import (
    LabelExamples,
    channels,
    describe_factors,
    hard_labels,
    label_losses,
    mean_dice,
    validation_means,
)
from cardiogen.nn import drop_factors


class SequenceTask:
    """``engine.fit.Task`` of the sequence model.

    Args:
        examples: training hearts.
        config: settings.
        validation: held-out hearts, for ``validate_every`` and ``keep_best``.
    """

    def __init__(
        self,
        examples: LabelExamples,
        config: SequenceConfig,
        *,
        validation: LabelExamples | None = None,
    ) -> None:
        self.examples, self.config, self.validation = examples, config, validation
        center, scale, _ = describe_factors(examples.conditions())
        self.module = SequenceNetwork(config, center, scale)

    def __len__(self) -> int:
        return len(self.examples)

    def batch(self, indices: Sequence[int], generator: torch.Generator) -> dict[str, Tensor]:
        """Return an input frame of every heart, some frames to decode, and conditions."""
        return self._collate(
            [self._example(self.examples, i, *self._chosen(i, generator)) for i in indices],
            self.examples.conditions(indices),
        )

    def _chosen(self, index: int, generator: torch.Generator) -> tuple[int, list[int]]:
        """Return the slot that the encoder sees and those that are decoded."""
        present = np.flatnonzero(self.examples.examples[index].present)
        order = torch.randperm(len(present), generator=generator).tolist()
        wanted = min(self.config.frames_per_step, len(self.examples.slots))
        shown = int(present[order[-1]]) if self.config.encoder_frame == "any" else 0
        return shown, sorted(present[order[:wanted]].tolist())

    def _example(
        self, examples: LabelExamples, index: int, shown: int, decoded: list[int]
    ) -> dict[str, NDArray]:
        wanted = min(self.config.frames_per_step, len(examples.slots))
        labels = examples.labels(index, [shown, *decoded])
        seen = labels[0] if shown == 0 else at_own_base(labels[0], examples.lattice)
        # Hearts with fewer frames than a step decodes are filled up by frames that do not count.
        missing = wanted - len(decoded)
        return {
            "input": seen,
            "input_phase": np.float64(shown / len(examples.slots)),
            "labels": np.pad(labels[1:], ((0, missing), (0, 0), (0, 0), (0, 0))),
            "present": np.arange(wanted) < len(decoded),
            "phases": np.array([*decoded, *[0] * missing]) / len(examples.slots),
        }

    def _collate(self, rows: list[dict[str, NDArray]], conditions: Tensor) -> dict[str, Tensor]:
        batch = {n: torch.from_numpy(np.stack([row[n] for row in rows])) for n in rows[0]}
        return batch | {"condition": conditions}

    def loss(
        self, batch: Mapping[str, Tensor], *, step: StepInfo, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the total and its parts; see :class:`VoxelConfig`."""
        network = self.module
        seen = drop_factors(batch["condition"], self.config.condition_dropout, generator=generator)
        code = network.mapping(seen)
        mean, log_var = network.encode(_hot(batch["input"]), batch["input_phase"], code)
        z = draw_latent(mean, log_var, generator=generator)
        terms = self.label_terms(network.decode(z, code, batch["phases"]), batch)
        kl = gaussian_kl(mean, log_var)
        # The mean over the frames of a step stands for that over all frames of the heart.
        evidence = self.config.voxels * self.config.frames * self.config.evidence_share
        divergence = step.kl_weight * kl_loss(kl, free_bits=step.free_bits) / evidence
        total = terms["cross_entropy"] + self.config.dice_weight * terms["dice"]
        return {
            "loss": total + divergence,
            **{name: value.detach() for name, value in terms.items()},
            "kl_per_latent": kl.detach().mean(dim=0),
        }

    def label_terms(self, logits: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return cross-entropy and Dice distance of logits ``(B, T, 4, D, H, W)``."""
        return label_losses(
            logits.softmax(dim=2), batch["labels"], batch["present"],
            spacing=self.config.spacing_mm,
        )  # fmt: skip

    def validate(self, module: SequenceNetwork) -> dict[str, float]:
        """Return label losses and Dice of held-out hearts, decoded from the mean given ED."""
        if self.validation is None:
            raise ValueError("validation must be given where validate_every is set, got None")
        device = next(module.parameters()).device
        losses, overlaps = [], []
        for index, example in enumerate(self.validation.examples):
            slots = np.flatnonzero(example.present).tolist()
            labels = torch.from_numpy(self.validation.labels(index, slots)).to(device)
            phases = torch.tensor(slots, device=device) / len(example.frames)
            code = module.mapping(self.validation.conditions([index]).to(device))
            mean, _ = module.encode(_hot(labels[:1]), phases[:1], code)
            logits = module.decode(mean, code, phases)
            batch = {
                "labels": labels[None],
                "present": torch.ones(1, len(slots), dtype=torch.bool, device=device),
            }
            losses.append([float(value) for value in self.label_terms(logits, batch).values()])
            overlaps.append(mean_dice(hard_labels(logits[0]), labels.cpu().numpy()))
        return validation_means(losses, overlaps, dice_weight=self.config.dice_weight)


def _hot(labels: Tensor) -> Tensor:
    """Return one-hot frames ``(B, 4, D, H, W)`` of structures ``(B, D, H, W)``."""
    ones = torch.ones(len(labels), 1, dtype=torch.bool, device=labels.device)
    return channels(labels[:, None], ones)
