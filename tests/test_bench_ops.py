"""The bench runs end to end on tiny sizes; what it times is right; its sums of rounds are laws."""

import csv
import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "bench_ops.py"


@pytest.fixture
def bench(monkeypatch):
    """Import a part of the bench by name, as the script sees it."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return lambda part: importlib.import_module(f"bench.{part}")


def run(folder, *options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(SCRIPT), "--quick", "--device", "cpu", "--out", str(folder)]
    return subprocess.run(
        [*command, *options], env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    told = run(folder, "--threads", "2", "--budget", "0.1")
    assert told.returncode == 0, told.stderr
    return folder, told.stdout


def test_quick_run_writes_table_text_and_picture(finished):
    folder, told = finished
    assert sorted(p.name for p in folder.iterdir()) == [
        "bench_ops.csv", "bench_ops.md", "bench_ops.png"
    ]  # fmt: skip
    assert (folder / "bench_ops.png").read_bytes().startswith(b"\x89PNG")
    text = (folder / "bench_ops.md").read_text(encoding="utf-8")
    for wanted in (f"torch {torch.__version__}", "cores", "Quick sizes", "warp 128³", "svf 96³"):
        assert wanted in text
    assert "| warp 128³ forward, formula | ≥ 14.0x | not measured | - |" in told


def test_everybody_agrees_with_float64(finished):
    with (finished[0] / "bench_ops.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    by_case = {}
    for row in rows:
        assert float(row["median_ms"]) > 0
        if row["max_error"]:
            by_case.setdefault(row["case"], set()).add(row["contender"])
            assert float(row["relative_error"]) < 1e-5, row
            if row["pass_name"] == "forward":
                assert float(row["max_error"]) < 1e-5, row
    assert len(by_case) == 17
    assert all({"cardiogen", "reference"} <= names for names in by_case.values())
    assert {"formula", "grid_sample alone"} <= by_case["warp sequence 30x12x256²"]
    scaled = {r["contender"] for r in rows if r["contender"].endswith(("thread", "threads"))}
    assert scaled == {"cardiogen, 1 thread", "cardiogen, 2 threads"}
    if Path("/proc/self/clear_refs").exists():
        peaks = [r for r in rows if r["peak_mib"] and r["contender"] == "cardiogen"]
        assert {r["case"] for r in peaks} == {"warp 128³", "svf 96³"}


def test_earlier_results_are_kept_unless_overwrite_is_said(tmp_path):
    (tmp_path / "bench_ops.md").write_text("mine")
    told = run(tmp_path)
    assert told.returncode == 1
    assert "bench_ops.md exist" in told.stderr
    assert (tmp_path / "bench_ops.md").read_text() == "mine"


def test_displacements_are_exact_in_float32_and_off_every_cell_border(bench):
    field = bench("cases").displacement((7, 10, 13), 2)
    assert torch.equal(bench("cases").displacement((7, 10, 13), 2), field)
    ticks = field.double() * 2048
    assert ((ticks % 2) == 1).all()
    far = field + 200
    assert torch.equal(far.double(), field.double() + 200)


def test_ratio_counts_only_rounds_that_both_ran(bench):
    nan = float("nan")
    over, under = np.array([8.0, 6.0, nan, 1.0]), np.array([2.0, 2.0, 5.0, nan])
    low, ratio, high = bench("timing").paired_ratio(over, under)
    assert (low, ratio, high) == pytest.approx((3.25, 3.5, 3.75))


@pytest.mark.parametrize(("used_s", "rounds"), [(0.1, 5), (0.4, 3), (1.2, 2), (5.0, 1)])
def test_slow_contenders_run_fewer_rounds(bench, monkeypatch, used_s, rounds):
    timing = bench("timing")
    made = []

    def clock(_device):
        return lambda action: action() or used_s

    monkeypatch.setattr(timing, "clock", clock)
    actions = {"one": lambda: made.append("one"), "other": lambda: made.append("other")}
    times = timing.rounds_of(actions, device="cpu", rounds=5, budget_s=1.0)
    assert {name: int((~np.isnan(t)).sum()) for name, t in times.items()} == dict.fromkeys(
        actions, rounds
    )
    # A warm-up of each comes first.
    assert made[:2] == ["one", "other"]
    assert len(made) == 2 * (rounds + 1)


def test_bars_say_met_missed_or_not_measured(bench):
    bars, measure = bench("bars"), bench("measure")
    row = measure.Row(
        case="warp 128³", shape="1x128x128x128", pass_name="forward", contender="formula",
        rounds=3, median_ms=28.0, lower_quartile_ms=27.0, upper_quartile_ms=29.0, speedup=14.5,
        speedup_lower_quartile=14.0, speedup_upper_quartile=15.0,
    )  # fmt: skip
    full = bars.Run([row], 2e10, "cpu", False)
    results = {bar.what: bar.result(full) for bar in bars.BARS}
    assert results["warp 128³ forward, formula"] == ("≥ 14.0x", "14.5x", "met")
    assert results["warp 128³ forward, MONAI"] == ("≥ 18.0x", "not measured", "-")
    other = bars.Run([row], 2e10, "cuda", False)
    assert bars.BARS[0].result(other)[1] == "not measured"
