"""The volume model: a conditional VAE of 3D label maps at end diastole, end systole or both.

    z ~ p(z | factors),   labels = argmax G(z, code(factors)),   q(z | labels, factors) Gaussian,

in the heart frame of ``models.voxel.lattice``. A latent vector is (z, code).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cardiogen.base import CardiogenError, Note
from cardiogen.data.grid import Grid
from cardiogen.data.sequence import Sequence
from cardiogen.models.protocol import Posterior
from cardiogen.models.volume.config import VolumeConfig
from cardiogen.models.volume.network import VolumeNetwork
from cardiogen.models.voxel import (
    CodedLatents,
    CodedModel,
    LatentPrior,
    Slots,
    beats,
    channels,
    encoded,
    find_pose,
    from_plain,
    heart_grid,
    lifted,
    probabilities,
    read_tensors,
    to_heart,
    to_plain,
)

_PHASE_TOLERANCE = 1e-6


class VolumeModel(CodedModel):
    """``models.protocol.LabelModel`` of ED, ES or both.

    Args:
        network: trained, in evaluation mode, on the CPU.
        prior: of z.
        config: architecture.
        es_phase: mean phase of end systole in the training data; NaN if unknown.
        base_mm: mean height of the base in every slot, heart frame ``(T,)``.
        notes: findings of the training.
    """

    kind = "volume"

    def __init__(
        self,
        network: VolumeNetwork,
        prior: LatentPrior,
        config: VolumeConfig,
        *,
        es_phase: float,
        base_mm: NDArray[np.float64],
        notes: tuple[Note, ...] = (),
    ) -> None:
        super().__init__(network, prior, config.latent, base_mm)
        self.notes = notes
        self.config, self.es_phase = config, float(np.float32(es_phase))
        self.slots = Slots(config.frames)
        self.lattice = heart_grid(config.shape, config.spacing_mm)

    @property
    def known_phases(self) -> tuple[float, ...]:
        """Phases that the model can decode."""
        return tuple(self.slots.phases(self.es_phase).tolist())

    def posterior(
        self, observed: Sequence, condition: Tensor, *, healthy: bool = False
    ) -> Posterior:
        """Return the encoder's Gaussian given ED, ES or both.

        ``healthy`` changes nothing: q(z | x, c) is as wide as training made it.

        Raises:
            CardiogenError: L49 if no frame that the model knows is there; L37, L48, L60, L61 for
                frames without a whole heart or too large for the lattice.
        """
        filled = self.slots.place(observed)
        if all(frame is None for frame in filled):
            raise CardiogenError(
                "L49", observed.subject_id, found="no end-diastolic or end-systolic frame in use",
                expected=" or ".join(self.slots.names), remedy="a label map of such a frame",
            )  # fmt: skip
        pose, margin = find_pose(observed)
        if observed.ed == observed.es:
            # Posed by end systole, whose base lies under that of ED.
            pose = lifted(pose, self.base_mm[-1])
        labels = np.zeros((len(filled), *self.lattice.shape), np.uint8)
        for slot, frame in enumerate(filled):
            if frame is not None:
                labels[slot] = to_heart(
                    observed.labels[[frame]], observed.grid, pose, self.lattice,
                    where=f"{observed.subject_id}, frame {frame}",
                )[0]  # fmt: skip
        present = np.array([frame is not None for frame in filled])
        return Posterior(self.encode(labels, present, condition), pose, margin)

    @torch.no_grad()
    def encode(
        self, labels: NDArray[np.uint8], present: NDArray[np.bool_], condition: Tensor
    ) -> CodedLatents:
        """Return q(z | x, c) of heart-frame labels ``(T, D, H, W)``, those present ``(T,)``."""
        code = self.network.mapping(condition[None])
        hot = channels(torch.from_numpy(labels)[None], torch.from_numpy(present)[None])
        mean, log_var = self.network.encode(hot, code)
        return encoded(mean[0], log_var[0], code[0])

    @torch.no_grad()
    def decode_probs(self, latent: Tensor, phases: ArrayLike) -> tuple[Tensor, Grid]:
        """Return probabilities ``(T, 4, D, H, W)`` at phases of ``known_phases``, and the lattice.

        Raises:
            CardiogenError: D04 for any other phase: the model knows nothing in between.
        """
        slots = [self._slot(float(phase)) for phase in np.atleast_1d(phases)]
        z, code = latent.float()[None].split([self.config.latent, self.config.code], dim=1)
        return probabilities(self.network.decode(z, code))[0, slots], self.lattice

    def _slot(self, phase: float) -> int:
        away = np.abs(np.mod(phase, 1.0) - np.array(self.known_phases))
        if not away.min() <= _PHASE_TOLERANCE:
            shown = ", ".join(f"{known:.4g}" for known in self.known_phases)
            raise CardiogenError(
                "D04", "phases", found=f"phase {phase:g}",
                expected=f"{shown}: this model knows {self.config.frames} alone",
                remedy="these phases, or a model of the whole cycle",
            )  # fmt: skip
        return int(away.argmin())

    def is_possible(self, latent: Tensor) -> bool:
        """Whether all structures are there, and both ventricles smaller at end systole."""
        return beats(*self.decode_labels(latent, self.known_phases))

    def end_systole(self, latent: Tensor) -> float:
        """Return the mean phase of end systole in the training data."""
        return self.es_phase

    def architecture(self) -> dict[str, int | float | str]:
        """Return what :func:`volume_from_tensors` needs beside the weights."""
        plain = to_plain(self.config)
        # Weights of losses are no architecture, and critics are not kept.
        plain.pop("ageing")
        # JSON knows no NaN: an unknown phase is left out.
        return plain if np.isnan(self.es_phase) else plain | {"es_phase": self.es_phase}


def volume_from_tensors(
    tensors: Mapping[str, NDArray[np.float32]], architecture: Mapping[str, int | float | str]
) -> VolumeModel:
    """Return the model of :meth:`VolumeModel.tensors` and ``architecture``.

    Raises:
        ValueError: for tensors that do not belong to the architecture.
    """
    plain = dict(architecture)
    es_phase = float(plain.pop("es_phase", np.nan))
    config = from_plain(VolumeConfig, plain)
    network, prior, base_mm = read_tensors(tensors, partial(VolumeNetwork, config), config)
    return VolumeModel(network, prior, config, es_phase=es_phase, base_mm=base_mm)
