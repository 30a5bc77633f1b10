import numpy as np
import pytest

from cardiogen.base import keyed_rng
from cardiogen.models.fitted_meshes import FittedMeshes
from cardiogen.models.pca import CYCLE_PHASES, Cycles, cycle_basis, fit_pca
from cardiogen.population import sample_conditions
from cardiogen.population.anatomy import heart_vertices
from cardiogen.population.heart import sample_heart

SHAPES, BEATS = 3, 2


@pytest.fixture(scope="session")
def hearts():
    """Six beating hearts of the population, ``(6, 20, V, 3)`` mm."""
    made = [sample_heart(11, k) for k in range(6)]
    return np.stack([heart_vertices(heart.coordinates(CYCLE_PHASES)) for heart in made])


def linear_population(hearts, count, seed):
    """Hearts whose shape and motion are linear in known numbers that follow their age.

    Scores are centered and uncorrelated, as those of principal components are.
    """
    factors = tuple(sample_conditions(keyed_rng(seed, "test", k)) for k in range(count))
    told = np.random.default_rng(seed).normal(size=(count, SHAPES + BEATS))
    told[:, 0] += 0.05 * (np.array([f.age for f in factors]) - 50.0)
    ed = hearts[:, 0].reshape(len(hearts), -1)
    beat = Cycles.of(hearts, factors[: len(hearts)]).motion.astype(np.float64)
    ways, moves = ed[1 : 1 + SHAPES] - ed[0], beat[1 : 1 + BEATS] - beat[0]
    return Cycles(
        ed[0] + 0.3 * told[:, :SHAPES] @ ways,
        beat[0] + 0.3 * np.einsum("nb,bkp->nkp", told[:, SHAPES:], moves),
        factors,
    )


def meshes_of(cycles, phases):
    """Return the meshes ``(N, T, P)`` of cycles at phases ``(T,)``."""
    return cycles.ed[:, None] + np.einsum("tk,nkp->ntp", cycle_basis(phases), cycles.motion)


@pytest.fixture(scope="session")
def cohort(hearts):
    return linear_population(hearts, 70, 1)


@pytest.fixture(scope="session")
def held(hearts):
    return linear_population(hearts, 8, 2)


@pytest.fixture(scope="session")
def fitted(hearts, held):
    """Fitted meshes that are off by a shift to the apex and by little else."""
    phases, rng = np.array([0.0, 0.4]), np.random.default_rng(3)
    meshes = meshes_of(held, phases) + 0.05 * rng.normal(size=(8, 2, hearts[0, 0].size))
    meshes[..., 2::3] += np.array([[0.8], [2.4]]) * rng.normal(size=(8, 2, 1))
    return FittedMeshes(np.tile(phases, (8, 1)), meshes, np.full((8, 2), 0.7))


@pytest.fixture(scope="session")
def small_pca(cohort, held, fitted):
    return fit_pca(cohort, held, fitted, ed_modes=SHAPES, motion_modes=BEATS)
