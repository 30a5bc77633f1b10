"""The benchmark of augmentation runs, on sizes that mean nothing."""

from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from bench import augment_cost, augment_throughput

    return augment_cost, augment_throughput


@pytest.mark.parametrize("shape", [(16, 16), (8, 8, 16)])
def test_costs_are_told_in_plain_steps(bench, shape):
    bars = {"adversarial": (1e9, 1e9), "fast": (0.0, 0.0)}
    case = bench[0].Case("tiny", shape, 2, 2, bars)
    rows = {row.mode: row for row in bench[0].cost_rows(case, device="cpu", rounds=1)}
    assert rows["plain"].ratio == 1.0
    assert set(rows) == {"plain", *bench[0].MODES}
    assert rows["adversarial"].met is True
    assert rows["fast"].met is False
    assert "missed" in str(rows["fast"])
    assert rows["random consistency"].met is None


def test_the_network_has_the_size_that_others_were_measured_with(bench):
    import torch
    from bench.augment_networks import UNet

    weights = sum(p.numel() for p in UNet(2, 16, norm="instance").parameters())
    assert abs(weights - 488_000) < 1_000
    assert UNet(3, 4)(torch.zeros(1, 1, 8, 16, 8)).shape == (1, 4, 8, 16, 8)


def test_throughput_is_told_for_what_is_installed(bench, monkeypatch):
    throughput, made = bench[1], []

    def ours(lacks=()):
        made.append(lacks)
        return lambda image, labels: None

    packages = {
        "absent": throughput.Package("no_such_package", None),
        "other": throughput.Package("torch", throughput._ours, lacks=(throughput.Blur,)),
    }
    monkeypatch.setattr(throughput, "PACKAGES", packages)
    monkeypatch.setattr(throughput, "_ours", ours)
    (row,) = throughput.throughput_rows(16, rounds=1)
    assert row.package == "other"
    assert made == [(throughput.Blur,)]
    assert row.met
    assert row.theirs > row.ours
    assert "met" in str(row)
