"""What Learn2Reg scores of a task: its evaluation config, read, written and made of a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cardiogen.base import write_json
from registration.metrics.dataset import L2RDataset
from registration.metrics.entries import (
    Pair,
    entry_of,
    pair_list,
    pairs_of,
    read_object,
    refuse,
    whole_numbers,
)
from registration.metrics.learn2reg import Metric

_METRICS = ("sdlogj", "dice", "hd95", "tre")


@dataclass(frozen=True)
class EvaluationMethod:
    """One number to report: Dice and HD95 of ``labels``, TRE of the points in folder ``dest``."""

    name: str
    metric: Metric
    labels: tuple[int, ...] = ()
    dest: str = ""


@dataclass(frozen=True)
class EvaluationConfig:
    """What is scored: methods, shape ``(X, Y, Z, 3)`` of the fields, pairs, mask or no mask."""

    task_name: str
    methods: tuple[EvaluationMethod, ...]
    expected_shape: tuple[int, int, int, int]
    pairs: tuple[Pair, ...]
    masked: bool = False


def read_evaluation_config(path: str | Path) -> EvaluationConfig:
    """Read a ``TASK_VAL_evaluation_config.json``.

    Raises:
        CardiogenError: C40 for what such a file does not hold, C47 if it cannot be read.
    """
    content = read_object(path)
    methods = tuple(
        _method(entry, path) for entry in entry_of(content, "evaluation_methods", list, path)
    )
    names = [method.name for method in methods]
    if len(set(names)) != len(names):
        refuse(path, f"evaluation method names {names}", "names that differ")
    pairs = pairs_of(content, "eval_pairs", path)
    if not pairs:
        refuse(path, "no eval_pairs", "at least one pair")

    return EvaluationConfig(
        task_name=entry_of(content, "task_name", str, path),
        methods=methods,
        expected_shape=whole_numbers(content.get("expected_shape"), 4, "expected_shape", path),
        pairs=pairs,
        masked=entry_of(content, "masked_evaluation", bool, path, default=False),
    )


def write_evaluation_config(
    path: str | Path, config: EvaluationConfig, *, overwrite: bool = False
) -> None:
    """Write an evaluation config that :func:`read_evaluation_config` reads back as the same."""
    methods = []
    for method in config.methods:
        entry: dict[str, object] = {"name": method.name, "metric": method.metric}
        if method.metric in ("dice", "hd95"):
            entry["labels"] = list(method.labels)
        if method.metric == "tre":
            entry["dest"] = method.dest
        methods.append(entry)
    content = {
        "task_name": config.task_name,
        "evaluation_methods": methods,
        "expected_shape": list(config.expected_shape),
        "eval_pairs": pair_list(config.pairs),
        "masked_evaluation": config.masked,
        "eval_config_version": 0.1,
    }
    write_json(path, content, overwrite=overwrite)


def evaluation_config(
    dataset: L2RDataset,
    methods: tuple[EvaluationMethod, ...],
    *,
    split: Literal["validation", "test"] = "validation",
    masked: bool = False,
) -> EvaluationConfig:
    """Return what is scored of a dataset: all pairs of a split, fields of its shape."""
    pairs = dataset.validation if split == "validation" else dataset.test

    return EvaluationConfig(dataset.name, methods, (*dataset.shape, 3), pairs, masked)


def _method(entry: object, path: str | Path) -> EvaluationMethod:
    if not isinstance(entry, dict) or entry.get("metric") not in _METRICS:
        refuse(path, f"evaluation method {str(entry)[:60]}", f"a metric of {', '.join(_METRICS)}")
    metric, labels, dest = entry["metric"], (), ""
    if metric in ("dice", "hd95"):
        labels = whole_numbers(entry.get("labels"), None, "labels", path)
    if metric == "tre":
        dest = entry_of(entry, "dest", str, path)
        if not dest.isalnum():
            refuse(path, f"dest {dest!r}", "the name of a folder, e.g. landmarks")

    return EvaluationMethod(entry_of(entry, "name", str, path), metric, labels, dest)
