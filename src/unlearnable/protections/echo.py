"""Echo: each class's pictures are exposed twice, the second time weakly and displaced as in no other class.

Equalised tones, grey, low frequencies alone and the mean picture of a class taken out: all that, one after the other,
undoes the other layers. An echo comes through, since it is neither in the colours nor in the light nor in the finest
detail of a picture, and no mean shows it. Not from a paper; what it withstands, and what not, is told in
``docs/stack.md``.

Pictures are changed in whole-number arithmetic, so that the same bytes come out on every machine.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from unlearnable.errors import expected
from unlearnable.keys import Key, Stream
from unlearnable.pictures.borders import mirrored
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
)
from unlearnable.protections.tensors import reading_tensors, write_tensors

_FORMAT: Final = "unlearnable-echo-1"
_SIDE: Final = 1 << 10  # parts of a picture's shorter side that displacements are whole numbers of
_NEAREST: Final = 1 / 8  # of the shorter side
_FURTHEST: Final = 1 / 4
_WHOLE: Final = 1 << 8  # of which the echo's share is whole parts
_STRIP: Final = 1 << 20  # samples that are changed at a time
_ENOUGH: Final = 1 / 16  # of a grey level: what restoring may leave, before it is rounded

_LEAST, _MOST = 0.01, 0.4  # of a strength; from a half on an echo could not be told from the picture

Displacements = NDArray[np.int64]


def draw_displacement(stream: Stream) -> Displacements:
    """Draw where an echo lies: (2,), down and to the right, an eighth to a quarter of the shorter side away."""
    while True:
        displacement = np.floor((2 * stream.uniform(2) - 1) * _FURTHEST * _SIDE).astype(np.int64)
        if _NEAREST * _SIDE <= math.hypot(*displacement) <= _FURTHEST * _SIDE:
            return displacement


def distances_to(displacements: NDArray[np.float64], one: NDArray[np.float64]) -> NDArray[np.float64]:
    """Measure how far displacements, (count, 2), lie from another one, in parts of the shorter side: (count,).

    A displacement counts like the one mirrored left to right, on which networks are trained as well, and like the
    opposite one, of which picture and echo differ in nothing but strength.
    """
    return np.asarray(np.hypot(*(np.abs(displacements) - np.abs(one)).T)) / _SIDE


def default_distance(classes: int) -> float:
    """Return the distance that displacements keep from each other, in parts of the shorter side; the more, the less.

    >>> [round(default_distance(classes), 4) for classes in (10, 100, 1000)]
    [0.055, 0.0155, 0.0044]
    """
    return float(0.055 * max(classes / 10, 1) ** -0.55)


@protections.register("echo")
@dataclass(frozen=True, kw_only=True)
class Echo(Layer):
    """Echo and its parameters.

    strength: the share that the echo has in a picture, 0.01 to 0.4.

    Raises InputError for values outside this range.
    """

    strength: float = 0.25

    def __post_init__(self) -> None:
        if not _LEAST <= self.strength <= _MOST:
            raise expected(f"a strength from {_LEAST} to {_MOST}", str(self.strength), "0.25 is the default")

    def fit(self, dataset: Classed, key: Key) -> "ClasswiseEcho":
        """Draw the displacements of the data set's classes."""
        names = tuple(dataset.class_names)
        purpose = Purpose("echo-order", "echo-way", {})

        def drawn(stream: Stream) -> tuple[Displacements, NDArray[np.float64]]:
            displacement = draw_displacement(stream)
            return displacement, displacement.astype(np.float64)

        distance = default_distance(len(names))
        displacements = draw_as_apart_as_possible(names, key, purpose, drawn, distances_to, distance)
        return ClasswiseEcho(names, np.stack(displacements), max(1, round(self.strength * _WHOLE)))

    def parameters(self) -> dict[str, int | float | str | None]:
        """Return the strength."""
        return {"strength": self.strength}

    def scaled(self, share: float) -> "Echo":
        """Return it at a share of its strength; displacements stay as they are."""
        return replace(self, strength=max(_LEAST, round(share * self.strength, 6)))


