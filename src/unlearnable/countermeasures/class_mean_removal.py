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
    sums = np.zeros((classes, images[0].size))
    for part in pieces(images):
        some = labels[part]
        sums += np.eye(classes)[:, some] @ images[part].reshape(len(some), -1)
    counts = np.maximum(np.bincount(labels, minlength=classes), 1)
    shape = images.shape[1:]
    return (sums / counts[:, None]).reshape(classes, *shape), (sums.sum(0) / len(images)).reshape(shape)
