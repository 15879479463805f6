"""Resizing: pictures made smaller and large again, and crops of random size.

What every pipeline for scraped pictures does in passing.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from unlearnable.countermeasures.base import BatchChange, Countermeasure, Published, by_pieces, countermeasures
from unlearnable.countermeasures.batched import global_draws
from unlearnable.errors import expected


@countermeasures.register("resize")
@dataclass(frozen=True, kw_only=True)
class Resize(Countermeasure):
    """Shrink each picture, with antialiasing, and enlarge it again, both bicubic; training pictures alone.

    fraction: of the width and height that are left in between, above 0 and below 1.
    """

    name: ClassVar[str] = "resize"
    main: ClassVar[str | None] = "fraction"
    fraction: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise expected("a fraction above 0 and below 1", str(self.fraction), "choose 0.5")

    def clean(self, published: Published, rng: np.random.Generator) -> NDArray[np.uint8]:
        size = published.images.shape[1:3]
        small = [max(1, round(self.fraction * side)) for side in size]

        def change(some: NDArray[np.uint8]) -> NDArray[Any]:
            batch = torch.from_numpy(some.astype(np.float32)).permute(0, 3, 1, 2)
            shrunk = F.interpolate(batch, small, mode="bicubic", antialias=True)
            back = F.interpolate(shrunk.clamp_(0, 255), size, mode="bicubic", antialias=True)
            return back.permute(0, 2, 3, 1).numpy()

        return by_pieces(change, published.images)


@countermeasures.register("resized-crop")
@dataclass(frozen=True, kw_only=True)
class ResizedCrop(Countermeasure):
    """Enlarge a random part of each picture of each batch to the picture's size, bilinear.

    share: of the picture's area that is left at least, above 0 and below 1; sides are in a ratio from 3/4 to 4/3.
    """

    name: ClassVar[str] = "resized-crop"
    main: ClassVar[str | None] = "share"
    share: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise expected("a share above 0 and below 1", str(self.share), "choose 0.25")

    def every_batch(self, classes: int) -> BatchChange:
        from kornia.augmentation import RandomResizedCrop

        def change(model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
            size = (images.shape[2], images.shape[3])
            crop = RandomResizedCrop(size, scale=(self.share, 1.0), cropping_mode="resample")
            with global_draws(generator, images):
                cropped: Tensor = crop(images)
            return cropped.clamp(0, 1)

        return change
