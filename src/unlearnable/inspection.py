"""Does a data set look protected, and how? Without a key, a network or, in general, the clean pictures.

A protection works by giving every class something that is easier to learn than what its pictures show. So simple
models are asked to name the class: from what the pictures show (coarse pixels), from the finest detail at fixed places
(where additive noise of a class lies), and from the power spectrum alone (where a filter of a class shows). In
photographs the first tells most.

That linear models separate the noise of unlearnable examples: Yu et al., "Availability Attacks Create Shortcuts", KDD
2022 (arXiv 2111.00898). Dark borders of convolved pictures: Li et al., "Detecting and Corrupting Convolution-based
Unlearnable Examples", AAAI 2025 (arXiv 2311.18403), with its EPD.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from unlearnable.errors import expected
from unlearnable.pictures.dataset import Dataset, match

_SIDE: Final = 32  # pixels of a window that is looked at closely; larger pictures have several, or are shrunk to one
_SHUFFLES: Final = 5  # of the labels, for what chance does to class means
_PENALTY: Final = 3.0  # of the linear models, in mean squared lengths of a feature vector

# What is called a sign. Chosen on CIFAR-10, checked on 100 classes of Tiny-ImageNet: docs/countermeasures.md.
_SPECTRA_OVER_CONTENT: Final = 1.25  # times as often right
_FINE_DETAIL: Final = 0.3  # of the way from chance to always right
_DARK: Final = 0.85  # of the brightness further in, at all four borders; at least
_BLACK: Final = 0.2  # of it, or they are frames
_FULL_RANGE: Final = 0.97  # of the pictures
_CLEAR: Final = 3.0  # standard deviations
_FILTERED: Final = 0.5  # of what one filter for all leaves of the difference


class Look(StrEnum):
    """What a data set looks like."""

    none = "no sign"
    convolution = "convolution"
    additive = "additive noise"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How published pictures differ from the clean ones; the last two numbers are of the pictures that do.

    changed: share of the pictures. largest: in grey levels.
    separable: share of the pictures that a linear model names rightly from the difference alone, held out.
    filtered: how much a filter for each class gives of the difference that one filter for all does not, in squares.
    """

    changed: float
    largest: int
    separable: float
    filtered: float


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a data set looks like, the reasons in words, and the numbers behind them.

    content, detail, spectra: share of held-out pictures that a linear model names rightly from coarse pixels, from
        fine detail at fixed places, and from the power spectrum; chance: from nothing.
    spectral_distance: of the classes' mean log spectra from that of all, root mean square, in units of a factor e,
        less what chance alone does; spectral_ratio: the same, squared, in multiples of chance.
    borders: brightness of the outermost line above, below, left and right, by that of the line an eighth further in;
        medians over the pictures.
    full_range: share of the pictures in which some value is 255.
    """

    looks: Look
    reasons: tuple[str, ...]
    pictures: int
    classes: int
    chance: float
    content: float
    detail: float
    spectra: float
    spectral_distance: float
    spectral_ratio: float
    borders: tuple[float, float, float, float]
    full_range: float
    difference: Difference | None


def inspect(dataset: Dataset, clean: Dataset | None = None) -> Inspection:
    """Look at published pictures; with the clean ones, if given, at the difference too.

    Half of the pictures, chosen at random but always the same, train the linear models, the other half test them.

    Raises InputError for fewer than 2 classes or 10 pictures a class, and where ``clean`` is another set.
    """
    if clean is not None:
        dataset = dataset.select(match(clean, dataset))
    images, labels = dataset.images, dataset.labels
    present, labels = np.unique(labels, return_inverse=True)
    classes, count = len(present), len(images)
    if classes < 2 or count < 10 * classes:
        found = f"{count} pictures of {classes}"
        raise expected("at least 2 classes, and 10 pictures a class", found, "inspect a larger part of the set")
    features = log_spectra(images)
    content, detail, spectra = (
        held_out(some.reshape(count, -1), labels) for some in (coarse(images), fine(images), features)
    )
    distance, ratio = spectral_spread(features, labels)
    borders = border_brightness(images)
    full = float((images.max((1, 2, 3)) == 255).mean())
    chance = float(np.bincount(labels).max() / count)
    difference = None if clean is None else _difference(clean.images, images, labels)
    looks, reasons = _judge(
        content=content,
        detail=detail,
        spectra=spectra,
        chance=chance,
        tested=count // 2,
        borders=borders,
        full_range=full,
        difference=difference,
    )
    return Inspection(
        looks=looks,
        reasons=reasons,
        pictures=count,
        classes=classes,
        chance=chance,
        content=content,
        detail=detail,
        spectra=spectra,
        spectral_distance=distance,
        spectral_ratio=ratio,
        borders=borders,
        full_range=full,
        difference=difference,
    )


def held_out(features: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> float:
    """Train a linear model on half of the pictures; return the share of the other half that it names rightly.

    Ridge regression onto the classes, of standardised features (count, features): the same whatever their scale.
    """
    order = np.random.default_rng(0).permutation(len(features))
    train, test = order[: len(order) // 2], order[len(order) // 2 :]
    known = features[train].astype(np.float64)
    mean, spread = known.mean(0), known.std(0)
    spread[spread == 0] = 1
    known, asked = (known - mean) / spread, (features[test] - mean) / spread
    targets = np.eye(labels.max() + 1)[labels[train]]
    average = targets.mean(0)
    gram = known @ known.T
    gram[np.diag_indices_from(gram)] += _PENALTY * max(float(np.trace(gram)) / len(gram), 1e-9)
    scores = asked @ (known.T @ np.linalg.solve(gram, targets - average)) + average
    return float((scores.argmax(1) == labels[test]).mean())


def coarse(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Take what pictures show: without the borders, shrunk to at most 32 pixels a side."""
    inside = _without_borders(images).astype(np.float32)
    factor = max(1, -(-max(inside.shape[1:3]) // _SIDE))
    height, width = (side // factor * factor for side in inside.shape[1:3])
    blocks = inside[:, :height, :width].reshape(len(images), height // factor, factor, width // factor, factor, -1)
    return np.asarray(blocks.mean((2, 4)))


def fine(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Take the finest detail: what differs from the mean of the 3 x 3 pixels around, in a window in the middle."""
    window = _window(_without_borders(images)).astype(np.float32)
    height, width = (side - 2 for side in window.shape[1:3])
    if min(height, width) < 1:
        return np.zeros((len(images), 1), np.float32)
    total = np.zeros((len(images), height, width, window.shape[3]), np.float32)
    for y, x in product(range(3), range(3)):
        total += window[:, y : y + height, x : x + width]
    return np.asarray(window[:, 1:-1, 1:-1] - total / np.float32(9))


def log_spectra(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Power spectra of the pictures, as logarithms, the channels' mean: (count, rows, columns).

    Welch's method (1967): the mean over windows of 32 x 32 pixels with a Hann taper, so that borders play no part.
    """
    height, width = (min(_SIDE, side) for side in images.shape[1:3])
    taper = np.outer(*(np.hanning(side + 2)[1:-1] for side in (height, width)))[:, :, None]
    total = np.zeros((len(images), height, width // 2 + 1))
    places = [range(0, side - step + 1, step) for side, step in zip(images.shape[1:3], (height, width), strict=True)]
    for y, x in product(*places):
        window = images[:, y : y + height, x : x + width].astype(np.float32)
        window -= window.mean((1, 2), keepdims=True)
        total += (np.abs(np.fft.rfft2(window * taper, axes=(1, 2))) ** 2).mean(3)
    windows = math.prod(map(len, places))
    rounding = (taper**2).sum() / 12  # what grey levels being whole numbers adds: a floor, where there is nothing
    return np.asarray(np.log(total / windows + rounding))


def spectral_spread(spectra: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[float, float]:
    """Measure how far the classes' mean spectra lie from that of all: (distance, ratio), see :class:`Inspection`."""
    rng = np.random.default_rng(0)
    found = _between(spectra, labels)
    chance = float(np.mean([_between(spectra, rng.permutation(labels)) for _ in range(_SHUFFLES)]))
    return math.sqrt(max(0.0, found - chance)), found / chance if chance > 0 else 1.0


def _between(spectra: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Variance of the class means, weighted by size, averaged over frequencies."""
    flat = spectra.reshape(len(spectra), -1)
    counts = np.bincount(labels)
    means = np.eye(len(counts))[:, labels] @ flat / counts[:, None]
    return float((counts[:, None] * (means - flat.mean(0)) ** 2).sum(0).mean() / len(flat))


def border_brightness(images: NDArray[np.uint8]) -> tuple[float, float, float, float]:
    """Compare the outermost lines with those an eighth of the side further in (see :class:`Inspection`)."""
    down, right = (side // 8 for side in images.shape[1:3])
    pairs = (
        (images[:, 0], images[:, down]),
        (images[:, -1], images[:, -1 - down]),
        (images[:, :, 0], images[:, :, right]),
        (images[:, :, -1], images[:, :, -1 - right]),
    )
    above, below, left, right_ = (_median_ratio(outer.mean((1, 2)), inner.mean((1, 2))) for outer, inner in pairs)
    return above, below, left, right_


def _median_ratio(outer: NDArray[np.float64], inner: NDArray[np.float64]) -> float:
    seen = inner >= 1
    return float(np.median(outer[seen] / inner[seen])) if seen.any() else 1.0


def _without_borders(images: NDArray[Any]) -> NDArray[Any]:
    """Cut off an eighth of the side all around: what convolution does to borders is looked at by itself."""
    down, right = (side // 8 for side in images.shape[1:3])
    return images[:, down : images.shape[1] - down, right : images.shape[2] - right]


def _window(images: NDArray[Any]) -> NDArray[Any]:
    """Cut out the middle, at most 34 pixels a side."""
    height, width = (min(side, _SIDE + 2) for side in images.shape[1:3])
    top, left = ((side - size) // 2 for side, size in zip(images.shape[1:3], (height, width), strict=True))
    return images[:, top : top + height, left : left + width]


def _difference(clean: NDArray[np.uint8], published: NDArray[np.uint8], labels: NDArray[np.int64]) -> Difference:
    """Compare published pictures with their clean ones; how they differ, among those that do."""
    largest = max(int(np.abs(one.astype(np.int16) - other).max()) for one, other in zip(clean, published, strict=True))
    changed = (clean != published).any((1, 2, 3))
    before, after = (_window(_without_borders(some[changed])) for some in (clean, published))
    labels = labels[changed]
    some = len(labels) >= 2  # to learn from one and be tested with the other
    return Difference(
        changed=float(changed.mean()),
        largest=largest,
        separable=held_out((after.astype(np.float32) - before).reshape(len(labels), -1), labels) if some else 0.0,
        filtered=filter_share(before, after, labels) if some else 0.0,
    )


def filter_share(clean: NDArray[np.uint8], published: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    """Return how much a filter for each class gives of the difference that one filter for all does not: 0 to 1.

    In squares; filters of 5 x 5 by least squares, the same for all channels, over whole neighbourhoods alone. Pictures
    are divided by their mean first: convolved ones have been divided by a value of their own.
    """
    size = 5
    height, width = (side - size + 1 for side in clean.shape[1:3])
    if min(height, width) < 1:
        return 0.0
    before, after = (some / np.maximum(some.mean((1, 2, 3), keepdims=True), 1) for some in (clean, published))
    middle = (after - before)[:, size // 2 : size // 2 + height, size // 2 : size // 2 + width]

    # Of each class: products of its neighbourhoods with each other, with the difference, and of that with itself.
    squares, products, powers = [], [], []
    for label in np.unique(labels):
        some, wanted = before[labels == label], middle[labels == label].reshape(-1)
        shifts = product(range(size), range(size))
        matrix = np.stack([some[:, y : y + height, x : x + width].reshape(-1) for y, x in shifts])
        squares.append(matrix @ matrix.T)
        products.append(matrix @ wanted)
        powers.append(wanted @ wanted)

    def left(square: NDArray[np.float64], product_: NDArray[np.float64], power: float) -> float:
        return float(power - product_ @ np.linalg.lstsq(square, product_, rcond=None)[0])

    own = sum(map(left, squares, products, powers))
    common = left(np.sum(squares, 0), np.sum(products, 0), float(np.sum(powers)))
    return max(0.0, 1 - own / common) if common > 0 else 0.0


def _judge(
    *,
    content: float,
    detail: float,
    spectra: float,
    chance: float,
    tested: int,
    borders: tuple[float, float, float, float],
    full_range: float,
    difference: Difference | None,
) -> tuple[Look, tuple[str, ...]]:
    """Say what the numbers mean; the clean pictures, if they are there, have the last word."""
    by_chance = f"{_percent(chance)} by chance"
    doubt = math.sqrt((spectra * (1 - spectra) + content * (1 - content)) / tested)
    convolution, additive = [], []
    if spectra > _SPECTRA_OVER_CONTENT * content and spectra - content > _CLEAR * doubt:
        convolution.append(
            f"power spectra alone tell the classes apart better ({_percent(spectra)} right, {by_chance}) than what the"
            f" pictures show ({_percent(content)}), as if each class had been filtered in its own way"
        )
    dark = min(borders) > _BLACK and max(borders) < _DARK
    if dark:
        convolution.append(
            f"the outermost pixels have {_percent(sum(borders) / 4)} of the brightness of those further in, as if"
            " pictures had been filtered with black around them"
        )
    if convolution and full_range > _FULL_RANGE:
        convolution.append(
            f"{_percent(full_range)} of the pictures use the range up to its end, as if divided by their highest value"
        )
    if (detail - chance) / (1 - chance) > _FINE_DETAIL:
        additive.append(
            f"fine detail at fixed places tells the classes apart ({_percent(detail)} right, {by_chance}), as if each"
            " class had a pattern added to it; drawn or aligned pictures, such as digits, look like this too"
        )
        if not dark:
            convolution.clear()  # patterns have spectra
    if difference is not None:
        return _judge_difference(difference, chance)
    if additive:
        return Look.additive, tuple(additive + convolution)
    if convolution:
        return Look.convolution, tuple(convolution)
    return Look.none, ("what simple models tell the classes apart by is what is usual for photographs",)


def _judge_difference(difference: Difference, chance: float) -> tuple[Look, tuple[str, ...]]:
    if not difference.changed:
        return Look.none, ("the pictures are the clean ones",)
    extent = f"{_percent(difference.changed)} of the pictures differ from the clean ones, by up to {difference.largest}"
    reasons = [f"{extent} grey levels"]
    if difference.filtered > _FILTERED:
        share = _percent(difference.filtered)
        return Look.convolution, (*reasons, f"a filter for each class accounts for {share} of the difference")
    if (difference.separable - chance) / (1 - chance) > _FINE_DETAIL:
        right = f"{_percent(difference.separable)} right, {_percent(chance)} by chance"
        return Look.additive, (*reasons, f"the difference alone tells the classes apart ({right})")
    return Look.none, (*reasons, "no simple model tells the classes by how they differ")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
