"""How steady noise is: what becomes of a surrogate's loss on protected pictures once their noise is disturbed."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unlearnable.attacks.base import cross_entropy
from unlearnable.attacks.pgd import PGD
from unlearnable.budgets import Linf
from unlearnable.errors import expected
from unlearnable.training.chance import generator

_BATCH = 128


class Stability(NamedTuple):
    """Mean cross-entropy of a surrogate on clean pictures, on protected ones, and with the noise disturbed.

    random: by uniform noise from the ball. adversarial: by PGD in the same ball. Noise that is stable keeps both near
    ``protected``; noise that protects keeps ``protected`` far below ``clean``.
    """

    clean: float
    protected: float
    random: float
    adversarial: float

    @property
    def rise(self) -> tuple[float, float]:
        """By how much random and adversarial disturbance raise the loss."""
        return self.random - self.protected, self.adversarial - self.protected


def stability(
    network: nn.Module,
    images: NDArray[np.uint8],
    protected: NDArray[np.uint8],
    labels: NDArray[np.int64],
    *,
    budget: Linf,
    steps: int = 10,
    samples: int = 1,
    seed: int = 0,
) -> Stability:
    """Measure the stability of noise under disturbances within a ball (SEM paper, section 4).

    network: floats on the 0 to 1 scale; used as in evaluation, and on the device that it is on. images, protected:
    (count, height, width, channels), uint8, of the same pictures in the same order. labels: (count,) int64. steps: of
    PGD. samples: draws of each disturbance, averaged.

    Raises InputError where there are no pictures, or the three do not fit each other.
    """
    if not len(labels) or images.shape != protected.shape or len(images) != len(labels):
        found = f"{images.shape} and {protected.shape}, with {len(labels)} labels"
        raise expected("clean and protected pictures in pairs, and a label for each", found, "pair them with match")
    device = next(network.parameters()).device
    attack = PGD(budget=budget, steps=steps, step_size=2 * budget.radius / steps)
    sums = np.zeros(4)
    training = network.training
    network.eval()

    def loss(batch: Tensor, targets: Tensor) -> float:
        with torch.inference_mode():
            return float(cross_entropy(network(batch), targets).sum())

    for start in range(0, len(labels), _BATCH):
        part = slice(start, start + _BATCH)
        clean, noisy = (
            torch.from_numpy(np.ascontiguousarray(these[part])).to(device).permute(0, 3, 1, 2) / 255
            for these in (images, protected)
        )
        targets = torch.from_numpy(labels[part]).to(device)
        sums[:2] += loss(clean, targets), loss(noisy, targets)
        for sample in range(samples):
            chance = generator(device, seed, "stability", start, sample)
            shaken = (noisy + budget.start(noisy, chance)).clamp(0, 1)
            sums[2:] += (
                np.array([loss(shaken, targets), loss(attack(network, noisy, targets, chance), targets)]) / samples
            )
    network.train(training)
    return Stability(*(sums / len(labels)).tolist())
