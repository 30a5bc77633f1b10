"""One heart's own modes: the model's, and what they cannot show of this heart.

Modes are learned; a patient differs from all their combinations. What is left over is added to the
means: at end diastole a velocity r_ed, over the cycle

    v_t += sum_j r_j G_j(t),   G = K(t, .) (K + noise I)^-1,   K(t, s) = sum_k k^-4 B_k(t) B_k(s),

the smoothest periodic curve through the left-over velocities r_j of the observed frames that
vanishes at end diastole. Scores mean what they meant, and every decoder can use the result.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cardiogen.models.cycle import HARMONICS, fourier_basis
from cardiogen.models.deformation.modes import VelocityModes

Array = NDArray[np.float64]

_NOISE = 2e-3


def motion_operator(modes: VelocityModes, phases: Array) -> tuple[Array, Array]:
    """Return H ``(T F, R)`` and h ``(T F,)``: coefficients of the fields at phases, h + H s.

    Args:
        modes: of the model.
        phases: ``(T,)``.
    """
    time = fourier_basis(phases)
    shape = (-1, len(modes.fields), 2 * HARMONICS)
    slopes = (modes.motion_modes * modes.motion_scale[:, None]).reshape(shape)
    operator = np.einsum("tk,rfk->tfr", time, slopes).reshape(-1, len(slopes))
    origin = np.einsum("tk,fk->tf", time, modes.motion_mean.reshape(shape[1:]))

    return operator, origin.ravel()


def seen_motion(
    modes: VelocityModes,
    phases: Array,
    motion: Array,
    mean: Array,
    covariance: Array,
    *,
    noise_mm: float = 10.0,
) -> tuple[Array, Array]:
    """Condition Gaussian motion scores on velocities of frames.

    Args:
        modes: of the model.
        phases: of the frames ``(T,)``.
        motion: their velocities ``(T, P)`` mm.
        mean, covariance: of the scores before, ``(R,)`` and ``(R, R)``.
        noise_mm: standard deviation of a field's coefficient.

    Returns:
        Mean and covariance after.
    """
    operator, origin = motion_operator(modes, phases)
    seen = (motion @ modes.fields.T).ravel() - origin - operator @ mean
    shared = covariance @ operator.T
    gain = np.linalg.solve(operator @ shared + noise_mm**2 * np.eye(len(seen)), shared.T).T
    left = covariance - gain @ shared.T

    return mean + gain @ seen, (left + left.T) / 2


def smooth_curves(phases: Array) -> Array:
    """Return the Fourier series ``(T, K2)`` of G: about one at its own phase, zero at others.

    Noise is measured by the kernel at mid cycle: frames next to end diastole, or to each other,
    say little and must not be magnified.
    """
    time = fourier_basis(phases)
    weights = np.arange(1.0, HARMONICS + 1) ** -4
    spread = time * np.concatenate([weights, weights])
    gram = spread @ time.T
    ridge = _NOISE * 4.0 * weights[::2].sum()  # K(1/2, 1/2): cos(pi k) - 1 is -2 for odd k

    return np.linalg.solve(gram + ridge * np.eye(len(gram)), spread)


def own_modes(
    modes: VelocityModes, scores: Array, ed: Array, phases: Array, motion: Array
) -> VelocityModes:
    """Return modes that show one heart at its scores, nearly as it was seen.

    Args:
        modes: of the model.
        scores: of the heart ``(S,)``.
        ed: its velocity at end diastole ``(P,)`` mm.
        phases: of its observed frames but end diastole, ``(T,)``; may be empty.
        motion: velocities of these frames ``(T, P)`` mm.
    """
    shape, beat = modes.heart_velocities(scores, [0.0, *phases])
    modes = replace(modes, ed_mean=modes.ed_mean + ed - shape.ravel())
    if len(phases) == 0:
        return modes
    curves = smooth_curves(phases)
    empty = np.zeros((len(modes.motion_modes), curves.size))

    return replace(
        modes,
        fields=np.concatenate([modes.fields, motion - beat[1:].reshape(motion.shape)]),
        motion_mean=np.concatenate([modes.motion_mean, curves.ravel()]),
        motion_modes=np.concatenate([modes.motion_modes, empty], axis=1),
    )
