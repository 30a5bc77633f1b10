"""The network of the mesh VAE: set encoder, conditional prior, periodic decoder.

    p(z | c)     = N(m(c), L L^T)                    in closed form, see `mesh.prior`
    q(z | S, c)  = linear update of p(z | c) by the frames S, plus what the transformer corrects
    x(t)         = mean(t) + sum_p M_p B(t)^T W_p z + scale * graph decoder(z, B(t))

with the periodic time code B and frame modes M of RMS 1. The decoder looks at one time at once:
a frame does not depend on which others are asked for. Conditions act through z alone, so a latent
decodes by itself, and a heart keeps its ``L^-1 (z - m(c))`` when its conditions are changed.
"""

from __future__ import annotations

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from cardiogen.models.mesh.coarsening import Level, apply_sparse
from cardiogen.models.mesh.config import MeshConfig
from cardiogen.models.mesh.gaussian import Gaussian, linear_update, unit_triangle
from cardiogen.models.mesh.layers import Attention, GraphDecoder, GraphEncoder, Graphs
from cardiogen.models.mesh.prior import ConditionalPrior
from cardiogen.models.mesh.time import time_code
from cardiogen.nn import MappingNetwork

_MOST_WIDENING = 0.25  # of ln SD


class MeshNetwork(nn.Module):
    """All weights of the mesh VAE; see the module's equations.

    Args:
        config: sizes.
        levels: graphs of the mesh, ``len(config.channels) + 1`` of them or fewer.
        condition_mean, condition_sd: of the conditions ``(C,)``.
        shape_modes: frame modes P of the linear part.
    """

    def __init__(
        self,
        config: MeshConfig,
        levels: list[Level],
        *,
        condition_mean: ArrayLike,
        condition_sd: ArrayLike,
        shape_modes: int,
    ) -> None:
        super().__init__()
        z, width, codes = config.latents, config.width, 2 * config.harmonics + 1
        vertices = len(levels[0].points)
        self.config, self.graphs = config, Graphs(levels)
        self.register_buffer("mean", torch.zeros(codes, 3 * vertices))
        self.register_buffer("scale", torch.ones(vertices))
        self.register_buffer("modes", torch.zeros(shape_modes, 3 * vertices))
        self.register_buffer("frames", torch.ones(()))
        self.linear = nn.Parameter(torch.zeros(codes, shape_modes, z))
        self.log_noise = nn.Parameter(torch.zeros(()), requires_grad=not config.noise_mm)

        self.prior = ConditionalPrior(condition_mean, condition_sd, latents=z)
        self.conditions = MappingNetwork(
            condition_mean, condition_sd, code=width, width=config.condition_width, depth=2
        )
        self.graph_encoder = GraphEncoder(self.graphs, config.channels, width)
        self.score_token = nn.Linear(shape_modes, width)
        self.time_token = nn.Linear(codes, width)
        self.query = nn.Parameter(torch.randn(1, 1, width) / width**0.5)
        self.encoder = nn.ModuleList(Attention(width, config.heads) for _ in range(config.layers))
        self.shift = nn.Linear(width, z)
        self.log_sd = nn.Linear(width, z)
        self.triangle = nn.Linear(width, z * (z - 1) // 2)

        self.memory = nn.Linear(z, config.memory * width)
        self.time_query = nn.Linear(codes, width)
        self.decoder = nn.ModuleList(Attention(width, config.heads) for _ in range(config.layers))
        self.graph_decoder = GraphDecoder(self.graphs, config.channels, width)
        self._start_near_linear()

    def _start_near_linear(self) -> None:
        """Let corrections start small, so that training begins at the linear model."""
        with torch.no_grad():
            for layer in (self.shift, self.log_sd, self.triangle):
                layer.weight.mul_(0.02)
                layer.bias.zero_()

    @property
    def noise(self) -> Tensor:
        """SD of the likelihood, mm: given, or learned above its floor."""
        if self.config.noise_mm:
            return self.log_noise.new_tensor(self.config.noise_mm)
        return (self.log_noise.mul(2).exp() + self.config.noise_floor_mm**2).sqrt()

    def look(self, vertices: Tensor, phases: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores ``(B, T, P)`` mm and tokens ``(B, T, W)`` of frames.

        Args:
            vertices: ``(B, T, V, 3)`` mm.
            phases: ``(B, T)``.
        """
        code = time_code(phases, self.config.harmonics)
        away = vertices.flatten(2) - code @ self.mean
        scores = away @ self.modes.T / away.shape[-1]
        field = away.unflatten(2, (-1, 3)) / self.scale[:, None]
        tokens = self.graph_encoder(field.flatten(0, 1).transpose(0, 1), self.graphs)
        tokens = tokens.unflatten(0, phases.shape)
        spread = self.linear.detach().square().sum(dim=(0, 2)).sqrt() + 1e-3
        return scores, tokens + self.score_token(scores / spread) + self.time_token(code)

    def posterior(
        self,
        scores: Tensor,
        tokens: Tensor,
        phases: Tensor,
        seen: Tensor,
        conditions: Tensor,
    ) -> Gaussian:
        """Return q(z | S, c); without any frame it is the prior.

        Args:
            scores, tokens: of :meth:`look`.
            phases: ``(B, T)``.
            seen: which frames S holds, boolean ``(B, T)``.
            conditions: ``(B, C)``, NaN where missing.
        """
        straight = self._linear_posterior(scores, phases, seen, conditions)
        told = self.conditions(conditions)[:, None]
        keys = torch.cat([tokens, told], dim=1)
        visible = torch.cat([seen, seen.new_ones(len(seen), 1)], dim=1)
        query = self.query.expand(len(seen), -1, -1)
        for layer in self.encoder:
            both = torch.cat([query, keys], dim=1)
            mask = torch.cat([visible.new_ones(len(seen), 1), visible], dim=1)
            both = layer(both, both, mask)
            query, keys = both[:, :1], both[:, 1:]
        answer = query[:, 0]
        some = seen.any(dim=1, keepdim=True).to(answer.dtype)
        triangle = unit_triangle((some * self.triangle(answer)).float(), self.config.latents)
        # Bounded: the linear update knows from the prior what is missing; what it gets wrong is
        # where the decoder bends, and no batch of known conditions may narrow unknown ones.
        log_sd = _MOST_WIDENING * torch.tanh(some * self.log_sd(answer))
        spread = triangle * log_sd.float().exp()[:, None, :]

        return Gaussian(
            straight.mean + (some * self.shift(answer)).float(), straight.tril @ spread
        )

    def decode(self, latents: Tensor, phases: Tensor) -> Tensor:
        """Return meshes ``(B, T, V, 3)`` mm of latents ``(B, Z)`` at phases ``(B, T)``."""
        code = time_code(phases, self.config.harmonics)
        weights = torch.einsum("btc,cpz,bz->btp", code, self.linear, latents)
        straight = code @ self.mean + weights @ self.modes
        memory = self.memory(latents).unflatten(1, (self.config.memory, -1))
        query = self.time_query(code)
        for layer in self.decoder:
            query = layer(query, memory)
        field = self.graph_decoder(query.flatten(0, 1), self.graphs).transpose(0, 1)
        bent = field.float().unflatten(0, phases.shape) * self.scale[:, None]

        return straight.unflatten(2, (-1, 3)) + bent

    def laplacian(self, field: Tensor) -> Tensor:
        """Return ``field - mean of neighbors`` of vertex fields ``(B, T, V, 3)``."""
        first = field.flatten(0, 1).transpose(0, 1)
        return first - apply_sparse(self.graphs.matrix("neighbors", 0), first)

    def frame_precision(self, seen: Tensor) -> Tensor:
        """Return the weight of a mean squared error of a seen frame, mm^-2 ``(B, 1)``.

        A heart's evidence is shared by as many frames as training showed, or by all that are
        seen if these are more: frames of one beat do not err independently.
        """
        count = seen.sum(dim=1, keepdim=True).to(self.frames.dtype)
        share = self.config.evidence / torch.maximum(count, self.frames)
        return share / self.noise.detach() ** 2

    def _linear_posterior(
        self, scores: Tensor, phases: Tensor, seen: Tensor, conditions: Tensor
    ) -> Gaussian:
        """Return the posterior under the linear part of the decoder alone, without gradients."""
        with torch.no_grad(), torch.autocast(scores.device.type, enabled=False):
            prior = self.prior(conditions)
            code = time_code(phases, self.config.harmonics)
            design = torch.einsum("btc,cpz->btpz", code, self.linear)
            weight, design = (self.frame_precision(seen) * seen).double(), design.double()
            precision = torch.einsum("bt,btpz,btpy->bzy", weight, design, design)
            pull = torch.einsum("bt,btpz,btp->bz", weight, design, scores.double())
            prior = Gaussian(prior.mean.double(), prior.tril.double())
            found = linear_update(prior, precision, pull)
            return Gaussian(found.mean.float(), found.tril.float())
