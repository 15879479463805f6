"""How far the colours of two pictures lie apart for a person: CIEDE2000, for which 1 is hardly seen."""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from unlearnable.pictures.samples import Samples, coloured, eight_bit

_PIXELS: Final = 4096  # of a picture, spread evenly: each takes about a microsecond
_XYZ: Final = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)
"""Of linear sRGB: IEC 61966-2-1."""
_WHITE: Final = np.array([0.95047, 1.0, 1.08883])  # D65

Colours = NDArray[np.float64]


def colour_difference(original: Samples, changed: Samples) -> float:
    """Return the mean CIEDE2000 difference of two pictures, (height, width, channels) of the same shape and type.

    Samples are taken for sRGB, on the 8-bit scale; of more than 4,096 pixels some, on a regular grid, stand for all.
    """
    every = math.ceil(math.sqrt(original.shape[0] * original.shape[1] / _PIXELS))
    first, second = (lab(_rgb(picture[::every, ::every])) for picture in (original, changed))
    return float(ciede2000(first, second).mean())


def _rgb(picture: Samples) -> NDArray[np.uint8]:
    colours = coloured(eight_bit(picture))
    return np.broadcast_to(colours, (*colours.shape[:2], 3))


def lab(rgb: NDArray[np.uint8]) -> Colours:
    """Convert sRGB, (..., 3) uint8, to CIELAB under D65: L* from 0 to 100, a* and b*."""
    share = np.arange(256) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    xyz = linear[rgb] @ _XYZ.T / _WHITE
    cubic = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = np.moveaxis(cubic, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def ciede2000(first: Colours, second: Colours) -> Colours:
    """Return the difference of CIELAB colours, (..., 3), pair by pair: (...).

    Sharma, Wu, Dalal, "The CIEDE2000 color-difference formula", Color Research and Application 30, 2005, equations 2 to
    22, with weights of 1.
    """
    lightness, a, b = np.moveaxis(np.stack([first, second]), -1, 0)
    chroma = np.hypot(a, b).mean(0)
    a = a * (1.5 - 0.5 * np.sqrt(chroma**7 / (chroma**7 + 25.0**7)))
    chroma, hue = np.hypot(a, b), np.arctan2(b, a) % (2 * np.pi)
    grey = chroma.prod(0) == 0  # has no hue
    turn = hue[1] - hue[0]
    turn = np.where(grey, 0, turn - 2 * np.pi * (turn > np.pi) + 2 * np.pi * (turn < -np.pi))
    by_lightness, by_chroma = lightness[1] - lightness[0], chroma[1] - chroma[0]
    by_hue = 2 * np.sqrt(chroma.prod(0)) * np.sin(turn / 2)
    middle = np.where(grey, hue.sum(0), hue[0] + turn / 2)
    lightness, chroma = lightness.mean(0), chroma.mean(0)
    degrees = np.degrees(middle) % 360
    weight = (
        1
        - 0.17 * np.cos(middle - np.radians(30))
        + 0.24 * np.cos(2 * middle)
        + 0.32 * np.cos(3 * middle + np.radians(6))
        - 0.2 * np.cos(4 * middle - np.radians(63))
    )
    offset = (lightness - 50) ** 2
    by_lightness = by_lightness / (1 + 0.015 * offset / np.sqrt(20 + offset))
    by_chroma = by_chroma / (1 + 0.045 * chroma)
    by_hue = by_hue / (1 + 0.015 * chroma * weight)
    rotation = -2 * np.sqrt(chroma**7 / (chroma**7 + 25.0**7))
    rotation = rotation * np.sin(np.radians(60) * np.exp(-(((degrees - 275) / 25) ** 2)))
    squared = by_lightness**2 + by_chroma**2 + by_hue**2 + rotation * by_chroma * by_hue
    return np.asarray(np.sqrt(np.maximum(squared, 0)))
