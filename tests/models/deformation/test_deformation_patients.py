"""Encoding of label maps, what sets a heart apart, and adaptation to a cohort."""

import numpy as np
import pytest
import torch

from cardiogen import ops
from cardiogen.base import CardiogenError
from cardiogen.data.factors import Factors
from cardiogen.data.grid import Grid
from cardiogen.data.sequence import Sequence
from cardiogen.measure.overlap import dice
from cardiogen.models.cycle import fourier_basis
from cardiogen.models.deformation.adaptation import MotionGivenShape, shape_features
from cardiogen.models.deformation.cohort import CohortCodes, adapt, cohort_codes
from cardiogen.models.deformation.encoding import EncodedHeart
from cardiogen.models.deformation.individual import own_modes, seen_motion
from cardiogen.models.deformation.label_codes import LabelFitter
from cardiogen.models.deformation.model import DeformationModel
from cardiogen.models.deformation.occupancy import OccupancyMaps
from cardiogen.models.deformation.patients import patient_posterior
from cardiogen.population.pose import Pose, typical_pose
from cardiogen.population.render import render_labels, short_axis_grid

SPACING = (8.0, 3.0, 2.5)
PHASES = np.array([0.0, 0.35])


def scores_of(model: DeformationModel, seed: int) -> np.ndarray:
    prior = model.prior(torch.full((5,), torch.nan, dtype=torch.float64))
    return prior.sample(torch.Generator().manual_seed(seed)).numpy()


def seen_heart(model: DeformationModel, seed: int, pose: Pose) -> Sequence:
    vertices = pose.to_world(model.decode(torch.from_numpy(scores_of(model, seed)), PHASES))
    grid = short_axis_grid(vertices, pose, SPACING)
    topology = model.topology.mirrored() if pose.mirrored else model.topology
    labels = np.stack([render_labels(v, topology, grid) for v in vertices])
    return Sequence(phases=PHASES, ed=0, es=1, grid=grid, labels=labels, factors=Factors())


def oblique(mirrored: bool) -> Pose:
    typical = typical_pose()
    axes = typical.axes.copy()
    if mirrored:
        axes[:, 0] *= -1
    return Pose(axes, typical.origin + np.array([11.0, -7.0, 3.0]))


class TestOccupancy:
    def test_probabilities_sum_to_one_and_name_the_structure(self, template):
        maps = OccupancyMaps.of(template)
        generator = torch.Generator().manual_seed(0)
        low, high = (torch.from_numpy(f(template.vertices, axis=0)) for f in (np.min, np.max))
        points = low + (high - low) * torch.rand(4000, 3, generator=generator, dtype=low.dtype)
        probs = maps.log_probs(points.float()).exp()
        torch.testing.assert_close(probs.sum(1), torch.ones(4000))
        at = np.floor((points.numpy() - low.numpy()) / 2.0).astype(int)
        grid = Grid.regular(tuple(at.max(axis=0) + 2), (2.0,) * 3, tuple(low.numpy() + 1.0))
        truth = render_labels(template.vertices, template.topology, grid)[tuple(at.T)]
        assert (probs.argmax(1).numpy() == truth).mean() > 0.85

    def test_far_from_the_heart_log_probs_still_pull(self, template):
        maps = OccupancyMaps.of(template)
        center = torch.from_numpy(template.vertices.mean(axis=0)).float()
        point = (center + torch.tensor([0.0, 45.0, 0.0])).requires_grad_()
        maps.log_probs(point[None])[0, 2].backward()
        assert point.grad.norm() > 0.5 / maps.width_mm


