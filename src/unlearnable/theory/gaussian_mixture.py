"""Two Gaussian classes under CUDA: how well the best classifier of the protected data does on clean data.

Sadasivan, Soltanolkotabi, Feizi, "CUDA: Convolution-based Unlearnable Datasets", CVPR 2023 (arXiv 2303.04278), the
section on theory. Clean data are x ~ N(y mu, I) in R^d, with y = -1 or +1 equally likely. Protection maps x to A_y x,
with one convolution matrix a class. A scraper who learns the protected data perfectly decides by *their* Bayes rule,
which is quadratic in x; everything here is about that rule's accuracy on clean data.

A filter is given as a number ``a`` (the filter [a, 1, a] with zero padding, as in the paper), as taps of any odd length
(correlation with zero padding), or as a (d, d) matrix (for instance from :func:`picture_filter`). Two filters [a, 1, a]
share the sine basis: O(d log d) to get there, O(d) a node of the integral, and no (d, d) matrix. Longer filters share
no basis: one symmetric eigenproblem, O(d^3) time and O(d^2) memory.

Strong filters of pictures are singular, or so close to it that float64 cannot tell. Nobody publishes infinitely many
digits, though: with ``noise``, protected data are A_y x + noise n, n ~ N(0, I), and every filter can be computed with.
``ROUNDING`` is the noise of storing pixels in 8 bits.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.fft import dst
from scipy.linalg import eigh
from scipy.special import ndtr
from scipy.stats import beta

from unlearnable.errors import expected
from unlearnable.theory.checks import Matrix, Vector, array, count, mean_vector, numbers, radius
from unlearnable.theory.quadratic_form import QuadraticForm

Filter = float | ArrayLike
"""A number a for [a, 1, a], taps of odd length, or a (d, d) matrix."""

ROUNDING: Final = 4 / 255 / math.sqrt(12)
"""Standard deviation of rounding to 256 levels, for pixels that vary within a class by a quarter of their range."""

_WORST_CONDITION: Final = 1e7  # of a matrix: its square is what the eigenproblem sees, and float64 has 16 digits
_CHUNK: Final = 1 << 22  # numbers drawn at a time


class Accuracy(NamedTuple):
    """An accuracy computed by integration.

    ``error`` estimates what the integration can be wrong by; ``condition`` is the larger condition number of the two
    filters (about 4 (d + 1)^2 / pi^2 for [0.5, 1, 0.5]; with noise, that of the square root of A A' + noise^2 I), by
    whose square rounding of the *input* is magnified.
    """

    accuracy: float
    error: float
    condition: float


class Estimate(NamedTuple):
    """A share of ``samples`` draws, and its 95 % interval (Clopper and Pearson's, which is exact)."""

    value: float
    low: float
    high: float
    samples: int


def interval(hits: int, samples: int) -> Estimate:
    """Return a share of draws with its interval.

    >>> [round(number, 3) for number in interval(0, 10)]
    [0.0, 0.0, 0.308, 10]
    """
    low = float(beta.ppf(0.025, hits, samples - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, samples - hits)) if hits < samples else 1.0
    return Estimate(hits / samples, low, high, samples)


@dataclass(frozen=True, eq=False)
class PoisonedRule:
    """The Bayes rule of the protected data: +1 where sum(curvature w^2 + slope w) + constant > 0.

    w are the coordinates of x in the basis ``vectors`` ((d, d), one a column), or in the sine basis if that is None.
    The sum is twice the log-likelihood ratio. ``mean`` is mu in the same coordinates; all three have shape (d,).
    """

    curvature: Vector
    slope: Vector
    constant: float
    mean: Vector
    condition: float
    vectors: Matrix | None

    def score(self, x: ArrayLike) -> Vector:
        """Return twice the log-likelihood ratio of +1 against -1 for points of shape (n, d): (n,)."""
        points = numbers(x, 2, "the points x")
        if points.shape[1] != len(self.mean):
            raise expected(f"points of shape (n, {len(self.mean)})", f"shape {points.shape}", "one row a point")
        w = _sine(points) if self.vectors is None else points @ self.vectors
        return np.asarray(w**2 @ self.curvature + w @ self.slope + self.constant)

    def form(self, label: Literal[-1, 1]) -> QuadraticForm:
        """Return the score of a clean point of one class, as a random variable."""
        return QuadraticForm(self.curvature, self.slope, label * self.mean, self.constant)


def clean_accuracy(mu: ArrayLike, a_negative: Filter, a_positive: Filter, *, noise: float = 0.0) -> float:
    """Compute the clean accuracy of the protected data's Bayes rule, exactly.

    ``mu`` has shape (d,); the filters belong to the classes -1 and +1. ``noise`` is the standard deviation of what is
    added to each protected coordinate. Raises InputError for mu = 0, noise < 0, and, where the noise does not hide it,
    a filter that is singular or, as a matrix, too close to it.

    >>> round(clean_accuracy([10**-0.5] * 10, 0.1, 0.3), 5)
    0.67639
    """
    return exact_accuracy(mu, a_negative, a_positive, noise=noise).accuracy


def exact_accuracy(mu: ArrayLike, a_negative: Filter, a_positive: Filter, *, noise: float = 0.0) -> Accuracy:
    """As :func:`clean_accuracy`, with the error of the integration and the filters' condition number."""
    rule = poisoned_rule(mu, a_negative, a_positive, noise=noise)
    if not rule.curvature.any():
        slope = rule.slope / np.abs(rule.slope).max()
        return Accuracy(float(ndtr(slope @ rule.mean / np.linalg.norm(slope))), 0.0, rule.condition)
    right_positive, right_negative = rule.form(1).positive(), (-rule.form(-1)).positive()
    return Accuracy(
        0.5 * (right_positive.value + right_negative.value),
        0.5 * (right_positive.error + right_negative.error),
        rule.condition,
    )


def equal_filters_accuracy(mu: ArrayLike, a: Filter) -> float:
    """Compute the clean accuracy where both classes have one filter: Phi(mu'A^-1 mu / |A^-1 mu|), at most Phi(|mu|).

    (For a filter that is not symmetric, A^-1 stands for its transpose.)

    >>> round(equal_filters_accuracy([10**-0.5] * 10, 0.3), 6)
    0.838902
    """
    return exact_accuracy(mu, a, a).accuracy


def chernoff_bound(mu: ArrayLike, a_negative: Filter, a_positive: Filter, *, noise: float = 0.0) -> float:
    """Bound the same accuracy from above: for each class the least E exp(t score) over the t for which it exists.

    A true bound for any d, mu and filters, unlike the one printed with the paper (see ``docs/theory.md``); loose
    unless the accuracy is near 1/2.

    >>> round(chernoff_bound([10**-0.5] * 10, 0.0, 0.5), 5)
    0.54102
    """
    rule = poisoned_rule(mu, a_negative, a_positive, noise=noise)
    return 0.5 * math.exp(rule.form(1).log_chernoff()) + 0.5 * math.exp((-rule.form(-1)).log_chernoff())


def monte_carlo(
    mu: ArrayLike,
    a_negative: Filter,
    a_positive: Filter,
    *,
    samples: int = 100_000,
    seed: int = 0,
    noise: float = 0.0,
) -> Estimate:
    """Estimate the same accuracy by drawing clean points and comparing the protected classes' likelihoods.

    Shares no formula with :func:`exact_accuracy` beyond the definition.
    """
    means, filters = np.outer([-1, 1], mean_vector(mu)), [a_negative, a_positive]
    return monte_carlo_classes(means, filters, samples=samples, seed=seed, noise=noise)


def monte_carlo_classes(
    means: ArrayLike, filters: Sequence[Filter], *, samples: int, seed: int = 0, noise: float = 0.0
) -> Estimate:
    """Estimate the clean accuracy of the protected data's Bayes rule for any number of equally likely classes.

    ``means`` has shape (classes, d). Clean points of a class are N(mean, I), protected ones N(A mean, A A' + noise^2
    I). Raises InputError for a singular filter or a number of filters that is not that of the means.
    """
    centres = numbers(means, 2, "the means")
    classes, d = centres.shape
    count(classes, 2, "a number of classes")
    count(samples, 1, "a number of samples")
    if len(filters) != classes:
        raise expected(f"{classes} filters, one a class", str(len(filters)), "give as many filters as means")
    noise = radius(noise, "a noise")
    densities = [_log_density(_as_filter(one, d), centre, noise) for one, centre in zip(filters, centres, strict=True)]
    rng = np.random.default_rng(count(seed, 0, "a seed"))
    right = 0
    for start in range(0, samples, step := max(1, _CHUNK // d)):
        labels = rng.integers(classes, size=min(step, samples - start))
        points = centres[labels] + rng.standard_normal((len(labels), d))
        right += int(np.sum(np.argmax([density(points) for density in densities], axis=0) == labels))
    return interval(right, samples)


def poisoned_rule(mu: ArrayLike, a_negative: Filter, a_positive: Filter, *, noise: float = 0.0) -> PoisonedRule:
    """Return the Bayes rule of the protected data in closed form. Raises InputError as :func:`clean_accuracy`.

    With S_y = A_y A_y' + noise^2 I, the score is
    x'(S_-^-1 - S_+^-1)x + 2 mu'(A_-'S_-^-1 + A_+'S_+^-1)x + mu'(A_-'S_-^-1 A_- - A_+'S_+^-1 A_+)mu + ln|S_-| - ln|S_+|;
    without noise the last term with mu vanishes.
    """
    mean, noise = mean_vector(mu), radius(noise, "a noise")
    negative, positive = _as_filter(a_negative, len(mean)), _as_filter(a_positive, len(mean))
    if negative.ndim == positive.ndim == 0:
        return _sine_rule(mean, float(negative), float(positive), noise)
    return _dense_rule(mean, _as_matrix(negative, len(mean)), _as_matrix(positive, len(mean)), noise)


def convolution_matrix(taps: ArrayLike, d: int) -> Matrix:
    """Return the (d, d) matrix of a correlation with an odd number of taps, zero padding.

    >>> convolution_matrix([0.5, 1, 0.25], 3).tolist()
    [[1.0, 0.25, 0.0], [0.5, 1.0, 0.25], [0.0, 0.5, 1.0]]
    """
    row = numbers(taps, 1, "the taps")
    if len(row) % 2 == 0:
        raise expected("an odd number of taps", str(len(row)), "add a zero at one end")
    half = len(row) // 2
    return np.asarray(
        sum(tap * np.eye(d, k=offset - half) for offset, tap in enumerate(row) if abs(offset - half) < d),
        dtype=np.float64,
    )


def picture_filter(
    kernel: ArrayLike, height: int, width: int, padding: Literal["reflect", "zero"] = "reflect"
) -> Matrix:
    """Return the (height width, height width) matrix of a two-dimensional correlation, pixels in row-major order.

    "reflect" mirrors the picture about its border pixels, as the protection of pictures does; with "zero" the matrix
    is block-Toeplitz with Toeplitz blocks. Raises InputError for an even side, or a filter too large to reflect.
    """
    weights = numbers(kernel, 2, "the kernel")
    if padding not in ("reflect", "zero"):
        raise expected("the padding reflect or zero", repr(padding), "choose one of them")
    height, width = count(height, 1, "a height"), count(width, 1, "a width")
    if not all(side % 2 for side in weights.shape):
        raise expected("a kernel with odd sides", f"shape {weights.shape}", "add a row or column of zeros")
    if any(side // 2 >= extent for side, extent in zip(weights.shape, (height, width), strict=True)):
        raise expected("a kernel that reaches less far than the picture", f"shape {weights.shape}", "use a larger one")
    rows, columns = weights.shape[0] // 2, weights.shape[1] // 2
    numbered = np.arange(height * width).reshape(height, width)
    border = ((rows, rows), (columns, columns))
    if padding == "reflect":
        source = np.pad(numbered, border, mode="reflect")
    else:
        source = np.pad(numbered, border, constant_values=-1)
    matrix = np.zeros((height * width, height * width))
    for (row, column), weight in np.ndenumerate(weights):
        seen = source[row : row + height, column : column + width].ravel()
        inside = seen >= 0
        np.add.at(matrix, (numbered.ravel()[inside], seen[inside]), weight)
    return matrix


def sine_eigenvalues(a: float, d: int) -> Vector:
    """Return the eigenvalues 1 + 2a cos(i pi / (d + 1)) of the matrix of [a, 1, a], for i = 1 ... d: (d,).

    Written so that the smallest keeps its digits: at a = 0.5 and d = 10,000 it is 5e-8.
    """
    angle = np.arange(d, 0, -1) * (math.pi / (2 * (d + 1)))
    return np.asarray((1 - 2 * a) + 4 * a * np.sin(angle) ** 2)


def _sine(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return coordinates in the sine basis, which is its own inverse; along the last axis."""
    return np.asarray(dst(x, type=1, norm="ortho", axis=-1))


def _as_filter(given: Filter, d: int) -> NDArray[np.float64]:
    found = array(given, "a filter")
    if found.ndim > 2:
        raise expected("a filter as a number, taps or a matrix", f"{found.ndim} dimensions", "see picture_filter")
    if found.ndim == 2 and found.shape != (d, d):
        raise expected(f"a filter matrix of shape ({d}, {d})", str(found.shape), "its side is the length of mu")
    return found


def _as_matrix(given: NDArray[np.float64], d: int) -> Matrix:
    if given.ndim == 2:
        return given
    return convolution_matrix(given if given.ndim else [float(given), 1.0, float(given)], d)


def _checked(smallest: float, largest: float, worst: float) -> float:
    """Return a condition number. Raises InputError where it is too large to compute with."""
    condition = float(largest / smallest) if smallest > 0 else math.inf
    if not condition < worst:
        raise expected(
            "filters that can be inverted",
            f"a condition number of {condition:.1e} (at most {worst:.0e} can be computed with)",
            "lower the taps beside the 1, or give a noise such as ROUNDING",
        )
    return condition


def _sine_rule(mean: Vector, a_negative: float, a_positive: float, noise: float) -> PoisonedRule:
    d = len(mean)
    negative, positive = sine_eigenvalues(a_negative, d), sine_eigenvalues(a_positive, d)
    wide_negative, wide_positive = np.hypot(negative, noise), np.hypot(positive, noise)
    condition = max(_checked(values.min(), values.max(), 2.0**52) for values in (wide_negative, wide_positive))
    # Differences are taken of the filters' taps, not of what comes of them: nothing cancels for filters that are close.
    apart = 2 * (a_positive - a_negative) * np.cos(np.arange(1, d + 1) * (math.pi / (d + 1)))
    both = wide_negative * wide_positive
    curvature = (apart / both) * ((negative + positive) / both)
    pull_negative, pull_positive = negative / wide_negative, positive / wide_positive
    coordinates = _sine(mean)
    wider = np.where(curvature > 0, wide_positive, wide_negative)
    return PoisonedRule(
        curvature=curvature,
        slope=2 * (pull_negative / wide_negative + pull_positive / wide_positive) * coordinates,
        # The pulls' squares differ by -noise^2 curvature.
        constant=-float(np.sum(np.sign(curvature) * np.log1p(np.abs(curvature) * wider**2)))
        - float(np.sum((noise * coordinates) ** 2 * curvature)),
        mean=coordinates,
        condition=condition,
        vectors=None,
    )


class _Filtered(NamedTuple):
    """Protected data of one class, N(A mu, S): ``whiten`` S^-1 = whiten whiten', and A's part in it, whiten'A."""

    whiten: Matrix
    pull: Matrix
    log_volume: float
    condition: float


def _filtered(matrix: Matrix, noise: float) -> _Filtered:
    left, singular, right = np.linalg.svd(matrix)
    wide = np.hypot(singular, noise)
    condition = _checked(wide[-1], wide[0], _WORST_CONDITION)
    return _Filtered(left / wide, (singular / wide)[:, None] * right, float(np.log(wide).sum()), condition)


def _dense_rule(mean: Vector, negative: Matrix, positive: Matrix, noise: float) -> PoisonedRule:
    one, other = _filtered(negative, noise), _filtered(positive, noise)
    curvature, vectors = eigh(one.whiten @ one.whiten.T - other.whiten @ other.whiten.T)
    seen, also = one.pull @ mean, other.pull @ mean
    return PoisonedRule(
        curvature=curvature,
        slope=2 * vectors.T @ (one.whiten @ seen + other.whiten @ also),
        constant=2 * (one.log_volume - other.log_volume) + float((seen - also) @ (seen + also) if noise else 0.0),
        mean=vectors.T @ mean,
        condition=max(one.condition, other.condition),
        vectors=vectors,
    )


def _log_density(given: NDArray[np.float64], centre: Vector, noise: float) -> Callable[[Matrix], Vector]:
    """Return the log-density of protected data of the class with this centre, up to a number common to all."""
    d = len(centre)
    if given.ndim:
        known = _filtered(_as_matrix(given, d), noise)
        at = known.pull @ centre
        return lambda x: np.asarray(-0.5 * np.sum((x @ known.whiten - at) ** 2, axis=1) - known.log_volume)
    values = sine_eigenvalues(float(given), d)
    wide = np.hypot(values, noise)
    _checked(wide.min(), wide.max(), 2.0**52)
    at = (values / wide) * _sine(centre)
    volume = float(np.log(wide).sum())
    return lambda x: np.asarray(-0.5 * np.sum((_sine(x) / wide - at) ** 2, axis=1) - volume)
