"""Pattern removal: the fine part of what the mean picture of a class has and others have not is taken out of it.

Written against :mod:`unlearnable.protections.patches` and other noise that is the same for all pictures of a class.
Unlike class-mean removal it leaves classes their own light and colours, which networks may learn from.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from unlearnable.countermeasures.base import Countermeasure, Published, by_pieces, countermeasures
from unlearnable.countermeasures.class_mean_removal import class_means
from unlearnable.errors import expected


@countermeasures.register("pattern-removal")
@dataclass(frozen=True, kw_only=True)
class PatternRemoval(Countermeasure):
    """Subtract from every picture the high-pass of its class's mean minus the mean of all; training pictures alone.

    What leaves the range of grey levels is clipped.

    sigma: of the Gaussian whose part stays, in pixels, above 0: what is coarser is taken for the class's own.
    """

    name: ClassVar[str] = "pattern-removal"
    main: ClassVar[str | None] = "sigma"
    sigma: float = 8.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise expected("a sigma above 0", str(self.sigma), "choose 8")

    def clean(self, published: Published, rng: np.random.Generator) -> NDArray[np.uint8]:
        from scipy.ndimage import gaussian_filter

        means, mean = class_means(published.images, published.labels, published.classes)
        difference = means - mean
        coarse = gaussian_filter(difference, self.sigma, axes=(1, 2), mode="nearest")
        pattern = (difference - coarse).astype(np.float32)

        def change(some: NDArray[np.uint8], its: NDArray[np.int64]) -> NDArray[Any]:
            return np.asarray(some - pattern[its])

        return by_pieces(change, published.images, published.labels)
