"""Coarse beating hearts, small networks, and one short training."""

import pytest

from cardiogen.engine.fit import FitConfig
from cardiogen.models.sequence import SequenceConfig, train_sequence
from cardiogen.models.voxel import Slots, heart_grid, population_examples

SHAPE, SPACING, FRAMES = (13, 11, 12), (11.0, 12.0, 11.0), 6


@pytest.fixture(scope="session")
def sequence_config() -> SequenceConfig:
    return SequenceConfig(
        shape=SHAPE, spacing_mm=SPACING, widths=(8, 16), latent=6, code=4, mapping_width=16,
        mapping_depth=3, frames=FRAMES, frames_per_step=2, harmonics=2, evidence_share=0.5,
        fit=FitConfig(
            steps=150, batch_size=8, learning_rate=8e-3, warmup_steps=10, free_bits=0.02,
            validate_every=150,
        ),
    )  # fmt: skip


@pytest.fixture(scope="session")
def sequence_examples():
    return population_examples(52, 2, heart_grid(SHAPE, SPACING), Slots(FRAMES))


@pytest.fixture(scope="session")
def held_out():
    return population_examples(8, 2, heart_grid(SHAPE, SPACING), Slots(FRAMES), first=1000)


@pytest.fixture(scope="session")
def sequence_model(sequence_examples, held_out, sequence_config):
    """Trained for some seconds."""
    config = sequence_config.model_copy(update={"temporal": "periodic", "encoder_frame": "any"})
    return train_sequence(sequence_examples, config, validation=held_out, device="cpu")


@pytest.fixture(scope="session")
def lstm_model(sequence_examples, sequence_config):
    """Hardly trained."""
    config = sequence_config.model_copy(
        update={"prior": "standard", "fit": FitConfig(steps=3, batch_size=4)}
    )
    return train_sequence(sequence_examples.subset(range(8)), config, device="cpu")
