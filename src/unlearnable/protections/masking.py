"""How loud noise may be in each place: people see noise where a picture is even, and overlook it where it is busy.

Legge and Foley, "Contrast masking in human vision", JOSA 1980: how strong a pattern has to be to be seen grows with the
contrast that it lies over, to a power of about 0.6. SSIM judges so too: at one loudness it loses most in even places.
How loud noise is here is not from a paper.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from unlearnable.pictures.quality import brightness

_WINDOW: Final = 7  # pixels, as SSIM's
_EVEN: Final = (0.03 * 255) ** 2 / 2  # added to a variance, as in SSIM, so that no place has none
_ORDINARY: Final = 16.0  # grey levels of contrast, with that added, at which noise is as loud as its radius
_LEAST: Final = 0.5  # radii
_MOST: Final = 4.0
_INT8: Final = 127  # grey levels


def loudest(radius: float) -> int:
    """Return the most that masked noise may change a sample by, in grey levels."""
    return min(_INT8, math.floor(_MOST * radius))


def masked(images: NDArray[np.uint8], radius: float, masking: float) -> NDArray[np.int8]:
    """Return how loud noise may be in each place of pictures, (count, height, width), in whole grey levels of 255.

    The contrast of a place is the standard deviation of brightness in the windows around it, of which the most even
    count most. The radius goes with it to the power of ``masking``, and never below half of itself or above four times
    as much.

    images: (count, height, width, 1 or 3). radius: in grey levels, that of a place with a contrast of about 15.

    >>> masked(np.zeros((1, 32, 32, 1), np.uint8), 8, 1)[0, 0, 0]
    np.int8(4)
    """
    light = np.stack([brightness(image) for image in images]).astype(np.float64)
    mean, square = (_smoothed(these) for these in (light, light * light))
    contrast = 1 / np.sqrt(_smoothed(1 / ((square - mean * mean).clip(0) + _EVEN)))
    loud = radius * (contrast / _ORDINARY) ** masking
    return np.asarray(np.rint(loud.clip(max(1, _LEAST * radius), loudest(radius))), np.int8)


def _smoothed(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take means over windows, (count, height, width); beyond a border its samples are repeated."""
    for _ in range(2):
        padded = np.pad(light, ((0, 0), (_WINDOW // 2, _WINDOW // 2), (0, 0)), "edge")
        rows = [padded[:, first : first + light.shape[1]] for first in range(_WINDOW)]
        light = np.asarray(sum(rows)).swapaxes(1, 2) / _WINDOW  # the columns next
    return light
