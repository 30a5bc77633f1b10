"""Compare the population, or hearts that a bundle generates, with published figures.

`population` prints, for 2,000 hearts per sex and decade, means, SDs and coverage against the
Healthy Hearts Consortium, mean wall thickness, and from 10,000 hearts with UK Biobank marginals
the slopes on BMI and pressure and the variance explained (Petersen 2017).
`bundle` prints the same comparison for generated hearts of 40 and 70 years, and for a control
model that ignores its conditions (a quarter as many hearts), which must fail.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cardiogen.base import keyed_rng, progress
from cardiogen.data.factors import Factors
from cardiogen.measure import mesh_thickness
from cardiogen.measure.reference import reference
from cardiogen.measure.volumes import measure_sequence
from cardiogen.models.protocol import AnatomyModel
from cardiogen.models.store import load_model
from cardiogen.population.conditions import sample_conditions
from cardiogen.population.heart import sample_heart
from cardiogen.population.phenotypes import Phenotypes, sample_phenotypes
from cardiogen.population.template import ENDO, template_topology
from cardiogen.synthesis import generate_sequence

Array = NDArray[np.float64]

MEASURES = ("LVEDV", "LVESV", "LVM", "LVEF", "RVEDV", "RVEF")
COLUMNS = ("LVEDV (mL)", "LVESV (mL)", "LVM (g)", "LVEF (%)", "RVEDV (mL)", "RVEF (%)")
SEPTAL, LATERAL, MID = (8, 9), (11, 12), range(7, 13)


def row_of(p: Phenotypes) -> list[float]:
    """Return the six measures of the table."""
    return [p.lvedv, p.lvesv, p.lvm, p.lvef, p.rvedv, 100 * (1 - p.rvesv / p.rvedv)]


def against_hhc(values: Array, sex: str, age: float, group: str) -> Iterator[dict]:
    """Yield one line a measure: shift of the mean in SDs, SD ratio, share inside 95 %."""
    for name, column in zip(MEASURES, values.T, strict=True):
        r = reference(name, sex=sex, age=age, by_decade=group == "decade")
        yield {
            "sex": sex,
            "age": age,
            "measure": name,
            "mean": column.mean(),
            "HHC": r.mean,
            "shift/SD": (column.mean() - r.mean) / r.sd,
            "SD ratio": column.std() / r.sd,
            "inside %": 100 * np.mean((column >= r.lower) & (column <= r.upper)),
        }


def population_table(n: int, seed: int) -> pd.DataFrame:
    """Return the comparison by sex and decade."""
    lines: list[dict] = []
    for sex in "FM":
        for decade in progress((40, 50, 60, 70), f"phenotypes {sex}"):
            rows = []
            for i in range(n):
                stream = f"eval/{sex}{decade}"
                age = decade + 10 * keyed_rng(seed, stream + "/age", i).random()
                given = Factors(age=age, sex=sex)
                factors = sample_conditions(keyed_rng(seed, stream + "/conditions", i), given)
                draw = sample_phenotypes(keyed_rng(seed, stream + "/phenotypes", i), factors)
                rows.append(row_of(draw))
            lines += against_hhc(np.array(rows), sex, decade + 5.0, "decade")
    return pd.DataFrame(lines)


def slopes(n: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return slopes (% per SD) and variance explained over UK Biobank marginals."""
    conditions, values = [], []
    for i in progress(range(n), "slopes"):
        f = sample_conditions(keyed_rng(seed, "eval/ukb/conditions", i))
        p = sample_phenotypes(keyed_rng(seed, "eval/ukb/phenotypes", i), f)
        conditions.append([1.0, f.age, f.sex == "M", f.height, f.bmi / 4.3, f.sbp / 18.1])
        values.append([p.lvm, p.lvedv, p.lvesv, p.rvedv, p.rvesv, p.lvef])
    x, y = np.array(conditions, dtype=float), np.array(values)
    names = ["LVM", "LVEDV", "LVESV", "RVEDV", "RVESV"]
    beta, *_ = np.linalg.lstsq(x, np.log(y[:, :5]), rcond=None)
    published = {
        "BMI": ["7.6-8.9", "4.2-5.4", "3.5-5.3", "4.7-5.9", "4.5-6.4"],
        "SBP": ["5.9-7.7", "3.6-5.4", "0.8-3.3", "", ""],
    }
    table = pd.DataFrame({"measure": names})
    for row, factor in ((4, "BMI"), (5, "SBP")):
        table[f"{factor} %/SD"] = 100 * (np.exp(beta[row]) - 1)
        table[f"{factor} published CI"] = published[factor]
    fit, *_ = np.linalg.lstsq(x, y, rcond=None)
    explained = 1 - ((y - x @ fit) ** 2).sum(axis=0) / ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    r2 = pd.DataFrame({"measure": [*names, "LVEF"], "R2": explained})
    return table, r2[~r2.measure.isin(["RVEDV", "RVESV"])].assign(published=[0.655, 0.522, 0.416,
                                                                             0.067])  # fmt: skip


