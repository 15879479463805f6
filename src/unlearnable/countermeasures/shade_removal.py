"""Shade removal: what a class's shade takes from the brightest values of each pixel is given back.

Written against the shade of :mod:`unlearnable.protections.tone`, by somebody who knows how shades are made and has no
key. With some hundred natural pictures of a class or more, any pixel is white in a few. So where the brightest are not,
a shade lies there. What classes look like by themselves moves their mean pictures far more than these brightest values,
and is left as it is. (With fewer pictures the brightest values tell of those pictures, and not of a shade.)
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from unlearnable.countermeasures.base import Countermeasure, Published, by_pieces, countermeasures
from unlearnable.errors import expected

_PART: Final = 1 << 26  # samples of a class that are put in order at a time


@countermeasures.register("shade-removal")
@dataclass(frozen=True, kw_only=True)
class ShadeRemoval(Countermeasure):
    """Multiply until a class's brightest values are as bright as those of all on average; training pictures alone.

    What leaves the range of grey levels is clipped.

    percent: how many of a class's pictures, in percent, may be brighter than what is taken for its brightest value; 0
        and more, below 100.
    sigma: of the Gaussian that smooths the brightest values over the picture, in pixels, above 0.
    """

    name: ClassVar[str] = "shade-removal"
    main: ClassVar[str | None] = "percent"
    percent: float = 0.5
    sigma: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.percent < 100:
            raise expected("a percentage from 0 to less than 100", str(self.percent), "choose 0.5")
        if not 0 < self.sigma < math.inf:
            raise expected("a sigma above 0", str(self.sigma), "choose 2")

    def clean(self, published: Published, rng: np.random.Generator) -> NDArray[np.uint8]:
        from scipy.ndimage import gaussian_filter

        brightest, present = brightest_values(published, self.percent)
        light = gaussian_filter(np.maximum(brightest, 1), self.sigma, axes=(1, 2), mode="nearest")
        gains = (light[present].mean(0) / light).astype(np.float32)

        def change(some: NDArray[np.uint8], its: NDArray[np.int64]) -> NDArray[Any]:
            return np.asarray(some * gains[its])

        return by_pieces(change, published.images, published.labels)


def brightest_values(published: Published, percent: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the values that so many percent of a class's pictures exceed, and which classes have pictures.

    (classes, height, width, channels), 0 where a class is empty; (classes,).
    """
    shape = published.images.shape[1:]
    found = np.zeros((published.classes, *shape))
    present = np.bincount(published.labels, minlength=published.classes) > 0
    for label in np.flatnonzero(present).tolist():
        chosen = np.flatnonzero(published.labels == label)
        place = len(chosen) - 1 - int(len(chosen) * percent / 100)
        step = max(1, _PART // (len(chosen) * shape[1] * shape[2]))
        for top in range(0, shape[0], step):
            rows = slice(top, top + step)
            found[label, rows] = np.partition(published.images[chosen, rows], place, axis=0)[place]
    return found, present
