"""Networks for the MESA table: a small cVAE that reports its decoder mean, and our mesh VAE."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.mesa_data import CONDITIONS, UNITS, Cohort
from bench.mesa_rivals import Model, fit_gaussian
from cardiogen.engine.fit import FitConfig, StepInfo, draw_latent, fit, gaussian_kl, kl_loss
from cardiogen.models.distributions import GaussianMixture
from cardiogen.models.mesh import MeshConfig, MeshModel, stage_examples, train_mesh

Array = NDArray[np.float64]


class SmallCvae(nn.Module):
    """PCA scores and conditions to 8 latents and back, two layers of 128 each way."""

    def __init__(self, scores: int, conditions: int, latents: int = 8) -> None:
        super().__init__()
        self.latents = latents
        self.encoder = _mlp(scores + conditions, 2 * latents)
        self.decoder = _mlp(latents + conditions, scores)
        self.log_noise = nn.Parameter(torch.zeros(()))


class CvaeTask:
    """Evidence bound of standardized scores: Gaussian likelihood of one learned SD."""

    def __init__(self, module: SmallCvae, scores: Tensor, conditions: Tensor) -> None:
        self.module: nn.Module = module
        self._scores, self._conditions = scores, conditions

    def __len__(self) -> int:
        return len(self._scores)

    def batch(self, indices: Sequence[int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return scores and conditions."""
        del generator
        return self._scores[list(indices)], self._conditions[list(indices)]

    def loss(
        self, batch: tuple[Tensor, Tensor], *, step: StepInfo, generator: torch.Generator
    ) -> Mapping[str, Tensor]:
        """Return the bound."""
        scores, conditions = batch
        mean, log_var = self.module.encoder(torch.cat(batch, dim=1)).chunk(2, dim=1)
        z = draw_latent(mean, log_var, generator=generator)
        error = self.module.decoder(torch.cat([z, conditions], dim=1)) - scores
        noise = self.module.log_noise
        nll = (error.square() / 2 * torch.exp(-2 * noise) + noise).sum(dim=1).mean()
        kl = gaussian_kl(mean, log_var)
        return {
            "loss": nll + step.kl_weight * kl_loss(kl), "kl_per_latent": kl.mean(dim=0),
        }  # fmt: skip


def fit_small_cvae(train: Cohort, validation: Cohort) -> Model:
    """Train the small cVAE and sample the mean of its decoder, without noise."""
    del validation
    gaussian = fit_gaussian(train, 20)
    flat = train.shapes.reshape(len(train.shapes), -1) - gaussian.mean
    # One unit for all scores: minor modes shall not weigh as much as size.
    scores = flat @ gaussian.modes.T
    unit = scores.std(axis=0).max()
    known = (train.conditions - gaussian.middle) / gaussian.unit
    torch_scores, torch_known = (
        torch.from_numpy(a.astype(np.float32)) for a in (scores / unit, known)
    )
    module = SmallCvae(scores.shape[1], known.shape[1])
    config = FitConfig(steps=3000, batch_size=64, learning_rate=2e-3, warmup_steps=100)
    fit(CvaeTask(module, torch_scores, torch_known), config, device="cpu")

    def sample(conditions: Array, n: int, rng: np.random.Generator) -> NDArray:
        z = rng.normal(size=(len(conditions), n, module.latents))
        given = np.repeat(((conditions - gaussian.middle) / gaussian.unit)[:, None], n, axis=1)
        with torch.no_grad():
            told = module.decoder(
                torch.from_numpy(np.concatenate([z, given], axis=-1).astype(np.float32))
            )
        shapes = gaussian.mean + unit * told.numpy().astype(np.float64) @ gaussian.modes
        return shapes.astype(np.float32).reshape(len(conditions), n, 2, -1, 3)

    return Model(sample, None)


def mesh_fitter(config: MeshConfig, folder: Path | None) -> Callable[[Cohort, Cohort], Model]:
    """Return the fit of our mesh VAE; with a folder, training goes on where it was stopped."""

    def fit_mesh(train: Cohort, validation: Cohort) -> Model:
        start = time.perf_counter()
        model = train_mesh(
            _examples(train), config, held_out=_examples(validation), folder=folder, resume=True,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        size = sum(p.numel() for p in model.network.parameters())
        spent = model.history[-1]["seconds"] if model.history else seconds
        return mesh_answers(model, note=f"{size / 1e3:.0f}k weights, {spent:.0f} s")

    return fit_mesh


def mesh_answers(model: MeshModel, *, note: str = "") -> Model:
    """Return sampler and completer of a staged mesh model of ED and ES."""

    def sample(conditions: Array, n: int, rng: np.random.Generator) -> NDArray:
        made = []
        for row in conditions:
            law = model.prior(torch.from_numpy(row))
            made.append(_decoded(model, [law] * n, [0.0, 0.5], rng))
        return np.stack(made)

    def laws(ed: NDArray, conditions: Array | None) -> Iterator[GaussianMixture]:
        for k, shape in enumerate(ed):
            given = np.full(len(CONDITIONS), np.nan) if conditions is None else conditions[k]
            yield model.posterior_of(shape[None], [0.0], torch.from_numpy(given))

    def complete(
        ed: NDArray, conditions: Array | None, n: int, rng: np.random.Generator
    ) -> NDArray:
        drawn = [_decoded(model, [law] * n, [0.5], rng)[:, 0] for law in laws(ed, conditions)]
        return np.stack(drawn)

    def point(ed: NDArray, conditions: Array | None) -> NDArray:
        means = torch.stack([law.mean for law in laws(ed, conditions)])
        return model.decode_many(means, [0.5])[:, 0]

    return Model(sample, complete, point, note=note)


def _decoded(
    model: MeshModel, laws: list, phases: list[float], rng: np.random.Generator
) -> NDArray[np.float32]:
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    latents = torch.stack([law.sample(generator) for law in laws])
    return model.decode_many(latents, phases)


def _examples(cohort: Cohort) -> object:
    return stage_examples(
        [cohort.shapes[:, 0], cohort.shapes[:, 1]], cohort.conditions, cohort.faces,
        names=CONDITIONS, units=UNITS,
    )  # fmt: skip


def _mlp(size: int, out: int, width: int = 128) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(size, width),
        nn.SiLU(),
        nn.Linear(width, width),
        nn.SiLU(),
        nn.Linear(width, out),
    )
