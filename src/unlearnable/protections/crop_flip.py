"""The expectation over transformations of the noise family: random crop and mirroring, a batch at a time, by hand.

Each picture is mirrored or not, set in a black border and cut out again at a place of its own (the augmentation of
the REM and SEM papers). Both the transformation and its adjoint are one gather or scatter; autograd has no part in it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Crops(NamedTuple):
    """Where in its bordered picture each pixel of a cut-out lies: (count, height) rows and (count, width) columns."""

    rows: Tensor
    columns: Tensor


@dataclass(frozen=True, kw_only=True)
class CropFlip:
    """A distribution of transformations: a black border of so many pixels to cut from, and mirroring by chance."""

    padding: int = 4
    flip: bool = True

    def draw(self, count: int, height: int, width: int, generator: torch.Generator) -> Crops:
        """Draw a transformation for each of ``count`` pictures, on the generator's device."""
        device = generator.device

        def cut(size: int) -> Tensor:
            start = torch.randint(0, 2 * self.padding + 1, (count, 1), generator=generator, device=device)
            return torch.arange(size, device=device) + start

        rows, columns = cut(height), cut(width)
        if self.flip:
            mirrored = torch.rand(count, 1, generator=generator, device=device) < 0.5
            columns = torch.where(mirrored, width + 2 * self.padding - 1 - columns, columns)
        return Crops(rows, columns)

    def apply(self, images: Tensor, crops: Crops) -> Tensor:
        """Transform pictures, (count, channels, height, width), by crops for a whole multiple of ``count``.

        Crop number i is of picture i modulo ``count``: several draws of a batch lie one behind the other.
        """
        place = torch.arange(len(crops.rows), device=images.device) % len(images)
        bordered = functional.pad(images, [self.padding] * 4).permute(0, 2, 3, 1)
        return bordered[place[:, None, None], crops.rows[:, :, None], crops.columns[:, None, :]].permute(0, 3, 1, 2)

    def adjoint(self, gradient: Tensor, crops: Crops, count: int) -> Tensor:
        """Carry a gradient with respect to :meth:`apply`'s result back to its ``count`` pictures.

        Every pixel of a cut-out has one place in the border or the picture, and no two have the same: what is
        scattered never collides, so that the result is the same each time on any device.
        """
        height, width = gradient.shape[2:]
        border = 2 * self.padding
        canvas = gradient.new_zeros(len(gradient), height + border, width + border, gradient.shape[1])
        place = torch.arange(len(gradient), device=gradient.device)
        values = gradient.permute(0, 2, 3, 1)
        canvas[place[:, None, None], crops.rows[:, :, None], crops.columns[:, None, :]] = values
        inner = canvas[:, self.padding : self.padding + height, self.padding : self.padding + width]
        return inner.reshape(-1, count, *inner.shape[1:]).sum(0).permute(0, 3, 1, 2)
