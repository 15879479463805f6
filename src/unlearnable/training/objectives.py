"""What a training step makes smaller: cross-entropy on the pictures, on adversarial examples, on noisy copies."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlearnable.attacks.base import Attack


class Outcome(NamedTuple):
    """The loss to descend, a scalar, and the logits (count, classes) that training accuracy is counted by."""

    loss: Tensor
    logits: Tensor


class Objective(ABC):
    """A loss over a batch. Subclasses are frozen dataclasses."""

    @abstractmethod
    def __call__(
        self, model: nn.Module, images: Tensor, targets: Tensor, smoothing: float, generator: torch.Generator
    ) -> Outcome:
        """Compute the mean loss of a batch.

        model: in training mode. images: (count, channels, height, width), 0 to 1. targets: (count,) integer labels,
        or (count, classes) shares. smoothing: of the labels. generator: on the device of the pictures.
        """


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(Objective):
    """Empirical risk minimisation: cross-entropy on the pictures as they are."""

    def __call__(
        self, model: nn.Module, images: Tensor, targets: Tensor, smoothing: float, generator: torch.Generator
    ) -> Outcome:
        logits = model(images)
        return Outcome(functional.cross_entropy(logits, targets, label_smoothing=smoothing), logits)


@dataclass(frozen=True, kw_only=True)
class Adversarial(Objective):
    """Adversarial training (Madry et al., ICLR 2018): cross-entropy on adversarial examples of the current network."""

    attack: Attack

    def __call__(
        self, model: nn.Module, images: Tensor, targets: Tensor, smoothing: float, generator: torch.Generator
    ) -> Outcome:
        logits = model(self.attack(model, images, targets, generator))
        return Outcome(functional.cross_entropy(logits, targets, label_smoothing=smoothing), logits)


@dataclass(frozen=True, kw_only=True)
class Noisy(Objective):
    """Cross-entropy under Gaussian noise, for randomized smoothing (Cohen, Rosenfeld, Kolter, ICML 2019, section 3.3).

    sigma: standard deviation of the noise, on the 0 to 1 scale. Noisy pictures are not clipped.
    """

    sigma: float

    def __call__(
        self, model: nn.Module, images: Tensor, targets: Tensor, smoothing: float, generator: torch.Generator
    ) -> Outcome:
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        logits = model(images + self.sigma * noise)
        return Outcome(functional.cross_entropy(logits, targets, label_smoothing=smoothing), logits)
