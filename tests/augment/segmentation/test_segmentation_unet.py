"""Laws of the U-Net: sizes, independence of examples, gradients everywhere."""

import pytest
import torch

from augment.segmentation import UNet
from augment.segmentation.unet import main_logits


@pytest.mark.parametrize("shape", [(24, 40), (8, 16, 24)])
def test_logits_have_the_size_of_the_image(shape):
    network = UNet(2, 5, widths=(3, 4, 6), dimensions=len(shape))
    logits = network(torch.randn(2, 2, *shape))
    assert logits.shape == (2, 5, *shape)


def test_deep_supervision_gives_halves_in_training_alone():
    network = UNet(widths=(3, 4, 6, 8), deep_supervision=True)
    levels = network(torch.randn(1, 1, 32, 48))
    assert [tuple(level.shape[2:]) for level in levels] == [(32, 48), (16, 24), (8, 12)]
    assert main_logits(levels) is levels[0]
    assert network.eval()(torch.randn(1, 1, 32, 48)).shape == (1, 4, 32, 48)


@pytest.mark.parametrize("training", [True, False])
def test_an_example_has_the_same_logits_alone_and_among_others(training):
    network = UNet(widths=(3, 4, 6)).double().train(training)
    images = torch.randn(3, 1, 16, 24, dtype=torch.float64)
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), alone, rtol=1e-10, atol=1e-10)


def test_no_state_changes_in_a_forward_pass():
    network = UNet(widths=(3, 4, 6))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network(100 * torch.randn(3, 1, 16, 24))
    assert all(torch.equal(before[n], t) for n, t in network.state_dict().items())


@pytest.mark.parametrize("deep", [True, False])
def test_every_parameter_gets_a_gradient(deep):
    network = UNet(widths=(3, 4, 6), deep_supervision=deep)
    output = network(torch.randn(2, 1, 16, 24))
    sum(level.square().mean() for level in (output if deep else [output])).backward()
    assert all(p.grad.abs().sum() > 0 for p in network.parameters())


def test_sizes_that_do_not_halve_are_refused():
    network = UNet(widths=(3, 4, 6))
    with pytest.raises(ValueError, match=r"multiples of 4.*\(1, 1, 18, 24\)"):
        network(torch.randn(1, 1, 18, 24))
    with pytest.raises(ValueError, match="exceed 4 voxels"):
        network(torch.randn(1, 1, 4, 4))
    with pytest.raises(ValueError, match="dimensions must be 2 or 3, got 4"):
        UNet(dimensions=4)
    with pytest.raises(ValueError, match="widths must be two positive numbers"):
        UNet(widths=(8,))
