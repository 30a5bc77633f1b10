"""What a registration returns: the transform, how it was found, and how good it is."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cardiogen import __version__, ops
from cardiogen.base import Note, atomic_folder, write_json
from cardiogen.data import Grid
from cardiogen.transforms import Transform, save_transform, write_displacement
from registration.config import RegistrationConfig
from registration.metrics import RegistrationMetrics, evaluate_registration

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, kw_only=True)
class RegistrationResult:
    """A registration of one or more pairs on one grid.

    Attributes:
        transform: ``fixed_to_moving``, with a batch of all pairs.
        grid: lattice of the pairs.
        folds: share of cells that fold, per pair (``ops.folding``); 0 unless stated otherwise.
        energy_rows: one record per stage, level, step and pair; see ``energies``.
        timings: seconds by stage, and ``total``.
        provenance: versions, config, grid, hashes of the images.
        fixed_labels: structures that the metrics compare, or None.
        moving_labels: the same of the moving images, or None.
        mask: region of the field's measures, or None.
    """

    transform: Transform
    grid: Grid
    folds: tuple[float, ...]
    energy_rows: tuple[Mapping[str, object], ...]
    timings: Mapping[str, float]
    provenance: Mapping[str, object]
    fixed_labels: Tensor | None = field(default=None, repr=False)
    moving_labels: Tensor | None = field(default=None, repr=False)
    mask: Tensor | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.folds)

    @cached_property
    def displacement(self) -> Tensor:
        """``fixed_to_moving`` ``(B, 3, D, H, W)`` on ``grid``, voxels, without gradient."""
        with torch.no_grad():
            return self.transform.displacement(self.grid)

    @property
    def energies(self) -> pd.DataFrame:
        """Table with columns stage, transform, level, step, pair, energy and its parts."""
        import pandas as pd

        return pd.DataFrame.from_records(list(self.energy_rows))

    @cached_property
    def metrics(self) -> tuple[RegistrationMetrics, ...]:
        """Strict metrics of every pair; of structures where both label maps were given."""
        return tuple(self._metrics(k) for k in range(len(self)))

    @property
    def notes(self) -> tuple[Note, ...]:
        """What a user should know: S77 where a field folds."""
        return tuple(
            Note("S77", f"pair {k}", f"{share:.2g} of the cells fold")
            for k, share in enumerate(self.folds)
            if share > 0
        )

    def moved(self, moving: Tensor, *, order: int = 1) -> Tensor:
        """Return a moving image ``(B, C, D, H, W)`` on ``grid`` as seen on the fixed one."""
        return ops.warp(moving, self.displacement.to(moving.device), order=order)

    def moved_labels(self, labels: Tensor) -> Tensor:
        """Return whole-number labels ``(B, 1, D, H, W)`` on the fixed image, uint8."""
        classes = int(labels.max()) + 1
        probs = ops.warp_labels(labels.long(), self.displacement.to(labels.device),
                                classes=max(classes, 2))  # fmt: skip

        return ops.argmax_labels(probs)

    def as_dict(self) -> dict[str, object]:
        """Return all numbers for JSON."""
        return {
            "folding_fraction": list(self.folds),
            "notes": [str(note) for note in self.notes],
            "metrics": [m.as_dict() for m in self.metrics],
            "timings_s": {name: round(value, 4) for name, value in self.timings.items()},
            "provenance": dict(self.provenance),
            "energies": self._final_energies(),
        }

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the transform, displacements, energies and numbers into a new folder.

        Files: ``transform.safetensors``, ``displacement[_KK].nii.gz`` (RAS mm), ``energies.csv``,
        ``result.json``.

        Raises:
            CardiogenError: O01 if the folder exists, O03 if it is not one of ours.
        """
        folder = Path(folder)
        with atomic_folder(folder, overwrite=overwrite) as temporary:
            self.write_into(temporary)

        return folder

    def write_into(self, folder: Path) -> None:
        """Write the files of :meth:`save` into an existing folder."""
        save_transform(folder / "transform.safetensors", self.transform)
        for index in range(len(self)):
            name = "displacement" if len(self) == 1 else f"displacement_{index:02d}"
            write_displacement(
                folder / f"{name}.nii.gz", self.displacement[index : index + 1].cpu(), self.grid,
                convention="nifti",
            )  # fmt: skip
        self.energies.to_csv(folder / "energies.csv", index=False)
        write_json(folder / "result.json", self.as_dict())

    def _metrics(self, index: int) -> RegistrationMetrics:
        labels = {}
        if self.fixed_labels is not None and self.moving_labels is not None:
            labels = {
                "fixed_labels": self.fixed_labels[index, 0],
                "moving_labels": self.moving_labels[index, 0],
            }
        elif self.fixed_labels is not None:
            labels = {"fixed_labels": self.fixed_labels[index, 0]}
        mask = None
        if self.mask is not None:
            mask = (self.mask[min(index, len(self.mask) - 1), 0] > 0).long()

        return evaluate_registration(
            self.displacement[index : index + 1].cpu(), self.grid, mask=mask, **labels
        )

    def _final_energies(self) -> list[dict[str, object]]:
        """First and last energy of every stage, level and pair."""
        table = self.energies
        if table.empty:
            return []
        groups = table.groupby(["stage", "level", "pair"], sort=False)
        return [
            {"stage": int(stage), "level": int(level), "pair": int(pair),
             "first": float(rows["energy"].iloc[0]), "last": float(rows["energy"].iloc[-1]),
             "steps": len(rows) - 1}
            for (stage, level, pair), rows in groups
        ]  # fmt: skip


def provenance_of(
    config: RegistrationConfig,
    preset: str | None,
    grid: Grid,
    fixed: Tensor | None,
    moving: Tensor | None,
) -> dict[str, object]:
    """Return what decides the bits of a result."""
    return {
        "cardiogen": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "preset": preset,
        "config": config.model_dump(mode="json"),
        "grid": {"shape": list(grid.shape), "affine": grid.affine.tolist()},
        "fixed_sha256": _sha256(fixed),
        "moving_sha256": _sha256(moving),
    }


def _sha256(image: Tensor | None) -> str | None:
    if image is None:
        return None

    return hashlib.sha256(image.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
