"""Light between its points, and the inner loops of tone and of veils, in whole numbers."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from unlearnable.compiled import compiled

Samples = NDArray[np.unsignedinteger[Any]]
Whole = NDArray[np.int64]
Numbers = NDArray[np.signedinteger[Any]]

UNIT: Final = 4096
"""Parts of the way from one point of light to the next, and of the light of a shade."""

LANES: Final = 4
"""New channels in a table of a look: three, and one that makes a vector of them."""


def ways(grid: int, length: int) -> Whole:
    """Place the samples along a side between the points of light, the outer ones of which are in the corners.

    (2, length): the point before each sample, and the way from there to the next in parts of 4,096.
    """
    along = np.arange(length) * ((grid - 1) * UNIT) // max(length - 1, 1)
    before = np.minimum(along // UNIT, grid - 2)
    return np.stack([before, along - before * UNIT])


def spread(light: Whole, height: int, width: int, rows: slice = slice(None)) -> Whole:
    """Spread the points of a light over some rows of a picture, linearly: (rows, width), in the parts it comes in."""
    down, across = (ways(light.shape[0], length) for length in (height, width))
    for before, part in (down[:, rows], across):  # one side after the other, and turned back in the end
        light = (light[before] * (UNIT - part)[:, None] + light[before + 1] * part[:, None]).T
    return light >> 24


def _shade(images: Samples, chosen: Whole, table: Numbers, points: Whole, down: Whole, across: Whole) -> None:
    """Give some pictures the same look, in place.

    images: (count, height, width, channels), uint8 or uint16; the first channels, 1 or 3 of them, change.
    chosen: which pictures. table: (changed channels, samples, LANES), what each sample of a channel adds to every new
    channel, in parts of 256 * 1,024; int32 for 8-bit pictures (no sum exceeds 28 bits), int64 for 16-bit ones.
    points: (grid, grid), light in parts of 4,096. down, across: see :func:`ways`.
    """
    _, height, width, _ = images.shape
    light, row = np.empty(width, table.dtype), np.empty(points.shape[0], np.int64)
    for n in chosen:
        image = images[n]
        for i in range(height):
            above, part = down[0, i], down[1, i]
            for k in range(len(row)):
                row[k] = points[above, k] * (UNIT - part) + points[above + 1, k] * part
            for j in range(width):
                left = row[across[0, j]]
                light[j] = (left * UNIT + (row[across[0, j] + 1] - left) * across[1, j]) >> 24
            if len(table) == 1:
                for j in range(width):
                    image[i, j, 0] = ((((table[0, image[i, j, 0], 0] + 512) >> 10) * light[j] + 2048 >> 12) + 128) >> 8
            else:
                for j in range(width):
                    red, green, blue = table[0, image[i, j, 0]], table[1, image[i, j, 1]], table[2, image[i, j, 2]]
                    for c in range(3):
                        mixed = (red[c] + green[c] + blue[c] + 512) >> 10
                        image[i, j, c] = ((mixed * light[j] + 2048 >> 12) + 128) >> 8


shade = compiled(_shade)


def _lift(images: Samples, chosen: Whole, table: Numbers, points: Whole, down: Whole, across: Whole) -> None:
    """Lay the same veil over some pictures, in place.

    images: (count, height, width, channels), uint8 or uint16; the first channels, as many as ``points`` has, change.
    chosen: which pictures. table: (samples,), by how much light of 1 changes a sample, in parts of 2**22; int32 for
    8-bit pictures (no product exceeds 29 bits), int64 for 16-bit ones. points: (grid, grid, channels), light in parts
    of 1,024 of a grey level of 255. down, across: see :func:`ways`.
    """
    _, height, width, _ = images.shape
    channels = points.shape[2]
    light, row = np.empty((width, channels), table.dtype), np.empty(points.shape[1:], np.int64)
    for n in chosen:
        image = images[n]
        for i in range(height):
            above, part = down[0, i], down[1, i]
            for k in range(len(row)):
                for c in range(channels):
                    row[k, c] = points[above, k, c] * (UNIT - part) + points[above + 1, k, c] * part
            for j in range(width):
                for c in range(channels):
                    left = row[across[0, j], c]
                    light[j, c] = (left * UNIT + (row[across[0, j] + 1, c] - left) * across[1, j]) >> 24
            for j in range(width):
                for c in range(channels):
                    image[i, j, c] += (light[j, c] * table[image[i, j, c]] + (1 << 21)) >> 22


lift = compiled(_lift)
