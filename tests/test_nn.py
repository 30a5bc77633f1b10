"""Blocks of networks: embeddings with missing factors, odd lattices, reversed gradients."""

import pytest
import torch

from cardiogen.engine.fit import keyed_layers
from cardiogen.nn import (
    ConditionEmbedding,
    MappingNetwork,
    VoxelDecoder,
    VoxelEncoder,
    drop_factors,
    halved,
    reverse_gradient,
)

NAN = float("nan")
CENTER, SCALE = [50.0, 0.5, 170.0], [18.0, 0.5, 9.0]


@pytest.fixture
def mapping() -> MappingNetwork:
    with keyed_layers(3, "test"):
        return MappingNetwork(CENTER, SCALE, code=7, width=32)


def test_an_embedding_adds_a_line_for_known_factors_and_a_token_for_missing_ones():
    embedding = ConditionEmbedding(CENTER, SCALE, width=5)
    condition = torch.tensor([[68.0, NAN, 152.0]], dtype=torch.float64)
    expected = embedding.bias + embedding.weight[0] + embedding.null[1] - 2 * embedding.weight[2]
    torch.testing.assert_close(embedding(condition)[0], expected)
    unknown = embedding(torch.full((1, 3), NAN))
    torch.testing.assert_close(unknown[0], embedding.bias + embedding.null.sum(dim=0))


def test_an_embedding_refuses_factors_that_do_not_vary():
    with pytest.raises(ValueError, match=r"scale must be positive, got \[18.0, 0.0, 9.0\]"):
        ConditionEmbedding(CENTER, [18.0, 0.0, 9.0], width=5)


def test_conditions_survive_the_layers_of_a_mapping(mapping):
    noise = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    code = mapping(torch.tensor(CENTER) + torch.tensor(SCALE) * noise).detach()
    assert 0.2 < float(code.std(dim=0).mean()) < 5.0


def test_gradients_reach_every_parameter_of_a_mapping(mapping):
    condition = torch.tensor([[20.0, 1.0, 180.0], [NAN, NAN, NAN]])
    mapping(condition).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in mapping.parameters())


def test_factors_are_dropped_at_their_share_and_by_the_generator_alone():
    full = torch.zeros(2000, 3)
    drawn = [drop_factors(full, 0.25, generator=torch.Generator().manual_seed(5)) for _ in "ab"]
    assert torch.equal(drawn[0].isnan(), drawn[1].isnan())
    assert float(drawn[0].isnan().float().mean()) == pytest.approx(0.25, abs=0.02)
    assert not drop_factors(full, 0.0, generator=torch.Generator()).isnan().any()


def test_halves_round_up():
    assert halved((7, 10, 13)) == (4, 5, 7)
    assert halved((7, 10, 13), 3) == (1, 2, 2)


@pytest.mark.parametrize("shape", [(7, 10, 13), (8, 16, 4), (5, 6, 9)])
def test_volumes_of_any_size_go_in_and_come_out(shape):
    encoder = VoxelEncoder(2, shape=shape, widths=(4, 6, 8))
    decoder = VoxelDecoder(encoder.size, channels=3, shape=shape, widths=(4, 6, 8))
    image = torch.randn(2, 2, *shape)
    features = encoder(image)
    assert features.shape == (2, encoder.size)
    volume = decoder(features)
    assert volume.shape == (2, 3, *shape)
    # One heart alone and among others: no statistics of the batch.
    torch.testing.assert_close(decoder(encoder(image[1:])), volume[1:], atol=1e-5, rtol=1e-4)


def test_a_voxel_decoder_reaches_every_voxel():
    decoder = VoxelDecoder(3, channels=1, shape=(7, 10, 13), widths=(4, 6))
    latent = torch.randn(2, 3, requires_grad=True)
    one, other = decoder(latent)
    assert ((one - other).abs() > 0).all()


def test_reversal_turns_gradients_round():
    values = torch.tensor([1.0, -2.0], requires_grad=True)
    out = reverse_gradient(values, weight=0.3)
    assert torch.equal(out, values)
    out.square().sum().backward()
    torch.testing.assert_close(values.grad, -0.3 * 2 * values.detach())
