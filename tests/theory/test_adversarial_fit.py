import math

import numpy as np
import pytest
from scipy.optimize import check_grad, minimize
from scipy.stats import norm

from unlearnable.errors import InputError
from unlearnable.theory import adversarial_fit
from unlearnable.theory.adversarial_fit import LinearRule, QuadraticRule, fit_linear, fit_quadratic, risk
from unlearnable.theory.latent import gaussian_mixture_risks, linear_risks


def samples(n, seed=0, d=5):
    rng = np.random.default_rng(seed)
    y = rng.choice([-1.0, 1.0], n)
    return y[:, None] * np.linspace(1, 0, d) + rng.standard_normal((n, d)), y


def quadratic(seed, d=4):
    rng = np.random.default_rng(seed)
    square = rng.standard_normal((d, d))
    return QuadraticRule(square + square.T, rng.standard_normal(d), 0.3)


@pytest.mark.parametrize("p", [2, math.inf])
def test_the_worst_linear_margin_is_reached_and_never_passed(p):
    x, y = samples(40)
    rule = LinearRule(np.array([1.0, -2.0, 0.5, 0.0, 1.0]), 0.2, p)
    worst = rule.worst_margin(x, y, 0.3)
    delta = np.random.default_rng(1).standard_normal((500, 1, 5))
    delta *= 0.3 / np.linalg.norm(delta, p, axis=-1, keepdims=True)
    assert (y * ((x + delta) @ rule.weights + rule.bias) >= worst - 1e-12).all()
    best = rule.weights / np.linalg.norm(rule.weights) if p == 2 else np.sign(rule.weights)
    assert y * ((x - 0.3 * y[:, None] * best) @ rule.weights + rule.bias) == pytest.approx(worst, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_the_worst_quadratic_shift_against_a_solver_and_drawing(seed):
    rule, (x, y) = quadratic(seed), samples(30, seed, 4)
    delta = rule.worst_shift(x, y, 0.7)
    assert np.linalg.norm(delta, axis=1).max() <= 0.7 + 1e-9
    worst = rule.worst_margin(x, y, 0.7)
    tried = np.random.default_rng(seed).standard_normal((3000, 1, 4))
    tried *= 0.7 / np.linalg.norm(tried, axis=-1, keepdims=True)
    assert (y * np.array([rule.value(x + one) for one in tried]) >= worst - 1e-9).all()
    for i in range(5):
        ball = {"type": "ineq", "fun": lambda v: 0.49 - v @ v}
        found = min(
            minimize(lambda v: y[i] * rule.value(x[i : i + 1] + v)[0], start, constraints=ball, tol=1e-12).fun  # noqa: B023
            for start in tried[:6, 0]
        )
        assert worst[i] == pytest.approx(found, abs=1e-6)


def test_the_hard_case_an_inner_minimum_and_a_flat_rule():
    saddle = QuadraticRule(np.diag([1.0, -1.0]), np.zeros(2), 0.0)
    origin, one = np.zeros((1, 2)), np.ones(1)
    assert saddle.worst_margin(origin, one, 0.5) == pytest.approx([-0.25], abs=1e-9)  # no gradient at all there
    assert saddle.worst_margin(np.array([[1.0, 0.0]]), one, 0.75) == pytest.approx([-0.0625], abs=1e-6)
    bowl = QuadraticRule(np.eye(2), np.zeros(2), -1.0)
    assert bowl.worst_margin(np.array([[0.1, 0.2]]), one, 5.0) == pytest.approx([-1.0], abs=1e-12)
    flat = QuadraticRule(np.zeros((2, 2)), np.array([3.0, 4.0]), 0.0)
    assert flat.worst_margin(origin, one, 0.5) == pytest.approx([-2.5], abs=1e-9)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_shifts_near_the_hard_case_and_of_any_size(scale):
    # The gradient has a part of 1e-9 along the lowest curvature: the multiplier is that far from the singular one.
    rule = QuadraticRule(scale * np.diag([1.0, -1.0, 0.5]), scale * np.array([0.3, 1e-9, 0.0]), 0.0)
    for epsilon in (1e-3, 1.0, 1e3):
        shift = rule.worst_shift(np.zeros((1, 3)), np.ones(1), epsilon)
        assert np.linalg.norm(shift) == pytest.approx(epsilon, rel=1e-9)
        # On the sphere delta_1^2 - delta_2^2 + 0.3 delta_1 = 2 (delta_1 + 0.075)^2 - epsilon^2 - 0.01125.
        first = max(-0.075, -epsilon)
        least = 2 * (first + 0.075) ** 2 - epsilon**2 - 0.01125
        assert rule.worst_margin(np.zeros((1, 3)), np.ones(1), epsilon)[0] == pytest.approx(scale * least, rel=1e-6)


def test_a_rule_that_sees_nothing_guesses():
    x, y = samples(40)
    share = float(np.mean(y < 0))
    for rule in (LinearRule(np.zeros(5), 0.0), QuadraticRule(np.zeros((5, 5)), np.zeros(5), 0.0)):
        assert risk(rule, x, y) == risk(rule, x, y, 3.0) == share


@pytest.mark.parametrize(("fit", "epsilon"), [(fit_linear, 0.0), (fit_linear, 0.3), (fit_quadratic, 0.3)])
def test_the_gradients_of_the_training_problems(fit, epsilon, monkeypatch):
    seen = []

    def watch(objective, start):
        seen.append(objective)
        return start

    monkeypatch.setattr(adversarial_fit, "_minimise", watch)
    fit(*samples(30, d=3), epsilon)
    point = np.random.default_rng(2).standard_normal(4 if fit is fit_linear else 13)
    objective = seen[0]
    size = np.linalg.norm(objective(point)[1])
    assert check_grad(lambda t: objective(t)[0], lambda t: objective(t)[1], point) < 1e-4 * max(size, 1)


def test_many_samples_lead_to_the_optimal_risks():
    rng = np.random.default_rng(3)
    mu, features = np.array([1.5, 0.5, -1.0]), rng.standard_normal((6, 3))
    y = rng.choice([-1.0, 1.0], 20_000)
    x = (y[:, None] * mu + rng.standard_normal((20_000, 3))) @ features.T
    best = gaussian_mixture_risks(mu, features, 0.6)
    plain, robust = fit_linear(x, y, ridge=1e-6), fit_linear(x, y, 0.6, ridge=1e-6)
    assert linear_risks(plain.weights, mu, features, 0.6)[0] == pytest.approx(best.standard_optimal_standard, abs=2e-3)
    assert linear_risks(robust.weights, mu, features, 0.6)[1] == pytest.approx(
        best.robust_optimal_adversarial, abs=1e-2
    )
    assert risk(robust, x, y, 0.6) < risk(plain, x, y, 0.6)
    assert risk(plain, x, y) == pytest.approx(linear_risks(plain.weights, mu, features, 0.0)[0], abs=0.01)


def test_a_quadratic_rule_finds_a_quadratic_boundary_and_training_pays():
    rng = np.random.default_rng(4)
    y = rng.choice([-1.0, 1.0], 3000)
    x = rng.standard_normal((3000, 3)) * np.where(y > 0, 2.0, 0.5)[:, None]
    train, test = (x[:1000], y[:1000]), (x[1000:], y[1000:])
    assert risk(fit_linear(*train), *test) > 0.35
    plain, robust = fit_quadratic(*train), fit_quadratic(*train, 0.3)
    radius = math.sqrt(3 * math.log(16) / (4 - 1 / 4))  # where the two densities meet
    bayes = 0.5 * (_chi(radius / 2) + 1 - _chi(radius / 0.5))
    assert risk(plain, *test) == pytest.approx(bayes, abs=0.03)
    assert risk(robust, *test, 0.3) <= risk(plain, *test, 0.3) + 0.005
    assert all(risk(rule, *test, 0.3) >= risk(rule, *test) for rule in (plain, robust))


def _chi(radius):
    """P(|z| < radius) in three dimensions."""
    return 2 * norm.cdf(radius) - 1 - 2 * radius * norm.pdf(radius)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_linear(np.ones((3, 2)), [1, 0, 1]), "labels -1 and"),
        (lambda: fit_linear(np.ones((3, 2)), [1, -1]), "3 labels"),
        (lambda: fit_linear(*samples(5), epsilon=-1), "epsilon >= 0"),
        (lambda: fit_linear(*samples(5), epsilon=1, p=3), "p = 2 or inf"),
        (lambda: fit_quadratic(np.ones(3), [1, -1, 1]), "as a matrix"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
