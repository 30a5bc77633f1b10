"""Decoded label maps as sequences in a world, and what is asked of any label model."""

from __future__ import annotations

from collections.abc import Sequence as Listing
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cardiogen.base import CardiogenError
from cardiogen.data.factors import Factors
from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.data.sequence import Sequence
from cardiogen.measure.volumes import STRUCTURES, end_of_ejection, label_volumes
from cardiogen.models.voxel.lattice import posed_grid
from cardiogen.population.pose import Pose


class LabelModel(Protocol):
    """What a model of label maps answers in place of ``AnatomyModel.decode``.

    Attributes:
        topology: None: there are no meshes.
    """

    topology: None

    def decode_labels(self, latent: Tensor, phases: ArrayLike) -> tuple[NDArray[np.uint8], Grid]:
        """Return structures ``(T, D, H, W)`` of one latent and their heart-frame lattice."""

    def with_condition(self, latent: Tensor, condition: Tensor) -> Tensor:
        """Return the same heart under another condition: z stays, the code changes."""


def label_sequence(
    model: LabelModel,
    latent: Tensor,
    phases: Listing[float],
    *,
    pose: Pose,
    factors: Factors | None = None,
    subject_id: str = "heart",
) -> Sequence:
    """Return the label maps of one latent in the world of ``pose``.

    The model's lattice is moved there, so nothing is resampled. ED is the frame nearest to phase
    0 around the cycle, ES the first of the frames with the least left ventricular volume, within
    0.5 % of the stroke volume.
    """
    phases = np.mod(np.asarray(phases, dtype=np.float64), 1.0)
    labels, lattice = model.decode_labels(latent, phases)
    ed = int(np.argmin(np.minimum(phases, 1.0 - phases)))
    es = end_of_ejection(label_volumes(labels, lattice)[Structure.LV])
    return Sequence(
        phases=phases,
        ed=ed,
        es=es if es != ed else None,
        labels=labels,
        grid=posed_grid(lattice, pose),
        factors=factors,
        subject_id=subject_id,
    )


def beats(labels: NDArray[np.uint8], lattice: Grid) -> bool:
    """Whether all structures are in every frame and no ventricle holds most at end systole.

    Args:
        labels: structures of end diastole, and of end systole if there is one, ``(1 or 2, ...)``.
        lattice: of the labels.
    """
    volumes = label_volumes(labels, lattice)
    whole = all((volumes[s] > 0).all() for s in STRUCTURES)
    return whole and all(
        volumes[s][-1] < volumes[s][0] for s in (Structure.LV, Structure.RV) if len(labels) > 1
    )


def no_meshes() -> CardiogenError:
    """Return what to raise where meshes are asked of a model of label maps."""
    return CardiogenError(
        "U12", "--meshes", found="meshes asked of a model of label maps",
        expected="label maps", remedy="--labels, or a model of kind linear, mesh or deformation",
    )  # fmt: skip
