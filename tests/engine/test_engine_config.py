"""Configurations: TOML alone, unknown keys refused with the known ones listed."""

import pytest
from pydantic import BaseModel, ConfigDict

from cardiogen.base import CardiogenError
from cardiogen.cli.train_settings import TRAININGS
from cardiogen.engine.config import (
    LinearTraining,
    build_config,
    find_config,
    load_config,
    load_training,
    preset_path,
)


def load(tmp_path, content):
    path = tmp_path / "train.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_config(LinearTraining, path)


def test_config_defaults_and_values(tmp_path):
    assert load(tmp_path, "") == LinearTraining()
    found = load(tmp_path, 'model = "linear"\nn = 300\nseed = 7\ned_variance = 0.99\n')
    assert (found.n, found.seed, found.ed_variance) == (300, 7, 0.99)


def test_every_preset_on_offer_can_be_trained():
    place = preset_path("linear").parent
    presets = sorted([*place.glob("*.toml"), *(place / "models").glob("*.toml")])
    names = {preset.stem for preset in presets}
    assert len(names) == len(presets)
    assert names >= {"linear", "mesh", "mesh_small", "mesh_large", "volume_small"}
    for preset in presets:
        assert find_config(preset.stem) == preset
        # A file without a model would be one of a linear model.
        text = preset.read_text()
        assert f'model = "{load_training(TRAININGS, preset).model}"' in text


def test_bare_names_are_presets_unless_there_is_such_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config("linear") == preset_path("linear")
    assert load_config(LinearTraining, find_config("linear")).n == 12000
    for name in ("linear.toml", "configs/linear", tmp_path / "linear", "nonesuch"):
        assert str(find_config(name)) == str(name)
    (tmp_path / "linear").write_text("n = 50")
    assert load_config(LinearTraining, find_config("linear")).n == 50


def test_config_lists_the_known_keys(tmp_path):
    with pytest.raises(CardiogenError, match=r"CG-M07 .*hearts.*known keys") as caught:
        load(tmp_path, "hearts = 5")
    for name in LinearTraining.model_fields:
        assert name in caught.value.expected


@pytest.mark.parametrize(
    ("text", "section", "keys", "others"),
    [
        ('model = "mesh"\n[network]\nlatent = 5', "network", "latents, harmonics", "cohort"),
        ('model = "mesh"\n[network.fit]\nlr = 1e-3', "network.fit", "steps, batch", "latents"),
        ('model = "volume"\n[network.fit]\nsteps = 0', "network.fit", "steps, batch", "widths"),
        ('model = "deformation"\n[flow]\nstep = 4', "flow", "steps, width, updates", "fields"),
    ],
)
def test_config_lists_the_known_keys_of_the_section(tmp_path, text, section, keys, others):
    path = tmp_path / "train.toml"
    path.write_text(text)
    with pytest.raises(CardiogenError, match="CG-M07") as caught:
        load_training(TRAININGS, path)
    assert caught.value.found.startswith(f"{section}.")
    assert caught.value.expected.startswith(f"known keys of {section} {keys}")
    assert others not in caught.value.expected


def test_config_lists_the_known_keys_of_items_of_a_list():
    class Stage(BaseModel):
        model_config = ConfigDict(extra="forbid")
        size: int = 1

    class Whole(BaseModel):
        stages: tuple[Stage, ...] = ()

    with pytest.raises(CardiogenError, match=r"stages\.0\.sice: .*known keys of stages size with"):
        build_config(Whole, {"stages": [{"sice": 2}]}, "here")


BAD = {
    "yaml": "n: 50\n",
    "yaml list": "- n\n- 50\n",
    "json": '{"n": 50}',
    "duplicate key": "n = 50\nn = 60\n",
    "not a number": "ed_variance = nan",
    "infinity": "ed_variance = inf",
    "out of range": "n = 3",
    "float for integer": "n = 50.0",
    "text for integer": 'n = "50"',
    "truth for integer": "n = true",
    "code": '_target_ = "os.system"',
    "import": '"$import" = "os"',
    "other model": 'model = "pickle"',
    "not UTF-8": b'model = "\xff"',
    "NUL": b"n = 5\x000",
    "endless integer": "n = " + "9" * 5000,
    "depth": "n = " + "[" * 100_000,
    "inline depth": "n = " + "{a=" * 3000,
    "endless dotted key": "a." * 30_000 + "b = 1",
    "endless table": "[" + "a." * 30_000 + "b]",
    "too large": "#" * (1 << 20) + "\n",
}


@pytest.mark.parametrize("name", BAD)
def test_config_refuses(tmp_path, name):
    with pytest.raises(CardiogenError, match="CG-M07") as caught:
        load(tmp_path, BAD[name])
    assert caught.value.exit_code == 4


def test_config_unreadable(tmp_path):
    with pytest.raises(CardiogenError, match="CG-M47"):
        load_config(LinearTraining, tmp_path / "none.toml")
    with pytest.raises(CardiogenError, match=r"CG-M47 .*a folder"):
        load_config(LinearTraining, tmp_path)


def test_config_from_values_names_the_place():
    with pytest.raises(
        CardiogenError, match=r"CG-M07 --n: found n: .*greater than or equal to 40"
    ):
        build_config(LinearTraining, {"n": 1}, "--n")
