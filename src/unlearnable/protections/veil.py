"""Veil: the middle tones of each class's pictures are lit by a smooth light of the class's own.

What photographers call dodging and burning: a picture becomes brighter here and darker there, black stays black and
white stays white. It changes so slowly over the picture that structure stays as it is, by which people and SSIM judge.
So it may be many times louder than noise, and than what adversarial training can look past. A shade
(:mod:`unlearnable.protections.tone`) shows in what a class's brightest pictures reach at each pixel, and light that is
simply added in the darkest as well, so both can be taken off by that; a veil leaves these ends alone. Not from a paper;
what it withstands, and what not, is told in ``docs/stack.md``.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from unlearnable.errors import expected
from unlearnable.keys import Key, Stream
from unlearnable.protections.apart import Purpose, draw_as_apart_as_possible
from unlearnable.protections.base import (
    ROUNDING,
    Classed,
    Images,
    Labels,
    Layer,
    Perturbation,
    Traces,
    check_images,
    in_parallel,
    protections,
    stored_grey,
)
from unlearnable.protections.tensors import reading_tensors, write_tensors

_FORMAT: Final = "unlearnable-veil-1"
_UNIT: Final = 1 << 10  # of which light is whole parts
_COMMON: Final = 7  # tenths of it that are the same in each channel, which grey pictures keep
_LIFT: Final = 1 << 12  # of which the share of the light that a sample takes is whole parts
_LEAST: Final = 4
_MOST: Final = 60  # with 64 and more, what is brighter may become darker than what is not
_STRIP: Final = 1 << 20  # samples that are restored at a time


def draw_points(stream: Stream, grid: int) -> NDArray[np.int64]:
    """Draw the light at points spread evenly from corner to corner: (grid, grid, 3), -10,240 to 10,240.

    The right half mirrors the left. The mean picture of a natural class is nearly its own mirror image, so that what
    is not would give a veil away; and networks that are trained on mirrored pictures find it where it was.
    """
    left, right = (grid + 1) // 2, grid // 2
    light = np.floor(stream.uniform(grid * left * 4) * (2 * _UNIT + 1)).astype(np.int64) - _UNIT
    common, own = np.split(light.reshape(grid, left, 4), [1], axis=2)
    points = _COMMON * common + (10 - _COMMON) * own
    return np.concatenate([points, points[:, right - 1 :: -1]], axis=1)


def brightness(points: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean of the channels' light, -1 to 1: what is left of a veil in grey."""
    return np.asarray(points.mean(-1) / (10 * _UNIT))


def distances_to(lights: NDArray[np.float64], one: NDArray[np.float64]) -> NDArray[np.float64]:
    """Measure how far the brightness of veils, (count, grid, grid), is from another's: (count,), root mean square."""
    return np.asarray(np.sqrt(((lights - one) ** 2).mean((1, 2))))


def default_distance(grid: int, classes: int) -> float:
    """Return how far veils keep from each other, of the radius: less with few points, and with more than ten classes.

    >>> [round(default_distance(4, classes), 3) for classes in (10, 100, 1000)]
    [0.6, 0.379, 0.239]
    >>> [round(default_distance(3, classes), 3) for classes in (10, 100, 1000)]
    [0.5, 0.281, 0.158]
    """
    most, exponent = (0.5, -0.25) if grid == 3 else (0.6, -0.2)
    return float(most * max(classes / 10, 1) ** exponent)


