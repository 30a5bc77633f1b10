"""Presets are read, and those of published size have it."""

from pathlib import Path

import pytest
import torch

from cardiogen.engine.config import load_config
from cardiogen.models.sequence import SequenceConfig, SequenceNetwork
from cardiogen.models.volume import VolumeConfig, VolumeNetwork

PRESETS = Path(__file__).resolve().parents[3] / "configs" / "models"
KINDS = {"volume": (VolumeConfig, VolumeNetwork), "sequence": (SequenceConfig, SequenceNetwork)}


@pytest.mark.parametrize(
    "name", ["volume_small", "volume_large", "sequence_small", "sequence_large"]
)
def test_a_preset_builds_its_network(name):
    kind, network = KINDS[name.split("_")[0]]
    config = load_config(kind, PRESETS / f"{name}.toml")
    built = network(config, torch.zeros(5), torch.ones(5))
    size = sum(p.numel() for p in built.parameters())
    limits = {
        "volume_small": (0.5e6, 2e6), "volume_large": (5e6, 40e6),
        "sequence_small": (0.5e6, 2e6), "sequence_large": (0.4e6, 2e6),
    }  # fmt: skip
    assert limits[name][0] < size < limits[name][1]
