"""What a corruption is, and the parts that several of them are made of."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
"""Pictures, (count, height, width, channels), 0 to 1, unless it says otherwise."""

Draws = tuple[NDArray[Any], ...]
"""What is random in the corruption of one picture; stacked over the pictures of a batch, (count, ...) each."""

LEVELS: Final = 255.0
_FINE_LEVELS: Final = 65535.0


def _nothing(chance: np.random.Generator, picture: Floats, level: Any) -> Draws:
    return ()


@dataclass(frozen=True)
class Corruption:
    """One corruption: chance is drawn a picture at a time, what is done with it is done to a batch at once.

    severities: its parameters at severity 1 to 5.
    change: (pictures, *what was drawn, parameters) to pictures, which may leave 0 to 1: whoever calls it clips.
    draw: (generator, one picture as (height, width, channels), parameters) to what it draws.
    """

    severities: tuple[Any, Any, Any, Any, Any]
    change: Callable[..., Floats]
    draw: Callable[[np.random.Generator, Floats, Any], Draws] = _nothing


def truncated(images: Floats) -> NDArray[np.uint8]:
    """Bring pictures to bytes as the published generator does: clipped, and what is left of a grey level cut off.

    A millionth of a level is added first, so that whole levels survive rounding errors.
    """
    return np.floor(images.clip(0, 1) * LEVELS + 1e-6).astype(np.uint8)


def written(images: Floats) -> Floats:
    """Bring pictures to grey levels as ImageMagick does when it writes 8 bits of its 16: rounded to 16, cut to 8."""
    return np.floor(np.rint(images * _FINE_LEVELS) * LEVELS / _FINE_LEVELS) / LEVELS


def motion_blurred(images: Floats, angles: Floats, *, radius: int, sigma: float) -> Floats:
    """Blur each picture along a line to one side, bit by bit as ImageMagick's motion blur does.

    The taps are 0 to 2 radius pixels away, each at the nearest pixel, weighed by a normal density; borders are
    repeated; what comes out are whole grey levels. angles: (count,), in degrees, from the right to the bottom.
    """
    count, height, width, _ = images.shape
    distances = np.arange(2 * radius + 1)
    weights = np.exp(-(distances**2) / (2 * sigma**2))
    weights /= weights.sum()
    turned = np.deg2rad(angles)[:, None]
    across, down = (np.ceil(distances * part(turned) - 0.5).astype(int) for part in (np.cos, np.sin))
    picture, row, column = np.ogrid[:count, :height, :width]
    blurred = np.zeros_like(images)
    for tap, weight in enumerate(weights):
        rows = (row + down[:, tap, None, None]).clip(0, height - 1)
        columns = (column + across[:, tap, None, None]).clip(0, width - 1)
        blurred += weight * images[picture, rows, columns]
    return written(blurred)


def zoomed(images: Floats, factor: float) -> Floats:
    """Enlarge the middle of each picture to its whole size, linearly."""
    down, across = (zoom_matrix(size, factor) for size in images.shape[1:3])
    first = np.moveaxis(images, 3, 1)
    return np.moveaxis(down @ first @ across.T, 1, 3)


@lru_cache(maxsize=128)
def zoom_matrix(size: int, factor: float) -> Floats:
    """Return what enlarges the middle of a line of ``size`` values: (size, size).

    The middle is size / factor values, rounded up. Its ends stay ends, and what is then too long is trimmed alike on
    both sides.
    """
    kept = int(np.ceil(size / factor))
    length = round(kept * factor)
    places = np.arange(length)[(length - size) // 2 :][:size] * (kept - 1) / max(length - 1, 1)
    left = np.minimum(places.astype(int), kept - 2) if kept > 1 else np.zeros(size, int)
    matrix = np.zeros((size, size))
    line = np.arange(size)
    matrix[line, (size - kept) // 2 + left] = 1 - (places - left)
    if kept > 1:
        matrix[line, (size - kept) // 2 + left + 1] = places - left
    return matrix
