"""Completion of cycles from subsets of frames: an oracle errs nowhere, others as they are made."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cardiogen.evaluate.cycle_completion import COLUMNS, FRAMES, SUBSETS, cycle_completion
from cardiogen.evaluate.hearts import held_out
from cardiogen.models.protocol import Posterior
from cardiogen.population.anatomy import heart_vertices

from .conftest import Wrapped


@pytest.fixture(scope="module")
def hearts():
    return [held_out(3, "truth", i) for i in range(2)]


class Point:
    """Latents that are known: the number of a heart."""

    def __init__(self, number):
        self.mean = torch.tensor([float(number)])

    def sample(self, generator):
        return self.mean


class Oracle(Wrapped):
    """It recognizes hearts by their body size, and shows them larger by a factor."""

    def __init__(self, model, hearts, scale=1.0):
        super().__init__(model)
        self.hearts, self.scale, self.seen = hearts, scale, []

    def posterior(self, observed, condition, *, healthy=False):
        assert healthy
        self.seen.append((observed.phases, observed.ed))
        number = [h.factors.height for h in self.hearts].index(observed.factors.height)
        return Posterior(Point(number), self.hearts[number].pose)

    def is_possible(self, latent):
        return True

    def decode(self, latent, phases):
        heart = self.hearts[int(latent[0])]
        return self.scale * heart_vertices(heart.coordinates(np.asarray(phases)))


def values(result, method, seen_at):
    found = {x.metric: x for x in result.lines if x.method == method and x.of == f"from {seen_at}"}
    assert list(found) == [metric for metric, _ in COLUMNS]
    return np.array([line.value for line in found.values()], float)


def test_an_oracle_errs_nowhere_and_a_larger_one_by_its_scale(hearts, shipped, tiny):
    oracle, larger = Oracle(shipped.model, hearts), Oracle(shipped.model, hearts, 1.02)
    size = replace(tiny, cycled=2)
    result = cycle_completion(hearts, {"oracle": oracle, "larger": larger}, size, seed=0)
    for seen_at in SUBSETS:
        assert values(result, "oracle", seen_at) == pytest.approx([0.0] * 8 + [1.0], abs=1e-6)
    phases = np.arange(FRAMES) / FRAMES
    meshes = [heart_vertices(h.coordinates(phases)) for h in hearts]
    away = np.mean([0.02 * np.sqrt((m**2).sum(axis=-1).mean()) for m in meshes])
    found = values(result, "larger", "ED")
    assert found[:3] == pytest.approx([away] * 3, rel=1e-6)
    volumes = np.mean([h.phenotypes.lvedv for h in hearts])
    assert 0.6 * volumes < found[3] / (1.02**3 - 1) < 0.95 * volumes
    assert found[5:8] == pytest.approx([0.0, 0.0, 0.0], abs=1e-6)


def test_models_see_the_frames_that_are_told(hearts, shipped, tiny):
    oracle = Oracle(shipped.model, hearts)
    cycle_completion(hearts[:1], {"oracle": oracle}, tiny, seed=0)
    ed, both, fourth, random, middle = [phases for phases, _ in oracle.seen]
    es = round(hearts[0].timing.systole * FRAMES) / FRAMES
    assert ed.tolist() == [0.0]
    assert both.tolist() == [0.0, es]
    assert fourth == pytest.approx(np.arange(5) / 5)
    assert len(set(random)) == 3
    assert 0 < middle[0] < es
    assert [first for _, first in oracle.seen[:3]] == [0, 0, 0]


def test_what_is_refused_is_a_failure_and_no_number(hearts, models, tiny):
    result = cycle_completion(hearts, {"refusing": models["refusing"]}, tiny, seed=0)
    assert {(x.value, x.failures) for x in result.lines} == {(None, 1)}
    assert len(result.lines) == len(SUBSETS) * len(COLUMNS)


def test_a_model_of_single_phases_is_told_to_have_no_cycles(hearts, models, tiny):
    (line,) = cycle_completion(hearts, {"flat": models["flat"]}, tiny, seed=0).lines
    assert line.value is None
    assert "single phases" in line.reason
