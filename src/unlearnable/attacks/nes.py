"""PGD on gradients guessed from answers alone, for networks whose gradients tell nothing.

Ilyas, Engstrom, Athalye, Lin, "Black-box Adversarial Attacks with Limited Queries and Information", ICML 2018, section
2.1 (arXiv 1804.08598): natural evolution strategies with antithetic sampling, here over the loss.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unlearnable.attacks.base import attacks
from unlearnable.attacks.pgd import PGD
from unlearnable.errors import expected


@attacks.register("nes")
@dataclass(frozen=True, kw_only=True)
class NES(PGD):
    """PGD whose gradients are estimates: the mean of u (loss(x + d u) - loss(x - d u)) / 2d over Gaussian u.

    pairs: directions u to a step, two answers of the network each. deviation: d, on the 0 to 1 scale.
    """

    steps: int = 50
    pairs: int = 25
    deviation: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pairs < 1 or not self.deviation > 0:
            found = f"{self.pairs} and {self.deviation}"
            raise expected("at least 1 pair and a deviation above 0", found, "choose 25 and 0.001, as the paper does")

    @torch.no_grad()
    def gradient(self, model: nn.Module, moved: Tensor, told: Tensor, generator: torch.Generator | None) -> Tensor:
        place = generator.device if generator else moved.device
        total = torch.zeros_like(moved)
        for _ in range(self.pairs):
            direction = moved.new_empty(moved.shape, device=place).normal_(generator=generator).to(moved.device)
            there, back = (self.loss(model(moved + way * direction), told) for way in (self.deviation, -self.deviation))
            total += direction * (there - back)[:, None, None, None]
        return total / (2 * self.deviation * self.pairs)
