"""Chains in MONAI: metadata kept, one seed one draw, the engine's step."""

import pytest
import torch

pytest.importorskip("monai")

import numpy as np
from monai.data import MetaTensor

from augment import Adversary, Affine, Ascent, Chain, GaussianNoise, classic_chain
from augment.adapters.for_monai import AdversarialUpdate, ChainD
from augment.segmentation import UNet

AFFINE = torch.diag(torch.tensor([1.4, 1.9, 8.0, 1.0], dtype=torch.float64))


def sample():
    codes = torch.zeros(1, 26, 22, 5, dtype=torch.uint8)
    codes[:, 7:18, 6:15, 1:4] = 3
    image = MetaTensor((codes == 3).float(), affine=AFFINE, meta={"filename_or_obj": "x.nii"})
    return {"image": image, "label": MetaTensor(codes, affine=AFFINE), "age": 61}


def test_the_example_runs(run_example):
    moved = run_example("for_monai")["moved"]
    assert moved["image"].shape == (1, 40, 32, 9)
    assert moved["label"].dtype == torch.uint8


def test_labels_move_with_the_image_and_metadata_stay(shifted):
    transform = ChainD("image", "label", shifted).set_random_state(seed=2)
    given = sample()
    moved = transform(given)
    assert isinstance(moved["image"], MetaTensor)
    assert torch.equal(moved["image"].affine, AFFINE)
    assert moved["image"].meta["filename_or_obj"] == "x.nii"
    assert moved["age"] == 61
    assert ((moved["label"] == 3) == (moved["image"] > 0.5)).float().mean() > 0.99
    assert not torch.equal(moved["label"], given["label"])
    assert torch.equal(given["label"], sample()["label"])


def test_the_spacing_of_the_metadata_counts():
    """A shift of so many mm is half as many voxels where voxels are twice as large."""
    chain = Chain(transforms=(Affine(rotation_deg=0, tilt_deg=0, scale=1, shear=0, shift_mm=9),))
    still = torch.nonzero(sample()["image"].as_tensor()[0] > 0.5).double().mean(dim=0)
    shifts = []
    for factor in (1.0, 2.0):
        given = sample()
        given["image"].affine = AFFINE * torch.tensor([factor] * 3 + [1.0], dtype=torch.float64)
        moved = ChainD("image", "label", chain).set_random_state(seed=5)(given)["image"]
        share = moved.as_tensor()[0].double()
        places = torch.stack(torch.meshgrid(*map(torch.arange, share.shape), indexing="ij"))
        shifts.append((places * share).sum(dim=(1, 2, 3)) / share.sum() - still)
    assert shifts[0][:2].abs().max() > 1
    torch.testing.assert_close(shifts[0][:2], 2 * shifts[1][:2], rtol=0, atol=1e-3)


def test_draws_follow_the_random_state():
    found = []
    for seed in (1, 1, 2):
        transform = ChainD("image", ["label"], classic_chain()).set_random_state(seed=seed)
        state = torch.get_rng_state()
        found.append(transform(sample())["image"].as_tensor())
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    never = ChainD("image", "label", classic_chain(), probability=0.0)
    assert torch.equal(never(sample())["image"], sample()["image"])


def test_images_of_other_channel_counts_move_alike():
    chain = Chain(transforms=(GaussianNoise(sd=1e-4), Affine()), least=2)
    for seed in range(6):
        given = sample()
        given["pair"] = MetaTensor(given["image"].as_tensor().repeat(2, 1, 1, 1), affine=AFFINE)
        moved = ChainD(["image", "pair"], "label", chain).set_random_state(seed=seed)(given)
        inside = moved["label"] == 3
        for image in (moved["image"], moved["pair"][:1], moved["pair"][1:]):
            assert ((image > 0.5) == inside).float().mean() > 0.99


def test_what_is_missing_is_named():
    with pytest.raises(
        ValueError, match="spacing must be given for images that are no MetaTensor"
    ):
        ChainD("image", "label", classic_chain())({"image": torch.rand(1, 8, 8, 3),
                                                   "label": torch.zeros(1, 8, 8, 3)})  # fmt: skip
    with pytest.raises(ValueError, match="labels 'label' need an image"):
        ChainD("image", "label", classic_chain(), allow_missing_keys=True)(
            {"label": sample()["label"]}
        )


def test_the_engine_takes_steps_with_the_adversary():
    pytest.importorskip("ignite")
    from monai.engines import SupervisedTrainer

    torch.manual_seed(0)
    image = torch.rand(4, 1, 16, 24)
    one_hot = (
        torch.nn.functional.one_hot(torch.randint(0, 4, (4, 16, 24)), 4).movedim(-1, 1).float()
    )
    loader = torch.utils.data.DataLoader(
        [{"image": i, "label": t} for i, t in zip(image, one_hot, strict=True)], batch_size=2
    )
    network = UNet(widths=(2, 3))
    before = [p.detach().clone() for p in network.parameters()]
    adversary = Adversary(chain=classic_chain(), generator=torch.Generator().manual_seed(0),
                          ascent=Ascent(steps=1))  # fmt: skip
    trainer = SupervisedTrainer(
        device=torch.device("cpu"), max_epochs=2, train_data_loader=loader, network=network,
        optimizer=torch.optim.Adam(network.parameters(), 1e-2),
        loss_function=torch.nn.functional.cross_entropy, decollate=False,
        iteration_update=AdversarialUpdate(
            adversary, spacing=(1.4, 1.9), weight=lambda step: min(1.0, step / 2)
        ),
    )  # fmt: skip
    trainer.run()
    assert np.isfinite(float(trainer.state.output["loss"].detach()))
    assert adversary.calls == 3  # the first step has no weight
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
