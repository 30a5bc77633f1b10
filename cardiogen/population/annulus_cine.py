"""Label maps and textured cine images of the annulus, with its exact motion.

Every voxel is carried back to ED and takes its tissue there, so that labels, images and
displacements of all frames are views of one moving body. Texture moves with the tissue: without
it motion along the wall cannot be seen. Noise is Rician and stays with the scanner.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.base import keyed_rng
from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.data.sequence import Sequence
from cardiogen.population.annulus import (
    CAP_MM,
    CRESCENT_MM,
    Annulus,
    annulus_displacement,
)
from cardiogen.population.motion import Timing
from cardiogen.population.pose import Pose

Array = NDArray[np.float64]

# Relative signal of a balanced steady-state cine (blood is the unit), as in ``cine``.
_SIGNAL = {Structure.BACKGROUND: 0.15, Structure.LV: 1.0, Structure.MYO: 0.30, Structure.RV: 1.0}
_EDGE_MM = 0.8  # width over which tissues blend
_WAVES = 60
_TIMING = Timing(systole=0.36, atrial_share=0.3, cycle_s=0.9)


@dataclass(frozen=True, eq=False, kw_only=True)
class AnnulusCine:
    """A cine whose motion is known.

    Attributes:
        sequence: images and label maps of all frames, ED first.
        states: the annulus in every frame.
        pose: from the annulus' frame to the world.
    """

    sequence: Sequence
    states: tuple[Annulus, ...]
    pose: Pose

    def displacement(self, frame: int) -> Array:
        """Return the exact ``ed_to_frame`` ``(3, D, H, W)``, voxels."""
        return annulus_displacement(self.states[frame], self.sequence.grid, self.pose)

    def displacements(self) -> Array:
        """Return the exact displacements of all frames, ``(T, 3, D, H, W)``, voxels."""
        return np.stack([self.displacement(frame) for frame in range(len(self.states))])


def annulus_cine(
    annulus: Annulus,
    grid: Grid,
    pose: Pose,
    *,
    phases: ArrayLike,
    snr: float = 20.0,
    texture: float = 0.25,
    insertions_deg: tuple[float, float] = (-60.0, 60.0),
    slice_thickness_mm: float = 0.0,
    seed: int = 0,
    index: int = 0,
) -> AnnulusCine:
    """Return images, label maps and motion of an annulus over a cycle.

    The volume follows a population heart's: ejection until 36 % of the cycle, then early and
    atrial filling; the cycle closes exactly.

    Args:
        annulus: shape and full contraction.
        grid: lattice of all frames.
        pose: from the annulus' frame to the world.
        phases: fractions of the cycle, the first 0 (ED).
        snr: blood signal over the SD of the complex noise; infinite for none.
        texture: relative SD of the tissue's texture; 0 for even tissue.
        insertions_deg: (inferior, anterior) angle at which the right ventricle is attached.
        slice_thickness_mm: thickness that images average over along D; 0 for planes.
        seed, index: key of the randomness; noise of a frame does not depend on other frames.
    """
    phases = np.asarray(phases, dtype=np.float64)
    if phases.ndim != 1 or len(phases) == 0 or phases[0] != 0:
        raise ValueError(f"phases must be a list that starts with 0 (ED), got {phases}")
    if not snr > 0 or texture < 0 or slice_thickness_mm < 0:
        raise ValueError(
            "snr must be positive, texture and slice_thickness_mm not negative, got "
            f"{snr}, {texture}, {slice_thickness_mm}"
        )
    states = tuple(annulus.at(float(e)) for e in _TIMING.emptied(phases))
    waves = _Waves.draw(keyed_rng(seed, "annulus/texture", index), texture)
    insertions = np.radians(insertions_deg)
    labels, images = [], []
    for number, state in enumerate(states):
        labels.append(_labels(state, grid, pose, insertions))
        signal = _signal(state, grid, pose, insertions, waves, slice_thickness_mm)
        noise = keyed_rng(seed, f"annulus/noise/{index}", number)
        real, imaginary = noise.normal(scale=1.0 / snr, size=(2, *grid.shape))
        images.append(np.hypot(signal + real, imaginary))
    emptied = [state.ejection_fraction for state in states]
    sequence = Sequence(
        phases=phases, es=int(np.argmax(emptied)) if len(states) > 1 else None, grid=grid,
        labels=np.stack(labels), images=np.stack(images).astype(np.float32),
        cycle_s=_TIMING.cycle_s, subject_id=f"annulus_{index:06d}",
        orientation="mirrored" if pose.mirrored else "trusted",
    )  # fmt: skip
    return AnnulusCine(sequence=sequence, states=states, pose=pose)


def annulus_labels(
    annulus: Annulus,
    grid: Grid,
    pose: Pose,
    *,
    insertions_deg: tuple[float, float] = (-60.0, 60.0),
) -> NDArray[np.uint8]:
    """Return the structures ``(D, H, W)`` of an annulus after its deformation.

    Muscle of 8 mm closes the apical end, where the AHA cap lies; a right ventricle 20 mm deep
    is attached between the insertions.
    """
    return _labels(annulus, grid, pose, np.radians(insertions_deg))


def _labels(state: Annulus, grid: Grid, pose: Pose, insertions: Array) -> NDArray[np.uint8]:
    labels = np.zeros(int(np.prod(grid.shape)), dtype=np.uint8)
    for structure, depth in _depths(_at_ed(state, grid, pose, 0.0), state, insertions).items():
        labels[depth > 0] = structure
    return labels.reshape(grid.shape)


def _at_ed(state: Annulus, grid: Grid, pose: Pose, offset: float) -> Array:
    """Where every voxel was at ED, in the annulus' frame ``(N, 3)``; ``offset`` along D."""
    indices = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    voxels = indices.reshape(-1, 3) + np.array([offset, 0.0, 0.0])
    return state.undeform(pose.to_heart(grid.to_world(voxels)))


