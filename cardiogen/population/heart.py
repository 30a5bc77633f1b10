"""One heart of the reference population: conditions, phenotypes, shape and motion from a key.

Everything is a pure function of (seed, index, given factors): heart 7 is the same bits whether it
is drawn alone or among a thousand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.base import keyed_rng
from cardiogen.data.factors import Factors
from cardiogen.data.sequence import Sequence
from cardiogen.measure.volumes import MYOCARDIAL_DENSITY
from cardiogen.population.anatomy import heart_vertices
from cardiogen.population.conditions import AGE_RANGE, sample_conditions
from cardiogen.population.coordinates import COORDINATE_COUNT, COORDINATES
from cardiogen.population.motion import Timing, sample_timing
from cardiogen.population.phenotypes import Phenotypes, sample_phenotypes
from cardiogen.population.pose import Pose, typical_pose
from cardiogen.population.template import template_topology

Array = NDArray[np.float64]

_FOCAL_AT_160_ML = 86.0  # mm; length of the left ventricle less about 5 mm
_LIMIT_SD = 3.0


@dataclass(frozen=True, eq=False, kw_only=True)
class PopulationHeart:
    """A heart with known truth.

    Attributes:
        seed, index: the key that it was drawn from.
        factors: complete clinical factors.
        phenotypes: volumes and mass that the meshes have.
        timing: volume curve.
        ed: shape coordinates at end diastole ``(P,)``.
        systole: change of the shape coordinates, volumes apart, at end systole ``(P,)``.
        pose: from the heart's frame to the world.
    """

    seed: int
    index: int
    factors: Factors
    phenotypes: Phenotypes
    timing: Timing
    ed: Array
    systole: Array
    pose: Pose

    def coordinates(self, phases: ArrayLike) -> Array:
        """Return the shape coordinates at any phases, ``(T, P)``."""
        emptied = self.timing.emptied(phases)[:, None]
        coordinates = self.ed + emptied * self.systole
        p = self.phenotypes
        left = p.lvedv - emptied[:, 0] * (p.lvedv - p.lvesv)
        right = p.rvedv - emptied[:, 0] * (p.rvedv - p.rvesv)
        volumes = coordinates[:, COORDINATES["log_volume"]]
        volumes[:, 0], volumes[:, 2] = np.log(left), np.log(right)
        return coordinates

    def vertices(self, phases: ArrayLike) -> Array:
        """Return the mesh at any phases, ``(T, V, 3)`` world RAS mm."""
        return self.pose.to_world(heart_vertices(self.coordinates(phases)))

    def sequence(self, frames: int = 25) -> Sequence:
        """Return the meshes over one cycle as a Sequence."""
        phases = np.arange(frames) / frames
        es = int(np.argmax(self.timing.emptied(phases)))
        return Sequence(
            phases=phases,
            es=es,
            vertices=self.vertices(phases),
            topology=template_topology(),
            factors=self.factors,
            cycle_s=self.timing.cycle_s,
            subject_id=f"population_{self.index:06d}",
        )


def sample_heart(seed: int, index: int, given: Factors | None = None) -> PopulationHeart:
    """Draw heart ``index`` of the population.

    Args:
        seed: user's seed.
        index: number of the heart, from 0.
        given: factors to keep; the others are drawn.

    Raises:
        CardiogenError: D01 for an age outside 18-83 years.
    """
    factors = sample_conditions(keyed_rng(seed, "population/conditions", index), given)
    phenotypes = sample_phenotypes(keyed_rng(seed, "population/phenotypes", index), factors)
    rng = keyed_rng(seed, "population/shape", index)
    ed = _sample_shape(rng, phenotypes)
    systole = _sample_systole(keyed_rng(seed, "population/motion", index), ed, phenotypes)
    return PopulationHeart(
        seed=seed,
        index=index,
        factors=factors,
        phenotypes=phenotypes,
        timing=sample_timing(keyed_rng(seed, "population/timing", index), factors.age),
        ed=ed,
        systole=systole,
        pose=typical_pose(keyed_rng(seed, "population/pose", index)),
    )


def training_heart(seed: int, index: int) -> PopulationHeart:
    """Return a heart that models are trained on: its age is drawn evenly from the covered range.

    Args:
        seed: of the population.
        index: number of the heart.
    """
    age = keyed_rng(seed, "linear/age", index).uniform(*AGE_RANGE)

    return sample_heart(seed, index, Factors(age=float(age)))


def _normal(rng: np.random.Generator, size: int) -> Array:
    return np.clip(rng.normal(size=size), -_LIMIT_SD, _LIMIT_SD)


def _shape_distribution(size: float) -> dict[str, tuple[ArrayLike, ArrayLike]]:
    """Mean and SD of the shape coordinates of a heart of ``160 * size`` mL, volumes apart."""
    return {
        "log_focal": (np.log(_FOCAL_AT_160_ML) + 0.36 * np.log(size), 0.045),
        "rv_apex": (np.log(np.radians(20.0)), 0.12),
        "rv_center": (np.radians([2.0, 26.0]), np.radians([5.0, 9.0])),
        "rv_width": ([np.log(np.radians(46.0)), 1.1], [0.05, 0.10]),
        "rv_dome": ([11.0 * size ** (1 / 3), 0.5], [1.7, 0.12]),
        "endo": (0.0, _ENDO_SD),
        "wall": (0.0, _WALL_SD),
        "rv": (0.0, _RV_SD),
    }


def _sample_shape(rng: np.random.Generator, phenotypes: Phenotypes) -> Array:
    """Draw the shape coordinates at end diastole of a heart with these phenotypes."""
    ed = np.zeros(COORDINATE_COUNT)
    for name, (mean, sd) in _shape_distribution(phenotypes.lvedv / 160.0).items():
        part = COORDINATES[name]
        ed[part] = mean + np.asarray(sd) * _normal(rng, part.stop - part.start)
    myocardium_ml = phenotypes.lvm / MYOCARDIAL_DENSITY
    ed[COORDINATES["log_volume"]] = np.log([phenotypes.lvedv, myocardium_ml, phenotypes.rvedv])
    return ed


def shape_prior() -> tuple[Array, Array]:
    """Return mean and SD of the shape coordinates for fitting hearts of any health, ``(P,)``.

    Three times the population's spread of shapes, and half a unit of log volume: wide enough for a
    dilated ventricle, narrow enough to keep what no contour shows.
    """
    mean, sd = np.zeros(COORDINATE_COUNT), np.full(COORDINATE_COUNT, 1e-3)
    for name, (center, spread) in _shape_distribution(1.0).items():
        mean[COORDINATES[name]] = center
        sd[COORDINATES[name]] = 3.0 * np.asarray(spread)
    mean[COORDINATES["log_volume"]] = np.log([160.0, 105.0, 175.0])
    sd[COORDINATES["log_volume"]] = 0.5
    sd[COORDINATES["log_focal"]] = 0.3
    return mean, sd


def _mode_sd(first: float, orders: tuple[int, ...]) -> Array:
    """SDs that fall with the order of the mode, so that surfaces stay smooth."""
    return first / (1.0 + np.array(orders, dtype=float)) ** 1.2


# Orders of the modes of anatomy.field_basis (m + n, cosine and sine) and of anatomy.rv_basis.
_FIELD_ORDERS = (0, 1, 2, 3, 0, 0, 1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3)
_RV_ORDERS = tuple(i + j - 1 for i in range(4) for j in range(4) if (i, j) != (0, 0))
_ENDO_SD = _mode_sd(0.035, _FIELD_ORDERS)
_WALL_SD = _mode_sd(0.07, _FIELD_ORDERS)
_RV_SD = _mode_sd(0.07, _RV_ORDERS)


def _sample_systole(rng: np.random.Generator, ed: Array, phenotypes: Phenotypes) -> Array:
    """Draw the change of shape from end diastole to end systole."""
    change = np.zeros(COORDINATE_COUNT)
    ejected = phenotypes.lvef / 60.0
    shortening, twist_base, twist_apex, apex = _normal(rng, 4)
    # Longitudinal shortening of 15 % at an EF of 60 % is a descent of the base by 13 mm.
    strain = np.clip(0.15 * ejected**0.8 * np.exp(0.10 * shortening), 0.03, 0.23)
    focal = np.exp(ed[COORDINATES["log_focal"]])
    change[COORDINATES["log_focal"]] = np.log(1.0 - strain)
    change[COORDINATES["descent"]] = focal * strain * (0.97 + 0.02 * apex)
    # Seen from the apex the apex turns counter-clockwise, which is negative about apex -> base.
    twist = np.radians([3.5 + 1.0 * twist_base, -8.5 - 2.0 * twist_apex])
    change[COORDINATES["twist"]] = twist * min(ejected, 1.3)
    # The tricuspid side descends by 23 mm or so, the mitral side by 13.
    change[COORDINATES["rv_dome"]] = [-14.0 * strain / 0.15, 0.0]
    change[COORDINATES["endo"]] = 0.5 * _ENDO_SD * _normal(rng, len(_ENDO_SD)) * ejected
    change[COORDINATES["wall"]] = 0.5 * _WALL_SD * _normal(rng, len(_WALL_SD)) * ejected
    change[COORDINATES["rv"]] = 0.5 * _RV_SD * _normal(rng, len(_RV_SD))
    # Blood leaves the wall as it contracts: 2 % of its volume.
    change[COORDINATES["log_volume"]][1] = np.log(0.98)
    return change
