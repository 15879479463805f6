import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import minimize

from unlearnable.errors import InputError
from unlearnable.theory.latent import (
    draw_direction,
    draw_features,
    dual_norm,
    gaussian_mixture_risks,
    linear_risks,
    robust_shift,
)


def problem(seed, k=4, ratio=2.0, norm=2.0):
    rng = np.random.default_rng(seed)
    return draw_direction(k, norm, rng), draw_features(max(k, round(k * ratio)), k, rng)


def values(risks):
    return np.array(
        [
            risks.standard_optimal_standard,
            risks.standard_optimal_adversarial,
            risks.robust_optimal_standard,
            risks.robust_optimal_adversarial,
        ]
    )


TABLE = [  # the facts page, section 4: d/k, scaling, (AR standard, its sd), (SR robust, sd), (AR*, sd)
    (1.1, "1/k", (0.8101, 0.044), (0.0475, 0.003), (0.2059, 0.011)),
    (2, "1/k", (0.1822, 0.013), (0.0307, 0.001), (0.1339, 0.005)),
    (8, "1/k", (0.0519, 0.0006), (0.0230, 0.0001), (0.0514, 0.0005)),
    (64, "1/k", (0.0304, 0.0001), (0.0228, 0.00005), (0.0304, 0.0001)),
    (64, "1/d", (0.1612, 0.001), (None, None), (0.1602, 0.001)),
]


@pytest.mark.parametrize(("ratio", "scaling", "worst", "robust", "least"), TABLE)
def test_the_table_of_the_facts_page(ratio, scaling, worst, robust, least):
    draws = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        draws.append(
            values(
                gaussian_mixture_risks(
                    draw_direction(20, 2, rng), draw_features(int(20 * ratio), 20, rng, scaling), 1.0
                )
            )
        )
    found = np.mean(draws, axis=0)
    assert found[0] == pytest.approx(stats.norm.cdf(-2), abs=1e-12)
    for value, (true, deviation) in zip(found[1:], (worst, robust, least), strict=True):
        if true is not None:  # three deviations of a difference of two means, and the table's rounding
            assert value == pytest.approx(true, abs=3 * math.sqrt(2) * deviation + 6e-5)


@pytest.mark.parametrize("p", [2, math.inf])
@pytest.mark.parametrize("seed", range(3))
def test_the_robust_rule_against_direct_optimisation(p, seed):
    mu, features = problem(seed)
    epsilon = 0.4 if p == 2 else 0.2
    smoothing = 1e-7

    def adversarial(theta):
        norm = np.linalg.norm(theta) if p == 2 else np.sum(np.sqrt(theta**2 + smoothing**2))
        return stats.norm.cdf((epsilon * norm - theta @ features @ mu) / np.linalg.norm(features.T @ theta))

    rng = np.random.default_rng(seed)
    starts = [rng.standard_normal(len(features)) + features @ mu for _ in range(2)]
    direct = min(minimize(adversarial, start, method="BFGS").fun for start in starts)
    found = gaussian_mixture_risks(mu, features, epsilon, p).robust_optimal_adversarial
    assert found <= direct + 1e-9
    assert found == pytest.approx(direct, abs=1e-6 if p == 2 else 2e-3)  # BFGS dislikes the corners of p = inf
    if p == 2:  # and the projection itself
        ball = {"type": "ineq", "fun": lambda z: epsilon**2 - np.sum((features @ z) ** 2)}
        nearest = minimize(lambda z: np.sum((mu - z) ** 2), 0 * mu, constraints=ball, tol=1e-14)
    else:
        cube = {"type": "ineq", "fun": lambda z: epsilon - np.concatenate([features @ z, -features @ z])}
        nearest = minimize(lambda z: np.sum((mu - z) ** 2), 0 * mu, constraints=cube, tol=1e-14)
    assert found == pytest.approx(stats.norm.cdf(-math.sqrt(nearest.fun)), abs=1e-6)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    k=st.integers(1, 6),
    ratio=st.floats(1, 6),
    norm=st.floats(0.1, 4),
    epsilon=st.floats(0, 3),
    p=st.sampled_from([2, math.inf]),
)
def test_order_of_the_risks_and_the_proof_of_optimality(seed, k, ratio, norm, epsilon, p):
    mu, features = problem(seed, k, ratio, norm)
    risks = gaussian_mixture_risks(mu, features, epsilon, p)
    standard, worst, robust, least = values(risks)
    small = 1e-9
    assert standard == pytest.approx(stats.norm.cdf(-norm), abs=1e-12)
    assert standard <= robust + small
    assert standard <= worst + small
    assert robust <= least + small
    assert least <= min(worst, 0.5) + small
    assert risks.tradeoff == pytest.approx(worst - least, abs=1e-15)
    assert risks.price == pytest.approx(least - standard, abs=1e-15)
    found = robust_shift(mu, features, epsilon, p)
    assert np.linalg.norm(features @ found.shift, p) <= epsilon * (1 + 1e-9) + small
    assert abs(found.gap) < 1e-8
    for theta in np.random.default_rng(seed).standard_normal((5, len(features))):
        assert min(linear_risks(theta, mu, features, epsilon, p)[1], 0.5) >= least - small


