"""Fits of the template to hearts of unusual proportions."""

import numpy as np
import pytest

from cardiogen.data import Grid
from cardiogen.engine.fit_template import fit_template
from cardiogen.population import render_labels, sample_heart, short_axis_grid, template_topology


@pytest.mark.filterwarnings("error")
def test_steps_to_what_no_heart_can_be_are_not_taken():
    """A header that makes slices four times as thick: on the way the solver meets no heart."""
    heart = sample_heart(1, 3)
    mesh = heart.vertices([0.0])
    grid = short_axis_grid(mesh, heart.pose, (8.0, 2.0, 2.0))
    labels = render_labels(mesh[0], template_topology(), grid)
    affine = np.array(grid.affine)
    affine[:3, 0] *= 4.0
    fit = fit_template(labels, Grid(grid.shape, affine))
    assert fit.rms_mm < 1.5
