"""Autoregressive noise: each class's noise follows a process of its own, each picture's begins elsewhere.

Sandoval-Segura, Singla, Geiping, Goldblum, Goldstein, Jacobs, "Autoregressive perturbations for data poisoning",
NeurIPS 2022 (arXiv 2206.03693), section 3: every sample is a weighted sum of its neighbours above and to the left, with
weights that the class decides. There a random start is carried on without anything new; here a little is added at every
sample, so that the process neither dies nor grows, and weights need not be searched for.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from unlearnable.compiled import compiled
from unlearnable.errors import expected
from unlearnable.keys import Key, Stream
from unlearnable.protections.apart import Purpose, draw_as_apart_as_possible
from unlearnable.protections.base import Classed, Layer, protections
from unlearnable.protections.noise import Noise, Pattern
from unlearnable.protections.tensors import reading_tensors, write_tensors

_FORMAT: Final = "unlearnable-autoregressive-1"
_NEIGHBOURS: Final = 8  # of a sample in a window of 3 x 3 that ends with it
_FADES: Final = 16  # samples on each side until a process has forgotten where it began
_MEMORY: Final = 0.95  # the sum of a process's weights, in absolute value; below 1, so that it cannot grow
_LOUDNESS: Final = 0.6  # root mean square of the noise, in parts of the radius


def draw_weights(stream: Stream) -> NDArray[np.float64]:
    """Draw a process for each channel: (3, 8), the weights of the neighbours row by row, the last one to the left."""
    weights = 2 * stream.uniform(3 * _NEIGHBOURS).reshape(3, _NEIGHBOURS) - 1
    return np.asarray(weights * (_MEMORY / np.abs(weights).sum(1, keepdims=True)))


def distances_to(processes: NDArray[np.float64], one: NDArray[np.float64]) -> NDArray[np.float64]:
    """Measure how far processes, (count, 3, 8), lie from another one: (count,), root of the summed squares."""
    return np.asarray(np.sqrt(((processes - one) ** 2).sum((1, 2))))


def default_distance(classes: int) -> float:
    """Return the distance that processes keep from each other: 0.7 for up to ten classes, slowly less for more.

    >>> [round(default_distance(classes), 3) for classes in (10, 100, 1000)]
    [0.7, 0.496, 0.351]
    """
    return float(0.7 * max(classes / 10, 1) ** -0.15)


def _run(field: NDArray[np.float64], weights: NDArray[np.float64]) -> None:
    """Let processes run over a field of new values, (height, width, channels), in place, from its third row and column.

    Compiled without reordering, so that every machine gets the same sums.
    """
    height, width, channels = field.shape
    for i in range(2, height):
        for j in range(2, width):
            for c in range(channels):
                total = field[i, j, c]
                for n in range(8):
                    total += weights[c, n] * field[i - 2 + n // 3, j - 2 + n % 3, c]
                field[i, j, c] = total


run = compiled(_run)


def draw_field(stream: Stream, weights: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Draw a field of processes, (side, side, channels), driven by values even between -1 and 1."""
    whole = side + _FADES
    field = 2 * stream.uniform(whole * whole * len(weights)).reshape(whole, whole, len(weights)) - 1
    run(field, weights)
    return field[_FADES:, _FADES:]


