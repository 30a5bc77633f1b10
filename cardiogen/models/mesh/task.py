"""The training task of the mesh VAE: evidence bound, completion by distillation, smoothness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cardiogen.engine.fit import StepInfo, kl_loss
from cardiogen.models.mesh.conditions import drop_conditions
from cardiogen.models.mesh.examples import MeshExamples
from cardiogen.models.mesh.gaussian import divergence
from cardiogen.models.mesh.network import MeshNetwork


class MeshTask:
    """``ValidatedTask`` of engine.fit.

    The loss is, with the error ``|x - x'|^2`` a mean over coordinates and E the evidence,

        E (|x - x'|^2 / (2 s^2) + ln s) + KL(q(z | all, c) || p(z | c))
        + KL(q(z | all, c) || q(z | S, c)) + w |Laplacian of the error|^2

    for a random part S of the frames. The third term moves q(z | S, c) alone. Averaged over the
    hearts that share S it is least where q(z | S, c) is the spread of their posteriors, as a
    completion must be; a bound of the whole heart from part of it would be too sure.
    """

    def __init__(
        self, network: MeshNetwork, examples: MeshExamples, held_out: MeshExamples | None = None
    ) -> None:
        self.module: torch.nn.Module = network
        self._examples, self._held_out = examples, held_out

    def __len__(self) -> int:
        return len(self._examples)

    def batch(self, indices: Sequence[int], generator: torch.Generator) -> dict[str, Tensor]:
        """Return vertices, phases and conditions, and which frames the completion may see."""
        rows = list(indices)
        batch = _tensors(self._examples, rows)
        frames = batch["phases"].shape[1]
        if frames > 1:
            count = torch.randint(1, frames, (len(rows), 1), generator=generator)
            order = torch.rand(len(rows), frames, generator=generator).argsort(dim=1)
            batch["part"] = order < count
        return batch

    def loss(
        self, batch: Mapping[str, Tensor], *, step: StepInfo, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the loss and its parts; errors are RMS over coordinates, mm."""
        network: MeshNetwork = self.module
        conditions = drop_conditions(
            batch["conditions"], network.config.condition_dropout, generator
        )
        phases = batch["phases"]
        scores, tokens = network.look(batch["vertices"], phases)
        everything = torch.ones_like(phases, dtype=torch.bool)
        posterior = network.posterior(scores, tokens, phases, everything, conditions)
        kl = divergence(posterior, network.prior(conditions))
        error = network.decode(posterior.draw(generator), phases) - batch["vertices"]
        squared = error.square().mean()
        config, noise = network.config, network.noise
        nll = config.evidence * (squared / (2 * noise**2) + noise.log())
        smooth = network.laplacian(error).square().sum(dim=-1).mean()
        loss = nll + step.kl_weight * kl_loss(kl, free_bits=step.free_bits)
        loss = loss + config.smoothness * smooth
        told = {"rmse_mm": squared.sqrt(), "noise_mm": noise, "laplacian": smooth}
        if "part" in batch:
            partial = network.posterior(scores, tokens, phases, batch["part"], conditions)
            told["completion"] = divergence(posterior.detach(), partial).sum(dim=1).mean()
            loss = loss + told["completion"]
        return {"loss": loss, **told, "kl_per_latent": kl.mean(dim=0)}

    def validate(self, module: torch.nn.Module) -> dict[str, float]:
        """Return the bound on held-out hearts, at the posterior mean, and its parts."""
        if self._held_out is None:
            raise ValueError("held_out must be given where validate_every is set, got None")
        examples = self._held_out
        device = next(module.parameters()).device
        squared, kl, size = 0.0, 0.0, 32
        for first in range(0, len(examples), size):
            rows = list(range(first, min(first + size, len(examples))))
            batch = {n: t.to(device) for n, t in _tensors(examples, rows).items()}
            phases = batch["phases"]
            scores, tokens = module.look(batch["vertices"], phases)
            everything = torch.ones_like(phases, dtype=torch.bool)
            q = module.posterior(scores, tokens, phases, everything, batch["conditions"])
            error = module.decode(q.mean, phases) - batch["vertices"]
            squared += float(error.square().mean(dim=(1, 2, 3)).sum())
            kl += float(divergence(q, module.prior(batch["conditions"])).sum())
        squared, kl, noise = squared / len(examples), kl / len(examples), module.noise
        nll = module.config.evidence * (squared / (2 * noise**2) + noise.log())
        return {"loss": float(nll) + kl, "rmse_mm": squared**0.5, "kl": kl}


def _tensors(examples: MeshExamples, rows: list[int]) -> dict[str, Tensor]:
    return {
        "vertices": torch.from_numpy(examples.vertices[rows]),
        "phases": torch.from_numpy(examples.phases[rows]).float(),
        "conditions": torch.from_numpy(examples.conditions[rows]),
    }
