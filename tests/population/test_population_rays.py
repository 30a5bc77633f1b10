"""Laws of the ray coordinates: closed inverse, straight distance, nesting."""

import numpy as np
import pytest

from cardiogen.population.rays import distance_at, ray_coordinates, ray_points


@pytest.fixture
def rays():
    rng = np.random.default_rng(0)
    focal = rng.uniform(40, 140, 4000)
    mu = rng.uniform(1e-3, np.pi - 1e-3, 4000)
    theta = rng.uniform(-np.pi, np.pi, 4000)
    return focal, mu, theta, rng.uniform(1e-3, 90, 4000)


def test_rays_inverse(rays):
    focal, mu, theta, distance = rays
    found = ray_coordinates(ray_points(focal, mu, theta, distance), focal)
    # Where rays are nearly tangent to the focal line, a point tells the angle less well.
    np.testing.assert_allclose(found[0], mu, atol=1e-9)
    np.testing.assert_allclose(found[1], theta, atol=1e-9)
    np.testing.assert_allclose(found[2], distance, atol=1e-9)


def test_rays_distance_is_straight_from_the_foot(rays):
    focal, mu, theta, distance = rays
    points = ray_points(focal, mu, theta, distance)
    foot = np.stack([0 * focal, 0 * focal, -focal * np.cos(mu)], axis=1)
    np.testing.assert_allclose(np.linalg.norm(points - foot, axis=1), distance, atol=1e-9)


def test_rays_move_outwards(rays):
    focal, mu, theta, _ = rays
    steps = np.linspace(0, 100, 30)[:, None]
    points = ray_points(focal, mu, theta, steps)
    near, far = (np.hypot(points[..., 0], points[..., 1]), points[..., 2])
    cosh = (np.hypot(near, far + focal) + np.hypot(near, far - focal)) / (2 * focal)
    assert (np.diff(cosh, axis=0) > 0).all(), "confocal ellipsoids must be crossed in turn"


def test_rays_of_equal_distance_are_nested_surfaces():
    mu, theta = np.meshgrid(np.linspace(0.05, np.pi / 2, 40), np.linspace(-np.pi, np.pi, 37))
    inner = ray_points(np.array(80.0), mu, theta, np.array(20.0))
    _, _, distance = ray_coordinates(inner, np.array(80.0))
    np.testing.assert_allclose(distance, 20.0, atol=1e-9)


def test_rays_distance_at_puts_points_on_a_confocal_ellipsoid():
    focal, sinh = np.array(75.0), np.array(0.4)
    mu = np.linspace(0.1, np.pi / 2, 20)
    points = ray_points(focal, mu, np.array(0.3), distance_at(focal, mu, sinh))
    radius, height = np.hypot(points[:, 0], points[:, 1]), points[:, 2]
    level = (radius / (focal * sinh)) ** 2 + (height / (focal * np.hypot(1, sinh))) ** 2
    np.testing.assert_allclose(level, 1.0, atol=1e-12)


def test_rays_above_the_base_have_mu_over_a_quarter_turn():
    mu, _, _ = ray_coordinates(np.array([[10.0, 5.0, 3.0], [10.0, 5.0, -3.0]]), np.array(80.0))
    assert mu[0] > np.pi / 2 > mu[1]
