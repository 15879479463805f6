"""COIN: a random displacement of every pixel, so that no filter of a class survives.

Li et al., "Detecting and Corrupting Convolution-based Unlearnable Examples", AAAI 2025 (arXiv 2311.18403). The first
countermeasure to work against CUDA, at 32 x 32 pixels; hardly at 224 x 224.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlearnable.countermeasures.base import BatchChange, Countermeasure, countermeasures
from unlearnable.errors import expected


@countermeasures.register("coin")
@dataclass(frozen=True, kw_only=True)
class Coin(Countermeasure):
    """Take every pixel from a place up to ``alpha`` pixels away, in between pixels by bilinear interpolation.

    alpha: in pixels, above 0. The paper's levels are 0.8, 1.2, 1.6, 2 (its choice), 2.4, 2.8 and 3.2.
    """

    name: ClassVar[str] = "coin"
    main: ClassVar[str | None] = "alpha"
    alpha: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.alpha < math.inf:
            raise expected("an alpha above 0 pixels", str(self.alpha), "choose 2, as the paper does")

    def every_batch(self, classes: int) -> BatchChange:
        def change(model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
            return warp(images, draw_displacement(images, self.alpha, generator), math.ceil(self.alpha))

        return change


def draw_displacement(images: Tensor, alpha: float, generator: torch.Generator) -> Tensor:
    """Draw how far each pixel's source lies to the right and below, each uniform: (count, height, width, 2).

    In 65,536 steps: random numbers are what takes longest on a CPU, and one of 64 bits is enough for two pixels.
    """
    count, _, height, width = images.shape
    pixels = count * height * width
    drawn = torch.empty((pixels + 1) // 2, dtype=torch.int64, device=generator.device)
    drawn.random_(-(2**63), None, generator=generator)  # all 64 bits
    pairs = drawn.view(torch.int16)[: 2 * pixels].reshape(count, height, width, 2).to(images.device)
    return pairs.to(images.dtype).mul_(alpha / 2**15)


def warp(images: Tensor, displacement: Tensor, reach: int) -> Tensor:
    """Take each pixel from its place plus a displacement of at most ``reach`` pixels; pictures go on at the other side.

    images: (count, channels, height, width); displacement: (count, height, width, 2), x before y, in pixels.
    """
    height, width = images.shape[2:]
    margin = reach + 1  # interpolation needs a pixel beyond the farthest source
    high, wide = height + 2 * margin, width + 2 * margin
    # PyTorch wants places on a scale from -1 at the first pixel to 1 at the last.
    scale = displacement.new_tensor([2 / (wide - 1), 2 / (high - 1)])
    places = [torch.arange(size, device=images.device) + margin for size in (height, width)]
    y, x = torch.meshgrid(places, indexing="ij")
    grid = torch.addcmul(torch.stack([x, y], -1) * scale - 1, displacement, scale)
    return F.grid_sample(_wrapped(images, margin), grid, mode="bilinear", align_corners=True)


def _wrapped(images: Tensor, margin: int) -> Tensor:
    """Continue pictures at each side with what is at the other."""
    if margin <= min(images.shape[2:]):
        return F.pad(images, (margin,) * 4, mode="circular")
    rows, columns = (torch.arange(-margin, size + margin, device=images.device) % size for size in images.shape[2:])
    return images[:, :, rows][:, :, :, columns]
