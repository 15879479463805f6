"""Square: random squares of the whole budget, each kept if the network is less sure with it; no gradients.

Andriushchenko, Croce, Flammarion, Hein, "Square Attack: a query-efficient black-box adversarial attack via random
search", ECCV 2020 (arXiv 1912.00049). The authors' own, from the ``pyautoattack`` package.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unlearnable.attacks.autoattack import borrowed
from unlearnable.attacks.base import Attack, attacks
from unlearnable.budgets import Linf
from unlearnable.errors import expected


@attacks.register("square")
@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Square and its parameters. A picture that it does not turn comes back unchanged.

    queries: answers of the network to a picture, at most.
    """

    queries: int = 5000

    def __post_init__(self) -> None:
        if self.queries < 1:
            raise expected("at least 1 query", str(self.queries), "choose 5000, as in AutoAttack")

    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        from pyautoattack.square import SquareAttack

        with borrowed(model, images, generator) as (logits, seed):
            attack = SquareAttack(
                logits,
                norm="Linf" if isinstance(self.budget, Linf) else "L2",
                eps=self.budget.radius,
                n_queries=self.queries,
                seed=seed,
                device=images.device,
            )
            images = images.detach().clone(memory_format=torch.contiguous_format)
            changed: Tensor = attack.perturb(images, labels.clone())
        return changed
