"""Models that break one law each, and sizes that take seconds."""

import numpy as np
import pytest
import torch

from cardiogen.base import CardiogenError
from cardiogen.evaluate import Size
from cardiogen.models.protocol import Posterior
from cardiogen.models.store import load_model
from cardiogen.models.voxel import find_pose, heart_grid
from cardiogen.ops import one_hot
from cardiogen.population.pose import typical_pose
from cardiogen.population.render import render_labels


class Wrapped:
    """The shipped model, answering some calls in its own way."""

    def __init__(self, model):
        self.model = model

    def __getattr__(self, name):
        return getattr(self.model, name)


class Quick(Wrapped):
    """Its posterior is its prior: what was observed is not looked at."""

    def posterior(self, observed, condition, *, healthy=False):
        return Posterior(self.prior(condition), typical_pose())


class Cheap(Quick):
    """The mean heart, larger or smaller by the first latent, beating by the second."""

    def __init__(self, model):
        super().__init__(model)
        mean = model.prior(torch.full((5,), float("nan"), dtype=torch.float64)).mean
        self.ends = model.decode(mean, [0.0, model.end_systole(mean)])

    def decode(self, latent, phases):
        size, beat = np.exp(0.06 * float(latent[0])), 1.0 + 0.05 * float(latent[1])
        moved = beat * np.sin(np.pi * (np.asarray(phases) % 1.0)) ** 2
        ed, es = self.ends
        return size * (ed + moved[:, None, None] * (es - ed))


class Blind(Quick):
    """Every heart is drawn as if nothing were known."""

    def prior(self, condition):
        return self.model.prior(torch.full_like(condition, float("nan")))


class _Point:
    def __init__(self, mean):
        self.mean = mean

    def sample(self, generator):
        return self.mean


class Collapsed(Quick):
    """Every draw is the mean given the factors."""

    def prior(self, condition):
        return _Point(self.model.prior(condition).mean)


class Frozen(Cheap):
    """The same of the cheap model."""

    def prior(self, condition):
        return _Point(self.model.prior(condition).mean)


class Refusing(Quick):
    """Completes nothing and makes no heart."""

    def posterior(self, observed, condition, *, healthy=False):
        raise CardiogenError("L37", "frame 0", found="a", expected="b", remedy="c")

    def is_possible(self, latent):
        return False


class Flat(Quick):
    """A model of label maps at the phase of ED and at one of ES: there is no topology."""

    topology = None
    known_phases = (0.0, 0.3)

    def __init__(self, model):
        super().__init__(model)
        self.lattice = heart_grid((16, 15, 15), (9.0, 9.0, 9.0))
        mean = model.prior(torch.full((5,), float("nan"), dtype=torch.float64)).mean
        ends = model.decode(mean, [0.0, model.end_systole(mean)])
        self.labels = [render_labels(v, model.topology, self.lattice) for v in ends]

    def decode_probs(self, latent, phases):
        maps = [self.labels[self.known_phases.index(phase)].astype(np.int64) for phase in phases]
        return one_hot(torch.from_numpy(np.stack(maps))[:, None], 4), self.lattice

    def posterior(self, observed, condition, *, healthy=False):
        return Posterior(self.prior(condition), find_pose(observed)[0])

    def with_condition(self, latent, condition):
        return latent


KINDS = {c.__name__.lower(): c for c in (Quick, Cheap, Blind, Collapsed, Frozen, Refusing, Flat)}


@pytest.fixture(scope="session")
def shipped():
    return load_model("linear")


@pytest.fixture(scope="session")
def models(shipped):
    return {name: kind(shipped.model) for name, kind in KINDS.items()}


@pytest.fixture(scope="session")
def tiny():
    return Size(
        hearts=12,
        calibration=2,
        completed=2,
        cycled=1,
        beating=1,
        aged=6,
        scored=2,
        frames=3,
        label_mm=None,
        resamples=30,
    )
