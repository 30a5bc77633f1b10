"""Models survive their bundle; what is no model of this program is refused."""

import hashlib
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from cardiogen.base import CardiogenError
from cardiogen.data.factors import Factors
from cardiogen.engine import default_bundle_path, find_bundle
from cardiogen.models import LinearModel, encode_condition, load_model, save_model


@pytest.fixture
def saved(tmp_path, small_weights):
    return save_model(
        tmp_path / "bundle",
        LinearModel(small_weights),
        name="small",
        training_data={"cohort": "population", "n": 1500, "seed": 3},
        licence="Apache-2.0",
        card="# small\n",
    )


def test_store_round_trip_decodes_the_same_hearts(saved, small_weights):
    before, after = LinearModel(small_weights), load_model(saved)
    condition = encode_condition(Factors(age=50.0, sex="M"))
    latent = before.prior(condition).mean
    torch.testing.assert_close(after.model.prior(condition).mean, latent, atol=1e-4, rtol=0)
    phases = [0.0, 0.36, 0.8]
    first, second = (m.decode(latent, phases) for m in (before, after.model))
    assert np.abs(first - second).max() < 2e-3  # mm, the rounding of float32 weights
    assert after.facts["name"] == "small"
    assert after.facts["kind"] == "linear"


def test_store_loads_the_same_bits_twice(saved):
    first, second = (load_model(saved).model.weights.tensors() for _ in range(2))
    for name, tensor in first.items():
        np.testing.assert_array_equal(tensor, second[name])


def test_store_describes_conditions_and_training(shipped):
    description = shipped.bundle.description
    assert description.condition_columns == ["age", "sex", "height", "weight", "sbp"]
    assert set(description.condition_ranges) == {"age", "height", "weight", "sbp"}
    assert description.training_data["cohort"] == "population"
    assert description.architecture["ed_modes"] == len(shipped.model.weights.ed_modes)
    digest = hashlib.sha256((find_bundle("linear") / "model.safetensors").read_bytes())
    assert shipped.facts["weights_sha256"] == digest.hexdigest()


def reseal(folder, *, tensors=None, **changes):
    """Rewrite a bundle with changes and hashes that fit them."""
    file, weights = folder / "model.json", folder / "model.safetensors"
    content = json.loads(file.read_text(encoding="utf-8")) | changes
    if tensors is not None:
        found = {n: np.ascontiguousarray(a) for n, a in load(weights.read_bytes()).items()}
        tensors(found)
        weights.write_bytes(save(found))
        content["tensors"] = {n: list(a.shape) for n, a in found.items()}
    content["weights_sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    content["description_sha256"] = "0" * 64
    text = json.dumps(content)
    file.write_text(text.replace("0" * 64, hashlib.sha256(text.encode()).hexdigest()))


def refused(folder, message):
    with pytest.raises(CardiogenError, match=f"CG-M04 .*{message}") as caught:
        load_model(folder)
    assert caught.value.exit_code == 4


def test_store_refuses_another_template_and_other_conditions(saved):
    reseal(saved)
    load_model(saved)
    reseal(saved, condition_units=["months", "0 = F, 1 = M", "cm", "kg", "mmHg"])
    refused(saved, "found conditions .*months")
    reseal(saved, template_sha256="0" * 63)
    refused(saved, "another template")


def cut(name, axis):
    def change(tensors):
        tensors[name] = np.take(tensors[name], range(tensors[name].shape[axis] - 1), axis=axis)

    return change


@pytest.mark.parametrize(
    ("name", "axis"),
    [("mean", 0), ("ed_modes", 1), ("motion_modes", 1), ("slopes", 1), ("residual_tril", 0),
     ("residual_axes", 1),
     ("factor_covariance", 0), ("factor_range", 1), ("residual_slopes", 1)],
)  # fmt: skip
def test_store_refuses_tensors_that_do_not_fit_each_other(saved, name, axis):
    reseal(saved, tensors=cut(name, axis))
    refused(saved, f"found {name} of shape")


def test_store_refuses_missing_and_unknown_tensors(saved):
    reseal(saved, tensors=lambda t: t.update(evil=np.zeros(2, np.float32)))
    refused(saved, "evil")
    reseal(saved, tensors=lambda t: (t.pop("evil"), t.pop("slopes")))
    refused(saved, "slopes")


@pytest.mark.parametrize(
    ("name", "factor"),
    [("residual_tril", 0.0), ("residual_axes", 0.0), ("factor_covariance", -1.0), ("scale", 1e30)],
)
def test_store_refuses_weights_that_describe_no_heart(saved, name, factor):
    reseal(saved, tensors=lambda t: t.update({name: t[name] * np.float32(factor)}))
    refused(saved, "weights that describe no heart")


def test_shipped_bundle_is_whole(tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(default_bundle_path(), copy)
    assert load_model(copy).facts == load_model().facts
    (copy / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(CardiogenError, match="CG-M03"):
        load_model(copy)


def test_the_card_of_the_default_model_has_its_numbers():
    card = (load_model(None).bundle.path / "card.md").read_text(encoding="utf-8")
    measured = card.split("## Measured")[1]
    for script in ("cardiogen evaluate", "eval_validity.py", "eval_adaptation.py"):
        assert script in measured
    assert "Known faults" in measured
