"""What a run costs, counted in a unit that no machine changes: one picture forward and backward through the network."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class GradientMeter:
    """Counts the pictures that pass through a network with gradients on: each is one forward and backward pass.

    Attacks, adversarial training and error-minimizing noise are compared by this figure in the literature.
    """

    def __init__(self, model: nn.Module, count: int = 0) -> None:
        """Start counting, from ``count`` on."""
        self.count = count
        self._hook = model.register_forward_pre_hook(self._see)

    def _see(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if torch.is_grad_enabled():
            self.count += len(inputs[0])

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what passes in the meantime."""
        count = self.count
        yield
        self.count = count

    def close(self) -> None:
        """Stop counting."""
        self._hook.remove()
