"""The smoothing filters of image processing: Gaussian, median, bilateral. Training pictures alone, once.

The median as a defence: Xu, Evans, Qi, "Feature Squeezing", NDSS 2018 (arXiv 1704.01155), section III-B. The bilateral
filter: Tomasi, Manduchi, ICCV 1998.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from unlearnable.countermeasures.base import Countermeasure, Published, by_pieces, countermeasures
from unlearnable.errors import expected


@countermeasures.register("gaussian-filter")
@dataclass(frozen=True, kw_only=True)
class GaussianFilter(Countermeasure):
    """Convolve with a Gaussian, cut off at four standard deviations; reflected at the borders.

    sigma: its standard deviation in pixels, at least 0.4: below, what it does is lost in the rounding to grey levels.
    """

    name: ClassVar[str] = "gaussian-filter"
    main: ClassVar[str | None] = "sigma"
    sigma: float = 1.0

    def __post_init__(self) -> None:
        if not 0.4 <= self.sigma < math.inf:
            raise expected("a sigma of at least 0.4 pixels", str(self.sigma), "choose 1")

    def clean(self, published: Published, rng: np.random.Generator) -> NDArray[np.uint8]:
        from scipy.ndimage import gaussian_filter

        def change(images: NDArray[np.uint8]) -> Any:
            return gaussian_filter(images.astype(np.float32), self.sigma, mode="mirror", axes=(1, 2))

        return by_pieces(change, published.images)


@countermeasures.register("median-filter")
@dataclass(frozen=True, kw_only=True)
class MedianFilter(Countermeasure):
    """Replace each sample by the median of the square around it; reflected at the borders.

    size: the square's side in pixels, odd, at least 3.
    """

    name: ClassVar[str] = "median-filter"
    main: ClassVar[str | None] = "size"
    size: int = 3

    def __post_init__(self) -> None:
        if self.size < 3 or self.size % 2 == 0:
            raise expected("an odd size of at least 3", str(self.size), "choose 3")

    def clean(self, published: Published, rng: np.random.Generator) -> NDArray[np.uint8]:
        from scipy.ndimage import median_filter

        def change(images: NDArray[np.uint8]) -> Any:
            return median_filter(images, self.size, mode="mirror", axes=(1, 2))

        return by_pieces(change, published.images)


@countermeasures.register("bilateral-filter")
@dataclass(frozen=True, kw_only=True)
class BilateralFilter(Countermeasure):
    """Average each pixel with those of the 5 x 5 square around it that are near to it in colour.

    sigma: standard deviation of the distance in colour, the sum over channels, on the 0 to 1 scale.
    reach: standard deviation of the distance in space, in pixels.
    """

    name: ClassVar[str] = "bilateral-filter"
    main: ClassVar[str | None] = "sigma"
    sigma: float = 0.2
    reach: float = 1.5

    def __post_init__(self) -> None:
        if not (0 < self.sigma < math.inf and 0 < self.reach < math.inf):
            raise expected("a sigma and a reach above 0", f"{self.sigma} and {self.reach}", "choose 0.2 and 1.5")

    def clean(self, published: Published, rng: np.random.Generator) -> NDArray[np.uint8]:
        from kornia.filters import bilateral_blur

        def change(images: NDArray[np.uint8]) -> Any:
            batch = torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2) / 255
            blurred = bilateral_blur(batch, 5, self.sigma, (self.reach, self.reach), "replicate")
            return (blurred * 255).permute(0, 2, 3, 1).numpy()

        return by_pieces(change, published.images)
