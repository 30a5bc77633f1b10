"""Slips of vertices, and motion that would fold."""

import numpy as np
import pytest
import torch

from cardiogen import ops
from cardiogen.data.sequence import Sequence
from cardiogen.measure.crossing import crossing_faces
from cardiogen.measure.cycle_validity import check_cycle
from cardiogen.models.deformation.decoder import Frames
from cardiogen.models.deformation.slips import (
    Slips,
    away_from_insertion,
    regress_slips,
    without_crossing,
)
from cardiogen.models.deformation.steepness import sound_scores, steepest, steepness


def motion_of(decoder, scores):
    _, motion = decoder.modes.heart_velocities(scores, [0.3, 0.4])
    return torch.from_numpy(motion).float()


def folds(decoder, scores):
    moved = decoder.template.displacement(motion_of(decoder, scores))
    return bool(ops.folding(moved).mask.any())


def test_slips_are_regressions_of_reduced_rank():
    rng = np.random.default_rng(2)
    told, slopes = rng.normal(size=(400, 6)), rng.normal(size=(6, 2)) @ rng.normal(size=(2, 15))
    left = (told @ slopes).reshape(-1, 5, 3)
    weights, ways = regress_slips(told, left, 2)
    assert weights.shape == (2, 6)
    assert ways.shape == (2, 5, 3)
    np.testing.assert_allclose(np.einsum("rk,rvc->kvc", weights, ways), slopes.reshape(6, 5, 3),
                               rtol=5e-3, atol=5e-3)  # fmt: skip
    # Of what varies most: a third way that hardly does is the one that rank 2 leaves out.
    third = told[:, :1] * rng.normal(size=15) * 1e-2
    weights, ways = regress_slips(told, left + third.reshape(-1, 5, 3), 2)
    missed = np.einsum("mk,rk,rvc->mvc", told, weights, ways) - left
    assert np.abs(missed).max() < 0.1


def test_slips_of_one_heart_and_of_many_agree():
    rng = np.random.default_rng(3)
    slips = Slips(*(rng.normal(size=s) for s in ((2, 4), (2, 5, 3), (3, 6), (3, 5, 3))))
    shapes, told = rng.normal(size=(7, 4)), rng.normal(size=(7, 2, 6))
    many = slips.hearts(torch.from_numpy(shapes), torch.from_numpy(told)).numpy()
    rest, beats = slips.resting(shapes[5]), slips.beating(told[5])
    assert np.abs(rest).max() > 0.1
    np.testing.assert_allclose(rest + beats, many[5], atol=1e-12)
    assert not slips.beats_alone().resting(shapes[5]).any()
    np.testing.assert_array_equal(slips.beats_alone().beating(told[5]), beats)


def test_slips_are_shortened_until_no_faces_cross(template):
    vertices, faces = template.opened(), template.topology.all_faces
    slip = np.zeros_like(vertices)
    # One vertex through the opposite wall, or somewhat up from where it is.
    vertex = int(template.topology.parts["lv_free_wall"][0, 0])
    slip[vertex] = 2.0 * (vertices.mean(axis=0) - vertices[vertex])
    assert len(crossing_faces(vertices + slip, faces))
    short = without_crossing(slip, vertices, faces)
    assert not len(crossing_faces(vertices + short, faces))
    share = short[vertex] @ slip[vertex] / (slip[vertex] @ slip[vertex])
    assert 0 <= share < 1
    np.testing.assert_allclose(short, share * slip, atol=1e-12)
    assert len(crossing_faces(vertices + (share + 0.1) * slip, faces))
    small = np.full_like(vertices, 1.0)
    assert without_crossing(small, vertices, faces) is small


def test_slips_end_where_the_right_wall_meets_the_septum(template):
    weights = away_from_insertion(template.vertices, template.topology)
    parts = template.topology.parts
    assert (weights[np.intersect1d(parts["septum"], parts["rv_free_wall"])] == 0).all()
    assert weights[np.unique(parts["lv_free_wall"])].max() == 1.0


