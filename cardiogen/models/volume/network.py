"""The networks of the volume model: an encoder and a decoder, both given the condition."""

from __future__ import annotations

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from cardiogen.models.volume.config import VolumeConfig
from cardiogen.models.voxel import CLASSES, Slots
from cardiogen.nn import MappingNetwork, VoxelDecoder, VoxelEncoder


class VolumeNetwork(nn.Module):
    """Label maps of one or two frames to latents and back.

    Args:
        config: architecture.
        center, scale: mean and SD of the factors ``(5,)``.
    """

    def __init__(self, config: VolumeConfig, center: ArrayLike, scale: ArrayLike) -> None:
        super().__init__()
        count = CLASSES * len(Slots(config.frames))
        self.mapping = MappingNetwork(
            center, scale, code=config.code, width=config.mapping_width,
            depth=config.mapping_depth,
        )  # fmt: skip
        self.encoder = VoxelEncoder(count, shape=config.shape, widths=config.widths)
        self.head = nn.Linear(self.encoder.size + config.code, 2 * config.latent)
        self.decoder = VoxelDecoder(
            config.latent + config.code, channels=count, shape=config.shape, widths=config.widths
        )

    def encode(self, hot: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance ``(B, Z)`` of q(z | x, c).

        Args:
            hot: one-hot or probabilities ``(B, T * 4, D, H, W)``; missing frames are all zeros.
            code: of the condition ``(B, C)``.
        """
        features = torch.cat([self.encoder(hot), code], dim=1)
        mean, log_var = self.head(features).chunk(2, dim=1)
        return mean, log_var

    def decode(self, z: Tensor, code: Tensor) -> Tensor:
        """Return logits ``(B, T * 4, D, H, W)``."""
        return self.decoder(torch.cat([z, code], dim=1))
