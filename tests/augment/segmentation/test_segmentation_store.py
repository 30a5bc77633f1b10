"""A network's folder: the same logits from it, and every damage seen."""

import json
import resource

import pytest
import torch

from augment.segmentation import ImageConfig, NetworkConfig, PredictionConfig, load_network
from augment.segmentation.store import build_network, save_network
from cardiogen.base import CardiogenError

SIZE = NetworkConfig(widths=(2, 3, 4), deep_supervision=True)


@pytest.fixture
def folder(tmp_path):
    network = build_network(SIZE)
    place = save_network(
        tmp_path / "network", network, image=ImageConfig(spacing_mm=1.7), config=SIZE,
        prediction=PredictionConfig(overlap=0.25), training={"steps": 3, "arm": "none"},
    )  # fmt: skip
    return place, network.eval()


def test_a_network_comes_back_with_its_settings(folder):
    place, network = folder
    stored = load_network(place)
    image = torch.randn(2, 1, 16, 24)
    assert torch.equal(stored.network(image), network(image))
    assert stored.description.image.spacing_mm == 1.7
    assert stored.description.prediction.overlap == 0.25
    assert stored.description.network == SIZE
    assert not stored.network.training


def test_an_existing_network_is_kept(folder):
    place, network = folder
    with pytest.raises(CardiogenError, match="CG-O01"):
        save_network(place, network, image=ImageConfig(), config=SIZE,
                     prediction=PredictionConfig(), training={})  # fmt: skip


def test_changed_weights_are_refused(folder):
    weights = folder[0] / "network.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(CardiogenError, match=r"CG-M03 .*damaged or changed"):
        load_network(folder[0])


def test_weights_of_another_size_or_not_finite_are_refused(folder, tmp_path):
    network = folder[1]
    with torch.no_grad():
        network.first.norms[0].weight[0] = float("nan")
    broken = save_network(tmp_path / "broken", network, image=ImageConfig(), config=SIZE,
                          prediction=PredictionConfig(), training={})  # fmt: skip
    with pytest.raises(CardiogenError, match=r"CG-M05 .*NaN or infinity in 'first.norms"):
        load_network(broken)
    other = NetworkConfig(widths=(2, 3, 5))
    wrong = save_network(tmp_path / "wrong", build_network(SIZE), image=ImageConfig(),
                         config=other, prediction=PredictionConfig(), training={})  # fmt: skip
    with pytest.raises(CardiogenError, match=r"CG-M04 .*tensor"):
        load_network(wrong)


@pytest.mark.parametrize(
    ("key", "value"),
    [("structures", ["LV"]), ("schema_version", 2), ("network", {"widths": [2]}), ("more", 1)],
)
def test_a_wrong_description_is_refused(folder, key, value):
    file = folder[0] / "network.json"
    content = json.loads(file.read_text())
    content[key] = value
    file.write_text(json.dumps(content))
    with pytest.raises(CardiogenError, match=f"CG-M07 .*{key}"):
        load_network(folder[0])


def test_a_folder_without_a_network_is_refused(tmp_path):
    with pytest.raises(CardiogenError, match=r"CG-M47 .*no network\.json"):
        load_network(tmp_path)


def test_the_folder_of_a_training_is_told_from_that_of_its_network(tmp_path):
    place = save_network(tmp_path / "run" / "network", build_network(SIZE), image=ImageConfig(),
                         config=SIZE, prediction=PredictionConfig(), training={})  # fmt: skip
    with pytest.raises(CardiogenError, match=f"CG-M47 .*try {place}"):
        load_network(place.parent)


def test_patches_that_a_network_cannot_halve_are_refused(folder):
    file = folder[0] / "network.json"
    content = json.loads(file.read_text())
    content["image"]["patch"] = 33
    file.write_text(json.dumps(content))
    with pytest.raises(CardiogenError, match=r"CG-M07 .*image\.patch must be a multiple of"):
        load_network(folder[0])


def test_a_network_of_two_channels_is_refused(folder):
    place, network = folder
    network.first.convolutions[0].weight.data = torch.zeros(2, 2, 3, 3)
    save_network(place, network, image=ImageConfig(), config=SIZE,
                 prediction=PredictionConfig(), training={}, overwrite=True)  # fmt: skip
    with pytest.raises(CardiogenError, match=r"CG-M04 .*first\.convolutions\.0\.weight"):
        load_network(place)


def test_a_description_of_a_vast_network_takes_no_memory(folder):
    file = folder[0] / "network.json"
    content = json.loads(file.read_text())
    content["network"]["widths"] = [2048] * 8
    content["image"]["patch"] = 256
    file.write_text(json.dumps(content))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CardiogenError, match="CG-M04"):
        load_network(folder[0])
    # A tenth of a GB where its weights would take ten.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
