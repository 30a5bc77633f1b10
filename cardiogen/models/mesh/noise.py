"""The smooth residual: what the decoder leaves of real hearts, as a few modes over the cycle.

A sample without it would be smoother than any heart; with white noise per vertex it would be no
heart at all. The residual is taken at latents drawn from their posterior, so that it is what the
likelihood calls noise, and its modes are those of ``mesh.cycles``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cardiogen.engine.fit import keyed_generator
from cardiogen.models.mesh.cycles import fit_cycles
from cardiogen.models.mesh.examples import MeshExamples
from cardiogen.models.mesh.gaussian import Gaussian
from cardiogen.models.mesh.network import MeshNetwork
from cardiogen.models.mesh.time import time_code

_MOST_HEARTS = 1500


@dataclass(frozen=True, eq=False)
class SmoothNoise:
    """``r(t) = B(t)^T (mean + sum_p (sum_r L_pr e_r) M_p)`` with e standard normal ``(R,)``.

    Attributes:
        mean: ``(B, 3 V)`` mm, the bias of the decoder.
        modes: ``(P, 3 V)``.
        loadings: ``(B, P, R)``.
        rest_mm: RMS per coordinate that the modes leave out.
    """

    mean: NDArray[np.float32]
    modes: NDArray[np.float32]
    loadings: NDArray[np.float32]
    rest_mm: float

    @property
    def size(self) -> int:
        """Number of noise latents R."""
        return self.loadings.shape[2]

    def field(self, latents: NDArray, code: NDArray) -> NDArray[np.float32]:
        """Return the residual ``(N, T, V, 3)`` mm of latents ``(N, R)`` at codes ``(T, B)``."""
        code = code.astype(np.float32)
        weights = np.einsum("tb,bpr,nr->ntp", code, self.loadings, latents.astype(np.float32))
        flat = code @ self.mean + weights @ self.modes
        return flat.reshape(*flat.shape[:2], -1, 3)

    def given(
        self, residual: NDArray, code: NDArray, precision: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean ``(R,)`` and covariance ``(R, R)`` of the latents given seen residuals.

        Args:
            residual: ``(T, V, 3)`` mm of the seen frames.
            code: their time codes ``(T, B)``.
            precision: weight of the mean square of one frame, mm^-2.
        """
        away = residual.reshape(len(code), -1) - code @ self.mean
        modes = self.modes.astype(np.float64)
        # Modes have unit length: a mean square over coordinates is their sum over 3 V.
        design = np.einsum("tb,bpr->tpr", code, self.loadings.astype(np.float64))
        weight = precision / away.shape[1]
        inner = np.eye(self.size) + weight * np.einsum("tpr,tps->rs", design, design)
        pull = weight * np.einsum("tpr,tp->r", design, away @ modes.T)
        covariance = np.linalg.inv(inner)
        return covariance @ pull, (covariance + covariance.T) / 2


def fit_noise(
    network: MeshNetwork,
    examples: MeshExamples,
    posterior: Gaussian,
    *,
    modes: int,
    frame_modes: int,
    seed: int,
) -> SmoothNoise:
    """Return the modes of the residual of examples (at most 1,500 of them, evenly chosen).

    Args:
        network: trained, on the CPU.
        examples: N hearts.
        posterior: of their latents, from all frames.
        modes: of the residual.
        frame_modes: PCA modes of single frames that these are made of.
        seed: of the draws from the posterior.
    """
    rows = np.unique(
        np.linspace(0, len(examples) - 1, min(len(examples), _MOST_HEARTS)).astype(int)
    )
    chosen = examples.take(rows)
    residual = np.empty(chosen.vertices.shape, np.float32)
    with torch.no_grad():
        for k, row in enumerate(rows):
            one = Gaussian(posterior.mean[row : row + 1], posterior.tril[row : row + 1])
            drawn = one.draw(keyed_generator(seed, "mesh/residual", k, "cpu"))
            phases = torch.from_numpy(chosen.phases[k : k + 1]).float()
            residual[k] = chosen.vertices[k] - network.decode(drawn, phases)[0].numpy()
    codes = time_code(torch.from_numpy(chosen.phases), network.config.harmonics).numpy()
    found = fit_cycles(
        residual.reshape(*residual.shape[:2], -1), codes, frame_modes=frame_modes, modes=modes
    )
    return SmoothNoise(
        found.mean.astype(np.float32), found.modes.astype(np.float32),
        found.loadings.astype(np.float32), found.rest_mm,
    )  # fmt: skip
