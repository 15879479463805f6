"""Borders: which sample of a picture stands for one that lies beyond it."""

import numpy as np
from numpy.typing import NDArray


def mirrored(places: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Bring places into 0 to size - 1 by reflection at the middle of the first and the last sample: each comes once.

    >>> mirrored(np.array([-2, -1, 0, 3, 4, 5]), 4).tolist()
    [2, 1, 0, 3, 2, 1]
    """
    if size == 1:
        return np.zeros_like(places)
    around: NDArray[np.int64] = np.abs(places) % (2 * size - 2)
    return np.minimum(around, 2 * size - 2 - around)


def folded(places: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Bring places into 0 to size - 1 by reflection at the edge of the first and the last sample: each comes twice.

    >>> folded(np.array([-2, -1, 0, 3, 4, 5]), 4).tolist()
    [1, 0, 0, 3, 3, 2]
    """
    around = places % (2 * size)
    return np.minimum(around, 2 * size - 1 - around)
