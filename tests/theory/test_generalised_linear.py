import math

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad
from scipy.optimize import linprog, minimize
from scipy.special import expit

from unlearnable.errors import InputError
from unlearnable.theory.generalised_linear import generalised_linear_risks
from unlearnable.theory.latent import draw_direction, draw_features, dual_norm


def problem(seed, k=4, ratio=2.0, norm=5.0):
    rng = np.random.default_rng(seed)
    return draw_direction(k, norm, rng), draw_features(max(k, round(k * ratio)), k, rng)


def step(t):
    return 0.5 * (1 + np.sign(t))


@pytest.mark.parametrize(
    ("ratio", "true", "deviation"), [(1.5, 0.8433, 0.022), (2, 0.6751, 0.019), (8, 0.3135, 0.003), (32, 0.1921, 0.0008)]
)
def test_the_facts_page(ratio, true, deviation):
    found = []
    for seed in range(20):
        rng = np.random.default_rng(100 + seed)
        beta, features = draw_direction(20, 5, rng), draw_features(int(20 * ratio), 20, rng)
        reach = math.sqrt(beta @ np.linalg.solve(features.T @ features, beta))
        found.append(_standard_rule(reach)[1])
    assert np.mean(found) == pytest.approx(true, abs=3 * math.sqrt(2) * deviation)
    risks = generalised_linear_risks(beta, features, 1.0)
    assert risks.adversarial == pytest.approx(found[-1], abs=1e-9)
    assert risks.standard == pytest.approx(0.1055, abs=5e-5)


def _standard_rule(reach, link=expit, size=5.0):
    """Return SR and AR of sign(beta'z) by SciPy's quadrature."""

    def mean(function, low, high):
        return quad(lambda t: function(t) * stats.norm.pdf(t, scale=size), low, high, epsabs=1e-13, limit=400)[0]

    end = 12 * size
    edge = min(reach, end)
    worst = 2 * (mean(link, -end, 0) + mean(link, 0, edge))
    return 2 * mean(lambda t: link(-t), 0, end), worst


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0, 30.0])
@pytest.mark.parametrize("link", [expit, stats.norm.cdf, step], ids=["logistic", "probit", "step"])
def test_the_standard_rule_against_quadrature(epsilon, link):
    beta, features = problem(12)
    found = generalised_linear_risks(beta, features, epsilon, link)
    reach = epsilon * math.sqrt(beta @ np.linalg.inv(features.T @ features) @ beta)
    assert (found.standard, found.adversarial) == pytest.approx(_standard_rule(reach, link), abs=1e-9)


@pytest.mark.parametrize("p", [2, math.inf])
def test_the_standard_rule_against_drawing_with_the_worst_shift(p):
    beta, features = problem(13)
    theta = np.linalg.pinv(features).T @ beta
    delta = theta / np.linalg.norm(theta) if p == 2 else np.sign(theta)
    rng = np.random.default_rng(14)
    z = rng.standard_normal((200_000, 4))
    y = np.where(rng.random(200_000) < expit(z @ beta), 1, -1)
    x = z @ features.T - 0.2 * y[:, None] * delta
    found = generalised_linear_risks(beta, features, 0.2, p=p)
    assert stats.binomtest(int(np.sum(y * (x @ theta) <= 0)), 200_000, found.adversarial).pvalue > 1e-5


@pytest.mark.parametrize(("seed", "epsilon", "p"), [(14, 0.4, 2), (15, 0.7, 2), (16, 0.2, math.inf)])
def test_no_linear_rule_with_a_threshold_does_better_than_the_best(seed, epsilon, p):
    beta, features = problem(seed, k=3, ratio=1.7)
    found = generalised_linear_risks(beta, features, epsilon, p=p)
    rng = np.random.default_rng(15)
    z = rng.standard_normal((100_000, 3))
    chance, x = expit(z @ beta), z @ features.T

    def adversarial(rule):
        score, reach = x @ rule[:-1] + rule[-1], epsilon * dual_norm(rule[:-1], p)
        return np.mean(chance * (score <= reach) + (1 - chance) * (score >= -reach))

    start = np.append(np.linalg.pinv(features).T @ beta, 0.0)
    best = min(
        minimize(
            adversarial, start + rng.standard_normal(len(start)), method="Nelder-Mead", options={"maxiter": 500}
        ).fun
        for _ in range(5)
    )
    assert found.best_linear_adversarial == pytest.approx(best, abs=6e-3)
    assert found.standard <= found.best_linear_standard + 1e-12
    assert found.standard <= found.least_adversarial <= found.best_linear_adversarial + 1e-9
    assert found.best_linear_adversarial <= min(found.adversarial, 0.5) + 1e-9


def test_a_threshold_helps_against_a_strong_adversary():
    # With a sharp link and an isotropic W: H(2r) / 2 with the threshold r, H(r) without; H is a half-normal number's.
    beta, features = np.array([3.0, 4.0]), np.linalg.qr(np.random.default_rng(0).standard_normal((4, 2)))[0]
    for epsilon in (0.01, 0.2, 0.5, 1.0, 2.0):
        found = generalised_linear_risks(beta, features, epsilon, step)
        assert found.adversarial == pytest.approx(2 * stats.norm.cdf(epsilon) - 1, abs=1e-9)
        assert found.best_linear_adversarial == pytest.approx(stats.norm.cdf(2 * epsilon) - 0.5, abs=1e-9)
        assert found.threshold == pytest.approx(epsilon, abs=1e-3)


