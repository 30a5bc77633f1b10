"""Slots, examples, latents and losses have closed forms."""

import math

import numpy as np
import pytest
import torch

from cardiogen.base import CardiogenError
from cardiogen.data.factors import Factors
from cardiogen.data.grid import Grid
from cardiogen.data.sequence import Sequence
from cardiogen.models.protocol import encode_condition
from cardiogen.models.voxel import (
    CodedLatents,
    LabelExample,
    LabelExamples,
    LatentPrior,
    Slots,
    VoxelConfig,
    beats,
    channels,
    describe_factors,
    encoded,
    fit_prior,
    from_plain,
    hard_labels,
    label_losses,
    mean_dice,
    pack,
    standard_prior,
    to_plain,
)

GRID = Grid.regular((3, 5, 4), (3.0, 2.0, 2.5))
NAN = float("nan")


def sequence(phases, **named) -> Sequence:
    labels = np.zeros((len(phases), *GRID.shape), np.uint8)
    return Sequence(phases=np.array(phases), labels=labels, grid=GRID, **named)


@pytest.mark.parametrize(
    ("frames", "names", "phases"),
    [("ed", ("ed",), [0.0]), ("ed+es", ("ed", "es"), [0.0, 0.3]), (4, (), [0, 0.25, 0.5, 0.75])],
)
def test_slots_have_names_or_equal_steps(frames, names, phases):
    slots = Slots(frames)
    assert len(slots) == len(phases)
    assert slots.names == names
    np.testing.assert_allclose(slots.phases(0.3), phases)


def test_every_slot_takes_the_frame_nearest_to_it():
    assert Slots(4).place(sequence([0.0, 0.2, 0.28, 0.97])) == [0, 2, None, None]
    assert Slots("ed+es").place(sequence([0.4, 0.0], ed=1, es=0)) == [1, 0]
    assert Slots("ed+es").place(sequence([0.0], ed=0)) == [0, None]
    assert Slots("ed+es").place(sequence([0.35], ed=0, es=0)) == [None, 0]


def cohort(count: int = 6) -> LabelExamples:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 4, (count, 2, *GRID.shape)).astype(np.uint8)
    examples = tuple(
        LabelExample((pack(row[0]), pack(row[1]) if n else None), Factors(age=30.0 + n), 0.3)
        for n, row in enumerate(labels)
    )
    return LabelExamples(GRID, Slots("ed+es"), examples)


def test_packed_labels_come_back_and_missing_frames_are_empty():
    examples = cohort()
    first = examples.labels(0)
    assert first.shape == (2, *GRID.shape)
    assert first[0].max() == 3
    assert first[1].max() == 0
    np.testing.assert_array_equal(examples.labels(4, [1])[0], examples.labels(4)[1])
    assert examples.examples[0].present.tolist() == [True, False]
    part = examples.subset([4, 1])
    np.testing.assert_array_equal(part.labels(0), examples.labels(4))
    assert part.conditions()[:, 0].tolist() == [34.0, 31.0]
    assert examples.es_phase == pytest.approx(0.3)


def test_a_fingerprint_knows_labels_order_and_factors():
    examples = cohort()
    wider = Grid.regular((3, 5, 4), (3.0, 2.0, 2.6))
    prints = {
        examples.fingerprint(),
        examples.subset([1, 0, 2, 3, 4, 5]).fingerprint(),
        examples.subset(range(5)).fingerprint(),
        LabelExamples(wider, examples.slots, examples.examples).fingerprint(),
    }
    assert len(prints) == 4
    assert examples.fingerprint() == cohort().fingerprint()


def test_too_few_hearts_are_refused():
    with pytest.raises(CardiogenError, match="C28 cohort: found 4 hearts"):
        cohort(4).require_enough()


def test_factors_are_described_by_what_is_known():
    conditions = torch.tensor([[30.0, NAN], [50.0, NAN], [NAN, NAN]], dtype=torch.float64)
    center, scale, limits = describe_factors(conditions)
    np.testing.assert_allclose(center, [40.0, 0.0])
    np.testing.assert_allclose(scale, [10.0, 1.0])
    np.testing.assert_allclose(limits[0], [30.0, 50.0])
    assert limits[1, 0] > limits[1, 1]


def test_a_standard_prior_is_standard_and_knows_its_range():
    conditions = torch.stack([encode_condition(Factors(age=a, sex="F")) for a in (30.4, 60.2)])
    prior = standard_prior(3, conditions)
    z = prior.z(conditions[0])
    torch.testing.assert_close(z.covariance, torch.eye(3, dtype=torch.float64))
    prior.check_condition(encode_condition(Factors(age=61.0)))
    with pytest.raises(CardiogenError, match="D01 age: found 62 years; expected 30 to 61 years"):
        prior.check_condition(encode_condition(Factors(age=62.0)))
    with pytest.raises(CardiogenError, match=r"D01 height: .* the training data do not have it"):
        prior.check_condition(encode_condition(Factors(height=170.0)))
    again = LatentPrior.from_tensors(prior.tensors(), 3)
    np.testing.assert_array_equal(again.factor_range, prior.factor_range)


