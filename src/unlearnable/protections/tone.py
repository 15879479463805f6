"""Tone: each class has a photographer's look of its own, in colour, contrast and light.

A look raises each colour channel to a power (gamma), mixes the channels a little, and lays a smooth shade over the
picture. It costs next to nothing, keeps all structure, and is a shortcut of another kind than a blur: what warps or
compresses a picture leaves its colours and its light where they are. Not from a paper; what it withstands, and what
not, is told in ``docs/stack.md``.

What is drawn is whole parts of a unit, and pictures are changed in whole numbers, and in floats only where these hold
them exactly. So the same bytes come out on every machine, though machines differ in the last digits of powers.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from unlearnable.errors import expected
from unlearnable.keys import Key, Parameter, Stream
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

_FORMAT: Final = "unlearnable-tone-1"
_GAMMA: Final = 1 << 20  # of which gammas are whole parts, so that no machine's last digits show
_MIX: Final = 1 << 10  # of which the shares of a channel's mix are whole parts
_SHADE: Final = 1 << 12  # the same, of light
_CURVE: Final = 1 << 8  # the same, of a level of a sample that was raised to a power
_IN_DOUBT: Final = 1e-6  # of such a part: far more than powers in floating point are off, even those of 16 bits
_STRIP: Final = 1 << 20  # pixels that are restored at a time
_STEPS: Final = 3  # levels of each channel in the colours by which looks are compared

_LEAST: Final = 0.01  # a strength; what is much below it changes nothing in 8 bits
_MOST_MIX: Final = 0.5  # of a channel that comes from a random mix, at strength 1; with more, a mix may be singular
_MOST_GAMMA: Final = 1.2  # gammas lie between 2 to this power and its inverse, at strength 1
_MOST_SHADE: Final = 0.9  # of the light that the darkest point of the shade may lose, at strength 1
_SHARES: Final = (0.71, 0.12, 0.17)  # of the squared distance of random looks: what shade, mix and gammas are worth


class Look(NamedTuple):
    """What becomes of a class's pictures: first the gamma of each channel, then the mix, then the shade.

    gamma: (3,) float64, powers that a sample on the 0 to 1 scale is raised to; whole parts of 1 / 2**20.
    mix: (3, 3) int64, row by row the shares of a new channel, in parts of 1,024.
    shade: (grid, grid) int64, light at points spread evenly from corner to corner, in parts of 4,096; linear between
        them. Its brightest point is 4,096.
    """

    gamma: NDArray[np.float64]
    mix: NDArray[np.int64]
    shade: NDArray[np.int64]


def draw_look(stream: Stream, tone: "Tone") -> Look:
    """Draw a look: gammas even on a scale of powers of 2, mixes even on the simplex, points of light even."""
    gamma = np.rint(2.0 ** ((2 * stream.uniform(3) - 1) * tone.most_gamma) * _GAMMA) / _GAMMA
    cuts = np.sort(np.floor(stream.uniform(6).reshape(3, 2) * (_MIX + 1)).astype(np.int64), axis=1)
    shares = np.diff(cuts, axis=1, prepend=0, append=_MIX)
    mix = np.floor_divide(round(tone.most_mix * _MIX) * shares, _MIX)
    mix[np.diag_indices(3)] += _MIX - mix.sum(1)  # rows stay whole: white stays white
    grid = tone.grid
    loss = np.floor(stream.uniform(grid * grid) * _MOST_SHADE * tone.strength * _SHADE).astype(np.int64)
    return Look(gamma, mix, (_SHADE - loss + loss.min()).reshape(grid, grid))


def response(look: Look) -> NDArray[np.float64]:
    """Return what a look makes of a few colours under each point of its shade: (grid, grid, colours, 3), 0 to 1."""
    colours = np.array(list(product(np.linspace(0, 1, _STEPS), repeat=3)))
    mixed = colours**look.gamma @ (look.mix / _MIX).T
    return np.asarray((look.shade / _SHADE)[..., None, None] * mixed)


def distances_to(responses: NDArray[np.float64], one: NDArray[np.float64]) -> NDArray[np.float64]:
    """Measure how far looks lie from another one, by their responses: (count,), root mean square, 0 to 1.

    The shade counts as it is or mirrored left to right, whichever is closer: networks are trained on both.
    """
    both = np.stack([responses, responses[:, :, ::-1]])
    return np.asarray(np.sqrt(((both - one) ** 2).mean((2, 3, 4, 5))).min(0))


def default_distance(tone: "Tone", classes: int) -> float:
    """Return the distance that looks keep from each other: 0.16 of the range at strength 1 and up to ten classes.

    Shade, mix and gammas count for what each is worth in how far random looks lie apart. The distance falls slowly with
    the number of classes where looks differ in many ways, and faster where these are few, as those of gammas alone are.

    >>> [round(default_distance(Tone(strength=0.5), classes), 3) for classes in (10, 100, 1000)]
    [0.08, 0.057, 0.04]
    >>> [round(default_distance(Tone(strength=0.01, mix=0, gamma=0.7), classes), 3) for classes in (10, 100, 1000)]
    [0.039, 0.014, 0.005]
    """
    parts = (tone.strength, tone.most_mix / _MOST_MIX, tone.most_gamma / _MOST_GAMMA)
    worth = [share * part**2 for share, part in zip(_SHARES, parts, strict=True)]
    overall = sum(worth)
    values = (tone.grid**2 - 1, 6, 3)  # that are drawn for each; the brightest point of a shade says nothing
    ways = overall**2 / sum(each**2 / count for each, count in zip(worth, values, strict=True))
    return float(0.16 * math.sqrt(overall) * max(classes / 10, 1) ** -max(0.15, 4 / ways**2))


@protections.register("tone")
@dataclass(frozen=True, kw_only=True)
class Tone(Layer):
    """Tone and its parameters.

    strength: 0.01 to 1; of every part of the looks that has none of its own.
    grid: points of the shade along a side, 2 to 8.
    mix: the share of each channel that comes from a random mix of all three, 0 to 0.5; half the strength if not given.
    gamma: gammas lie between 2 to this power and its inverse, 0 to 1.2; 1.2 times the strength if not given.

    Raises InputError for values outside these ranges.
    """

    strength: float = 0.5
    grid: int = 2
    mix: float | None = None
    gamma: float | None = None

    def __post_init__(self) -> None:
        if not _LEAST <= self.strength <= 1:
            raise expected(f"a strength from {_LEAST} to 1", str(self.strength), "0.5 is the default")
        if not 2 <= self.grid <= 8:
            raise expected("a grid of 2 to 8 points a side", str(self.grid), "2 is the default")
        if not 0 <= self.most_mix <= _MOST_MIX:
            raise expected(f"a mix from 0 to {_MOST_MIX}", str(self.mix), "leave it out for half the strength")
        if not 0 <= self.most_gamma <= _MOST_GAMMA:
            raise expected(f"a gamma from 0 to {_MOST_GAMMA}", str(self.gamma), "leave it out for 1.2 x the strength")

    @property
    def most_mix(self) -> float:
        """The share of each channel that comes from a random mix."""
        return _MOST_MIX * self.strength if self.mix is None else self.mix

    @property
    def most_gamma(self) -> float:
        """The power of 2 that gammas reach."""
        return _MOST_GAMMA * self.strength if self.gamma is None else self.gamma

    def fit(self, dataset: Classed, key: Key) -> "ClasswiseTone":
        """Draw the looks of the data set's classes."""
        names = tuple(dataset.class_names)
        purpose = Purpose("tone-order", "tone-look", self._settings())

        def drawn(stream: Stream) -> tuple[Look, NDArray[np.float64]]:
            look = draw_look(stream, self)
            return look, response(look)

        distance = default_distance(self, len(names))
        looks = draw_as_apart_as_possible(names, key, purpose, drawn, distances_to, distance)
        return ClasswiseTone(names, looks)

    def parameters(self) -> dict[str, int | float | str | None]:
        """Return strength, grid, and mix and gamma where they are given."""
        return dict(self._settings())

    def _settings(self) -> dict[str, Parameter]:
        own = {"mix": self.mix, "gamma": self.gamma}
        given = {name: value for name, value in own.items() if value is not None}
        return {"strength": self.strength, "grid": self.grid, **given}

    def scaled(self, share: float) -> "Tone":
        """Return it at a share of its strength, and of what has a strength of its own."""
        mix, gamma = (None if own is None else round(share * own, 6) for own in (self.mix, self.gamma))
        return replace(self, strength=max(_LEAST, round(share * self.strength, 6)), mix=mix, gamma=gamma)


