"""Rows of the registration benchmark: pairs side by side, a batch, memory, other contrasts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bench.acdc_pairs import CardiacPair
from bench.registrars import Registrar
from cardiogen import ops
from cardiogen.transforms import Rigid
from registration import register
from registration import register_pairs as register_all
from registration.metrics import STRUCTURES, evaluate_registration

_SCRIPTS = Path(__file__).resolve().parents[1]
_SHIFT_MM, _TURN_DEG = 15.0, 15.0
_REACH_MM = 30.0


def pair_table(pairs: list[CardiacPair], methods: dict[str, Registrar]) -> pd.DataFrame:
    """Return one row per method and patient; every method is run once before, unmeasured."""
    rows = []
    for call in methods.values():
        call(pairs[0])
    for pair in pairs:
        # Side by side, so that a busy moment hits all alike.
        for name, call in methods.items():
            began = time.perf_counter()
            field = call(pair)
            rows.append({"method": name, "seconds": time.perf_counter() - began,
                         **score(pair, field)})  # fmt: skip

    return pd.DataFrame(rows)


def score(pair: CardiacPair, field: torch.Tensor) -> dict[str, object]:
    """Return strict metrics of a field."""
    found = evaluate_registration(
        field, pair.grid, fixed_labels=pair.fixed_labels, moving_labels=pair.moving_labels
    )
    dice = {name: found.structures[name].dice for name in STRUCTURES}

    return {
        "patient": pair.name, "group": pair.group, "dice": found.mean_dice, **dice,
        "hd95_mm": found.mean_hd95_mm, "sdlogj": found.field.sdlogj,
        "folds": found.field.folding_fraction,
        "det_error_myo": found.field.det_error_myocardium,
    }  # fmt: skip


def batch_seconds(pairs: list[CardiacPair], preset: str) -> float:
    """Return the seconds of one call for all pairs."""
    columns = [[getattr(p, n) for p in pairs] for n in ("fixed", "moving", "grid")]
    began = time.perf_counter()
    register_all(*columns, preset=preset)

    return time.perf_counter() - began


def peak_memory_mb(folder: Path, patient: str, method: str) -> float:
    """Return the most memory that a fresh process holds while one method registers one pair.

    From /proc, as ``bench.peak`` does: ``ru_maxrss`` would begin with what the parent held.
    """
    code = (
        "import sys; from pathlib import Path\n"
        "from bench.acdc_pairs import load_pairs; from bench.registrars import registrars\n"
        "from bench.peak import status\n"
        f"pair = load_pairs(Path({str(folder)!r}), [{patient!r}])[0]\n"
        f"registrars([{method!r}])[{method!r}](pair)\n"
        "sys.stdout.write(str(status('VmHWM') / 2**20))\n"
    )
    paths = [str(_SCRIPTS), str(_SCRIPTS.parent), os.environ.get("PYTHONPATH", "")]
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )  # fmt: skip

    return float(told.stdout)


def contrast_table(pairs: list[CardiacPair], seed: int = 1) -> pd.DataFrame:
    """Return how well an affine is recovered from 15 mm and 15 degrees across contrasts."""
    terms = {"MI": "mi", "NMI": "nmi", "NGF": "ngf", "MIND": "mind"}
    rows = []
    for number, pair in enumerate(pairs):
        truth = _rigid(pair, seed + number)
        moving = ops.warp(_remapped(pair.fixed), truth.inverse().displacement())
        for name, term in terms.items():
            began = time.perf_counter()
            found = register(pair.fixed, moving, pair.grid, preset=f"affine_{term}").transform
            seconds = time.perf_counter() - began
            rows.append({"term": name, "patient": pair.name, "seconds": seconds,
                         **_affine_errors(found, truth)})  # fmt: skip

    return pd.DataFrame(rows)


def _rigid(pair: CardiacPair, seed: int) -> Rigid:
    generator = torch.Generator().manual_seed(seed)
    axis, way = (torch.nn.functional.normalize(torch.randn(3, generator=generator), dim=0)
                 for _ in range(2))  # fmt: skip
    params = torch.cat([axis * np.deg2rad(_TURN_DEG), way * _SHIFT_MM]).float()

    return Rigid(pair.grid, params[None])


def _remapped(image: torch.Tensor) -> torch.Tensor:
    """Return another contrast, neither rising nor falling throughout."""
    scaled = (image - image.min()) / (image.max() - image.min())

    return torch.sin(1.6 * torch.pi * scaled) + 0.3 * scaled


def _affine_errors(found: object, truth: Rigid) -> dict[str, float]:
    """Return the error at the middle and at most 30 mm around it, and the angle between both."""
    middle = torch.tensor(truth.center, dtype=torch.float64)
    around = torch.cat([torch.zeros(1, 3), _REACH_MM * torch.eye(3), -_REACH_MM * torch.eye(3)])
    points = (middle + around.double())[None]
    with torch.no_grad():
        error = (found.points(points) - truth.points(points)).norm(dim=-1)[0]
        turn = found.matrix()[0, :3, :3] @ truth.matrix()[0, :3, :3].T
    left, _, right = torch.linalg.svd(turn)
    cosine = (((left @ right).trace() - 1) / 2).clamp(-1, 1)

    return {"middle_mm": float(error[0]), "within_30_mm": float(error.max()),
            "degrees": float(torch.rad2deg(torch.acos(cosine)))}  # fmt: skip
