"""Grayscale: what is hidden in the colours is gone.

Liu, Zhao, Larson, "Image Shortcut Squeezing", ICML 2023 (arXiv 2301.13838), section 4: breaks noise of low frequency
whose signal differs between colour channels.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from unlearnable.countermeasures.base import Countermeasure, Published, countermeasures
from unlearnable.pictures.quality import weigh


@countermeasures.register("grayscale")
@dataclass(frozen=True, kw_only=True)
class Grayscale(Countermeasure):
    """Every channel becomes the brightness (Rec. 601 luma), of test pictures too: those are just as easy to turn."""

    name: ClassVar[str] = "grayscale"

    def clean(self, published: Published, rng: np.random.Generator) -> NDArray[np.uint8]:
        return self.at_test(published.images)

    def at_test(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if images.shape[-1] == 1:
            return images
        count, height, width, channels = images.shape
        luma = np.empty((count, height * width), np.uint8)
        weigh(np.ascontiguousarray(images).reshape(count, height * width, channels), luma)
        return luma.reshape(count, height, width, 1).repeat(channels, axis=3)
