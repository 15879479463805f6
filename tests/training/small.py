"""Pictures and networks that take no time."""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from unlearnable.models import models
from unlearnable.pictures.dataset import Dataset
from unlearnable.training.recipes import Recipe

SMALL = Recipe(epochs=2, batch_size=16, learning_rate=0.05, crop=2)
BUILD = partial(models.create, "resnet9-w16", classes=2)


def tiny() -> nn.Module:
    """Build a network with all that a run has to keep: weights, running statistics, chance."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(4 * 36, 2)
    )


def dark_and_bright(count: int = 40, size: int = 8) -> Dataset:
    """Pictures of two classes that any network tells apart."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2
    images = (rng.integers(0, 100, (count, size, size, 3)) + 155 * labels[:, None, None, None]).astype(np.uint8)
    return Dataset(images, labels, ("dark", "bright"), tuple(map(str, range(count))))


class Constant(nn.Module):
    """Gives the same answer for every picture, and takes down what it is asked."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))
        self.asked: list[int] = []
        self.seen: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        self.asked.append(len(images))
        self.seen = images
        return self.logits.expand(len(images), -1)


def weights(network: nn.Module) -> Tensor:
    """Return all that a network knows, in one row."""
    return torch.cat([tensor.flatten().float() for tensor in network.state_dict().values()])
