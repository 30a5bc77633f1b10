"""Paths begin at z and close, frames go to their own base, gradients reach everything."""

from functools import partial

import numpy as np
import pytest
import torch

from cardiogen.engine.fit import StepInfo, keyed_layers
from cardiogen.models.sequence import (
    LstmPath,
    PeriodicPath,
    SequenceTask,
    at_own_base,
)
from cardiogen.models.sequence.train import encoded_ed
from cardiogen.models.voxel import (
    Slots,
    base_height_mm,
    drawn_latents,
    heart_grid,
    mean_base_mm,
    population_examples,
)

INFO = StepInfo(step=0, steps=1, epoch=0, kl_weight=1.0, free_bits=0.0, device=torch.device("cpu"))


def paths() -> list[torch.nn.Module]:
    with keyed_layers(1, "test"):
        return [LstmPath(4, 7), PeriodicPath(4, 3, 2)]


@pytest.mark.parametrize("number", [0, 1], ids=["lstm", "periodic"])
def test_a_path_begins_at_z_and_closes_exactly(number):
    path = paths()[number]
    z, code = torch.randn(3, 4), torch.randn(3, 3)
    phases = torch.tensor([0.0, 0.31, 1.0, 1.31, -0.69, 2.0], dtype=torch.float64)
    found = path(z, code, phases)
    assert found.shape == (3, 6, 4)
    assert torch.equal(found[:, 0], z)
    assert torch.equal(found[:, 0], found[:, 2])
    assert torch.equal(found[:, 0], found[:, 5])
    torch.testing.assert_close(found[:, 3], found[:, 1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[:, 4], found[:, 1], atol=1e-5, rtol=1e-5)
    assert not torch.equal(found[:, 1], z)
    one_by_one = torch.stack([path(z, code, t[None])[:, 0] for t in phases], dim=1)
    torch.testing.assert_close(one_by_one, found)


def test_between_frames_an_lstm_path_is_straight_and_the_last_leads_to_the_first():
    path = paths()[0]
    z, code = torch.randn(2, 4), torch.randn(2, 3)
    found = path(z, code, torch.tensor([2 / 7, 2.25 / 7, 3 / 7, 6 / 7, 6.5 / 7]))
    torch.testing.assert_close(found[:, 1], 0.75 * found[:, 0] + 0.25 * found[:, 2])
    torch.testing.assert_close(found[:, 4], (found[:, 3] + z) / 2)


def test_a_periodic_path_is_its_series():
    path = paths()[1]
    z, code = torch.randn(1, 4), torch.randn(1, 3)
    t = np.arange(64) / 64
    found = path(z, code, torch.from_numpy(t))[0].detach().numpy()
    # Two harmonics and a constant: nothing else is in the spectrum.
    spectrum = np.abs(np.fft.rfft(found, axis=0)) / 64
    assert spectrum[3:].max() < 1e-6
    assert spectrum[1:3].min() > 1e-4


@pytest.fixture(scope="module")
def fine():
    return population_examples(3, 4, heart_grid((50, 36, 38), (3.0, 3.6, 3.5)), Slots(4))


def test_a_frame_moves_to_its_own_base(fine):
    labels = fine.labels(1)
    heights = [base_height_mm(frame, fine.lattice) for frame in labels]
    assert abs(heights[0]) < 2.0
    assert min(heights) < -5.0
    for frame in labels:
        moved = at_own_base(frame, fine.lattice)
        # Half a voxel at most is left.
        assert abs(base_height_mm(moved, fine.lattice)) < 1.6
        assert moved.any(axis=(1, 2)).sum() == frame.any(axis=(1, 2)).sum()
        pushed = np.roll(frame, 4, axis=0)
        np.testing.assert_array_equal(at_own_base(pushed, fine.lattice), moved)
    means = mean_base_mm(fine)
    assert means[0] == 0.0
    each = [[base_height_mm(f, fine.lattice) for f in fine.labels(i)] for i in range(3)]
    np.testing.assert_allclose(means[1:], np.mean(each, axis=0)[1:], rtol=1e-6)


@pytest.mark.parametrize(("temporal", "frame"), [("lstm", "ed"), ("periodic", "any")])
def test_gradients_reach_every_parameter(sequence_examples, sequence_config, temporal, frame):
    config = sequence_config.model_copy(
        update={"temporal": temporal, "encoder_frame": frame, "condition_dropout": 0.4}
    )
    with keyed_layers(6, "test"):
        task = SequenceTask(sequence_examples.subset(range(8)), config)
    generator = torch.Generator().manual_seed(0)
    losses = task.loss(task.batch(range(8), generator), step=INFO, generator=generator)
    losses["loss"].backward()
    missing = [n for n, p in task.module.named_parameters() if not p.grad.abs().max() > 0]
    assert not missing


def test_a_step_sees_some_frames_and_the_encoder_end_diastole(sequence_examples, sequence_config):
    task = SequenceTask(sequence_examples, sequence_config)
    batch = task.batch([4, 9], torch.Generator().manual_seed(2))
    assert batch["labels"].shape[:2] == (2, 2)
    assert batch["input_phase"].tolist() == [0.0, 0.0]
    np.testing.assert_array_equal(batch["input"][1], sequence_examples.labels(9, [0])[0])
    for row, index in enumerate((4, 9)):
        slots = (batch["phases"][row] * 6).round().long().tolist()
        assert sorted(set(slots)) == slots
        truth = sequence_examples.labels(index, slots)
        np.testing.assert_array_equal(batch["labels"][row], truth)


def test_latents_are_drawn_heart_by_heart(sequence_examples, sequence_config):
    network = SequenceTask(sequence_examples, sequence_config).module

    def drawn(indices):
        part = sequence_examples.subset(indices)
        encode = partial(encoded_ed, network, part)
        return drawn_latents(encode, len(part), seed=sequence_config.fit.seed, kind="sequence")

    latents = drawn([5, 2])
    assert latents.shape == (2, 6)
    np.testing.assert_array_equal(drawn([5, 2]), latents)
    np.testing.assert_array_equal(drawn([5])[0], latents[0])
