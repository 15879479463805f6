"""Patches: each class gets a coarse pattern of coloured squares of its own.

Yu, Zhang, Chen, Yin, Liu, "Availability attacks create shortcuts", KDD 2022 (arXiv 2111.00898), section 4: patterns
that a linear rule tells apart are a shortcut by themselves, without any network to find them. There the patches are
drawn as points of a separable mixture; here each patch of a channel is as bright or as dark as the radius allows, and
classes are kept apart by the number of patches in which they differ.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from unlearnable.errors import expected
from unlearnable.keys import Key, Stream
from unlearnable.protections.apart import Purpose, draw_as_apart_as_possible
from unlearnable.protections.base import Classed, Layer, protections
from unlearnable.protections.noise import Noise

Signs = NDArray[np.int8]


def draw_signs(stream: Stream, grid: int) -> Signs:
    """Draw which patches are bright and which are dark: (grid, grid, 3), of 1 and -1."""
    return np.where(stream.uniform(grid * grid * 3) < 0.5, -1, 1).astype(np.int8).reshape(grid, grid, 3)


def distances_to(patterns: NDArray[np.float64], one: NDArray[np.float64]) -> NDArray[np.float64]:
    """Measure in what share of their patches patterns, (count, grid, grid, 3), differ from another one: (count,).

    As they are or mirrored left to right, whichever is less: networks are trained on both.
    """
    both = np.stack([patterns, patterns[:, :, ::-1]])
    return np.asarray((both != one).mean((2, 3, 4)).min(0))


def default_distance(classes: int) -> float:
    """Return the share of patches in which classes differ: 0.3 for up to ten of them, slowly less for more.

    >>> [round(default_distance(classes), 3) for classes in (10, 100, 1000)]
    [0.3, 0.212, 0.15]
    """
    return float(0.3 * max(classes / 10, 1) ** -0.15)


@protections.register("patches")
@dataclass(frozen=True, kw_only=True)
class Patches(Layer):
    """Patches and their parameters.

    radius: in grey levels of 255, 1 to 64: by how much every sample changes, up or down. Less where patches meet in a
        picture of another size than 32 x 32, and in grey pictures, which take the mean of the colours.
    grid: patches along a side, 4, 8 or 16.

    Raises InputError for other values.
    """

    radius: float = 8
    grid: int = 4

    def __post_init__(self) -> None:
        if not (1 <= self.radius <= 64 and self.radius == int(self.radius)):
            raise expected("a radius of 1 to 64 whole grey levels", str(self.radius), "8 is the default")
        if self.grid not in (4, 8, 16):
            raise expected("a grid of 4, 8 or 16 patches a side", str(self.grid), "4 is the default")

    def fit(self, dataset: Classed, key: Key) -> Noise:
        """Draw the patterns of the data set's classes."""
        names = tuple(dataset.class_names)
        purpose = Purpose("patches-order", "patches", {"grid": self.grid})

        def drawn(stream: Stream) -> tuple[Signs, NDArray[np.float64]]:
            signs = draw_signs(stream, self.grid)
            return signs, signs.astype(np.float64)

        distance = default_distance(len(names))
        found = draw_as_apart_as_possible(names, key, purpose, drawn, distances_to, distance)
        side = 32 // self.grid
        patterns = np.stack(found).repeat(side, 1).repeat(side, 2) * np.int8(int(self.radius))
        return Noise(names, (), patterns[:0], patterns, radius=int(self.radius), method="Patches")

    def parameters(self) -> dict[str, int | float | str | None]:
        """Return radius and grid."""
        return {"radius": self.radius, "grid": self.grid}

    def scaled(self, share: float) -> "Patches":
        """Return it at a share of its radius, in whole grey levels, one at least."""
        return replace(self, radius=max(1, round(share * self.radius)))
