"""Encoding of label maps, what sets a heart apart, and adaptation to a cohort."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cardiogen import ops
from cardiogen.base import CardiogenError
from cardiogen.data.cohort import load_sequence, read_cohort
from cardiogen.data.factors import Factors
from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.data.sequence import Sequence
from cardiogen.measure.crossing import crossing_faces
from cardiogen.measure.overlap import dice
from cardiogen.measure.volumes import label_volumes
from cardiogen.models.cycle import fourier_basis
from cardiogen.models.deformation.adaptation import MotionGivenShape, logit, shape_features
from cardiogen.models.deformation.cohort import (
    CohortCodes,
    by_stage,
    cohort_codes,
    ed_features,
    ed_scores,
    ejection_fractions,
    observed_codes,
)
from cardiogen.models.deformation.cohort_model import adapt
from cardiogen.models.deformation.encoding import EncodedHeart
from cardiogen.models.deformation.individual import own_modes, seen_motion
from cardiogen.models.deformation.label_codes import LabelFitter
from cardiogen.models.deformation.model import DeformationModel
from cardiogen.models.deformation.occupancy import OccupancyMaps
from cardiogen.models.deformation.patients import _ejecting, own_model, patient_posterior
from cardiogen.models.deformation.tensors import (
    deformation_from_tensors,
    tensor_names,
    tensor_shapes,
)
from cardiogen.models.store import load_model
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
            # The right base slips in ways that are too steep for velocities.
            assert min(overlaps) > 0.88, overlaps
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
            features, law(features) + noise * rng.normal(size=(60, 2)), ejection, [None] * 60
        )
        truth = law(fresh) + noise * rng.normal(size=(300, 2))
        means, spreads = zip(*(process.given(row) for row in fresh), strict=True)
        error = truth - np.stack(means)
        spread = np.sqrt([np.diag(c) for c in spreads])
        assert (error**2).mean() < 0.35 * truth.var(axis=0).mean()
        logits = np.stack([process.logits_given(row)[0] for row in fresh])
        missed = ((logits - logits_of(fresh)) ** 2).mean(axis=0)
        assert (missed < 0.3 * logits_of(fresh).var(axis=0)).all()
        inside = (np.abs(error) < 1.645 * spread).mean()
        assert 0.84 < inside < 0.99

    def test_names_of_groups_are_kept_whole_or_refused(self):
        rng = np.random.default_rng(6)
        told = rng.normal(size=(12, 5)), rng.normal(size=(12, 2)), rng.uniform(0.2, 0.8, (12, 2))
        names = ["a" + "é" * 20, "hypertrophic cardiomyopathy with obstruction", None] * 4
        assert MotionGivenShape.fit(*told, names).groups == tuple(sorted(names[:2]))
        with pytest.raises(CardiogenError, match="CG-C28 cohort: found a group called x"):
            MotionGivenShape.fit(*told, ["x" * 65, *names[1:]])

    def test_far_from_all_subjects_it_returns_to_the_mean(self):
        rng = np.random.default_rng(2)
        process = MotionGivenShape.fit(
            rng.normal(size=(9, 5)), rng.normal(size=(9, 3)), rng.uniform(0.2, 0.7, size=(9, 2)),
            [None] * 9,
        )  # fmt: skip
        mean, _ = process.given(np.full(5, 1e3))
        np.testing.assert_allclose(mean, process.cohort_mean)


class TestGroups:
    """LVEF differs between groups and not with shape; RVEF neither."""

    NAMES = ("DCM", "HCM", "Ärmel")
    OFFSETS = np.array([-1.5, 0.2, 1.3])
    NOISE = 0.1

    def fitted(self, *, known: bool = True) -> tuple[MotionGivenShape, np.ndarray]:
        """A process of 7 subjects in each of 3 groups, and the logits of LVEF ``(21,)``."""
        rng = np.random.default_rng(11)
        rows = np.arange(21) % 3
        logits = np.stack([self.OFFSETS[rows], np.full(21, 0.3)], axis=1)
        noise = self.NOISE * rng.normal(size=(21, 2))
        for row in range(3):
            noise[rows == row, 1] -= noise[rows == row, 1].mean()
        logits += noise
        groups = [self.NAMES[row] if known else None for row in rows]
        process = MotionGivenShape.fit(
            rng.normal(size=(21, 5)), rng.normal(size=(21, 2)), 1 / (1 + np.exp(-logits)), groups
        )
        return process, logits[:, 0]

    def test_far_from_all_shapes_the_groups_mean_is_left_but_shrunk(self):
        process, logits = self.fitted()
        assert process.cohort_logit_kernel[0, 1] > 1.0
        assert process.groups == tuple(sorted(self.NAMES))
        for k, name in enumerate(self.NAMES):
            found = process.logits_given(np.full(5, 1e3), name)[0][0] - logits.mean()
            wanted = logits[k::3].mean() - logits.mean()
            assert 0.8 < found / wanted <= 1.001, (name, found, wanted)

    def test_the_offset_in_closed_form(self):
        """Of subjects of one shape K = 1 1^T: offsets of n each are +-n share / (noise + n share).

        Signs differ between the groups, so that what all share, K, has no part in them.
        """
        logits = np.r_[np.full(5, -1.0), np.full(5, 1.0)]
        ejection = 1 / (1 + np.exp(-np.stack([logits, logits], axis=1)))
        process = MotionGivenShape.fit(
            np.tile([4.0, 0.1, -0.2, -1.5, 4.2], (10, 1)), np.arange(10.0)[:, None], ejection,
            ["a"] * 5 + ["b"] * 5,
        )  # fmt: skip
        share = process.cohort_logit_kernel[:, 1]
        far, variance = process.logits_given(np.full(5, 1e3), "b")
        np.testing.assert_allclose(far, 5 * share / (0.5 + 5 * share), rtol=1e-9)
        # The guess is a mean of the groups with weights 1/2 -+ h; all subjects share one shape's
        # value, the new shape has another. Scale: y^T K^-1 y / (N - 3).
        h = 2.5 * share / (0.5 + 5 * share)
        of_offsets, of_noise = 2 * (0.5 - h) ** 2, ((0.5 - h) ** 2 + (0.5 + h) ** 2) / 5
        left = 2.0 + 0.5 + share * of_offsets + 0.5 * of_noise
        np.testing.assert_allclose(variance, 10 / (0.5 + 5 * share) / 7 * left, rtol=1e-9)

    def test_what_does_not_differ_between_groups_gets_no_offset(self):
        process, _ = self.fitted()
        assert process.cohort_logit_kernel[1, 1] == 0.0

    def test_a_known_group_makes_surer(self):
        process, _ = self.fitted()
        shape = np.array([0.3, -0.2, 0.1, 0.5, -0.4])
        (_, told), (_, untold) = (process.logits_given(shape, g) for g in ("HCM", None))
        assert told[0] < 0.3 * untold[0]
        assert told[1] == untold[1]

    @pytest.mark.parametrize("group", [None, "", "NOR"])
    def test_unknown_groups_tell_nothing(self, group):
        process, _ = self.fitted()
        plain, _ = self.fitted(known=False)
        assert plain.groups == ()
        shape = np.array([0.3, -0.2, 0.1, 0.5, -0.4])
        np.testing.assert_array_equal(
            process.logits_given(shape, group), plain.logits_given(shape)
        )
        np.testing.assert_array_equal(plain.cohort_logit_kernel[:, 1], 0)


def some_codes(
    model: DeformationModel, scores: np.ndarray, rng: np.random.Generator
) -> CohortCodes:
    """Codes of subjects with one later frame, at a phase of its own each."""
    count, size = len(scores), model.decoder.modes.fields.shape[1]
    return CohortCodes(
        scores, tuple(rng.normal(size=(count, 1, size))),
        tuple(rng.uniform(0.3, 0.5, size=(count, 1))), rng.normal(size=(count, 5)),
        rng.uniform(0.3, 0.7, size=(count, 2)), (Factors(),) * count, (None,) * count,
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
        assert set(tensors) == set(tensor_names(tensors))
        for name, shape in tensor_shapes(tensors).items():
            assert tensors[name].shape == shape, name
        again = deformation_from_tensors(tensors, adapted.architecture())
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

    def test_samples_eject_as_surely_as_the_cohort_says(self, adapted):
        """To first order, draws have the variances that the logits were given."""
        scores = scores_of(adapted, 2)
        ed, motion = adapted.decoder.modes.heart_velocities(scores, np.zeros(1))
        still = EncodedHeart(
            oblique(False), torch.from_numpy(ed).float(), torch.from_numpy(motion).float(),
            np.zeros(1),
        )  # fmt: skip
        process = adapted.cohort
        size = adapted.decoder.modes.ed_size
        mean, covariance = process.given(ed_features(adapted.decoder, still, Factors()))
        shape = ed_scores(adapted.decoder, still)
        logits, variances = np.array([-0.1, 0.2]), np.array([0.05, 0.15])
        found, narrowed = _ejecting(adapted, still, shape, mean, covariance, logits, variances)
        assert len(found) == adapted.latent_size - size
        own = own_model(adapted, np.concatenate([shape, found]), still)
        values, vectors = np.linalg.eigh(narrowed)
        assert values.min() > -1e-6 * values.max()
        systole = own.end_systole(torch.from_numpy(np.concatenate([shape, found])))
        root = vectors * np.sqrt(np.maximum(values, 0))

        def seen(beats: np.ndarray) -> np.ndarray:
            meshes = own.decode(torch.from_numpy(np.concatenate([shape, beats])), [0.0, systole])
            return logit(ejection_fractions(meshes, adapted.topology))

        center = seen(found)
        np.testing.assert_allclose(center, logits, atol=0.05)
        step = 0.02
        slopes = np.stack([(seen(found + step * r) - center) / step for r in root.T], axis=1)
        np.testing.assert_allclose((slopes**2).sum(axis=1), variances, rtol=0.15)

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


class TestObservedCodes:
    def test_stages_keep_end_diastole_and_order(self):
        phases = np.array([0.0, 0.2, 0.4, 0.7, 0.99])
        staged = by_stage(phases, 0.4, 0.3)
        np.testing.assert_allclose(staged, [0.0, 0.15, 0.3, 0.65, 1 - 0.01 * 7 / 6])
        np.testing.assert_array_equal(by_stage(phases, 0.0, 0.3), phases)

    def test_timing_of_end_systole_says_nothing_and_labels_give_the_ejection(self, small_model):
        pose = oblique(True)
        early, late = np.array([0.0, 0.27]), np.array([0.0, 0.51])
        labels = seen_heart(small_model, 3, pose)
        ed, motion = small_model.decoder.modes.heart_velocities(
            scores_of(small_model, 3), labels.phases
        )
        pairs = [
            (
                labels.with_(phases=phases, group=group),
                EncodedHeart(
                    pose, torch.from_numpy(ed).float(), torch.from_numpy(motion).float(), phases
                ),
            )
            for phases, group in ((early, "a"), (late, None))
        ]
        codes = observed_codes(small_model, pairs)
        assert codes.groups == ("a", None)
        assert codes.of([1]).groups == (None,)
        np.testing.assert_array_equal(codes.scores[0], codes.scores[1])
        np.testing.assert_array_equal(codes.phases[0], codes.phases[1])
        volumes = label_volumes(labels.labels, labels.grid)
        seen = [1 - volumes[s][1] / volumes[s][0] for s in (Structure.LV, Structure.RV)]
        # The velocities are exact here: what meshes and their labels differ by is voxels.
        np.testing.assert_allclose(codes.ejection[0], seen, atol=0.05)
        smaller = labels.labels.copy()
        dropped = np.flatnonzero((smaller[1] == Structure.LV).any(axis=(1, 2)))[:1]
        smaller[1, dropped] = 0
        fewer = [(seen_.with_(labels=smaller), heart) for seen_, heart in pairs[:1]]
        again = observed_codes(small_model, fewer).ejection[0] - codes.ejection[0]
        lost = label_volumes(labels.labels[1:], labels.grid)
        left = label_volumes(smaller[1:], labels.grid)
        wanted = [(lost[s][0] - left[s][0]) / volumes[s][0] for s in (Structure.LV, Structure.RV)]
        np.testing.assert_allclose(again, wanted, atol=1e-9)


def test_the_wedge_of_a_patient_opens_until_nothing_crosses(real_data):
    model = load_model(None).model
    truth = load_sequence(read_cohort(real_data / "acdc_dev25")[0])
    still = truth.with_(labels=truth.labels[:1], phases=truth.phases[:1], es=None)
    unknown = torch.full((5,), torch.nan, dtype=torch.float64)
    found = model.posterior(still, unknown)
    decoder, scores = found.own.decoder, found.own.scores(found.latents.mean.numpy())
    phases, faces = np.arange(25) / 25, model.topology.all_faces

    def crossing(wedge_mm):
        meshes = replace(decoder, wedge_mm=wedge_mm).heart(scores, phases)
        return [len(crossing_faces(mesh, faces)) for mesh in meshes]

    assert max(crossing(2.0)) > 0
    assert decoder.wedge_mm > 2.0
    assert max(crossing(decoder.wedge_mm)) == 0
