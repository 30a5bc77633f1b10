"""The dataset of a Learn2Reg task: its JSON file, read and written.

Convention: shapes are stored as (X, Y, Z), the reverse of a grid's (D, H, W).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cardiogen.base import write_json
from registration.metrics.entries import (
    Pair,
    entry_of,
    pair_list,
    pairs_of,
    read_object,
    refuse,
    whole_numbers,
)


@dataclass(frozen=True)
class L2RDataset:
    """A task's dataset.

    Attributes:
        name: name of the task.
        shape: voxels ``(X, Y, Z)`` of modality 0.
        training: one entry per image: ``{"image": ..., "label": ..., "mask": ...}``.
        training_pairs: images that belong together, ``{"0": ..., "1": ...}``.
        validation: pairs to register and score.
        test: pairs to register whose labels are kept back.
        extra: further entries (``modality``, ``licence``, shapes of other modalities, ...), kept
            as they are.
    """

    name: str
    shape: tuple[int, int, int]
    training: tuple[Mapping[str, str], ...] = ()
    training_pairs: tuple[Mapping[str, str], ...] = ()
    validation: tuple[Pair, ...] = ()
    test: tuple[Pair, ...] = ()
    extra: Mapping[str, object] = field(default_factory=dict)


def read_dataset(path: str | Path) -> L2RDataset:
    """Read a ``TASK_dataset.json``.

    Raises:
        CardiogenError: C40 for what such a file does not hold, C47 if it cannot be read.
    """
    content = read_object(path)
    shapes = entry_of(content, "tensorImageShape", dict, path)
    known = {
        "name": entry_of(content, "name", str, path),
        "shape": whole_numbers(shapes.get("0"), 3, "tensorImageShape/0", path),
        "training": _entries(content, "training", path),
        "training_pairs": _entries(content, "training_paired_images", path),
        "validation": pairs_of(content, "registration_val", path),
        "test": pairs_of(content, "registration_test", path),
    }
    taken = {
        "name",
        "training",
        "training_paired_images",
        "registration_val",
        "registration_test",
        *(["tensorImageShape"] if set(shapes) == {"0"} else []),
    }

    return L2RDataset(**known, extra={k: v for k, v in content.items() if k not in taken})


def write_dataset(path: str | Path, dataset: L2RDataset, *, overwrite: bool = False) -> None:
    """Write a ``TASK_dataset.json`` that :func:`read_dataset` reads back as the same."""
    content = {
        "name": dataset.name,
        **dataset.extra,
        "tensorImageShape": {
            **dataset.extra.get("tensorImageShape", {}),
            "0": list(dataset.shape),
        },
        "training": [dict(entry) for entry in dataset.training],
        "training_paired_images": [dict(entry) for entry in dataset.training_pairs],
        "registration_val": pair_list(dataset.validation),
        "registration_test": pair_list(dataset.test),
    }
    write_json(path, content, overwrite=overwrite)


def _entries(
    content: dict[str, object], key: str, path: str | Path
) -> tuple[Mapping[str, str], ...]:
    entries = entry_of(content, key, list, path, default=[])
    for entry in entries:
        texts = isinstance(entry, dict) and all(isinstance(v, str) for v in entry.values())
        if not texts:
            refuse(path, f"{key}: {str(entry)[:60]}", "entries that name files")

    return tuple(entries)
