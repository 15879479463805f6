"""What every network of the zoo has in common: what it takes, how it normalises it, and a linear last layer."""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlearnable.errors import expected
from unlearnable.registry import Registry

MEAN: Final = 0.45  # of natural pictures, about; a fixed value, so that a network never depends on a data set
STD: Final = 0.25

models: Registry[nn.Module] = Registry("model")
"""Builders: each takes (classes, *, channels=3, size=32), the size in pixels of the pictures' side."""


def normalise(images: Tensor) -> Tensor:
    """Bring pictures on the 0 to 1 scale to about mean 0 and deviation 1."""
    return (images - MEAN) / STD


class Normalised(nn.Module):
    """A library's network, made to take floats on the 0 to 1 scale like ours.

    mean, std: of what the network was made for, for all channels or one a channel.
    padding: pixels of the mean colour added at the right and at the bottom.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, *, mean: Sequence[float] = (MEAN,), std: Sequence[float] = (STD,), padding: int = 0
    ) -> None:
        super().__init__()
        self.network = network
        self.padding = padding
        # Constants of the architecture: not among the weights.
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1), persistent=False)

    @property
    def head(self) -> object:
        """Whatever the library calls the classifier."""
        return self.network.get_classifier()  # type: ignore[operator]

    def forward(self, images: Tensor) -> Tensor:
        """Map (count, channels, height, width) on the 0 to 1 scale to (count, classes)."""
        normalised = (images - self.mean) / self.std
        if self.padding:
            normalised = functional.pad(normalised, (0, self.padding, 0, self.padding))
        logits: Tensor = self.network(normalised)
        return logits


def head(network: nn.Module) -> nn.Linear:
    """Return a network's last layer, which turns features into logits. Raises InputError unless it is linear."""
    found = getattr(network, "head", None)
    if not isinstance(found, nn.Linear):
        raise expected("a network whose last layer is linear", type(found).__name__, "choose another model")
    return found
