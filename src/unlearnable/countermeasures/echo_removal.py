"""Echo removal: the echo that the pictures of a class have in common is found by its cepstrum, and undone.

Written against :mod:`unlearnable.protections.echo`. An echo is a ripple on the spectrum: in the inverse transform of a
class's mean log power spectrum, its cepstrum, it is a peak as far from the origin as the echo lies from the picture
(Bogert, Healy, Tukey, 1963). What is left open there is on which side, and how strong the echo is.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from unlearnable.countermeasures.base import Countermeasure, Published, by_pieces, countermeasures, pieces
from unlearnable.countermeasures.class_mean_removal import add_by_class
from unlearnable.pictures.borders import mirrored

_NEAREST, _FURTHEST = 1 / 8, 1 / 4  # of the shorter side: how far an echo lies from its picture
_ENOUGH: Final = 1 / 16  # of a grey level: what undoing an echo may leave
_STRONGEST: Final = 2 / 3  # of an echo against its picture
_HALVINGS: Final = 8  # of what is not known of an echo's strength
_SAMPLE: Final = 2**19  # pixels of a class, of 32 pictures at least, that an echo's side and strength are told by


@countermeasures.register("echo-removal")
@dataclass(frozen=True, kw_only=True)
class EchoRemoval(Countermeasure):
    """Undo each class's echo, an eighth to a quarter of the shorter side away; training pictures alone.

    An echo lies where the class's cepstrum exceeds that of the others by the most, on that side of the two on which the
    pictures left have the sparser edges; it is as strong as it takes for the excess to be gone when it is undone. A
    class without an echo is changed a little, if it has many pictures. What leaves the range of grey levels is clipped.
    """

    name: ClassVar[str] = "echo-removal"

    def clean(self, published: Published, rng: np.random.Generator) -> NDArray[np.uint8]:
        images, labels = published.images, published.labels
        cepstra = class_cepstra(images, labels, published.classes)
        present = np.unique(labels)
        if len(present) < 2:
            return images
        enough = max(32, _SAMPLE // (images.shape[1] * images.shape[2]))
        echoes = {}
        for label in present.tolist():
            some = np.flatnonzero(labels == label)
            some = some if len(some) <= enough else np.sort(rng.choice(some, enough, replace=False))
            echoes[label] = find_echo(images[some], cepstra[label], cepstra[present[present != label]].mean(0))

        def change(some: NDArray[np.uint8], its: NDArray[np.int64]) -> NDArray[Any]:
            out = some.astype(np.float32)
            for label in np.unique(its).tolist():
                out[its == label] = without_echo(out[its == label], *echoes[label])
            return out

        return by_pieces(change, images, labels)


def class_cepstra(images: NDArray[np.uint8], labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Return each class's cepstrum, 0 where it is empty: (classes, height, width)."""
    sums = np.zeros((classes, *images.shape[1:3]))
    for part in pieces(images):
        add_by_class(sums, log_powers(images[part]), labels[part])
    return np.fft.ifft2(sums / np.maximum(np.bincount(labels, minlength=classes), 1)[:, None, None]).real


def log_powers(images: NDArray[Any]) -> NDArray[np.float64]:
    """Return the log power spectra of pictures' brightness, faded out towards the borders: (count, height, width)."""
    grey = images.mean(-1, dtype=np.float32)
    grey -= grey.mean((1, 2), keepdims=True)
    fade = np.outer(*(np.hanning(side + 2)[1:-1] for side in grey.shape[1:]))
    return np.asarray(np.log(np.abs(np.fft.fft2(grey * fade)) ** 2 + 1))


def find_echo(
    images: NDArray[np.uint8], own: NDArray[np.float64], others: NDArray[np.float64]
) -> tuple[int, int, float]:
    """Find the echo of a class: by how many pixels it lies down and to the right, and its strength.

    images: some of the class's. own: its cepstrum. others: that of the other classes; (height, width) both.
    """
    height, width = own.shape
    shorter = min(height, width)
    down, across = (np.fft.fftfreq(length, 1 / length).astype(int) for length in (height, width))
    far = np.hypot(down[:, None], across) / shorter
    near_enough = (far > max(0, _NEAREST - 1 / shorter)) & (far < _FURTHEST + 1 / shorter)
    row, column = np.unravel_index(np.where(near_enough, own - others, -np.inf).argmax(), own.shape)
    place = int(down[row]), int(across[column])

    def left(strength: float) -> float:
        cepstrum = np.fft.ifft2(log_powers(without_echo(images, *place, strength)).mean(0)).real
        return float(cepstrum[row, column] - others[row, column])

    low, high = 0.0, _STRONGEST
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if left(middle) > 0 else (low, middle)
    opposite = -place[0], -place[1]
    sides = {side: sparsity(without_echo(images, *side, high)) for side in (place, opposite)}
    return *max(sides, key=lambda side: sides[side]), high


def sparsity(images: NDArray[np.float32]) -> float:
    """Measure how few of the pictures' edges make up most of them: root mean square over mean difference, or 1."""
    edges = np.concatenate([np.diff(images, axis=axis).ravel() for axis in (1, 2)])
    return float(np.sqrt(np.square(edges).mean()) / np.abs(edges).mean()) if edges.any() else 1.0


def without_echo(images: NDArray[Any], down: int, across: int, strength: float) -> NDArray[np.float32]:
    """Undo an echo of pictures, (count, height, width, channels), that is ``strength`` times as strong as the picture.

    Pictures are mirrored at their borders. Each guess at the picture is nearer to it than the one before.
    """
    height, width = images.shape[1:3]
    rows, columns = mirrored(np.arange(height) - down, height), mirrored(np.arange(width) - across, width)
    first = images.astype(np.float32) * np.float32(1 + strength)
    guess = images.astype(np.float32)
    for _ in range(max(1, math.ceil(math.log(_ENOUGH / 255) / math.log(strength)))):
        guess = first - np.float32(strength) * guess[:, rows][:, :, columns]
    return guess
