"""Partly protected sets: which pictures are protected, and which are clean."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def choose(ids: Sequence[str], classes: Sequence[str], fraction: float, seed: int, purpose: str) -> NDArray[np.bool_]:
    """Choose a share of pictures, the same share of every class: a mask, (count,).

    Exactly ``round(fraction * count)`` pictures, from each class its share rounded up or down (the largest
    remainders up, the first class by name among equals). Within a class it is the pictures of the lowest SHA-256 of
    purpose, seed and id: so the order of the pictures does not matter, and a larger share holds a smaller one but
    for what the rounding moves.

    classes: of the pictures, by name.

    >>> ids, classes = ["a", "b", "c", "d"], ["cat", "dog", "cat", "dog"]
    >>> choose(ids, classes, 0.5, seed=0, purpose="test")
    array([ True, False, False,  True])
    """
    names, inverse, counts = np.unique(np.asarray(classes), return_inverse=True, return_counts=True)
    shares = fraction * counts
    # A share such as 0.1 * 30 may lie a hair below the whole number that is meant.
    takes = np.floor(shares + 1e-9).astype(np.int64)
    left = round(fraction * len(ids)) - takes.sum()
    takes[np.argsort(takes - shares, kind="stable")[:left]] += 1
    ranks = [hashlib.sha256(f"{purpose}\0{seed}\0{id_}".encode()).digest() for id_ in ids]
    chosen = np.zeros(len(ids), np.bool_)
    for label in range(len(names)):
        members = np.flatnonzero(inverse == label)
        chosen[sorted(members, key=ranks.__getitem__)[: takes[label]]] = True
    return chosen