@pytest.mark.parametrize("p", [2, math.inf])
def test_rotating_the_latent_changes_nothing(p):
    mu, features = problem(5)
    turn = np.linalg.qr(np.random.default_rng(6).standard_normal((4, 4)))[0]
    turned = gaussian_mixture_risks(turn @ mu, features @ turn.T, 0.3, p)
    assert values(turned) == pytest.approx(values(gaussian_mixture_risks(mu, features, 0.3, p)), abs=1e-10)
    assert values(gaussian_mixture_risks(-mu, features, 0.3, p)) == pytest.approx(values(turned), abs=1e-10)


@pytest.mark.parametrize("p", [2, math.inf])
def test_limits(p):
    mu, features = problem(7)
    assert values(gaussian_mixture_risks(mu, features, 0.0, p)) == pytest.approx([stats.norm.cdf(-2)] * 4, abs=1e-12)
    assert values(gaussian_mixture_risks(mu, features, 1e-6, p)) == pytest.approx([stats.norm.cdf(-2)] * 4, abs=1e-5)
    overwhelmed = gaussian_mixture_risks(mu, features, 1.001 * np.linalg.norm(features @ mu, p), p)
    assert (overwhelmed.robust_optimal_adversarial, overwhelmed.robust_optimal_standard) == (0.5, 0.5)
    wide = gaussian_mixture_risks(mu, draw_features(40_000, 4, np.random.default_rng(8)), 0.1, 2)
    assert wide.price + wide.tradeoff < 2e-3


def test_orthonormal_features_make_the_standard_rule_robust():
    features = np.linalg.qr(np.random.default_rng(9).standard_normal((7, 3)))[0]
    risks = gaussian_mixture_risks([1.0, 0.5, -1.0], features, 0.6)
    assert risks.standard_optimal_adversarial == pytest.approx(stats.norm.cdf(0.6 - 1.5), abs=1e-12)
    assert risks.tradeoff == pytest.approx(0, abs=1e-12)
    assert risks.robust_optimal_standard == pytest.approx(stats.norm.cdf(-1.5), abs=1e-12)


@pytest.mark.parametrize("p", [1, 1.5, 2, 3, math.inf])
def test_linear_risks_against_drawing_with_the_worst_shift(p):
    mu, features = problem(10)
    rng = np.random.default_rng(11)
    theta, n = features @ mu + 0.3 * rng.standard_normal(len(features)), 200_000
    labels = rng.choice([-1, 1], n)
    x = (labels[:, None] * mu + rng.standard_normal((n, 4))) @ features.T
    if p == 1:
        delta = np.where(np.arange(len(theta)) == np.argmax(np.abs(theta)), np.sign(theta), 0)
    elif math.isinf(p):
        delta = np.sign(theta)
    else:
        delta = np.sign(theta) * np.abs(theta) ** (1 / (p - 1))
        delta /= np.linalg.norm(delta, p)
    assert np.linalg.norm(delta, p) == pytest.approx(1)
    assert theta @ delta == pytest.approx(dual_norm(theta, p))
    moved = x - 0.3 * labels[:, None] * delta
    for points, risk in zip((x, moved), linear_risks(theta, mu, features, 0.3, p), strict=True):
        assert stats.binomtest(int(np.sum(labels * (points @ theta) <= 0)), n, risk).pvalue > 1e-5


