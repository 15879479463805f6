"""Latent models: what an adversary costs where the data lie near a k-dimensional surface in d dimensions.

Javanmard, Mehrabi, "Adversarial robustness for latent models: revisiting the robust-standard accuracies tradeoff",
Operations Research 72(3), 2024 (arXiv 2110.11950). A latent z in R^k is seen as x = phi(W z) in R^d, W of shape (d, k)
and full column rank. Either z | y ~ N(y mu, I), y = -1 or +1 equally likely (the Gaussian mixture), or z ~ N(0, I) and
P(y = 1 | z) = f(beta'z) (the generalised linear model). The adversary moves x by at most epsilon in the l_p norm, off
the surface too. SR is the standard risk, AR the adversarial one; a star marks the least any classifier can have.

For phi = identity the mixture is solved here for *every* classifier, not only for linear ones: shifting both classes
towards each other by W z* leaves two normal distributions that no rule tells apart better than Phi(-|mu - z*|), and the
linear rule along mu - z* reaches it. z* is the point of {z : |W z|_p <= epsilon} nearest to mu.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq, nnls
from scipy.special import ndtr

from unlearnable.errors import expected
from unlearnable.theory.checks import Matrix, Vector, count, mean_vector, numbers, radius

Scaling = Literal["1/k", "1/d"]
"""Variance of W's entries: 1/k makes its smallest singular value grow with d/k, 1/d keeps it below 1."""

SCALINGS: Final[tuple[Scaling, ...]] = ("1/k", "1/d")

_ROUNDING: Final = 1e-15  # of |W mu|: an adversary that small changes no digit


@dataclass(frozen=True)
class Risks:
    """Standard and adversarial risk of the standard-optimal and of the robust-optimal classifier."""

    standard_optimal_standard: float
    standard_optimal_adversarial: float
    robust_optimal_standard: float
    robust_optimal_adversarial: float

    @property
    def tradeoff(self) -> float:
        """AR(standard-optimal) - AR*: what is lost by not training against the adversary."""
        return self.standard_optimal_adversarial - self.robust_optimal_adversarial

    @property
    def price(self) -> float:
        """AR* - SR*: what the adversary costs even the classifier made for it."""
        return self.robust_optimal_adversarial - self.standard_optimal_standard


class RobustShift(NamedTuple):
    """The adversary's best common shift z*, of shape (k,), and the rule against it: weights theta, of shape (d,).

    W'theta = mu - z*. ``gap`` is the distance between the two bounds of AR* that they prove: Phi(-|mu - z*|) from
    below, by the shift, and the adversarial risk of sign(theta'x) from above.
    """

    shift: Vector
    weights: Vector
    gap: float


def gaussian_mixture_risks(mu: ArrayLike, W: ArrayLike, epsilon: float, p: float = 2) -> Risks:  # noqa: N803
    """Compute the risks of the Gaussian mixture, phi = identity, in closed form (p = 2) or by convex programming (inf).

    ``mu`` has shape (k,), ``W`` (d, k). Raises InputError for mu = 0, k > d, W without full column rank, epsilon < 0
    and any other p.

    >>> gaussian_mixture_risks([1.0, 0.0], np.eye(3, 2), 0.5).robust_optimal_adversarial  # Phi(-0.5)
    0.308537538725...
    """
    mean, features, epsilon = checked_model(mu, W, epsilon)
    standard = np.linalg.pinv(features).T @ mean
    best = linear_risks(standard, mean, features, epsilon, p)
    robust = robust_shift(mean, features, epsilon, p)
    if not robust.weights.any():  # the adversary makes the classes alike: nothing beats guessing, whose AR is 1/2
        return Risks(*best, 0.5, 0.5)
    return Risks(*best, *linear_risks(robust.weights, mean, features, epsilon, p))


def linear_risks(
    theta: ArrayLike,
    mu: ArrayLike,
    W: ArrayLike,  # noqa: N803
    epsilon: float,
    p: float = 2,
) -> tuple[float, float]:
    """Return (SR, AR) of the rule sign(theta'x) for the Gaussian mixture, phi = identity and any p from 1 to inf.

    The worst shift lowers the margin y theta'x by epsilon times the dual norm of theta.
    """
    mean, features, epsilon = checked_model(mu, W, epsilon)
    weights = numbers(theta, 1, "theta")
    seen = features.T @ weights
    size = float(np.linalg.norm(seen))
    if size == 0:
        raise expected("theta that sees the data", "W'theta = 0", "choose one in the column space of W")
    margin = float(seen @ mean)
    return float(ndtr(-margin / size)), float(ndtr((epsilon * dual_norm(weights, p) - margin) / size))


def dual_norm(theta: Vector, p: float) -> float:
    """Return the l_q norm, 1/p + 1/q = 1: the most theta'delta can be for |delta|_p <= 1."""
    if not p >= 1:
        raise expected("a norm p from 1 to infinity", str(p), "use 2 or math.inf")
    order = math.inf if p == 1 else 1.0 if math.isinf(p) else p / (p - 1)
    return float(np.linalg.norm(theta, order))


