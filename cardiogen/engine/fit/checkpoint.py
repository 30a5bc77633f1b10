"""Checkpoints: a folder of tensors (safetensors) and facts (JSON), whole or absent.

Nothing in them is unpickled. ``state.json`` holds the SHA-256 of the tensors and of itself (with
64 zeros in place of that last hash), so that no byte can change unseen; the newest one that
verifies is found, and those before the newest two are removed.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from cardiogen.base import CardiogenError, Note, atomic_folder, read_bounded, sha256_file
from cardiogen.base.strict_json import parse_json, read_small
from cardiogen.engine.fit.config import FREE_FIELDS, FitConfig
from cardiogen.engine.fit.logs import Window
from cardiogen.engine.fit.state import Best, Training, tensors_of, weights_of

SCHEMA_VERSION = 1
_TENSORS, _FACTS = "state.safetensors", "state.json"
_NAME = re.compile(r"step-(\d{9})")
_STALE = ".cg-tmp-"
_KEPT = 2
_MAX_BYTES = 64 << 30
_BLANK = "0" * 64


class WindowFacts(BaseModel):
    """Sums of the row of the log that was not yet written; in hexadecimal, exact and with NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    names: list[str]
    sums: list[str]
    count: int = Field(ge=0)
    skipped: int = Field(ge=0)


class Facts(BaseModel):
    """What ``state.json`` says; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    schema_version: int = Field(ge=1)
    step: int = Field(ge=0)
    seconds: float
    loss_scale: float
    good_steps: int
    bad_steps: int
    window: WindowFacts
    best_loss: float | None
    best_step: int
    config: dict[str, int | float | str | bool]
    fingerprint: str
    tensors_sha256: str
    facts_sha256: str


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return where the checkpoint after a step lies."""
    return folder / f"step-{step:09d}"


def write_checkpoint(folder: Path, run: Training, config: FitConfig, fingerprint: str) -> Path:
    """Write a checkpoint of a run and remove all but the newest two.

    Raises:
        CardiogenError: M05 for weights that are not finite, R01 if writing fails.
    """
    from safetensors.torch import save_file

    tensors = {name: t.contiguous().cpu() for name, t in tensors_of(run).items()}
    path = checkpoint_path(folder, run.step)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CardiogenError(
                "M05", path, found=f"NaN or infinity in {name!r}", expected="finite weights",
                remedy="a smaller learning_rate; the last checkpoint is from before",
            )  # fmt: skip
    with atomic_folder(path, overwrite=True) as temporary:
        save_file(tensors, temporary / _TENSORS, metadata={"format": "cardiogen"})
        facts = Facts(
            schema_version=SCHEMA_VERSION, step=run.step, seconds=run.seconds,
            loss_scale=run.loss_scale, good_steps=run.good_steps, bad_steps=run.bad_steps,
            window=_window_facts(run.window),
            best_loss=run.best.loss, best_step=run.best.step, config=config.model_dump(),
            fingerprint=fingerprint, tensors_sha256=sha256_file(temporary / _TENSORS),
            facts_sha256=_BLANK,
        )  # fmt: skip
        text = json.dumps(facts.model_dump(), indent=1, allow_nan=False) + "\n"
        own = hashlib.sha256(text.encode("utf-8")).hexdigest()
        (temporary / _FACTS).write_bytes(text.replace(_BLANK, own).encode("utf-8"))
    for old in find_checkpoints(folder)[_KEPT:]:
        shutil.rmtree(old)
    return path