@protections.register("veil")
@dataclass(frozen=True, kw_only=True)
class Veil(Layer):
    """Veils and their parameters.

    radius: in grey levels of 255, 4 to 60: by how much a sample of the middle changes at most, up or down; one that is
        x of the way from black to white changes by 4 x (1 - x) of that.
    grid: points of light along a side, 3 to 8.

    Raises InputError for other values.
    """

    radius: float = 40
    grid: int = 4

    def __post_init__(self) -> None:
        if not (_LEAST <= self.radius <= _MOST and self.radius == int(self.radius)):
            raise expected(f"a radius of {_LEAST} to {_MOST} whole grey levels", str(self.radius), "40 is the default")
        if not (3 <= self.grid <= 8 and self.grid == int(self.grid)):
            raise expected("a grid of 3 to 8 points a side", str(self.grid), "4 is the default")

    def fit(self, dataset: Classed, key: Key) -> "ClasswiseVeil":
        """Draw the veils of the data set's classes."""
        names = tuple(dataset.class_names)
        purpose = Purpose("veil-order", "veil", {"grid": self.grid})

        def drawn(stream: Stream) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
            points = draw_points(stream, self.grid)
            return points, brightness(points)

        distance = default_distance(self.grid, len(names))
        found = draw_as_apart_as_possible(names, key, purpose, drawn, distances_to, distance)
        return ClasswiseVeil(names, np.stack(found) * int(self.radius) // 10)

    def parameters(self) -> dict[str, int | float | str | None]:
        """Return radius and grid."""
        return {"radius": self.radius, "grid": self.grid}

    def scaled(self, share: float) -> "Veil":
        """Return it at a share of its radius, in whole grey levels, four at least."""
        return replace(self, radius=max(_LEAST, round(share * self.radius)))


class ClasswiseVeil(Perturbation):
    """The veils of a data set's classes.

    Grey pictures take the mean of the channels' light; the black of a CMYK picture is left alone.
    """

    def __init__(self, class_names: Sequence[str], points: NDArray[np.int64]) -> None:
        """Take the light: (classes, grid, grid, 3), in parts of 1,024 of a grey level of 255, for middle grey."""
        self.class_names = tuple(class_names)
        self.points = points

    def apply_traced(self, images: Images, labels: Labels, ids: Sequence[str]) -> tuple[Images, Traces]:
        """Return the pictures under their veils; ``ids`` play no part, and nothing but the key is needed later."""
        from unlearnable.protections._shading import lift, ways

        check_images(images, labels, len(self.class_names))
        out = np.array(images, order="C")
        table = _lifts(int(np.iinfo(images.dtype).max))

        def work(part: slice) -> None:
            for label in np.unique(labels[part]).tolist():
                points = np.ascontiguousarray(np.moveaxis(self._for(label, images.shape[-1]), -1, 0))
                down, across = (ways(points.shape[1], side) for side in images.shape[1:3])
                lift(out[part], np.flatnonzero(labels[part] == label), table, points, down, across)

        in_parallel(work, len(images), images.nbytes)
        return out, np.zeros(len(images))

    def restore(
        self, images: Images, labels: Labels, ids: Sequence[str], traces: Traces, noise: float = ROUNDING
    ) -> Images:
        """Undo the veils, to what rounding left; ``ids``, ``traces`` and ``noise`` play no part."""
        from unlearnable.protections._shading import spread

        check_images(images, labels, len(self.class_names))
        out = images.copy()
        full = int(np.iinfo(images.dtype).max)
        for n, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            if stored_grey(image):
                image = image[..., :1]
            height, width, channels = image.shape
            points = np.moveaxis(self._for(label, channels), -1, 0)
            step = max(1, _STRIP // (width * channels))  # floats of a large picture take much memory
            for strip in (slice(top, top + step) for top in range(0, height, step)):
                spread_out = [spread(of_channel, height, width, strip) for of_channel in points]
                light = 4 * np.stack(spread_out, -1) / (255 * _UNIT)
                lit = image[strip, :, : len(points)] / full  # which is x + light x (1 - x)
                before = 2 * lit / (1 + light + np.sqrt((1 + light) ** 2 - 4 * light * lit))
                out[n, strip, :, :3] = np.rint(before * full)
        return out

    def _for(self, label: int, channels: int) -> NDArray[np.int64]:
        points = self.points[label]
        return points if channels >= 3 else np.asarray(points.sum(-1, keepdims=True) // 3)

    def digests(self) -> dict[str, str]:
        """Return a digest of each class's veil, by class name; it tells nothing about it."""
        return {
            name: hashlib.sha256(points.tobytes()).hexdigest()
            for name, points in zip(self.class_names, self.points, strict=True)
        }

    def save(self, path: str | Path) -> None:
        """Write the veils and class names as safetensors. The file is as secret as the key."""
        about = {"format": _FORMAT, "class_names": json.dumps(self.class_names)}
        write_tensors(Path(path), {"points": self.points}, about)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read veils written by :meth:`save`. Raises InputError for any other file."""
        with reading_tensors(path, _FORMAT, "veils", "fit them again") as (file, about):
            names, points = json.loads(about["class_names"]), file.get_tensor("points")
            sides = points.shape[1:3]
            if points.shape != (len(names), *sides, 3) or sides[0] != sides[1] or not 3 <= sides[0] <= 8:
                raise ValueError(f"points of shape {points.shape} for {len(names)} classes")
            if points.dtype != np.int64 or np.abs(points).max(initial=0) > _MOST * _UNIT:
                raise ValueError(f"{points.dtype} points beyond {_MOST} grey levels, or of another kind than int64")
            return cls(names, points)


def _lifts(full: int) -> NDArray[np.signedinteger[Any]]:
    """Tabulate by how much light of 1 changes each sample (see ``_shading.lift``): 4 x (1 - x), x from 0 to 1.

    (full + 1,). Rounded once, so that what is brighter stays brighter, and nothing leaves the range.
    """
    sample = np.arange(full + 1, dtype=np.int64)
    lifts = (4 * _LIFT * (full // 255) * sample * (full - sample) + full**2 // 2) // full**2
    return lifts.astype(np.int32 if full == 255 else np.int64)