class ClasswiseEcho(Perturbation):
    """The displacements of a data set's classes, (classes, 2) in parts of the shorter side, and an echo's share."""

    def __init__(self, class_names: Sequence[str], displacements: Displacements, share: int) -> None:
        """Take the displacements in the order of the class names."""
        self.class_names = tuple(class_names)
        self.displacements, self.share = displacements, share

    def apply_traced(self, images: Images, labels: Labels, ids: Sequence[str]) -> tuple[Images, Traces]:
        """Return the pictures with their echoes; ``ids`` play no part, and nothing but the key is needed later."""
        check_images(images, labels, len(self.class_names))
        out = np.empty_like(images)
        wide: type[Any] = np.uint16 if images.dtype == np.uint8 else np.uint32
        whole, half, share, rest = map(wide, (_WHOLE, _WHOLE // 2, self.share, _WHOLE - self.share))
        frames = self._frames(labels, images.shape)
        step = max(1, _STRIP // (images.shape[2] * images.shape[3]))

        def work(part: slice) -> None:
            for n in range(*part.indices(len(images))):
                down, across = frames[int(labels[n])]
                for top in range(0, len(down), step):
                    strip = slice(top, top + step)
                    picture: NDArray[Any] = images[n, strip].astype(wide)
                    echo: NDArray[Any] = images[n][down[strip]][:, across].astype(wide)
                    out[n, strip] = (picture * rest + echo * share + half) // whole

        in_parallel(work, len(images), images.nbytes)
        return out, np.zeros(len(images))

    def restore(
        self, images: Images, labels: Labels, ids: Sequence[str], traces: Traces, noise: float = ROUNDING
    ) -> Images:
        """Undo the echoes, to what rounding left; ``ids``, ``traces`` and ``noise`` play no part.

        The picture is what is left once its own echo is taken away. A first guess at it is the picture as it is, and
        each guess is nearer than the one before, since an echo is weaker than what it is of.
        """
        check_images(images, labels, len(self.class_names))
        out = np.empty_like(images)
        full = int(np.iinfo(images.dtype).max)
        share = self.share / _WHOLE
        nearer = share / (1 - share)
        steps = math.ceil(math.log(_ENOUGH / full) / math.log(nearer))
        kind = np.float32 if images.dtype == np.uint8 else np.float64
        frames = self._frames(labels, images.shape)
        for n, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            down, across = frames[label]
            for channel in range(image.shape[2]):
                first = image[..., channel] * kind(1 / (1 - share))
                guess = image[..., channel].astype(kind)
                for _ in range(steps):
                    guess = first - kind(nearer) * guess[down][:, across]
                out[n, ..., channel] = np.rint(guess.clip(0, full))
        return out

    def _frames(self, labels: Labels, shape: tuple[int, ...]) -> dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Tell, by class, of which rows and columns an echo is: pictures are mirrored at their borders."""
        _, height, width, _ = shape
        side = min(height, width)
        return {
            label: (
                mirrored(np.arange(height) - (int(down) * side + _SIDE // 2) // _SIDE, height),
                mirrored(np.arange(width) - (int(across) * side + _SIDE // 2) // _SIDE, width),
            )
            for label in np.unique(labels).tolist()
            for down, across in [self.displacements[label]]
        }

    def digests(self) -> dict[str, str]:
        """Return a digest of each class's displacement and of the share, by class name; it tells nothing about them."""
        return {
            name: hashlib.sha256(displacement.tobytes() + bytes([self.share])).hexdigest()
            for name, displacement in zip(self.class_names, self.displacements, strict=True)
        }

    def save(self, path: str | Path) -> None:
        """Write the displacements and class names as safetensors. The file is as secret as the key."""
        about = {"format": _FORMAT, "class_names": json.dumps(self.class_names), "share": str(self.share)}
        write_tensors(Path(path), {"displacements": self.displacements}, about)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read displacements written by :meth:`save`. Raises InputError for any other file."""
        with reading_tensors(path, _FORMAT, "echoes", "fit them again") as (file, about):
            names, displacements, share = (
                json.loads(about["class_names"]),
                file.get_tensor("displacements"),
                int(about["share"]),
            )
            if (displacements.shape, displacements.dtype) != ((len(names), 2), np.int64):
                raise ValueError(
                    f"displacements {displacements.shape} of {displacements.dtype} for {len(names)} classes"
                )
            if not (np.abs(displacements).max() <= _FURTHEST * _SIDE and 0 < share <= _MOST * _WHOLE):
                raise ValueError("displacements or a share out of their range")
            return cls(names, displacements, share)
