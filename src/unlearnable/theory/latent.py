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
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq, minimize_scalar, nnls
from scipy.special import expit, ndtr

from unlearnable.errors import expected
from unlearnable.theory.checks import Matrix, Vector, count, mean_vector, numbers, radius
from unlearnable.theory.gaussian_mixture import Estimate, interval

Scaling = Literal["1/k", "1/d"]
"""Variance of W's entries: 1/k makes its smallest singular value grow with d/k, 1/d keeps it below 1."""

_HERMITE: Final = np.polynomial.hermite_e.hermegauss(80)
_LEGENDRE: Final = np.polynomial.legendre.leggauss(200)
_ROUNDING: Final = 1e-15  # of |W mu|: an adversary that small changes no digit
_FAR: Final = 9.0  # standard deviations; a normal number is beyond with probability 1e-19


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
    mean, features, epsilon = _checked(mu, W, epsilon)
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
    mean, features, epsilon = _checked(mu, W, epsilon)
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
    mean, features, epsilon = _checked(mu, W, epsilon)
    if p not in (2, math.inf):
        raise expected("p = 2 or inf", f"p = {p}", "for other norms use linear_risks with a theta of your own")
    size = float(np.linalg.norm(features @ mean, p))
    if size <= epsilon:
        weights = np.zeros(len(features))
    elif epsilon <= _ROUNDING * size:
        weights = np.linalg.pinv(features).T @ mean
    else:
        weights = (_robust_ball if p == 2 else _robust_cube)(mean, features, epsilon)
    direction = features.T @ weights
    if not weights.any():
        return RobustShift(mean, weights, 0.0)
    above = linear_risks(weights, mean, features, epsilon, p)[1]
    shift = mean - direction
    used = float(np.linalg.norm(features @ shift, p))
    if used > epsilon:  # rounding, or a solver that stopped early: only a shift inside the ball is a proof
        shift = shift * (epsilon / used)
    return RobustShift(shift, weights, above - float(ndtr(-np.linalg.norm(mean - shift))))


def _robust_ball(mean: Vector, features: Matrix, epsilon: float) -> Vector:
    left, singular, right = np.linalg.svd(features, full_matrices=False)
    coordinates, gram = right @ mean, singular**2

    def excess(log_multiplier: float) -> float:
        shifted = coordinates / (1 + math.exp(log_multiplier) * gram)
        return float(gram @ shifted**2) / epsilon**2 - 1

    # |W z| <= |W mu| / (1 + multiplier min(gram)): the root lies below the multiplier for which that is epsilon.
    size = math.sqrt(gram @ coordinates**2)
    highest = math.log(max(size / epsilon - 1, 1e-12) / gram.min()) + 1
    lowest = math.log(max(size / epsilon - 1, 1e-12) / gram.max()) - 1
    multiplier = math.exp(float(brentq(excess, lowest, highest, xtol=1e-14, rtol=1e-14)))
    # mu - z* = multiplier G z*, so that theta = multiplier W z* has W'theta = mu - z*.
    return np.asarray(left @ (multiplier * singular * coordinates / (1 + multiplier * gram)))


def _robust_cube(mean: Vector, features: Matrix, epsilon: float) -> Vector:
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
    return np.asarray(upper - lower)


def draw_features(d: int, k: int, rng: np.random.Generator, scaling: Scaling = "1/k") -> Matrix:
    """Draw W of shape (d, k), entries normal with the variance that ``scaling`` names. Raises InputError for k > d."""
    count(d, count(k, 1, "a latent dimension k"), "an ambient dimension d (no less than k)")
    return rng.standard_normal((d, k)) / math.sqrt(k if scaling == "1/k" else d)


def draw_direction(k: int, norm: float, rng: np.random.Generator) -> Vector:
    """Draw a vector of shape (k,) with this norm and a uniformly random direction."""
    vector = rng.standard_normal(k)
    return np.asarray(vector * (norm / np.linalg.norm(vector)))


@dataclass(frozen=True)
class LinkRisks:
    """Risks of the generalised linear model: the standard-optimal rule's, and the least AR of a *linear* rule.

    Whether another rule beats the best linear one is not known here: AR* lies between ``standard`` and
    ``best_linear_adversarial``.
    """

    standard: float
    adversarial: float
    best_linear_standard: float
    best_linear_adversarial: float


def generalised_linear_risks(
    beta: ArrayLike,
    W: ArrayLike,  # noqa: N803
    epsilon: float,
    link: Callable[[Vector], Vector] = expit,
) -> LinkRisks:
    """Compute the risks of the generalised linear model by quadrature, phi = identity, p = 2.

    ``beta`` has shape (k,); ``link`` maps beta'z to P(y = 1), rises, and has f(t) + f(-t) = 1. Raises InputError as
    :func:`gaussian_mixture_risks`. The standard-optimal rule is sign(beta'z), its margin in x is
    r = epsilon sqrt(beta'G^-1 beta), G = W'W; the least AR is sought over the rules (G^-1 + nu I)^-1 beta, which are
    those of the largest correlation with beta'z for their reach.
    """
    slope, features, epsilon = _checked(beta, W, epsilon)
    gram, basis = np.linalg.eigh(features.T @ features)
    coordinates, size = basis.T @ slope, float(np.linalg.norm(slope))

    def rule(away: float) -> tuple[float, float]:
        """Return (correlation with beta'z, reach of the adversary): from the standard rule, 0, to the last, 1."""
        direction = coordinates * (1 - away) / ((1 - away) + away * (gram.max() / gram - 1))
        direction = direction / np.linalg.norm(direction)
        return float(direction @ coordinates) / size, epsilon * math.sqrt(np.sum(direction**2 / gram))

    def adversarial(away: float) -> float:
        return _link_risk(*rule(away), size, link)

    standard, worst = _link_risk(1.0, 0.0, size, link), adversarial(0.0)
    tried = np.linspace(0, 1, 16, endpoint=False)
    near = tried[int(np.argmin([adversarial(away) for away in tried]))]
    span = (max(near - tried[1], 0.0), min(near + tried[1], 1 - 1e-9))
    found = minimize_scalar(adversarial, bounds=span, method="bounded", options={"xatol": 1e-9})
    least, away = min((float(found.fun), float(found.x)), (worst, 0.0))
    if least >= 0.5:  # guessing a constant is a linear rule too, with a threshold out of reach
        return LinkRisks(standard, worst, 0.5, 0.5)
    return LinkRisks(standard, worst, _link_risk(rule(away)[0], 0.0, size, link), least)


