"""Slips of vertices, and motion that would fold."""

import numpy as np
import pytest
import torch

from cardiogen import ops
from cardiogen.models.deformation.slips import Slips, away_from_insertion, regress_slips
from cardiogen.models.deformation.steepness import sound_scores, steepness


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
    np.testing.assert_allclose(slips.heart(shapes[5], told[5]), many[5], atol=1e-12)
    beats = slips.beats_alone().heart(shapes[5], told[5])
    rest = slips.heart(shapes[5], 0 * told[5])
    assert np.ptp(rest, axis=0).max() == 0
    assert np.abs(rest).max() > 0.1
    np.testing.assert_allclose(beats + rest, many[5], atol=1e-12)


def test_slips_end_where_the_right_wall_meets_the_septum(template):
    weights = away_from_insertion(template.vertices, template.topology)
    parts = template.topology.parts
    assert (weights[np.intersect1d(parts["septum"], parts["rv_free_wall"])] == 0).all()
    assert weights[np.unique(parts["lv_free_wall"])].max() == 1.0


def test_steep_motion_is_drawn_back_until_nothing_folds(small_model):
    decoder, typical = small_model.decoder, np.zeros(small_model.latent_size)
    way = np.zeros(len(typical))
    way[decoder.modes.ed_size] = 1.0
    shape = decoder.shape(typical)
    kept = sound_scores(decoder, typical + 0.1 * way, shape, [typical], lambda z: z)
    np.testing.assert_array_equal(kept, typical + 0.1 * way)
    for size in (-40.0, 40.0):
        far = typical + size * way
        if not folds(decoder, far):
            continue
        assert steepness(decoder.template.velocity(motion_of(decoder, far))) > 3.2
        back = sound_scores(decoder, far, shape, [typical], lambda z: z)
        assert not folds(decoder, back)
        share = (back - typical) @ way / size
        assert 0.05 < share < 1.0
        return
    pytest.fail("no motion that folds")


def test_fast_motion_is_drawn_back_until_it_is_as_fast_as_hearts(small_model):
    decoder, typical = small_model.decoder, np.zeros(small_model.latent_size)
    shape = decoder.shape(typical)

    def speed(scores):
        meshes = decoder.beating(shape, scores, np.arange(0.40, 0.61, 0.04))
        return np.linalg.norm(np.diff(meshes, axis=0), axis=-1).max() / 0.04

    assert speed(typical) < 250.0
    way = np.zeros(len(typical))
    way[decoder.modes.ed_size :] = 1.0
    size = next(s for s in np.arange(2.0, 60.0) if speed(s * way) > 300.0)
    back = sound_scores(decoder, size * way, shape, [typical], lambda z: z)
    assert speed(back) <= 270.0 + 1e-6
    assert 0.0 < back[-1] < size
