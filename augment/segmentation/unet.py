"""U-Net of modest size, 2D or 3D: instance norm, strided descent, optional deep supervision.

Convention: nothing depends on the other examples of a batch (no batch norm), so a slice has the
same logits alone and among others, and an adversary that feeds the network odd images leaves no
trace in running statistics.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

_SLOPE = 0.01  # of leaky rectifiers
_CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORMS = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


class UNet(nn.Module):
    """Logits of every class at every voxel (Ronneberger et al., MICCAI 2015).

    Two convolutions of width 3 at every level; strides of 2 on the way down, transposed
    convolutions on the way up; skips are concatenated.

    Args:
        channels: of the image.
        classes: number of labels, background included.
        widths: channels of the levels, the finest first.
        dimensions: 2 or 3.
        deep_supervision: whether training also gives the logits of the coarser levels.
    """

    def __init__(
        self,
        channels: int = 1,
        classes: int = 4,
        *,
        widths: tuple[int, ...] = (16, 32, 64, 128),
        dimensions: int = 2,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        if dimensions not in _CONVOLUTIONS:
            raise ValueError(f"dimensions must be 2 or 3, got {dimensions}")
        if len(widths) < 2 or min(widths) < 1:
            raise ValueError(f"widths must be two positive numbers at least, got {widths}")
        self.dimensions, self.deep_supervision = dimensions, deep_supervision
        self.stride = 2 ** (len(widths) - 1)
        self.first = _Level(channels, widths[0], dimensions, stride=1)
        self.down = nn.ModuleList(_Level(a, b, dimensions, stride=2) for a, b in pairwise(widths))
        rising = list(pairwise(reversed(widths)))
        self.up = nn.ModuleList(_TRANSPOSED[dimensions](a, b, 2, stride=2) for a, b in rising)
        self.merge = nn.ModuleList(_Level(2 * b, b, dimensions, stride=1) for _, b in rising)
        self.heads = nn.ModuleList(
            _CONVOLUTIONS[dimensions](b, classes, 1)
            for _, b in (rising if deep_supervision else rising[-1:])
        )

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Return logits ``(B, classes, *S)`` of an image ``(B, channels, *S)``.

        With deep supervision and in training, a list of them: full size first, then halves.
        """
        self._check(image)
        features = [self.first(image)]
        for level in self.down:
            features.append(level(features[-1]))
        rising, outputs = features.pop(), []
        for up, merge in zip(self.up, self.merge, strict=True):
            rising = merge(torch.cat([features.pop(), up(rising)], dim=1))
            outputs.append(rising)
        if not (self.deep_supervision and self.training):
            return self.heads[-1](rising)
        return [head(level) for head, level in zip(self.heads, outputs, strict=True)][::-1]

    def _check(self, image: Tensor) -> None:
        shape = tuple(image.shape[2:])
        if image.ndim != self.dimensions + 2 or any(n % self.stride for n in shape):
            raise ValueError(
                f"image must be (B, C, {self.dimensions} sizes that are multiples of "
                f"{self.stride}), got {tuple(image.shape)}"
            )
        # One voxel has no variance to be normalized by.
        if all(n == self.stride for n in shape):
            raise ValueError(
                f"image must exceed {self.stride} voxels along an axis at least, got {shape}"
            )


class _Level(nn.Module):
    """Two convolutions, each normalized and rectified; the first may halve the lattice."""

    def __init__(self, channels: int, width: int, dimensions: int, *, stride: int) -> None:
        super().__init__()
        conv, norm = _CONVOLUTIONS[dimensions], _NORMS[dimensions]
        # The norm takes any bias of a convolution away again.
        self.convolutions = nn.ModuleList([
            conv(channels, width, 3, stride=stride, padding=1, bias=False),
            conv(width, width, 3, padding=1, bias=False),
        ])  # fmt: skip
        self.norms = nn.ModuleList(norm(width, affine=True) for _ in range(2))
        for convolution in self.convolutions:
            nn.init.kaiming_normal_(convolution.weight, a=_SLOPE, nonlinearity="leaky_relu")

    def forward(self, features: Tensor) -> Tensor:
        """Return the features of this level."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            features = functional.leaky_relu(norm(convolution(features)), _SLOPE)
        return features


def main_logits(output: Tensor | list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    """Return the logits of full size of a network with or without deep supervision."""
    return output if isinstance(output, Tensor) else output[0]
