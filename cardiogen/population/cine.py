"""Cine-like images of a population heart, with the exact motion known.

Every voxel is carried back to end diastole by the material motion and takes its tissue there, so
that images, label maps and meshes of all phases are views of one moving body. Contrast is that of
a balanced steady-state cine: bright blood, dark muscle, black lung; texture moves with the
tissue, bias field and noise stay with the scanner.
"""

from __future__ import annotations

from collections.abc import Sequence as Listing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import keyed_rng, progress
from cardiogen.data.grid import Grid
from cardiogen.data.sequence import Sequence
from cardiogen.population.heart import PopulationHeart
from cardiogen.population.material import HeartFrame, heart_frame, move_points
from cardiogen.population.render import render_sequence
from cardiogen.population.template import ROWS, SEPTAL, template_topology

Array = NDArray[np.float64]

# Relative signal of a balanced steady-state cine at 1.5 T (blood is the unit).
_BLOOD, _MUSCLE, _LUNG, _BODY = 1.0, 0.30, 0.08, 0.45
_EDGE_MM = 0.8  # width over which tissues blend
_RV_WALL_MM = 3.0
_WAVES = 60


@dataclass(frozen=True, kw_only=True)
class CineOptions:
    """How a cine is acquired.

    Attributes:
        snr: blood signal over the SD of the complex noise; infinite for none.
        slice_thickness_mm: thickness that a slice averages over; 0 for a plane.
        bias: largest relative change of the coil's sensitivity over the heart.
        texture: relative SD of the tissue texture.
        seed: seed of texture, bias and noise.
    """

    snr: float = 20.0
    slice_thickness_mm: float = 8.0
    bias: float = 0.15
    texture: float = 0.12
    seed: int = 0


