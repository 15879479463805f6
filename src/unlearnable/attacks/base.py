"""What every attack is, and how a network is held still while it is attacked."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlearnable.attacks.folding import folded
from unlearnable.budgets import Budget
from unlearnable.registry import Registry

Loss = Callable[[Tensor, Tensor], Tensor]
"""What an attack makes large: (count, classes) logits and the labels as the attack was given them, to (count,)."""


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return each picture's cross-entropy.

    >>> losses = cross_entropy(torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 0]))
    >>> [round(loss, 3) for loss in losses.tolist()]
    [0.693, 0.127]
    """
    return functional.cross_entropy(precise(logits), labels, reduction="none")


def precise(logits: Tensor) -> Tensor:
    """Return logits in float32 at least: half precision would round losses away."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """Changes pictures within a budget so that a network errs. Its fields are its parameters."""

    budget: Budget

    @abstractmethod
    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return the changed pictures: within the budget and [0, 1], of the same shape, type and device, detached.

        model: takes floats (count, channels, height, width) on the 0 to 1 scale, returns logits (count, classes);
            used in evaluation mode, and left as it was found.
        images, labels: such pictures, and int64 (count,).
        generator: of everything random; PyTorch's own if not given.
        """

    def check(self, classes: int) -> None:  # noqa: B027 - most attack any network
        """Raise InputError if it cannot attack a network of so many classes: to be known before work is begun."""


attacks: Registry[Attack] = Registry("attack")


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Hold a network still: evaluation mode, no gradients but those of its input, batch normalisation folded away.

    Inside, gradients are on even where the caller has turned them off. Afterwards every module's mode and every
    parameter's need of a gradient are what they were, whatever happens.
    """
    modes = [(module, module.training) for module in model.modules()]
    needing = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        model.eval()
        for parameter in needing:
            parameter.requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad(), folded(model):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter in needing:
            parameter.requires_grad_(True)
