"""Whole volumes segmented by overlapping windows, and brought back to the lattice they came on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from augment.segmentation.config import ImageConfig, PredictionConfig
from augment.segmentation.examples import cut
from augment.segmentation.prepare import CLASSES, Frame, prepare_frame
from augment.segmentation.unet import main_logits
from cardiogen.data import Grid, Structure
from cardiogen.ops import argmax_labels, resample

Network = Callable[[Tensor], Tensor | list[Tensor]]
# The window's weight falls as a Gaussian to this at its border's middle.
_BORDER_SD = 2.0


@torch.no_grad()
def predict_frame(
    network: Network,
    frame: Frame,
    image: ImageConfig,
    prediction: PredictionConfig,
    *,
    device: torch.device,
) -> Tensor:
    """Return probabilities ``(4, D, H, W)`` of a prepared volume, on the CPU.

    Every slice is covered by windows as large as the patches of training; where they overlap, the
    mean of their probabilities counts, weighted by a Gaussian about each window's middle, since a
    network sees least at its border.

    Args:
        network: gives logits; in evaluation mode.
        frame: prepared volume.
        image: lattice and patch of the training.
        prediction: overlap and number of windows at once.
        device: where the network is.
    """
    size, value = image.patch, float(frame.image.min())
    depth, height, width = frame.image.shape
    starts = [(r, c) for r in _starts(height, image.patch, prediction.overlap)
              for c in _starts(width, image.patch, prediction.overlap)]  # fmt: skip
    places = [(d, start) for d in range(depth) for start in starts]
    weight = _window_weight(size)
    total = torch.zeros(CLASSES, depth, height, width)
    counted = torch.zeros(depth, height, width)
    for first in range(0, len(places), prediction.windows):
        part = places[first : first + prediction.windows]
        windows = torch.stack([cut(frame.image[d][None], s, size, value=value) for d, s in part])
        logits = main_logits(network(windows.to(device)))
        for (d, start), probs in zip(part, logits.float().softmax(dim=1).cpu(), strict=True):
            _add(total[:, d], probs * weight, start)
            _add(counted[d][None], weight[None], start)
    return total / counted


def predict_volume(
    network: Network,
    image: NDArray[np.float32],
    grid: Grid,
    config: ImageConfig,
    prediction: PredictionConfig,
    *,
    device: torch.device | str = "cpu",
    subject_id: str = "image",
) -> NDArray[np.uint8]:
    """Return the structures of an image ``(D, H, W)``, uint8 on the image's own lattice.

    Args:
        network: gives logits; in evaluation mode.
        image: intensities.
        grid: lattice of the image.
        config: lattice and patch of the training.
        prediction: windows, and whether one piece of every structure is kept.
        device: where the network is.
        subject_id: for messages.

    Raises:
        CardiogenError: N26 for intensities that are not finite, N39 for an image of one value.
    """
    frame = prepare_frame(image, None, grid, config, subject_id=subject_id)
    probs = predict_frame(network, frame, config, prediction, device=torch.device(device))
    return restore(probs, frame.grid, grid, largest_piece=prediction.largest_piece)


def restore(
    probs: Tensor, prepared: Grid, grid: Grid, *, largest_piece: bool
) -> NDArray[np.uint8]:
    """Return the most probable structures on the lattice ``grid`` of an image."""
    labels = argmax_labels(resample(probs[None], prepared, grid))[0, 0].numpy()
    return largest_pieces(labels) if largest_piece else labels


def largest_pieces(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return labels with the largest connected piece of every structure, the rest background.

    Voxels are neighbors within a slice or across slices by their faces. Only what lies by the
    left ventricle counts: fat may shine like a right ventricle and be larger.
    """
    from scipy.ndimage import label

    kept, heart = np.zeros_like(labels), _heart(labels)
    for structure in (Structure.LV, Structure.MYO, Structure.RV):
        pieces, count = label((labels == structure) & heart)
        if count:
            largest = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
            kept[pieces == largest] = structure
    return kept


def _heart(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the piece of all structures together that holds most of the left ventricle.

    Gaps of four pixels in a slice part nothing. Without a left ventricle it is everything.
    """
    from scipy.ndimage import binary_dilation, label

    left = labels == Structure.LV
    if not left.any():
        return labels > 0
    in_plane = np.ones((1, 3, 3), dtype=bool)
    pieces, _ = label(binary_dilation(labels > 0, in_plane, iterations=2))
    return pieces == np.argmax(np.bincount(pieces[left]))


def _starts(length: int, size: int, overlap: float) -> list[int]:
    """Return where windows of ``size`` begin that cover ``length`` evenly."""
    if length <= size:
        # A short slice lies in the middle of its window.
        return [-((size - length) // 2)]
    steps = int(np.ceil((length - size) / max(1, int(size * (1 - overlap)))))
    return [round(n * (length - size) / steps) for n in range(steps + 1)]


def _window_weight(size: int) -> Tensor:
    """Return the weight of a window's pixels ``(size, size)``, positive everywhere."""
    place = torch.linspace(-_BORDER_SD, _BORDER_SD, size, dtype=torch.float64)
    along = torch.exp(-place.square() / 2)
    return torch.outer(along, along).float()


def _add(planes: Tensor, window: Tensor, start: tuple[int, int]) -> None:
    """Add a window to the planes ``(C, H, W)`` where it lies, in place."""
    (top, left), size = start, window.shape[-1]
    height, width = planes.shape[1:]
    rows = slice(max(top, 0), min(top + size, height))
    columns = slice(max(left, 0), min(left + size, width))
    planes[:, rows, columns] += window[
        :, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
    ]
