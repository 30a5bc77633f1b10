"""A few hearts of the reference population that many tests look at."""

import pytest

from cardiogen.population import sample_heart


@pytest.fixture(scope="session")
def hearts():
    """Six hearts of one seed."""
    return [sample_heart(11, index) for index in range(6)]
