"""Pictures and a model for the countermeasures."""

import numpy as np
import pytest
import torch
from torch import nn

from unlearnable.countermeasures import Leak, Published


def textured(rng, count=12, height=16, width=14, channels=3, classes=3):
    """Pictures with edges, gradients and grain, a tint and a brightness of their own, well within the range."""
    coarse = rng.uniform(60, 190, (count, 4, 4, channels)).repeat(-(-height // 4), 1).repeat(-(-width // 4), 2)
    slope = np.linspace(-25, 25, width)[:, None] + rng.uniform(-10, 10, (count, 1, 1, channels))
    images = coarse[:, :height, :width] + slope + rng.normal(0, 8, (count, height, width, channels))
    images = np.clip(images, 5, 250).astype(np.uint8)
    labels = np.arange(count) % classes
    originals = np.clip(images[:classes].astype(int) + rng.integers(-9, 10, images[:classes].shape), 0, 255)
    leak = Leak(np.arange(min(classes, count)), originals.astype(np.uint8))
    images.flags.writeable = labels.flags.writeable = False  # as a memory map, and to catch whoever writes into it
    return Published(images, labels, classes, leak)


@pytest.fixture
def published(rng):
    return textured(rng)


@pytest.fixture(autouse=True)
def _one_thread():
    """Several threads for so few numbers get in each other's way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Tiny(nn.Module):
    """A network with BatchNorm and dropout, which show whether it was left alone."""

    def __init__(self, channels=3, classes=3):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )
        self.dropout, self.head = nn.Dropout(0.5), nn.Linear(16, classes)

    def forward(self, images):
        return self.head(self.dropout(self.layers(images)))


def as_batch(published):
    """The pictures as training sees them: floats on the 0 to 1 scale, channels first but last in memory."""
    images = torch.from_numpy(published.images.astype(np.float32)).permute(0, 3, 1, 2) / 255
    return images, torch.from_numpy(published.labels.copy())


def build_model(channels=3, classes=3):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Tiny(channels, classes).train()
