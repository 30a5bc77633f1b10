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
    _start_prior(network, examples, table)
    return network


def _scale(flat: np.ndarray, codes: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """SD of the displacement of every vertex from the mean mesh, over hearts and frames, mm."""
    total = np.zeros(flat.shape[2])
    for heart, code in zip(flat, codes, strict=True):
        total += ((heart - code @ mean) ** 2).sum(axis=0)
    per_vertex = total.reshape(-1, 3).mean(axis=1) / (flat.shape[0] * flat.shape[1])
    return np.sqrt(per_vertex) + 1e-3


def _start_prior(network: MeshNetwork, examples: MeshExamples, table: ConditionTable) -> None:
    """Set the prior to the regression of the latents on the conditions.

    It is exact where all conditions are known and where none is. Entries k and C + k of the code
    become the value of condition k and whether it is missing.
    """
    latents = _linear_latents(network, examples)
    standard = np.nan_to_num((examples.conditions - table.mean) / table.sd)
    columns = len(table.names)
    slopes = _ridge(standard, latents)
    residual = latents - standard @ slopes
    covariance = residual.T @ residual / max(len(latents) - columns - 1, 1)
    # Directions that the examples do not span keep unit variance; known ones stay invertible.
    empty = latents.var(axis=0) < 1e-6
    covariance += np.diag(np.where(empty, 1.0, 1e-4))
    tril = np.linalg.cholesky(covariance)
    size = tril.diagonal()
    # Without any condition the latents are white: shares of the way there, by what each explains.
    share = (slopes**2 + 1e-6) / (slopes**2 + 1e-6).sum(axis=0)  # (C, Z)
    widening = share * (0.5 * np.log(latents.var(axis=0) + empty) - np.log(size))
    rows, below = np.tril_indices(len(size), -1)
    embedding = network.conditions.straight
    with torch.no_grad():
        for parameter in (embedding.weight, embedding.null):
            parameter[:, : 2 * columns] = 0.0
        for k in range(columns):
            embedding.weight[k, k] = 1.0
            embedding.null[k, columns + k] = 1.0
        _fill(network.prior_mean.weight, 0, slopes.T)
        _fill(network.prior_mean.weight, columns, np.zeros_like(slopes.T))
        _fill(network.prior_log_sd.weight, 0, np.zeros_like(slopes.T))
        _fill(network.prior_log_sd.weight, columns, widening.T)
        network.prior_log_sd.bias.copy_(torch.from_numpy(np.log(size)))
        entries = (tril / size)[rows, below]
        network.prior_triangle.bias.copy_(torch.from_numpy(entries))
        _fill(network.prior_triangle.weight, 0, np.repeat(-entries[:, None] / columns, columns, 1))


def _fill(weight: torch.Tensor, first: int, values: Array) -> None:
    weight[:, first : first + values.shape[1]] = torch.from_numpy(values)


def _ridge(standard: Array, latents: Array) -> Array:
    """Slopes ``(C, Z)``; one subject's worth of ridge keeps collinear columns finite."""
    inner = standard.T @ standard + np.eye(standard.shape[1])
    return np.linalg.solve(inner, standard.T @ latents)


def _linear_latents(network: MeshNetwork, examples: MeshExamples) -> Array:
    """Latents ``(N, Z)`` of all frames under the linear part and a standard normal prior."""
    modes, mean = network.modes.double().numpy(), network.mean.double().numpy()
    linear = network.linear.detach().double().numpy()
    seen = torch.ones(1, examples.phases.shape[1], dtype=torch.bool)
    weight = float(network.frame_precision(seen))
    codes = time_code(torch.from_numpy(examples.phases), network.config.harmonics).numpy()
    found = np.empty((len(examples), linear.shape[2]))
    for k, (vertices, code) in enumerate(zip(examples.vertices, codes, strict=True)):
        away = vertices.reshape(len(code), -1) - code @ mean
        scores = away @ modes.T / away.shape[1]
        design = np.einsum("tc,cpz->tpz", code, linear).reshape(scores.size, -1)
        inner = np.eye(design.shape[1]) + weight * design.T @ design
        found[k] = np.linalg.solve(inner, weight * design.T @ scores.ravel())
    return found
