"""RSK: sharpen at random, then keep the low frequencies, where the filters of all classes are alike.

Kim, Sandoval-Segura, "Learning from Convolution-based Unlearnable Datasets", AdvML Frontiers at NeurIPS 2024 (arXiv
2411.01742): random sharpening kernels and frequency filtering.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Final

import torch
from torch import Tensor, nn

from unlearnable.countermeasures.base import BatchChange, Countermeasure, countermeasures
from unlearnable.countermeasures.batched import normal
from unlearnable.errors import expected

_CENTRE: Final = 2.5  # mean of the kernels' middle tap
_SPREAD: Final = 0.1  # standard deviation of every tap


@countermeasures.register("rsk")
@dataclass(frozen=True, kw_only=True)
class RandomSharpening(Countermeasure):
    """Sharpen each picture with a random kernel, then keep its lowest frequencies.

    fraction: of the frequencies along each axis that are kept, above 0 and at most 1.
    """

    name: ClassVar[str] = "rsk"
    main: ClassVar[str | None] = "fraction"
    fraction: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise expected("a fraction above 0 and at most 1", str(self.fraction), "choose 0.3, as the paper does")

    def every_batch(self, classes: int) -> BatchChange:
        def change(model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
            return low_pass(sharpen(images, draw_kernels(images, generator)), self.fraction)

        return change


def draw_kernels(images: Tensor, generator: torch.Generator) -> Tensor:
    """Draw the taps in the middle, above, below, left and right, the last four below 0: (count, 5)."""
    centre = normal((len(images), 1), _SPREAD, generator, images) + _CENTRE
    beside = normal((len(images), 4), _SPREAD, generator, images) + (centre - 1) / 4
    return torch.cat([centre, -beside], 1)


def sharpen(images: Tensor, taps: Tensor) -> Tensor:
    """Correlate each picture with its kernel, whose corners are 0; clipped to 0 to 1.

    The published code loses a pixel at each border and pads again when it crops; here borders are repeated instead.
    """
    height, width = images.shape[2:]
    padded = torch.cat([images[:, :, :1], images, images[:, :, -1:]], 2)  # F.pad's gradients add in any order on a GPU
    padded = torch.cat([padded[..., :1], padded, padded[..., -1:]], 3)
    places = ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))
    views = [padded[:, :, y : y + height, x : x + width] for y, x in places]
    weights = taps[:, :, None, None, None].unbind(1)
    out = views[0] * weights[0]
    for view, weight in zip(views[1:], weights[1:], strict=True):
        out.addcmul_(view, weight)
    return out.clamp_(0, 1)


def low_pass(images: Tensor, fraction: float) -> Tensor:
    """Keep the lowest frequencies along each axis, in the orthonormal DCT-II; clipped to 0 to 1."""
    rows, columns = (_projection(size, fraction, images) for size in images.shape[2:])
    with torch.autocast(images.device.type, enabled=False):
        return (rows @ images @ columns).clamp_(0, 1)


def _projection(size: int, fraction: float, like: Tensor) -> Tensor:
    """Return what transforms a column, keeps its lowest coefficients and transforms it back: (size, size)."""
    kept = max(1, math.floor(fraction * size + 1e-9))
    frequency = torch.arange(kept, dtype=torch.float64)[:, None]
    basis = torch.cos(math.pi * frequency * (torch.arange(size, dtype=torch.float64) + 0.5) / size)
    basis *= torch.where(frequency == 0, 1.0, 2.0).div(size).sqrt()
    return (basis.T @ basis).to(like)
