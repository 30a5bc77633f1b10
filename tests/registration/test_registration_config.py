"""Presets hold what they publish; settings that mean nothing are named."""

import pytest
import torch

from cardiogen.base import CardiogenError
from cardiogen.engine.config import build_config, load_config
from registration import PRESETS, RegistrationConfig, load_preset, register
from registration.config import resolve_config
from registration.prepare import prepare_images


@pytest.mark.parametrize("name", PRESETS)
def test_presets_load_and_run(name, grid, make_image):
    config = load_preset(name)
    assert resolve_config(name, None) == config
    quick = config.model_copy(
        update={
            "stages": tuple(
                s.model_copy(update={"iterations": (1,) * s.levels}) for s in config.stages
            )
        }
    )
    labels = (make_image(grid) > 0.4).long()
    result = register(make_image(grid), make_image(grid, seed=5), grid, config=quick,
                      fixed_labels=labels, moving_labels=labels)  # fmt: skip
    assert torch.isfinite(result.displacement).all()


def test_published_recipes():
    ukbb = load_preset("ukbb_ffd").stages[0]
    assert (ukbb.transform, ukbb.control_spacing, ukbb.levels, ukbb.in_plane) == (
        "ffd",
        10,
        3,
        True,
    )
    assert ukbb.terms["similarity"].term == "mse"
    assert (ukbb.terms["smoothness"].term, ukbb.terms["smoothness"].weight) == ("bending", 0.1)
    deep = load_preset("deepreg_nonrigid").stages[0]
    assert (deep.learning_rate, deep.iterations) == (0.1, (3000,))
    assert (deep.terms["smoothness"].term, deep.terms["smoothness"].weight) == ("bending", 1.0)
    assert load_preset("deepreg_affine").stages[0].transform == "affine"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"solver": "newton"}, "gauss_newton"),
        ({"transform": "ffd"}, "adam or lbfgs"),
        ({"terms": {"a": {"term": "ssd"}}}, "unknown energy term 'ssd'"),
        ({"terms": {"a": {"term": "diffusion"}}}, "compare images or labels"),
        ({"terms": {}}, "at least 1"),
        ({"speed": 3}, "speed"),
        ({"iterations": [3, -1]}, "negative"),
    ],
)
def test_settings_that_mean_nothing_are_named(change, words):
    stage = {"terms": {"a": {"term": "mse"}}} | change
    with pytest.raises(CardiogenError, match=rf"(?s)CG-M07 .*{words}"):
        build_config(RegistrationConfig, {"stages": [stage]}, "test")


def test_config_files_are_read(tmp_path, pair, grid):
    path = tmp_path / "a.toml"
    path.write_text('[[stages]]\niterations = [1]\n[stages.terms.a]\nterm = "mse"\n')
    assert load_config(RegistrationConfig, path).stages[0].iterations == (1,)
    assert register(*pair[:2], grid, config=path).energies["step"].max() == 1


def test_scales(grid, make_image):
    fixed, moving = make_image(grid), 3 * make_image(grid, seed=1) + 2
    base = load_preset("fast").prepare
    spacing = grid.spacing

    def ends(**change):
        made = prepare_images(fixed, moving, spacing=spacing,
                              config=base.model_copy(update=change))  # fmt: skip
        return [float(f(x)) for x in made for f in (torch.min, torch.max)]

    assert ends(scale="each") == [0, 1, 0, 1]
    joint = ends(scale="joint", low=0.0, high=100.0)
    assert joint[0] == 0
    assert joint[3] == 1
    assert joint[1] < 0.5
    raw = [float(f(x)) for x in (fixed, moving) for f in (torch.min, torch.max)]
    assert ends(scale="none") == raw
    matching = base.model_copy(update={"scale": "none", "match": True})
    _, matched = prepare_images(fixed, 3 * fixed + 2, spacing=spacing, config=matching)
    torch.testing.assert_close(matched, fixed, atol=0.02, rtol=0)
    each = base.model_copy(update={"scale": "each"})
    flat, _ = prepare_images(0 * fixed + 7, moving, spacing=spacing, config=each)
    assert float(flat.abs().max()) == 0
