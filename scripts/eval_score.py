"""Judge `cardiogen score`: false positives on held-out healthy hearts, and what disease it sees.

`fit` observes hearts of the reference population (all factors known, end diastole on a clinical
stack of 8 x 1.5 x 1.5 mm), scores them and appends a row each to a table; it goes on where the
table ends, and stops after --seconds. Kinds: `reference` and `healthy` are different hearts; `dcm`
(LVEDV x 1.35, LVEF 40 %, mass x 1.15), `hcm` (mass x 1.35, LVEDV x 0.95) and `rv` (RVEDV x 1.3)
are healthy hearts with changed phenotypes. `report` prints the rate of p <= .05 with its exact
interval, by the model's own expectation and by rank in `reference`, and the AUROC of each kind.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np

from cardiogen.base import keyed_seed
from cardiogen.data.factors import Factors
from cardiogen.evaluate.score import deviations, diseased
from cardiogen.measure.distribution import (
    auroc,
    bootstrap,
    conformal_p_values,
    false_positive_rate,
)
from cardiogen.models.normative import PARTS, LatentParts, latent_parts
from cardiogen.models.protocol import AnatomyModel, encode_condition
from cardiogen.models.store import load_model
from cardiogen.population import PopulationHeart, sample_heart

KINDS = ("reference", "healthy", "dcm", "hcm", "rv")
COLUMNS = ("kind", "index", "total", *PARTS, "p_model", *(f"p_model_{part}" for part in PARTS))


def score(
    model: AnatomyModel, parts: LatentParts, heart: PopulationHeart, phases: list[float]
) -> list[float]:
    """Return the deviations of one heart and their p-values as the model expects them."""
    found, p = deviations(model, parts, heart, phases)
    return [*found.tolist(), *p.tolist()]


def fit(table: Path, kind: str, count: int, seconds: float, bundle: Path | None) -> None:
    """Append rows until there are ``count`` of a kind or the time is up."""
    started = time.monotonic()
    done = sum(row["kind"] == kind for row in rows_of(table)) if table.exists() else 0
    model = load_model(bundle).model
    condition = encode_condition(Factors())
    parts = latent_parts(model, model.prior(condition).mean)
    with table.open("a", newline="") as stream:
        writer = csv.writer(stream)
        if stream.tell() == 0:
            writer.writerow(COLUMNS)
        for index in range(done, count):
            if time.monotonic() - started > seconds:
                break
            heart = diseased(sample_heart(keyed_seed(91, f"eval/score/{kind}"), index), kind)
            writer.writerow([kind, index, *score(model, parts, heart, [0.0])])
            stream.flush()


def rows_of(table: Path) -> list[dict[str, str]]:
    """Return the rows of a table."""
    with table.open(newline="") as stream:
        return list(csv.DictReader(stream))


def report(table: Path) -> None:
    """Print rates of false positives and areas under the curve."""
    rows = rows_of(table)
    values = {kind: {name: np.array([float(r[name]) for r in rows if r["kind"] == kind])
                     for name in COLUMNS[2:]} for kind in KINDS}  # fmt: skip
    healthy, reference = values["healthy"], values["reference"]
    print(f"{len(healthy['total'])} healthy hearts, {len(reference['total'])} of reference")
    for name in ("total", *PARTS):
        if healthy[name].mean() < 0.5:
            print(f"{name:7} not seen on these label maps")
            continue
        own = false_positive_rate(healthy["p_model" if name == "total" else f"p_model_{name}"])
        print(f"{name:7} p <= .05 by the model: {100 * own.value:.1f} % "
              f"({100 * own.low:.1f}-{100 * own.high:.1f})", end="")  # fmt: skip
        if len(reference[name]):
            p = conformal_p_values(healthy[name], reference[name])
            rank = false_positive_rate(p)
            print(f", by rank: {100 * rank.value:.1f} % "
                  f"({100 * rank.low:.1f}-{100 * rank.high:.1f})", end="")  # fmt: skip
        for kind in KINDS[2:]:
            if len(values[kind][name]):
                area = bootstrap(auroc, values[kind][name], healthy[name], independent=True)
                print(f", AUROC {kind} {area.value:.3f} ({area.low:.3f}-{area.high:.3f})", end="")
        print()


def main() -> None:
    """Fit or report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["fit", "report"])
    parser.add_argument("table", type=Path, help="CSV to append to or to read")
    parser.add_argument("--kind", choices=KINDS, default="healthy")
    parser.add_argument("-n", type=int, default=200, help="hearts of the kind in the end")
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--bundle", type=Path)
    o = parser.parse_args()
    if o.action == "fit":
        fit(o.table, o.kind, o.n, o.seconds, o.bundle)
    else:
        report(o.table)


if __name__ == "__main__":
    main()
