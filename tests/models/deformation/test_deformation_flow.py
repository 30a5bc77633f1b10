"""A deformation model with a flow: drawn with it, kept in its bundle, otherwise as before."""

import copy
import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from cardiogen.base import CardiogenError
from cardiogen.cli.generate_latents import outside
from cardiogen.cli.train import train
from cardiogen.data.factors import Factors
from cardiogen.engine.config import DeformationTraining, FlowConfig, load_config, preset_path
from cardiogen.models import encode_condition, guided_prior, load_model, save_model
from cardiogen.models.flow import new_flow
from cardiogen.models.target_values import parse_targets
from cardiogen.models.targets import condition_on_targets
from cardiogen.synthesis import draw_latent

MAN = encode_condition(Factors(age=60.0, sex="M"))
KNOWN = encode_condition(Factors(age=60.0, sex="M", height=178.0, weight=80.0, sbp=130.0))


@pytest.fixture
def flowing(small_model):
    """The small model with a flow of random weights."""
    size = small_model.latent_size
    flow = new_flow(np.full(5, 50.0), np.full(5, 10.0), latents=size, width=9, steps=3, seed=0)
    for last in (flow.leave, flow.stretch):
        torch.nn.init.normal_(last.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    model = copy.copy(small_model)
    model.flow = flow.finished()
    return model


@pytest.fixture
def bundle(flowing, tmp_path):
    return save_model(tmp_path / "b", flowing, name="d", training_data={"n": 80}, licence="x",
                      card="# d\n")  # fmt: skip


def test_draws_flow_and_posteriors_do_not(flowing, small_model):
    flown, still = (draw_latent(m, MAN, seed=2, index=5) for m in (flowing, small_model))
    assert 0.01 < float((flown - still).abs().max()) < 5
    prior, plain = flowing.prior(MAN), small_model.prior(MAN)
    assert torch.equal(prior.mean, plain.mean)
    assert torch.equal(prior.covariance, plain.covariance)


def test_a_flow_survives_its_bundle(bundle, flowing):
    again = load_model(bundle).model
    drawn, before = (draw_latent(m, KNOWN, seed=2, index=5) for m in (again, flowing))
    torch.testing.assert_close(drawn, before, atol=1e-5, rtol=0)
    for name, tensor in flowing.flow.state_dict().items():
        assert torch.equal(again.flow.state_dict()[name], tensor), name


def change(folder, **tensors):
    """Rewrite tensors of a bundle, with hashes that fit."""
    file, weights = folder / "model.json", folder / "model.safetensors"
    content = json.loads(file.read_text(encoding="utf-8"))
    found = {k: np.array(v) for k, v in load(weights.read_bytes()).items()} | tensors
    found = {name: tensor for name, tensor in found.items() if tensor is not None}
    weights.write_bytes(save(found))
    content["tensors"] = {name: list(tensor.shape) for name, tensor in found.items()}
    content["weights_sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    content["description_sha256"] = "0" * 64
    text = json.dumps(content)
    file.write_text(text.replace("0" * 64, hashlib.sha256(text.encode()).hexdigest()))


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"flow.steps": np.array([0.0], np.float32)}, "a flow of 0 steps, not 1 to 8"),
        ({"flow.steps": np.array([1e9], np.float32)}, "steps, not 1 to 8"),
        ({"flow.leave.bias": None}, "missing or unknown: flow.leave.bias"),
        ({"flow.leave.weight": np.zeros((3, 9), np.float32)}, "found flow.leave.weight of shape"),
        ({"flow.embedding.bias": np.zeros(2000, np.float32)}, "a flow of width 2000"),
        ({"flow.embedding.scale": np.zeros(5, np.float32)}, "a scale that is not positive"),
        ({"flow.leave.bias": np.full(8, 3e38, np.float32)}, "leads away from all hearts"),
        ({"flow.evil": np.zeros(2, np.float32)}, "flow.evil"),
    ],
)  # fmt: skip
def test_a_damaged_flow_is_refused(bundle, tensors, words):
    change(bundle, **tensors)
    with pytest.raises(CardiogenError, match=f"CG-M04 .*{words}"):
        load_model(bundle)


def test_targets_ask_for_a_gaussian(flowing):
    with pytest.raises(CardiogenError, match=r"CG-U44 --target: found a model with .* FlowPrior"):
        condition_on_targets(flowing, flowing.prior(MAN), parse_targets(["lvef=50%"], Factors()))


def test_guidance_reaches_both_parts(flowing):
    generators = [torch.Generator().manual_seed(1) for _ in range(3)]
    drawn = [guided_prior(flowing, MAN, g).sample(r) for g, r in zip((1.0, 1.0, 2.0), generators,
                                                                    strict=True)]  # fmt: skip
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_far_latents_are_told_by_the_gaussian(flowing):
    near = tuple(draw_latent(flowing, MAN, seed=2, index=5).tolist())
    assert outside(flowing, near, "latents") is None
    far = tuple(5.0 + x for x in near)
    assert outside(flowing, far, "latents").code == "D09"


def test_the_preset_says_what_is_the_default(tmp_path):
    with_flow, without = (
        load_config(DeformationTraining, preset_path(name))
        for name in ("deformation_flow", "deformation")
    )
    assert with_flow.flow == FlowConfig()
    assert without.flow is None
    assert with_flow.model_copy(update={"flow": None}) == without


@pytest.mark.parametrize("line", ["steps = 0", "steps = 9", "step = 4", "width = 2.0"])
def test_settings_that_are_none_are_refused(tmp_path, line):
    file = tmp_path / "c.toml"
    file.write_text(f'model = "deformation"\n[flow]\n{line}\n')
    with pytest.raises(CardiogenError, match=f"CG-M07 .*flow.{line.split()[0]}"):
        load_config(DeformationTraining, file)


def test_a_cohort_of_patients_gets_no_flow(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text(f'model = "deformation"\ncohort = "{tmp_path}"\n[flow]\nsteps = 4\n')
    with pytest.raises(CardiogenError, match="CG-U01 flow: found set, but without a use"):
        train(tmp_path / "b", config=file)
