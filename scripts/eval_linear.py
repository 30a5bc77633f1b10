"""Evaluate the linear model on population hearts that it has not seen.

Prints the coverage of conditional intervals of the phenotypes with all factors and with each one
missing, and vertex errors at ED and ES: of the modes themselves, of the mean given factors, and of
ES given the ED scores, beside copying ED and the mean motion.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cardiogen.base import keyed_rng, keyed_seed, progress
from cardiogen.data.factors import Factors
from cardiogen.models.cycle import decode_phenotypes, encode_cycle
from cardiogen.models.linear import LinearModel
from cardiogen.models.protocol import encode_condition
from cardiogen.models.store import load_model
from cardiogen.population.anatomy import heart_vertices
from cardiogen.population.conditions import AGE_RANGE
from cardiogen.population.heart import PopulationHeart, sample_heart
from cardiogen.population.phenotypes import Phenotypes

Array = NDArray[np.float64]

LEVELS = (50, 80, 90, 95)
MEASURES = ("LVEDV", "LVESV", "LVEF", "LVM", "RVEDV", "RVESV")
FACTORS = ("age", "sex", "height", "weight", "sbp")


def row_of(p: Phenotypes) -> list[float]:
    """Return the six measures."""
    return [p.lvedv, p.lvesv, p.lvef, p.lvm, p.rvedv, p.rvesv]


def held_out(seed: int, index: int) -> PopulationHeart:
    """Return a heart of an age drawn evenly, as in training, from another seed."""
    age = keyed_rng(seed, "eval/linear/age", index).uniform(*AGE_RANGE)
    return sample_heart(seed, index, Factors(age=float(age)))


def coverage(
    model: LinearModel, hearts: list[PopulationHeart], missing: str | None, draws: int
) -> Array:
    """Return the share (%) of true values in central intervals, ``(levels, measures)``."""
    ranks = []
    for heart in hearts:
        factors = heart.factors if missing is None else replace(heart.factors, **{missing: None})
        prior = model.prior(encode_condition(factors))
        generator = torch.Generator().manual_seed(keyed_seed(0, "eval/linear", heart.index))
        sampled = np.array(
            [row_of(decode_phenotypes(model.cycle_vector(prior.sample(generator))))
             for _ in range(draws)]
        )  # fmt: skip
        ranks.append(np.mean(sampled < np.array(row_of(heart.phenotypes)), axis=0))
    away = np.abs(np.array(ranks) - 0.5) * 200
    return np.stack([100 * np.mean(away <= level, axis=0) for level in LEVELS])


def rmse(a: Array, b: Array) -> float:
    """Return the root mean square vertex distance, mm."""
    return float(np.sqrt(np.mean(np.sum((a - b) ** 2, axis=-1))))


def vertex_errors(model: LinearModel, heart: PopulationHeart) -> dict[str, float]:
    """Return vertex errors of one heart in its own frame."""
    phases = np.arange(40) / 40
    ends = [0.0, heart.timing.systole]
    ed, es = heart_vertices(heart.coordinates(ends))
    latent = model.encode_vector(encode_cycle(phases, heart.coordinates(phases)))
    prior = model.prior(encode_condition(heart.factors))
    own, mean = model.decode(latent, ends), model.decode(prior.mean, ends)
    given = given_ed(model, latent, prior.mean, prior.covariance)
    copied = latent.clone()
    size = len(model.weights.ed_modes)
    copied[size:] = prior.mean[size:]
    moved = model.decode(copied, ends)[1]
    return {
        "modes, ED": rmse(own[0], ed),
        "modes, ES": rmse(own[1], es),
        "mean given factors, ED": rmse(mean[0], ed),
        "mean given factors, ES": rmse(mean[1], es),
        "ES: copy ED": rmse(ed, es),
        "ES: ED phenotypes and shape known, mean motion": rmse(moved, es),
        "ES: conditional on ED shape (LVESV unknown)": rmse(model.decode(given, ends)[1], es),
    }


def given_ed(
    model: LinearModel, latent: torch.Tensor, mean: torch.Tensor, covariance: torch.Tensor
) -> torch.Tensor:
    """Return E[z | ED], which fixes all ED scores but those of LVEF and stroke volume ratio."""
    known = torch.zeros(len(latent), dtype=torch.bool)
    known[: len(model.weights.ed_modes)] = True
    known[[1, 4]] = False
    offset = (latent - mean)[known]
    gain = torch.linalg.solve(covariance[known][:, known], covariance[known][:, ~known]).T
    filled = latent.clone()
    filled[~known] = mean[~known] + gain @ offset
    return filled


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=500, help="held-out hearts")
    parser.add_argument("--draws", type=int, default=200, help="draws for each interval")
    parser.add_argument("--seed", type=int, default=99)
    parser.add_argument("--bundle", type=Path, default="linear")
    o = parser.parse_args()
    model = load_model(o.bundle).model
    hearts = [held_out(o.seed, i) for i in range(o.n)]
    lines = []
    for missing in progress((None, *FACTORS), "coverage"):
        found = coverage(model, hearts, missing, o.draws)
        for level, row in zip(LEVELS, found, strict=True):
            lines.append({"missing": missing or "none", "level": level, "pooled": row.mean(),
                          **dict(zip(MEASURES, row, strict=True))})  # fmt: skip
    print(pd.DataFrame(lines).to_string(index=False, float_format=lambda x: f"{x:.1f}"))
    errors = pd.DataFrame([vertex_errors(model, h) for h in progress(hearts, "vertices")])
    print("\nvertex RMSE, mm (mean over hearts)")
    print(errors.mean().to_string(float_format=lambda x: f"{x:.2f}"))


if __name__ == "__main__":
    main()
