"""Chains in TorchIO: history, replay, and the inverse of geometry."""

import pytest
import torch

pytest.importorskip("torchio")

import torchio

from augment import Affine, Chain, GaussianNoise, classic_chain
from augment.adapters.for_torchio import RandomChain, SeededChain


def subject():
    codes = torch.zeros(1, 30, 26, 7, dtype=torch.uint8)
    codes[:, 9:20, 8:17, 2:5] = 3
    affine = torch.diag(torch.tensor([1.4, 1.9, 8.0, 1.0])).numpy()
    return torchio.Subject(
        cine=torchio.ScalarImage(tensor=(codes == 3).float(), affine=affine),
        heart=torchio.LabelMap(tensor=codes, affine=affine),
    )


def test_the_example_runs(run_example):
    names = run_example("for_torchio")
    assert names["back"].cine.shape == (1, 40, 32, 9)
    assert torch.equal(names["again"].cine.data, names["moved"].cine.data)


def test_label_maps_move_with_images(shifted):
    torch.manual_seed(3)
    moved = RandomChain(shifted)(subject())
    assert ((moved.heart.data == 3) == (moved.cine.data > 0.5)).float().mean() > 0.99
    assert not torch.equal(moved.heart.data, subject().heart.data)
    assert moved.heart.data.dtype == torch.uint8


def test_history_replays_the_draw():
    torch.manual_seed(1)
    moved = RandomChain(classic_chain())(subject())
    (step,) = moved.history
    assert isinstance(step, SeededChain)
    again = step(subject())
    assert torch.equal(again.cine.data, moved.cine.data)
    assert torch.equal(again.heart.data, moved.heart.data)


def test_geometry_comes_back():
    chain = Chain(transforms=(Affine(shift_mm=4.0, tilt_deg=0.0, rotation_deg=8.0),))
    torch.manual_seed(2)
    moved = RandomChain(chain)(subject())
    back = moved.apply_inverse_transform()
    same = (back.heart.data == subject().heart.data).float().mean()
    changed = (moved.heart.data == subject().heart.data).float().mean()
    assert same > 0.98
    assert same > changed
    assert step_back_twice(moved)


def step_back_twice(moved):
    (step,) = moved.history
    return step.inverse().inverse().invert is False


def test_intensities_have_no_way_back():
    torch.manual_seed(2)
    moved = RandomChain(Chain(transforms=(GaussianNoise(),)))(subject())
    back = moved.apply_inverse_transform()
    assert torch.equal(back.cine.data, moved.cine.data)
    assert torch.equal(back.heart.data, subject().heart.data)


def test_options_of_torchio_hold():
    torch.manual_seed(0)
    never = RandomChain(classic_chain(), p=0)(subject())
    assert torch.equal(never.cine.data, subject().cine.data)
    some = RandomChain(classic_chain(), exclude=["cine"])(subject())
    assert torch.equal(some.cine.data, subject().cine.data)


@pytest.mark.parametrize(
    "options",
    [{"include": ["cine", "heart"]}, {"exclude": ["other"]}, {"keep": {"cine": "other"}}],
    ids=["include", "exclude", "keep"],
)
def test_the_way_back_is_that_of_what_moved(shifted, options):
    given = subject()
    if "keep" not in options:
        given.add_image(torchio.ScalarImage(tensor=given.cine.data, affine=given.cine.affine),
                        "other")  # fmt: skip
    torch.manual_seed(3)
    moved = RandomChain(shifted, **options)(given)
    assert torch.equal(moved.other.data, given.cine.data)
    assert not torch.equal(moved.cine.data, given.cine.data)
    back = moved.apply_inverse_transform()
    assert torch.equal(back.other.data, given.cine.data)
    assert (back.heart.data == given.heart.data).float().mean() > 0.99
    direct = moved.history[-1].inverse()(moved)
    assert torch.equal(direct.other.data, given.cine.data)
    assert torch.equal(direct.heart.data, back.heart.data)


def test_images_of_other_channel_counts_move_alike():
    chain = Chain(transforms=(GaussianNoise(sd=1e-4), Affine()), least=2)
    for seed in range(6):
        torch.manual_seed(seed)
        given = subject()
        pair = torchio.ScalarImage(
            tensor=given.cine.data.repeat(2, 1, 1, 1), affine=given.cine.affine
        )
        given.add_image(pair, "pair")
        moved = RandomChain(chain)(given)
        inside = moved.heart.data == 3
        for image in (moved.cine.data, moved.pair.data[:1], moved.pair.data[1:]):
            assert ((image > 0.5) == inside).float().mean() > 0.99