def complete(count: int) -> list[Factors]:
    rng = np.random.default_rng(1)
    return [
        Factors(
            age=rng.uniform(20, 80),
            sex="FM"[n % 2],
            height=rng.normal(170, 8),
            weight=rng.normal(75, 8),
            sbp=rng.normal(125, 10),
        )
        for n in range(count)
    ]


def test_a_fitted_prior_finds_slope_and_spread_and_is_kept_exactly():
    subjects = complete(400)
    conditions = torch.stack([encode_condition(f) for f in subjects])
    noise = np.random.default_rng(0).normal(size=(400, 2))
    latents = 0.05 * (conditions[:, :1].numpy() - 50) * [1.0, -2.0] + noise * [0.5, 0.1]
    prior = fit_prior(latents, subjects, conditions)
    z = prior.z(conditions[0])
    expected = 0.05 * (subjects[0].age - 50) * np.array([1.0, -2.0])
    np.testing.assert_allclose(z.mean, expected, atol=0.2)
    np.testing.assert_allclose(z.covariance.diagonal().sqrt(), [0.5, 0.1], rtol=0.2)
    again = LatentPrior.from_tensors(prior.tensors(), 2)
    assert torch.equal(again.z(conditions[3]).mean, prior.z(conditions[3]).mean)
    assert torch.equal(again.z(conditions[3]).covariance, prior.z(conditions[3]).covariance)


def test_a_fitted_prior_needs_all_factors():
    subjects = [*complete(44), Factors(age=40.0, sex="F")]
    conditions = torch.stack([encode_condition(f) for f in subjects])
    with pytest.raises(CardiogenError, match="C29 cohort: found 1 of 45 hearts"):
        fit_prior(np.zeros((45, 2)), subjects, conditions)


def test_coded_latents_draw_z_and_keep_the_code():
    latents = encoded(torch.tensor([1.0, -2.0]), torch.tensor([0.0, -2.0]), torch.tensor([7.0]))
    assert latents.mean.tolist() == [1.0, -2.0, 7.0]
    generator = torch.Generator().manual_seed(1)
    drawn = torch.stack([latents.sample(generator) for _ in range(4000)])
    assert (drawn[:, 2] == 7.0).all()
    np.testing.assert_allclose(drawn[:, :2].std(dim=0), [1.0, math.exp(-1.0)], rtol=0.05)
    at_mean = -math.log(2 * math.pi) + 1.0
    assert float(latents.log_prob(latents.mean)) == pytest.approx(at_mean, abs=1e-5)
    assert isinstance(latents, CodedLatents)


def test_losses_of_even_odds_and_of_certainty():
    labels = torch.from_numpy(cohort().labels(3))[None]
    here = torch.ones(1, 2, dtype=torch.bool)
    even = torch.full((1, 2, 4, *GRID.shape), 0.25)
    losses = label_losses(even, labels, here, spacing=GRID.spacing)
    assert float(losses["cross_entropy"]) == pytest.approx(-math.log(0.999 / 4 + 1e-3), rel=1e-5)
    certain = channels(labels, here).unflatten(1, (2, 4))
    losses = label_losses(certain, labels, here, spacing=GRID.spacing)
    assert float(losses["dice"]) == pytest.approx(0.0, abs=1e-6)
    assert float(losses["cross_entropy"]) == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_array_equal(hard_labels(certain[0]), labels[0])


def test_missing_frames_do_not_count():
    labels = torch.from_numpy(np.stack([cohort().labels(i) for i in (1, 2)]))
    present = torch.tensor([[True, True], [True, False]])
    probs = torch.rand(2, 2, 4, *GRID.shape, generator=torch.Generator().manual_seed(0))
    whole = label_losses(probs, labels, present, spacing=GRID.spacing)
    probs[1, 1], labels[1, 1] = 0.1, 0
    again = label_losses(probs, labels, present, spacing=GRID.spacing)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert channels(labels, present)[1, 4:].abs().max() == 0


def test_overlap_of_equal_absent_and_shifted_structures():
    one = np.zeros((1, 1, 8), np.uint8)
    one[..., 0:4], one[..., 6:] = 1, 3
    other = np.zeros_like(one)
    other[..., 2:6], other[..., 6:] = 1, 3
    np.testing.assert_allclose(mean_dice(one, other), [0.5, np.nan, 1.0])


def test_a_heart_beats_if_it_is_whole_and_empties():
    labels = np.zeros((2, *GRID.shape), np.uint8)
    labels[:, 0], labels[:, 1], labels[:, 2, :3] = 1, 2, 3
    labels[1, 0, 0], labels[1, 2, 0] = 2, 0
    assert beats(labels, GRID)
    assert not beats(labels[::-1], GRID)
    assert beats(labels[:1], GRID)
    labels[1][labels[1] == 3] = 0
    assert not beats(labels, GRID)


def test_a_config_becomes_numbers_and_strings_and_comes_back():
    config = VoxelConfig(shape=(7, 10, 13), spacing_mm=(8.0, 1.4, 1.9), widths=(4,), latent=3)
    plain = to_plain(config)
    assert plain["shape"] == "7 10 13"
    assert "fit" not in plain
    assert from_plain(VoxelConfig, plain) == config