@pytest.mark.parametrize("p", [2, math.inf])
@pytest.mark.parametrize("short", [1e-6, 1e-9, 1e-12, 1e-14, 1e-15])
def test_an_adversary_just_not_strong_enough(p, short):
    mu, features = problem(17)
    found = robust_shift(mu, features, (1 - short) * np.linalg.norm(features @ mu, p), p)
    assert abs(found.gap) < 1e-8
    risks = gaussian_mixture_risks(mu, features, (1 - short) * np.linalg.norm(features @ mu, p), p)
    assert 0.5 - 10 * short - 1e-9 <= risks.robust_optimal_adversarial <= 0.5


@pytest.mark.parametrize("p", [2, math.inf])
@pytest.mark.parametrize("share", [1e-12, 1e-6, 1e-2, 0.5])
@pytest.mark.parametrize("columns", ["near", "unlike"])
def test_features_that_are_nearly_dependent_or_of_unlike_sizes(columns, share, p):
    mu, features = problem(18)
    features = features[:, :1] + 1e-5 * features if columns == "near" else features * [1e-3, 1.0, 10.0, 1e3]
    epsilon = share * np.linalg.norm(features @ mu, p)
    found = robust_shift(mu, features, epsilon, p)
    assert abs(found.gap) < 1e-8
    assert np.linalg.norm(features @ found.shift, p) <= epsilon * (1 + 1e-12)
    assert gaussian_mixture_risks(mu, features, epsilon, p).tradeoff >= 0


@pytest.mark.parametrize("p", [2, math.inf])
def test_one_latent_dimension_and_as_many_as_are_seen(p):
    one = gaussian_mixture_risks([1.5], [[2.0], [-1.0]], 0.3, p)
    reach = 0.3 / (math.sqrt(5) if p == 2 else 2.0)  # the furthest z with |W z| <= epsilon
    assert one.robust_optimal_adversarial == pytest.approx(stats.norm.cdf(reach - 1.5), abs=1e-12)
    mu, features = problem(19, ratio=1)
    assert features.shape == (4, 4)
    assert abs(robust_shift(mu, features, 0.2, p).gap) < 1e-10


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gaussian_mixture_risks([0.0, 0.0], np.eye(3, 2), 0.1), "mu that is not zero"),
        (lambda: gaussian_mixture_risks([1.0, 0.0, 1.0], np.ones((2, 3)), 0.1), "k = 3 > d = 2"),
        (lambda: gaussian_mixture_risks([1.0, 0.0], np.ones((3, 2)), 0.1), "rank 2, found rank 1"),
        (lambda: gaussian_mixture_risks([1.0, 0.0], np.eye(3, 2), -0.1), "epsilon >= 0, found -0.1"),
        (
            lambda: gaussian_mixture_risks([1.0, 0.0], np.eye(3, 2), math.nan),
            "a radius epsilon made of finite numbers, found NaN",
        ),
        (lambda: gaussian_mixture_risks([1.0, 0.0], np.eye(3, 2), 0.1, 3), "p = 2 or inf, found p = 3"),
        (lambda: gaussian_mixture_risks([1.0], np.eye(3, 2), 0.1), r"W of shape \(d, 1\)"),
        (lambda: linear_risks([1.0, 0.0, 0.0], [1.0, 0.0], np.eye(3, 2), 0.1, 0.5), "a norm p"),
        (lambda: linear_risks([0.0, 0.0, 1.0], [1.0, 0.0], np.eye(3, 2), 0.1), "sees the data"),
        (lambda: gaussian_mixture_risks([1.0, 0.0], np.eye(3, 2), "far"), "a radius epsilon made of numbers"),
        (lambda: gaussian_mixture_risks([1.0, 0.0], [[1.0], [2.0, 3.0]], 0.1), "W made of numbers"),
        (lambda: draw_features(2, 3, np.random.default_rng(0)), "no less than k"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
