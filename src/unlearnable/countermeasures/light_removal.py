"""Light removal: what a class's light does to the darkest and the brightest values of each pixel is taken off again.

Written against :mod:`unlearnable.protections.veil` and the shade of :mod:`unlearnable.protections.tone`, by somebody
who knows how they are made and has no key. In natural pictures of whatever class, any pixel is black in a few and white
in a few others. So where the darkest of a class are not black, a veil was added there, and where the brightest are not
white, a veil took light away or a shade lies there. What classes look like by themselves moves their mean pictures far
more than these ends, and is left as it is.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from unlearnable.countermeasures.base import Countermeasure, Published, by_pieces, countermeasures
from unlearnable.errors import expected

_PART: Final = 1 << 26  # samples of a class that are put in order at a time


@dataclass(frozen=True, kw_only=True)
class _LightRemoval(Countermeasure):
    """What both have in common.

    percent: of a class's pictures that lie beyond each of the two ends, 0 and more, below 50.
    sigma: of the Gaussian that smooths what the ends tell, in pixels, above 0.
    """

    main: ClassVar[str | None] = "percent"
    percent: float = 0.5
    sigma: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.percent < 50:
            raise expected("a percentage from 0 to less than 50", str(self.percent), "choose 0.5")
        if not 0 < self.sigma < math.inf:
            raise expected("a sigma above 0", str(self.sigma), "choose 2")

    def _smooth(self, light: NDArray[np.float64]) -> NDArray[np.float64]:
        from scipy.ndimage import gaussian_filter

        return np.asarray(gaussian_filter(light, self.sigma, axes=(1, 2), mode="nearest"))


@countermeasures.register("veil-removal")
@dataclass(frozen=True, kw_only=True)
class VeilRemoval(_LightRemoval):
    """Subtract what a class's veil has more than those of all have on average; from training pictures alone.

    That is how far its darkest values lie above black and its brightest below white: where light was added, values are
    cut off at white, so that one end tells of it alone, and the other where it was taken away.
    """

    name: ClassVar[str] = "veil-removal"

    def clean(self, published: Published, rng: np.random.Generator) -> NDArray[np.uint8]:
        darkest, brightest, present = ends(published, self.percent)
        light = darkest + brightest
        veils = self._smooth(light - light[present].mean(0)).astype(np.float32)

        def change(some: NDArray[np.uint8], its: NDArray[np.int64]) -> NDArray[Any]:
            return np.asarray(some - veils[its])

        return by_pieces(change, published.images, published.labels)


@countermeasures.register("shade-removal")
@dataclass(frozen=True, kw_only=True)
class ShadeRemoval(_LightRemoval):
    """Multiply until a class's brightest values are as bright as those of all on average; training pictures alone."""

    name: ClassVar[str] = "shade-removal"

    def clean(self, published: Published, rng: np.random.Generator) -> NDArray[np.uint8]:
        _, brightest, present = ends(published, self.percent)
        light = self._smooth(np.maximum(brightest, 1))
        gains = (light[present].mean(0) / light).astype(np.float32)

        def change(some: NDArray[np.uint8], its: NDArray[np.int64]) -> NDArray[Any]:
            return np.asarray(some * gains[its])

        return by_pieces(change, published.images, published.labels)


def ends(published: Published, percent: float) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Return the darkest and the brightest values of each sample in each class, and which classes have pictures.

    (classes, height, width, channels), twice: the values that so many percent of the class's pictures are below, or
    above; 0 where a class is empty. (classes,).
    """
    shape = published.images.shape[1:]
    darkest, brightest = np.zeros((2, published.classes, *shape))
    present = np.bincount(published.labels, minlength=published.classes) > 0
    for label in np.flatnonzero(present).tolist():
        chosen = np.flatnonzero(published.labels == label)
        below = int(len(chosen) * percent / 100)
        step = max(1, _PART // (len(chosen) * shape[1] * shape[2]))
        for top in range(0, shape[0], step):
            rows = slice(top, top + step)
            ordered = np.partition(published.images[chosen, rows], (below, len(chosen) - 1 - below), axis=0)
            darkest[label, rows], brightest[label, rows] = ordered[below], ordered[-1 - below]
    return darkest, brightest, present
