"""Colour jitter: random brightness, contrast, saturation and hue.

With the strengths of Chen et al., "SimCLR", ICML 2020 (arXiv 2002.05709), appendix A, for small pictures.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from unlearnable.countermeasures.base import BatchChange, Countermeasure, countermeasures
from unlearnable.countermeasures.batched import global_draws
from unlearnable.errors import expected


@countermeasures.register("color-jitter")
@dataclass(frozen=True, kw_only=True)
class ColorJitter(Countermeasure):
    """Change the colours of each picture of each batch; of grey pictures, brightness and contrast.

    strength: brightness, contrast and saturation are multiplied by a number within 0.8 strength of 1, and the hue
        turned by up to 0.2 strength of the circle; above 0 and at most 1.
    """

    name: ClassVar[str] = "color-jitter"
    main: ClassVar[str | None] = "strength"
    strength: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise expected("a strength above 0 and at most 1", str(self.strength), "choose 0.5")

    def every_batch(self, classes: int) -> BatchChange:
        from kornia.augmentation import ColorJitter as Jitter

        wide, hue = 0.8 * self.strength, 0.2 * self.strength
        jitter = {1: Jitter(wide, wide, p=1.0), 3: Jitter(wide, wide, wide, hue, p=1.0)}

        def change(model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
            with global_draws(generator, images):
                changed: Tensor = jitter[images.shape[1]](images)
            return changed.clamp(0, 1)

        return change
