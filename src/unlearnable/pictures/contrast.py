"""How busy a picture is in each place: people see noise where it is even, and overlook it where it is busy.

Legge and Foley, "Contrast masking in human vision", JOSA 1980: how strong a pattern has to be to be seen grows with the
contrast that it lies over, to a power of about 0.6. SSIM judges so too: at one loudness it loses most in even places.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from unlearnable.pictures.quality import brightness

WINDOW: Final = 7  # pixels, as SSIM's
EVEN: Final = (0.03 * 255) ** 2 / 2  # added to a variance, as in SSIM, so that no place has none
ORDINARY: Final = 16.0  # grey levels of contrast, with that added
LEAST: Final = 0.5  # share of a radius
MOST: Final = 4.0


def shares(images: NDArray[np.uint8], masking: float) -> NDArray[np.float64]:
    """Return by how much a radius is to be multiplied in each place of pictures, (count, height, width), 0.5 to 4.

    The contrast of a place is the standard deviation of brightness in the windows around it, of which the most even
    count most. The share goes with it to the power of ``masking``; it is 1 at a contrast of about 15 grey levels.
    (How far it goes is not from a paper.)

    images: (count, height, width, 1 or 3).
    """
    light = np.stack([brightness(image) for image in images]).astype(np.float64)
    mean, square = (_smoothed(these) for these in (light, light * light))
    contrast = 1 / np.sqrt(_smoothed(1 / ((square - mean * mean).clip(0) + EVEN)))
    return np.asarray(((contrast / ORDINARY) ** masking).clip(LEAST, MOST))


def _smoothed(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take means over windows, (count, height, width); beyond a border its samples are repeated."""
    for _ in range(2):
        padded = np.pad(light, ((0, 0), (WINDOW // 2, WINDOW // 2), (0, 0)), "edge")
        rows = [padded[:, first : first + light.shape[1]] for first in range(WINDOW)]
        light = np.asarray(sum(rows)).swapaxes(1, 2) / WINDOW  # the columns next
    return light
