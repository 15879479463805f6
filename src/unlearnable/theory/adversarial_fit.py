"""Linear and quadratic classifiers trained by the logistic loss, with or without an adversary.

Adversarial training minimises the mean over the samples of the largest loss within |delta|_p <= epsilon. The largest
loss is at the smallest margin, which is a formula for a linear rule and a trust-region problem with one unknown for a
quadratic one (p = 2); both training problems are convex, and solved as such.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import expit

from unlearnable.errors import expected
from unlearnable.theory.checks import Matrix, Vector, numbers, radius
from unlearnable.theory.latent import dual_norm

_NEWTON: Final = 60  # steps at most; some five are enough


class Rule(Protocol):
    """Decides by the sign of a function of x."""

    def worst_margin(self, x: Matrix, y: Vector, epsilon: float) -> Vector:
        """Return the least y f(x + delta) over |delta| <= epsilon for points of shape (n, d): (n,)."""
        ...


def risk(rule: Rule, x: ArrayLike, y: ArrayLike, epsilon: float = 0.0) -> float:
    """Return the share of points that the adversary can have misclassified; the standard risk for epsilon = 0.

    A function of 0 decides for +1: a rule that sees nothing, and training against a strong adversary can end with one,
    guesses and is not always wrong.
    """
    points, labels = _samples(x, y)
    margins = rule.worst_margin(points, labels, radius(epsilon))
    return float(np.mean(np.where(labels > 0, margins < 0, margins <= 0)))


@dataclass(frozen=True, eq=False)
class LinearRule:
    """sign(weights'x + bias), against an l_p adversary."""

    weights: Vector
    bias: float
    p: float = 2

    def worst_margin(self, x: Matrix, y: Vector, epsilon: float) -> Vector:
        return np.asarray(y * (x @ self.weights + self.bias) - epsilon * dual_norm(self.weights, self.p))


@dataclass(frozen=True, eq=False)
class QuadraticRule:
    """sign(x'matrix x + weights'x + bias), matrix symmetric, against an l_2 adversary."""

    matrix: Matrix
    weights: Vector
    bias: float

    def value(self, x: Matrix) -> Vector:
        """Return the function whose sign decides."""
        return np.asarray(np.einsum("ij,ij->i", x @ self.matrix, x) + x @ self.weights + self.bias)

    def worst_margin(self, x: Matrix, y: Vector, epsilon: float) -> Vector:
        return np.asarray(y * self.value(x + self.worst_shift(x, y, epsilon)))

    def worst_shift(self, x: Matrix, y: Vector, epsilon: float) -> Matrix:
        """Minimise y f(x + delta) over |delta|_2 <= epsilon, exactly: (n, d).

        delta = -(y matrix + multiplier I)^-1 gradient / 2, with the multiplier that puts it on the sphere, or 0 if
        it lies inside. Where the gradient has no part in the lowest eigenspace (the "hard case"), the rest of the
        way goes along it.
        """
        if epsilon == 0:
            return np.zeros_like(x)
        eigenvalues, basis = np.linalg.eigh(self.matrix)
        curvature = y[:, None] * eigenvalues
        gradient = y[:, None] * ((2 * x @ self.matrix + self.weights) @ basis)
        lowest = curvature.min(axis=1)
        # Each coordinate alone is within epsilon only from here on; 1 / |delta| rises and is nearly straight, so that
        # Newton's steps towards 1 / epsilon come from below and never pass it.
        multiplier = np.maximum(0.0, np.max(np.abs(gradient) / (2 * epsilon) - curvature, axis=1))
        for _ in range(_NEWTON):
            stiffness = curvature + multiplier[:, None]
            delta = np.divide(-0.5 * gradient, stiffness, out=np.zeros_like(gradient), where=stiffness > 0)
            square = np.sum(delta**2, axis=1)
            bend = np.sum(np.divide(delta**2, stiffness, out=np.zeros_like(delta), where=stiffness > 0), axis=1)
            outside = np.sqrt(square) / epsilon - 1
            if not (outside > 1e-13).any():
                break
            multiplier += np.divide(outside * square, bend, out=np.zeros_like(bend), where=(outside > 0) & (bend > 0))
        # Where something curves down the shift ends on the sphere: that tells the lowest coordinate best.
        rows, bottom = np.arange(len(x)), np.argmin(curvature, axis=1)
        side = np.where(delta[rows, bottom] < 0, -1.0, 1.0)
        others = delta.copy()
        others[rows, bottom] = 0.0
        reach = side * np.sqrt(np.maximum(epsilon**2 - np.sum(others**2, axis=1), 0.0))
        delta[rows, bottom] = np.where(lowest < 0, reach, delta[rows, bottom])
        return np.asarray(delta @ basis.T)


def fit_linear(x: ArrayLike, y: ArrayLike, epsilon: float = 0.0, *, p: float = 2, ridge: float = 1e-4) -> LinearRule:
    """Train a linear rule on points of shape (n, d) with labels -1 and +1, (n,).

    ``ridge`` weighs half the squared weights: it makes the minimum unique, and finite where the classes are separable.
    Raises InputError for other labels or epsilon < 0.
    """
    points, labels = _samples(x, y)
    epsilon, d = radius(epsilon), points.shape[1]

    def objective(theta: Vector) -> tuple[float, Vector]:
        weights = theta[:d]
        margin = LinearRule(weights, float(theta[d]), p).worst_margin(points, labels, epsilon)
        pull = -expit(-margin) / len(labels)
        slope = np.append((pull * labels) @ points - pull.sum() * epsilon * _dual_point(weights, p), pull @ labels)
        slope[:d] += ridge * weights
        return float(np.mean(np.logaddexp(0, -margin)) + 0.5 * ridge * weights @ weights), slope

    theta = _minimise(objective, np.append(labels @ points / len(labels), 0.0))
    return LinearRule(theta[:d], float(theta[d]), p)


def fit_quadratic(x: ArrayLike, y: ArrayLike, epsilon: float = 0.0, *, ridge: float = 1e-3) -> QuadraticRule:
    """Train a quadratic rule, as :func:`fit_linear`; p = 2. The cost of a step is O(n d^2 + d^3)."""
    points, labels = _samples(x, y)
    epsilon, d = radius(epsilon), points.shape[1]

    def rule(theta: Vector) -> QuadraticRule:
        square = theta[: d * d].reshape(d, d)
        return QuadraticRule(0.5 * (square + square.T), theta[d * d : -1], float(theta[-1]))

    def objective(theta: Vector) -> tuple[float, Vector]:
        now = rule(theta)
        moved = points + now.worst_shift(points, labels, epsilon)
        margin = labels * now.value(moved)
        pull = -expit(-margin) * labels / len(labels)  # by Danskin's theorem, delta is held still
        slope = np.concatenate([((moved.T * pull) @ moved).ravel(), pull @ moved, [pull.sum()]])
        slope[:-1] += ridge * theta[:-1]
        return float(np.mean(np.logaddexp(0, -margin)) + 0.5 * ridge * theta[:-1] @ theta[:-1]), slope

    return rule(_minimise(objective, np.zeros(d * d + d + 1)))


def _minimise(objective: Callable[[Vector], tuple[float, Vector]], start: Vector) -> Vector:
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 300, "ftol": 1e-10})
    return np.asarray(found.x, dtype=np.float64)


def _dual_point(weights: Vector, p: float) -> Vector:
    """Return a subgradient of the dual norm, p = 2 or inf."""
    if p == 2:
        return np.asarray(weights / max(float(np.linalg.norm(weights)), 1e-300))
    if np.isinf(p):
        return np.asarray(np.sign(weights))
    raise expected("p = 2 or inf", f"p = {p}", "training is written for these two")


def _samples(x: ArrayLike, y: ArrayLike) -> tuple[Matrix, Vector]:
    points, labels = numbers(x, 2, "the points x"), numbers(y, 1, "the labels y")
    if len(points) != len(labels):
        raise expected(f"{len(points)} labels, one a point", str(len(labels)), "give as many labels as points")
    if not np.isin(labels, (-1, 1)).all():
        raise expected("labels -1 and +1", str(np.unique(labels)[:4]), "map the two classes to them")
    return points, labels