@pytest.mark.parametrize("epsilon", [0.2, 0.5, 1.0])
def test_an_isotropic_surface_leaves_no_gap_and_the_number_is_that_of_optimal_transport(epsilon):
    beta, features = np.array([3.0, 4.0]), np.linalg.qr(np.random.default_rng(0).standard_normal((4, 2)))[0]
    found = generalised_linear_risks(beta, features, epsilon)
    assert found.best_linear_adversarial - found.least_adversarial == pytest.approx(0, abs=1e-10)
    # All classifiers at once, as a transport problem between two histograms, solved as a linear programme. Cells that
    # can lie within 2 epsilon of each other: a little more than an adversary can, by one cell, and a little less.
    edges = np.linspace(-4.5, 4.5, 91)
    middle, width = 0.5 * (edges[1:] + edges[:-1]), edges[1] - edges[0]
    mass = np.diff(stats.norm.cdf(edges))
    first, second = mass * expit(5 * middle), mass * expit(-5 * middle)
    apart = np.abs(middle[:, None] - middle)
    least, most = (_matched(first, second, apart <= 2 * epsilon + slack) for slack in (-width, width))
    assert least - 2e-3 <= found.least_adversarial <= most + 2e-3  # the histogram's own error
    assert most - least < 0.06


def _matched(first, second, near):
    rows, columns = np.nonzero(near)
    limits = np.zeros((len(first) + len(second), len(rows)))
    limits[rows, np.arange(len(rows))] = limits[len(first) + columns, np.arange(len(rows))] = 1
    return -linprog(-np.ones(len(rows)), A_ub=limits, b_ub=np.concatenate([first, second]), method="highs").fun


def test_the_two_bounds_of_the_least_risk_lie_close():
    for seed, ratio, epsilon in ((1, 2, 0.25), (2, 2, 1.0), (3, 8, 0.5), (4, 1.1, 0.25)):
        beta, features = problem(seed, k=20, ratio=ratio)
        found = generalised_linear_risks(beta, features, epsilon)
        assert 0 <= found.best_linear_adversarial - found.least_adversarial < 0.02


def test_the_lower_bound_holds_for_rules_that_are_not_linear():
    # Against p = 2 the nearest point of another decision can be told for unions of two half-spaces.
    beta, features = problem(5, k=2, ratio=1.0)
    found = generalised_linear_risks(beta, features, 0.3)
    rng = np.random.default_rng(6)
    z = rng.standard_normal((100_000, 2))
    x, chance = z @ features.T, expit(z @ beta)
    for _ in range(20):
        normals = rng.standard_normal((2, 2)) * 0.5 + np.linalg.pinv(features).T @ beta
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        score = (x @ normals.T + 0.3 * rng.standard_normal(2)).min(axis=1)  # the signed depth in a wedge, at most
        lost = np.mean(chance * (score <= 0.3) + (1 - chance) * (score >= -0.3))
        assert lost >= found.least_adversarial - 4e-3


def test_rotations_and_signs_change_nothing():
    beta, features = problem(20)
    turn = np.linalg.qr(np.random.default_rng(21).standard_normal((4, 4)))[0]
    one = generalised_linear_risks(beta, features, 0.4)
    for other in (
        generalised_linear_risks(turn @ beta, features @ turn.T, 0.4),
        generalised_linear_risks(-beta, features, 0.4),
    ):
        assert other.adversarial == pytest.approx(one.adversarial, abs=1e-10)
        assert other.best_linear_adversarial == pytest.approx(one.best_linear_adversarial, abs=1e-6)
        assert other.least_adversarial == pytest.approx(one.least_adversarial, abs=1e-6)


@pytest.mark.parametrize("norm", [1e-3, 1.0, 100.0, 1e4])
def test_links_from_flat_to_sharp(norm):
    beta, features = problem(22, norm=norm)
    found = generalised_linear_risks(beta, features, 0.3)
    reach = 0.3 * math.sqrt(beta @ np.linalg.inv(features.T @ features) @ beta)
    true = _standard_rule(reach, size=norm) if norm < 50 else _standard_rule(reach, step, norm)
    assert (found.standard, found.adversarial) == pytest.approx(true, abs=1e-9 if norm < 50 else 1.5 / norm)
    assert found.standard - 1e-12 <= found.least_adversarial <= found.best_linear_adversarial + 1e-9 <= 0.5 + 2e-9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: generalised_linear_risks([1.0, 0.0], np.eye(3, 2), -1), "epsilon >= 0"),
        (lambda: generalised_linear_risks([1.0, 0.0], np.eye(3, 2), 1, p=3), "p = 2 or inf"),
        (lambda: generalised_linear_risks([1.0, 0.0], np.eye(3, 2), 1, np.tanh), "a link that rises"),
        (lambda: generalised_linear_risks([1.0, 0.0], np.eye(3, 2), 1, lambda t: expit(-t)), "a link that rises"),
        (lambda: generalised_linear_risks([0.0, 0.0], np.eye(3, 2), 1), "mu that is not zero"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
