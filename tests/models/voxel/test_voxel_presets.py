"""Presets are found by name, and those of published size have it."""

import pytest
import torch

from cardiogen.engine.config import find_config, load_training
from cardiogen.models.sequence import SequenceNetwork, SequenceTraining
from cardiogen.models.volume import VolumeNetwork, VolumeTraining

KINDS = {
    "volume": (VolumeTraining, VolumeNetwork),
    "sequence": (SequenceTraining, SequenceNetwork),
}
LIMITS = {
    "volume_small": (0.5e6, 2e6), "volume_large": (5e6, 40e6),
    "sequence_small": (0.5e6, 2e6), "sequence_large": (0.4e6, 2e6),
}  # fmt: skip


@pytest.mark.parametrize("name", LIMITS)
def test_a_preset_builds_its_network(name):
    trainings = {kind: training for kind, (training, _) in KINDS.items()}
    settings = load_training(trainings, find_config(name))
    assert settings.model == name.split("_")[0]
    built = KINDS[settings.model][1](settings.network, torch.zeros(5), torch.ones(5))
    size = sum(p.numel() for p in built.parameters())
    assert LIMITS[name][0] < size < LIMITS[name][1]


def test_settings_without_a_preset_are_those_of_a_laptop():
    for training, _ in KINDS.values():
        network = training().network
        assert network.voxels < 1e5
        assert network.fit.steps <= 2000
