"""What a training step makes smaller: cross-entropy on pictures, adversarial and noisy ones, TRADES, MART."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlearnable.attacks.base import Attack, precise
from unlearnable.errors import expected
from unlearnable.training.awp import Answering, perturbed


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
class Robust(Objective):
    """A loss of pictures and of what an attack on the current network makes of them.

    attack: given the labels as they are.
    awp: gamma of adversarial weight perturbation, which comes after the attack (:mod:`unlearnable.training.awp`); 0 for
        none, 0.005 in its paper.
    """

    attack: Attack
    awp: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.awp < math.inf:
            raise expected("a weight perturbation of 0 or more", str(self.awp), "0.005 is usual, 0 is none")

    def __call__(
        self, model: nn.Module, images: Tensor, targets: Tensor, smoothing: float, generator: torch.Generator
    ) -> Outcome:
        self.check(targets, smoothing)
        changed = self.attack(model, images, targets, generator)

        def of(network: Answering) -> Outcome:
            return self.loss(network, images, changed, targets, smoothing)

        return of(perturbed(model, lambda network: of(network).loss, self.awp) if self.awp else model)

    def check(self, targets: Tensor, smoothing: float) -> None:
        """Raise InputError for targets that the loss is not made for."""

    @abstractmethod
    def loss(self, model: Answering, images: Tensor, changed: Tensor, targets: Tensor, smoothing: float) -> Outcome:
        """Compute the mean loss of a batch, as :meth:`__call__`, for pictures that are attacked already."""


@dataclass(frozen=True, kw_only=True)
class Adversarial(Robust):
    """Adversarial training (Madry et al., ICLR 2018): cross-entropy on adversarial examples of the current network."""

    def loss(self, model: Answering, images: Tensor, changed: Tensor, targets: Tensor, smoothing: float) -> Outcome:
        logits = model(changed)
        return Outcome(functional.cross_entropy(logits, targets, label_smoothing=smoothing), logits)


def divergence(logits: Tensor, shares: Tensor) -> Tensor:
    """Return each picture's Kullback-Leibler divergence, (count,), from fixed shares to the softmax of logits.

    It is the attack's loss of TRADES: logits of the changed pictures, and what the network answers to the clean ones.
    """
    return functional.kl_div(precise(logits).log_softmax(1), shares, reduction="none").sum(1)


@dataclass(frozen=True, kw_only=True)
class TRADES(Robust):
    """Cross-entropy on the pictures, and beta times how far the answer moves under attack (Zhang et al., ICML 2019).

    loss = CE(f(x), y) + beta mean KL(softmax f(x) || softmax f(x')); gradients flow through both arguments.

    attack: climbs :func:`divergence` from the answers to the clean pictures (``from_answers``).

    The authors' code passes the clean pictures twice in the update. Here they pass once: the loss is the same, and
    batch statistics see them once.
    """

    beta: float = 6.0

    def loss(self, model: Answering, images: Tensor, changed: Tensor, targets: Tensor, smoothing: float) -> Outcome:
        logits = model(images)
        natural = functional.cross_entropy(logits, targets, label_smoothing=smoothing)
        return Outcome(natural + self.beta * trades_penalty(logits, model(changed)), logits)


def trades_penalty(clean: Tensor, changed: Tensor) -> Tensor:
    """Return the mean divergence from the softmax of clean logits to that of changed ones, both (count, classes)."""
    before, after = precise(clean).log_softmax(1), precise(changed).log_softmax(1)
    return functional.kl_div(after, before, reduction="batchmean", log_target=True)


@dataclass(frozen=True, kw_only=True)
class MART(Robust):
    """Misclassification-aware adversarial training (Wang et al., ICLR 2020): see :func:`mart_loss`.

    attack: climbs the cross-entropy. Labels must be whole: augmentations that mix them, and smoothing, raise
    InputError, since the loss speaks of one true class and of its runner-up.
    """

    beta: float = 5.0

    def check(self, targets: Tensor, smoothing: float) -> None:
        if targets.ndim != 1 or smoothing:
            found = "mixed labels" if targets.ndim != 1 else f"a label smoothing of {smoothing:g}"
            raise expected("one class a picture for MART", found, "leave it out, or choose the recipe trades")

    def loss(self, model: Answering, images: Tensor, changed: Tensor, targets: Tensor, smoothing: float) -> Outcome:
        logits = model(images)
        return Outcome(mart_loss(logits, model(changed), targets, self.beta), logits)


def mart_loss(clean: Tensor, changed: Tensor, labels: Tensor, beta: float) -> Tensor:
    """Return MART's mean loss of (count, classes) logits, of clean and of changed pictures, two classes or more.

    With p and p' their softmax, y the label and y2 the most probable wrong class under p':
    CE(p', y) - log(1.0001 - p'[y2] + 1e-12) + beta KL(p || p') (1.0000001 - p[y]), the constants and the 1e-12 within
    KL's log p' being those of the authors' code; gradients flow through p as well.
    """
    clean, changed = precise(clean), precise(changed)
    log_before, after = clean.log_softmax(1), changed.softmax(1)
    before, true = log_before.exp(), functional.one_hot(labels, clean.shape[1]).bool()
    runner_up = after.masked_fill(true, -1).max(1).values
    boosted = functional.cross_entropy(changed, labels, reduction="none") - (1.0001 - runner_up + 1e-12).log()
    moved = (before * (log_before - (after + 1e-12).log())).sum(1)
    return (boosted + beta * moved * (1.0000001 - before[true])).mean()


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