class ClasswiseTone(Perturbation):
    """The looks of a data set's classes.

    Grey pictures take the green channel's gamma and the shade; the black of a CMYK picture is left alone.
    """

    def __init__(self, class_names: Sequence[str], looks: Sequence[Look]) -> None:
        """Take the looks, in the order of the class names."""
        self.class_names = tuple(class_names)
        self.looks = tuple(looks)

    def apply_traced(self, images: Images, labels: Labels, ids: Sequence[str]) -> tuple[Images, Traces]:
        """Return the pictures as their classes look; ``ids`` play no part, and nothing but the key is needed later."""
        from unlearnable.protections._shading import shade, ways

        check_images(images, labels, len(self.class_names))
        out = np.array(images, order="C")
        full = int(np.iinfo(images.dtype).max)
        looks = {label: self._for(label, images.shape[-1]) for label in np.unique(labels).tolist()}
        kind: type[np.signedinteger[Any]] = np.int32 if full == 255 else np.int64
        curves = {label: _curves(tuple(look.gamma.tolist()), full).astype(kind) for label, look in looks.items()}

        def work(part: slice) -> None:
            for label in np.unique(labels[part]).tolist():
                mix, light = looks[label].mix.astype(kind), looks[label].shade
                down, across = (ways(len(light), side) for side in images.shape[1:3])
                shade(out[part], np.flatnonzero(labels[part] == label), curves[label], mix, light, down, across)

        in_parallel(work, len(images), images.nbytes)
        return out, np.zeros(len(images))

    def restore(
        self, images: Images, labels: Labels, ids: Sequence[str], traces: Traces, noise: float = ROUNDING
    ) -> Images:
        """Undo the looks, to what rounding left; ``ids``, ``traces`` and ``noise`` play no part."""
        from unlearnable.protections._shading import spread

        check_images(images, labels, len(self.class_names))
        out = images.copy()
        full = int(np.iinfo(images.dtype).max)
        for n, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            if stored_grey(image):
                image = image[..., :1]
            height, width, channels = image.shape
            gamma, mix, light = self._for(label, channels)
            colours = len(mix)
            unmix = np.linalg.inv(mix / _MIX).T
            black = channels - colours  # of a CMYK picture
            step = max(1, _STRIP // width)  # floats of a large picture take much memory
            for strip in (slice(top, top + step) for top in range(0, height, step)):
                light_at = spread(light, height, width, strip) / _SHADE
                powers = (image[strip, :, :colours] / full / light_at[..., None]) @ unmix
                out[n, strip, :, : out.shape[3] - black] = np.rint(powers.clip(0, 1) ** (1 / gamma) * full)
        return out

    def _for(self, label: int, channels: int) -> Look:
        look = self.looks[label]
        return look if channels >= 3 else Look(look.gamma[1:2], np.full((1, 1), _MIX), look.shade)

    def digests(self) -> dict[str, str]:
        """Return a digest of each class's look, by class name; it tells nothing about it."""
        return {
            name: hashlib.sha256(b"".join(part.tobytes() for part in look)).hexdigest()
            for name, look in zip(self.class_names, self.looks, strict=True)
        }

    def save(self, path: str | Path) -> None:
        """Write the looks and class names as safetensors. The file is as secret as the key."""
        parts = {name: np.stack([getattr(look, name) for look in self.looks]) for name in Look._fields}
        write_tensors(Path(path), parts, {"format": _FORMAT, "class_names": json.dumps(self.class_names)})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read looks written by :meth:`save`. Raises InputError for any other file."""
        with reading_tensors(path, _FORMAT, "looks", "fit them again") as (file, about):
            names, parts = json.loads(about["class_names"]), [file.get_tensor(name) for name in Look._fields]
            gamma, mix, shade = parts
            count, grid = len(names), shade.shape[-1]
            if (gamma.shape, mix.shape, shade.shape) != ((count, 3), (count, 3, 3), (count, grid, grid)) or grid < 2:
                raise ValueError(f"looks of shapes {gamma.shape}, {mix.shape} and {shade.shape} for {count} classes")
            if (gamma.dtype, mix.dtype, shade.dtype) != (np.float64, np.int64, np.int64):
                raise ValueError(f"looks of {gamma.dtype}, {mix.dtype} and {shade.dtype}")
            if not (0 < gamma.min() <= gamma.max() < math.inf and mix.min() >= 0 and (mix.sum(2) == _MIX).all()):
                raise ValueError("gammas or mixes out of their range")
            if not 0 < shade.min() <= shade.max() <= _SHADE:
                raise ValueError("a shade out of its range")
            return cls(names, [Look(*look) for look in zip(*parts, strict=True)])


@lru_cache(8)  # often asked for picture by picture, with the same few looks
def _curves(gamma: tuple[float, ...], full: int) -> NDArray[np.int64]:
    """Raise every sample to each channel's power: (channels, full + 1), in parts of 1 / 256 of a level.

    Where the last digits, in which machines differ, could decide how a power is rounded, it is worked out in decimals.
    """
    exact = np.power(np.arange(full + 1) / full, np.array(gamma)[:, None]) * (_CURVE * full)
    curves: NDArray[np.float64] = np.rint(exact)
    for channel, sample in np.argwhere(np.abs(exact - curves) > 0.5 - _IN_DOUBT).tolist():
        with localcontext(prec=40, rounding=ROUND_HALF_EVEN):
            power = (Decimal(sample) / full) ** Decimal(gamma[channel])
            curves[channel, sample] = int((power * (_CURVE * full)).to_integral_value())
    return curves.astype(np.int64)
