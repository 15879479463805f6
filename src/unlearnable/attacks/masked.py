"""PGD that may change each place by what its contrast hides, as masked noise does.

Written for adversarial training by somebody who knows of :mod:`unlearnable.protections.masking`: a budget that is the
same everywhere is too small where such noise is loudest, and larger than it has to be where pictures are even. It is no
attack for testing, and in no registry: what withstands it withstands no radius that others measure.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlearnable.attacks.base import Attack, cross_entropy, frozen
from unlearnable.attacks.pgd import REACH, loss_gradient
from unlearnable.budgets import Linf
from unlearnable.errors import expected
from unlearnable.pictures.contrast import EVEN, LEAST, MOST, ORDINARY, WINDOW
from unlearnable.pictures.quality import LUMA


@dataclass(frozen=True, kw_only=True)
class MaskedPGD(Attack):
    """PGD within a radius that goes with the contrast of each place.

    budget: Linf; its radius is that of a place of ordinary contrast. Elsewhere it goes from half of it to four times as
        much, as of :func:`unlearnable.pictures.contrast.shares`, measured in the pictures that are attacked.
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
        if self.steps < 1:
            raise expected("at least 1 step", str(self.steps), "choose 10")

    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        with frozen(model):
            images, labels = images.detach().clone(), labels.clone()  # may come from inference mode
            share = shares(images, self.masking).to(images.dtype)
            radii, stride = share * self.budget.radius, share * (self.budget.radius * REACH / self.steps)
            moved = (images + share * self.budget.start(images, generator)).clamp(0, 1)
            for _ in range(self.steps):
                gradient = loss_gradient(model, moved, labels, cross_entropy)
                delta = (moved + stride * gradient.sign()).sub_(images)
                moved = delta.clamp_(-radii, radii).add_(images).clamp_(0, 1)
        return moved


@torch.no_grad()
def shares(images: Tensor, masking: float) -> Tensor:
    """Return what :func:`unlearnable.pictures.contrast.shares` does of pictures from 0 to 1, (count, 1, height, width).

    images: (count, 1 or 3, height, width). The result is float32, on their device.
    """
    levels = images.float() * 255
    if images.shape[1] == len(LUMA):
        levels = (levels * levels.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    levels = levels - 128  # squares are then small enough for float32
    mean = _smoothed(levels)
    variance = (_smoothed(levels**2) - mean**2).clamp(min=0)
    contrast = _smoothed(1 / (variance + EVEN)).rsqrt()
    return (contrast / ORDINARY).pow(masking).clamp(LEAST, MOST)


def _smoothed(light: Tensor) -> Tensor:
    padded = functional.pad(light, [WINDOW // 2] * 4, "replicate")
    return functional.avg_pool2d(padded, WINDOW, stride=1)
