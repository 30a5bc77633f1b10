"""The U-Nets that the cost of augmentation is measured on: four levels, batch or instance norm."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

_CLASSES = 4


class UNet(nn.Module):
    """U-Net of four levels with two convolutions each, transposed by linear upsampling.

    Args:
        ndim: 2 or 3.
        base: channels of the first level; 16 in 2D are 0.49 million weights, 4 in 3D 0.09.
        norm: ``batch`` or ``instance``.
    """

    def __init__(
        self, ndim: int, base: int, *, norm: Literal["batch", "instance"] = "batch"
    ) -> None:
        super().__init__()
        conv, batch, instance, self.pool = {
            2: (nn.Conv2d, nn.BatchNorm2d, nn.InstanceNorm2d, nn.MaxPool2d(2)),
            3: (nn.Conv3d, nn.BatchNorm3d, nn.InstanceNorm3d, nn.MaxPool3d(2)),
        }[ndim]
        normed = batch if norm == "batch" else instance

        def double(before: int, after: int) -> nn.Sequential:
            return nn.Sequential(
                conv(before, after, 3, padding=1), normed(after, affine=True), nn.ReLU(),
                conv(after, after, 3, padding=1), normed(after, affine=True), nn.ReLU(),
            )  # fmt: skip

        widths = [base * 2**level for level in range(4)]
        self.down = nn.ModuleList(
            double(a, b) for a, b in zip([1, *widths[:-1]], widths, strict=True)
        )
        self.up = nn.ModuleList(double(3 * w, w) for w in reversed(widths[:-1]))
        self.last = conv(base, _CLASSES, 1)
        self.rise = nn.Upsample(
            scale_factor=2, mode="bilinear" if ndim == 2 else "trilinear", align_corners=False
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return logits ``(B, 4, *S)``; S is divisible by 8."""
        skips = []
        for number, block in enumerate(self.down):
            image = block(image if number == 0 else self.pool(image))
            skips.append(image)
        for block, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            image = block(torch.cat([skip, self.rise(image)], dim=1))

        return self.last(image)
