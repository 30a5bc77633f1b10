"""What the volume model brings to the training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from cardiogen.engine.fit import StepInfo, draw_latent, gaussian_kl, kl_loss
from cardiogen.models.volume import ageing
from cardiogen.models.volume.config import VolumeConfig
from cardiogen.models.volume.network import VolumeNetwork
from cardiogen.models.voxel import (
    LabelExamples,
    channels,
    describe_factors,
    hard_labels,
    label_losses,
    mean_dice,
    probabilities,
    validation_means,
)
from cardiogen.nn import drop_factors


class VolumeParts(nn.Module):
    """The network, and the critics that only its training needs."""

    def __init__(self, config: VolumeConfig, conditions: Tensor) -> None:
        super().__init__()
        center, scale, limits = describe_factors(conditions)
        self.network = VolumeNetwork(config, center, scale)
        self.heads = ageing.AgeingHeads(config) if config.ageing.wanted else None
        self.register_buffer("age_range", torch.from_numpy(limits[ageing.AGE]))


class VolumeTask:
    """``engine.fit.Task`` of the volume model.

    Args:
        examples: training hearts.
        config: settings.
        validation: held-out hearts, for ``validate_every`` and ``keep_best``.
    """

    def __init__(
        self,
        examples: LabelExamples,
        config: VolumeConfig,
        *,
        validation: LabelExamples | None = None,
    ) -> None:
        self.examples, self.config, self.validation = examples, config, validation
        self.module = VolumeParts(config, examples.conditions())
        frames = config.voxels * len(examples.slots)
        self._evidence = frames * config.evidence_share

    def __len__(self) -> int:
        return len(self.examples)

    def batch(self, indices: Sequence[int], generator: torch.Generator) -> dict[str, Tensor]:
        """Return labels, present frames, frames shown to the encoder, and conditions."""
        return _collate(self.examples, indices) | {
            "shown": torch.from_numpy(self._shown(indices, generator))
        }

    def _shown(self, indices: Sequence[int], generator: torch.Generator) -> np.ndarray:
        """Return which frames the encoder sees; of two that are there, one may be hidden."""
        present = np.stack([self.examples.examples[i].present for i in indices])
        chance = torch.rand(len(indices), 2, generator=generator).numpy()
        for row, (hide, which) in zip(present, chance, strict=True):
            if row.sum() == 2 and hide < self.config.frame_dropout:
                row[int(which < 0.5)] = False
        return present

    def loss(
        self, batch: Mapping[str, Tensor], *, step: StepInfo, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the total and its parts; see :class:`VoxelConfig` and ``volume.ageing``."""
        network = self.module.network
        condition = batch["condition"]
        seen = drop_factors(condition, self.config.condition_dropout, generator=generator)
        code = network.mapping(seen)
        mean, log_var = network.encode(channels(batch["labels"], batch["shown"]), code)
        z = draw_latent(mean, log_var, generator=generator)
        terms = self.label_terms(network.decode(z, code), batch)
        kl = gaussian_kl(mean, log_var)
        divergence = kl_loss(kl, free_bits=step.free_bits)
        terms |= self.ageing_terms(z, batch, generator)
        total = sum(self.weights[name] * value for name, value in terms.items())
        return {
            "loss": total + step.kl_weight * divergence / self._evidence,
            **{name: value.detach() for name, value in terms.items()},
            "kl_per_latent": kl.detach().mean(dim=0),
        }

    @property
    def weights(self) -> dict[str, float]:
        """Weight of every term in the total; those of the games sit in their reversals."""
        return {
            "cross_entropy": 1.0,
            "dice": self.config.dice_weight,
            "latent_adversary": 1.0,
            "image_adversary": 1.0,
            "age_regression": 1.0,
            "age_consistency": self.config.ageing.age_consistency,
            "cycle": self.config.ageing.cycle,
        }

    def label_terms(self, logits: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return cross-entropy and Dice distance of logits."""
        return label_losses(
            probabilities(logits), batch["labels"], batch["present"],
            spacing=self.config.spacing_mm,
        )  # fmt: skip

    def ageing_terms(
        self, z: Tensor, batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the terms of ``volume.ageing`` whose weight is not 0; z is not detached."""
        heads, weights = self.module.heads, self.config.ageing
        if heads is None:
            return {}
        network, condition = self.module.network, batch["condition"]
        standardized = network.mapping.embedding.standardized
        given = ageing.known_factors(standardized(condition))
        real = channels(batch["labels"], batch["present"])
        target = ageing.at_age(condition, self._target_ages(len(z), generator))
        code = network.mapping(target)
        fake = probabilities(network.decode(z, code))
        fake = (fake * batch["present"][:, :, None, None, None, None]).flatten(1, 2)
        terms: dict[str, Tensor] = {}
        if weights.latent_adversary:
            terms["latent_adversary"] = ageing.latent_adversary(
                heads.latent_critic, z, given, weight=weights.latent_adversary,
                generator=generator,
            )  # fmt: skip
        if weights.image_adversary:
            terms["image_adversary"] = ageing.image_adversary(
                heads.image_critic, real, fake, given,
                ageing.known_factors(standardized(target)),
                weight=weights.image_adversary, generator=generator,
            )  # fmt: skip
        if weights.age_consistency:
            ages, targets = (standardized(c)[:, ageing.AGE] for c in (condition, target))
            terms["age_regression"] = ageing.age_regression(heads.regressor, real, ages)
            terms["age_consistency"] = ageing.age_consistency(heads.regressor, fake, targets)
        if weights.cycle:
            back, _ = network.encode(fake, code)
            again = self.label_terms(network.decode(back, network.mapping(condition)), batch)
            terms["cycle"] = again["cross_entropy"] + self.config.dice_weight * again["dice"]
        return terms

    def _target_ages(self, count: int, generator: torch.Generator) -> Tensor:
        """Return ages drawn evenly from the range of the training data, years ``(B,)``."""
        low, high = self.module.age_range
        share = torch.rand(count, generator=generator, device=low.device, dtype=low.dtype)
        return low + share * (high - low)

    def validate(self, module: VolumeParts) -> dict[str, float]:
        """Return label losses and Dice of held-out hearts, each decoded from its mean latent."""
        if self.validation is None:
            raise ValueError("validation must be given where validate_every is set, got None")
        network, device = module.network, module.age_range.device
        losses, overlaps = [], []
        for index in range(len(self.validation)):
            batch = {n: t.to(device) for n, t in _collate(self.validation, [index]).items()}
            code = network.mapping(batch["condition"])
            mean, _ = network.encode(channels(batch["labels"], batch["present"]), code)
            logits = network.decode(mean, code)
            losses.append([float(value) for value in self.label_terms(logits, batch).values()])
            found = hard_labels(probabilities(logits)[0])
            present = self.validation.examples[index].present
            overlaps.append(mean_dice(found[present], self.validation.labels(index)[present]))
        return validation_means(losses, overlaps, dice_weight=self.config.dice_weight)


def _collate(examples: LabelExamples, indices: Sequence[int]) -> dict[str, Tensor]:
    return {
        "labels": torch.from_numpy(np.stack([examples.labels(i) for i in indices])),
        "present": torch.from_numpy(np.stack([examples.examples[i].present for i in indices])),
        "condition": examples.conditions(indices),
    }
