"""The probability that a quadratic form of independent normal numbers is positive.

The Gil-Pelaez inversion integral, taken along a path through the saddle point rather than along the real axis: there
the integrand has one peak and hardly oscillates, so that some dozens of nodes are enough in ten dimensions as in ten
thousand, and a probability of 1e-200 has as many right digits as one of 0.3.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

Vector = NDArray[np.float64]

_BEND: Final = math.pi / 8  # of the path against the vertical; below pi/4, where a Gaussian part would grow
_NEGLIGIBLE: Final = 1e-19  # of the peak: where the path is cut; beyond, the integrand falls at least like exp(-s / 2)
_UNDERFLOW: Final = -744.0  # exp of it is the smallest positive float64
_FURTHEST: Final = 1e70  # a saddle, where it has nothing to be near to; its fourth power is a float64
_LONGEST: Final = 300.0  # path, in s; with one dimension and no constant it is about 90
_HALVINGS: Final = 8  # of the step
_BLOCK: Final = 1 << 18  # numbers held at a time, so that memory does not grow with the number of nodes


class Probability(NamedTuple):
    """A probability, and an estimate of how far it can be from the truth."""

    value: float
    error: float


@dataclass(frozen=True, eq=False)
class QuadraticForm:
    """Q = sum of curvature_i x_i^2 + slope_i x_i, plus a constant, for independent x_i ~ N(mean_i, 1).

    ``curvature``, ``slope`` and ``mean`` are float64 of shape (d,).

    >>> square = QuadraticForm(np.ones(1), np.zeros(1), np.zeros(1), -1.0)
    >>> round(square.positive().value, 6)  # P(x^2 > 1)
    0.317311
    """

    curvature: Vector
    slope: Vector
    mean: Vector
    constant: float

    def __neg__(self) -> "QuadraticForm":
        return QuadraticForm(-self.curvature, -self.slope, self.mean, -self.constant)

    @cached_property
    def _level(self) -> Vector:
        """Each term at the mean of its x."""
        return (self.curvature * self.mean + self.slope) * self.mean

    @cached_property
    def _gradient(self) -> Vector:
        """The derivative of each term at the mean of its x."""
        return 2 * self.curvature * self.mean + self.slope

    @property
    def expectation(self) -> float:
        """The mean of Q."""
        return float(np.sum(self.curvature + self._level)) + self.constant

    def cumulant(self, t: NDArray[np.complex128]) -> NDArray[np.complex128]:
        """Return log E exp(tQ) for complex t of shape (nodes,), off the real half-lines where it is singular.

        The discriminant slope^2 of a term does not change with the mean: written with it, nothing cancels even where
        curvatures differ by fourteen orders of magnitude.
        """
        total = t * self.constant
        for start in range(0, len(self.curvature), step := max(1, _BLOCK // len(t))):
            part = slice(start, start + step)
            rest = 1 - 2 * t[:, None] * self.curvature[part]
            # A path that crosses the real axis between the singularities never winds round one of them, so that
            # the principal logarithm is the right branch everywhere on it.
            terms = t[:, None] * (self._level[part] + 0.5 * t[:, None] * self.slope[part] ** 2) / rest
            total = total + np.sum(terms - 0.5 * np.log(rest), axis=1)
        return total

    def first(self, t: complex) -> complex:
        """Return the first derivative of the cumulant function."""
        rest = 1 - 2 * t * self.curvature
        terms = self.curvature / rest + (self._level + self.slope**2 * t * (1 - t * self.curvature)) / rest**2
        return complex(np.sum(terms)) + self.constant

    def second(self, t: float) -> float:
        """Return the second derivative of the cumulant function at a real t; at 0 that is the variance of Q."""
        rest = 1 - 2 * t * self.curvature
        return float(np.sum(2 * (self.curvature / rest) ** 2 + self._gradient**2 / rest**3))

    @cached_property
    def saddle(self) -> float:
        """The real t at which E exp(tQ) is least; infinite where Q cannot have the sign of t."""
        if self.expectation == 0:
            return 0.0
        sign = -math.copysign(1.0, self.expectation)  # the cumulant function falls, at first, towards this side
        steepest = float(np.max(sign * self.curvature))
        if steepest <= 0 and sign * self._extreme() <= 0:
            return sign * math.inf
        wall = 0.5 / steepest if steepest > 0 else math.inf  # where it is infinite
        near, far = 0.0, min(0.5 * wall, 1 / math.sqrt(self.second(0.0)))
        while near < far < min(wall, _FURTHEST) and sign * self.first(sign * far).real < 0:
            near, far = far, min(2 * far, 0.5 * (far + wall))
        if not near < far < min(wall, _FURTHEST):
            return sign * near
        return sign * float(brentq(lambda t: sign * self.first(sign * t).real, near, far, xtol=1e-12 * (near or far)))

    def _extreme(self) -> float:
        """Return the least or largest value of Q, whose curvatures have one sign; infinite if a term is linear."""
        flat = self.curvature == 0
        if self.slope[flat].any():
            return math.copysign(math.inf, -self.expectation)
        with np.errstate(over="ignore"):  # a curvature of 1e-310 is flat too
            return self.constant - float(np.sum(self.slope[~flat] ** 2 / (4 * self.curvature[~flat])))

    def log_chernoff(self) -> float:
        """Return the logarithm of an upper bound of P(Q >= 0): the least E exp(tQ) over t >= 0."""
        if self.saddle <= 0:
            return 0.0
        if math.isinf(self.saddle):
            return -math.inf
        return min(0.0, float(self.cumulant(np.array([self.saddle + 0j]))[0].real))

    def positive(self, tolerance: float = 1e-13) -> Probability:
        """Return P(Q > 0), to about ``tolerance`` times the smaller of P(Q > 0) and P(Q < 0).

        Raises ArithmeticError if the quadrature has not converged to 1e-9 of it, which no case tried has led to.
        """
        if self.second(0.0) == 0:
            return Probability(float(self.constant > 0), 0.0)
        if math.isinf(self.saddle):
            return Probability(float(self.saddle < 0), 0.0)
        # The integrand has a pole at t = 0: the path keeps half a standard deviation away from it.
        scale = 1 / math.sqrt(self.second(self.saddle))
        cross = math.copysign(max(abs(self.saddle), 0.5 * scale), self.saddle)
        peak = float(self.cumulant(np.array([cross + 0j]))[0].real)
        if peak < _UNDERFLOW:
            return Probability(float(cross < 0), 0.0)
        tail, error = self._integrate(cross, scale, peak, tolerance)
        tail, error = abs(math.exp(peak) * tail), math.exp(peak) * error
        return Probability(tail if cross > 0 else 1 - tail, error)

    def _integrate(self, cross: float, scale: float, peak: float, tolerance: float) -> tuple[float, float]:
        """Integrate exp(cumulant - peak) / (2 pi i t) dt along a hyperbola through ``cross``.

        The trapezoidal rule in the hyperbola's parameter s converges geometrically: its step is halved until a
        halving changes nothing more. Returns the integral, and that change plus what rounding can have done.
        """
        bend, length = self._route(cross, scale, peak)

        def integrand(s: Vector) -> Vector:
            t = _path(cross, scale, bend, s)
            speed = scale * (-math.sin(bend) * np.sinh(s) + 1j * math.cos(bend) * np.cosh(s))
            return np.asarray((np.exp(self.cumulant(t) - peak) * speed / t).imag / math.pi)

        panels, step = math.ceil(4 * length), 0.25
        values = integrand(step * np.arange(float(panels)))
        total = step * float(values.sum() - 0.5 * values[0])  # the path's other half is the mirror image
        rounding = 2.0**-52 * (10 + abs(peak))
        for _ in range(_HALVINGS):
            finer = 0.5 * (total + step * float(integrand(step * np.arange(0.5, panels)).sum()))
            panels, step = 2 * panels, 0.5 * step
            change, total = abs(finer - total), finer
            if change <= max(tolerance, rounding) * abs(total):
                break
        if change > 1e-9 * abs(total):
            raise ArithmeticError(f"the inversion integral does not converge (saddle {self.saddle}, change {change})")
        return total, change + rounding * abs(total)

    def _route(self, cross: float, scale: float, peak: float) -> tuple[float, float]:
        """Return the angle by which the path leaves the vertical, and the s at which it can end.

        It leaves to the side where exp(tQ) dies out first; to the other side that can fall for a while too, and then
        grow without bound.
        """
        gone = peak + math.log(_NEGLIGIBLE * min(1.0, scale / abs(cross)))
        for start in np.arange(0.0, _LONGEST, 4.0):
            s = start + np.arange(0.5, 4.5, 0.5)
            right, left = (self.cumulant(_path(cross, scale, bend, s)).real for bend in (-_BEND, _BEND))
            if (ends := np.flatnonzero(np.minimum(left, right) < gone)).size:
                end = int(ends[0])
                return _BEND if left[end] < right[end] else -_BEND, float(s[end])
        return _BEND, _LONGEST


def _path(cross: float, scale: float, bend: float, s: Vector) -> NDArray[np.complex128]:
    """Return points of a hyperbola that crosses the real axis at s = 0: to the left for a bend > 0."""
    return np.asarray(cross + scale * (math.sin(bend) * (1 - np.cosh(s)) + 1j * math.cos(bend) * np.sinh(s)))
