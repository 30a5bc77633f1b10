"""Label maps of any codes: never mixed, moved with their image, background where nothing was."""

import pytest
import torch

from augment import Affine, Chain, GaussianNoise, classic_chain
from augment.adapters.codes import apply_draw, draw_for, image_of, move_codes, reversed_axes

SPACING = (7.0, 1.4, 1.9)


def sample(seed=0, shape=(5, 26, 31)):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(2, *shape, generator=generator)
    codes = torch.full((1, *shape), 0, dtype=torch.int16)
    codes[:, 1:4, 8:18, 9:22] = 7
    codes[:, 1:4, 11:15, 12:18] = -1
    return image, codes


def applied_to(image, chain, seed=3):
    return apply_draw(draw_for(chain, image.shape, SPACING, seed=seed), chain, image)


def test_codes_stay_codes_and_follow_indicator_channels():
    image, codes = sample()
    applied = applied_to(image, classic_chain())
    moved = move_codes(applied, codes)
    assert moved.dtype == torch.int16
    assert set(torch.unique(moved).tolist()) <= {-1, 0, 7}
    hot = torch.stack([(codes[0] == value).float() for value in (0, -1, 7)])[None]
    wanted = torch.tensor([0, -1, 7])[applied.labels(hot)[0].argmax(dim=0)]
    assert torch.equal(moved[0].long(), wanted)


def test_intensities_alone_leave_labels_alone():
    image, codes = sample()
    applied = applied_to(image, Chain(transforms=(GaussianNoise(sd=0.3),)))
    assert torch.equal(move_codes(applied, codes), codes)
    assert not torch.equal(image_of(applied, image), image)


def test_what_comes_into_view_is_background():
    image, codes = sample()
    everywhere = torch.full_like(codes, 4)
    chain = Chain(
        transforms=(Affine(scale=1.0, shear=0.0, rotation_deg=0, tilt_deg=0, shift_mm=30),)
    )
    applied = applied_to(image, chain)
    moved = move_codes(applied, everywhere)
    assert (moved[0] == 4)[applied.valid[0, 0] > 0.5].all()
    assert (moved == 0).float().mean() > 0.1


def test_a_map_of_background_stays_one():
    image, codes = sample()
    empty = torch.zeros_like(codes)
    assert torch.equal(move_codes(applied_to(image, classic_chain()), empty), empty)


def test_labels_come_back():
    image, codes = sample()
    applied = applied_to(image, Chain(transforms=(Affine(shift_mm=3.0),)))
    back = move_codes(applied, move_codes(applied, codes), back=True)
    assert (back == codes).float().mean() > 0.97


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 6, 7)])
def test_axes_turn_round_and_back(shape):
    tensor = torch.rand(shape)
    turned = reversed_axes(tensor)
    assert turned.shape == (shape[0], *shape[:0:-1])
    assert torch.equal(reversed_axes(turned), tensor)
    if len(shape) == 4:
        assert turned[1, 4, 2, 0] == tensor[1, 0, 2, 4]


def test_whole_numbers_become_intensities():
    image = torch.arange(5 * 26 * 31).view(1, 5, 26, 31)
    applied = applied_to(image, Chain(transforms=(GaussianNoise(),)))
    assert image_of(applied, image).dtype == torch.float32
    assert image_of(applied, image.double()).dtype == torch.float64
