"""Lattices that swap no axis unnoticed, generators, and a small network that knows a phantom."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from augment import Lattice

SHAPES = {2: ((33, 47), (1.4, 1.9)), 3: (((7, 30, 25)), (8.0, 1.4, 1.9))}
CLASSES = 4


def lattice_of(ndim, batch=3, channels=2):
    shape, spacing = SHAPES[ndim]
    return Lattice(shape=shape, spacing=spacing, batch=batch, channels=channels)


def image_of(lattice, seed=0, dtype=torch.float32):
    shape = (lattice.batch, lattice.channels, *lattice.shape)
    return torch.rand(shape, generator=seeded(seed), dtype=dtype)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def phantoms(count, size=48, seed=0):
    """Return images and labels (2D) of a ring with a blob: cavity, wall, and what lies beside."""
    generator = seeded(seed)
    places = torch.stack(torch.meshgrid(*[torch.arange(size, dtype=torch.float32)] * 2,
                                        indexing="ij"))  # fmt: skip
    images, labels = [], []
    for _ in range(count):
        center, sizes = torch.rand(2, generator=generator), torch.rand(3, generator=generator)
        middle = size / 2 + 6 * (center - 0.5)
        radius = (places - middle.view(2, 1, 1)).square().sum(0).sqrt()
        other = middle + torch.tensor([0.0, 14.0])
        beside = (places - other.view(2, 1, 1)).square().sum(0).sqrt()
        codes = torch.zeros(size, size, dtype=torch.long)
        codes[beside < 6 + 2 * sizes[2]] = 3
        codes[radius < 9 + 2 * sizes[1]] = 2
        codes[radius < 5 + 2 * sizes[0]] = 1
        levels = torch.tensor([0.2, 0.9, 0.35, 0.75])
        noise = 0.05 * torch.randn(size, size, generator=generator)
        images.append(levels[codes] + noise)
        labels.append(codes)
    return torch.stack(images).unsqueeze(1), torch.stack(labels).unsqueeze(1)


class SmallNet(nn.Module):
    """Four convolutions with batch norm and dropout: everything that keeps a state."""

    def __init__(self, norm=nn.BatchNorm2d, dropout=0.1, classes=CLASSES):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), norm(12), nn.ReLU(),
            nn.Conv2d(12, 12, 3, padding=2, dilation=2), norm(12), nn.ReLU(), nn.Dropout(dropout),
            nn.Conv2d(12, 12, 3, padding=4, dilation=4), norm(12), nn.ReLU(),
            nn.Conv2d(12, classes, 1),
        )  # fmt: skip

    def forward(self, image):
        return self.body(image)


def trained_net(norm=nn.BatchNorm2d, dropout=0.1, steps=80, seed=0):
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    net = SmallNet(norm, dropout)
    images, labels = phantoms(16, seed=1)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for step in range(steps):
        part = torch.arange(4) + 4 * (step % 4)
        optimizer.zero_grad()
        F.cross_entropy(net(images[part]), labels[part, 0]).backward()
        optimizer.step()
    optimizer.zero_grad()
    torch.set_rng_state(state)
    return net


@pytest.fixture(scope="session")
def batch_net():
    return trained_net()


@pytest.fixture(scope="session")
def instance_net():
    return trained_net(norm=nn.InstanceNorm2d, dropout=0.0)


@pytest.fixture(scope="session")
def kit():
    """Everything above for tests, which cannot import from here."""
    return SimpleNamespace(
        SHAPES=SHAPES, CLASSES=CLASSES, lattice_of=lattice_of, image_of=image_of, seeded=seeded,
        phantoms=phantoms, SmallNet=SmallNet, trained_net=trained_net,
    )  # fmt: skip
