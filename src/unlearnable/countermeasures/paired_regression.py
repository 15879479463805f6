"""Paired regression: with a few clean originals that have leaked, each class's filter is undone by least squares.

The limitation that the CUDA paper itself admits (Sadasivan et al., CVPR 2023, arXiv 2303.04278). How much it brings
back, by the number of pairs, measures what a leak costs the owner.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from unlearnable.countermeasures.base import Countermeasure, Published, by_pieces, countermeasures
from unlearnable.countermeasures.batched import filter_each
from unlearnable.errors import expected


@countermeasures.register("paired-regression")
@dataclass(frozen=True, kw_only=True)
class PairedRegression(Countermeasure):
    """Restore the pictures of each class of which a pair has leaked; those of other classes stay as they are.

    size: side k of the restoring filters, odd; k² weights a class, the same for all channels.
    """

    name: ClassVar[str] = "paired-regression"
    main: ClassVar[str | None] = "size"
    size: int = 9

    def __post_init__(self) -> None:
        if self.size < 1 or self.size % 2 == 0:
            raise expected("an odd filter size", str(self.size), "choose 9")

    def clean(self, published: Published, rng: np.random.Generator) -> NDArray[np.uint8]:
        leak = published.leaked
        if leak is None or not len(leak.index):
            raise expected("clean originals that have leaked", "none", "give some, or leave paired-regression out")
        if min(published.images.shape[1:3]) < self.size:
            found = "x".join(map(str, published.images.shape[1:3]))
            raise expected(f"pictures of at least {self.size}x{self.size} pixels", found, "choose a smaller size")
        filters = np.zeros((published.classes, self.size, self.size), np.float32)
        filters[:, self.size // 2, self.size // 2] = 1
        pictures, labels = published.images[leak.index], published.labels[leak.index]
        for label in np.unique(labels):
            chosen = labels == label
            filters[label] = restoring_filter(pictures[chosen], leak.images[chosen], self.size)

        def change(some: NDArray[np.uint8], its: NDArray[np.int64]) -> NDArray[Any]:
            batch = torch.from_numpy(some.astype(np.float32)).permute(0, 3, 1, 2)
            kernels = torch.from_numpy(filters[its])
            return filter_each(batch, kernels).permute(0, 2, 3, 1).numpy()

        return by_pieces(change, published.images, published.labels)


def restoring_filter(protected: NDArray[np.uint8], clean: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
    """Regress a clean pixel on the square of protected pixels around it, by ordinary least squares: (size, size).

    Both (pairs, height, width, channels); only squares that lie within the picture count, those of all channels
    together. The filter is for correlation.
    """
    margin = size // 2
    matrix, target = np.zeros((size * size, size * size)), np.zeros(size * size)
    for one, original in zip(protected, clean, strict=True):  # of the leaked pictures, which are few
        patches = sliding_window_view(one, (size, size), axis=(0, 1)).reshape(-1, size * size).astype(np.float64)
        inside = original[margin : original.shape[0] - margin, margin : original.shape[1] - margin].reshape(-1)
        matrix += patches.T @ patches
        target += patches.T @ inside
    return np.linalg.lstsq(matrix, target, rcond=None)[0].reshape(size, size).astype(np.float32)
