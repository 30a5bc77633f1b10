"""The mesh VAE learns a made-up cohort; its protocol; its tensors."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cardiogen.base import CardiogenError
from cardiogen.data.factors import Factors
from cardiogen.data.sequence import Sequence
from cardiogen.engine.config import find_config, load_config, preset_path
from cardiogen.engine.fit import FitConfig, StepInfo
from cardiogen.models.mesh import (
    MeshConfig,
    MeshExamples,
    MeshTask,
    cohort_meshes,
    describe_conditions,
    mesh_from_tensors,
    population_mesh,
    population_meshes,
    stage_examples,
    start_network,
    train_mesh,
)
from cardiogen.models.mesh.config import MeshTraining
from cardiogen.models.mesh.gaussian import divergence

FIT = FitConfig(steps=200, batch_size=16, learning_rate=2e-3, warmup_steps=20, ema_decay=0.97)
SMALL = MeshConfig(
    latents=3, harmonics=1, shape_modes=6, noise_modes=3, width=16, heads=2, layers=1, memory=2,
    channels=(4, 6), coarsening=4, condition_width=8, evidence=100.0, noise_floor_mm=0.1, fit=FIT,
)  # fmt: skip
MISSING = torch.full((2,), float("nan"), dtype=torch.float64)


def tube(rings=7, columns=9):
    """Directions and faces of an open tube: radial x, y and height z."""
    around = 2 * np.pi * np.arange(columns) / columns
    height = np.repeat(np.linspace(-1, 1, rings), columns)
    points = np.stack(
        [np.tile(np.cos(around), rings), np.tile(np.sin(around), rings), height], axis=1
    )
    index = np.arange(rings * columns).reshape(rings, columns)
    a, b = index[:-1], np.roll(index, -1, axis=1)[:-1]
    c, d = np.roll(index, -1, axis=1)[1:], index[1:]
    quads = [np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)]
    return points, np.concatenate(quads)


POINTS, FACES = tube()


def cohort(count, seed, frames=5):
    """Tubes that beat: radius by the first condition, length free, ejection by the second."""
    rng = np.random.default_rng(seed)
    size, ejection, length, own = rng.normal(size=(4, count))
    phases = (np.arange(frames) + rng.uniform(-0.2, 0.2, (count, frames))) / frames
    phases[:, 0] = 0.0
    radius = 25 + 2.0 * size + 1.0 * rng.normal(size=count)
    squeeze = (0.15 + 0.02 * ejection + 0.02 * own)[:, None] * (1 - np.cos(2 * np.pi * phases)) / 2
    across = radius[:, None] * (1 - squeeze)
    along = np.broadcast_to((40 + 3 * length)[:, None], across.shape)
    scale = np.stack([across, across, along], axis=-1)
    vertices = (scale[:, :, None] * POINTS).astype(np.float32)
    conditions = np.stack([70 + 10 * size, 60 + 5 * ejection], axis=1)
    return MeshExamples(
        vertices=vertices, phases=phases, conditions=conditions, faces=FACES,
        names=("EDVI", "EF"), units=("mL/m2", "0 = F, 1 = M"),
    )  # fmt: skip


def radius_of(vertices):
    return np.linalg.norm(vertices[..., :2], axis=-1).mean(axis=-1)


def rmse(a, b):
    return float(np.sqrt(((a - b) ** 2).sum(-1).mean()))


@pytest.fixture(scope="module")
def model():
    return train_mesh(cohort(160, 0), SMALL, device="cpu")


@pytest.fixture(scope="module")
def network():
    examples = cohort(40, 1)
    table = describe_conditions(examples.conditions, names=examples.names, units=examples.units)
    return start_network(examples, SMALL, table)


@pytest.fixture(scope="module")
def seen(network):
    examples = cohort(6, 2)
    vertices = torch.from_numpy(examples.vertices)
    phases = torch.from_numpy(examples.phases).float()
    conditions = torch.from_numpy(examples.conditions)
    with torch.no_grad():
        scores, tokens = network.look(vertices, phases)
    return SimpleNamespace(
        vertices=vertices, phases=phases, conditions=conditions, scores=scores, tokens=tokens
    )


def look(network, seen, mask):
    with torch.no_grad():
        return network.posterior(seen.scores, seen.tokens, seen.phases, mask, seen.conditions)


def test_gradients_reach_every_parameter(network):
    task = MeshTask(network, cohort(40, 1))
    info = StepInfo(
        step=0, steps=1, epoch=0, kl_weight=1.0, free_bits=0.0, device=torch.device("cpu")
    )
    batch = task.batch(range(32), torch.Generator().manual_seed(0))
    losses = task.loss(batch, step=info, generator=torch.Generator().manual_seed(1))
    names, parameters = zip(*network.named_parameters(), strict=True)
    gradients = torch.autograd.grad(losses["loss"], parameters)
    idle = [n for n, g in zip(names, gradients, strict=True) if not g.abs().sum() > 0]
    assert idle == []


def test_without_frames_the_posterior_is_the_prior(network, seen):
    empty = look(network, seen, torch.zeros(6, 5, dtype=torch.bool))
    with torch.no_grad():
        prior = network.prior(seen.conditions)
    torch.testing.assert_close(empty.mean, prior.mean)
    torch.testing.assert_close(empty.tril @ empty.tril.mT, prior.tril @ prior.tril.mT)


def test_frames_narrow_the_posterior_and_their_order_does_not_matter(network, seen):
    some = torch.zeros(6, 5, dtype=torch.bool)
    some[:, :2] = True
    wide, narrow = look(network, seen, some), look(network, seen, torch.ones_like(some))
    assert (divergence(narrow, wide).sum(1) > 0).all()
    # Entropy: frames that are added cannot widen what is known of all latents together.
    assert (narrow.tril.diagonal(dim1=1, dim2=2).log().sum(1) <
            wide.tril.diagonal(dim1=1, dim2=2).log().sum(1)).all()  # fmt: skip
    order = torch.tensor([3, 0, 4, 1, 2])
    turned = SimpleNamespace(**vars(seen))
    for name in ("phases", "scores", "tokens"):
        setattr(turned, name, getattr(seen, name)[:, order])
    again = look(network, turned, some[:, order])
    torch.testing.assert_close(again.mean, wide.mean, atol=1e-4, rtol=1e-3)


def test_unseen_frames_do_not_matter(network, seen):
    some = torch.zeros(6, 5, dtype=torch.bool)
    some[:, 1] = True
    changed = SimpleNamespace(**vars(seen))
    changed.scores, changed.tokens = seen.scores.clone(), seen.tokens.clone()
    changed.scores[:, 2:], changed.tokens[:, 2:] = 7.0, -3.0
    assert torch.equal(look(network, seen, some).mean, look(network, changed, some).mean)


def test_decoding_is_periodic_and_frame_by_frame(model):
    latent = model.prior(torch.tensor([75.0, 62.0]).double()).sample(
        torch.Generator().manual_seed(3)
    )
    assert np.array_equal(model.decode(latent, [0.0, 0.25]), model.decode(latent, [1.0, 1.25]))
    alone, among = model.decode(latent, [0.4]), model.decode(latent, [0.1, 0.4, 0.9, 0.7])
    np.testing.assert_allclose(alone[0], among[1], atol=1e-4)
    many = model.decode_many(torch.stack([latent, 0 * latent]), [0.1, 0.4])
    np.testing.assert_allclose(many[0, 1], alone[0], atol=1e-4)


def test_held_out_hearts_are_rebuilt(model):
    held_out = cohort(20, 5)
    errors = []
    for k in range(len(held_out)):
        condition = torch.from_numpy(held_out.conditions[k])
        law = model.posterior_of(held_out.vertices[k], held_out.phases[k], condition)
        errors.append(rmse(model.decode(law.mean, held_out.phases[k]), held_out.vertices[k]))
    spread = rmse(held_out.vertices, held_out.vertices.mean(axis=0))
    assert np.mean(errors) < 0.1 * spread


def test_conditions_move_the_samples_as_they_moved_the_cohort(model):
    generator = torch.Generator().manual_seed(0)

    def radii(condition):
        law = model.prior(condition)
        latents = torch.stack([law.sample(generator) for _ in range(200)])
        return radius_of(model.decode_many(latents, [0.0])[:, 0])

    low, high = (radii(torch.tensor([v, 60.0]).double()) for v in (60.0, 80.0))
    # 2 mm for each SD of 10 mL/m2, and 1 mm of spread that conditions leave.
    assert high.mean() - low.mean() == pytest.approx(4.0, abs=0.8)
    assert np.mean([low.std(), high.std()]) == pytest.approx(1.0, abs=0.25)
    assert radii(MISSING).std() == pytest.approx(5**0.5, rel=0.25)


def test_one_frame_completes_the_cycle_with_honest_spread(model):
    held_out, inside, errors = cohort(40, 6), [], []
    generator = torch.Generator().manual_seed(1)
    for k in range(len(held_out)):
        law = model.posterior_of(held_out.vertices[k][:1], [0.0], MISSING)
        latents = torch.stack([law.sample(generator) for _ in range(39)])
        drawn = model.decode_many(latents, [0.5])[:, 0]
        ratio = radius_of(drawn) / radius_of(held_out.vertices[k][0])
        beat = 1 - radius_of(held_out.vertices[k]) / radius_of(held_out.vertices[k][0])
        late = held_out.phases[k][2]
        truth = 1 - beat[2] * 2 / (1 - np.cos(2 * np.pi * late))
        inside.append(np.sort(ratio)[1] < truth < np.sort(ratio)[-2])
        errors.append(abs(ratio.mean() - 0.85))
    # Nothing at ED tells the ejection: intervals stay as wide as the cohort, about its mean.
    assert np.mean(inside) > 0.8
    assert np.mean(errors) < 0.015


def test_tensors_and_architecture_are_the_whole_model(model):
    again = mesh_from_tensors(model.tensors(), model.architecture())
    condition = torch.tensor([66.0, float("nan")], dtype=torch.float64)
    latent = model.prior(condition).sample(torch.Generator().manual_seed(8))
    assert torch.equal(latent, again.prior(condition).sample(torch.Generator().manual_seed(8)))
    assert np.array_equal(model.decode(latent, [0.0, 0.3]), again.decode(latent, [0.0, 0.3]))
    assert np.array_equal(again.faces, FACES)
    assert again.table.names == ("EDVI", "EF")
    assert again.table.units == ("mL/m2", "0 = F, 1 = M")
    assert all(a.dtype == np.float32 for a in model.tensors().values())
    broken = model.tensors()
    del broken["network.linear"]
    with pytest.raises(CardiogenError, match="CG-M04 mesh model"):
        mesh_from_tensors(broken, model.architecture())


def test_a_heart_in_another_world_is_the_same_heart(model):
    held_out = cohort(1, 9)
    axes, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    axes *= np.array([1, 1, np.sign(np.linalg.det(axes))])
    world = held_out.vertices[0] @ axes.T + np.array([30.0, -20.0, 11.0])
    observed = Sequence(phases=held_out.phases[0], vertices=world)
    condition = torch.from_numpy(held_out.conditions[0])
    found = model.posterior(observed, condition)
    rebuilt = found.pose.to_world(model.decode(found.latents.mean, held_out.phases[0]))
    assert rmse(rebuilt, world) < 0.5
    model.check_condition(condition)
    assert model.is_possible(found.latents.mean)
    assert model.end_systole(found.latents.mean) == 0.5
    short = Sequence(phases=np.zeros(1), vertices=world[:1, :-1])
    with pytest.raises(CardiogenError, match="CG-S85 heart: found 62 vertices"):
        model.posterior(short, condition)


def test_static_shapes_are_stages_without_time():
    hearts = cohort(60, 3, frames=2)
    examples = stage_examples(
        [hearts.vertices[:, 0], hearts.vertices[:, 1]], hearts.conditions, FACES,
        names=hearts.names, units=hearts.units,
    )  # fmt: skip
    quick = SMALL.model_copy(update={"fit": FitConfig(steps=2, batch_size=8)})
    model = train_mesh(examples, quick, device="cpu")
    latent = model.prior(MISSING).mean
    assert model.end_systole(latent) == 0.5
    assert model.decode(latent, model.stages).shape == (2, 63, 3)
    with pytest.raises(ValueError, match=r"phases must be stages \[0.0, 0.5\], got \[0.2\]"):
        model.decode(latent, [0.2])
    ed = stage_examples([hearts.vertices[:, 0]], hearts.conditions, FACES, names=hearts.names,
                        units=hearts.units)  # fmt: skip
    alone = train_mesh(ed, quick.model_copy(update={"harmonics": 0}), device="cpu")
    assert alone.decode(alone.prior(MISSING).mean, [0.0]).shape == (1, 63, 3)
    assert alone.end_systole(latent) == 0.0


def test_given_noise_is_kept():
    config = SMALL.model_copy(update={"noise_mm": 0.7, "fit": FitConfig(steps=1, batch_size=4)})
    model = train_mesh(cohort(12, 0), config, device="cpu")
    assert float(model.network.noise) == pytest.approx(0.7)
    assert not model.network.log_noise.requires_grad


def test_cohorts_are_refused_or_noted_when_small():
    config = SMALL.model_copy(update={"latents": 8, "fit": FitConfig(steps=1, batch_size=4)})
    with pytest.raises(CardiogenError, match="CG-C28 cohort: found 4 hearts; expected at least 5"):
        train_mesh(cohort(4, 0), config, device="cpu")
    model = train_mesh(cohort(12, 0), config, device="cpu")
    assert [note.code for note in model.notes] == ["C28"]


def test_examples_must_fit_together():
    hearts = cohort(4, 0)
    with pytest.raises(ValueError, match=r"phases must be \(4, 5\), got \(4, 4\)"):
        MeshExamples(vertices=hearts.vertices, phases=hearts.phases[:, :4],
                     conditions=hearts.conditions, faces=FACES)  # fmt: skip
    with pytest.raises(ValueError, match=r"conditions must be \(4, 5\), got \(4, 2\)"):
        MeshExamples(vertices=hearts.vertices, phases=hearts.phases,
                     conditions=hearts.conditions, faces=FACES)  # fmt: skip


@pytest.mark.parametrize("name", ["mesh_small", "mesh_large"])
def test_presets_are_complete(name):
    assert load_config(MeshTraining, preset_path(name)).network.fit.steps >= 500


def test_the_settings_of_the_mesa_script_are_no_preset_of_train():
    assert load_config(MeshConfig, preset_path("scripts/mesh_mesa")).fit.steps >= 500
    assert not find_config("mesh_mesa").is_file()


def test_bad_settings_are_named(tmp_path):
    path = tmp_path / "mesh.toml"
    path.write_text("width = 30\nheads = 4\n")
    with pytest.raises(CardiogenError, match="heads: value error, must divide width"):
        load_config(MeshConfig, path)
    path.write_text("channels = []\n")
    with pytest.raises(CardiogenError, match="needs one positive number or more"):
        load_config(MeshConfig, path)


@pytest.fixture(scope="module")
def hearts():
    return population_meshes(6, 4, frames=3)


def test_population_hearts_are_functions_of_their_key(hearts):
    vertices, phases, conditions = population_mesh(4, 5, frames=3)
    assert np.array_equal(hearts.vertices[5], vertices)
    assert np.array_equal(hearts.phases[5], phases)
    assert np.array_equal(hearts.conditions[5], conditions)
    assert phases[0] == 0.0


def test_cohorts_of_sequences_come_to_one_frame_of_reference(hearts):
    axes, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    axes *= np.array([1, 1, np.sign(np.linalg.det(axes))])
    moved = Sequence(
        phases=np.roll(hearts.phases[0], 1), ed=1, topology=hearts.topology,
        vertices=np.roll(hearts.vertices[0], 1, axis=0) @ axes.T + 40.0, factors=Factors(age=60.0),
    )  # fmt: skip
    found = cohort_meshes([moved], frames=3, reference=hearts.vertices[0, 0].astype(float))
    np.testing.assert_allclose(found.vertices[0], hearts.vertices[0], atol=1e-3)
    np.testing.assert_array_equal(found.phases[0], hearts.phases[0])
    assert found.conditions[0, 0] == 60.0
    assert np.isnan(found.conditions[0, 1:]).all()
    with pytest.raises(CardiogenError, match="CG-C28 heart: found 3 frames of 3162 vertices"):
        cohort_meshes([moved], frames=4)


def test_label_maps_are_observed_through_the_template(hearts):
    from cardiogen.population import heart_vertices, render_labels, sample_heart, short_axis_grid

    config = MeshConfig(
        latents=4, harmonics=1, shape_modes=8, noise_modes=0, width=16, heads=2, layers=1,
        channels=(2, 4), coarsening=8, fit=FitConfig(steps=1, batch_size=2),
    )  # fmt: skip
    model = train_mesh(hearts, config, device="cpu")
    heart = sample_heart(11, 3)
    ed = heart.vertices([0.0])[0]
    grid = short_axis_grid(ed, heart.pose, (8.0, 1.6, 1.6))
    labels = render_labels(ed, hearts.topology, grid)[None]
    observed = Sequence(phases=np.zeros(1), grid=grid, labels=labels)
    nothing = torch.full((5,), float("nan"), dtype=torch.float64)
    found = model.posterior(observed, nothing)
    mean = model.decode(model.prior(nothing).mean, [0.0])
    away = rmse(found.pose.to_world(model.decode(found.latents.mean, [0.0])), ed)
    # Six hearts are no model of shape, but size and place are those of the heart that was seen.
    own = rmse(heart_vertices(heart.coordinates([0.0])), mean)
    assert away < max(own, 6.0)
    assert model.is_possible(found.latents.mean)
    assert 0.0 < model.end_systole(found.latents.mean) < 1.0


def test_a_resumed_training_knows_its_hearts():
    first = cohort(6, 0)
    assert first.fingerprint() == cohort(6, 0).fingerprint()
    others = (cohort(6, 1), cohort(7, 0), cohort(6, 0, frames=4), first.take(range(5)))
    assert first.fingerprint() not in {other.fingerprint() for other in others}


def test_a_validation_needs_hearts_of_its_own():
    config = SMALL.model_copy(update={"fit": FitConfig(steps=2, validate_every=1)})
    with pytest.raises(ValueError, match="held_out must be given where validate_every is set"):
        train_mesh(cohort(12, 0), config, device="cpu")
    model = train_mesh(cohort(12, 0), config, held_out=cohort(3, 1), device="cpu")
    assert len(model.history) == 1
