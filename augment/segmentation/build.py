"""The arms that settings name, all drawing from one chain: what differs is how it is used."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from augment.adversary import Adversary, Result
from augment.ascent import Ascent
from augment.chain import Chain
from augment.consistency import Consistency
from augment.diagnostics import Diagnostics
from augment.segmentation.arms import Arm, Augmented, Batch, Consistent, Disagreed, Plain
from augment.segmentation.config import AugmentationConfig
from augment.segmentation.prepare import CLASSES
from augment.segmentation.watch import PREFIX, told_names
from augment.shape_space import ShapeSpace
from augment.transforms import Affine, BiasField, Contrast, Gamma, GaussianNoise, Morph

# Agreement by what the supervised loss is made of too: a voxel-wise and an overlap term.
_CONSISTENCY = Consistency(kl=1.0, dice=1.0)


def default_chain(strength: float = 1.0) -> Chain:
    """Return the chain of all arms: pose, shape, coil, contrast and noise.

    Args:
        strength: times the usual bounds; factors are taken to this power.
    """
    return Chain(
        transforms=(
            Affine(
                rotation_deg=min(30.0 * strength, 180.0), scale=1.2**strength,
                shear=min(0.1 * strength, 1.0), shift_mm=10.0 * strength,
            ),
            Morph(rms_mm=3.0 * strength),
            BiasField(factor=1.5**strength),
            Gamma(exponent=1.6**strength),
            Contrast(factor=1.4**strength, brightness_sd=0.2 * strength),
            GaussianNoise(sd=0.15 * strength),
        )
    )  # fmt: skip


def shape_chain(shape: ShapeSpace, strength: float = 1.0) -> Chain:
    """Return the chain of all arms with changes along a model of anatomy in place of the morph.

    Args:
        shape: of a model.
        strength: see ``default_chain``.
    """
    usual = default_chain(strength).transforms
    return Chain(transforms=tuple(shape if isinstance(t, Morph) else t for t in usual))


def build_arm(
    config: AugmentationConfig, *, spacing: tuple[float, ...], shape: ShapeSpace | None = None
) -> Arm:
    """Return the arm of the settings.

    Args:
        config: settings.
        spacing: mm of the voxels of a patch.
        shape: of a model of anatomy, for the arm ``shape``.
    """
    chain = default_chain(config.strength)
    random = Augmented(RandomChain(chain, spacing), share=config.share)
    if config.arm == "none":
        return Plain()
    if config.arm == "random":
        return random
    if config.arm == "shape":
        if shape is None:
            raise ValueError("shape must be given for the arm shape, got None")
        chain = shape_chain(shape, config.strength)
    ascent = Ascent(steps=0 if config.arm == "consistency" else config.ascent_steps)
    # Its own generator is never drawn from: every step brings one that is keyed by it.
    adversary = Adversary(
        chain=chain, generator=torch.Generator(), consistency=_CONSISTENCY, ascent=ascent
    )
    disagreement = Disagreeing(
        adversary, spacing, supervised=config.reference == "labels", tells=ascent.steps > 0
    )
    return Consistent(
        disagreement,
        before=random if config.supervised == "random" else None,
        weight=config.weight, ramp_share=config.ramp_share, every=config.every,
        tells=disagreement.names,
        teacher_decay=config.teacher_decay if config.reference == "teacher" else None,
    )  # fmt: skip


@dataclass(frozen=True)
class RandomChain:
    """Plain augmentation by random draws of a chain.

    Attributes:
        chain: what to draw from.
        spacing: mm of the voxels.
    """

    chain: Chain
    spacing: tuple[float, ...]

    def __call__(
        self, image: Tensor, one_hot: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return changed images ``(B, C, *S)`` and their labels ``(B, K, *S)``."""
        return self.chain.augment(image, one_hot, spacing=self.spacing, generator=generator)


@dataclass(frozen=True, eq=False)
class Disagreeing:
    """How much a network disagrees with itself on transforms that an adversary draws or finds.

    Attributes:
        adversary: what to search in and how; without steps the transforms are random.
        spacing: mm of the voxels.
        supervised: whether labels are the reference, in place of the prediction.
        tells: whether to say what the search did; it costs a fortieth of a step.
    """

    adversary: Adversary
    spacing: tuple[float, ...]
    supervised: bool = False
    tells: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of what is told: ``adversary/`` and those of ``Diagnostics.sums``."""
        return told_names(self._transforms) if self.tells else ()

    @property
    def _transforms(self) -> tuple[str, ...]:
        return tuple(t.name for t in self.adversary.chain.transforms)

    def __call__(
        self,
        network: nn.Module,
        batch: Batch,
        output: object,
        generator: torch.Generator,
    ) -> Disagreed:
        """Return the loss of the transforms, that of the ones drawn at first, and what is told."""
        # A copy for every step: what a step does is a function of its generator alone.
        adversary = replace(self.adversary, generator=generator, calls=0, every=1)
        result = adversary.consistency_loss(
            network, batch.image, spacing=self.spacing, reference=output,
            labels=batch.target if self.supervised else None, to_heart=batch.to_heart,
        )  # fmt: skip
        found = result.found
        start = None if found is None else found.start_losses
        start = result.loss.detach() if start is None else start.mean()
        return Disagreed(result.loss, start, self._told(result))

    def _told(self, result: Result) -> dict[str, float]:
        if not self.tells:
            return {}
        seen = Diagnostics()
        seen.add(result)
        sums = seen.sums(self._transforms, CLASSES)
        return {f"{PREFIX}{name}": value for name, value in sums.items()}
