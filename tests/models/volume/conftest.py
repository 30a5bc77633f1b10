"""Coarse hearts, small networks, and one training of a second or two."""

import pytest

from cardiogen.engine.fit import FitConfig
from cardiogen.models.volume import VolumeConfig, train_volume
from cardiogen.models.voxel import Slots, heart_grid, population_examples

SHAPE, SPACING = (13, 11, 12), (11.0, 12.0, 11.0)


@pytest.fixture(scope="session")
def volume_config() -> VolumeConfig:
    return VolumeConfig(
        shape=SHAPE, spacing_mm=SPACING, widths=(8, 16), latent=6, code=4, mapping_width=16,
        mapping_depth=3,
        evidence_share=0.5,
        fit=FitConfig(
            steps=250, batch_size=16, learning_rate=5e-3, warmup_steps=10, free_bits=0.02,
            validate_every=125,
        ),
    )  # fmt: skip


@pytest.fixture(scope="session")
def volume_examples():
    return population_examples(72, 1, heart_grid(SHAPE, SPACING), Slots("ed+es"))


@pytest.fixture(scope="session")
def held_out():
    return population_examples(12, 1, heart_grid(SHAPE, SPACING), Slots("ed+es"), first=1000)


@pytest.fixture(scope="session")
def volume_model(volume_examples, held_out, volume_config):
    return train_volume(volume_examples, volume_config, validation=held_out, device="cpu")
