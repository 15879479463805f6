"""A mixture of factor analysers: data near several k-dimensional planes, fitted by EM.

Ghahramani, Hinton, "The EM algorithm for mixtures of factor analyzers", CRG-TR-96-1, 1996. A point of component j is
mean_j + loadings_j z + noise, z ~ N(0, I_k), the noise with one variance a coordinate, the same for all components.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp

from unlearnable.errors import expected
from unlearnable.theory.checks import Matrix, Vector, count, numbers

LEAST_NOISE: Final = 1e-4
"""Variance below which no coordinate's noise falls: pixels that never change would have none."""


@dataclass(frozen=True, eq=False)
class FactorAnalysers:
    """``weights`` (m,), ``means`` (m, d), ``loadings`` (m, d, k), ``noise`` (d,) variances; ``history`` (iterations,).

    ``history`` holds the mean log-likelihood before each iteration of the fit.
    """

    weights: Vector
    means: Matrix
    loadings: np.ndarray[tuple[int, int, int], np.dtype[np.float64]]
    noise: Vector
    history: Vector

    def log_densities(self, x: Matrix) -> Matrix:
        """Return log(weight_j p_j(x)) for points of shape (n, d): (n, m)."""
        columns = []
        for weight, mean, loading in zip(self.weights, self.means, self.loadings, strict=True):
            factor = np.linalg.cholesky(loading @ loading.T + np.diag(self.noise))
            whitened = np.linalg.solve(factor, (x - mean).T)
            volume = 2 * np.log(np.diag(factor)).sum() + len(mean) * math.log(2 * math.pi)
            columns.append(math.log(weight) - 0.5 * (np.sum(whitened**2, axis=0) + volume))
        return np.stack(columns, axis=1)

    def sample(self, n: int, rng: np.random.Generator) -> Matrix:
        """Draw n points: (n, d)."""
        which = rng.choice(len(self.weights), size=n, p=self.weights)
        latent = rng.standard_normal((n, self.loadings.shape[2]))
        noise = rng.standard_normal((n, len(self.noise))) * np.sqrt(self.noise)
        return np.asarray(self.means[which] + np.einsum("ndk,nk->nd", self.loadings[which], latent) + noise)


def fit_factor_analysers(
    x: ArrayLike, components: int, factors: int, *, iterations: int = 30, seed: int = 0
) -> FactorAnalysers:
    """Fit a mixture to points of shape (n, d) by EM from a random start; the likelihood never falls.

    Raises InputError for more factors than coordinates, or fewer than two points a component.
    """
    points = numbers(x, 2, "the points x")
    n, d = points.shape
    count(components, 1, "a number of components")
    count(factors, 1, "a latent dimension")
    if factors > d:
        raise expected(f"at most {d} factors", str(factors), "a plane cannot have more dimensions than the space")
    count(n, 2 * components, "a number of points (two a component)")
    rng = np.random.default_rng(seed)
    spread = points.var(axis=0) + LEAST_NOISE
    model = FactorAnalysers(
        np.full(components, 1 / components),
        points[rng.choice(n, components, replace=False)],
        rng.standard_normal((components, d, factors)) * np.sqrt(spread / factors)[:, None],
        spread,
        np.empty(0),
    )
    history = []
    for _ in range(iterations):
        logs = model.log_densities(points)
        total = logsumexp(logs, axis=1)
        history.append(float(total.mean()))
        model = _improved(model, points, np.exp(logs - total[:, None]))
    return FactorAnalysers(model.weights, model.means, model.loadings, model.noise, np.array(history))


def _improved(model: FactorAnalysers, x: Matrix, shares: Matrix) -> FactorAnalysers:
    """Maximise over weights and means, then, with those, take one EM step in loadings and noise."""
    sizes = np.maximum(shares.sum(axis=0), 1e-8)
    means = (shares.T @ x) / sizes[:, None]
    loadings, noise = np.empty_like(model.loadings), np.zeros_like(model.noise)
    for j, loading in enumerate(model.loadings):
        centred = x - means[j]
        scatter = (centred.T * shares[:, j]) @ centred / sizes[j]
        covariance = loading @ loading.T + np.diag(model.noise)
        project = np.linalg.solve(covariance, loading).T
        second = np.eye(loading.shape[1]) - project @ loading + project @ scatter @ project.T
        loadings[j] = np.linalg.solve(second, project @ scatter).T
        noise += sizes[j] / len(x) * np.diag(scatter - loadings[j] @ project @ scatter)
    return FactorAnalysers(sizes / sizes.sum(), means, loadings, np.maximum(noise, LEAST_NOISE), np.empty(0))
