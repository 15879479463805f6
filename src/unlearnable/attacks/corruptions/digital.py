"""What happens to files and in lenses: contrast, elastic distortion, large pixels, JPEG."""

from collections.abc import Callable
from io import BytesIO
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from unlearnable.attacks.corruptions.base import LEVELS, Corruption, Draws, Floats, truncated
from unlearnable.pictures.borders import folded, mirrored


class _Elastic(NamedTuple):
    """All in sides of the picture: how far pixels move, over what distance alike, and how far the anchors move."""

    strength: float
    smoothness: float
    shift: float


def _flattened(images: Floats, contrast: float) -> Floats:
    mean: Floats = images.mean((1, 2), keepdims=True)
    return (images - mean) * contrast + mean


def _stretched(images: Floats, shifts: Floats, fields: Floats, level: _Elastic) -> Floats:
    """Map three anchors to where they are shifted, affinely, and then move every pixel by the fields."""
    _, height, width, _ = images.shape
    side = min(height, width)
    middle = np.array([width // 2, height // 2], float)
    anchors = middle + side // 3 * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = np.concatenate([anchors + shifts, np.ones((len(images), 3, 1))], 2)
    back = np.linalg.solve(moved, np.broadcast_to(anchors, shifts.shape))[..., None, None]  # (count, 3, 2, 1, 1)
    row, column = np.mgrid[:height, :width].astype(float)
    columns, rows = (back[:, 0, axis] * column + back[:, 1, axis] * row + back[:, 2, axis] for axis in (0, 1))
    turned = sampled(images, rows, columns, mirrored)
    sigma = side * level.smoothness
    smooth = ndimage.gaussian_filter(fields, (0, 0, sigma, sigma), mode="reflect", truncate=3)
    across, down = np.moveaxis(side * level.strength * smooth, 1, 0)
    return sampled(turned, row + down, column + across, folded)


def _distortions(chance: np.random.Generator, picture: Floats, level: _Elastic) -> Draws:
    height, width, _ = picture.shape
    shift = min(height, width) * level.shift
    return chance.uniform(-shift, shift, (3, 2)), chance.uniform(-1, 1, (2, height, width))


Border = Callable[[NDArray[np.int64], int], NDArray[np.int64]]
"""Brings places outside of 0 to size - 1 inside."""


def sampled(images: Floats, rows: Floats, columns: Floats, border: Border) -> Floats:
    """Look pictures up at places between pixels, (count, height, width) each, linearly."""
    _, height, width, _ = images.shape
    picture = np.arange(len(images))[:, None, None]
    top, left = np.floor(rows), np.floor(columns)
    found = np.zeros_like(images)
    for down in (0, 1):
        for across in (0, 1):
            weight = np.abs(1 - down - (rows - top)) * np.abs(1 - across - (columns - left))
            row = border(top.astype(np.int64) + down, height)
            column = border(left.astype(np.int64) + across, width)
            found += weight[..., None] * images[picture, row, column]
    return found


def _pixelated(images: Floats, scale: float) -> Floats:
    def coarse(picture: Image.Image) -> Image.Image:
        small = (max(1, int(picture.width * scale)), max(1, int(picture.height * scale)))
        return picture.resize(small, Image.Resampling.BOX).resize(picture.size, Image.Resampling.BOX)

    return _each(images, coarse)


def _compressed(images: Floats, quality: int) -> Floats:
    def read_back(picture: Image.Image) -> Image.Image:
        file = BytesIO()
        picture.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return _each(images, read_back)


def _each(images: Floats, change: Callable[[Image.Image], Image.Image]) -> Floats:
    """Do to each picture what Pillow does."""
    pictures = truncated(images)
    shown = [Image.fromarray(one[..., 0] if one.shape[-1] == 1 else one) for one in pictures]
    return np.stack([np.asarray(change(picture)) for picture in shown]).reshape(images.shape) / LEVELS


CONTRAST: Final = Corruption((0.75, 0.5, 0.4, 0.3, 0.15), _flattened)
ELASTIC: Final = Corruption(
    (
        _Elastic(0, 0, 0.08),
        _Elastic(0.05, 0.2, 0.07),
        _Elastic(0.08, 0.06, 0.06),
        _Elastic(0.1, 0.04, 0.05),
        _Elastic(0.1, 0.03, 0.03),
    ),
    _stretched,
    _distortions,
)
PIXELATE: Final = Corruption((0.95, 0.9, 0.85, 0.75, 0.65), _pixelated)
JPEG: Final = Corruption((80, 65, 58, 50, 40), _compressed)
