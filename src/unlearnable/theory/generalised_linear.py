"""The generalised linear model of latent.py: labels drawn with a probability that depends on one direction of z.

z ~ N(0, I), P(y = 1 | z) = f(beta'z), x = W z, and an adversary who moves x by at most epsilon in l_p. No closed form
of the least adversarial risk AR* is known; it is enclosed. From above by linear rules with a threshold: an adversary
makes it worth giving one class up in part. From below by transport: of whatever part of the two classes an adversary
can move onto each other, every classifier loses half; moving along one direction of z is enough for a proof. If W'W is
a multiple of the identity and p = 2, the two bounds are one number: AR*.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, ndtr

from unlearnable.errors import expected
from unlearnable.theory.checks import Matrix, Vector
from unlearnable.theory.latent import checked_model, dual_norm, robust_shift

Link = Callable[[NDArray[np.float64]], NDArray[np.float64]]

_FAR: Final = 9.0  # standard deviations; a normal number is beyond with probability 1e-19
_HERMITE: Final = np.polynomial.hermite_e.hermegauss(48)
_LEGENDRE: Final = np.polynomial.legendre.leggauss(12)
_GRID: Final = 400  # places where a line's threshold is looked for, before each find is refined
_DIRECTIONS: Final = 10  # tried, before the best is refined


@dataclass(frozen=True)
class LinkRisks:
    """Risks of the standard-optimal rule and of the best linear rule, and what no classifier can go below.

    AR* lies between ``least_adversarial`` and ``best_linear_adversarial``. The best linear rule has a ``threshold``, in
    standard deviations of its score; its mirror image is as good.
    """

    standard: float
    adversarial: float
    best_linear_standard: float
    best_linear_adversarial: float
    threshold: float
    least_adversarial: float


class _View(NamedTuple):
    """A direction of z: the correlation of beta'z with it, and how far an adversary moves along it."""

    correlation: float
    reach: float


def generalised_linear_risks(
    beta: ArrayLike,
    W: ArrayLike,  # noqa: N803
    epsilon: float,
    link: Link = expit,
    p: float = 2,
) -> LinkRisks:
    """Compute the risks of the generalised linear model by quadrature, phi = identity.

    ``beta`` has shape (k,), W (d, k); ``link`` maps beta'z to P(y = 1), rises, and has f(t) + f(-t) = 1. Raises
    InputError as :func:`latent.gaussian_mixture_risks`, and for a link that is none.

    The standard-optimal rule is sign(beta'z). For p = 2 the best linear rule is sought over all directions of which no
    other has both a larger correlation with beta'z and a shorter reach; for p = inf over those of them that convex
    programming finds, so that it is an upper bound.
    """
    slope, features, epsilon = checked_model(beta, W, epsilon)
    _check_link(link)
    size = float(np.linalg.norm(slope))
    rules, moves = (_ball_views if p == 2 else _cube_views)(slope, features, epsilon, p)
    plain = rules(0.0)
    standard = 2 * _wrong(0.0, 1.0, size, link)
    away, threshold = _best_linear(rules, size, link)
    best = rules(away)
    return LinkRisks(
        standard=standard,
        adversarial=2 * _wrong(plain.reach, 1.0, size, link),
        best_linear_standard=_linear_risk(threshold, best._replace(reach=0.0), size, link),
        best_linear_adversarial=_linear_risk(threshold, best, size, link),
        threshold=threshold,
        least_adversarial=max(standard, _largest_transport(moves, size, link)),
    )


def _check_link(link: Link) -> None:
    t = np.linspace(-4.0, 4.0, 9)
    values = np.asarray(link(t))
    if values.shape != t.shape or not (np.diff(values) >= 0).all() or not np.allclose(values + values[::-1], 1):
        raise expected("a link that rises and has f(t) + f(-t) = 1", f"{values[:3]} at {t[:3]}", "use expit or ndtr")


Views = tuple[Callable[[float], _View], Callable[[float], _View]]
"""Rules from the standard-optimal one, at 0, to the one of the shortest reach, at 1; and an adversary's moves."""