class TestLabelFitter:
    def test_finds_a_mirrored_heart_in_its_labels_without_folds(self, small_model):
        pose = oblique(True)
        heart = seen_heart(small_model, 3, pose)
        template = small_model.decoder.template
        fitter = LabelFitter.of(template)
        start = torch.zeros(3, template.size)
        ed = fitter.fit(heart.labels[0], heart.grid, pose, start)
        es = fitter.fit(heart.labels[1], heart.grid, pose, start, onward=ed)
        found = EncodedHeart(pose, ed, torch.stack([start, es]), PHASES)
        topology = small_model.topology.mirrored()
        for vertices, labels in zip(found.meshes(small_model.decoder), heart.labels, strict=True):
            again = render_labels(vertices, topology, heart.grid)
            overlaps = [dice(again == s, labels == s) for s in (1, 2, 3)]
            assert min(overlaps) > 0.92, overlaps
        moved = template.displacement(torch.stack([ed, es]))
        assert float(ops.folding(moved).fraction.max()) == 0


class TestEncoder:
    def test_frames_without_end_diastole_are_refused(self, small_model):
        heart = seen_heart(small_model, 3, oblique(False))
        late = heart.with_(phases=np.array([0.35]), labels=heart.labels[1:], ed=0, es=0)
        with pytest.raises(CardiogenError, match="no frame at end diastole"):
            small_model.encoder.encode(late)


class TestOwnModes:
    def test_show_the_heart_exactly_where_it_was_seen(self, small_model):
        modes = small_model.decoder.modes
        rng = np.random.default_rng(0)
        scores = scores_of(small_model, 5)
        ed = rng.normal(size=modes.ed_mean.shape)
        phases = np.array([0.13, 0.4, 0.77])
        motion = rng.normal(size=(3, len(ed)))
        own = own_modes(modes, scores, ed, phases, motion)
        shape, beat = own.heart_velocities(scores, [0.0, *phases, 0.5])
        np.testing.assert_allclose(shape.ravel(), ed, atol=1e-9)
        np.testing.assert_array_equal(beat[0], 0)
        error = beat[1:4].reshape(3, -1) - motion
        assert np.abs(error).max() < 0.1 * np.abs(motion).max()
        assert np.abs(beat[4]).max() < 10 * np.abs(motion).max()

    @pytest.mark.parametrize("phases", [[0.02], [0.98], [0.3, 0.301]])
    def test_frames_that_say_little_are_not_magnified(self, small_model, phases):
        modes = small_model.decoder.modes
        scores = scores_of(small_model, 5)
        motion = np.random.default_rng(1).normal(size=(len(phases), len(modes.ed_mean)))
        plain = modes.heart_velocities(scores, np.arange(50) / 50)[1].reshape(50, -1)
        seen = modes.heart_velocities(scores, phases)[1].reshape(len(phases), -1)
        own = own_modes(modes, scores, modes.ed_mean, np.array(phases), seen + motion)
        added = own.heart_velocities(scores, np.arange(50) / 50)[1].reshape(50, -1) - plain
        assert np.abs(added).max() < 5 * np.abs(motion).max()

    def test_no_later_frame_leaves_motion_alone(self, small_model):
        modes = small_model.decoder.modes
        scores = scores_of(small_model, 6)
        own = own_modes(modes, scores, modes.ed_mean, np.zeros(0), np.zeros((0, 1)))
        np.testing.assert_array_equal(
            own.heart_velocities(scores, [0.3])[1], modes.heart_velocities(scores, [0.3])[1]
        )


class TestSeenMotion:
    def test_exact_velocities_give_the_scores_back(self, small_model):
        modes = small_model.decoder.modes
        scores = scores_of(small_model, 7)
        phases = np.arange(1, 20) / 20
        _, motion = modes.heart_velocities(scores, phases)
        beats = scores[modes.ed_size :]
        found, left = seen_motion(
            modes, phases, motion.reshape(len(phases), -1), np.zeros_like(beats),
            9 * np.eye(len(beats)), noise_mm=1e-3,
        )  # fmt: skip
        np.testing.assert_allclose(found, beats, atol=1e-3)
        assert np.linalg.eigvalsh(left).max() < 1e-3

    def test_nothing_seen_leaves_the_prior(self, small_model):
        modes = small_model.decoder.modes
        size = len(modes.motion_modes)
        mean, covariance = np.arange(size, dtype=float), np.eye(size)
        found, left = seen_motion(
            modes, np.array([0.3]), np.zeros((1, modes.fields.shape[1])), mean, covariance,
            noise_mm=1e9,
        )  # fmt: skip
        np.testing.assert_allclose(found, mean, atol=1e-6)
        np.testing.assert_allclose(left, covariance, atol=1e-6)


