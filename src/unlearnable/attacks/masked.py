"""PGD that may change each place by what its contrast hides, as masked noise does.

Written for adversarial training by somebody who knows of :mod:`unlearnable.protections.masking`: a budget that is the
same everywhere is too small where such noise is loudest, and larger than it has to be where pictures are even.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from unlearnable.attacks.base import Attack, cross_entropy, frozen
from unlearnable.attacks.pgd import PGD, loss_gradient
from unlearnable.budgets import Linf
from unlearnable.errors import expected
from unlearnable.protections.masking import masked

_LEVELS: Final = 255


@dataclass(frozen=True, kw_only=True)
class MaskedPGD(Attack):
    """PGD within a radius that goes with the contrast of each place.

    budget: Linf; its radius is that of a place of ordinary contrast. Elsewhere it goes from half of it to four times as
        much (:func:`~unlearnable.protections.masking.masked`), in whole grey levels, measured in the pictures that are
        attacked.
    masking: power of the contrast that it goes with, above 0 and at most 2.
    steps: gradients taken; each step goes 2.5 / steps of a place's radius.

    Raises InputError for values out of range, and for a budget of another norm.
    """

    steps: int = 10
    masking: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.budget, Linf):
            raise expected("an Linf budget", str(self.budget), "write for example 8/255")
        if not 0 < self.masking <= 2:
            raise expected("masking above 0, up to 2", str(self.masking), "choose 1, or adversarial for none")
        self._stride()  # which checks the number of steps

    def _stride(self) -> float:
        """Return the length of a step in radii, which is PGD's."""
        return PGD(budget=self.budget, steps=self.steps).stride / self.budget.radius

    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        with frozen(model):
            images, labels = images.detach().clone(), labels.clone()  # may come from inference mode
            radii = self.radii(images)
            stride = radii * self._stride()
            moved = (images + self.budget.start(images, generator) * (radii / self.budget.radius)).clamp(0, 1)
            for _ in range(self.steps):
                gradient = loss_gradient(model, moved, labels, cross_entropy)
                delta = moved + stride * gradient.sign() - images
                moved = (images + delta.clamp(-radii, radii)).clamp(0, 1)
        return moved

    def radii(self, images: Tensor) -> Tensor:
        """Return how far each place may be changed, (count, 1, height, width), on the 0 to 1 scale."""
        levels = (images.mul(_LEVELS).round().byte().permute(0, 2, 3, 1)).cpu().numpy()
        loud = masked(np.ascontiguousarray(levels), self.budget.radius * _LEVELS, self.masking)
        return torch.from_numpy(loud).to(images)[:, None] / _LEVELS
