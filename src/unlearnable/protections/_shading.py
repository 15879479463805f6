"""The inner loop of tone, in whole numbers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearnable.compiled import compiled

Samples = NDArray[np.unsignedinteger[Any]]
Whole = NDArray[np.int64]
Numbers = NDArray[np.signedinteger[Any]]

_UNIT = 4096  # of light, and of the way between two points of it


def _spread(points: Whole, row: int, height: int, out: Numbers) -> None:
    """Write the light along one row of a picture of this height: linear between points, the outer ones in its corners.

    points: (grid, grid). out: (width,), in parts of 4,096.
    """
    grid, width = points.shape[0], out.shape[0]
    along = row * (grid - 1) * _UNIT // max(height - 1, 1)
    above = min(along // _UNIT, grid - 2)
    down = along - above * _UNIT
    for j in range(width):
        across = j * (grid - 1) * _UNIT // max(width - 1, 1)
        left = min(across // _UNIT, grid - 2)
        right = across - left * _UNIT
        upper = points[above, left] * (_UNIT - right) + points[above, left + 1] * right
        lower = points[above + 1, left] * (_UNIT - right) + points[above + 1, left + 1] * right
        out[j] = (upper * (_UNIT - down) + lower * down) >> 24


spread = compiled(_spread)


def _mixed(shares: Whole, bent: Numbers, light: Numbers, out: Numbers) -> None:
    """Mix the channels of a row, (channels, width), into one and light it: (width,), in the same parts."""
    out[:] = 512
    for d in range(bent.shape[0]):
        share, row = bent.dtype.type(shares[d]), bent[d]
        for j in range(out.shape[0]):
            out[j] += share * row[j]
    for j in range(out.shape[0]):
        out[j] = ((out[j] >> 10) * light[j] + 2048) >> 12


mixed = compiled(_mixed)


def _shade(image: Samples, curves: Numbers, mix: Whole, points: Whole) -> None:
    """Give a picture a look, in place.

    image: (height, width, channels), uint8 or uint16; the first channels, as many as ``mix`` has, change.
    curves: (channels, samples), what each sample becomes, in parts of 256; int32 for 8-bit pictures (nothing exceeds 28
    bits then), int64 for 16-bit ones. mix: (channels, channels), in parts of 1,024. points: of light, see ``spread``.
    """
    height, width = image.shape[:2]
    colours = mix.shape[0]
    light = np.empty(width, curves.dtype)
    bent = np.empty((colours, width), curves.dtype)
    new = np.empty(width, curves.dtype)
    for i in range(height):
        spread(points, i, height, light)
        for j in range(width):
            for c in range(colours):
                bent[c, j] = curves[c, image[i, j, c]]
        for c in range(colours):
            mixed(mix[c], bent, light, new)
            for j in range(width):
                image[i, j, c] = (new[j] + 128) >> 8


shade = compiled(_shade)
