"""Patches: placed where told, padded by what is outside, mixed by shares, keyed by generators."""

import pytest
import torch

from augment.segmentation import ImageConfig, SliceExamples, prepare_sequence
from augment.segmentation.examples import cut, mix, require_examples
from cardiogen.base import CardiogenError


def examples(hearts, **changes) -> SliceExamples:
    config = ImageConfig(spacing_mm=2.0, patch=32, **changes)
    return SliceExamples(
        tuple(f for h in hearts for f in prepare_sequence(h, config, frames="ed+es")), config
    )


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("start", [(0, 0), (3, 2), (-2, 4), (5, -3), (-1, -1), (40, 40)])
def test_a_window_shows_the_plane_and_padding(start):
    planes = torch.arange(2 * 9 * 11.0).view(2, 9, 11) + 1
    window = cut(planes, start, 5, value=-7.0)
    for row in range(5):
        for column in range(5):
            r, c = row + start[0], column + start[1]
            inside = 0 <= r < 9 and 0 <= c < 11
            wanted = planes[:, r, c] if inside else torch.full((2,), -7.0)
            assert torch.equal(window[:, row, column], wanted)


def test_every_slice_is_an_example(hearts):
    found = examples(hearts[:2])
    assert len(found) == 2 * 2 * 3
    image, shares, _ = found.patch(5, generator())
    assert image.shape == (1, 1, 32, 32)
    assert shares.shape == (1, 4, 32, 32)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(1, 32, 32), rtol=0, atol=2e-3)


def test_a_patch_is_a_function_of_its_generator(hearts):
    found = examples(hearts[:1])
    one, same, other = (found.patch(1, generator(seed))[0] for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_patches_around_the_heart_hold_its_middle(hearts):
    found = examples(hearts[:1], heart_share=1.0, jitter_mm=0.0)
    frame = found.frames[0]
    image = found.patch(1, generator()).image[0]
    top, left = (round(c - 15.5) for c in frame.center)
    rows = min(max(top, 0), frame.image.shape[1] - 32)
    columns = min(max(left, 0), frame.image.shape[2] - 32)
    assert torch.equal(image[0], frame.image[1, rows : rows + 32, columns : columns + 32])


def test_patches_anywhere_reach_all_corners(hearts):
    found = examples(hearts[:1], heart_share=0.0)
    frame = found.frames[0]
    first, last = frame.image[0, 0, 0], frame.image[0, -1, -1]
    patches = [found.patch(0, generator(seed)).image[0, 0] for seed in range(300)]
    assert any(torch.equal(p[0, 0], first) for p in patches)
    assert any(torch.equal(p[-1, -1], last) for p in patches)


def test_slices_smaller_than_a_patch_are_padded_by_the_darkest_value(hearts):
    config = ImageConfig(spacing_mm=6.0, patch=32)
    frames = tuple(prepare_sequence(hearts[0], config, frames="all"))
    image, shares, _ = (part[0] for part in SliceExamples(frames, config).patch(0, generator()))
    assert float(image[0, 0, 0]) == float(frames[0].image.min())
    assert float(shares[0, 0, 0]) == 1
    kept = frames[0].structures[:, 0].float().sum()
    torch.testing.assert_close(shares[1:].sum(), kept, rtol=0, atol=0.1)


@pytest.mark.parametrize(("share", "wanted"), [(0.0, 0.0), (0.3, 0.3), (1.0, 1.0)])
def test_synthetic_slices_take_their_share(hearts, share, wanted):
    real, synthetic = examples(hearts[:1]), examples(hearts[1:2])
    # Told apart by a value that no other slice has.
    for frame in synthetic.frames:
        frame.image.fill_(9.0)
    images = mix(list(range(6)) * 100, real, synthetic, share, generator()).image
    found = (images.flatten(1).amax(dim=1) == 9.0).double().mean()
    assert float(found) == pytest.approx(wanted, abs=0.06)


def test_synthetic_slices_alone_follow_the_order_of_the_epoch(hearts):
    only = examples(hearts[:1], heart_share=1.0, jitter_mm=0.0)
    images = mix([4, 2], None, only, 0.5, generator()).image
    assert torch.equal(images[:1], only.patch(4, generator()).image)
    assert torch.equal(images[1:], only.patch(2, generator()).image)


def test_no_heart_at_all_is_refused(hearts):
    with pytest.raises(CardiogenError, match="CG-C28 data: found no heart"):
        require_examples(SliceExamples((), ImageConfig()), None)
    config = ImageConfig(spacing_mm=2.0)
    frame = prepare_sequence(hearts[0], config, frames="ed+es")[0]
    bare = type(frame)(**{**vars(frame), "structures": None})
    with pytest.raises(ValueError, match="frames must have labels"):
        SliceExamples((bare,), config)


def test_the_fingerprint_tells_hearts_apart(hearts):
    one, same, other = (
        examples(part).fingerprint() for part in (hearts[:1], hearts[:1], hearts[1:2])
    )
    assert one == same != other