def _ball_views(slope: Vector, features: Matrix, epsilon: float, p: float) -> Views:
    """Return them for p = 2, where they are (G^-1 + nu I)^-1 beta and (G + nu I)^-1 beta, G = W'W."""
    gram, basis = np.linalg.eigh(features.T @ features)
    coordinates, size = basis.T @ slope, float(np.linalg.norm(slope))

    def rule(away: float) -> _View:
        direction = coordinates * (1 - away) / ((1 - away) + away * (gram.max() / gram - 1))
        direction = direction / np.linalg.norm(direction)
        return _View(float(direction @ coordinates) / size, epsilon * math.sqrt(np.sum(direction**2 / gram)))

    def move(away: float) -> _View:
        direction = coordinates / ((1 - away) * gram + away * gram.mean())
        direction = direction / np.linalg.norm(direction)
        return _View(float(direction @ coordinates) / size, epsilon / math.sqrt(np.sum(direction**2 * gram)))

    return rule, move


def _cube_views(slope: Vector, features: Matrix, epsilon: float, p: float) -> Views:
    """Return them for p = inf, from the projections of beta onto {z : |W z| <= radius}."""
    size, whole = float(np.linalg.norm(slope)), float(np.linalg.norm(features @ slope, p))

    def rule(away: float) -> _View:
        weights = robust_shift(slope, features, min(away, 1 - 1e-6) * whole, p).weights
        direction = features.T @ weights
        scale = float(np.linalg.norm(direction))
        return _View(float(direction @ slope) / (scale * size), epsilon * dual_norm(weights, p) / scale)

    def move(away: float) -> _View:
        direction = robust_shift(slope, features, max(away, 1e-3) * whole, p).shift
        scale = float(np.linalg.norm(direction))
        reach = epsilon * scale / float(np.linalg.norm(features @ direction, p))
        return _View(float(direction @ slope) / (scale * size), reach)

    return rule, move


def _wrong(cut: float | Vector, correlation: float, size: float, link: Link) -> float:
    """Return P(y = 1, s <= cut), s standard normal and correlated with beta'z, which has the deviation ``size``.

    That is E[f(t) P(s <= cut | t)]: the link turns at t = 0, the other factor where s is expected at the cut.
    """
    rest = max(math.sqrt(max(0.0, 1 - correlation**2)), 1e-12)
    turn = min(max(cut / max(correlation, 1e-12), -_FAR), _FAR)
    t, mass = _graded(np.array(sorted((-_FAR, 0.0, turn, _FAR))))
    return float(np.sum(mass * _normal(t) * link(size * t) * ndtr((cut - correlation * t) / rest)))


def _linear_risk(threshold: float, view: _View, size: float, link: Link) -> float:
    """Return the adversarial risk of sign(s - threshold). By symmetry both classes are told with one function."""
    return sum(_wrong(view.reach + side * threshold, view.correlation, size, link) for side in (1, -1))


def _best_linear(rules: Callable[[float], _View], size: float, link: Link) -> tuple[float, float]:
    """Return the place among the rules, and the threshold, with the least adversarial risk."""

    def risk(place: Vector) -> float:
        away, threshold = float(np.clip(place[0], 0, 1 - 1e-9)), abs(float(place[1]))
        return _linear_risk(threshold, rules(away), size, link)

    tried = []
    for away in np.linspace(0, 1, _DIRECTIONS, endpoint=False):
        view = rules(float(away))
        for share in (0.0, 0.3, 0.6, 0.9, 1.2):
            threshold = share * min(view.reach, _FAR)
            tried.append((_linear_risk(threshold, view, size, link), float(away), threshold))
    _, away, threshold = min(tried)
    around = [(away, threshold), (away + 0.05, threshold), (away, threshold + 0.2)]
    options = {"initial_simplex": around, "xatol": 1e-6, "fatol": 1e-11, "maxfev": 150}
    found = minimize(risk, around[0], method="Nelder-Mead", options=options)
    best = min(((0.0, 0.0), (away, threshold), tuple(found.x)), key=lambda place: risk(np.array(place)))
    return float(np.clip(best[0], 0, 1 - 1e-9)), abs(float(best[1]))


