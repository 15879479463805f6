"""Veil: each class gets a smooth coloured light of its own, laid over its pictures.

A veil makes a picture brighter here and darker there, and changes so slowly that structure stays as it is, by which
people and SSIM judge. So it may be many times louder than noise, and than what adversarial training can look past. A
shade (:mod:`unlearnable.protections.tone`) takes contrast along with the light; a veil does not, and is as strong where
a picture is dark. Not from a paper; what it withstands, and what not, is told in ``docs/stack.md``.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from unlearnable.errors import expected
from unlearnable.keys import Key, Stream
from unlearnable.protections.apart import Purpose, draw_apart, draw_as_apart_as_possible
from unlearnable.protections.base import Classed, Layer, protections
from unlearnable.protections.noise import Noise

_CANVAS: Final = 32  # pixels along a side
_UNIT: Final = 1 << 10  # of which light is whole parts
_COMMON: Final = 7  # tenths of it that are the same in each channel, which grey pictures keep
_LEAST: Final = 0.25  # root mean square of a veil's brightness, of its radius: a fainter one might be none at all
_LEAST_RADIUS: Final = 4


def draw_points(stream: Stream, grid: int) -> NDArray[np.int64]:
    """Draw the light at points spread evenly from corner to corner: (grid, grid, 3), -10,240 to 10,240.

    The right half mirrors the left. The mean picture of a natural class is nearly its own mirror image, so that what
    is not would give a veil away; and networks that are trained on mirrored pictures find it where it was.
    """
    left, right = (grid + 1) // 2, grid // 2
    while True:
        light = np.floor(stream.uniform(grid * left * 4) * (2 * _UNIT + 1)).astype(np.int64) - _UNIT
        common, own = np.split(light.reshape(grid, left, 4), [1], axis=2)
        points = _COMMON * common + (10 - _COMMON) * own
        points = np.concatenate([points, points[:, right - 1 :: -1]], axis=1)
        if (brightness(points) ** 2).mean() >= _LEAST**2:
            return points


def brightness(points: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean of the channels' light, -1 to 1: what is left of a veil in grey."""
    return np.asarray(points.mean(-1) / (10 * _UNIT))


def distances_to(lights: NDArray[np.float64], one: NDArray[np.float64]) -> NDArray[np.float64]:
    """Measure how far the brightness of veils, (count, grid, grid), is from another's: (count,), root mean square."""
    return np.asarray(np.sqrt(((lights - one) ** 2).mean((1, 2))))


def default_distance(classes: int) -> float:
    """Return how far veils keep from each other, of the radius: 0.6 for up to ten classes, less for more.

    >>> [round(default_distance(classes), 3) for classes in (10, 100, 1000)]
    [0.6, 0.379, 0.239]
    """
    return float(0.6 * max(classes / 10, 1) ** -0.2)


@protections.register("veil")
@dataclass(frozen=True, kw_only=True)
class Veil(Layer):
    """Veils and their parameters.

    radius: in grey levels of 255, 4 to 64: by how much a sample changes at most, up or down.
    grid: points of light along a side, 3 to 8.

    Raises InputError for other values.
    """

    radius: float = 40
    grid: int = 4

    def __post_init__(self) -> None:
        if not (_LEAST_RADIUS <= self.radius <= 64 and self.radius == int(self.radius)):
            raise expected(
                f"a radius of {_LEAST_RADIUS} to 64 whole grey levels", str(self.radius), "40 is the default"
            )
        if not 3 <= self.grid <= 8:
            raise expected("a grid of 3 to 8 points a side", str(self.grid), "4 is the default")

    def fit(self, dataset: Classed, key: Key) -> Noise:
        """Draw the veils of the data set's classes."""
        names = tuple(dataset.class_names)
        purpose = Purpose("veil-order", "veil", {"grid": self.grid})

        def drawn(stream: Stream) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
            points = draw_points(stream, self.grid)
            return points, brightness(points)

        found = draw_as_apart_as_possible(
            lambda least: draw_apart(names, key, purpose, drawn, distances_to, least), default_distance(len(names))
        )
        patterns = _spread(np.stack(found), int(self.radius))
        return Noise(names, (), patterns[:0], patterns, radius=int(self.radius), method="Veil")

    def parameters(self) -> dict[str, int | float | str | None]:
        """Return radius and grid."""
        return {"radius": self.radius, "grid": self.grid}

    def scaled(self, share: float) -> "Veil":
        """Return it at a share of its radius, in whole grey levels, four at least."""
        return replace(self, radius=max(_LEAST_RADIUS, round(share * self.radius)))


def _spread(points: NDArray[np.int64], radius: int) -> NDArray[np.int8]:
    """Spread points over the canvas, linearly between them: (count, 32, 32, 3), in whole grey levels.

    In whole numbers, so that the same comes out on every machine.
    """
    last, grid = _CANVAS - 1, points.shape[1]
    place = np.arange(_CANVAS) * (grid - 1)
    before = np.minimum(place // last, grid - 2)
    part = (place - before * last)[:, None]
    for _ in range(2):  # one side after the other, and turned back in the end
        points = points[:, before] * (last - part)[..., None] + points[:, before + 1] * part[..., None]
        points = points.swapaxes(1, 2)
    whole = 10 * _UNIT * last**2
    return ((2 * radius * points + whole) // (2 * whole)).astype(np.int8)
