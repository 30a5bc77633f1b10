"""Velocity codes: the template on its lattice, and velocities that reach given meshes."""

import numpy as np
import torch

from cardiogen import ops
from cardiogen.data.labels import Structure
from cardiogen.measure.volumes import mesh_volumes
from cardiogen.models.deformation.codes import CodeFitter
from cardiogen.models.deformation.heart_codes import CODE_PHASES
from cardiogen.models.deformation.phenotypes import NAMES, PhenotypeMap, mesh_phenotypes
from cardiogen.population.anatomy import heart_vertices


def smooth_params(template, count, seed, size=6.0):
    """Random velocities without fine detail, mm."""
    generator = torch.Generator().manual_seed(seed)
    rough = torch.randn(count * 3, 1, *template.active.shape, generator=generator)
    smooth = ops.gaussian(rough, (1.5, 1.5, 1.5)).view(count, 3, -1)
    smooth = smooth[:, :, torch.from_numpy(template.active.ravel())]
    return size * smooth / smooth.abs().max()


def vertices_of(template, count=1):
    return torch.from_numpy(template.vertices).float().expand(count, -1, -1)


def rms(a, b):
    return float((a - b).square().sum(-1).mean().sqrt())


def test_splines_read_the_velocity_at_the_vertices(template):
    params = smooth_params(template, 2, seed=0)
    by_matrix = torch.einsum("va,nca->nvc", torch.from_numpy(template.splines).float(), params)
    field = template.velocity(params) * template.spacing_mm
    read = ops.sample_at_points(field, vertices_of(template, 2), template.grid)
    torch.testing.assert_close(read, by_matrix, atol=1e-4, rtol=0)


def test_no_velocity_moves_nothing_and_constant_control_moves_all_alike(template):
    still = template.displacement(torch.zeros(1, 3, template.size))
    assert float(still.abs().max()) == 0.0
    np.testing.assert_allclose(template.splines.sum(axis=1), 1.0, atol=5e-3)


def test_exponential_of_the_negative_velocity_is_the_inverse(template):
    params = smooth_params(template, 2, seed=1)
    start = vertices_of(template, 2)
    there = template.move(start, template.displacement(params))
    assert rms(there, start) > 0.5
    assert rms(template.move(there, template.displacement(-params)), start) < 0.04


def test_code_of_the_template_is_zero_and_of_a_deformed_template_its_velocity(template):
    fitter = CodeFitter(template, smoothness=1e-5)
    assert float(fitter.fit_ed(vertices_of(template)).abs().max()) < 1e-3
    wanted = smooth_params(template, 1, seed=2)
    mesh = template.move(vertices_of(template), template.displacement(wanted))
    found = fitter.fit_ed(mesh)
    reached = template.move(vertices_of(template), template.displacement(found))
    assert rms(reached, mesh) < 0.02 < rms(mesh, vertices_of(template))


def test_codes_reach_hearts_and_keep_their_volumes(template, hearts, codes):
    heart, topology = hearts[2], template.topology
    meshes = heart_vertices(heart.coordinates(CODE_PHASES))
    ed = torch.from_numpy(codes.ed[2]).view(1, 3, -1)
    at_ed = template.move(vertices_of(template), template.displacement(ed))
    assert rms(at_ed, torch.from_numpy(meshes[0]).float()) < 0.3
    found = mesh_volumes(at_ed.double().numpy(), topology)
    for structure, volume in mesh_volumes(meshes[:1], topology).items():
        np.testing.assert_allclose(found[structure], volume, rtol=2e-3)


def test_frames_begin_at_rest_and_follow_the_cycle(template, hearts):
    phases = [0.0, 0.15, 0.3]
    meshes = torch.from_numpy(heart_vertices(hearts[1].coordinates(phases))).float()[None]
    fitter = CodeFitter(template)
    ed, frames = fitter.fit(meshes)
    assert float(frames[:, 0].abs().max()) == 0.0
    shape = template.displacement(ed)
    for k, bar in ((1, 0.8), (2, 1.2)):
        beat = template.displacement(frames[:, k])
        moved = template.move(template.move(vertices_of(template), beat), shape)
        assert rms(moved, meshes[:, k]) < bar
        truth = mesh_volumes(meshes[0, k : k + 1].double().numpy(), template.topology)
        found = mesh_volumes(moved.double().numpy(), template.topology)
        for structure in (Structure.LV, Structure.MYO):
            np.testing.assert_allclose(found[structure], truth[structure], rtol=1e-2)


def test_hearts_are_fitted_each_on_its_own(template, hearts):
    meshes = torch.from_numpy(
        np.stack([heart_vertices(h.coordinates([0.0]))[0] for h in hearts[:2]])
    ).float()
    fitter = CodeFitter(template, iterations=4)
    both, alone = fitter.fit_ed(meshes), fitter.fit_ed(meshes[1:])
    torch.testing.assert_close(both[1:], alone, atol=1e-3, rtol=0)


def test_mesh_phenotypes_are_those_of_the_heart(template, hearts):
    phases = np.linspace(0, 1, 60, endpoint=False)
    found = mesh_phenotypes(heart_vertices(hearts[0].coordinates(phases)), template.topology)
    np.testing.assert_allclose(found[:5], hearts[0].phenotypes.as_vector(), atol=5e-3)
    assert 0.05 < found[NAMES.index("shortening")] < 0.25


def test_phenotype_map_recovers_a_linear_function():
    rng = np.random.default_rng(0)
    scores, weights = rng.normal(size=(400, 7)), rng.normal(size=(6, 7))
    values = 2.0 + scores @ weights.T + 0.1 * rng.normal(size=(400, 6))
    found = PhenotypeMap.fit(scores, values)
    np.testing.assert_allclose(found.phenotype_weights, weights, atol=0.05)
    np.testing.assert_allclose(found.phenotype_bias, 2.0, atol=0.05)
    np.testing.assert_allclose(found.phenotype_residual, 0.1, rtol=0.15)
