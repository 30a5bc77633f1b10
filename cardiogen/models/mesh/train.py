"""Training the mesh VAE: from a linear start, by the one training loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cardiogen.base import CardiogenError, Note
from cardiogen.engine.fit import fit
from cardiogen.engine.fit.processes import Device
from cardiogen.models.mesh.conditions import describe_conditions
from cardiogen.models.mesh.config import MeshConfig
from cardiogen.models.mesh.examples import MeshExamples
from cardiogen.models.mesh.gaussian import Gaussian
from cardiogen.models.mesh.model import MeshModel
from cardiogen.models.mesh.network import MeshNetwork
from cardiogen.models.mesh.noise import fit_noise
from cardiogen.models.mesh.start import start_network
from cardiogen.models.mesh.task import MeshTask

_FEWEST = 5


def train_mesh(
    examples: MeshExamples,
    config: MeshConfig,
    *,
    held_out: MeshExamples | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    device: Device = "auto",
    devices: int = 1,
    num_nodes: int = 1,
) -> MeshModel:
    """Return a mesh model trained on examples.

    Args:
        examples: hearts to learn from.
        config: architecture and training.
        held_out: hearts to validate on, if ``config.fit.validate_every`` is set.
        folder, resume, device, devices, num_nodes: see ``engine.fit.fit``.

    Raises:
        CardiogenError: C28 for fewer than 5 hearts; see also ``engine.fit.fit``.
        ValueError: without ``held_out`` where ``config.fit.validate_every`` is set.
    """
    if config.fit.validate_every and held_out is None:
        raise ValueError("held_out must be given where validate_every is set, got None")
    notes = _enough(examples, config)
    table = describe_conditions(examples.conditions, names=examples.names, units=examples.units)
    network = start_network(examples, config, table)
    task = MeshTask(network, examples, held_out)
    fitted = fit(
        task, config.fit, folder=folder, resume=resume, device=device, devices=devices,
        num_nodes=num_nodes,
        fingerprint=f"mesh/{config.model_dump_json(exclude={'fit'})}/{examples.fingerprint()}",
        description="training mesh",
    )  # fmt: skip
    network = fitted.module.cpu()
    posterior = _encode(network, examples)
    network.prior.fit(torch.from_numpy(examples.conditions), posterior)
    noise = fit_noise(
        network, examples, posterior, modes=config.noise_modes, frame_modes=config.shape_modes,
        seed=config.seed,
    )  # fmt: skip
    return MeshModel(
        network, noise, table, examples.faces, topology=examples.topology,
        staged=examples.staged, notes=(*notes, *fitted.notes), history=tuple(fitted.history),
    )  # fmt: skip


def _encode(network: MeshNetwork, examples: MeshExamples, *, size: int = 32) -> Gaussian:
    """Return q(z | all frames, c) of all hearts, ``size`` of them at once."""
    parts = []
    with torch.no_grad():
        for first in range(0, len(examples), size):
            some = examples.take(np.arange(first, min(first + size, len(examples))))
            phases = torch.from_numpy(some.phases).float()
            scores, tokens = network.look(torch.from_numpy(some.vertices), phases)
            seen = torch.ones_like(phases, dtype=torch.bool)
            conditions = torch.from_numpy(some.conditions)
            parts.append(network.posterior(scores, tokens, phases, seen, conditions))
    return Gaussian(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _enough(examples: MeshExamples, config: MeshConfig) -> list[Note]:
    """Refuse fewer than 5 hearts; note fewer than two for each latent."""
    count = len(examples)
    if count < _FEWEST:
        raise CardiogenError(
            "C28", "cohort", found=f"{count} hearts", expected=f"at least {_FEWEST}",
            remedy="a larger cohort",
        )  # fmt: skip
    if count >= 2 * config.latents:
        return []
    return [
        Note("C28", "cohort", f"{count} hearts are few for {config.latents} latents; spreads and "
             "dependences are uncertain")
    ]  # fmt: skip
