"""From a draw of a model to the nearest heart that hits targets: ``models.targets`` says why.

Measures are taken as outputs take them: end systole is the first frame, of those decoded, with
all but 0.5 % of the stroke out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen.data.labels import Structure
from cardiogen.measure.volumes import MYOCARDIAL_DENSITY, end_of_ejection, mesh_volumes
from cardiogen.models.protocol import AnatomyModel
from cardiogen.models.target_values import TOLERANCE, Targets

Array = NDArray[np.float64]

_STEP = 0.1  # SD of a latent
_STEPS, _ROUNDS = 25, 4
_LONGEST = 2.0  # of a step, in SD of the prior: g is not linear over more
_CLOSE = TOLERANCE / 10


def measure_latent(
    model: AnatomyModel, latent: Tensor, phases: Array, es: int | None = None
) -> tuple[Array, int]:
    """Return ``MEASURED`` ``(5,)`` of the decoded heart, as outputs measure it, and its ES frame.

    Args:
        model: a model of meshes.
        latent: ``(Z,)``.
        phases: of the cycle, end diastole first.
        es: frame to take for end systole; found where None.
    """
    asked = phases if es is None else phases[sorted({0, es})]
    volumes = mesh_volumes(model.decode(latent, asked), model.topology)
    frame = end_of_ejection(volumes[Structure.LV]) if es is None else len(asked) - 1
    left, right = volumes[Structure.LV], volumes[Structure.RV]
    mass = volumes[Structure.MYO][0] * MYOCARDIAL_DENSITY
    found = np.array([left[0], left[frame], mass, right[0], right[frame]])

    return found, frame if es is None else es


@dataclass(frozen=True, eq=False)
class Component:
    """One Gaussian of the prior, and its most probable heart that hits the targets.

    Attributes:
        mean, root: m ``(Z,)`` and F ``(Z, R)``.
        best: the heart's u ``(R,)``.
        slopes: A at it ``(P, R)``.
        es: its end-systolic frame.
        log_weight: of the component given the targets, but for a constant.
    """

    mean: Array
    root: Array
    best: Array
    slopes: Array
    es: int
    log_weight: float

    def latent(self, u: Array) -> Tensor:
        """Return z of u; einsum without BLAS: the same bits for any number of threads."""
        return torch.from_numpy(self.mean + np.einsum("zr,r->z", self.root, u))


def phenotype_slopes(
    model: AnatomyModel, latent: Tensor, covariance: Tensor, targets: Targets, phases: Array,
    es: int,
) -> Array:  # fmt: skip
    """Return dg/dz ``(P, Z)`` at a latent by forward differences of a tenth of an SD."""
    frame = es if targets.needs_systole else 0
    here = targets.transform(measure_latent(model, latent, phases, frame)[0])
    steps = _STEP * covariance.diagonal().sqrt()
    columns = []
    for k, step in enumerate(steps):
        moved = latent.clone()
        moved[k] += step
        there = targets.transform(measure_latent(model, moved, phases, frame)[0])
        columns.append((there - here) / float(step))

    return np.stack(columns, axis=1)


def shortest_step(slopes: Array, wanted: Array) -> Array:
    """Return the shortest step ``(R,)`` with ``A step = wanted``."""
    # Row by row: no BLAS over the long axis, so that threads change no bit.
    normal = np.einsum("pr,qr->pq", slopes, slopes)
    return np.einsum("pr,p->r", slopes, np.linalg.solve(normal, wanted))


@dataclass(frozen=True, eq=False)
class Hit:
    """A heart that hits the targets: u ``(R,)``, A ``(P, R)`` and the end-systolic frame."""

    u: Array
    slopes: Array
    es: int


@dataclass(frozen=True, eq=False)
class Solver:
    """Gauss-Newton from a draw to the nearest heart that hits the targets."""

    model: AnatomyModel
    targets: Targets
    phases: Array
    component: Component

    def solve(self, draw: Array, u: Array, slopes: Array, es: int) -> Hit | None:
        """Return the hit, from first guesses of it; None where there is none.

        Steps decode two frames; the whole cycle then says which frame is end systole.
        """
        try:
            return self._solved(draw, u, slopes, es)
        except np.linalg.LinAlgError:  # targets that the model cannot move one by one
            return None

    def _solved(self, draw: Array, u: Array, slopes: Array, es: int) -> Hit | None:
        for _ in range(_ROUNDS):
            frame = es if self.targets.needs_systole else 0
            stepped = self._steps(draw, u, slopes, frame)
            if stepped is None:
                return None
            u, slopes = stepped
            if not self.targets.needs_systole:
                return Hit(u, slopes, es)
            measures, es = measure_latent(self.model, self.component.latent(u), self.phases)
            if self.targets.miss(measures) < TOLERANCE / 2:
                return Hit(u, slopes, es)
        return None

    def _steps(
        self, draw: Array, u: Array, slopes: Array, frame: int
    ) -> tuple[Array, Array] | None:
        here = self._phenotypes(u, frame)
        for _ in range(_STEPS):
            if here is None:
                return None
            value, miss = here
            if miss < _CLOSE:
                return u, slopes
            wanted = self.targets.goal - value + np.einsum("pr,r->p", slopes, u - draw)
            step = draw + shortest_step(slopes, wanted) - u
            length = float(np.sqrt((step**2).sum()))
            if not 0 < length < np.inf:
                return None
            step *= min(1.0, _LONGEST / length)
            u = u + step
            here = self._phenotypes(u, frame)
            if here is not None:
                change = here[0] - value - np.einsum("pr,r->p", slopes, step)
                slopes = slopes + np.outer(change, step) / float((step**2).sum())
        return None

    def _phenotypes(self, u: Array, frame: int) -> tuple[Array, float] | None:
        """Return g and the largest miss; None for what is no heart."""
        latent = self.component.latent(u)
        if not self.model.is_possible(latent):
            return None
        measures, _ = measure_latent(self.model, latent, self.phases, frame)
        value = self.targets.transform(measures)
        return (value, self.targets.miss(measures)) if np.isfinite(value).all() else None