def find_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, newest first, whether or not they verify."""
    if not folder.is_dir():
        return []
    found = [p for p in folder.iterdir() if _NAME.fullmatch(p.name) and not p.is_symlink()]
    return sorted((p for p in found if p.is_dir()), reverse=True)


def remove_stale(folder: Path) -> None:
    """Remove what killed writers left half-written; no other process may be writing."""
    for path in folder.glob(f"{_STALE}*") if folder.is_dir() else ():
        shutil.rmtree(path)


def newest_checkpoint(folder: Path) -> tuple[Path | None, list[Note]]:
    """Return the newest checkpoint that verifies, and notes of damaged ones that were removed.

    Raises:
        CardiogenError: M03 to M07 of the newest one, if there are some and none verifies.
    """
    damaged: list[tuple[Path, CardiogenError]] = []
    for path in find_checkpoints(folder):
        try:
            _verified(path)
        except CardiogenError as error:
            damaged.append((path, error))
            continue
        for bad, _ in damaged:
            shutil.rmtree(bad)
        return path, [Note(e.code, e.where, f"{e.found}; went on from {path.name}")
                      for _, e in damaged]  # fmt: skip
    if damaged:
        raise damaged[0][1]
    return None, []


def restore(path: Path, run: Training, config: FitConfig, fingerprint: str) -> None:
    """Bring a run to where a checkpoint was written, in place.

    Raises:
        CardiogenError: M03 hash, M04 tensors that are not those of this model, M06 newer schema,
            M07 facts, M08 another configuration or other data, M47 unreadable.
    """
    from safetensors.torch import load

    facts, content = _verified(path)
    _check_origin(path, facts, config, fingerprint)
    tensors = load(content)
    run.best = Best(facts.best_loss, facts.best_step)
    if facts.best_loss is not None:
        run.best.weights = {n: torch.empty_like(t) for n, t in weights_of(run.judged).items()}
    places = tensors_of(run)
    found, expected = _shapes(tensors), _shapes(places)
    wrong = sorted(n for n in found.keys() | expected.keys() if found.get(n) != expected.get(n))
    if wrong:
        raise CardiogenError(
            "M04", path, found=f"tensor {wrong[0]!r} as {found.get(wrong[0])}",
            expected=f"{expected.get(wrong[0])} as this model has it",
            remedy="the model that the run was started with, or another folder",
        )  # fmt: skip
    for name, place in places.items():
        place.copy_(tensors[name])
    run.step, run.seconds, run.loss_scale = facts.step, facts.seconds, facts.loss_scale
    run.good_steps, run.bad_steps = facts.good_steps, facts.bad_steps
    window = facts.window
    sums = [float.fromhex(text) for text in window.sums]
    run.window = Window(tuple(window.names), sums, window.count, window.skipped)


def _window_facts(window: Window) -> WindowFacts:
    sums = [float(total).hex() for total in window.sums]
    return WindowFacts(
        names=list(window.names), sums=sums, count=window.count, skipped=window.skipped
    )


def _verified(path: Path) -> tuple[Facts, bytes]:
    """Return the facts and the bytes of the tensors, each read once and checked."""
    text = read_small(path / _FACTS, code="M07")
    facts = _facts_of(parse_json(text, path / _FACTS, code="M07"), path / _FACTS)
    own = facts.facts_sha256.encode("utf-8")
    _check_hash(text.replace(own, _BLANK.encode("utf-8")), facts.facts_sha256, path / _FACTS)
    content = read_bounded(path / _TENSORS, limit=_MAX_BYTES, family="M")
    _check_hash(content, facts.tensors_sha256, path / _TENSORS)
    return facts, content


def _facts_of(content: object, where: Path) -> Facts:
    version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise CardiogenError(
            "M06", where, found=f"schema version {version}",
            expected=f"at most {SCHEMA_VERSION}, which this cardiogen knows",
            remedy="the cardiogen that wrote it",
        )  # fmt: skip
    try:
        return Facts.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or _FACTS
        raise CardiogenError(
            "M07", where, found=f"{place}: {first['msg'].lower()}",
            expected="the facts of a checkpoint", remedy="the file as cardiogen wrote it",
        ) from error  # fmt: skip


def _check_hash(content: bytes, expected: str, where: Path) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise CardiogenError(
            "M03", where, found=f"SHA-256 {found[:16]}...", expected=f"{expected[:16]}...",
            remedy="an earlier checkpoint: this one was damaged or changed",
        )  # fmt: skip


def _check_origin(path: Path, facts: Facts, config: FitConfig, fingerprint: str) -> None:
    """Refuse a checkpoint of another configuration or of other data."""
    then = facts.config | {"data": facts.fingerprint}
    now = config.model_dump() | {"data": fingerprint}
    names = [n for n in now | then if n not in FREE_FIELDS and then.get(n) != now.get(n)]
    if names:
        raise CardiogenError(
            "M08", path, found=", ".join(f"{n} = {then.get(n)!r}" for n in names),
            expected=", ".join(f"{n} = {now.get(n)!r}" for n in names),
            remedy="the settings and data that the run was started with, or another folder",
        )  # fmt: skip


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    return {name: f"{t.dtype} {tuple(t.shape)}" for name, t in tensors.items()}
