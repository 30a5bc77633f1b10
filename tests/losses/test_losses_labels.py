"""Label distances against counted overlaps and what they pull."""

import math

import pytest
import torch
import torch.nn.functional as F

from cardiogen.losses import CrossEntropy, Dice, Jaccard, MultiScaleDice

SPACING = (8.0, 1.4, 1.9)


def random_labels(seed, shape=(5, 7, 6), codes=4):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, codes, (2, *shape), generator=generator)
    return F.one_hot(labels, codes).movedim(-1, 1).double()


def test_overlaps_of_hard_labels_are_those_counted():
    fixed, moved = random_labels(0), random_labels(1)
    both = (fixed * moved).sum((2, 3, 4))
    sizes = fixed.sum((2, 3, 4)) + moved.sum((2, 3, 4))
    torch.testing.assert_close(
        Dice().value(fixed, moved, spacing=SPACING), 1 - (2 * both / sizes).mean(1)
    )
    torch.testing.assert_close(
        Jaccard().value(fixed, moved, spacing=SPACING), 1 - (both / (sizes - both)).mean(1)
    )


@pytest.mark.parametrize("term", [Dice(), Jaccard()], ids=repr)
def test_absent_and_disjoint_labels(term):
    fixed, moved = torch.zeros(1, 2, 6, 7), torch.zeros(1, 2, 6, 7)
    assert term.value(fixed, moved, spacing=(1.4, 1.9)) == 0
    fixed[0, 0, 1:3] = 1
    moved[0, 0, 4:5] = 1
    torch.testing.assert_close(term.value(fixed, moved, spacing=(1.4, 1.9)), torch.tensor([0.5]))


def test_cross_entropy_is_minus_the_log_of_the_right_label():
    fixed, moved = random_labels(0), random_labels(1)
    term = CrossEntropy(smoothing=0.01)
    right = (fixed * moved).sum(1, keepdim=True)
    wanted = -torch.log(0.01 + 0.99 * right)
    torch.testing.assert_close(term.map(fixed, moved, spacing=SPACING), wanted)
    sure = CrossEntropy(smoothing=1e-6).value(fixed, fixed, spacing=SPACING)
    assert (sure.abs() < 1e-9).all()
    coin = torch.full_like(fixed, 0.25)
    found = CrossEntropy(smoothing=1e-9).value(fixed, coin, spacing=SPACING)
    torch.testing.assert_close(found, torch.full_like(found, math.log(4)))


def test_wide_scales_pull_labels_that_do_not_touch():
    fixed = torch.zeros(1, 1, 31, 33)
    fixed[..., 8:12, 14:18] = 1

    def at(row):
        moved = torch.zeros(1, 1, 31, 33)
        moved[..., row : row + 4, 14:18] = 1
        return moved

    prices = {
        term: [float(term.value(fixed, at(row), spacing=(1.4, 1.9))) for row in (24, 20, 16)]
        for term in (Dice(), MultiScaleDice())
    }
    assert len({round(price, 6) for price in prices[Dice()]}) == 1
    far, near, nearer = prices[MultiScaleDice()]
    assert far > near > nearer


def test_scales_are_mm_and_zero_is_plain_dice():
    fixed, moved = random_labels(0), random_labels(1)
    plain = Dice().map(fixed, moved, spacing=SPACING)
    torch.testing.assert_close(
        MultiScaleDice(scales_mm=(0.0,)).map(fixed, moved, spacing=SPACING), plain
    )
    # Slices 8 mm apart are not mixed by 1 mm: planes differ by their own sums alone.
    one = fixed[:1, :1], moved[:1, :1]
    term = MultiScaleDice(scales_mm=(1.0,))
    apart = term.map(*(t[0].unsqueeze(1) for t in map(planes, one)), spacing=SPACING[1:])
    together = term.map(*one, spacing=SPACING)[0, 0]
    ratio = together / apart[:, 0]
    torch.testing.assert_close(ratio, ratio[:, :1, :1].expand_as(ratio))
    wide = MultiScaleDice(scales_mm=(8.0,)).map(*one, spacing=SPACING)[0, 0]
    assert (wide / apart[:, 0])[0].std() > 1e-3


def planes(labels):
    """Return slices as a batch, inside a list of one."""
    return labels.movedim(2, 1).flatten(0, 1).movedim(1, 0)


def test_unusable_constants_are_refused():
    with pytest.raises(ValueError, match=r"smoothing must lie in \(0, 1\), got 0"):
        CrossEntropy(smoothing=0.0)
    with pytest.raises(ValueError, match="scales_mm must be some numbers from 0, got"):
        MultiScaleDice(scales_mm=())
    assert hash(MultiScaleDice(scales_mm=[0.0, 1.0])) == hash(MultiScaleDice(scales_mm=(0.0, 1.0)))
