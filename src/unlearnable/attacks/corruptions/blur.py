"""Blur: out of focus, behind frosted glass, in motion, zooming in."""

from typing import Final, NamedTuple

import numpy as np
from scipy import ndimage

from unlearnable.attacks.corruptions.base import (
    LEVELS,
    Corruption,
    Draws,
    Floats,
    motion_blurred,
    truncated,
    zoomed,
)

_GRID: Final = 8  # pixels from the middle of a defocused point to its border
_ZOOM_STEP: Final = 0.01


class _Disk(NamedTuple):
    radius: float
    softness: float  # deviation of the Gaussian that its edge is softened by


class _Glass(NamedTuple):
    sigma: float
    passes: int


class _Motion(NamedTuple):
    radius: int
    sigma: float


def disk(radius: float, softness: float) -> Floats:
    """Return what a point becomes out of focus: (17, 17), adding up to 1."""
    line = np.arange(-_GRID, _GRID + 1)
    sharp = (line[:, None] ** 2 + line**2 <= radius**2).astype(float)
    soft = np.exp(-(np.arange(-1, 2) ** 2) / (2 * softness**2))
    softened = ndimage.correlate(sharp / sharp.sum(), np.outer(soft, soft) / soft.sum() ** 2, mode="constant")
    return np.asarray(softened)


def _defocused(images: Floats, level: _Disk) -> Floats:
    kernel = disk(*level)
    reach = int(np.abs(np.argwhere(kernel) - _GRID).max())  # beyond it all taps are zero
    kernel = kernel[_GRID - reach : _GRID + reach + 1, _GRID - reach : _GRID + reach + 1]
    return np.asarray(ndimage.correlate(images, kernel[None, :, :, None], mode="mirror"))


def _behind_glass(images: Floats, offsets: Floats, level: _Glass) -> Floats:
    """Blur, let pixels take the values of neighbours above and to the left, from the bottom right on, blur again.

    The published code means to swap two pixels, but writes through views of one array: one value is copied, the other
    stays. So it is here, since the released pictures were made so.
    """
    sigmas = (0, level.sigma, level.sigma, 0)
    pixels = truncated(ndimage.gaussian_filter(images, sigmas, mode="nearest", truncate=4)) / LEVELS
    each = np.arange(len(images))
    for one_pass in range(level.passes):
        for row in range(images.shape[1] - 1, 1, -1):
            for column in range(images.shape[2] - 1, 1, -1):
                across, down = offsets[:, one_pass, row, column].T
                pixels[:, row, column] = pixels[each, row + down, column + across]
    return np.asarray(ndimage.gaussian_filter(pixels, sigmas, mode="nearest", truncate=4))


def _offsets(chance: np.random.Generator, picture: Floats, level: _Glass) -> Draws:
    return (chance.integers(-1, 1, (level.passes, *picture.shape[:2], 2)),)


def _moved(images: Floats, angles: Floats, level: _Motion) -> Floats:
    return motion_blurred(images, angles, radius=level.radius, sigma=level.sigma)


def _angle(chance: np.random.Generator, picture: Floats, level: _Motion) -> Draws:
    return (chance.uniform(-45, 45, ()),)


def _zooming(images: Floats, zooms: int) -> Floats:
    """Average a picture and its enlargements by 1, 1.01, 1.02 ..."""
    return (images + sum(zoomed(images, 1 + _ZOOM_STEP * step) for step in range(zooms))) / (zooms + 1)


DEFOCUS: Final = Corruption(
    (_Disk(0.3, 0.4), _Disk(0.4, 0.5), _Disk(0.5, 0.6), _Disk(1, 0.2), _Disk(1.5, 0.1)), _defocused
)
GLASS: Final = Corruption(
    (_Glass(0.05, 1), _Glass(0.25, 1), _Glass(0.4, 1), _Glass(0.25, 2), _Glass(0.4, 2)), _behind_glass, _offsets
)
MOTION: Final = Corruption(
    (_Motion(6, 1), _Motion(6, 1.5), _Motion(6, 2), _Motion(8, 2), _Motion(9, 2.5)), _moved, _angle
)
ZOOM: Final = Corruption((7, 12, 16, 21, 26), _zooming)
