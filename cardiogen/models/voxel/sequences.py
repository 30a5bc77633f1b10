"""What label maps of any label model must show, and what such models refuse."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import CardiogenError
from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.measure.volumes import STRUCTURES, label_volumes


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
        "U12", "model", found="meshes asked of a model of label maps", expected="label maps",
        remedy="--format nifti,png,csv, or a model of kind linear, mesh or deformation",
    )  # fmt: skip
