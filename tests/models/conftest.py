"""The shipped linear model, and a small cohort of the reference population to fit others."""

import pytest

from cardiogen.models import fit_linear, load_model, population_examples


@pytest.fixture(scope="session")
def shipped():
    return load_model("linear")


@pytest.fixture(scope="session")
def cohort():
    """1,500 subjects at ages spread evenly."""
    return population_examples(1500, seed=3)


@pytest.fixture(scope="session")
def small_weights(cohort):
    return fit_linear(cohort)
