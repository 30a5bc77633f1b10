"""Where training starts: PCA over the cycle with a Gaussian given the conditions."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cardiogen.engine.fit import keyed_layers
from cardiogen.models.mesh.conditions import ConditionTable
from cardiogen.models.mesh.config import MeshConfig
from cardiogen.models.mesh.cycles import fit_cycles
from cardiogen.models.mesh.examples import MeshExamples
from cardiogen.models.mesh.gaussian import Gaussian
from cardiogen.models.mesh.model import mesh_levels
from cardiogen.models.mesh.network import MeshNetwork
from cardiogen.models.mesh.time import time_code

Array = NDArray[np.float64]


def start_network(
    examples: MeshExamples, config: MeshConfig, table: ConditionTable
) -> MeshNetwork:
    """Return a network that starts as PCA with a conditional Gaussian; the rest is near zero."""
    codes = time_code(torch.from_numpy(examples.phases), config.harmonics).numpy()
    flat = examples.vertices.reshape(*examples.vertices.shape[:2], -1)
    pca = fit_cycles(flat, codes, frame_modes=config.shape_modes, modes=config.latents)
    rms = np.sqrt(pca.modes.shape[1])
    levels = mesh_levels(pca.mean.astype(np.float32), examples.faces, config)
    with keyed_layers(config.seed, "mesh/init"):
        network = MeshNetwork(
            config, levels, condition_mean=table.mean, condition_sd=table.sd,
            shape_modes=len(pca.modes),
        )  # fmt: skip
    with torch.no_grad():
        network.mean.copy_(torch.from_numpy(pca.mean))
        network.modes.copy_(torch.from_numpy(pca.modes * rms))
        network.linear.copy_(torch.from_numpy(pca.loadings / rms))
        network.frames.fill_(examples.phases.shape[1])
        network.scale.copy_(torch.from_numpy(_scale(flat, codes, pca.mean)))
        network.log_noise.fill_(float(np.log(max(pca.rest_mm, config.noise_floor_mm / 2))))
    network.prior.fit(torch.from_numpy(examples.conditions), _linear_latents(network, examples))
    return network


def _scale(flat: np.ndarray, codes: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """SD of the displacement of every vertex from the mean mesh, over hearts and frames, mm."""
    total = np.zeros(flat.shape[2])
    for heart, code in zip(flat, codes, strict=True):
        total += ((heart - code @ mean) ** 2).sum(axis=0)
    per_vertex = total.reshape(-1, 3).mean(axis=1) / (flat.shape[0] * flat.shape[1])
    return np.sqrt(per_vertex) + 1e-3


def _linear_latents(network: MeshNetwork, examples: MeshExamples) -> Gaussian:
    """Return the latents of all frames under the linear part and a standard normal prior."""
    modes, mean = network.modes.double().numpy(), network.mean.double().numpy()
    linear = network.linear.detach().double().numpy()
    seen = torch.ones(1, examples.phases.shape[1], dtype=torch.bool)
    weight = float(network.frame_precision(seen))
    codes = time_code(torch.from_numpy(examples.phases), network.config.harmonics).numpy()
    size = linear.shape[2]
    found, tril = np.empty((len(examples), size)), np.empty((len(examples), size, size))
    for k, (vertices, code) in enumerate(zip(examples.vertices, codes, strict=True)):
        away = vertices.reshape(len(code), -1) - code @ mean
        scores = away @ modes.T / away.shape[1]
        design = np.einsum("tc,cpz->tpz", code, linear).reshape(scores.size, -1)
        covariance = np.linalg.inv(np.eye(size) + weight * design.T @ design)
        found[k] = covariance @ (weight * design.T @ scores.ravel())
        tril[k] = np.linalg.cholesky((covariance + covariance.T) / 2)
    return Gaussian(torch.from_numpy(found), torch.from_numpy(tril))
