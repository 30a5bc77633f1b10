import numpy as np
import pytest

from cardiogen.base import keyed_rng
from cardiogen.data.factors import Factors
from cardiogen.models.deformation.codes import CodeFitter
from cardiogen.models.deformation.heart_codes import (
    CODE_PHASES,
    HeartCodes,
    ShownHeart,
    mesh_codes,
)
from cardiogen.models.deformation.template import population_template
from cardiogen.models.deformation.training import fit_deformation
from cardiogen.models.fitted_meshes import FittedMeshes
from cardiogen.population import sample_conditions
from cardiogen.population.anatomy import heart_vertices
from cardiogen.population.heart import sample_heart


@pytest.fixture(scope="session")
def template():
    return population_template()


@pytest.fixture(scope="session")
def hearts():
    return [sample_heart(7, k, Factors(age=25.0 + 10 * k)) for k in range(5)]


@pytest.fixture(scope="session")
def beats(hearts):
    """The meshes of five hearts, ``(5, 20, V, 3)`` mm."""
    meshes = [heart_vertices(heart.coordinates(CODE_PHASES)) for heart in hearts]
    return np.stack(meshes).astype(np.float32)


@pytest.fixture(scope="session")
def codes(template, hearts, beats):
    """Codes of five hearts, fitted in few steps."""
    fitter = CodeFitter(template, frame_iterations=3)
    return mesh_codes(fitter, beats, CODE_PHASES, [heart.factors for heart in hearts])


@pytest.fixture(scope="session")
def cohort(codes, beats):
    """A cohort whose velocities are mixtures of the five."""
    rng = np.random.default_rng(3)
    share = rng.dirichlet(np.ones(5), size=80) * 1.6 - 0.12
    share[:5] = np.eye(5)  # the hearts that are shown
    factors = tuple(sample_conditions(keyed_rng(1, "test/conditions", k)) for k in range(80))
    return HeartCodes(
        (share @ codes.ed).astype(np.float32),
        np.einsum("nk,kfp->nfp", share, codes.motion).astype(np.float32),
        share @ codes.phenotypes,
        factors,
        np.einsum("nk,kvc->nvc", share, codes.left).astype(np.float32),
        tuple(ShownHeart(k, CODE_PHASES, beats[k]) for k in range(5)),
    )


@pytest.fixture(scope="session")
def held(hearts, codes):
    """Codes of the five, and fits that are off by a shift to the apex and by little else."""
    phases, rng = np.array([0.0, 0.4]), np.random.default_rng(4)
    meshes = np.stack([heart_vertices(heart.coordinates(phases)) for heart in hearts])
    meshes = meshes.reshape(5, 2, -1) + 0.1 * rng.normal(size=(5, 2, meshes[0, 0].size))
    meshes[..., 2::3] += rng.normal(size=(5, 2, 1))
    return codes, FittedMeshes(np.tile(phases, (5, 1)), meshes, np.full((5, 2), 0.7))


@pytest.fixture(scope="session")
def small_model(cohort, held, template):
    return fit_deformation(cohort, *held, template, ed_modes=4, fields=8, motion_modes=4)
