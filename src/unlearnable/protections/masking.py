"""How loud noise may be in each place: quiet where a picture is even, and louder where it is busy."""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from unlearnable.pictures.contrast import LEAST, MOST, shares

_INT8: Final = 127  # grey levels


def loudest(radius: float) -> int:
    """Return the most that masked noise may change a sample by, in grey levels."""
    return min(_INT8, math.floor(MOST * radius))


def masked(images: NDArray[np.uint8], radius: float, masking: float) -> NDArray[np.int8]:
    """Return how loud noise may be in each place of pictures, (count, height, width), in whole grey levels of 255.

    The radius goes with the contrast of a place to the power of ``masking``
    (:func:`unlearnable.pictures.contrast.shares`), and never below half of itself or above four times as much.

    images: (count, height, width, 1 or 3). radius: in grey levels, that of a place with a contrast of about 15.

    >>> masked(np.zeros((1, 32, 32, 1), np.uint8), 8, 1)[0, 0, 0]
    np.int8(4)
    """
    loud = radius * shares(images, masking)
    return np.asarray(np.rint(loud.clip(max(1, LEAST * radius), loudest(radius))), np.int8)
