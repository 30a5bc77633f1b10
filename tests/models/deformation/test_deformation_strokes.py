"""Stroke volumes: linear in latents, solved for by scores."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cardiogen.data.factors import Factors
from cardiogen.data.labels import Structure
from cardiogen.measure.volumes import mesh_volumes
from cardiogen.models.deformation.ejection import Ejection
from cardiogen.models.deformation.encoding import EncodedHeart
from cardiogen.models.deformation.patients import own_model
from cardiogen.models.deformation.strokes import _secant
from cardiogen.models.deformation.tensors import deformation_from_tensors, tensor_names
from cardiogen.models.deformation.training import fit_deformation
from cardiogen.models.protocol import encode_condition
from cardiogen.population.pose import typical_pose

UNKNOWN = encode_condition(Factors())


@pytest.fixture(scope="module")
def small_model(cohort, held, template):
    """Hearts mixed of five have little motion of their own: any is taken."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cardiogen.models.deformation.strokes._WEAKEST", 0.0)
        return fit_deformation(cohort, *held, template, ed_modes=4, fields=8, motion_modes=4)


@pytest.fixture(scope="module")
def latents(small_model):
    prior = small_model.prior(UNKNOWN)
    draws = (prior.sample(torch.Generator().manual_seed(k)) for k in range(6))
    return np.stack([draw.numpy() for draw in draws])


def strokes_of(model, scores) -> tuple[float, float, float]:
    """EF, RVSV / LVSV and the wall's ED / ES volume of scores, from meshes alone."""
    phase = float(model.strokes.stroke_phase[0])
    volumes = mesh_volumes(model.decoder.heart(scores, [0.0, phase]), model.topology)
    left, right = (volumes[s][0] - volumes[s][1] for s in (Structure.LV, Structure.RV))
    wall = volumes[Structure.MYO]
    return left / volumes[Structure.LV][0], right / left, wall[0] / wall[1]


def test_stroke_volumes_are_linear_in_latents(small_model, latents):
    strokes = small_model.strokes
    for latent in latents:
        told = strokes.stroke_origin + strokes.stroke_slopes @ (latent - strokes.stroke_mean)
        ejected, ratio, wall = strokes_of(small_model, small_model.scores(latent))
        assert np.log(ejected / (1 - ejected)) == pytest.approx(told[0], abs=3e-3)
        assert np.log(ratio) == pytest.approx(told[1], abs=3e-3)
        assert np.log(wall) == pytest.approx(told[2], abs=3e-3)


def test_the_slopes_are_derivatives_of_the_scores(small_model):
    strokes, rng = small_model.strokes, np.random.default_rng(4)
    way = rng.normal(size=small_model.latent_size) * 0.03
    below, above = (strokes_of(small_model, strokes.stroke_mean + sign * way) for sign in (-1, 1))
    logits = [np.log(e / (1 - e)) for e in (below[0], above[0])]
    slope = strokes.stroke_slopes @ way
    assert (logits[1] - logits[0]) / 2 == pytest.approx(slope[0], abs=2e-4)
    assert np.log(above[1] / below[1]) / 2 == pytest.approx(slope[1], abs=2e-4)
    assert np.log(above[2] / below[2]) / 2 == pytest.approx(slope[2], abs=2e-4)


def test_latents_and_scores_are_inverse_and_shape_is_left_alone(small_model, latents):
    shapes = small_model.decoder.modes.ed_size
    for latent in latents:
        scores = small_model.scores(latent)
        np.testing.assert_array_equal(scores[:shapes], latent[:shapes])
        assert not np.array_equal(scores, latent)
        again = small_model.strokes.latent(small_model.decoder, scores)
        np.testing.assert_allclose(again, latent, atol=0.05)


def test_impossible_strokes_end_in_a_heart(small_model, latents):
    far = latents[0] + 40.0 * small_model.strokes.stroke_slopes[1]
    scores = small_model.scores(np.where(np.arange(far.size) < 4, latents[0], far))
    assert np.isfinite(scores).all()
    beat = Ejection.of(small_model.decoder, scores, 0.4).emptied(scores)
    assert np.isfinite(beat).all()


