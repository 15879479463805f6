"""Light between its points, and the inner loops of tone and of veils: whole numbers, or floats that hold them."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from unlearnable.compiled import compiled

Samples = NDArray[np.unsignedinteger[Any]]
Whole = NDArray[np.int64]
Numbers = NDArray[np.signedinteger[Any]]
Floats = NDArray[np.float64]

UNIT: Final = 4096
"""Parts of the way from one point of light to the next, and of the light of a shade."""


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


def _lit(points: Whole, above: int, part: int, across: Whole, along: Floats, light: Numbers) -> None:
    """Spread the points of a light over one line of a picture, as :func:`spread` does.

    points: (grid, grid). above, part: of the line, across: of its samples, see :func:`ways`. along: ``across[1]`` as
    float64, in which every sum here is exact. light: (width,), is written.
    """
    start, before = 0, points[above, 0] * (UNIT - part) + points[above + 1, 0] * part
    for k in range(1, points.shape[1]):
        after = points[above, k] * (UNIT - part) + points[above + 1, k] * part
        end = int(np.searchsorted(across[0], k))
        left, step = np.float64(before * UNIT), np.float64(after - before)
        piece, its = light[start:end], along[start:end]  # slices, so that the loop becomes one of vectors
        for j in range(len(piece)):
            piece[j] = np.int32(np.floor((left + step * its[j]) / 2**24))
        start, before = end, after


lit = compiled(_lit)


def _shade(
    images: Samples, chosen: Whole, curves: Numbers, mix: Numbers, points: Whole, down: Whole, across: Whole
) -> None:
    """Give some pictures the same look, in place.

    images: (count, height, width, channels), uint8 or uint16; the first channels, 1 or 3 of them, change.
    chosen: which pictures. curves: (changed channels, samples), what each sample of a channel becomes, in parts of 1 /
    256 of a level; mix: what of it goes into each new channel, row by row, in parts of 1,024; both int32 for 8-bit
    pictures (no number exceeds 29 bits), int64 for 16-bit ones. points: (grid, grid), light in parts of 4,096.
    down, across: see :func:`ways`.

    Each step is a loop of its own over one line, and stored in 32 bits where it fits: so the compiler takes vectors of
    32-bit numbers, in place of the 64 bits that single sums are worked out in.
    """
    _, height, width, _ = images.shape
    curved = np.empty((len(mix), width), mix.dtype)
    light, total = np.empty((2, width), mix.dtype)
    along = across[1].astype(np.float64)
    for n in chosen:
        for i in range(height):
            line = images[n, i]
            lit(points, down[0, i], down[1, i], across, along, light)
            for c in range(len(mix)):
                for j in range(width):
                    curved[c, j] = curves[c, line[j, c]]
            for c in range(len(mix)):
                total[:] = 512
                for k in range(len(mix)):
                    share, samples = mix[c, k], curved[k]
                    for j in range(width):
                        total[j] += share * samples[j]
                for j in range(width):
                    total[j] = (total[j] >> 10) * light[j] + 2048
                for j in range(width):
                    total[j] = (total[j] >> 12) + 128
                for j in range(width):
                    line[j, c] = total[j] >> 8


shade = compiled(_shade)


def _lift(images: Samples, chosen: Whole, table: Numbers, points: Whole, down: Whole, across: Whole) -> None:
    """Lay the same veil over some pictures, in place.

    images: (count, height, width, channels), uint8 or uint16; the first channels, as many as ``points`` has, change.
    chosen: which pictures. table: (samples,), by how much light of 1 changes a sample, in parts of 2**22; int32 for
    8-bit pictures (no product exceeds 29 bits), int64 for 16-bit ones. points: (channels, grid, grid), light in parts
    of 1,024 of a grey level of 255. down, across: see :func:`ways`.
    """
    _, height, width, _ = images.shape
    light, total = np.empty((2, width), table.dtype)
    along = across[1].astype(np.float64)
    for n in chosen:
        for i in range(height):
            line = images[n, i]
            for c in range(points.shape[0]):
                lit(points[c], down[0, i], down[1, i], across, along, light)
                for j in range(width):
                    total[j] = table[line[j, c]]
                for j in range(width):
                    total[j] = total[j] * light[j] + (1 << 21)
                for j in range(width):
                    line[j, c] += total[j] >> 22


lift = compiled(_lift)
