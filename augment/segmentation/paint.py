"""Cine-like images painted from label maps alone, in contrasts drawn anew for every heart.

What generative models decode are label maps; a network learns from images. Every structure gets a
signal drawn from a wide range about that of a balanced steady-state cine, the surroundings are
regions of random shape and signal, and blur, coil and noise follow: a network that has seen all of
these contrasts has little left to be surprised by (Billot et al., Med. Image Anal. 2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from augment.segmentation.prepare import CLASSES
from augment.segmentation.view import View, draw_view, hand, view_grid
from cardiogen.base import keyed_rng
from cardiogen.data import Grid, Sequence, Structure
from cardiogen.ops import argmax_labels, gaussian, one_hot, resample

# A slice of some thickness as full width at half maximum of its Gaussian profile.
_FWHM_TO_SIGMA = 0.42466090014400953


@dataclass(frozen=True, kw_only=True)
class PaintOptions:
    """Ranges that every heart is drawn from, evenly; signals are relative to bright blood.

    Attributes:
        blood, muscle: signal of the pools (each draws its own) and of the wall.
        regions: signals of what surrounds the heart.
        region_mm: size of these regions.
        texture: relative SD of the signal within a tissue.
        bias: largest relative change of the coil's sensitivity.
        blur_mm: SD of the blur in plane.
        noise: SD of the complex noise.
        rim_mm: thickness of the right ventricle's wall, which no label shows.
    """

    blood: tuple[float, float] = (0.7, 1.1)
    muscle: tuple[float, float] = (0.2, 0.5)
    regions: tuple[float, float] = (0.03, 0.9)
    region_mm: tuple[float, float] = (12.0, 40.0)
    texture: tuple[float, float] = (0.03, 0.15)
    bias: tuple[float, float] = (0.0, 0.4)
    blur_mm: tuple[float, float] = (0.3, 1.2)
    noise: tuple[float, float] = (0.01, 0.08)
    rim_mm: tuple[float, float] = (1.5, 4.0)


def paint_sequence(
    sequence: Sequence,
    *,
    seed: int,
    index: int,
    spacing_mm: float,
    size: int,
    options: PaintOptions | None = None,
) -> Sequence:
    """Return images and label maps of a heart's label maps, seen in a random stack.

    Args:
        sequence: label maps whose slices are short-axis ones, as fine as they come.
        seed: user's seed.
        index: of the heart; contrast, surroundings and stack are functions of both.
        spacing_mm: in plane.
        size: pixels of both sides of a slice.
        options: ranges to draw from.
    """
    if sequence.labels is None or sequence.grid is None:
        raise ValueError("sequence must have labels on a grid, got one without")
    options = options or PaintOptions()
    view = draw_view(keyed_rng(seed, "paint/view", index))
    grid = view_grid(sequence.grid, _heart_points(sequence), view,
                     spacing_mm=spacing_mm, size=size)  # fmt: skip
    images, labels = [], []
    for number, frame in enumerate(sequence.labels):
        shares = _slabs(frame, sequence.grid, grid, view)
        images.append(_painted(shares, grid, options, seed=seed, index=index, frame=number))
        labels.append(argmax_labels(shares)[0, 0].numpy())
    painted = sequence.with_(
        images=np.stack(images), labels=np.stack(labels), grid=grid, vertices=None, topology=None
    )
    return hand(painted, view)


def _heart_points(sequence: Sequence) -> NDArray[np.float64]:
    """Return the corners of the box of all labeled voxels, world mm."""
    voxels = np.argwhere(sequence.labels.any(axis=0))
    ends = np.stack([voxels.min(axis=0), voxels.max(axis=0)], axis=1)
    corners = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)
    return sequence.grid.to_world(corners)


def _slabs(labels: NDArray[np.uint8], fine: Grid, grid: Grid, view: View) -> Tensor:
    """Return shares of classes ``(1, 4, *S)`` in slices of some thickness."""
    hot = one_hot(torch.as_tensor(np.asarray(labels))[None, None].long(), CLASSES)[:, 1:]
    steps = fine.spacing
    # Slices that are thick already have their profile.
    across = max(view.thickness_mm**2 - steps[0] ** 2, 0.0) ** 0.5
    plane = [max(new**2 - old**2, 0.0) ** 0.5
             for new, old in zip(grid.spacing[1:], steps[1:], strict=True)]  # fmt: skip
    sigma = tuple(_FWHM_TO_SIGMA * width for width in (across, *plane))
    smooth = gaussian(hot, sigma, spacing=steps) if any(sigma) else hot
    structures = resample(smooth, fine, grid, padding="zeros").clamp(0, 1)
    return torch.cat([(1 - structures.sum(dim=1, keepdim=True)).clamp(min=0), structures], dim=1)


def _painted(
    shares: Tensor, grid: Grid, options: PaintOptions, *, seed: int, index: int, frame: int
) -> NDArray[np.float32]:
    """Return the image ``(D, H, W)`` of shares of classes."""
    rng = keyed_rng(seed, "paint/contrast", index)
    field_rng = keyed_rng(seed, "paint/fields", index)
    draw = {name: float(rng.uniform(*getattr(options, name)))
            for name in ("muscle", "texture", "bias", "blur_mm", "noise", "rim_mm")}  # fmt: skip
    left, right = rng.uniform(*options.blood, size=2)
    signal = {Structure.LV: left, Structure.MYO: draw["muscle"], Structure.RV: right}
    around = _surroundings(shares.shape[2:], grid, options, rng, field_rng)
    rim = _rim(shares, grid, draw["rim_mm"])
    image = (1 - rim) * around + rim * draw["muscle"]
    image = shares[:, :1] * image
    for structure, value in signal.items():
        image = image + shares[:, structure : structure + 1] * value
    image = image * (1 + draw["texture"] * _noise_field(image.shape[2:], grid, 2.0, field_rng))
    image = gaussian(image, (0.0, draw["blur_mm"], draw["blur_mm"]), spacing=grid.spacing)
    image = image * (1 + draw["bias"] * torch.tanh(_noise_field(image.shape[2:], grid, 60.0, rng)))
    noise = keyed_rng(seed, f"paint/noise/{index}", frame)
    real, imaginary = noise.normal(scale=draw["noise"], size=(2, *image.shape[2:]))
    return np.hypot(image[0, 0].numpy() + real, imaginary).astype(np.float32)


def _surroundings(
    shape: torch.Size,
    grid: Grid,
    options: PaintOptions,
    rng: np.random.Generator,
    field_rng: np.random.Generator,
) -> Tensor:
    """Return regions of random shape and signal ``(1, 1, *S)``: where one field exceeds others."""
    count = int(rng.integers(3, 7))
    size = float(rng.uniform(*options.region_mm))
    fields = torch.cat([_noise_field(shape, grid, size, field_rng) for _ in range(count)], dim=1)
    levels = torch.as_tensor(rng.uniform(*options.regions, size=count), dtype=torch.float32)
    return levels[fields.argmax(dim=1, keepdim=True)]


def _rim(shares: Tensor, grid: Grid, width_mm: float) -> Tensor:
    """Return how much of a voxel outside the labels is right ventricular wall, in [0, 1]."""
    right = shares[:, Structure.RV : Structure.RV + 1]
    near = gaussian(right, (0.0, width_mm / 2, width_mm / 2), spacing=grid.spacing)
    return (4 * near).clamp(max=1)


def _noise_field(
    shape: torch.Size, grid: Grid, size_mm: float, rng: np.random.Generator
) -> Tensor:
    """Return smooth noise of about unit SD ``(1, 1, *S)`` with waves of ``size_mm``."""
    white = torch.as_tensor(rng.standard_normal((1, 1, *shape)), dtype=torch.float32)
    smooth = gaussian(white, size_mm / 2, spacing=grid.spacing)
    return (smooth - smooth.mean()) / smooth.std().clamp(min=1e-8)
