"""Veil removal: light that each class's contrast tells of is taken off, whatever its pictures show.

Written against :mod:`unlearnable.protections.veil`, by somebody who knows how veils are made and has no key. A veil
makes dark places richer in contrast where it brightens them, and bright places poorer, by a ratio that says how much
light there is. Classes differ less in that ratio by nature than in their mean pictures. A curve of the whole picture,
as a look has, changes the ratio too, and is taken for light that is the same everywhere.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from unlearnable.countermeasures.base import Countermeasure, Published, by_pieces, countermeasures
from unlearnable.errors import expected

_LEVELS: Final = 16  # that samples are sorted by
_MOST: Final = 24  # hundredths of the whole range: no veil lights the middle by more
_FAINT: Final = 1e-4  # of the whole range: below any contrast that tells


@countermeasures.register("veil-removal")
@dataclass(frozen=True, kw_only=True)
class VeilRemoval(Countermeasure):
    """Undo for each class and channel the light under which contrast goes with brightness as in all; training alone.

    How contrast goes with brightness in a class is compared with how it does in all of them, and then in each place
    with how it does in the class. Light is taken to be its own mirror image, left to right.

    sigma: of the Gaussian that gathers the surroundings of a place, in pixels, above 0.
    """

    name: ClassVar[str] = "veil-removal"
    main: ClassVar[str | None] = "sigma"
    sigma: float = 3.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise expected("a sigma above 0", str(self.sigma), "choose 3")

    def clean(self, published: Published, rng: np.random.Generator) -> NDArray[np.uint8]:
        light = lights(published, self.sigma)

        def change(some: NDArray[np.uint8], its: NDArray[np.int64]) -> NDArray[Any]:
            return np.asarray(255 * _before(some.astype(np.float32) / 255, light[its]))

        return by_pieces(change, published.images, published.labels)


def lights(published: Published, sigma: float) -> NDArray[np.float32]:
    """Estimate the light over each class, (classes, height, width, channels): 1 would make any middle grey white.

    0 for classes without pictures. Where a sample was x before, of the range from 0 to 1, light l makes it
    x + 4 l x (1 - x).
    """
    from scipy.ndimage import gaussian_filter

    shape = published.images.shape[1:]
    light = np.zeros((published.classes, *shape), np.float32)
    present = np.unique(published.labels).tolist()
    for channel in range(shape[-1]):
        tables = {label: _contrasts(published.images[published.labels == label, ..., channel]) for label in present}
        overall = np.sum([counts.sum((1, 2)) for counts, _ in tables.values()], 0)
        general = np.sum([sums.sum((1, 2)) for _, sums in tables.values()], 0) / np.maximum(overall, 1)
        for label, (counts, sums) in tables.items():
            of_class = counts.sum((1, 2)), sums.sum((1, 2))
            own = of_class[1] / np.maximum(of_class[0], 1)
            near = [gaussian_filter(table, sigma, axes=(1, 2), mode="nearest") for table in (counts, sums)]
            there = _light(own, *near)
            there += _light(general, *(table[:, None, None] for table in of_class)) - there.mean()
            light[label, ..., channel] = (there + there[:, ::-1]) / 2
    return light


def _contrasts(images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Count a channel's samples of each level in each place, and add up their contrast: two (levels, height, width)."""
    from scipy.ndimage import correlate1d

    count, height, width = images.shape
    counts, sums = np.zeros((2, _LEVELS * height * width))
    places = np.arange(height * width).reshape(height, width)
    step = max(1, (1 << 22) // (height * width))
    for part in (images[first : first + step] for first in range(0, count, step)):
        exact = part.astype(np.float32) / 255
        down, across = (correlate1d(exact, [-0.5, 0, 0.5], axis, mode="nearest") for axis in (1, 2))
        into = (part.astype(np.intp) * _LEVELS // 256) * (height * width) + places
        counts += np.bincount(into.ravel(), minlength=counts.size)
        sums += np.bincount(into.ravel(), np.hypot(down, across).ravel(), counts.size)
    return counts.reshape(_LEVELS, height, width), sums.reshape(_LEVELS, height, width)


def _light(
    expected_contrast: NDArray[np.float64], counts: NDArray[np.float64], sums: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Find the light under which contrast of these levels, (levels,), comes nearest to what is found in each place.

    counts, sums: (levels, height, width). Nearest by the spread of the ratio's logarithm over the levels, each weighed
    by how many samples it has: a place may be busier, or less so, at all levels.
    """
    levels = (np.arange(_LEVELS) + 0.5) / _LEVELS
    seen = np.log(np.maximum(sums / np.maximum(counts, 1e-9), _FAINT))
    weights = counts / np.maximum(counts.sum(0), 1e-9)
    least, found = np.full(counts.shape[1:], np.inf), np.zeros(counts.shape[1:])
    for light in np.arange(-_MOST, _MOST + 1) / 100:
        before = _before(levels, light)
        contrast = np.interp(before, levels, expected_contrast) * (1 + 4 * light * (1 - 2 * before))
        ratio = seen - np.log(np.maximum(contrast, _FAINT))[:, None, None]
        spread = (weights * ratio**2).sum(0) - (weights * ratio).sum(0) ** 2
        found = np.where(spread < least, light, found)
        least = np.minimum(spread, least)
    return found


def _before(lit: NDArray[Any], light: Any) -> NDArray[Any]:
    """Return what samples from 0 to 1 were before a light."""
    lift = 4 * light
    return np.asarray(2 * lit / (1 + lift + np.sqrt(np.maximum((1 + lift) ** 2 - 4 * lift * lit, 0))))
