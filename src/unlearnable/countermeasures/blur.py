"""Random blur: each picture of each batch is filtered with a new filter of CUDA's own kind.

Sadasivan, Soltanolkotabi, Feizi, "CUDA", CVPR 2023 (arXiv 2303.04278), among its adaptive defences, with 3 x 3 filters
and p_b' = 0.1 and 0.3.
"""

from dataclasses import dataclass
from typing import ClassVar, Final

import torch
from torch import Tensor, nn

from unlearnable.countermeasures.base import BatchChange, Countermeasure, countermeasures
from unlearnable.countermeasures.batched import filter_each, uniform
from unlearnable.errors import expected

_SIZE: Final = 3


@countermeasures.register("blur")
@dataclass(frozen=True, kw_only=True)
class RandomBlur(Countermeasure):
    """A random 3 x 3 filter a picture: one tap, at a random place, is 1, the others uniform below ``strength``.

    strength: p_b', above 0 and at most 1.
    """

    name: ClassVar[str] = "blur"
    main: ClassVar[str | None] = "strength"
    strength: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise expected("a strength above 0 and at most 1", str(self.strength), "choose 0.3, as the paper does")

    def every_batch(self, classes: int) -> BatchChange:
        def change(model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
            return blurred(images, draw_filters(self.strength, generator, images))

        return change


def draw_filters(strength: float, generator: torch.Generator, images: Tensor) -> Tensor:
    """Draw a filter for each picture: (count, 3, 3)."""
    count, taps = len(images), _SIZE * _SIZE
    filters = uniform((count, taps), 0, strength, generator, images)
    place = torch.randint(taps, (count, 1), generator=generator, device=generator.device).to(images.device)
    return filters.scatter_(1, place, 1.0).reshape(count, _SIZE, _SIZE)


def blurred(images: Tensor, filters: Tensor) -> Tensor:
    """Filter pictures and divide each by its highest value."""
    filtered = filter_each(images, filters)
    return filtered / filtered.amax((1, 2, 3), keepdim=True).clamp_min(torch.finfo(images.dtype).tiny)
