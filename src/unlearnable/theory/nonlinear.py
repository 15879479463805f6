"""Gaussian mixtures seen through a curve: x = phi(W z), phi not the identity; risks by drawing, and by gradient attack.

The rule is sign(theta'phi^-1(x)): the standard-optimal one, theta = W G^-1 mu with G = W'W, or any other of that form.
What is best against an adversary is not known for such phi. How much one can do to a rule is enclosed: from below by
what projected gradient steps find, from above by a proof.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unlearnable.errors import expected
from unlearnable.theory.checks import Matrix, count, numbers
from unlearnable.theory.gaussian_mixture import Estimate, interval
from unlearnable.theory.latent import checked_model, dual_norm

Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]

_NEWTON: Final = 100  # steps at most; fewer than ten where phi is smooth


@dataclass(frozen=True)
class Surface:
    """A phi that is applied to each coordinate: it rises, with ``slope``, by at least ``least_slope`` everywhere.

    >>> bent = Surface(phi=lambda t: t + t**3, slope=lambda t: 1 + 3 * t**2, least_slope=1.0)
    >>> bent.inverse(np.array([10.0, -2.0])).round(12).tolist()
    [2.0, -1.0]
    """

    phi: Curve
    slope: Curve
    least_slope: float

    def __post_init__(self) -> None:
        """Raise InputError for a phi that does not rise."""
        if not 0 < self.least_slope < math.inf:
            found = str(self.least_slope)
            raise expected("a least slope > 0", found, "phi has to rise, so that a shift of x is a bounded one of Wz")

    def inverse(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the t with phi(t) = x: Newton's method, and bisection wherever it would leave the bracket."""
        far = (x - self.phi(np.zeros(1))) / self.least_slope
        low, high = np.minimum(far, 0.0), np.maximum(far, 0.0)
        t = 0.5 * far
        for _ in range(_NEWTON):
            over = self.phi(t) - x
            low, high = np.where(over < 0, t, low), np.where(over > 0, t, high)
            step = t - over / self.slope(t)
            step = np.where((low <= step) & (step <= high), step, 0.5 * (low + high))
            moved, t = np.abs(step - t) > 1e-10 * np.abs(step), step  # the next step would be 1e-20
            if not moved.any():
                break
        return np.asarray(t)


LEAKY_TANH: Final = Surface(
    phi=lambda t: 0.25 * t + 0.75 * np.tanh(t), slope=lambda t: 1 - 0.75 * np.tanh(t) ** 2, least_slope=0.25
)
"""phi(t) = t / 4 + 3 tanh(t) / 4: bent where most of the data are, with slopes from 1/4 to 1."""


@dataclass(frozen=True)
class NonLinearRisks:
    """Risks of a rule by drawing; each is a share of the same draws, with its interval.

    AR lies between what gradient steps found (``attacked``) and what no shift can exceed (``certified``).
    """

    standard: Estimate
    attacked: Estimate
    certified: Estimate


def nonlinear_risks(
    mu: ArrayLike,
    W: ArrayLike,  # noqa: N803
    epsilon: float,
    *,
    surface: Surface = LEAKY_TANH,
    p: float = 2,
    theta: ArrayLike | None = None,
    samples: int = 2000,
    steps: int = 20,
    seed: int = 0,
) -> NonLinearRisks:
    """Attack sign(theta'phi^-1(x)) with projected gradient steps in x, p = 2 or inf, and bound what it can lose.

    ``theta`` has shape (d,); without it, the standard-optimal rule's. phi^-1 rises by at most 1 / least_slope a unit,
    which bounds the loss for p = 2. For p = inf the worst shift is known, as every coordinate has its own: the bound is
    what it does, and the adversarial risk exactly. Raises InputError as :func:`latent.gaussian_mixture_risks`.
    """
    mean, features, epsilon = checked_model(mu, W, epsilon)
    if p not in (2, math.inf):
        raise expected("p = 2 or inf", f"p = {p}", "the attack is written for these two")
    weights = np.linalg.pinv(features).T @ mean if theta is None else numbers(theta, 1, "theta")
    if len(weights) != len(features):
        raise expected(
            f"theta of shape ({len(features)},)", f"shape {weights.shape}", "it has a weight for each row of W"
        )
    count(samples, 1, "a number of samples")
    count(steps, 1, "a number of steps")
    rng = np.random.default_rng(count(seed, 0, "a seed"))
    labels = rng.choice([-1.0, 1.0], samples)
    clean = surface.phi((labels[:, None] * mean + rng.standard_normal((samples, len(mean)))) @ features.T)

    before = surface.inverse(clean)
    start = labels * (before @ weights)
    delta, worst = np.zeros_like(clean), start
    for _ in range(steps if epsilon else 0):
        gradient = -labels[:, None] * weights / surface.slope(before)  # of -margin, in x
        delta = _projected(delta + 2.5 * epsilon / steps * _steepest(gradient, p), epsilon, p)
        before = surface.inverse(clean + delta)
        worst = np.minimum(worst, labels * (before @ weights))
    if p == 2:
        least = start - epsilon * dual_norm(weights, p) / surface.least_slope
    else:
        least = labels * (surface.inverse(clean - epsilon * labels[:, None] * np.sign(weights)) @ weights)
    return NonLinearRisks(*(interval(int(np.sum(margins <= 0)), samples) for margins in (start, worst, least)))


def _steepest(gradient: Matrix, p: float) -> Matrix:
    """Return, for each row, the direction of norm 1 in which the function rises fastest."""
    return np.asarray(np.sign(gradient) if p != 2 else gradient / np.linalg.norm(gradient, axis=1, keepdims=True))


def _projected(delta: Matrix, epsilon: float, p: float) -> Matrix:
    """Return the points of the ball that are nearest."""
    if p != 2:
        return np.clip(delta, -epsilon, epsilon)
    return np.asarray(delta * np.minimum(1, epsilon / np.maximum(np.linalg.norm(delta, axis=1, keepdims=True), 1e-300)))
