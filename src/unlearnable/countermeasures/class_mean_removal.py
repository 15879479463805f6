"""Class-mean removal: the mean picture of each class is moved onto the mean picture of all.

The simplest thing to do against noise that is the same for all pictures of a class; it needs labels, and nothing
else.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from unlearnable.countermeasures.base import Countermeasure, Published, by_pieces, countermeasures, pieces


@countermeasures.register("class-mean-removal")
@dataclass(frozen=True, kw_only=True)
class ClassMeanRemoval(Countermeasure):
    """Add to every picture the mean of all minus the mean of its class; training pictures alone.

    What leaves the range of grey levels is clipped.
    """

    name: ClassVar[str] = "class-mean-removal"

    def clean(self, published: Published, rng: np.random.Generator) -> NDArray[np.uint8]:
        images, labels = published.images, published.labels
        means, mean = class_means(images, labels, published.classes)
        shift = (mean - means).astype(np.float32)

        def change(some: NDArray[np.uint8], its: NDArray[np.int64]) -> NDArray[Any]:
            return some + shift[its]

        return by_pieces(change, images, labels)


def class_means(
    images: NDArray[np.uint8], labels: NDArray[np.int64], classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each class's mean picture, 0 where it is empty: (classes, height, width, channels); and that of all."""
    sums = np.zeros((classes, *images.shape[1:]))
    for part in pieces(images):
        add_by_class(sums, images[part], labels[part])
    counts = np.maximum(np.bincount(labels, minlength=classes), 1)
    return sums / counts[:, None, None, None], sums.sum(0) / len(images)


def add_by_class(sums: NDArray[np.float64], values: NDArray[Any], labels: NDArray[np.int64]) -> None:
    """Add values, (count, ...), to the sums of their classes, (classes, ...), in place; for any number of classes."""
    order = np.argsort(labels, kind="stable")
    present, starts = np.unique(labels[order], return_index=True)
    for label, its in zip(present, np.split(order, starts[1:]), strict=True):
        sums[label] += values[its].sum(0, dtype=np.float64)
