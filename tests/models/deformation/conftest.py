import numpy as np
import pytest

from cardiogen.base import keyed_rng
from cardiogen.data.factors import Factors
from cardiogen.models.deformation.codes import CodeFitter
from cardiogen.models.deformation.template import population_template
from cardiogen.models.deformation.training import (
    CODE_PHASES,
    HeartCodes,
    fit_deformation,
    mesh_codes,
)
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
def codes(template, hearts):
    """Codes of five hearts, fitted in few steps."""
    fitter = CodeFitter(template, frame_iterations=3)
    meshes = np.stack([heart_vertices(heart.coordinates(CODE_PHASES)) for heart in hearts])
    return mesh_codes(fitter, meshes, CODE_PHASES, [heart.factors for heart in hearts])


@pytest.fixture(scope="session")
def cohort(codes):
    """A cohort whose velocities are mixtures of the five."""
    rng = np.random.default_rng(3)
    share = rng.dirichlet(np.ones(5), size=80) * 1.6 - 0.12
    factors = tuple(sample_conditions(keyed_rng(1, "test/conditions", k)) for k in range(80))
    return HeartCodes(
        (share @ codes.ed).astype(np.float32),
        np.einsum("nk,kfp->nfp", share, codes.motion).astype(np.float32),
        share @ codes.phenotypes,
        factors,
    )


@pytest.fixture(scope="session")
def small_model(cohort, template):
    return fit_deformation(cohort, template, ed_modes=4, fields=8, motion_modes=4)
