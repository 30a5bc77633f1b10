"""One door to every number about a registration, in true mm or as Learn2Reg counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cardiogen.data import Grid, Structure
from registration.metrics.field import FieldMetrics, check_displacement, field_metrics
from registration.metrics.landmarks import (
    LandmarkMetrics,
    check_points,
    landmark_metrics,
    target_registration_errors,
)
from registration.metrics.learn2reg import l2r_sdlogj, l2r_tre, mean_of_present
from registration.metrics.overlap import StructureMetrics, l2r_structures, strict_structures

Mode = Literal["strict", "l2r"]

STRUCTURES: dict[str, int] = {s.name: int(s) for s in (Structure.LV, Structure.MYO, Structure.RV)}
_NAN = float("nan")


@dataclass(frozen=True)
class RegistrationMetrics:
    """All numbers about one registration; NaN where their input was not given.

    Attributes:
        mode: ``"strict"`` or ``"l2r"``.
        structures: agreement by structure; empty without labels.
        field: folds, spread of log det J, change of volume (``l2r``: its SDlogJ, no folds by
            construction, the rest NaN).
        landmarks: target registration errors.
    """

    mode: Mode
    structures: Mapping[str, StructureMetrics]
    field: FieldMetrics
    landmarks: LandmarkMetrics

    @property
    def mean_dice(self) -> float:
        """Mean Dice of the structures that have one."""
        return self._mean("dice")

    @property
    def mean_hd95_mm(self) -> float:
        """Mean HD95 of the structures that have one; look at ``failures`` beside it."""
        return self._mean("hd95_mm")

    @property
    def mean_surface_mm(self) -> float:
        """Mean surface distance of the structures that have one."""
        return self._mean("surface_mm")

    @property
    def failures(self) -> dict[str, str]:
        """Structures with a number missing, and why."""
        return {name: m.failure for name, m in self.structures.items() if m.failure}

    def as_dict(self) -> dict[str, object]:
        """Return the same numbers for JSON; NaN and infinity become None."""
        means = {name: getattr(self, name)
                 for name in ("mean_dice", "mean_hd95_mm", "mean_surface_mm")}  # fmt: skip

        return without_nan(asdict(self) | means)

    def _mean(self, name: str) -> float:
        values = [getattr(m, name) for m in self.structures.values()]

        return mean_of_present(np.array(values, dtype=np.float64))


def evaluate_registration(
    displacement: Tensor,
    grid: Grid,
    *,
    fixed_labels: ArrayLike | Tensor | None = None,
    moving_labels: ArrayLike | Tensor | None = None,
    fixed_points_mm: ArrayLike | None = None,
    moving_points_mm: ArrayLike | None = None,
    mask: ArrayLike | Tensor | None = None,
    mode: Mode = "strict",
    structures: Mapping[str, int] = STRUCTURES,
) -> RegistrationMetrics:
    """Return overlap, surface distances, regularity and landmark errors of a registration.

    ``strict`` pulls labels as one-hot with linear interpolation and argmax and measures in mm;
    ``l2r`` gives the numbers of the Learn2Reg scorer (see ``metrics.learn2reg`` for its quirks).
    The grid's axes are taken to be perpendicular; they may be oblique and anisotropic.

    Args:
        displacement: ``fixed_to_moving`` ``(1, 3, D, H, W)``, voxels.
        grid: lattice of the displacement and of all labels.
        fixed_labels: whole numbers ``(D, H, W)`` or ``(1, 1, D, H, W)``.
        moving_labels: the same of the moving image; without them no structure is compared.
        fixed_points_mm: landmarks ``(V, 3)``, world RAS mm; a row with NaN is left out.
        moving_points_mm: the same landmarks on the moving image; both or neither.
        mask: region ``(D, H, W)`` of the field's measures; None is the whole grid.
        mode: ``"strict"`` or ``"l2r"``.
        structures: name -> label; ``"MYO"``, if named, is the region of ``|det J - 1|``.
    """
    if mode not in ("strict", "l2r"):
        raise ValueError(f'mode must be "strict" or "l2r", got {mode!r}')
    if moving_labels is not None and fixed_labels is None:
        raise ValueError("moving_labels must come with fixed_labels, got moving_labels alone")
    if (fixed_points_mm is None) != (moving_points_mm is None):
        raise ValueError("fixed_points_mm and moving_points_mm must come together, got one alone")
    field = check_displacement(displacement, grid.shape)
    fixed = _volume(fixed_labels, grid, "fixed_labels")
    moving = _volume(moving_labels, grid, "moving_labels")
    region = _volume(mask, grid, "mask")
    if mode == "strict":
        overlap, regularity = _strict(field, grid, fixed, moving, region, structures)
    else:  # this scorer counts in voxels and has no use for the grid
        overlap, regularity = _l2r(field[0].numpy(), fixed, moving, region, structures)
    landmarks = _landmarks(fixed_points_mm, moving_points_mm, field, grid, mode)

    return RegistrationMetrics(mode, overlap, regularity, landmarks)


_Labels = NDArray[np.int64] | None


def _strict(
    field: Tensor,
    grid: Grid,
    fixed: _Labels,
    moving: _Labels,
    region: _Labels,
    structures: Mapping[str, int],
) -> tuple[dict[str, StructureMetrics], FieldMetrics]:
    overlap = {}
    if fixed is not None and moving is not None:
        overlap = strict_structures(
            fixed, moving, field, spacing=grid.spacing, structures=structures
        )
    wall = Structure.MYO.name
    regularity = field_metrics(
        field,
        spacing=grid.spacing,
        mask=None if region is None else region != 0,
        myocardium=None if fixed is None or wall not in structures else fixed == structures[wall],
    )

    return overlap, regularity


def _l2r(
    displacement: NDArray,
    fixed: _Labels,
    moving: _Labels,
    region: _Labels,
    structures: Mapping[str, int],
) -> tuple[dict[str, StructureMetrics], FieldMetrics]:
    overlap = {}
    if fixed is not None and moving is not None:
        overlap = l2r_structures(fixed, moving, displacement, structures=structures)
    regularity = FieldMetrics(0.0, _NAN, _NAN, l2r_sdlogj(displacement, mask=region), _NAN)

    return overlap, regularity


def _volume(values: ArrayLike | Tensor | None, grid: Grid, name: str) -> _Labels:
    """Whole numbers ``(D, H, W)`` on the grid."""
    if values is None:
        return None
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.ndim == 5 and array.shape[:2] == (1, 1):
        array = array[0, 0]
    if array.shape != grid.shape:
        raise ValueError(f"{name} must lie on the grid {grid.shape}, got shape {array.shape}")
    if array.dtype.kind == "f" and not np.array_equal(array, np.rint(array)):
        raise ValueError(f"{name} must hold whole numbers, got others")

    return array.astype(np.int64)


def _landmarks(
    fixed_mm: ArrayLike | None,
    moving_mm: ArrayLike | None,
    field: Tensor,
    grid: Grid,
    mode: Mode,
) -> LandmarkMetrics:
    if fixed_mm is None or moving_mm is None:
        return landmark_metrics(np.empty(0), np.empty(0))
    fixed, moving = check_points(fixed_mm, moving_mm)
    initial = np.linalg.norm(fixed - moving, axis=1)
    if mode == "strict":
        return landmark_metrics(target_registration_errors(fixed, moving, field, grid), initial)
    voxels, targets = grid.to_voxel(fixed), grid.to_voxel(moving)
    # The scorer knows no missing landmark; cubic splines cannot be read at NaN.
    seen = np.isfinite(voxels).all(axis=1) & np.isfinite(targets).all(axis=1)
    errors = l2r_tre(voxels[seen], targets[seen], field[0].numpy(), moving_spacing=grid.spacing)

    return landmark_metrics(errors, initial[seen])


def without_nan(value: object) -> object:
    """Return nested numbers as strict JSON holds them: NaN and infinity become None."""
    if isinstance(value, Mapping):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [without_nan(inner) for inner in value]

    return None if isinstance(value, float) and not np.isfinite(value) else value
