"""An attack on a transformed network from behind the transformation.

After Athalye, Carlini, Wagner, "Obfuscated Gradients Give a False Sense of Security", ICML 2018, section 4.3: it works
on the transformed picture, where gradients are plain, and then looks for a picture that is transformed to that.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unlearnable.attacks.base import Attack, frozen
from unlearnable.attacks.pgd import PGD
from unlearnable.attacks.transformation import Transformed
from unlearnable.errors import expected


@dataclass(frozen=True, kw_only=True)
class Reparameterised(Attack):
    """In each round, PGD on the classifier alone from where the picture is transformed to, then a search backwards.

    The search adds to the picture what its transform still lacks of the goal, again and again (a fixed point is a
    solution), and goes back into the budget each time. The first picture that turns the network is kept.

    rounds, steps: of PGD. inversions: steps of each search.
    """

    rounds: int = 4
    steps: int = 10
    inversions: int = 5

    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        if not isinstance(model, Transformed):
            raise expected("a network behind a transformation", type(model).__name__, "attack others with pgd")
        behind = PGD(budget=self.budget, steps=self.steps, random_start=False)
        with frozen(model), torch.no_grad():
            images, labels = images.detach().clone(), labels.clone()
            moved, turned = images, torch.zeros_like(labels, dtype=torch.bool)
            for _ in range(self.rounds):
                seen = model.change(moved)
                wanted = behind(model.classifier, seen, labels, generator)
                for _ in range(self.inversions):
                    closer = moved + wanted - seen - images
                    closer = (images + self.budget.project(closer)).clamp(0, 1)
                    moved = torch.where(turned[:, None, None, None], moved, closer)
                    seen = model.change(moved)
                    turned |= model.classifier(seen).argmax(1) != labels
        return moved
