"""Register pairs of images: stages, levels and solvers of a config, one result."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from cardiogen import ops
from cardiogen.base import CardiogenError
from cardiogen.data import Grid
from cardiogen.transforms import (
    FFD,
    SVF,
    SVFFD,
    Affine,
    Composition,
    Displacement,
    FieldTransform,
    Rigid,
    Transform,
)
from cardiogen.transforms.base import ParametricTransform
from registration.config import (
    DEFAULT_PRESET,
    RegistrationConfig,
    StageConfig,
    resolve_config,
)
from registration.prepare import prepare_images
from registration.problem import Problem, pyramid
from registration.result import RegistrationResult, provenance_of
from registration.solvers import SOLVERS
from registration.unfold import unfold

_KINDS = {"rigid": Rigid, "affine": Affine, "displacement": Displacement, "svf": SVF,
          "ffd": FFD, "svffd": SVFFD}  # fmt: skip


def register(
    fixed: Tensor | None,
    moving: Tensor | None,
    grid: Grid,
    *,
    preset: str | None = None,
    config: RegistrationConfig | str | Path | None = None,
    fixed_labels: Tensor | None = None,
    moving_labels: Tensor | None = None,
    mask: Tensor | None = None,
    initial: Transform | None = None,
    device: torch.device | str | None = None,
) -> RegistrationResult:
    """Find ``fixed_to_moving`` for every pair of a batch.

    On the CPU pairs are solved one after another, so that a pair's bits do not depend on its
    batch; on a GPU together, each with its own steps and stops.

    Args:
        fixed: images ``(B, C, D, H, W)`` on ``grid``, or None if only labels are compared.
        moving: images of the same shape on the same grid (``ops.resample`` brings them there).
        grid: their common lattice.
        preset: name of a preset, by default ``fast``.
        config: settings or a TOML file instead of a preset.
        fixed_labels: structures ``(B, 1, D, H, W)``, whole numbers. They take part in the fit
            only if the config has label terms; the result's metrics use them in any case.
        moving_labels: the same of the moving images.
        mask: where fixed voxels count, ``(B or 1, 1, D, H, W)``, bool or in [0, 1].
        initial: ``fixed_to_moving`` to start from, of batch B or 1. One of the first stage's kind
            is refined as it is; any other is kept and followed by what the stages find.
        device: where to compute; by default where the images are.

    Returns:
        One result for the whole batch.

    Raises:
        CardiogenError: M07 for settings, N26 for images that are not finite, L37 where label
            terms lack labels.
        ValueError: for tensors that do not fit the grid.
    """
    started = time.perf_counter()
    if preset is None and config is None:
        preset = DEFAULT_PRESET
    config = resolve_config(preset, config)
    problem = _problem(fixed, moving, grid, config, fixed_labels, moving_labels, mask, device)
    timings = {"prepare": time.perf_counter() - started}
    alone = problem.device.type == "cpu"
    parts = [problem.sample(k) for k in range(problem.batch)] if alone else [problem]
    solved, rows = [], []
    for index, part in enumerate(parts):
        start = None if initial is None else _sample_of(initial, index if alone else None, part)
        transform, found = _stages(part, config, start, timings)
        solved.append(transform)
        rows += [row | {"pair": row["pair"] + index * alone} for row in found]
    transform = solved[0] if len(solved) == 1 else _joined(solved)
    with torch.no_grad():
        folds = ops.folding(transform.displacement()).fraction
    timings["total"] = time.perf_counter() - started

    return RegistrationResult(
        transform=transform,
        grid=grid,
        folds=tuple(folds.tolist()),
        energy_rows=tuple(rows),
        timings=timings,
        provenance=provenance_of(config, preset, grid, fixed, moving),
        fixed_labels=fixed_labels,
        moving_labels=moving_labels,
        mask=mask,
    )


def register_pairs(
    fixed: Sequence[Tensor],
    moving: Sequence[Tensor],
    grids: Sequence[Grid],
    *,
    preset: str | None = None,
    config: RegistrationConfig | str | Path | None = None,
    fixed_labels: Sequence[Tensor] | None = None,
    moving_labels: Sequence[Tensor] | None = None,
    masks: Sequence[Tensor] | None = None,
    initial: Sequence[Transform] | None = None,
    device: torch.device | str | None = None,
) -> list[RegistrationResult]:
    """Register pairs that live on grids of their own; see :func:`register` for the arguments."""
    config = resolve_config(preset, config)
    count = len(grids)
    columns = [fixed, moving, grids, fixed_labels, moving_labels, masks, initial]
    if any(column is not None and len(column) != count for column in columns):
        sizes = [None if column is None else len(column) for column in columns]
        raise ValueError(f"all lists must have one length, got {sizes}")
    rows = zip(*([None] * count if c is None else c for c in columns), strict=True)

    return [
        register(f, m, grid, config=config, fixed_labels=fl, moving_labels=ml, mask=mask,
                 initial=start, device=device)
        for f, m, grid, fl, ml, mask, start in rows
    ]  # fmt: skip


def _stages(
    problem: Problem,
    config: RegistrationConfig,
    initial: Transform | None,
    timings: dict[str, float],
) -> tuple[Transform, list[dict[str, object]]]:
    """Run all stages; the transforms of later ones stand on the fixed side of earlier ones."""
    found: list[Transform] = []
    rows: list[dict[str, object]] = []
    start = None
    first = config.stages[0]
    if initial is not None and type(initial) is _KINDS[first.transform] and (
        getattr(initial, "in_plane", first.in_plane) == first.in_plane
    ):  # fmt: skip
        start = initial
    elif initial is not None:
        found = [initial]
    for number, stage in enumerate(config.stages, start=1):
        began = time.perf_counter()
        left = problem
        if found:
            with torch.no_grad():
                total = Composition(found, grid=problem.grid).displacement()
                left = problem.moved_by(total.to(problem.device))
        made = _levels(left, stage, start, number, rows)
        if config.unfold and isinstance(made, FieldTransform):
            made, _ = unfold(made)
        found, start = [made, *found], None
        name = f"{number} {stage.transform}"
        timings[name] = timings.get(name, 0.0) + time.perf_counter() - began

    return (found[0] if len(found) == 1 else Composition(found, grid=problem.grid)), rows


def _levels(
    problem: Problem,
    stage: StageConfig,
    start: Transform | None,
    number: int,
    rows: list[dict[str, object]],
) -> ParametricTransform:
    """Run one stage from coarse to fine."""
    with torch.no_grad():
        problems = pyramid(problem, stage.levels)
    terms, transform = stage.weighted_terms(), None
    for level, (part, most) in enumerate(zip(problems, stage.iterations, strict=True), start=1):
        divisor = 2 ** (stage.levels - level)
        if transform is None:
            transform = _first(part, stage, divisor, start)
        else:
            transform = _refined(transform, part.grid, stage, divisor)
        solver = SOLVERS[stage.solver]
        transform, trace = solver(part, transform, terms, stage=stage, iterations=most)
        transform = transform.detached()
        where = {"stage": number, "transform": stage.transform, "level": level}
        rows += [where | row for row in trace.rows()]

    return transform


def _first(
    problem: Problem, stage: StageConfig, divisor: int, start: Transform | None
) -> ParametricTransform:
    """Return the transform at which the coarsest level begins."""
    if start is not None:
        return _refined(start.to(problem.device), problem.grid, stage, divisor)
    kind = _KINDS[stage.transform]
    common = {"batch": problem.batch, "device": problem.device}
    if stage.transform in ("rigid", "affine"):
        return kind.identity(problem.grid, **common).detached()
    if stage.transform in ("ffd", "svffd"):
        common["control_spacing"] = stage.control_spacing * divisor

    return kind.identity(problem.grid, in_plane=stage.in_plane, **common).detached()


def _refined(
    transform: ParametricTransform, grid: Grid, stage: StageConfig, divisor: int
) -> ParametricTransform:
    with torch.no_grad():
        if isinstance(transform, FFD | SVFFD):
            spacing = stage.control_spacing * divisor
            return transform.refined(grid, control_spacing=spacing).detached()
        return transform.refined(grid).detached()


def _problem(
    fixed: Tensor | None,
    moving: Tensor | None,
    grid: Grid,
    config: RegistrationConfig,
    fixed_labels: Tensor | None,
    moving_labels: Tensor | None,
    mask: Tensor | None,
    device: torch.device | str | None,
) -> Problem:
    """Check all inputs and prepare them."""
    _check_images(fixed, moving, grid, config)
    batch = len(fixed) if fixed is not None else len(fixed_labels)
    for name, values in (("fixed_labels", fixed_labels), ("moving_labels", moving_labels)):
        _check_labels(values, batch, grid, name, wanted=config.wants("label"))
    if mask is not None and (mask.shape[1:] != (1, *grid.shape) or len(mask) not in (1, batch)):
        raise ValueError(f"mask must be ({batch} or 1, 1, {grid.shape}), got {tuple(mask.shape)}")
    source = fixed if fixed is not None else fixed_labels
    device = source.device if device is None else torch.device(device)
    if config.wants("image"):
        fixed, moving = prepare_images(
            fixed.to(device), moving.to(device), spacing=grid.spacing, config=config.prepare
        )
    else:
        fixed = moving = None
    one_hots = (None, None)
    if config.wants("label"):
        classes = int(max(fixed_labels.max(), moving_labels.max())) + 1
        one_hots = tuple(
            ops.one_hot(x.to(device).long(), classes, dtype=torch.float32)[:, 1:]
            for x in (fixed_labels, moving_labels)
        )

    return Problem(
        grid=grid, fixed=fixed, moving=moving, fixed_labels=one_hots[0],
        moving_labels=one_hots[1], mask=None if mask is None else mask.to(device).float(),
    )  # fmt: skip


def _check_images(
    fixed: Tensor | None, moving: Tensor | None, grid: Grid, config: RegistrationConfig
) -> None:
    if not config.wants("image"):
        return
    for name, image in (("fixed", fixed), ("moving", moving)):
        if image is None:
            raise ValueError(f"{name} must be given, since the energy compares images, got None")
        if image.ndim != 5 or tuple(image.shape[2:]) != grid.shape:
            raise ValueError(
                f"{name} must be (B, C, D, H, W) on grid {grid.shape}, got {tuple(image.shape)}"
            )
        if not bool(torch.isfinite(image).all()):
            raise CardiogenError(
                "N26", f"{name} image", found="NaN or infinite voxels", expected="finite values",
                remedy="repairing the image, or a mask and zeros there",
            )  # fmt: skip
    if fixed.shape != moving.shape:
        raise ValueError(
            f"moving must have the shape of fixed {tuple(fixed.shape)}, got {tuple(moving.shape)}"
        )


def _check_labels(
    labels: Tensor | None, batch: int, grid: Grid, name: str, *, wanted: bool
) -> None:
    if labels is None:
        if wanted:
            raise CardiogenError(
                "L37", name, found="none", expected="label maps, since the energy compares labels",
                remedy="giving both label maps, or a preset that compares images",
            )  # fmt: skip
        return
    if tuple(labels.shape) != (batch, 1, *grid.shape):
        raise ValueError(f"{name} must be ({batch}, 1, {grid.shape}), got {tuple(labels.shape)}")
    if wanted and not bool((labels > 0).any()):
        raise CardiogenError(
            "L37", name, found="an empty label map", expected="labeled structures",
            remedy="the file that holds the labels",
        )  # fmt: skip


def _sample_of(transform: Transform, index: int | None, problem: Problem) -> Transform:
    """Return the transform of one pair (all for None) where the images are."""
    if isinstance(transform, Composition):
        parts = [_sample_of(part, index, problem) for part in transform.transforms]
        return Composition(parts, grid=transform.grid)
    params = transform.params.detach().to(problem.device)
    if index is not None and len(params) > 1:
        params = params[index : index + 1]

    return transform.with_parameters(params)


def _joined(transforms: list[Transform]) -> Transform:
    """Return transforms of one structure as one with a batch."""
    if isinstance(transforms[0], Composition):
        parts = zip(*(t.transforms for t in transforms), strict=True)
        return Composition([_joined(list(part)) for part in parts], grid=transforms[0].grid)

    return transforms[0].with_parameters(torch.cat([t.params for t in transforms]))