class TestMotionGivenShape:
    def test_learns_a_smooth_law_and_says_how_sure_it_is(self):
        rng = np.random.default_rng(1)

        def law(x: np.ndarray) -> np.ndarray:
            return np.stack([np.tanh(x[:, 0]), x[:, 1] - x[:, 2]], axis=1)

        def logits_of(x: np.ndarray) -> np.ndarray:
            return np.stack([x[:, 1] - x[:, 2], np.tanh(x[:, 0]) - x[:, 4]], axis=1)

        features, fresh = rng.normal(size=(60, 5)), rng.normal(size=(300, 5))
        noise = 0.2
        ejection = 1 / (1 + np.exp(-logits_of(features)))
        process = MotionGivenShape.fit(
            features, law(features) + noise * rng.normal(size=(60, 2)), ejection
        )
        truth = law(fresh) + noise * rng.normal(size=(300, 2))
        means, spreads = zip(*(process.given(row) for row in fresh), strict=True)
        error = truth - np.stack(means)
        spread = np.sqrt([np.diag(c) for c in spreads])
        assert (error**2).mean() < 0.35 * truth.var(axis=0).mean()
        logits = np.stack([process.logits_given(row) for row in fresh])
        missed = ((logits - logits_of(fresh)) ** 2).mean(axis=0)
        assert (missed < 0.3 * logits_of(fresh).var(axis=0)).all()
        inside = (np.abs(error) < 1.645 * spread).mean()
        assert 0.84 < inside < 0.97

    def test_far_from_all_subjects_it_returns_to_the_mean(self):
        rng = np.random.default_rng(2)
        process = MotionGivenShape.fit(
            rng.normal(size=(9, 5)), rng.normal(size=(9, 3)), rng.uniform(0.2, 0.7, size=(9, 2))
        )
        mean, _ = process.given(np.full(5, 1e3))
        np.testing.assert_allclose(mean, process.cohort_mean)


def some_codes(
    model: DeformationModel, scores: np.ndarray, rng: np.random.Generator
) -> CohortCodes:
    """Codes of subjects with one later frame, at a phase of its own each."""
    count, size = len(scores), model.decoder.modes.fields.shape[1]
    return CohortCodes(
        scores, tuple(rng.normal(size=(count, 1, size))),
        tuple(rng.uniform(0.3, 0.5, size=(count, 1))), rng.normal(size=(count, 5)),
        rng.uniform(0.3, 0.7, size=(count, 2)), (Factors(),) * count,
    )  # fmt: skip


@pytest.fixture(scope="module")
def adapted(small_model) -> DeformationModel:
    rng = np.random.default_rng(3)
    scores = np.stack([scores_of(small_model, k) for k in range(12)])
    scores[:, 0] += 4.0
    return adapt(small_model, some_codes(small_model, scores, rng))


