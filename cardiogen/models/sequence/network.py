"""The network of the sequence model: frame encoder, condition mapping, time, shared decoder."""

from __future__ import annotations

import math

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from cardiogen.models.sequence.config import SequenceConfig
from cardiogen.models.sequence.temporal import LstmPath, PeriodicPath
from cardiogen.models.voxel import CLASSES
from cardiogen.nn import MappingNetwork, VoxelDecoder, VoxelEncoder

_PHASE_FEATURES = 2


class SequenceNetwork(nn.Module):
    """The label map of one frame to a latent, and a latent to all frames.

    After CHeart (Qiao et al., IEEE TMI 2024): convolutions of width 4 and stride 2, a mapping
    network of eight layers, an LSTM, one decoder for all frames. Different here: factors are
    standardized, not divided by their root mean square; the code joins the encoder's features
    rather than every voxel; group norm in place of batch norm.

    Args:
        config: architecture.
        center, scale: mean and SD of the factors ``(5,)``.
    """

    def __init__(self, config: SequenceConfig, center: ArrayLike, scale: ArrayLike) -> None:
        super().__init__()
        self.mapping = MappingNetwork(
            center, scale, code=config.code, width=config.mapping_width,
            depth=config.mapping_depth,
        )  # fmt: skip
        self.encoder = VoxelEncoder(CLASSES, shape=config.shape, widths=config.widths)
        self.head = nn.Linear(self.encoder.size + config.code + _PHASE_FEATURES, 2 * config.latent)
        self.path = (
            LstmPath(config.latent, config.frames)
            if config.temporal == "lstm"
            else PeriodicPath(config.latent, config.code, config.harmonics)
        )
        self.decoder = VoxelDecoder(
            config.latent + config.code, channels=CLASSES, shape=config.shape,
            widths=config.widths,
        )  # fmt: skip

    def encode(self, hot: Tensor, phase: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance ``(B, Z)`` of q(z | x, c).

        Args:
            hot: one-hot frame ``(B, 4, D, H, W)``.
            phase: of the frame ``(B,)``.
            code: of the condition ``(B, C)``.
        """
        angle = 2 * math.pi * phase[:, None].to(code)
        features = torch.cat([self.encoder(hot), code, angle.cos(), angle.sin()], dim=1)
        mean, log_var = self.head(features).chunk(2, dim=1)
        return mean, log_var

    def decode(self, z: Tensor, code: Tensor, phases: Tensor) -> Tensor:
        """Return logits ``(B, T, 4, D, H, W)`` at phases ``(B, T)`` or ``(T,)``."""
        path = self.path(z, code, phases)
        latents = torch.cat([path, code[:, None].expand(-1, path.shape[1], -1)], dim=2)
        return self.decoder(latents.flatten(0, 1)).unflatten(0, path.shape[:2])