def _link_risk(correlation: float, reach: float, size: float, link: Callable[[Vector], Vector]) -> float:
    """Return the risk of sign(s), s normal and correlated with beta'z, when the adversary moves s by ``reach``.

    By symmetry 2 E[(1 - E[f(beta'z) | s]) 1{s >= -reach}], which for reach = 0 is the standard risk.
    """
    nodes, weights = _LEGENDRE
    start = max(-reach, -_FAR)
    cuts = np.array([start, *[cut for cut in (-1 / size, 0.0, 1 / size, 3.0) if cut > start], _FAR])
    s = (0.5 * np.diff(cuts)[:, None] * (nodes + 1) + cuts[:-1, None]).ravel()
    mass = (0.5 * np.diff(cuts)[:, None] * weights).ravel() * np.exp(-0.5 * s**2) / math.sqrt(2 * math.pi)
    noise, share = _HERMITE
    rest = math.sqrt(max(0.0, 1 - correlation**2))
    inner = 1 - link(size * (correlation * s[:, None] + rest * noise))
    return float(2 * mass @ (inner @ share) / share.sum())


def leaky_tanh(t: Vector) -> Vector:
    """Return t / 4 + 3 tanh(t) / 4: a phi that rises with a slope from 1/4 to 1."""
    return np.asarray(0.25 * t + 0.75 * np.tanh(t))


LEAKY_TANH_SLOPE: Final = 0.25


def _leaky_tanh_slope(t: Vector) -> Vector:
    return np.asarray(1 - 0.75 * np.tanh(t) ** 2)


def invert_leaky_tanh(x: Vector) -> Vector:
    """Return the t with leaky_tanh(t) = x: bisection between x and 4x, then Newton's method to the last bits."""
    low, high = np.minimum(x, 4 * x), np.maximum(x, 4 * x)
    for _ in range(16):
        middle = 0.5 * (low + high)
        below = leaky_tanh(middle) < x
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    found = 0.5 * (low + high)
    for _ in range(3):
        found = found - (leaky_tanh(found) - x) / _leaky_tanh_slope(found)
    return np.asarray(found)


@dataclass(frozen=True)
class NonLinearRisks:
    """Risks of the standard-optimal rule for x = phi(W z), phi = leaky_tanh, by drawing.

    AR lies between what PGD found (a lower bound) and what no shift of the latent can exceed (an upper bound); each is
    a share of the same draws, with its interval.
    """

    standard: Estimate
    attacked: Estimate
    certified: Estimate


def nonlinear_risks(
    mu: ArrayLike,
    W: ArrayLike,  # noqa: N803
    epsilon: float,
    *,
    samples: int = 2000,
    steps: int = 20,
    seed: int = 0,
) -> NonLinearRisks:
    """Attack the rule sign(theta'phi^-1(x)), theta = W G^-1 mu, with PGD in x (p = 2), and bound what it can lose.

    phi^-1 rises by at most 4 per unit, so that a shift of epsilon moves theta'phi^-1(x) by 4 epsilon |theta| at most.
    """
    mean, features, epsilon = _checked(mu, W, epsilon)
    count(samples, 1, "a number of samples")
    theta = np.linalg.pinv(features).T @ mean
    rng = np.random.default_rng(seed)
    labels = rng.choice([-1.0, 1.0], samples)
    clean = leaky_tanh((labels[:, None] * mean + rng.standard_normal((samples, len(mean)))) @ features.T)

    def margin(before: Matrix) -> Vector:
        return np.asarray(labels * (before @ theta))

    before = invert_leaky_tanh(clean)
    start = margin(before)
    delta, worst = np.zeros_like(clean), start
    for _ in range(steps if epsilon else 0):
        gradient = -labels[:, None] * theta / _leaky_tanh_slope(before)
        delta = delta + (2.5 * epsilon / steps) * gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
        delta *= np.minimum(1, epsilon / np.maximum(np.linalg.norm(delta, axis=1, keepdims=True), 1e-300))
        before = invert_leaky_tanh(clean + delta)
        worst = np.minimum(worst, margin(before))
    reach = epsilon * float(np.linalg.norm(theta)) / LEAKY_TANH_SLOPE
    return NonLinearRisks(*(interval(int(np.sum(bad)), samples) for bad in (start <= 0, worst <= 0, start <= reach)))


def _checked(mu: ArrayLike, features: ArrayLike, epsilon: float) -> tuple[Vector, Matrix, float]:
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
