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
_USUAL: Final = 0.1  # of the whole range: the deviation of light that is expected before there are any samples
_LEAST: Final = 1 / 255  # of contrast: what is even tells nothing
_PIECE: Final = 1 << 22  # samples that are measured at a time


@countermeasures.register("veil-removal")
@dataclass(frozen=True, kw_only=True)
class VeilRemoval(Countermeasure):
    """Find the light over each class, see :func:`lights`, and undo it; training pictures alone.

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
    """Estimate the light over each class: by how much it brightens middle grey, in parts of the whole range.

    (classes, height, width, channels), -0.24 to 0.24; 0 for classes without pictures. Light l has made
    x + 4 l x (1 - x) of a sample x from 0 to 1.

    Each channel goes by itself. A class as a whole is compared with all classes, which gives its light on average, and
    then each place with its class, which gives how light changes from place to place. Light is taken to be its own
    mirror image, left to right, as veils are.
    """
    from scipy.ndimage import gaussian_filter

    _, height, width, channels = published.images.shape
    light = np.zeros((published.classes, height, width, channels), np.float32)
    area = 4 * math.pi * sigma**2  # in pixels: a mean under a Gaussian is of about so many places
    for channel in range(channels):
        classes = {}
        for label in np.unique(published.labels).tolist():
            tables = _contrasts(published.images[published.labels == label, ..., channel])
            classes[label] = whole = tables.sum((2, 3), keepdims=True)
            near = area * gaussian_filter(tables, sigma, axes=(2, 3), mode="nearest")
            light[label, ..., channel] = _light(_logarithm(*whole), *near)
        overall = _logarithm(*np.sum(list(classes.values()), 0))
        for label, whole in classes.items():
            there = light[label, ..., channel]
            there += _light(overall, *whole) - there.mean()
            there[:] = ((there + there[:, ::-1]) / 2).clip(-_MOST / 100, _MOST / 100)
    return light


def _contrasts(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Count a channel's samples of each level that lie on some contrast, place by place, and add that contrast up.

    images: (count, height, width). (2, levels, height, width): counts, sums.
    """
    from scipy.ndimage import correlate1d

    count, height, width = images.shape
    tables = np.zeros((2, _LEVELS * height * width))
    places = np.arange(height * width).reshape(height, width)
    step = max(1, _PIECE // places.size)
    for part in (images[first : first + step] for first in range(0, count, step)):
        exact = part.astype(np.float32) / 255
        contrast = np.hypot(*(correlate1d(exact, [-0.5, 0, 0.5], axis, mode="nearest") for axis in (1, 2)))
        telling = contrast > _LEAST
        into = (part.astype(np.intp) * _LEVELS // 256 * places.size + places)[telling]
        tables[0] += np.bincount(into, minlength=tables.shape[1])
        tables[1] += np.bincount(into, contrast[telling], tables.shape[1])
    return tables.reshape(2, _LEVELS, height, width)


def _logarithm(counts: NDArray[np.float64], sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the logarithm of mean contrast; that of the least where there is none."""
    return np.asarray(np.log(np.maximum(sums / np.maximum(counts, 1e-9), _LEAST)))


def _light(wanted: NDArray[np.float64], counts: NDArray[np.float64], sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Find the light under which contrast that is as wanted, (levels, 1, 1), comes nearest to what is found.

    counts, sums: (levels, height, width). Nearest by the spread of the ratio's logarithm over the levels, as a place
    may be busier, or less so, at all of them. A sample's logarithm varies by about one, so that few samples tell of
    little light.
    """
    levels = (np.arange(_LEVELS) + 0.5) / _LEVELS
    seen = _logarithm(counts, sums)
    found, least = np.zeros(counts.shape[1:]), np.full(counts.shape[1:], np.inf)
    for light in sorted((hundredths / 100 for hundredths in range(-_MOST, _MOST + 1)), key=abs):
        before = _before(levels, light)
        lit = np.interp(before, levels, wanted[:, 0, 0]) + np.log(1 + 4 * light * (1 - 2 * before))
        ratio = seen - lit[:, None, None]
        mean = (counts * ratio).sum(0) / np.maximum(counts.sum(0), 1e-9)
        misfit = (counts * (ratio - mean) ** 2).sum(0) + (light / _USUAL) ** 2
        found = np.where(misfit < least, light, found)
        least = np.minimum(misfit, least)
    return found


def _before(lit: NDArray[Any], light: Any) -> NDArray[Any]:
    """Return what samples from 0 to 1 were before a light."""
    lift = 4 * light
    return np.asarray(2 * lit / (1 + lift + np.sqrt(np.maximum((1 + lift) ** 2 - 4 * lift * lit, 0))))
