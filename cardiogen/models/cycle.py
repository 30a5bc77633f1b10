"""The cycle vector: a whole beating heart as one vector of unconstrained numbers.

Blocks: the five phenotypes of ``population.phenotypes``, the shape coordinates at end diastole
without the volumes, and truncated Fourier series over the cycle, zero at end diastole,

    c(t) - c(0) = sum_k a_k (cos 2 pi k t - 1) + b_k sin 2 pi k t,    k = 1..K,

of the emptied fraction and of every shape coordinate. A vector decodes to a periodic sequence of
hearts with the volumes that its phenotypes say, at any phases; only one whose right stroke volume
exceeds the right ventricle (some 5 SD out) is no heart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.measure.volumes import MYOCARDIAL_DENSITY
from cardiogen.population.coordinates import COORDINATE_COUNT, COORDINATES
from cardiogen.population.phenotypes import PHENOTYPES, Phenotypes

Array = NDArray[np.float64]

HARMONICS = 8
_VOLUMES = COORDINATES["log_volume"]
_SHAPE = np.array([k for k in range(COORDINATE_COUNT) if not _VOLUMES.start <= k < _VOLUMES.stop])
_PHENOTYPE = slice(0, len(PHENOTYPES))
_ED = slice(_PHENOTYPE.stop, _PHENOTYPE.stop + len(_SHAPE))
# Curves over the cycle: emptied fraction, log myocardial volume, then the shape coordinates.
_CURVES = 2 + len(_SHAPE)
_MOTION = slice(_ED.stop, _ED.stop + _CURVES * 2 * HARMONICS)
VECTOR_SIZE = _MOTION.stop
ED_BLOCK = slice(0, _ED.stop)
MOTION_BLOCK = _MOTION
_DENSE = np.arange(200) / 200.0


def fourier_basis(phases: ArrayLike) -> Array:
    """Return the periodic functions that vanish at phase 0, ``(T, 2 K)``."""
    phase = np.mod(np.asarray(phases, np.float64), 1.0)[:, None]
    angle = 2 * np.pi * phase * np.arange(1, HARMONICS + 1)
    return np.concatenate([np.cos(angle) - 1.0, np.sin(angle)], axis=1)


def encode_cycle(phases: ArrayLike, coordinates: Array) -> Array:
    """Return the cycle vector of a heart whose shape coordinates are known over the cycle.

    Args:
        phases: ``(T,)``, with 0 first; at least 2 K + 1 of them, spread over the cycle.
        coordinates: shape coordinates ``(T, P)`` at these phases.
    """
    volumes = np.exp(coordinates[:, _VOLUMES])
    left, right = volumes[:, 0], volumes[:, 2]
    stroke = left[0] - left.min()
    phenotypes = Phenotypes(
        lvedv=left[0],
        lvesv=left.min(),
        lvm=volumes[0, 1] * MYOCARDIAL_DENSITY,
        rvedv=right[0],
        rvesv=right.min(),
    )
    emptied = (left[0] - left) / stroke
    log_myocardium = coordinates[:, _VOLUMES.start + 1]
    curves = np.concatenate(
        [emptied[:, None], log_myocardium[:, None], coordinates[:, _SHAPE]], axis=1
    )
    series, *_ = np.linalg.lstsq(fourier_basis(phases), curves - curves[0], rcond=None)
    return np.concatenate([phenotypes.as_vector(), coordinates[0, _SHAPE], series.T.ravel()])


def decode_phenotypes(vector: Array) -> Phenotypes:
    """Return the phenotypes of a cycle vector."""
    return Phenotypes.from_vector(vector[_PHENOTYPE])


def decode_cycle(vector: Array, phases: ArrayLike) -> Array:
    """Return the shape coordinates ``(T, P)`` of a cycle vector at any phases.

    Where the phenotypes leave a ventricle without volume, its log volume is NaN.
    """
    phenotypes = decode_phenotypes(vector)
    series = vector[_MOTION].reshape(_CURVES, 2 * HARMONICS)
    # einsum without BLAS: the same bits for any number of threads and phases.
    curves = np.einsum("tk,ck->tc", fourier_basis(phases), series)
    emptied = curves[:, 0] / _peak(series[0])
    coordinates = np.empty((len(curves), COORDINATE_COUNT))
    coordinates[:, _SHAPE] = vector[_ED] + curves[:, 2:]
    left = phenotypes.lvedv - emptied * (phenotypes.lvedv - phenotypes.lvesv)
    right = phenotypes.rvedv - emptied * (phenotypes.rvedv - phenotypes.rvesv)
    myocardium = phenotypes.lvm / MYOCARDIAL_DENSITY * np.exp(curves[:, 1])
    volumes = np.stack([left, myocardium, right], axis=1)
    coordinates[:, _VOLUMES] = np.log(np.where(volumes > 0, volumes, np.nan))
    return coordinates


def curve_entries(names: tuple[str, ...]) -> NDArray[np.int64]:
    """Return the entries of the cycle vector that hold the motion of named shape coordinates."""
    wanted = np.concatenate([np.r_[COORDINATES[name]] for name in names])
    curves = 2 + np.flatnonzero(np.isin(_SHAPE, wanted))
    width = 2 * HARMONICS
    return (_MOTION.start + curves[:, None] * width + np.arange(width)).ravel()


def end_systole(vector: Array) -> float:
    """Return the phase at which ejection ends: the first that has emptied all but 0.5 %.

    The volume stays at its least until filling begins, so the least volume itself is no time.
    """
    series = vector[_MOTION].reshape(_CURVES, 2 * HARMONICS)[0]
    emptied = np.einsum("tk,k->t", fourier_basis(_DENSE), series)
    return float(_DENSE[np.argmax(emptied >= 0.995 * emptied.max())])


def _peak(series: Array) -> float:
    """Largest value of the emptied fraction, so that the stroke volume is the phenotype's own."""
    return float(np.einsum("tk,k->t", fourier_basis(_DENSE), series).max())