def _depths(points: Array, annulus: Annulus, insertions: Array) -> dict[Structure, Array]:
    """How deep points at ED lie in every structure, mm (negative outside), outermost first."""
    x, y, z = np.moveaxis(points, -1, 0)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    above, below = np.minimum(z, annulus.length - z), np.minimum(z + CAP_MM, annulus.length - z)
    away = np.abs(np.mod(angle - insertions.mean() + np.pi, 2 * np.pi) - np.pi)
    septal = radius * (np.ptp(insertions) / 2 - away)
    crescent = np.minimum(annulus.outer_ed + CRESCENT_MM - radius, septal)
    return {
        Structure.RV: np.minimum(crescent, above),
        Structure.MYO: np.minimum(annulus.outer_ed - radius, below),
        Structure.LV: np.minimum(annulus.inner_ed - radius, above),
    }


@dataclass(frozen=True, eq=False)
class _Waves:
    """A smooth random factor of unit mean: plane waves of 5 to 25 mm in all directions."""

    vectors: Array
    phases: Array
    amplitude: float

    @classmethod
    def draw(cls, rng: np.random.Generator, texture: float) -> _Waves:
        direction = rng.normal(size=(_WAVES, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        vectors = direction * (2 * np.pi / rng.uniform(5.0, 25.0, size=(_WAVES, 1)))
        return cls(vectors, rng.uniform(0, 2 * np.pi, size=_WAVES),
                   texture * np.sqrt(2.0 / _WAVES))  # fmt: skip

    def at(self, points: Array) -> Array:
        if self.amplitude == 0:
            return np.ones(len(points))
        x, y, z = np.ascontiguousarray(points.T)
        total = np.zeros(len(points))
        for (a, b, c), phase in zip(self.vectors, self.phases, strict=True):
            # Written out, it keeps BLAS away: the same bits on any number of threads.
            total += np.cos(a * x + b * y + c * z + phase)
        return 1.0 + self.amplitude * total


def _signal(
    state: Annulus, grid: Grid, pose: Pose, insertions: Array, waves: _Waves, thickness_mm: float
) -> Array:
    """Noise-free signal ``(D, H, W)``, the mean over the thickness of a slice."""
    count = max(1, round(thickness_mm / 2.0))
    offsets = ((np.arange(count) + 0.5) / count - 0.5) * thickness_mm / grid.spacing[0]
    total = np.zeros(int(np.prod(grid.shape)))
    for offset in offsets:
        points = _at_ed(state, grid, pose, float(offset))
        signal = np.full(len(points), _SIGNAL[Structure.BACKGROUND])
        for structure, depth in _depths(points, state, insertions).items():
            inside = 1.0 / (1.0 + np.exp(-np.clip(depth / (_EDGE_MM / 2), -50.0, 50.0)))
            signal += inside * (_SIGNAL[structure] - signal)
        total += signal * waves.at(points)
    return (total / count).reshape(grid.shape)
