"""The sequence model: a conditional spatio-temporal VAE of label maps over the cardiac cycle.

    z ~ p(z | factors),   labels(t) = argmax G(u(z, t), code(factors)),   u(z, 0) = z,

with q(z | one frame, factors) Gaussian. A latent vector is (z, code).
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
from cardiogen.data.labels import Structure
from cardiogen.data.sequence import Sequence
from cardiogen.measure.volumes import end_of_ejection, label_volumes
from cardiogen.models.protocol import Posterior
from cardiogen.models.sequence.config import SequenceConfig
from cardiogen.models.sequence.network import SequenceNetwork
from cardiogen.models.voxel import (
    CodedLatents,
    CodedModel,
    LatentPrior,
    beats,
    channels,
    encoded,
    find_pose,
    from_plain,
    heart_grid,
    lifted,
    read_tensors,
    to_heart,
    to_plain,
)


class SequenceModel(CodedModel):
    """``models.protocol.LabelModel`` of the whole cycle.

    Args:
        network: trained, in evaluation mode, on the CPU.
        prior: of z.
        config: architecture.
        base_mm: mean height of the base at every frame, heart frame ``(T,)``.
        notes: findings of the training.
    """

    kind = "sequence"
    # Any phase can be decoded.
    known_phases: tuple[float, ...] = ()

    def __init__(
        self,
        network: SequenceNetwork,
        prior: LatentPrior,
        config: SequenceConfig,
        *,
        base_mm: NDArray[np.float64],
        notes: tuple[Note, ...] = (),
    ) -> None:
        super().__init__(network, prior, config.latent, base_mm)
        self.notes = notes
        self.config = config
        self.lattice = heart_grid(config.shape, config.spacing_mm)

    def posterior(
        self, observed: Sequence, condition: Tensor, *, healthy: bool = False
    ) -> Posterior:
        """Return the encoder's Gaussian given one frame: ED, else (encoder of any) the nearest.

        Further frames are not looked at. ``healthy`` changes nothing: q(z | x, c) is as wide as
        training made it.

        Raises:
            CardiogenError: L49 if the encoder reads ED alone and there is none; L37, L48, L60,
                L61 for a frame without a whole heart or too large for the lattice.
        """
        phase = float(np.mod(observed.phases[observed.ed], 1.0))
        slot = round(phase * self.config.frames) % self.config.frames
        if self.config.encoder_frame == "ed" and slot:
            raise CardiogenError(
                "L49", observed.subject_id, found=f"phase {phase:g} as the frame nearest to ED",
                expected="end diastole, the one frame that this model's encoder reads",
                remedy="a label map of ED, or a model trained with encoder_frame = 'any'",
            )  # fmt: skip
        pose, margin = find_pose(observed)
        labels = to_heart(
            observed.labels[[observed.ed]], observed.grid, pose, self.lattice,
            where=observed.subject_id,
        )  # fmt: skip
        # The frame's own base lies under that of ED, to which results belong.
        latents = self.encode(labels[0], slot / self.config.frames, condition)
        return Posterior(latents, lifted(pose, self.base_mm[slot]), margin)

    @torch.no_grad()
    def encode(self, labels: NDArray[np.uint8], phase: float, condition: Tensor) -> CodedLatents:
        """Return q(z | x, c) of one frame ``(D, H, W)``, heart frame, its own base at 0."""
        code = self.network.mapping(condition[None])
        shown = channels(torch.from_numpy(labels)[None, None], torch.ones(1, 1, dtype=torch.bool))
        mean, log_var = self.network.encode(shown, torch.tensor([phase]), code)
        return encoded(mean[0], log_var[0], code[0])

    @torch.no_grad()
    def decode_probs(self, latent: Tensor, phases: ArrayLike) -> tuple[Tensor, Grid]:
        """Return probabilities ``(T, 4, D, H, W)`` at any phases, and their lattice."""
        z, code = latent.float()[None].split([self.config.latent, self.config.code], dim=1)
        times = torch.from_numpy(np.atleast_1d(np.asarray(phases, np.float64)))
        return self.network.decode(z, code, times)[0].softmax(dim=1), self.lattice

    def is_possible(self, latent: Tensor) -> bool:
        """Whether all structures are there, and both ventricles smaller at end systole."""
        labels, lattice = self.decode_labels(latent, [0.0, self.end_systole(latent)])
        return beats(labels, lattice)

    def end_systole(self, latent: Tensor) -> float:
        """Return the phase of the first frame within 0.5 % of the stroke of the smallest LV."""
        phases = np.arange(self.config.frames) / self.config.frames
        labels, lattice = self.decode_labels(latent, phases)
        return float(phases[end_of_ejection(label_volumes(labels, lattice)[Structure.LV])])

    def architecture(self) -> dict[str, int | float | str]:
        """Return what :func:`sequence_from_tensors` needs beside the weights."""
        return to_plain(self.config)


def sequence_from_tensors(
    tensors: Mapping[str, NDArray[np.float32]], architecture: Mapping[str, int | float | str]
) -> SequenceModel:
    """Return the model of :meth:`SequenceModel.tensors` and ``architecture``.

    Raises:
        ValueError: for tensors that do not belong to the architecture.
    """
    config = from_plain(SequenceConfig, dict(architecture))
    network, prior, base_mm = read_tensors(tensors, partial(SequenceNetwork, config), config)
    return SequenceModel(network, prior, config, base_mm=base_mm)
