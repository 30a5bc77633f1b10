"""Score a folder of displacement fields as the Learn2Reg evaluation does, files and all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import CardiogenError, Note, progress, read_bounded, write_json
from cardiogen.data import Grid, Image, read_image
from cardiogen.transforms import read_learn2reg
from registration.metrics.entries import Pair, beside, name_parts
from registration.metrics.evaluate import without_nan
from registration.metrics.learn2reg import (
    Aggregate,
    aggregate,
    l2r_dice,
    l2r_hd95,
    l2r_sdlogj,
    l2r_tre,
    l2r_warp_labels,
    mean_of_present,
)
from registration.metrics.scoring_config import EvaluationConfig
from registration.metrics.submission import find_submission

_MAX_POINTS_BYTES = 64 << 20


@dataclass(frozen=True)
class CaseScore:
    """One number of one case: its mean, and what the mean is of (labels, points)."""

    mean: float
    detailed: tuple[float, ...]


@dataclass(frozen=True)
class TaskScore:
    """Result of a task.

    Attributes:
        name: name of the task.
        aggregates: method -> mean, standard deviation and "30" quantile of the cases.
        cases: case -> method -> score.
        notes: masks that were not there.
    """

    name: str
    aggregates: Mapping[str, Aggregate]
    cases: Mapping[str, Mapping[str, CaseScore]]
    notes: tuple[Note, ...] = ()


def score_submission(
    folder: str | Path, ground_truth: str | Path, config: EvaluationConfig
) -> TaskScore:
    """Return all scores of a submission, equal to those of the Learn2Reg script.

    Args:
        folder: displacement files, see ``metrics.submission``.
        ground_truth: folder that the paths of the pairs start from.
        config: what is scored.

    Raises:
        CardiogenError: N60 for a missing field, S74 for one that is broken or of another shape,
            S70 for labels of another shape, C41 for landmark files, those of ``read_image`` for
            images, labels and masks. All fields are looked for
            before the first is scored.
    """
    if not config.pairs:
        raise ValueError("config.pairs must not be empty, got no pair to score")
    files = [find_submission(folder, pair) for pair in config.pairs]
    cases, notes = {}, []
    for pair, file in progress(list(zip(config.pairs, files, strict=True)), "scoring"):
        cases[pair.case], found = _score_case(file, Path(ground_truth), pair, config)
        notes += found
    aggregates = {
        method.name: aggregate([case[method.name].mean for case in cases.values()], method.metric)
        for method in config.methods
    }

    return TaskScore(config.task_name, aggregates, cases, tuple(notes))


def write_scores(path: str | Path, scores: TaskScore, *, overwrite: bool = False) -> None:
    """Write scores in the layout of Learn2Reg's ``metrics.json``; NaN and infinity become null."""
    content = {
        "name": scores.name,
        "aggregates": {
            name: {"mean": a.mean, "std": a.std, "30": a.quantile30}
            for name, a in scores.aggregates.items()
        },
        "cases": {
            case: {name: asdict(score) for name, score in methods.items()}
            for case, methods in scores.cases.items()
        },
        "eval_version": "2.0",
    }
    write_json(path, without_nan(content), overwrite=overwrite)


def _score_case(
    file: Path, root: Path, pair: Pair, config: EvaluationConfig
) -> tuple[dict[str, CaseScore], list[Note]]:
    # The scorer knows the fields' shape alone; where the voxels lie does not matter to it.
    grid = Grid.regular(config.expected_shape[2::-1], (1.0, 1.0, 1.0))
    displacement = read_learn2reg(file, grid).displacement()[0].numpy()
    metrics = {method.metric for method in config.methods}
    maps = _label_maps(root, pair, displacement) if metrics & {"dice", "hd95"} else None
    spacing = _image(root, pair.moving).grid.spacing if "tre" in metrics else None
    mask, notes = _mask(root, pair) if config.masked and "sdlogj" in metrics else (None, [])
    scores = {}
    for method in config.methods:
        if method.metric == "sdlogj":
            value = l2r_sdlogj(displacement, mask=mask)
            scores[method.name] = CaseScore(value, (value,))
            # Counted after the clip to positive values, so there are none.
            scores["num_foldings"] = CaseScore(0.0, (0.0,))
        elif method.metric == "tre":
            points = _landmarks(root, pair, method.dest)
            errors = l2r_tre(*points, displacement, moving_spacing=spacing)
            scores[method.name] = CaseScore(float(errors.mean()), tuple(errors.tolist()))
        else:
            score = l2r_dice if method.metric == "dice" else l2r_hd95
            values = score(*maps, method.labels)
            scores[method.name] = CaseScore(mean_of_present(values), tuple(values.tolist()))

    return scores, notes


def _image(root: Path, path: str) -> Image:
    return read_image(root / path, frames="one", contrast=False)


def _label_maps(root: Path, pair: Pair, displacement: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Fixed, moving and moved labels."""
    fixed, moving = (_image(root, beside(p, "labels")).data for p in (pair.fixed, pair.moving))
    if fixed.shape != displacement.shape[1:]:
        raise CardiogenError(
            "S70", root / beside(pair.fixed, "labels"), found=f"labels of shape {fixed.shape}",
            expected=f"that of the field, {displacement.shape[1:]}", remedy="the task's own files",
        )  # fmt: skip

    return fixed, moving, l2r_warp_labels(moving, displacement)


def _mask(root: Path, pair: Pair) -> tuple[NDArray | None, list[Note]]:
    path = beside(pair.fixed, "masks")
    if (root / path).is_file():
        return _image(root, path).data, []

    return None, [Note("C42", str(root / path), "no such mask; scored without, as Learn2Reg does")]


def _landmarks(root: Path, pair: Pair, dest: str) -> tuple[NDArray, NDArray]:
    """Fixed and moving landmarks ``(V, 3)`` in voxels (d, h, w); files hold (x, y, z) rows."""
    one, other = name_parts(pair.fixed)[1], name_parts(pair.moving)[1]
    if one != other and (one, other) != ("0000", "0001"):
        # Correspondences of other pairs of modalities lie in folders that name both.
        dest += min(one, other) + max(one, other)
    paths = [root / beside(p, dest, suffix=".csv") for p in (pair.fixed, pair.moving)]
    fixed, moving = (_read_points(path)[:, ::-1] for path in paths)
    if fixed.shape != moving.shape:
        _bad_points(paths[1], f"{len(moving)} points", f"{len(fixed)}, as in {paths[0].name}")

    return fixed, moving


def _read_points(path: Path) -> NDArray[np.float64]:
    rows = []
    text = read_bounded(path, limit=_MAX_POINTS_BYTES, family="C").decode("utf-8", "replace")
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = [float(cell) for cell in line.split(",")]
        except ValueError:
            _bad_points(f"{path}:{number}", repr(line[:60]), "three numbers with commas between")
        if len(row) != 3 or not np.isfinite(row).all():
            _bad_points(f"{path}:{number}", repr(line[:60]), "three finite numbers")
        rows.append(row)
    if not rows:
        _bad_points(path, "no points", "one landmark per line")

    return np.array(rows)


def _bad_points(where: str | Path, found: str, expected: str) -> NoReturn:
    raise CardiogenError(
        "C41", where, found=found, expected=expected, remedy="the task's own landmark files"
    )