def robust_shift(mu: ArrayLike, W: ArrayLike, epsilon: float, p: float = 2) -> RobustShift:  # noqa: N803
    """Find the robust-optimal rule: project mu onto {z : |W z|_p <= epsilon}, p = 2 or inf.

    p = 2: one root in the eigenbasis of W'W. p = inf: a projection onto a polytope, solved as non-negative least
    squares (Lawson and Hanson's least-distance programming); its multipliers are the rule, with at most k weights
    that are not 0.
    """
    mean, features, epsilon = checked_model(mu, W, epsilon)
    if p not in (2, math.inf):
        raise expected("p = 2 or inf", f"p = {p}", "for other norms use linear_risks with a theta of your own")
    size = float(np.linalg.norm(features @ mean, p))
    if size <= epsilon:
        return RobustShift(mean, np.zeros(len(features)), 0.0)
    tried = [(np.linalg.pinv(features).T @ mean, np.zeros_like(mean))]  # the standard-optimal rule, and no shift
    if epsilon > _ROUNDING * size:
        tried += (_robust_ball if p == 2 else _robust_cube)(mean, features, epsilon)
    # Each pair proves two bounds, whatever rounding did to it: a rule's risk, and a shift's once it is in the ball. To
    # guess is a rule as well, and all that is left against an adversary that just not makes the classes alike.
    rules = [(0.5, np.zeros(len(features)))]
    rules += [
        (linear_risks(theta, mean, features, epsilon, p)[1], theta) for theta, _ in tried if any(features.T @ theta)
    ]
    above, weights = min(rules, key=lambda rule: rule[0])
    shifts = [_into_ball(shift, features, epsilon, p) for _, shift in tried]
    shift = min(shifts, key=lambda one: float(np.linalg.norm(mean - one)))
    return RobustShift(shift, weights, above - float(ndtr(-np.linalg.norm(mean - shift))))


def _into_ball(shift: Vector, features: Matrix, epsilon: float, p: float) -> Vector:
    """Shrink a shift until |W z|_p is at most epsilon, with as much to spare as rounding can make of the product."""
    rounding = len(shift) * np.finfo(float).eps * np.linalg.norm(np.abs(features) @ np.abs(shift), p)
    size = float(np.linalg.norm(features @ shift, p) + rounding)
    return shift * min(1.0, epsilon / max(size, 1e-300))


Candidates = list[tuple[Vector, Vector]]
"""Rules' weights, (d,), and the shifts they belong to, (k,)."""


def _robust_ball(mean: Vector, features: Matrix, epsilon: float) -> Candidates:
    left, singular, right = np.linalg.svd(features, full_matrices=False)
    coordinates, gram = right @ mean, singular**2

    def excess(log_multiplier: float) -> float:
        shifted = coordinates / (1 + math.exp(log_multiplier) * gram)
        return float(gram @ shifted**2) / epsilon**2 - 1

    # |W z| is between |W mu| / (1 + multiplier times the largest and the least of gram): so is the root.
    beyond = max(math.sqrt(gram @ coordinates**2) / epsilon - 1, 1e-16)
    lowest, highest = math.log(beyond / gram.max()) - 1, math.log(beyond / gram.min()) + 1
    # Against an adversary just not strong enough to make the classes alike, rounding can leave no root.
    found = excess(lowest) > 0
    multiplier = math.exp(float(brentq(excess, lowest, highest, xtol=1e-14, rtol=1e-14)) if found else lowest)
    shrunk = coordinates / (1 + multiplier * gram)
    # mu - z* = multiplier G z*, so that theta = multiplier W z* has W'theta = mu - z*.
    return [(np.asarray(left @ (multiplier * singular * shrunk)), np.asarray(shrunk @ right))]


def _robust_cube(mean: Vector, features: Matrix, epsilon: float) -> Candidates:
    seen = features @ mean
    # With w = z - mu: the least |w| under -W w >= W mu - epsilon and W w >= -W mu - epsilon.
    both = np.concatenate([-features, features])
    level = np.concatenate([seen - epsilon, -seen - epsilon])
    system = np.vstack([both.T, level])
    target = np.zeros(len(system))
    target[-1] = 1
    dual, _ = nnls(system, target, maxiter=50 * len(level))
    multipliers = dual / (1 - level @ dual)
    upper, lower = np.split(multipliers, 2)
    weights = np.asarray(upper - lower)
    # The faces that hold z* are known now: solving for it once more, with them alone, loses fewer digits.
    held = weights != 0
    faces = features[held]
    back = np.linalg.lstsq(faces, seen[held] - epsilon * np.sign(weights[held]), rcond=None)[0]
    refined = np.zeros_like(weights)
    refined[held] = np.linalg.lstsq(faces.T, back, rcond=None)[0]
    return [(weights, mean - features.T @ weights), (refined, mean - back)]


def draw_features(d: int, k: int, rng: np.random.Generator, scaling: Scaling = "1/k") -> Matrix:
    """Draw W of shape (d, k), entries normal with the variance that ``scaling`` names. Raises InputError for k > d."""
    count(d, count(k, 1, "a latent dimension k"), "an ambient dimension d (no less than k)")
    return rng.standard_normal((d, k)) / math.sqrt(k if scaling == "1/k" else d)


def draw_direction(k: int, norm: float, rng: np.random.Generator) -> Vector:
    """Draw a vector of shape (k,) with this norm and a uniformly random direction."""
    vector = rng.standard_normal(k)
    return np.asarray(vector * (norm / np.linalg.norm(vector)))


def checked_model(mu: ArrayLike, features: ArrayLike, epsilon: float) -> tuple[Vector, Matrix, float]:
    """Return mu, W and epsilon as arrays and a number. Raises InputError as :func:`gaussian_mixture_risks` says."""
    mean, matrix = mean_vector(mu), numbers(features, 2, "W")
    d, k = matrix.shape
    if k != len(mean):
        raise expected(f"W of shape (d, {len(mean)})", f"shape {matrix.shape}", "it has a column for each entry of mu")
    if k > d:
        raise expected("W with no more columns than rows", f"k = {k} > d = {d}", "the latent has to fit")
    rank = int(np.linalg.matrix_rank(matrix))
    if rank < k:
        raise expected(f"W of rank {k}", f"rank {rank}", "drop the columns that depend on others")
    return mean, matrix, radius(epsilon)
