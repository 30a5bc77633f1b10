"""What both models of label maps answer alike: conditions, latents beside codes, weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from itertools import pairwise
from math import prod
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from cardiogen.data.grid import Grid
from cardiogen.engine.fit import keyed_layers
from cardiogen.models.protocol import CONDITION_COLUMNS
from cardiogen.models.voxel.config import VoxelConfig
from cardiogen.models.voxel.latents import CodedLatents, LatentPrior
from cardiogen.models.voxel.losses import hard_labels
from cardiogen.models.voxel.sequences import beats, no_meshes
from cardiogen.models.voxel.slots import Slots
from cardiogen.nn import halved

_NETWORK, _BASE = "network.", "base_mm"
Network = TypeVar("Network", bound=nn.Module)


class CodedModel(ABC):
    """``LabelModel`` whose latents are (z, code of the condition).

    Args:
        network: trained, on the CPU; put into evaluation mode. Its ``mapping`` codes conditions.
        prior: of z.
        latent: size of z.
        base_mm: mean height of the base in every slot or frame, heart frame ``(T,)``.
    """

    topology = None
    kind: ClassVar[str]
    lattice: Grid
    known_phases: tuple[float, ...]

    def __init__(
        self, network: Any, prior: LatentPrior, latent: int, base_mm: NDArray[np.float64]
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.base_mm = base_mm
        self._prior, self._latent = prior, latent

    @abstractmethod
    def decode_probs(self, latent: Tensor, phases: ArrayLike) -> tuple[Tensor, Grid]:
        """See ``LabelModel``."""

    def check_condition(self, condition: Tensor) -> None:
        """Refuse a factor outside its training range (D01) or an unseen combination (D02)."""
        self._prior.check_condition(condition)

    def condition_ranges(self) -> dict[str, list[float]]:
        """Return the least and largest value seen of every continuous factor that was known."""
        return self._prior.condition_ranges()

    def prior(self, condition: Tensor) -> CodedLatents:
        """Return the latents given a condition ``(5,)``, any entries of which may be NaN."""
        return CodedLatents(self._prior.z(condition), self._code(condition).double())

    def with_condition(self, latent: Tensor, condition: Tensor) -> Tensor:
        """Return the same heart under another condition: z stays, the code changes."""
        z = latent[: self._latent]
        return torch.cat([z, self._code(condition).to(z)])

    def decode_labels(self, latent: Tensor, phases: ArrayLike) -> tuple[NDArray[np.uint8], Grid]:
        """Return structures ``(T, D, H, W)`` of one latent and their heart-frame lattice.

        Frame by frame: the same bits whatever other phases are asked for, and little memory.

        Raises:
            CardiogenError: D04 for a phase that the model does not know.
        """
        frames = [
            hard_labels(self.decode_probs(latent, [phase])[0])[0]
            for phase in np.atleast_1d(np.asarray(phases, np.float64))
        ]
        return np.stack(frames), self.lattice

    def decode(self, latent: Tensor, phases: ArrayLike) -> NDArray[np.float64]:
        """Refuse: there are no meshes (U12); see ``decode_labels``."""
        raise no_meshes()

    def require_heart(self) -> None:
        """Refuse (ValueError) weights that describe no distribution or no heart.

        The mean heart must show all three structures in its first frame.
        """
        prior = self.prior(
            torch.full((len(CONDITION_COLUMNS),), float("nan"), dtype=torch.float64)
        )
        np.linalg.cholesky(prior.z.covariance.numpy())
        labels, lattice = self.decode_labels(prior.mean, (self.known_phases or (0.0,))[:1])
        if not beats(labels, lattice):
            raise ValueError("a mean heart without all structures")

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """Return all weights by name."""
        weights = {_NETWORK + n: t.numpy() for n, t in self.network.state_dict().items()}
        return weights | self._prior.tensors() | {_BASE: self.base_mm.astype(np.float32)}

    @torch.no_grad()
    def _code(self, condition: Tensor) -> Tensor:
        return self.network.mapping(condition[None])[0]


def read_tensors(
    tensors: Mapping[str, NDArray[np.float32]],
    make_network: Callable[[ArrayLike, ArrayLike], Network],
    config: VoxelConfig,
) -> tuple[Network, LatentPrior, NDArray[np.float64]]:
    """Return network, prior and base of the tensors of :meth:`CodedModel.tensors`.

    Args:
        tensors: name -> array.
        make_network: builds the network, given mean and SD of the factors ``(5,)``.
        config: architecture.

    Raises:
        ValueError: for tensors that do not belong to the architecture.
    """
    # Before memory is taken for it: an architecture is a few numbers of a file.
    if _least_size(config) > sum(array.size for array in tensors.values()):
        raise ValueError("tensors must be those of the architecture, got too few numbers")
    size = len(CONDITION_COLUMNS)
    # The layers draw first weights, which the tensors replace.
    with keyed_layers(0, "voxel/read"):
        network = make_network(np.zeros(size), np.ones(size))
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
    frames = len(Slots(config.frames))
    base_mm = tensors.get(_BASE)
    if base_mm is None or base_mm.shape != (frames,):
        raise ValueError(f"tensors must have {_BASE} of shape {(frames,)}")

    return network, LatentPrior.from_tensors(rest, config.latent), base_mm.astype(np.float64)


def _least_size(config: VoxelConfig) -> int:
    """Return how many numbers those layers hold that an architecture can make very large."""
    joint = prod(halved(config.shape, len(config.widths))) * config.widths[-1]
    kernels = sum(a * b for a, b in pairwise(config.widths))

    return joint * (config.latent + config.code) + 2 * 4**3 * kernels