class TestAdaptation:
    def test_the_prior_moves_to_the_cohort(self, small_model, adapted):
        before, after = small_model.encoder.typical, adapted.encoder.typical
        assert 3.0 < after[0] - before[0] < 5.0
        unknown = torch.full((5,), torch.nan, dtype=torch.float64)
        np.linalg.cholesky(adapted.prior(unknown).covariance.numpy())

    def test_round_trip_of_tensors(self, adapted):
        tensors = adapted.tensors()
        assert {"cohort_features"} < set(tensors)
        assert set(tensors) == set(DeformationModel.names(tensors))
        for name, shape in DeformationModel.shapes(tensors).items():
            assert tensors[name].shape == shape, name
        again = DeformationModel.from_tensors(tensors, adapted.architecture())
        latent = torch.from_numpy(scores_of(adapted, 1))
        np.testing.assert_array_equal(again.decode(latent, PHASES), adapted.decode(latent, PHASES))
        assert again.cohort is not None

    def test_a_patient_looks_as_observed_and_beats_as_the_cohort(self, adapted):
        pose = oblique(False)
        heart = seen_heart(adapted, 2, pose)
        still = heart.with_(phases=PHASES[:1], labels=heart.labels[:1], es=None)
        found = patient_posterior(adapted, still, torch.full((5,), torch.nan))
        latent = found.latents.mean
        vertices = found.pose.to_world(found.own.decode(latent, [0.0]))[0]
        again = render_labels(vertices, adapted.topology, heart.grid)
        assert min(dice(again == s, heart.labels[0] == s) for s in (1, 2, 3)) > 0.93
        both = patient_posterior(adapted, heart, torch.full((5,), torch.nan))
        size = adapted.decoder.modes.ed_size
        spreads = [np.trace(p.latents.covariance.numpy()[size:, size:]) for p in (found, both)]
        assert spreads[1] < spreads[0]

    def test_its_own_modes_give_the_cohort_back(self, small_model):
        scores = np.stack([scores_of(small_model, k) for k in range(6)])
        codes = some_codes(small_model, scores, np.random.default_rng(4))
        grown = adapt(small_model, codes)
        size, added = small_model.latent_size, grown.latent_size - small_model.latent_size
        assert 1 <= added <= 6
        modes = grown.decoder.modes
        series = small_model.decoder.modes
        for own, missed, phases in zip(scores, codes.leftover, codes.phases, strict=True):
            shown = modes.heart_velocities(np.pad(own, (0, added)), phases)[1].reshape(1, -1)
            wanted = series.heart_velocities(own, phases)[1].reshape(1, -1) + missed
            # Least squares in the added modes: nearly all that the shared ones left over.
            time = (
                modes.motion_modes[size - series.ed_size :]
                * modes.motion_scale[size - series.ed_size :, None]
            )
            curves = time.reshape(added, len(modes.fields), -1)
            ways = np.einsum("rfk,tk,fp->rp", curves, fourier_basis(phases), modes.fields)
            share, *_ = np.linalg.lstsq(ways.T, (wanted - shown)[0], rcond=None)
            left = (wanted - shown)[0] - share @ ways
            assert np.linalg.norm(left) < 0.05 * np.linalg.norm(missed)

    def test_too_few_subjects_are_refused(self, small_model):
        scores = np.zeros((4, small_model.latent_size))
        codes = some_codes(small_model, scores, np.random.default_rng(5))
        with pytest.raises(CardiogenError, match="4 subjects"):
            adapt(small_model, codes)


def test_features_are_indexed_to_body_size(template):
    plain = shape_features(template.vertices, template.topology, Factors())
    large = shape_features(template.vertices, template.topology, Factors(height=190, weight=110))
    grown = shape_features(1.1 * template.vertices, template.topology, Factors())
    area = np.sqrt(190 * 110 / 3600)
    assert large[0] - plain[0] == pytest.approx(np.log(1.85 / area))
    np.testing.assert_allclose(grown - plain, np.log(1.1) * np.array([3, 0, 0, 0, 3]), atol=1e-9)


def test_codes_of_a_heart_of_the_model_are_its_scores(small_model):
    scores = scores_of(small_model, 8)
    phases = np.arange(20) / 20
    ed, motion = small_model.decoder.modes.heart_velocities(scores, phases)
    heart = EncodedHeart(
        oblique(False), torch.from_numpy(ed).float(), torch.from_numpy(motion).float(), phases
    )
    codes = cohort_codes(small_model, [heart], [Factors()])
    modes = small_model.decoder.modes
    large = np.concatenate([modes.ed_scale, modes.motion_scale]) > 50.0
    assert large.any()
    np.testing.assert_allclose(codes.scores[0][large], scores[large], rtol=0.1, atol=0.1)