@protections.register("autoregressive")
@dataclass(frozen=True, kw_only=True)
class Autoregressive(Layer):
    """Autoregressive noise and its parameters.

    radius: in grey levels of 255, 1 to 64: the most that a sample changes by. The root mean square is about 0.6 of it.
    size: pixels of the square that the noise is made on, 8 to 512, and from there brought to a picture's size: that of
        the pictures that networks will be trained on.

    Raises InputError for values outside these ranges.
    """

    radius: float = 8
    size: int = 32

    def __post_init__(self) -> None:
        if not (1 <= self.radius <= 64 and self.radius == int(self.radius)):
            raise expected("a radius of 1 to 64 whole grey levels", str(self.radius), "8 is the default")
        if not 8 <= self.size <= 512:
            raise expected("a size of 8 to 512 pixels", str(self.size), "32 is the default")

    def fit(self, dataset: Classed, key: Key) -> "AutoregressiveNoise":
        """Draw the processes of the data set's classes."""
        names = tuple(dataset.class_names)
        purpose = Purpose("autoregressive-order", "autoregressive-weights", {})

        def drawn(stream: Stream) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            weights = draw_weights(stream)
            return weights, weights

        distance = default_distance(len(names))
        found = draw_as_apart_as_possible(names, key, purpose, drawn, distances_to, distance)
        weights = np.stack(found)
        loudness = [
            np.sqrt((draw_field(key.stream("autoregressive-loudness"), w, 128) ** 2).mean((0, 1))) for w in found
        ]
        gains = np.round(_LOUDNESS * self.radius / np.stack(loudness), 3)
        starts = Key(key.derive("autoregressive-starts"))
        return AutoregressiveNoise(names, weights, gains, starts, radius=int(self.radius), size=self.size)

    def parameters(self) -> dict[str, int | float | str | None]:
        """Return radius and size."""
        return {"radius": self.radius, "size": self.size}

    def scaled(self, share: float) -> "Autoregressive":
        """Return it at a share of its radius, in whole grey levels, one at least."""
        return replace(self, radius=max(1, round(share * self.radius)))


class AutoregressiveNoise(Noise):
    """The processes of a data set's classes, and what starts one for a picture: its id, and a key of its own.

    weights: (classes, 3, 8); gains: (classes, 3), grey levels for each unit of a process.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        weights: NDArray[np.float64],
        gains: NDArray[np.float64],
        starts: Key,
        *,
        radius: int,
        size: int,
    ) -> None:
        """Take the processes, in the order of the class names."""
        blank = np.zeros((len(class_names), 1, 1, 3), np.int8)  # no pattern is kept: each is made when it is asked for
        super().__init__(class_names, (), blank[:0], blank, radius=radius, method="Autoregressive")
        self.weights, self.gains, self.starts, self.size = weights, gains, starts, size

    def _has_own(self, id_: str) -> bool:
        """Every picture does: its id starts the process."""
        return True

    def pattern(self, label: int, id_: str) -> Pattern:
        """Return the pattern of one picture, whatever the number of its class."""
        field = draw_field(self.starts.stream("start", id_), self.weights[label], self.size) * self.gains[label]
        return np.asarray(np.rint(field).clip(-self.radius, self.radius), np.int8)

    def digests(self) -> dict[str, str]:
        """Return a digest of each class's processes, by class name; it tells nothing about them."""
        about = f"{self.radius} {self.size} {self.starts.check_value}".encode()
        return {
            name: hashlib.sha256(about + self.weights[label].tobytes()).hexdigest()
            for label, name in enumerate(self.class_names)
        }

    def save(self, path: str | Path) -> None:
        """Write the processes, their key and the class names as safetensors. The file is as secret as the key."""
        secret = np.frombuffer(self.starts.secret, np.uint8)
        about = {"format": _FORMAT, "class_names": json.dumps(self.class_names)}
        about |= {"radius": str(self.radius), "size": str(self.size)}
        write_tensors(Path(path), {"weights": self.weights, "gains": self.gains, "starts": secret}, about)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read processes written by :meth:`save`. Raises InputError for any other file."""
        with reading_tensors(path, _FORMAT, "processes", "fit them again") as (file, about):
            weights, gains = file.get_tensor("weights"), file.get_tensor("gains")
            starts = Key(file.get_tensor("starts").tobytes())
            names, radius, size = json.loads(about["class_names"]), int(about["radius"]), int(about["size"])
            if (weights.shape, gains.shape) != ((len(names), 3, _NEIGHBOURS), (len(names), 3)):
                raise ValueError(f"processes of shapes {weights.shape} and {gains.shape} for {len(names)} classes")
            if (weights.dtype, gains.dtype) != (np.float64, np.float64):
                raise ValueError(f"processes of {weights.dtype} and {gains.dtype}")
            if not (np.abs(weights).sum(2).max() < 1 and 0 <= gains.min() <= gains.max() < math.inf):
                raise ValueError("processes that would grow without end")
            Autoregressive(radius=radius, size=size)
            return cls(names, weights, gains, starts, radius=radius, size=size)
