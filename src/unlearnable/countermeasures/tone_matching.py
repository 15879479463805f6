"""Tone matching: what a look of a class does to its pictures is taken off again, the last of it first.

Written against :mod:`unlearnable.protections.tone`, by somebody who knows how looks are made and has no key: a look
shows in the mean picture, the colours and the histograms of a class, and labels are public.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from unlearnable.countermeasures.base import Countermeasure, Published, by_pieces, countermeasures, pieces
from unlearnable.countermeasures.class_mean_removal import add_by_class, class_means
from unlearnable.errors import expected

_LEVELS: Final = 256
_FLAT: Final = 0.01  # squared grey levels that colours of a class spread at least: none is stretched without bound

Floats = NDArray[np.float64]


@countermeasures.register("tone-matching")
@dataclass(frozen=True, kw_only=True)
class ToneMatching(Countermeasure):
    """Move light, colours and histograms of each class onto those of all pictures, in this order; training ones alone.

    Light: pictures are multiplied by the ratio of the mean brightness of all to that of the class, both smoothed.
    Colours: a linear map takes the mean and the covariance of the class's to those of all (the map that moves Gaussians
    least: Pitié, Kokaram, "The linear Monge-Kantorovitch linear colour mapping for example-based colour transfer",
    CVMP 2007). Histograms: each channel's levels go where the levels of the same rank among all lie.

    sigma: of the Gaussian that smooths mean pictures, in pixels, above 0.
    """

    name: ClassVar[str] = "tone-matching"
    main: ClassVar[str | None] = "sigma"
    sigma: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise expected("a sigma above 0", str(self.sigma), "choose 2")

    def clean(self, published: Published, rng: np.random.Generator) -> NDArray[np.uint8]:
        labels = published.labels
        gains = shade_gains(published, self.sigma)

        def lit(some: NDArray[np.uint8], its: NDArray[np.int64]) -> NDArray[Any]:
            return np.asarray(some * gains[its, :, :, None])

        published = replace(published, images=by_pieces(lit, published.images, labels))
        means, maps, mean = colour_maps(published)

        def mapped(some: NDArray[np.uint8], its: NDArray[np.int64]) -> NDArray[Any]:
            colours = some.reshape(len(some), -1, some.shape[-1]) - means[its, None]
            return np.asarray(np.matmul(colours, maps[its]) + mean).reshape(some.shape)

        published = replace(published, images=by_pieces(mapped, published.images, labels))
        curves = matching_curves(published)
        channels = np.arange(published.images.shape[-1])

        def bent(some: NDArray[np.uint8], its: NDArray[np.int64]) -> NDArray[Any]:
            return curves[its[:, None, None, None], channels, some]

        return by_pieces(bent, published.images, labels)


def shade_gains(published: Published, sigma: float) -> NDArray[np.float32]:
    """Return by what the pictures of each class are multiplied to be lit as all are: (classes, height, width)."""
    from scipy.ndimage import gaussian_filter

    of_class, of_all = class_means(published.images, published.labels, published.classes)
    light, overall = (
        gaussian_filter(means.mean(-1), sigma, axes=(-2, -1), mode="nearest") for means in (of_class, of_all)
    )
    gains = np.divide(np.broadcast_to(overall, light.shape), light, out=np.ones_like(light), where=light > 0)
    return np.asarray(gains, np.float32)


def colour_maps(published: Published) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return how the colours of each class are mapped: what is subtracted, multiplied by from the right, and added.

    (classes, channels), the mean colour of each class; (classes, channels, channels), symmetric; (channels,), the mean
    of all.
    """
    images, channels = published.images, published.images.shape[-1]
    sums, squares = np.zeros((published.classes, channels)), np.zeros((published.classes, channels, channels))
    for part in pieces(images):
        colours = images[part].reshape(-1, images[0].size // channels, channels).astype(np.float64)
        add_by_class(sums, colours.sum(1), published.labels[part])
        add_by_class(squares, np.matmul(colours.transpose(0, 2, 1), colours), published.labels[part])
    counts = np.bincount(published.labels, minlength=published.classes) * (images[0].size // channels)
    means, spreads = _moments(np.maximum(counts, 1)[:, None], sums, squares)
    mean, spread = _moments(np.array([[counts.sum()]]), sums.sum(0)[None], squares.sum(0)[None])
    root, inverse = _power(spreads, 0.5), _power(spreads, -0.5)
    maps = inverse @ _power(root @ spread @ root, 0.5) @ inverse
    return means.astype(np.float32), maps.astype(np.float32), mean[0].astype(np.float32)


def _moments(counts: NDArray[Any], sums: Floats, squares: Floats) -> tuple[Floats, Floats]:
    """Return means and covariances, which are at least as wide as :data:`_FLAT` in every direction."""
    means = sums / counts
    spreads = squares / counts[..., None] - means[:, :, None] * means[:, None]
    return means, spreads + _FLAT * np.eye(sums.shape[1])


def _power(matrices: Floats, exponent: float) -> Floats:
    """Raise symmetric matrices, (..., n, n), of positive eigenvalues to a power."""
    values, vectors = np.linalg.eigh(matrices)
    return np.asarray((vectors * np.maximum(values, 1e-12)[..., None, :] ** exponent) @ vectors.swapaxes(-1, -2))


def matching_curves(published: Published) -> NDArray[np.float32]:
    """Return what becomes of each level of each class so that its histograms become those of all.

    (classes, channels, 256). Ranks are those of the middle of each level's samples, so that a class whose histogram is
    that of all stays as it is.
    """
    channels = published.images.shape[-1]
    counts = np.zeros(published.classes * channels * _LEVELS, np.int64)
    for part in pieces(published.images):
        some = published.images[part]
        group = published.labels[part].astype(np.int64)[:, None, None, None] * channels + np.arange(channels)
        counts += np.bincount((group * _LEVELS + some).ravel(), minlength=len(counts))
    histograms = counts.reshape(published.classes, channels, _LEVELS)
    ranks, overall = _ranks(histograms), _ranks(histograms.sum(0))
    levels = np.arange(_LEVELS)
    curves = [[np.interp(ranks[k, c], overall[c], levels) for c in range(channels)] for k in range(published.classes)]
    return np.asarray(curves, np.float32)


def _ranks(histograms: NDArray[np.int64]) -> Floats:
    """Return the share of samples below each level, half of its own included: (..., 256)."""
    below = histograms.cumsum(-1)
    return np.asarray((below - histograms / 2) / np.maximum(below[..., -1:], 1))
