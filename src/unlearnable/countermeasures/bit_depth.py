"""Bit-depth reduction: fewer grey levels.

Xu, Evans, Qi, "Feature Squeezing", NDSS 2018 (arXiv 1704.01155), section III-A; with 2 bits in the benchmark of Qin et
al., "APBench", TMLR 2024 (arXiv 2308.03258).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from unlearnable.countermeasures.base import Countermeasure, Published, by_pieces, countermeasures
from unlearnable.errors import expected


@countermeasures.register("bit-depth")
@dataclass(frozen=True, kw_only=True)
class BitDepth(Countermeasure):
    """Round every sample to the nearest of 2**bits levels, spread evenly from black to white; training pictures alone.

    bits: 1 to 7.
    """

    name: ClassVar[str] = "bit-depth"
    main: ClassVar[str | None] = "bits"
    bits: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 7:
            raise expected("1 to 7 bits", str(self.bits), "choose 2, as in the literature")

    def clean(self, published: Published, rng: np.random.Generator) -> NDArray[np.uint8]:
        highest = 2**self.bits - 1
        levels = np.rint(np.rint(np.arange(256) / 255 * highest) / highest * 255).astype(np.uint8)
        return by_pieces(lambda images: levels[images], published.images)
