"""Samples as networks and people want them: eight bits, one or three colours, upright, of one size."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Samples = NDArray[np.unsignedinteger[Any]]
"""(..., height, width, 1, 3 or 4) uint8 or uint16; four channels are inverted CMYK."""

Part = tuple[slice, slice]
"""Rows and columns of a picture."""

_ORIENTATION: Final = 0x0112


def eight_bit(samples: Samples) -> NDArray[np.uint8]:
    """Drop the lower half of 16-bit samples."""
    return (samples >> 8).astype(np.uint8) if samples.dtype == np.uint16 else samples.astype(np.uint8, copy=False)


def coloured(samples: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bring inverted CMYK to RGB, each colour times black; grey and RGB stay as they are."""
    if samples.shape[-1] != 4:
        return samples
    return (samples[..., :3].astype(np.uint16) * samples[..., 3:] // 255).astype(np.uint8)


def upright(samples: Samples, exif: bytes | None) -> Samples:
    """Turn a picture (height, width, channels) as its EXIF says; broken EXIF says nothing."""
    match _orientation(exif):
        case 2:
            return samples[:, ::-1]
        case 3:
            return samples[::-1, ::-1]
        case 4:
            return samples[::-1]
        case 5:
            return samples.swapaxes(0, 1)
        case 6:
            return samples.swapaxes(0, 1)[:, ::-1]
        case 7:
            return samples.swapaxes(0, 1)[::-1, ::-1]
        case 8:
            return samples.swapaxes(0, 1)[::-1]
    return samples


def _orientation(exif: bytes | None) -> object:
    if not exif:
        return 1
    found = Image.Exif()
    try:
        found.load(exif)
    except Exception:  # Pillow names none of what it raises at broken EXIF
        return 1
    return found.get(_ORIENTATION)


def square(samples: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Scale a picture (height, width, 1 or 3) until its shorter side is ``side``, and cut out the middle square.

    Bilinear and antialiased, as most training pipelines do it.
    """
    if samples.shape[:2] == (side, side):
        return samples
    height, width = (side * length // min(samples.shape[:2]) for length in samples.shape[:2])
    image = Image.fromarray(samples[..., 0] if samples.shape[-1] == 1 else np.ascontiguousarray(samples))
    scaled = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)).reshape(height, width, -1)
    top, left = (height - side) // 2, (width - side) // 2
    return scaled[top : top + side, left : left + side]
