"""PGD on the expected gradient, for networks that answer at random.

Athalye, Engstrom, Ilyas, Kwok, "Synthesizing Robust Adversarial Examples", ICML 2018 (arXiv 1707.07397): a single
gradient of such a network is mostly noise; the mean of several is what one who waits for the network's mean answer
climbs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unlearnable.attacks.base import attacks
from unlearnable.attacks.pgd import PGD
from unlearnable.errors import expected


@attacks.register("eot-pgd")
@dataclass(frozen=True, kw_only=True)
class EOTPGD(PGD):
    """PGD whose every gradient is the mean of several, each of a new draw of the network's randomness.

    samples: gradients to a step. Of several restarts, the one of the highest mean loss counts.
    """

    samples: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 1:
            raise expected("at least 1 sample", str(self.samples), "choose 20 or more, or pgd")

    def gradient(self, model: nn.Module, moved: Tensor, told: Tensor, generator: torch.Generator | None) -> Tensor:
        total = super().gradient(model, moved, told, generator)
        for _ in range(self.samples - 1):
            total = total + super().gradient(model, moved, told, generator)
        return total / self.samples

    @torch.no_grad()
    def _badness(self, model: nn.Module, moved: Tensor, labels: Tensor, told: Tensor) -> Tensor:
        return torch.stack([self.loss(model(moved), told) for _ in range(self.samples)]).mean(0)
