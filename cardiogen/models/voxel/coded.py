"""What both models of label maps answer alike: conditions, latents beside codes, weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from cardiogen.models.voxel.latents import CodedLatents, LatentPrior
from cardiogen.models.voxel.sequences import no_meshes

_NETWORK, _BASE = "network.", "base_mm"


class CodedModel:
    """``AnatomyModel`` without meshes whose latents are (z, code of the condition).

    Args:
        network: trained, on the CPU; put into evaluation mode. Its ``mapping`` codes conditions.
        prior: of z.
        latent: size of z.
        base_mm: mean height of the base in every slot or frame, heart frame ``(T,)``.
    """

    topology = None

    def __init__(
        self, network: Any, prior: LatentPrior, latent: int, base_mm: NDArray[np.float64]
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.base_mm = base_mm
        self._prior, self._latent = prior, latent

    def check_condition(self, condition: Tensor) -> None:
        """Refuse a factor outside its training range (D01) or an unseen combination (D02)."""
        self._prior.check_condition(condition)

    def prior(self, condition: Tensor) -> CodedLatents:
        """Return the latents given a condition ``(5,)``, any entries of which may be NaN."""
        return CodedLatents(self._prior.z(condition), self._code(condition).double())

    def with_condition(self, latent: Tensor, condition: Tensor) -> Tensor:
        """Return the same heart under another condition: z stays, the code changes."""
        z = latent[: self._latent]
        return torch.cat([z, self._code(condition).to(z)])

    def decode(self, latent: Tensor, phases: ArrayLike) -> NDArray[np.float64]:
        """Refuse: there are no meshes (U12); see ``decode_labels``."""
        raise no_meshes()

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """Return all weights by name."""
        weights = {_NETWORK + n: t.numpy() for n, t in self.network.state_dict().items()}
        return weights | self._prior.tensors() | {_BASE: self.base_mm.astype(np.float32)}

    @torch.no_grad()
    def _code(self, condition: Tensor) -> Tensor:
        return self.network.mapping(condition[None])[0]


def read_tensors(
    tensors: Mapping[str, NDArray[np.float32]], network: nn.Module, latent: int
) -> tuple[LatentPrior, NDArray[np.float64]]:
    """Fill a network with the weights of :meth:`CodedModel.tensors`; return prior and base.

    Raises:
        ValueError: for tensors that do not belong to the architecture.
    """
    weights = {
        name.removeprefix(_NETWORK): torch.from_numpy(np.array(value))
        for name, value in tensors.items()
        if name.startswith(_NETWORK)
    }
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"tensors must be those of the architecture, got {error}") from error
    rest = {n: a for n, a in tensors.items() if not n.startswith(_NETWORK) and n != _BASE}

    return LatentPrior.from_tensors(rest, latent), tensors[_BASE].astype(np.float64)
