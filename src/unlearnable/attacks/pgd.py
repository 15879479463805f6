"""Projected gradient descent: climb the loss step by step, and come back into the budget after each.

Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018,
section 2.1. The direction of a step is the gradient's sign for Linf, and the gradient over its length for L2.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from unlearnable.attacks.base import Attack, Loss, attacks, cross_entropy, frozen, precise
from unlearnable.budgets import Budget
from unlearnable.errors import expected

REACH: Final = 2.5
"""Radii that default steps go, all in one direction: from any start to any border."""


@attacks.register("pgd")
@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """PGD and its parameters.

    steps: gradients taken; each is one forward and one backward pass, and there are no others but one forward pass
        for each restart where there are several, and one with ``from_answers``.
    step_size: length of a step, in the budget's norm on the 0 to 1 scale; 2.5 radius / steps if not given.
    random_start: whether to begin at a random point of the ball, and not at the picture.
    start_deviation: of Gaussian noise to begin at in place of a point anywhere in the ball, brought into the ball; on
        the 0 to 1 scale. TRADES and MART begin this close to the picture, where the divergence they climb is flat.
    restarts: how often to run it all; each picture keeps its worst result: the first that is taken for another class
        than its label, or the largest of its label's shares, or else the one of highest loss.
    loss: what is made large, for each picture (see :data:`Loss`).
    from_answers: whether the loss is given, in place of the labels, what the network answers to the pictures as they
        are: (count, classes) shares, computed once. TRADES climbs the divergence from them.

    Raises InputError for values out of range.
    """

    steps: int = 10
    step_size: float | None = None
    random_start: bool = True
    start_deviation: float | None = None
    restarts: int = 1
    loss: Loss = cross_entropy
    from_answers: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise expected("at least 1 step", str(self.steps), "choose 10 for training, 20 or more for testing")
        if self.step_size is not None and not self.step_size > 0:
            raise expected("a step size above 0", str(self.step_size), "leave it out: 2.5 radius / steps is taken")
        if self.start_deviation is not None and not (self.start_deviation > 0 and self.random_start):
            raise expected("a start deviation above 0, with a random start", str(self.start_deviation), "leave it out")
        if self.restarts < 1:
            raise expected("at least 1 restart", str(self.restarts), "choose 1 to run once")
        if self.restarts > 1 and not self.random_start:
            raise expected("a random start with several restarts", "none", "turn it on: else all of them are the same")

    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        with frozen(model):
            images, labels = images.detach().clone(), labels.clone()  # may come from inference mode
            told = answers(model, images).softmax(1) if self.from_answers else labels
            worst = self._climb(model, images, told, generator)
            if self.restarts > 1:
                badness = self._badness(model, worst, labels, told)
                for _ in range(self.restarts - 1):
                    other = self._climb(model, images, told, generator)
                    of_other = self._badness(model, other, labels, told)
                    worst = torch.where((of_other > badness)[:, None, None, None], other, worst)
                    badness = torch.maximum(badness, of_other)
        return worst

    @property
    def stride(self) -> float:
        """The length of a step, whether given or not."""
        return REACH * self.budget.radius / self.steps if self.step_size is None else self.step_size

    def _climb(self, model: nn.Module, images: Tensor, told: Tensor, generator: torch.Generator | None) -> Tensor:
        moved = self.begin(images, generator)
        for _ in range(self.steps):
            gradient = self.gradient(model, moved, told, generator)
            moved = stepped(images, moved, gradient, self.stride, self.budget)
        return moved

    def gradient(self, model: nn.Module, moved: Tensor, told: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return each picture's gradient of the loss; other attacks estimate it otherwise. model: frozen."""
        return loss_gradient(model, moved, told, self.loss)

    def begin(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the pictures that the first step starts from."""
        return (images + self._start(images, generator)).clamp(0, 1)

    def _start(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        if not self.random_start:
            return torch.zeros_like(images)
        if self.start_deviation is None:
            return self.budget.start(images, generator)
        place = generator.device if generator else images.device
        noise = images.new_empty(images.shape, device=place).normal_(0, self.start_deviation, generator=generator)
        return self.budget.project(noise.to(images.device))

    @torch.no_grad()
    def _badness(self, model: nn.Module, moved: Tensor, labels: Tensor, told: Tensor) -> Tensor:
        logits = model(moved)
        true = labels if labels.ndim == 1 else labels.argmax(1)
        return self.loss(logits, told).where(logits.argmax(1) == true, torch.inf)


def loss_gradient(model: nn.Module, moved: Tensor, told: Tensor, loss: Loss) -> Tensor:
    """Return each picture's gradient of its loss, by one pass forward and one backward."""
    moved = moved.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(model(moved), told).sum(), moved)
    return gradient


def stepped(images: Tensor, moved: Tensor, gradient: Tensor, step_size: float | Tensor, budget: Budget) -> Tensor:
    """Move pictures a step along a gradient, and back into the budget around ``images`` and into [0, 1]."""
    # In place, since fresh memory is dearer than sums; but in the layout of the pictures, not in the gradient's.
    delta = (moved + budget.step(gradient).mul_(step_size)).sub_(images)
    return budget.project(delta).add_(images).clamp_(0, 1)


@torch.no_grad()
def answers(model: nn.Module, images: Tensor) -> Tensor:
    """Return the logits of a frozen network, (count, classes), in float32 at least."""
    return precise(model(images))