def thickness_table(n: int, seed: int) -> pd.DataFrame:
    """Return mid-ventricular wall thickness at ED by sex and decade."""
    segment = template_topology().aha_segment[ENDO]
    lines = []
    for sex in "FM":
        for decade in progress((40, 50, 60, 70), f"wall thickness {sex}"):
            rows = []
            for i in range(n):
                age = decade + 10 * keyed_rng(seed, f"eval/wall/{sex}{decade}", i).random()
                heart = sample_heart(seed, i, Factors(age=age, sex=sex))
                wall = mesh_thickness(heart.vertices([0.0])[0], template_topology())
                wall = wall.reshape(-1)[: len(segment)]
                rows.append(
                    [np.nanmean(wall[np.isin(segment, list(s))]) for s in (MID, SEPTAL, LATERAL)]
                )
            mean, sd = np.mean(rows, axis=0), np.std(rows, axis=0)
            lines.append({"sex": sex, "decade": decade, "mid mm": mean[0], "SD": sd[0],
                          "septum": mean[1], "lateral": mean[2]})  # fmt: skip
    return pd.DataFrame(lines)


def generated(model: AnatomyModel, factors: Factors, n: int, seed: int) -> Array:
    """Return the six measures of n hearts as `generate` draws them, taken from their meshes."""
    phases = [0.0, 0.28, 0.32, 0.36, 0.40, 0.44]
    rows = []
    for i in progress(range(n), "generating"):
        heart = generate_sequence(model, factors, phases, seed=seed, index=i)
        found, _ = measure_sequence(heart, source="mesh")
        rows.append([found[column] for column in COLUMNS])
    return np.array(rows)


def bundle_table(draw: Callable[[Factors], Array]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the comparison at 40 and 70 years, and the difference between these ages."""
    lines: list[dict] = []
    differences = []
    for sex in "FM":
        young, old = (draw(Factors(age=age, sex=sex)) for age in (40.0, 70.0))
        lines += [*against_hhc(young, sex, 40.0, "line"), *against_hhc(old, sex, 70.0, "line")]
        for name, a, b in zip(MEASURES, young.T, old.T, strict=True):
            wanted = reference(name, sex=sex, age=70).mean - reference(name, sex=sex, age=40).mean
            error = np.hypot(a.std(), b.std()) / np.sqrt(len(a))
            differences.append({"sex": sex, "measure": name, "70 minus 40": b.mean() - a.mean(),
                                "standard error": error, "HHC": wanted,
                                "ratio": (b.mean() - a.mean()) / wanted})  # fmt: skip
    return pd.DataFrame(lines), pd.DataFrame(differences)


def verdict(table: pd.DataFrame, shift: float, ratio: float) -> str:
    """Return how many lines keep the bars."""
    kept = (table["shift/SD"].abs() <= shift) & (table["SD ratio"].between(1 - ratio, 1 + ratio))
    return f"{int(kept.sum())} of {len(table)} lines within {shift} SD and SD ratio 1 +- {ratio}"


def show(title: str, table: pd.DataFrame) -> None:
    """Print a table."""
    print(f"\n{title}\n{table.to_string(index=False, float_format=lambda x: f'{x:.2f}')}")


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", choices=["population", "bundle"])
    parser.add_argument("-n", type=int, default=2000, help="hearts per group")
    parser.add_argument("--walls", type=int, default=200, help="meshes per sex and decade")
    parser.add_argument("--ukb", type=int, default=10000, help="hearts for the slopes")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--bundle", type=Path)
    o = parser.parse_args()
    if o.source == "population":
        table = population_table(o.n, o.seed)
        show("Against HHC by decade", table)
        print(verdict(table, 0.2, 0.1))
        print(f"inside the 95 % interval: {table['inside %'].min():.1f} to "
              f"{table['inside %'].max():.1f} %")  # fmt: skip
        for title, part in zip(
            ("Slopes", "Variance explained"), slopes(o.ukb, o.seed), strict=True
        ):
            show(title, part)
        show("Wall thickness, mid ventricle, ED", thickness_table(o.walls, o.seed))
        return
    model = load_model(o.bundle).model
    for title, blind in (("Generated hearts", False), ("Control without conditions", True)):

        def draw(factors: Factors, blind: bool = blind) -> Array:
            return generated(model, Factors() if blind else factors, o.n // (4 if blind else 1),
                             o.seed)  # fmt: skip

        table, differences = bundle_table(draw)
        show(title, table)
        print(verdict(table, 0.25, 0.15))
        show("Difference between ages", differences)
        kept = differences["ratio"].between(0.75, 1.25)
        print(f"{int(kept.sum())} of {len(kept)} differences within 25 % of HHC's")


if __name__ == "__main__":
    main()
