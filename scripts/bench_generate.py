"""Time generation: one beating heart with label maps and meshes, and many as meshes alone.

Seconds are counted after imports and one heart to warm up. ``made`` is in memory, ``written`` with
NIfTI and VTP files; ``cohort`` is ``generate --meshes-only`` with tables (and a zarr store where
zarr is installed), the start of its worker processes included.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from cardiogen.cli.generate import generate
from cardiogen.cli.generate_heart import make_heart
from cardiogen.cli.generate_plan import Request
from cardiogen.data.factors import Factors
from cardiogen.models.store import load_model

GOALS = {"made_s": 1.5, "cohort_s": 60.0}


def seconds(work: Callable[[], object], clock: Callable[[], float] | None = None) -> float:
    """Return the time of a call by a clock, wall time by default."""
    clock = clock or time.perf_counter
    began = clock()
    work()
    return clock() - began


def median(works: list[Callable[[], object]], clock: Callable[[], float] | None = None) -> float:
    """Return the median time of calls, wall time by default."""
    return statistics.median(seconds(work, clock) for work in works)


def request(index: int, frames: int, *, meshes_only: bool) -> Request:
    """Return heart ``index`` of a woman of 70."""
    return Request(
        subject_id="heart", factors=Factors(age=70, sex="F"), index=index, seed=0, frames=frames,
        phase_only=None, spacing_mm=1.25, allow_extrapolation=False, meshes_only=meshes_only,
    )  # fmt: skip


def bench(bundle: Path | None, hearts: int, frames: int, jobs: int, rounds: int) -> dict:
    """Return the seconds of every part."""
    loaded = load_model(bundle)

    def made(index: int, meshes_only: bool) -> None:
        make_heart(request(index, frames, meshes_only=meshes_only), loaded)

    store = "zarr" if importlib.util.find_spec("zarr") else "csv"
    facts = {"age": 70, "sex": "F", "frames": frames, "model": bundle, "overwrite": True}
    made(0, False)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        single = facts | {"out": out / "one", "formats": "nifti,vtp"}
        many = facts | {"out": out / "many", "formats": store, "meshes_only": True}
        generate(**single)
        found = {
            "model": loaded.facts["name"],
            "frames": frames,
            "made_s": median([partial(made, k, False) for k in range(rounds)]),
            # What a busy machine does not change much.
            "made_cpu_s": median(
                [partial(made, k, False) for k in range(rounds)], time.process_time
            ),
            "meshes_cpu_s": median(
                [partial(made, k, True) for k in range(rounds)], time.process_time
            ),
            "meshes_s": median([partial(made, k, True) for k in range(rounds)]),
            "written_s": median([partial(generate, **single)] * min(rounds, 3)),
            "cohort": hearts,
            "cohort_files": store,
            "jobs": jobs,
            "cohort_s": seconds(lambda: generate(**many, n=hearts, workers=jobs)),
        }
    return found | {"cohort_heart_s": found["cohort_s"] / hearts, "goals": GOALS}


def main() -> None:
    """Measure and print; ``--json`` writes the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="bundle; default: the one shipped")
    parser.add_argument("-n", type=int, default=1000, help="hearts of the cohort")
    parser.add_argument("--frames", type=int, default=25)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="file to write, too")
    o = parser.parse_args()
    found = bench(o.model, o.n, o.frames, o.jobs, o.rounds)
    text = json.dumps(found, indent=2)
    sys.stdout.write(text + "\n")
    if o.json is not None:
        o.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
