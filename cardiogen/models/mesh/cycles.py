"""PCA of vertex fields over the cycle: frames to modes, modes to harmonics, harmonics to scores.

A field of one heart is ``d(t) = sum_b B_b(t) sum_p (sum_r L_bpr e_r) M_p`` with the time code B,
frame modes M ``(P, 3 V)`` and loadings L ``(B, P, R)``, e with unit variance. The linear part of
the network starts from it, and the residual that the network leaves is modelled by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_MOST_FRAMES = 1500


@dataclass(frozen=True, eq=False)
class CyclePca:
    """Modes of fields over the cycle.

    Attributes:
        mean: coefficients of the mean field ``(B, 3 V)`` mm.
        modes: orthonormal frame modes ``(P, 3 V)``.
        loadings: ``(B, P, R)`` mm.
        rest_mm: RMS per coordinate of what the loadings leave.
    """

    mean: Array
    modes: Array
    loadings: Array
    rest_mm: float


def fit_cycles(fields: NDArray, codes: Array, *, frame_modes: int, modes: int) -> CyclePca:
    """Return the PCA of fields.

    Args:
        fields: ``(N, T, 3 V)`` mm.
        codes: time code of every frame ``(N, T, B)``.
        frame_modes: P; fewer where the frames span less.
        modes: R; where the hearts span less, the last loadings are zero.
    """
    count, frames, size = fields.shape
    flat = codes.reshape(count * frames, -1)
    mean = np.linalg.pinv(flat, rcond=1e-6) @ fields.reshape(count * frames, size)
    spatial = _frame_modes(fields, codes, mean, frame_modes)
    scores = fields @ spatial.T - codes @ (mean @ spatial.T)  # (N, T, P)
    series = np.stack([np.linalg.pinv(c, rcond=1e-2) @ s for c, s in zip(codes, scores)])  # noqa: B905
    loadings = _loadings(series, modes)
    left = _left_over(fields, codes, mean, spatial, scores, series, loadings)
    return CyclePca(mean, spatial, loadings, left)


def _frame_modes(fields: NDArray, codes: Array, mean: Array, wanted: int) -> Array:
    """Unit modes of single frames about the mean, from evenly chosen frames."""
    flat, code = fields.reshape(-1, fields.shape[-1]), codes.reshape(-1, codes.shape[-1])
    rows = np.unique(np.linspace(0, len(flat) - 1, min(len(flat), _MOST_FRAMES)).astype(int))
    chosen = flat[rows].astype(np.float64) - code[rows] @ mean
    values, vectors = np.linalg.eigh(chosen @ chosen.T)
    order = np.argsort(values)[::-1][:wanted]
    order = order[values[order] > 1e-9 * max(values[order[0]], 1e-12)]
    modes = (vectors[:, order] / np.sqrt(values[order])).T @ chosen
    # Signs are free: the largest entry is made positive, so that refits agree.
    return modes * np.sign(modes[np.arange(len(modes)), np.abs(modes).argmax(axis=1)])[:, None]


def _loadings(series: Array, wanted: int) -> Array:
    """Loadings ``(B, P, R)`` of the harmonics ``(N, B, P)`` of every heart."""
    count, codes, modes = series.shape
    # A harmonic has half the power of the constant.
    power = np.sqrt(np.where(np.arange(codes) == 0, 1.0, 0.5))[:, None]
    weighted = ((series - series.mean(axis=0)) * power).reshape(count, -1)
    _, values, vectors = np.linalg.svd(weighted, full_matrices=False)
    kept = min(wanted, len(values), max(count - 1, 0))
    found = (values[:kept, None] / np.sqrt(max(count - 1, 1))) * vectors[:kept]
    loadings = np.zeros((codes, modes, wanted))
    loadings[..., :kept] = np.moveaxis(found.reshape(kept, codes, modes) / power, 0, -1)
    return loadings


def _left_over(
    fields: NDArray,
    codes: Array,
    mean: Array,
    spatial: Array,
    scores: Array,
    series: Array,
    loadings: Array,
) -> float:
    """RMS per coordinate, mm, of fields less their projection on the loadings."""
    design = loadings.reshape(series[0].size, loadings.shape[-1])
    about = (series - series.mean(axis=0)).reshape(len(series), -1)
    e = about @ np.linalg.pinv(design, rcond=1e-9).T
    told = (e @ design.T).reshape(series.shape) + series.mean(axis=0)
    inside = scores - codes @ told
    total = 0.0
    for heart, code in zip(fields, codes, strict=True):
        total += float(((heart - code @ mean) ** 2).sum())
    outside = total - float((scores**2).sum())
    return float(np.sqrt(max(outside + (inside**2).sum(), 0.0) / fields.size))
