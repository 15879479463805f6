"""JPEG compression: what is hidden in fine detail is gone.

Liu, Zhao, Larson, "Image Shortcut Squeezing", ICML 2023 (arXiv 2301.13838), section 4, with quality 10.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unlearnable.countermeasures.base import Countermeasure, Published, by_pieces, countermeasures
from unlearnable.errors import expected


@countermeasures.register("jpeg")
@dataclass(frozen=True, kw_only=True)
class Jpeg(Countermeasure):
    """Write each picture as a JPEG and read it back; the training pictures alone.

    quality: of libjpeg, 1 to 95.
    """

    name: ClassVar[str] = "jpeg"
    main: ClassVar[str | None] = "quality"
    quality: int = 10

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 95:
            raise expected("a JPEG quality from 1 to 95", str(self.quality), "choose 10, as in the literature")

    def clean(self, published: Published, rng: np.random.Generator) -> NDArray[np.uint8]:
        def change(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
            return np.stack([self._compressed(image) for image in images])

        return by_pieces(change, published.images)

    def _compressed(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        file = BytesIO()
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "JPEG", quality=self.quality)
        return np.asarray(Image.open(file)).reshape(image.shape)
