import math

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize

from unlearnable.errors import InputError
from unlearnable.theory.latent import draw_direction, draw_features, gaussian_mixture_risks, robust_shift
from unlearnable.theory.nonlinear import LEAKY_TANH, Surface, nonlinear_risks

IDENTITY = Surface(phi=lambda t: t, slope=np.ones_like, least_slope=1.0)
CUBIC = Surface(phi=lambda t: t + t**3 - 2, slope=lambda t: 1 + 3 * t**2, least_slope=1.0)
KINKED = Surface(phi=lambda t: np.where(t > 0, t, 0.1 * t), slope=lambda t: np.where(t > 0, 1, 0.1), least_slope=0.1)


def problem(seed, k=5, ratio=4.0):
    rng = np.random.default_rng(seed)
    return draw_direction(k, 2, rng), draw_features(round(k * ratio), k, rng)


@pytest.mark.parametrize("surface", [IDENTITY, LEAKY_TANH, CUBIC, KINKED], ids=["identity", "tanh", "cubic", "kinked"])
def test_a_surface_is_inverted(surface):
    t = np.concatenate([np.linspace(-40, 40, 4001), [1e-12, -1e-300, 0.0]])
    assert surface.inverse(surface.phi(t)) == pytest.approx(t, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("p", [2, math.inf])
def test_for_the_identity_the_closed_form_comes_out(p):
    mu, features = problem(1)
    found = nonlinear_risks(mu, features, 0.2, surface=IDENTITY, p=p, samples=20_000, steps=3)
    exact = gaussian_mixture_risks(mu, features, 0.2, p)
    assert found.attacked == found.certified
    for drawn, true in (
        (found.standard, exact.standard_optimal_standard),
        (found.attacked, exact.standard_optimal_adversarial),
    ):
        assert stats.binomtest(round(drawn.value * 20_000), 20_000, true).pvalue > 1e-5
    robust = nonlinear_risks(
        mu,
        features,
        0.2,
        surface=IDENTITY,
        p=p,
        theta=robust_shift(mu, features, 0.2, p).weights,
        samples=20_000,
        steps=3,
    )
    assert (
        stats.binomtest(round(robust.attacked.value * 20_000), 20_000, exact.robust_optimal_adversarial).pvalue > 1e-5
    )


@pytest.mark.parametrize("surface", [LEAKY_TANH, CUBIC, KINKED], ids=["tanh", "cubic", "kinked"])
def test_a_curved_surface_is_attacked_between_its_bounds(surface):
    mu, features = problem(16)
    found = nonlinear_risks(mu, features, 0.3, surface=surface, samples=3000, seed=1)
    assert stats.binomtest(round(found.standard.value * 3000), 3000, stats.norm.cdf(-2)).pvalue > 1e-5
    assert found.standard.value < found.attacked.value <= found.certified.value
    calm = nonlinear_risks(mu, features, 0.0, surface=surface, samples=500)
    assert calm.standard == calm.attacked == calm.certified


@pytest.mark.parametrize("surface", [LEAKY_TANH, CUBIC], ids=["tanh", "cubic"])
def test_for_the_largest_norm_the_bound_is_exact(surface):
    mu, features = problem(17)
    found = nonlinear_risks(mu, features, 0.08, surface=surface, p=math.inf, samples=2000, seed=3)
    assert found.attacked == found.certified
    assert found.standard.value < found.certified.value


def _draws(mu, features, surface, samples, seed):
    """Draw what nonlinear_risks draws: labels, points, and the standard-optimal rule."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([-1.0, 1.0], samples)
    x = surface.phi((labels[:, None] * mu + rng.standard_normal((samples, len(mu)))) @ features.T)
    return labels, x, np.linalg.pinv(features).T @ mu


@pytest.mark.parametrize("surface", [LEAKY_TANH, CUBIC], ids=["tanh", "cubic"])
def test_pgd_finds_what_a_search_over_the_sphere_finds(surface):
    # Two latent dimensions, two seen: every direction of the attack can be tried.
    mu, features = np.array([0.8, 0.6]), np.array([[1.0, 0.2], [-0.3, 0.7]])
    found = nonlinear_risks(mu, features, 0.3, surface=surface, samples=400, steps=40, seed=2)
    labels, x, theta = _draws(mu, features, surface, 400, 2)
    circle = 0.3 * np.exp(2j * np.pi * np.arange(720) / 720)
    wrong = [(labels * (surface.inverse(x + np.array([one.real, one.imag])) @ theta) <= 0) for one in circle]
    assert found.attacked.value == pytest.approx(np.any(wrong, axis=0).mean(), abs=0.006)


def test_pgd_finds_what_a_solver_finds_in_more_dimensions():
    mu, features = problem(18, k=3, ratio=2)
    found = nonlinear_risks(mu, features, 0.4, samples=60, steps=40, seed=4)
    labels, x, theta = _draws(mu, features, LEAKY_TANH, 60, 4)
    ball = {"type": "ineq", "fun": lambda v: 0.16 - v @ v}
    wrong = [
        minimize(
            lambda v, y=y, one=one: y * (LEAKY_TANH.inverse(one + v) @ theta), -0.1 * y * theta, constraints=ball
        ).fun
        <= 0
        for y, one in zip(labels, x, strict=True)
    ]
    assert abs(found.attacked.value - np.mean(wrong)) <= 1 / 60


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nonlinear_risks([1.0], [[1.0], [2.0]], 0.1, p=3), "p = 2 or inf, found p = 3"),
        (
            lambda: nonlinear_risks([1.0], [[1.0], [2.0]], 0.1, theta=[1.0]),
            r"theta of shape \(2,\), found shape \(1,\)",
        ),
        (lambda: nonlinear_risks([1.0], [[1.0], [2.0]], -0.1), "epsilon >= 0"),
        (lambda: nonlinear_risks([1.0], [[1.0], [2.0]], 0.1, samples=0), "samples"),
        (lambda: nonlinear_risks([1.0], [[1.0], [2.0]], 0.1, steps=0), "steps"),
        (lambda: Surface(phi=np.tanh, slope=lambda t: 1 - np.tanh(t) ** 2, least_slope=0.0), "a least slope > 0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
