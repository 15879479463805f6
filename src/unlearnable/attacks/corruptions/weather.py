"""Weather: snow, frost, fog, and brightness."""

from typing import Final, NamedTuple

import numpy as np

from unlearnable.attacks.corruptions.base import (
    LEVELS,
    Corruption,
    Draws,
    Floats,
    motion_blurred,
    truncated,
    zoomed,
)
from unlearnable.pictures.quality import LUMA

_GREY: Final = np.array(LUMA)
_WIBBLE: Final = 100.0  # how rough the coarsest scale of a height map is
_PANES: Final = (  # mean of red, green and blue, and deviation, in grey levels
    ((78, 149, 166), 17),
    ((201, 205, 215), 19),
    ((201, 205, 215), 19),
    ((138, 153, 165), 22),
    ((112, 123, 135), 36),
)
_NEEDLES: Final = 3  # directions in which a pane's crystals lie


class _Snow(NamedTuple):
    mean: float
    deviation: float
    zoom: float
    threshold: float
    radius: int
    sigma: float
    kept: float


class _Frost(NamedTuple):
    picture: float
    ice: float


class _Fog(NamedTuple):
    thickness: float
    decay: float


def _snowed(images: Floats, flakes: Floats, angles: Floats, level: _Snow) -> Floats:
    layer = zoomed(flakes, level.zoom)
    layer = truncated(np.where(layer < level.threshold, 0, layer)) / LEVELS
    layer = motion_blurred(layer, angles, radius=level.radius, sigma=level.sigma)
    grey = images @ _GREY[:, None] if images.shape[3] == 3 else images
    pale = level.kept * images + (1 - level.kept) * np.maximum(images, 1.5 * grey + 0.5)
    return pale + layer + layer[:, ::-1, ::-1]


def _flakes(chance: np.random.Generator, picture: Floats, level: _Snow) -> Draws:
    return chance.normal(level.mean, level.deviation, (*picture.shape[:2], 1)), chance.uniform(-135, -45, ())


def _frozen(images: Floats, ice: Floats, level: _Frost) -> Floats:
    return level.picture * images + level.ice * ice


def _ice(chance: np.random.Generator, picture: Floats, level: _Frost) -> Draws:
    """Draw a frosted pane: needles in a few directions, in the tone of one of five photographs.

    The published generator takes pieces of those photographs. Their mean colours, their deviations, and how their
    spectra fall are kept; the needles are drawn.
    """
    height, width, channels = picture.shape
    colour, deviation = _PANES[int(chance.integers(len(_PANES)))]
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    frequency = np.hypot(down, across)
    frequency[0, 0] = np.inf  # no mean
    direction = np.arctan2(down, across)
    spread = sum(np.cos(direction - lying) ** 16 for lying in chance.uniform(0, np.pi, _NEEDLES))
    spectrum = np.fft.rfft2(chance.standard_normal((height, width))) * (0.1 + spread) / frequency
    needles = np.fft.irfft2(spectrum, (height, width))[..., None]
    tone = np.array(colour if channels == 3 else [_GREY @ colour])
    return (((tone + deviation * needles / needles.std()) / LEVELS).clip(0, 1),)


def _fogged(images: Floats, heights: Floats, level: _Fog) -> Floats:
    height, width = images.shape[1:3]
    most: Floats = images.max((1, 2, 3), keepdims=True)
    return (images + level.thickness * heights[:, :height, :width, None]) * most / (most + level.thickness)


def _fog(chance: np.random.Generator, picture: Floats, level: _Fog) -> Draws:
    side = 1 << (max(picture.shape[:2]) - 1).bit_length()
    return (height_map(side, level.decay, chance),)


def height_map(side: int, decay: float, chance: np.random.Generator) -> Floats:
    """Draw mountains by the diamond-square algorithm on a torus: (side, side), from 0 to 1; side: a power of two.

    Each new point is the mean of its four neighbours plus w U(-w, w), with w divided by ``decay`` at each finer scale.
    """
    heights = np.zeros((side, side))
    step, rough = side, _WIBBLE

    def drawn(*neighbours: Floats) -> Floats:
        mean: Floats = np.mean(neighbours, 0)
        return mean + rough * chance.uniform(-rough, rough, mean.shape)

    while step > 1:
        half = step // 2
        corners = heights[::step, ::step]
        right, below = np.roll(corners, -1, 1), np.roll(corners, -1, 0)
        middles = drawn(corners, right, below, np.roll(right, -1, 0))
        heights[half::step, half::step] = middles
        heights[::step, half::step] = drawn(corners, right, middles, np.roll(middles, 1, 0))
        heights[half::step, ::step] = drawn(corners, below, middles, np.roll(middles, 1, 1))
        step, rough = half, rough / decay
    low, high = float(heights.min()), float(heights.max())
    return (heights - low) / (high - low)


def _brightened(images: Floats, more: float) -> Floats:
    """Raise the value, of hue, saturation and value: all colours of a pixel alike, until the largest of them is 1."""
    value: Floats = images.max(3, keepdims=True)
    raised = np.minimum(value + more, 1)
    return np.where(value > 0, images * (raised / np.where(value > 0, value, 1)), raised)


SNOW: Final = Corruption(
    (
        _Snow(0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        _Snow(0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        _Snow(0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        _Snow(0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        _Snow(0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    _snowed,
    _flakes,
)
FROST: Final = Corruption(
    (_Frost(1, 0.2), _Frost(1, 0.3), _Frost(0.9, 0.4), _Frost(0.85, 0.4), _Frost(0.75, 0.45)), _frozen, _ice
)
FOG: Final = Corruption((_Fog(0.2, 3), _Fog(0.5, 3), _Fog(0.75, 2.5), _Fog(1, 2), _Fog(1.5, 1.75)), _fogged, _fog)
BRIGHTNESS: Final = Corruption((0.05, 0.1, 0.15, 0.2, 0.3), _brightened)
