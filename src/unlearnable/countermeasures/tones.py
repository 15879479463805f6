"""Normalisations of a picture's tones: autocontrast, histogram equalisation, gray world, whitening, local contrast.

Each maps a picture onto a common form, whatever its brightness, contrast or tint was before. They take away what a
protection does to those alone, test pictures are as easy to normalise, and a model trained on normalised pictures
does best on normalised ones: so all of them act on test pictures too.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from unlearnable.countermeasures.base import Countermeasure, Published, by_pieces, countermeasures
from unlearnable.errors import expected

MIDDLE: Final = 127.5  # mean of normalised samples, in grey levels
SPREAD: Final = 50.0  # their standard deviation


class _Normalisation(Countermeasure):
    """Something done to each picture by itself, training and test pictures alike."""

    def clean(self, published: Published, rng: np.random.Generator) -> NDArray[np.uint8]:
        return self.at_test(published.images)


@countermeasures.register("autocontrast")
@dataclass(frozen=True, kw_only=True)
class Autocontrast(_Normalisation):
    """Stretch each channel so that its lowest value becomes 0 and its highest 255."""

    name: ClassVar[str] = "autocontrast"

    def at_test(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        def change(some: NDArray[np.uint8]) -> NDArray[Any]:
            low, high = (bound((1, 2), keepdims=True).astype(np.float32) for bound in (some.min, some.max))
            return np.where(high > low, (some - low) * (255 / np.maximum(high - low, 1)), some)

        return by_pieces(change, images)


@countermeasures.register("equalize")
@dataclass(frozen=True, kw_only=True)
class Equalize(_Normalisation):
    """Histogram equalisation: spread each channel's values so that all grey levels are about equally frequent."""

    name: ClassVar[str] = "equalize"

    def at_test(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return by_pieces(_equalized, images)


@countermeasures.register("gray-world")
@dataclass(frozen=True, kw_only=True)
class GrayWorld(_Normalisation):
    """Scale each channel so that all have the same mean, that of the picture: the mean colour becomes grey.

    Buchsbaum, "A spatial processor model for object colour perception", J. Franklin Institute 310, 1980.
    """

    name: ClassVar[str] = "gray-world"

    def at_test(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        def change(some: NDArray[np.uint8]) -> NDArray[Any]:
            means = some.mean((1, 2), keepdims=True, dtype=np.float32)
            scale = means.mean(-1, keepdims=True) / np.maximum(means, 1e-6)
            return np.asarray(some * scale)

        return by_pieces(change, images)


@countermeasures.register("whitening")
@dataclass(frozen=True, kw_only=True)
class Whitening(_Normalisation):
    """Move each picture's colours so that their mean is grey and they spread alike in every direction, uncorrelated.

    Written against mixes of channels: whatever linear map colours went through before, what comes out differs by a
    rotation at most. Of the maps that do so it is the one that moves colours least ("ZCA": Kessy, Lewin, Strimmer,
    "Optimal whitening and decorrelation", The American Statistician 72, 2018). Colours that hardly differ are stretched
    ten times at most.
    """

    name: ClassVar[str] = "whitening"

    def at_test(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        def change(some: NDArray[np.uint8]) -> NDArray[Any]:
            colours = some.reshape(len(some), -1, some.shape[-1]).astype(np.float32)
            colours -= colours.mean(1, keepdims=True)
            spread = np.matmul(colours.transpose(0, 2, 1), colours) / colours.shape[1]
            values, vectors = np.linalg.eigh(spread)
            stretch = SPREAD / np.sqrt(np.maximum(values, 0) + (SPREAD / 10) ** 2)
            white = np.matmul(colours, (vectors * stretch[:, None]) @ vectors.transpose(0, 2, 1))
            return np.asarray(MIDDLE + white.reshape(some.shape))

        return by_pieces(change, images)


@countermeasures.register("local-normalization")
@dataclass(frozen=True, kw_only=True)
class LocalNormalization(_Normalisation):
    """Subtract from each sample the mean of its channel around it, and divide by the standard deviation there.

    Written against smooth shades, which multiply both, and against tints. Jarrett, Kavukcuoglu, Ranzato, LeCun, "What
    is the best multi-stage architecture for object recognition?", ICCV 2009, section 2, here of the picture itself.
    Where samples hardly differ they are stretched ten times at most.

    sigma: of the Gaussian that weighs the surroundings, in pixels, at least 0.5: below it there are hardly any.
    """

    name: ClassVar[str] = "local-normalization"
    main: ClassVar[str | None] = "sigma"
    sigma: float = 4.0

    def __post_init__(self) -> None:
        if not 0.5 <= self.sigma < math.inf:
            raise expected("a sigma of at least 0.5", str(self.sigma), "choose 4")

    def at_test(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        from scipy.ndimage import gaussian_filter

        def change(some: NDArray[np.uint8]) -> NDArray[Any]:
            exact = some.astype(np.float32)
            mean, square = (
                gaussian_filter(these, self.sigma, axes=(1, 2), mode="nearest") for these in (exact, exact**2)
            )
            spread = np.sqrt(np.maximum(square - mean**2, 0) + (SPREAD / 10) ** 2)
            return np.asarray(MIDDLE + SPREAD * (exact - mean) / spread)

        return by_pieces(change, images)


def _equalized(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Map each value to the share of the channel's samples that are at most as high, the lowest value to 0.

    Pillow's and torchvision's work in whole steps of 1/255 of the samples: nothing happens to fewer than 256.
    """
    count, height, width, channels = images.shape
    histogram = np.arange(count * channels, dtype=np.int64).reshape(count, 1, 1, channels) * 256 + images
    below = np.bincount(histogram.ravel(), minlength=count * channels * 256).reshape(-1, 256).cumsum(1)
    first = np.where(below > 0, below, below[:, -1:]).min(1, keepdims=True)  # as many as have the lowest value
    levels = (below - first) * (255 / np.maximum(height * width - first, 1))
    return np.asarray(levels.astype(np.float32).ravel()[histogram])
