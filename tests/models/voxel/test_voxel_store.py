"""Label models survive their bundle; what is none of them is refused, and costs no memory."""

import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from cardiogen.base import CardiogenError
from cardiogen.data.factors import Factors
from cardiogen.models import encode_condition, load_model, save_model
from cardiogen.models.protocol import gives_labels
from cardiogen.models.sequence import SequenceConfig, train_sequence
from cardiogen.models.volume import VolumeConfig, train_volume
from cardiogen.models.voxel import Slots, heart_grid, population_examples

SHAPE, SPACING = (13, 11, 12), (11.0, 12.0, 11.0)
SMALL = {
    "shape": SHAPE, "spacing_mm": SPACING, "widths": (8, 16), "latent": 6, "code": 4,
    "evidence_share": 0.5,
    "fit": {"steps": 60, "batch_size": 8, "learning_rate": 8e-3, "warmup_steps": 10},
}  # fmt: skip
TRAIN = {
    "volume": (train_volume, VolumeConfig, {}),
    "sequence": (train_sequence, SequenceConfig, {"frames": 4, "frames_per_step": 2}),
}


@pytest.fixture(scope="module", params=TRAIN)
def model(request):
    train, config, more = TRAIN[request.param]
    settings = config.model_validate(SMALL | more)
    lattice = heart_grid(SHAPE, SPACING)
    return train(population_examples(60, 0, lattice, Slots(settings.frames)), settings)


@pytest.fixture
def saved(tmp_path, model):
    return save_model(
        tmp_path / "b", model, name="small", licence="Apache-2.0", card="# small\n",
        training_data={"cohort": "population", "n": 60, "seed": 0},
    )  # fmt: skip


def test_a_bundle_gives_the_same_bits(model, saved):
    again = load_model(saved)
    assert gives_labels(again.model)
    assert again.facts["kind"] == model.kind
    condition = encode_condition(Factors(age=50.0))
    latent = model.prior(condition).sample(torch.Generator().manual_seed(2))
    assert torch.equal(
        again.model.prior(condition).sample(torch.Generator().manual_seed(2)), latent
    )
    phases = [0.0, model.end_systole(latent)]
    ours, theirs = (m.decode_probs(latent, phases)[0] for m in (model, again.model))
    assert torch.equal(ours, theirs)


def test_a_bundle_names_ranges_and_no_template(model, saved):
    description = load_model(saved).bundle.description
    assert set(description.condition_ranges) == {"age", "height", "weight", "sbp"}
    low, high = description.condition_ranges["age"]
    assert 18 <= low < high <= 83
    assert description.template_sha256 == ""


def test_loading_leaves_global_randomness_alone(saved):
    state = torch.get_rng_state()
    load_model(saved)
    assert torch.equal(torch.get_rng_state(), state)


def reseal(folder, *, tensors=None, architecture=None, **changes):
    """Rewrite a bundle with changes and hashes that fit them."""
    file, weights = folder / "model.json", folder / "model.safetensors"
    content = json.loads(file.read_text(encoding="utf-8")) | changes
    content["architecture"] |= architecture or {}
    found = {n: np.ascontiguousarray(a) for n, a in load(weights.read_bytes()).items()}
    if tensors is not None:
        tensors(found)
    weights.write_bytes(save(found))
    content["tensors"] = {n: list(a.shape) for n, a in found.items()}
    content["weights_sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    content["description_sha256"] = "0" * 64
    text = json.dumps(content)
    file.write_text(text.replace("0" * 64, hashlib.sha256(text.encode()).hexdigest()))


def zeroed(name):
    return lambda tensors: tensors.update({name: np.zeros_like(tensors[name])})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": {"code": 5}}, "those of the architecture"),
        ({"architecture": {"shape": "512 512 512"}}, "got too few numbers"),
        ({"architecture": {"shape": "100000 512 512"}}, "less than or equal to 512"),
        ({"architecture": {"widths": "8 4096"}}, "got too few numbers"),
        ({"architecture": {"colour": "red"}}, "colour"),
        ({"tensors": lambda t: t.pop("base_mm")}, "base_mm of shape"),
        ({"tensors": lambda t: t.pop("prior.gaussian.slopes")}, "a prior of 6 latents"),
        ({"tensors": lambda t: t.update(evil=np.zeros(2, np.float32))}, "a prior of 6 latents"),
        ({"tensors": zeroed("prior.gaussian.factor_covariance")}, "describe no heart"),
        ({"tensors": zeroed("network.decoder.blocks.1.conv.weight")}, "describe no heart"),
        ({"template_sha256": "0" * 63}, "another template"),
        ({"kind": "linear", "template_sha256": ""}, "another template"),
    ],
)  # fmt: skip
def test_what_is_no_such_model_is_refused(saved, changes, message):
    reseal(saved)
    load_model(saved)
    reseal(saved, **changes)
    with pytest.raises(CardiogenError, match=f"CG-M04 .*{message}") as caught:
        load_model(saved)
    assert caught.value.exit_code == 4