def test_steep_motion_is_drawn_back_until_nothing_folds(small_model):
    decoder, typical = small_model.decoder, np.zeros(small_model.latent_size)
    way = np.zeros(len(typical))
    way[decoder.modes.ed_size] = 1.0
    frames = Frames(decoder, decoder.shape(typical))
    kept = sound_scores(frames, typical + 0.1 * way, [typical], lambda z: z)
    np.testing.assert_array_equal(kept, typical + 0.1 * way)
    for size in (-40.0, 40.0):
        far = typical + size * way
        if not folds(decoder, far):
            continue
        assert steepness(decoder.template.velocity(motion_of(decoder, far))) > 3.2
        back = sound_scores(frames, far, [typical], lambda z: z)
        assert not folds(decoder, back)
        share = (back - typical) @ way / size
        assert 0.05 < share < 1.0
        return
    pytest.fail("no motion that folds")


def test_fast_motion_is_drawn_back_until_it_is_as_fast_as_hearts(small_model):
    decoder, typical = small_model.decoder, np.zeros(small_model.latent_size)
    frames = Frames(decoder, decoder.shape(typical))

    def speed(scores):
        meshes = frames.at(scores, np.arange(0.40, 0.61, 0.04))
        return np.linalg.norm(np.diff(meshes, axis=0), axis=-1).max() / 0.04

    assert speed(typical) < 250.0
    way = np.zeros(len(typical))
    way[decoder.modes.ed_size :] = 1.0
    size = next(s for s in np.arange(2.0, 60.0) if speed(s * way) > 300.0)
    back = sound_scores(frames, size * way, [typical], lambda z: z)
    assert speed(back) <= 270.0 + 1e-6
    assert 0.0 < back[-1] < size


def test_cavities_fill_without_emptying_again(small_model):
    typical = np.zeros(small_model.latent_size)
    decoder = small_model.decoder
    frames = Frames(decoder, decoder.shape(typical))

    def minima(scores):
        heart = Sequence(
            phases=np.arange(25) / 25, vertices=frames.at(scores, np.arange(25) / 25),
            topology=small_model.topology, ed=0,
        )  # fmt: skip
        return [v for v in check_cycle(heart) if v.rule == "one-minimum"]

    rng, beats = np.random.default_rng(0), np.arange(len(typical)) >= decoder.modes.ed_size
    draws = (beats * rng.normal(size=len(typical)) for _ in range(40))
    twice = next(z * s for z in draws for s in (2.0, 4.0, 8.0) if minima(z * s))
    assert not minima(typical)
    back = sound_scores(frames, twice, [typical], lambda z: z)
    assert not minima(back)
    assert 0 < np.linalg.norm(back) < np.linalg.norm(twice)


def test_frames_are_those_of_the_decoder_and_made_once(small_model, monkeypatch):
    decoder, made = small_model.decoder, []
    rng = np.random.default_rng(1)
    scores = 0.5 * rng.normal(size=(2, small_model.latent_size))
    beating = type(decoder).beating

    def counted(self, shape, scores, phases):
        made.append(list(phases))
        return beating(self, shape, scores, phases)

    monkeypatch.setattr(type(decoder), "beating", counted)
    frames = Frames(decoder, decoder.shape(scores[0]))
    frames.at(scores[0], [0.4, 0.0])
    got = frames.at(scores[0], [0.0, 0.2, 0.4, 0.2])
    assert made == [[0.4, 0.0], [0.2]]
    np.testing.assert_array_equal(got, decoder.heart(scores[0], [0.0, 0.2, 0.4, 0.2]))
    other = frames.at(scores[1], [0.4])
    np.testing.assert_array_equal(other, beating(decoder, frames.shape, scores[1], [0.4]))
    assert not np.array_equal(other[0], got[2])


def test_bound_of_steepness_is_one(small_model):
    template, rng = small_model.decoder.template, np.random.default_rng(2)
    for size in (1.0, 10.0):
        params = size * rng.normal(size=(2, 3, template.size))
        true = steepness(template.velocity(torch.from_numpy(params).float()))
        assert steepest(template, params, enough=np.inf) >= true
        assert steepest(template, params, enough=0.0) == pytest.approx(true, rel=1e-5)
