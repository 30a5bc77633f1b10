"""Laws of the world spaces of exported meshes."""

import numpy as np
import pytest

from cardiogen.base import CardiogenError
from cardiogen.data.mesh import Surface
from cardiogen.export import check_space, space_tag, to_space


def signed_volume(vertices, faces):
    a, b, c = vertices[faces].swapaxes(0, 1)
    return float((a * np.cross(b, c)).sum() / 6)


def test_lps_is_its_own_inverse_and_leaves_z_alone():
    points = np.random.default_rng(0).normal(size=(7, 3))
    lps = to_space(points, "lps")
    np.testing.assert_array_equal(to_space(lps, "lps"), points)
    np.testing.assert_array_equal(lps[:, 2], points[:, 2])
    np.testing.assert_array_equal(lps[:, :2], -points[:, :2])
    np.testing.assert_array_equal(to_space(points, "ras"), points)


def test_faces_stay_outward_in_both_spaces(toy_heart):
    faces = toy_heart.topology.surfaces[Surface.RV_ENDO]
    ras = signed_volume(toy_heart.vertices[0], faces)
    lps = signed_volume(to_space(toy_heart.vertices[0], "lps"), faces)
    assert ras > 0
    assert lps == pytest.approx(ras, rel=1e-12)


def test_tag_is_what_slicer_searches_and_case_does_not_matter():
    assert (space_tag("ras"), space_tag("lps")) == ("SPACE=RAS", "SPACE=LPS")
    assert check_space("LPS") == "lps"


def test_other_spaces_are_refused():
    with pytest.raises(CardiogenError, match=r"CG-U12 --space: found 'xyz'; expected ras or lps"):
        check_space("xyz")