def _texture(points: Array, rng: np.random.Generator, amplitude: float) -> Array:
    """A smooth random field of unit mean: waves of 5 to 25 mm in all directions."""
    direction = rng.normal(size=(_WAVES, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    waves = direction * (2 * np.pi / rng.uniform(5.0, 25.0, size=(_WAVES, 1)))
    phases = rng.uniform(0, 2 * np.pi, size=_WAVES)
    field = np.zeros(len(points))
    for wave, phase in zip(waves, phases, strict=True):
        field += np.cos(points @ wave + phase)
    return 1.0 + amplitude * field * np.sqrt(2.0 / _WAVES)


def _step(distance: Array) -> Array:
    """Blend from 0 (distance << 0) to 1 over the width of an edge."""
    return 1.0 / (1.0 + np.exp(-np.clip(distance / (_EDGE_MM / 2), -50, 50)))


def _papillary(row: Array, column: Array, share: Array) -> Array:
    """Two papillary muscles: columns of muscle in the cavity at mid level, off the wall."""
    level = np.exp(-(((row / ROWS - 0.45) / 0.18) ** 4))
    muscles = 0.0
    for center in (SEPTAL + 7.0, SEPTAL + 21.0):  # anterolateral and posteromedial
        muscles = muscles + np.exp(
            -(((column - center) / 2.2) ** 2 + ((share - 0.72) / 0.16) ** 2)
        )
    return np.clip(level * muscles, 0, 1)


def tissue_signal(
    points: Array, ed: HeartFrame, rng: np.random.Generator, texture: float
) -> Array:
    """Return the noise-free signal of the body at end diastole, ``(N,)``.

    Args:
        points: heart-frame positions ``(N, 3)`` mm at end diastole.
        ed: the heart at end diastole.
        rng: generator of the texture.
        texture: relative SD.
    """
    row, column, distance = ed.locate(points)
    endo, epi, free = ed.surfaces(row, column)
    below = _step(-row * 4.0)  # rows above the base are negative; about 4 mm a row
    below = 1.0 - below
    blood = _BLOOD - (_BLOOD - _MUSCLE) * _papillary(row, column, distance / endo)
    # Lung lies beside the left ventricle, body wall and liver before and below.
    body = _BODY * _step(np.maximum(points[:, 0] - 15.0, -points[:, 1] - 45.0) / 8.0)
    outside = np.maximum(_LUNG, body)
    has_right = _step(free - epi - 1.0)
    signal = outside
    wall = _step(free + _RV_WALL_MM - distance) * has_right
    signal = signal + wall * (_MUSCLE - signal)
    right = _step(free - distance) * has_right
    signal = signal + right * (_BLOOD - signal)
    muscle = _step(epi - distance)
    signal = signal + muscle * (_MUSCLE - signal)
    signal = signal + _step(endo - distance) * (blood - signal)
    # Above the base: atria and great vessels as blood within the outline, without wall detail.
    atria = np.where(distance < free, 0.9 * _BLOOD, outside)
    signal = atria + below * (signal - atria)
    return signal * _texture(points, rng, texture)


def _sub_slices(grid: Grid, thickness_mm: float) -> Array:
    """Offsets along D, in voxels, that one slice averages over."""
    if thickness_mm <= 0:
        return np.zeros(1)
    count = max(1, round(thickness_mm / 2.0))
    return ((np.arange(count) + 0.5) / count - 0.5) * thickness_mm / grid.spacing[0]


def render_cine(
    heart: PopulationHeart,
    phases: Listing[float],
    grid: Grid,
    *,
    options: CineOptions | None = None,
) -> Sequence:
    """Return images, label maps and meshes of a heart on one grid.

    Noise is Rician: the magnitude of signal plus complex Gaussian noise of SD ``1 / snr``.

    Args:
        heart: a population heart; its ``displacement_field`` is the motion of the images.
        phases: fractions of the cycle, the first at end diastole.
        grid: lattice; slices are stacked along D.
        options: acquisition.
    """
    options = options or CineOptions()
    phases = np.asarray(phases, dtype=np.float64)
    images = np.stack(
        [_frame(heart, float(phase), number, grid, options)
         for number, phase in enumerate(progress(phases, "rendering cine"))]
    )  # fmt: skip
    vertices = heart.vertices(phases)
    return Sequence(
        phases=phases,
        es=int(np.argmax(heart.timing.emptied(phases))) if len(phases) > 1 else None,
        grid=grid,
        images=images.astype(np.float32),
        labels=render_sequence(vertices, template_topology(), grid),
        vertices=vertices,
        topology=template_topology(),
        factors=heart.factors,
        cycle_s=heart.timing.cycle_s,
        subject_id=f"population_{heart.index:06d}",
    )


def _frame(
    heart: PopulationHeart, phase: float, number: int, grid: Grid, options: CineOptions
) -> Array:
    now, ed = heart_frame(heart, phase), heart_frame(heart, 0.0)
    voxels = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1)
    voxels = voxels.reshape(-1, 3).astype(np.float64)
    signal = np.zeros(len(voxels))
    offsets = _sub_slices(grid, options.slice_thickness_mm)
    for offset in offsets:
        points = heart.pose.to_heart(grid.to_world(voxels + np.array([offset, 0, 0])))
        rng = keyed_rng(options.seed, "cine/texture", heart.index)
        signal += tissue_signal(move_points(points, now, ed), ed, rng, options.texture)
    signal /= len(offsets)
    place = grid.to_world(voxels)
    signal *= _bias(place, keyed_rng(options.seed, "cine/bias", heart.index), options.bias)
    noise = keyed_rng(options.seed, f"cine/noise/{heart.index}", number)
    real, imaginary = noise.normal(scale=1.0 / options.snr, size=(2, len(signal)))
    return np.hypot(signal + real, imaginary).reshape(grid.shape)


def _bias(points: Array, rng: np.random.Generator, strength: float) -> Array:
    """Coil sensitivity: a smooth factor that falls along a random direction over 150 mm."""
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    along = (points - points.mean(axis=0)) @ direction
    return 1.0 + strength * np.tanh(along / 75.0)