def test_broydens_update_meets_the_last_step_and_stays_invertible():
    gain = np.array([[2.0, 0.3], [-0.4, 1.5]])
    way, gained = np.array([0.2, -0.1]), np.array([0.5, 0.1])
    after = _secant(gain, way, gained)
    np.testing.assert_allclose(after @ way, gained, atol=1e-12)
    across = np.array([0.1, 0.2])
    np.testing.assert_allclose(after @ across, gain @ across, atol=1e-12)
    assert _secant(gain, np.zeros(2), gained) is gain
    assert _secant(gain, way, np.zeros(2)) is gain


def test_bundles_keep_strokes_and_models_without_them_have_plain_scores(small_model, latents):
    tensors = small_model.tensors()
    again = deformation_from_tensors(tensors, small_model.architecture())
    latent = torch.from_numpy(latents[1])
    np.testing.assert_array_equal(again.decode(latent, [0.3]), small_model.decode(latent, [0.3]))
    plain = {name: a for name, a in tensors.items() if not name.startswith("stroke_")}
    assert set(tensor_names(plain)) == set(plain)
    model = deformation_from_tensors(plain, small_model.architecture())
    np.testing.assert_array_equal(model.scores(latents[1]), latents[1])


def test_hearts_without_factors_teach_modes_alone(cohort, held, template):
    some = replace(cohort, factors=(*cohort.factors[:50], *[Factors()] * 30))
    sizes = {"ed_modes": 3, "fields": 6, "motion_modes": 3}
    model = fit_deformation(some, *held, template, **sizes)
    whole = fit_deformation(cohort, *held, template, **sizes)
    np.testing.assert_array_equal(model.decoder.modes.ed_modes, whole.decoder.modes.ed_modes)
    assert not np.array_equal(model.latents.slopes, whole.latents.slopes)


def test_motion_that_was_seen_is_not_drawn_back(small_model, latents, monkeypatch):
    def halfway(frames, latent, anchors, solve):
        return solve((latent + anchors[0]) / 2)

    monkeypatch.setattr("cardiogen.models.deformation.model.sound_scores", halfway)
    latent, phases = latents[2], np.array([0.0, 0.4])
    plain = small_model.strokes.plain(latent)
    raw, drawn = small_model.solved_scores(latent), small_model.scores(latent)
    assert np.abs(raw - drawn).max() > 0.1
    np.testing.assert_array_equal(drawn, small_model.solved_scores((latent + plain) / 2))
    ed, motion = small_model.decoder.modes.heart_velocities(raw, phases)
    heart = EncodedHeart(typical_pose(), torch.from_numpy(ed).float(),
                         torch.from_numpy(motion).float(), phases)  # fmt: skip
    own = own_model(small_model, latent, heart)
    shown = heart.pose.to_heart(heart.meshes(small_model.decoder))
    np.testing.assert_allclose(own.decode(torch.from_numpy(latent), phases), shown, atol=0.05)
    # Of end diastole alone the motion is the model's, and drawn back as in the model.
    still = replace(heart, motion=heart.motion[:1], phases=phases[:1])
    own = own_model(small_model, latent, still)
    np.testing.assert_array_equal(own.scores(latent), drawn)


def test_plain_motion_keeps_shape_and_strokes(small_model, latents):
    strokes, still = small_model.strokes, small_model.decoder.modes.ed_size
    plain = strokes.plain(latents[3])
    np.testing.assert_array_equal(plain[:still], latents[3][:still])
    told = strokes.stroke_slopes @ (plain - latents[3])
    np.testing.assert_allclose(told, 0.0, atol=1e-9)
    # Of the strokes' own ways it takes what it must, and of all others none.
    ways = np.linalg.qr(strokes.stroke_ways)[0]
    rest = plain[still:] - strokes.stroke_mean[still:]
    np.testing.assert_allclose(rest, ways @ (ways.T @ rest), atol=1e-9)
    weaker = strokes.plain(latents[3], weaker=0.7)
    np.testing.assert_array_equal(weaker[:still], plain[:still])
    told = strokes.stroke_slopes @ (weaker - latents[3])
    np.testing.assert_allclose(told, [-0.7, 0.0, 0.0], atol=1e-9)
