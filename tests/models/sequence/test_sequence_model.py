"""The sequence model beats, completes a heart from a frame and comes back from its tensors."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cardiogen.base import CardiogenError
from cardiogen.data.factors import Factors
from cardiogen.data.labels import Structure
from cardiogen.data.sequence import Sequence
from cardiogen.engine.fit import FitConfig
from cardiogen.models.protocol import encode_condition
from cardiogen.models.sequence import SequenceConfig, sequence_from_tensors, train_sequence
from cardiogen.models.voxel import LabelExamples, Slots, mean_dice, posed_grid
from cardiogen.population import typical_pose
from cardiogen.synthesis import decode_sequence

UNKNOWN = encode_condition(Factors())
PHASES = np.arange(6) / 6


def decoded(model, examples, index: int) -> np.ndarray:
    latents = model.encode(examples.labels(index)[0], 0.0, examples.conditions([index])[0])
    return model.decode_labels(latents.mean, PHASES)[0]


def test_the_cycle_is_completed_better_than_by_a_heart_that_stands_still(sequence_model, held_out):
    ours, still = [], []
    for i in range(len(held_out)):
        truth = held_out.labels(i)
        frames = decoded(sequence_model, held_out, i)
        ours.append([mean_dice(frames[k], truth[k]) for k in (2, 3)])
        still.append([mean_dice(truth[0], truth[k]) for k in (2, 3)])
    gain = np.mean(ours, axis=(0, 1)) - np.mean(still, axis=(0, 1))
    assert gain.mean() > 0.02, gain


def test_end_diastolic_volumes_are_recognized(sequence_model, held_out):
    ours, truth = (
        [(labels[0] == Structure.LV).sum() for labels in cohort]
        for cohort in (
            [decoded(sequence_model, held_out, i) for i in range(len(held_out))],
            [held_out.labels(i) for i in range(len(held_out))],
        )
    )
    assert np.corrcoef(ours, truth)[0, 1] > 0.7


def test_generated_hearts_beat_and_close(sequence_model):
    prior = sequence_model.prior(encode_condition(Factors(age=50.0, sex="F")))
    generator = torch.Generator().manual_seed(0)
    latents = [prior.sample(generator) for _ in range(6)]
    assert sum(sequence_model.is_possible(z) for z in latents) >= 5
    assert 0.0 < sequence_model.end_systole(prior.mean) < 0.7
    frames, _ = sequence_model.decode_labels(latents[0], [0.0, 1.0, 0.3])
    np.testing.assert_array_equal(frames[0], frames[1])
    alone, _ = sequence_model.decode_labels(latents[0], [0.3])
    np.testing.assert_array_equal(frames[2], alone[0])
    sizes = [(sequence_model.decode_labels(z, [0.0])[0] == Structure.LV).sum() for z in latents]
    assert np.std(sizes) > 0


@pytest.mark.parametrize("name", ["sequence_model", "lstm_model"])
def test_a_model_comes_back_from_its_tensors_exactly(request, name):
    sequence_model = request.getfixturevalue(name)
    tensors, architecture = sequence_model.tensors(), sequence_model.architecture()
    assert all(t.dtype == np.float32 and np.isfinite(t).all() for t in tensors.values())
    again = sequence_from_tensors(tensors, architecture)
    condition = encode_condition(Factors(sex="M"))
    assert torch.equal(again.prior(condition).mean, sequence_model.prior(condition).mean)
    np.testing.assert_array_equal(again.base_mm, sequence_model.base_mm)
    latent = sequence_model.prior(condition).sample(torch.Generator().manual_seed(1))
    ours, theirs = (m.decode_labels(latent, [0.0, 0.4])[0] for m in (again, sequence_model))
    np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match="tensors must be those of the architecture"):
        sequence_from_tensors(tensors, dict(architecture) | {"code": 5})


def scan(examples, frame: int, phase: float) -> Sequence:
    """One frame of a heart placed in a world: its lattice through a pose."""
    return Sequence(
        phases=np.array([phase]), es=0 if frame else None,
        labels=examples.labels(3)[[frame]], grid=posed_grid(examples.lattice, typical_pose()),
    )  # fmt: skip


def test_end_diastole_gives_the_cycle_in_the_patients_world(sequence_model, held_out):
    observed = scan(held_out, 0, 0.0)
    condition = held_out.conditions([3])[0]
    posterior = sequence_model.posterior(observed, condition)
    completed = decode_sequence(
        sequence_model, posterior.latents.mean, list(PHASES), pose=posterior.pose
    )
    assert completed.ed == 0
    ours = completed.grid.to_world(np.argwhere(completed.labels[0] > 0)).mean(axis=0)
    theirs = observed.grid.to_world(np.argwhere(observed.labels[0] > 0)).mean(axis=0)
    assert np.linalg.norm(ours - theirs) < 4.0


def test_another_frame_needs_an_encoder_that_has_learned_it(sequence_model, lstm_model, held_out):
    observed = scan(held_out, 2, 2 / 6)
    with pytest.raises(CardiogenError, match=r"L49 heart: found phase 0\.333333"):
        lstm_model.posterior(observed, UNKNOWN)
    posterior = sequence_model.posterior(observed, UNKNOWN)
    labels, lattice = sequence_model.decode_labels(posterior.latents.mean, [2 / 6])
    world = posed_grid(lattice, posterior.pose)
    ours = world.to_world(np.argwhere(labels[0] > 0)).mean(axis=0)
    theirs = observed.grid.to_world(np.argwhere(observed.labels[0] > 0)).mean(axis=0)
    # Voxels are 11 mm here.
    assert np.linalg.norm(ours - theirs) < 6.0


def test_meshes_and_odd_factors_are_refused(sequence_model):
    with pytest.raises(CardiogenError, match="U12 model: found meshes asked"):
        sequence_model.decode(sequence_model.prior(UNKNOWN).mean, [0.0])
    with pytest.raises(CardiogenError, match="D01 age: found 95 years"):
        sequence_model.check_condition(encode_condition(Factors(age=95.0)))


def only_frames(examples: LabelExamples, kept: tuple[int, ...]) -> LabelExamples:
    """The same hearts with fewer frames observed, and unknown but for their age."""
    parts = tuple(
        replace(
            e,
            frames=tuple(f if k in kept else None for k, f in enumerate(e.frames)),
            factors=Factors(age=e.factors.age),
        )
        for e in examples.examples
    )
    return replace(examples, examples=parts)


def test_hearts_with_two_frames_train_a_model_too(sequence_examples, sequence_config):
    few = only_frames(sequence_examples.subset(range(8)), (0, 2))
    settings = sequence_config.model_copy(
        update={
            "prior": "standard",
            "encoder_frame": "any",
            "fit": FitConfig(steps=2, batch_size=4),
        }
    )
    model = train_sequence(few, settings, device="cpu")
    assert model.decode_labels(model.prior(UNKNOWN).mean, PHASES)[0].shape[0] == 6
    with pytest.raises(CardiogenError, match="L49 population_000000: found no end-diastolic"):
        train_sequence(only_frames(few, (2,)), settings, device="cpu")


def test_examples_of_another_shape_or_rhythm_are_refused(sequence_examples, sequence_config):
    with pytest.raises(ValueError, match="examples must have the frames 9, got 6"):
        train_sequence(sequence_examples, sequence_config.model_copy(update={"frames": 9}))
    other = SequenceConfig(shape=(10, 10, 10), spacing_mm=(12.0, 12.0, 12.0), frames=6)
    with pytest.raises(ValueError, match=r"examples must lie on heart_grid\(10, 10, 10\)"):
        train_sequence(sequence_examples, other)
    assert sequence_examples.slots == Slots(6)
