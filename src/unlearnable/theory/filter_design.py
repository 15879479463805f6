"""Which filters protect most for how much distortion: the pair with the least accuracy within a budget.

The distortion of a class is |(A - I) mu|, what the filter does to the class's mean. Filters have a tap of 1 in the
middle and other taps of at least 0, as CUDA's have, that sum to at most 1: then A is diagonally dominant and can be
undone, and for three taps that is the paper's range a <= 1/2.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import LinearConstraint, NonlinearConstraint, minimize

from unlearnable.errors import expected
from unlearnable.theory.checks import Vector, count, mean_vector, radius
from unlearnable.theory.gaussian_mixture import clean_accuracy, convolution_matrix

_MOST: Final = 0.999  # sum of the taps beside the 1: short of 1, so that the condition number stays below 2,000


@dataclass(frozen=True, eq=False)
class FilterPair:
    """The filters of the classes -1 and +1, of shape (taps,), the accuracy they leave, and each one's distortion."""

    negative: Vector
    positive: Vector
    accuracy: float
    distortions: tuple[float, float]


def distortion(mu: ArrayLike, taps: ArrayLike) -> float:
    """Return |(A - I) mu| for a filter with zero padding."""
    mean = mean_vector(mu)
    return float(np.linalg.norm(convolution_matrix(taps, len(mean)) @ mean - mean))


def strongest_filters(mu: ArrayLike, budget: float, *, taps: int = 3, starts: int = 4, seed: int = 0) -> FilterPair:
    """Find the pair of filters that leaves the least clean accuracy with at most ``budget`` of distortion each.

    Sequential quadratic programming from several starts: the accuracy is not convex, and the pair returned is the
    best found, not proven best. ``starts`` are the pair (none, as much as allowed) and random ones. Filters of more
    than three taps are symmetric or not, as it comes. Raises InputError for mu = 0, a budget that is not positive, or
    an even number of taps.
    """
    mean, starts, seed = mean_vector(mu), count(starts, 1, "a number of starts"), count(seed, 0, "a seed")
    budget = radius(budget, "a budget")
    if not budget:
        raise expected("a budget > 0", "0", "without distortion there is no protection")
    if count(taps, 3, "a number of taps") % 2 == 0:
        raise expected("an odd number of taps", str(taps), "the tap of 1 is in the middle")
    beside = taps - 1
    effects = np.stack([convolution_matrix(row, len(mean)) @ mean for row in np.delete(np.eye(taps), taps // 2, 0)])
    metric = effects @ effects.T  # |(A - I) mu|^2 = taps' metric taps

    def pair(free: Vector) -> tuple[Vector, Vector]:
        negative, positive = (np.insert(half, taps // 2, 1.0) for half in np.clip(free, 0, None).reshape(2, beside))
        return negative, positive

    def accuracy(free: Vector) -> float:
        negative, positive = pair(free)
        if taps == 3 and negative[0] == negative[2] and positive[0] == positive[2]:
            return clean_accuracy(mean, float(negative[0]), float(positive[0]))
        return clean_accuracy(mean, negative, positive)

    def spent(free: Vector) -> Vector:
        """Return the share of the budget's square that each filter uses."""
        halves = free.reshape(2, beside)
        return np.asarray(np.sum((halves @ metric) * halves, axis=1) / budget**2)

    def shrunk(free: Vector) -> Vector:
        """Scale each filter into the budget and below the sum allowed."""
        halves = np.clip(free, 0, None).reshape(2, beside)
        over = np.maximum.reduce([np.sqrt(spent(halves.ravel())), halves.sum(axis=1) / _MOST, np.ones(2)])
        return np.asarray((halves / over[:, None]).ravel())

    rng = np.random.default_rng(seed)
    first = np.concatenate([np.zeros(beside), np.ones(beside)])
    begins = [first, *rng.exponential(1.0, (starts - 1, 2 * beside)) * rng.random((starts - 1, 1))]
    limits = [
        NonlinearConstraint(spent, -np.inf, 1.0),
        LinearConstraint(np.kron(np.eye(2), np.ones(beside)), -np.inf, _MOST),
    ]
    best = min(
        (
            shrunk(
                minimize(
                    lambda free: accuracy(shrunk(free)),
                    shrunk(begin),
                    method="SLSQP",
                    bounds=[(0.0, 1.0)] * (2 * beside),
                    constraints=limits,
                    options={"maxiter": 60, "ftol": 1e-9},
                ).x
            )
            for begin in begins
        ),
        key=accuracy,
    )
    negative, positive = pair(best)
    return FilterPair(negative, positive, accuracy(best), (distortion(mean, negative), distortion(mean, positive)))