def _largest_transport(moves: Callable[[float], _View], size: float, link: Link) -> float:
    """Return the best lower bound of AR* that moving along one direction proves."""

    def loss(away: float) -> float:
        return -_transport(moves(away), size, link)

    tried = np.linspace(0, 1, _DIRECTIONS)
    best = float(min(tried, key=loss))
    span = (max(best - tried[1], 0.0), min(best + tried[1], 1.0))
    found = minimize_scalar(loss, bounds=span, method="bounded", options={"xatol": 1e-5, "maxiter": 25})
    return -min(float(found.fun), loss(best))


def _transport(view: _View, size: float, link: Link) -> float:
    """Return half the mass that can be matched between the classes along lines, each point moved by the reach at most.

    On a line, of place s, the two classes have the densities N(s) f(+-(a s + o)). By Strassen's theorem the mass that
    can be matched within 2 reach is the least, over sets, of what is outside one in the first class and within 2 reach
    of it in the second; as the first class is denser right of one point and the second left of it, half-lines are
    enough. The offset o is normal; it comes from what of beta'z does not lie along the line.
    """
    along, reach = view.correlation * size, min(view.reach, 2 * _FAR)
    offsets, share = _HERMITE
    offsets = offsets * math.sqrt(max(0.0, 1 - view.correlation**2)) * size

    def below(cut: Vector, offset: Vector, side: int) -> Vector:
        """Return the mass of one class left of a cut: (n,) for cuts and offsets of shape (n,)."""
        cut = np.clip(cut, -_FAR, _FAR)
        turn = np.clip(-offset / max(along, 1e-12), -_FAR, cut)
        s, mass = _graded(np.stack([np.full_like(cut, -_FAR), turn, cut], axis=-1))
        return np.asarray(np.sum(mass * _normal(s) * link(side * (along * s + offset[..., None])), axis=-1))

    def slope(cut: NDArray[np.float64], offset: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the derivative, by the half-line's end, of what is matched."""
        back = cut - 2 * reach
        return np.asarray(
            _normal(cut) * link(along * cut + offset) - _normal(back) * link(-(along * back + offset)), np.float64
        )

    everything = np.full_like(offsets, _FAR)
    second = below(everything, offsets, -1)
    least = np.minimum(below(everything, offsets, 1), second)
    cuts = np.linspace(-_FAR, _FAR + 2 * reach, _GRID)
    rising = slope(cuts, offsets[:, None])
    row, column = np.nonzero((rising[:, :-1] < 0) & (rising[:, 1:] >= 0))
    low, high, offset = cuts[column], cuts[column + 1], offsets[row]
    for _ in range(50):
        middle = 0.5 * (low + high)
        falls = slope(middle, offset) < 0
        low, high = np.where(falls, middle, low), np.where(falls, high, middle)
    matched = below(high, offset, 1) + second[row] - below(high - 2 * reach, offset, -1)
    np.minimum.at(least, row, matched)
    return float(least @ share / share.sum())


def _normal(t: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.exp(-0.5 * t**2) / math.sqrt(2 * math.pi))


def _unit_panels() -> tuple[Vector, Vector]:
    """Return nodes and weights for (0, 1], in ever shorter panels towards 0: edges as sharp as 1e-10 are seen there."""
    nodes, weights = _LEGENDRE
    ends = np.concatenate([[0.0], 3.0 ** np.arange(-20, 1)])
    half = 0.5 * np.diff(ends)[:, None]
    return (ends[:-1, None] + half * (nodes + 1)).ravel(), (half * weights).ravel()


_UNIT: Final = _unit_panels()


def _graded(cuts: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return nodes and weights between cuts of shape (..., m), in ascending order, finer towards each of them."""
    unit, weight = _UNIT
    half = 0.5 * np.diff(cuts)[..., None]
    nodes = np.concatenate([cuts[..., :-1, None] + half * unit, cuts[..., 1:, None] - half * unit], axis=-1)
    mass = np.concatenate([half * weight, half * weight], axis=-1)
    flat = (*cuts.shape[:-1], half.shape[-2] * 2 * len(unit))
    return nodes.reshape(flat), mass.reshape(flat)
