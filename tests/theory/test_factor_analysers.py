import numpy as np
import pytest
from scipy.stats import multivariate_normal

from unlearnable.errors import InputError
from unlearnable.theory.factor_analysers import FactorAnalysers, fit_factor_analysers


def truth():
    rng = np.random.default_rng(0)
    return FactorAnalysers(
        np.array([0.3, 0.7]),
        np.stack([np.zeros(6), np.full(6, 3.0)]),
        rng.standard_normal((2, 6, 2)),
        np.linspace(0.1, 0.4, 6),
        np.empty(0),
    )


def test_densities_are_those_of_normal_distributions():
    model, x = truth(), np.random.default_rng(1).standard_normal((20, 6))
    for j in range(2):
        covariance = model.loadings[j] @ model.loadings[j].T + np.diag(model.noise)
        true = np.log(model.weights[j]) + multivariate_normal(model.means[j], covariance).logpdf(x)
        assert model.log_densities(x)[:, j] == pytest.approx(true, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_the_likelihood_never_falls_and_ends_near_the_truth(seed):
    model = truth()
    x = model.sample(4000, np.random.default_rng(2))
    fitted = fit_factor_analysers(x, 2, 2, iterations=60, seed=seed)
    assert (np.diff(fitted.history) >= -1e-9).all()
    true = np.logaddexp.reduce(model.log_densities(x), axis=1).mean()
    assert fitted.history[-1] == pytest.approx(true, abs=0.05)
    assert np.sort(fitted.weights) == pytest.approx([0.3, 0.7], abs=0.03)


def test_samples_have_the_moments_of_the_model():
    model = truth()
    x = model.sample(100_000, np.random.default_rng(3))
    mean = model.weights @ model.means
    assert x.mean(axis=0) == pytest.approx(mean, abs=0.05)
    covariance = sum(
        w * (loading @ loading.T + np.diag(model.noise) + np.outer(m - mean, m - mean))
        for w, m, loading in zip(model.weights, model.means, model.loadings, strict=True)
    )
    assert np.cov(x.T) == pytest.approx(covariance, abs=0.15)


def test_pixels_that_never_change_keep_some_noise():
    x = np.random.default_rng(4).standard_normal((50, 4))
    x[:, 2] = 1.0
    fitted = fit_factor_analysers(x, 1, 2)
    assert np.isfinite(fitted.history).all()
    assert fitted.noise.min() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((9, 3)), 1, 4), "at most 3 factors, found 4"),
        ((np.ones((3, 3)), 2, 1), "points"),
        ((np.ones((9, 3)), 0, 1), "components"),
        ((np.ones((9, 3)), 1, 0), "latent dimension"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(InputError, match=message):
        fit_factor_analysers(*arguments)
