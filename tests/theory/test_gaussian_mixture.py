import math
import time

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.signal import correlate2d

from unlearnable.errors import InputError
from unlearnable.theory.gaussian_mixture import (
    ROUNDING,
    chernoff_bound,
    clean_accuracy,
    convolution_matrix,
    equal_filters_accuracy,
    exact_accuracy,
    monte_carlo,
    monte_carlo_classes,
    picture_filter,
    poisoned_rule,
    sine_eigenvalues,
)

MU = np.array(  # the random mean of the facts page, norm 5
    [1.950543, -2.442494, 0.399585, -0.542627, -0.432605, -0.206050, -1.930537, -0.221662, -0.826899, 3.175850]
)


def along_ones(d, norm):
    return np.full(d, norm / math.sqrt(d))


def tridiagonal(a, d):
    return np.eye(d) + a * (np.eye(d, k=1) + np.eye(d, k=-1))


def oracle(mu, negative, positive):
    """The accuracy to 20 digits, from the matrices: Gil-Pelaez along a ray from the origin, by the trapezoidal rule."""
    with mpmath.workdps(30):
        d, mean = len(mu), mpmath.matrix(mu)
        undo = [mpmath.matrix(one) ** -1 for one in (negative, positive)]
        curvature, vectors = mpmath.eigsy(undo[0].T * undo[0] - undo[1].T * undo[1])
        slope = vectors.T * (2 * (undo[0] + undo[1]).T * mean)
        coordinates = vectors.T * mean
        constant = 2 * sum(
            sign * mpmath.log(abs(mpmath.det(mpmath.matrix(one)))) for sign, one in ((1, negative), (-1, positive))
        )

        def positive_probability(label):
            m = [label * coordinates[i] for i in range(d)]
            h = [2 * curvature[i] * m[i] + slope[i] for i in range(d)]
            k = constant + sum(curvature[i] * m[i] ** 2 + slope[i] * m[i] for i in range(d))
            curved = [i for i in range(d) if abs(curvature[i]) > mpmath.mpf(10) ** -25]
            angle = mpmath.sign(k - sum(h[i] ** 2 / (4 * curvature[i]) for i in curved)) * mpmath.mpf("0.3")
            step, total = mpmath.mpf(1) / 24, mpmath.mpf(0)
            for index in range(-50 * 24, 40 * 24):
                u = mpmath.exp(index * step + 1j * angle)
                rest = [1 - 2j * u * curvature[i] for i in range(d)]
                log_phi = 1j * u * k - sum(u**2 * h[i] ** 2 / (2 * rest[i]) + mpmath.log(rest[i]) / 2 for i in range(d))
                if mpmath.re(log_phi) < -60 and index > 0:
                    break
                total += mpmath.im(mpmath.exp(log_phi)) * step
            return mpmath.mpf(1) / 2 + angle / mpmath.pi + total / mpmath.pi

        return float((positive_probability(1) + 1 - positive_probability(-1)) / 2)


@pytest.mark.parametrize(
    ("mu", "a_negative", "a_positive"),
    [
        (along_ones(2, 1), 0.0, 0.5),
        (np.array([0.3, -2.0]), 0.1, 0.4),
        (np.array([1.0, 0.5, -0.7]), 0.5, 0.2),
        (along_ones(5, 2.5), 0.0, 0.3),
        (MU, 0.1, 0.5),
        (MU, 0.3, 0.31),
        (along_ones(20, 2.5), 0.1, 0.3),
        (np.cos(np.arange(20)) / 2, 0.05, 0.5),
    ],
    ids=lambda value: f"d{len(value)}" if isinstance(value, np.ndarray) else str(value),
)
def test_exact_against_mpmath(mu, a_negative, a_positive):
    d = len(mu)
    found = exact_accuracy(mu, a_negative, a_positive)
    true = oracle(mu, tridiagonal(a_negative, d), tridiagonal(a_positive, d))
    assert found.accuracy == pytest.approx(true, abs=1e-11)  # the promise is 1e-8
    assert abs(found.accuracy - true) <= found.error + 1e-13


def test_long_filters_against_mpmath():
    mu, taps = np.array([0.8, -0.3, 1.1, 0.2, -0.9, 0.4]), ([0.1, 0.3, 1, 0.0, 0.2], [0.2, 0.1, 1, 0.25, 0.05])
    matrices = [convolution_matrix(one, 6) for one in taps]
    assert clean_accuracy(mu, *taps) == pytest.approx(oracle(mu, *matrices), abs=1e-11)


def test_taps_for_which_one_path_of_the_integral_leads_astray():
    mu = np.array([-0.18401994435885, 0.4270430236597339, -0.056164139922178224, -0.2806167645516631, -0.16477559436])
    taps = ([0.03164493113417059, 1.0, 0.5144212253608771], [0.07416807279447572, 1.0, 0.25422687752363676])
    matrices = [convolution_matrix(one, 5) for one in taps]
    assert clean_accuracy(mu, *taps) == pytest.approx(oracle(mu, *matrices), abs=1e-11)


@pytest.mark.parametrize("gap", [1e-12, 1e-13, 1e-14, 1e-15, 1e-16])
def test_filters_closer_than_rounding_in_ten_thousand_dimensions(gap):
    mu = along_ones(10_000, 2)
    found = exact_accuracy(mu, 0.5 - gap, 0.5)
    assert 0.5 <= found.accuracy <= chernoff_bound(mu, 0.5 - gap, 0.5) < 0.5 + 1e-11
    assert found.error < 1e-12


def test_differences_between_filters_keep_their_digits():
    # At the lowest frequency the eigenvalues are 1.2e-3 and 1.2e-3 + 2e-12: only the taps tell them apart to 12 digits.
    d, low, high = 89, 0.499999999999, 0.5
    rule = poisoned_rule(along_ones(d, 1), low, high)
    with mpmath.workdps(40):
        values = [1 + 2 * mpmath.mpf(a) * mpmath.cos(mpmath.pi * d / (d + 1)) for a in (low, high)]
        true = float(values[0] ** -2 - values[1] ** -2)
    assert rule.curvature[-1] == pytest.approx(true, rel=1e-9)


TABLE = [  # the facts page, section 2.3
    (10, 1, (0.82693, 0.67956, 0.67639, 0.50709)),
    (10, 5, (1.00000, 0.99993, 0.99992, 0.61534)),
    (50, 1, (0.76461, 0.51422, 0.50741, 0.50000)),
    (50, 5, (1.00000, 0.98606, 0.98138, 0.50000)),
]


@pytest.mark.parametrize(("d", "norm", "row"), TABLE)
def test_the_table_of_the_facts_page(d, norm, row):
    mu = along_ones(d, norm)
    found = [clean_accuracy(mu, *pair) for pair in ((0, 0.1), (0, 0.3), (0.1, 0.3), (0, 0.5))]
    assert found == pytest.approx(row, abs=6e-6)


def test_equal_filters():
    mu = along_ones(10, 1)
    assert equal_filters_accuracy(mu, 0.3) == pytest.approx(0.838902, abs=5e-7)
    assert equal_filters_accuracy(mu, 0.5) == pytest.approx(0.817144, abs=5e-7)
    assert equal_filters_accuracy(mu, 0.0) == pytest.approx(stats.norm.cdf(1), abs=1e-15)
    undone = np.linalg.solve(tridiagonal(0.3, 10), mu)
    assert equal_filters_accuracy(mu, 0.3) == pytest.approx(stats.norm.cdf(mu @ undone / np.linalg.norm(undone)))
    asymmetric = [0.3, 1, 0.1]
    undone = np.linalg.solve(convolution_matrix(asymmetric, 10).T, mu)
    assert equal_filters_accuracy(mu, asymmetric) == pytest.approx(
        stats.norm.cdf(mu @ undone / np.linalg.norm(undone)), abs=1e-12
    )


def test_nearly_equal_filters_tend_to_equal_ones():
    gaps = [abs(clean_accuracy(MU, 0.3, 0.3 + gap) - equal_filters_accuracy(MU, 0.3)) for gap in (1e-2, 1e-4, 1e-9)]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-12
    assert clean_accuracy([1.0], 0.0, 1e-308) == pytest.approx(stats.norm.cdf(1), abs=1e-15)


filters = st.floats(0, 0.5)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    d=st.integers(1, 40),
    norm=st.floats(0.01, 6),
    low=filters,
    high=filters,
    noise=st.sampled_from([0.0, ROUNDING, 0.3]),
)
def test_bounds_and_symmetry(seed, d, norm, low, high, noise):
    mu = np.random.default_rng(seed).standard_normal(d)
    mu *= norm / np.linalg.norm(mu)
    exact = clean_accuracy(mu, low, high, noise=noise)
    assert 0.5 - 1e-12 <= exact <= stats.norm.cdf(norm) + 1e-12
    assert clean_accuracy(mu, high, low, noise=noise) == pytest.approx(exact, abs=1e-11)
    assert clean_accuracy(-mu, low, high, noise=noise) == pytest.approx(exact, abs=1e-11)
    assert exact <= chernoff_bound(mu, low, high, noise=noise) + 1e-12


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), d=st.integers(1, 12), taps=st.sampled_from([3, 5, 7]), most=st.floats(0.1, 0.999)
)
def test_filters_of_any_length_are_computed_and_bounded(seed, d, taps, most):
    rng = np.random.default_rng(seed)
    mu = rng.standard_normal(d) * 10 ** rng.uniform(-2, 1)
    pair = rng.exponential(1.0, (2, taps))
    pair[:, taps // 2] = 0
    pair *= most / pair.sum(axis=1, keepdims=True)
    pair[:, taps // 2] = 1
    found = exact_accuracy(mu, *pair)
    assert 0 <= found.accuracy <= min(chernoff_bound(mu, *pair), stats.norm.cdf(np.linalg.norm(mu))) + 1e-10
    assert found.error < 1e-11


def test_a_matrix_can_push_the_accuracy_below_one_half():
    assert clean_accuracy([1.0, 0.0], -np.eye(2), -np.eye(2)) == pytest.approx(stats.norm.cdf(-1))
    mu, pair = [1.0, 0.5], ([[-2.0, 0.5], [0.5, -1.5]], [[-1.5, -1.5], [0.0, 2.0]])
    found, drawn = clean_accuracy(mu, *pair), monte_carlo(mu, *pair, samples=200_000, seed=4)
    assert stats.binomtest(round(drawn.value * 200_000), 200_000, found).pvalue > 1e-5
    assert found < 0.2


def test_the_sine_basis_and_the_matrices_agree():
    mu = np.random.default_rng(1).standard_normal(40) / 3
    assert clean_accuracy(mu, 0.1, 0.4) == pytest.approx(clean_accuracy(mu, [0.1, 1, 0.1], 0.4), abs=1e-12)
    assert chernoff_bound(mu, 0.1, 0.4) == pytest.approx(chernoff_bound(mu, [0.1, 1, 0.1], 0.4), abs=1e-12)
    assert np.sort(sine_eigenvalues(0.3, 7)) == pytest.approx(np.linalg.eigvalsh(tridiagonal(0.3, 7)), abs=1e-14)


@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize("pair", [(0.1, 0.4), ([0.1, 0.2, 1, 0.1, 0.0], [0.3, 1, 0.2])], ids=["sine", "dense"])
def test_the_score_is_twice_the_log_likelihood_ratio(pair, noise):
    rng = np.random.default_rng(2)
    mu, x = rng.standard_normal(9), rng.standard_normal((50, 9)) * 2
    matrices = [tridiagonal(a, 9) if isinstance(a, float) else convolution_matrix(a, 9) for a in pair]
    log_density = [
        stats.multivariate_normal(label * matrix @ mu, matrix @ matrix.T + noise**2 * np.eye(9)).logpdf(x)
        for label, matrix in zip((-1, 1), matrices, strict=True)
    ]
    assert poisoned_rule(mu, *pair, noise=noise).score(x) == pytest.approx(
        2 * (log_density[1] - log_density[0]), abs=1e-10
    )


@pytest.mark.parametrize(
    ("mu", "pair"),
    [
        (along_ones(50, 5), (0.0, 0.3)),
        (MU, (0.1, 0.5)),
        (MU / 4, ([0.2, 0.1, 1, 0.3, 0.1], [0.1, 0.3, 1, 0.0, 0.0])),
    ],
    ids=["d50", "d10", "taps"],
)
def test_exact_lies_in_the_interval_of_monte_carlo(mu, pair):
    drawn = monte_carlo(mu, *pair, samples=200_000, seed=11)
    exact = clean_accuracy(mu, *pair)
    assert drawn.low < drawn.value < drawn.high
    # 99.999 %: wider than the interval reported, so that a new NumPy does not break the test by chance.
    assert stats.binomtest(round(drawn.value * drawn.samples), drawn.samples, exact).pvalue > 1e-5
    assert drawn.high - drawn.low < 0.005


def test_the_interval_covers_as_often_as_it_says():
    exact = clean_accuracy(MU[:4], 0.1, 0.4)
    runs = [monte_carlo(MU[:4], 0.1, 0.4, samples=2000, seed=seed) for seed in range(300)]
    covered = sum(run.low <= exact <= run.high for run in runs)
    assert covered >= stats.binom.ppf(1e-4, 300, 0.95)
    assert monte_carlo(MU, 0.1, 0.4, samples=500, seed=1) == monte_carlo(MU, 0.1, 0.4, samples=500, seed=1)


def test_many_classes_and_two_agree_and_chance_is_the_floor():
    rng = np.random.default_rng(4)
    two = monte_carlo_classes(np.stack([-MU, MU]), [0.1, 0.5], samples=4000, seed=3)
    assert two == monte_carlo(MU, 0.1, 0.5, samples=4000, seed=3)
    means = rng.standard_normal((5, 60)) / 2
    clean = monte_carlo_classes(means, [0.0] * 5, samples=20_000)
    protected = monte_carlo_classes(means, [0.0, 0.12, 0.25, 0.38, 0.49], samples=20_000)
    assert clean.low > protected.high
    assert protected.high > 0.2
    # With no filter, the rule is the nearest mean: the same draws, another way.
    labels = np.random.default_rng(0).integers(5, size=20_000)
    x = means[labels] + np.random.default_rng(0).standard_normal((20_000, 60))
    nearest = np.argmin(((x[:, None] - means) ** 2).sum(-1), axis=1)
    assert np.mean(nearest == labels) == pytest.approx(clean.value, abs=0.02)


@pytest.mark.parametrize("padding", ["reflect", "zero"])
def test_the_picture_matrix_is_the_correlation(padding):
    rng = np.random.default_rng(5)
    kernel, picture = rng.random((5, 3)), rng.random((6, 7))
    matrix = picture_filter(kernel, 6, 7, padding)
    if padding == "reflect":
        expected = correlate2d(np.pad(picture, ((2, 2), (1, 1)), mode="reflect"), kernel, mode="valid")
    else:
        expected = correlate2d(picture, kernel, mode="same")
    assert matrix @ picture.ravel() == pytest.approx(expected.ravel(), abs=1e-12)


def test_pictures_exact_against_monte_carlo():
    rng = np.random.default_rng(6)
    kernels = rng.uniform(0, 0.2, (2, 3, 3))
    kernels[:, 1, 1] = 1
    pair = [picture_filter(kernel, 6, 5) for kernel in kernels]
    mu = rng.standard_normal(30) / 2
    drawn = monte_carlo(mu, *pair, samples=100_000, seed=7)
    assert stats.binomtest(round(drawn.value * 100_000), 100_000, clean_accuracy(mu, *pair)).pvalue > 1e-5


def test_singular_filters_can_be_computed_with_where_noise_hides_it():
    rng = np.random.default_rng(8)
    kernels = rng.uniform(0, 0.3, (2, 3, 3))  # the published strength, with the tap of 1 at a corner and at an edge
    kernels[0, 0, 0] = kernels[1, 1, 2] = 1
    pair, mu = [picture_filter(kernel, 8, 8) for kernel in kernels], rng.standard_normal(64) / 4
    with pytest.raises(InputError, match="give a noise"):
        clean_accuracy(mu, np.diag(np.arange(64.0)), pair[1])
    found = exact_accuracy(mu, *pair, noise=ROUNDING)
    assert found.condition < 3 / ROUNDING
    assert 0.499 < found.accuracy < 0.55
    drawn = monte_carlo(mu, *pair, noise=0.3, samples=100_000, seed=9)
    exact = clean_accuracy(mu, *pair, noise=0.3)
    assert stats.binomtest(round(drawn.value * 100_000), 100_000, exact).pvalue > 1e-5
    drawn = monte_carlo(along_ones(20, 2), 0.1, 0.5, noise=0.3, samples=100_000, seed=10)
    exact = clean_accuracy(along_ones(20, 2), 0.1, 0.5, noise=0.3)
    assert stats.binomtest(round(drawn.value * 100_000), 100_000, exact).pvalue > 1e-5


@pytest.mark.parametrize("pair", [(0.1, 0.4), ([0.2, 1, 0.1], 0.4)], ids=["sine", "dense"])
def test_noise_that_vanishes_and_noise_that_drowns_the_filters(pair):
    mu = along_ones(12, 2)
    assert clean_accuracy(mu, *pair, noise=1e-7) == pytest.approx(clean_accuracy(mu, *pair), abs=1e-9)
    # Where the noise drowns everything, what is left is of the order of noise^-2: linear, with an offset.
    negative, positive = (
        tridiagonal(one, 12) if isinstance(one, float) else convolution_matrix(one, 12) for one in pair
    )
    offset = np.sum((negative @ mu) ** 2) - np.sum((positive @ mu) ** 2)
    offset += np.sum(negative**2) - np.sum(positive**2)
    weights = 2 * (negative + positive) @ mu
    margins = (weights @ mu + offset * np.array([1, -1])) / np.linalg.norm(weights)
    assert clean_accuracy(mu, *pair, noise=1e4) == pytest.approx(stats.norm.cdf(margins).mean(), abs=1e-6)


def test_ten_thousand_dimensions():
    mu = along_ones(10_000, 5)
    start = time.perf_counter()
    found = exact_accuracy(mu, 0.2, 0.2001)
    assert time.perf_counter() - start < 30  # a guard against a (d, d) matrix; the figure is in benchmarks/theory.py
    drawn = monte_carlo(mu, 0.2, 0.2001, samples=400, seed=8)
    assert drawn.low - 1e-3 <= found.accuracy <= drawn.high + 1e-3
    assert found.error < 1e-12
    hardest = exact_accuracy(mu, 0.4999, 0.5)
    assert hardest.condition == pytest.approx(4 * 10_001**2 / math.pi**2, rel=1e-3)
    assert hardest.accuracy == pytest.approx(0.5, abs=1e-9)


def printed_bound(mu, low, high):
    """Theorem 2 as printed in the copy we had (docs/theory.md): kept here, to show that nobody should use it."""
    rule = poisoned_rule(mu, low, high)
    size = np.abs(rule.curvature).max()

    def log_term(label, t):
        gradient = np.linalg.norm(2 * label * rule.curvature * rule.mean + rule.slope)
        level = rule.slope @ rule.mean + label * (rule.curvature @ rule.mean**2 + rule.constant)
        return t * (level - 1 / (4 * gradient * size)) - 0.5 * np.sum(np.log(np.abs(1 - 2 * t * rule.curvature)))

    admissible = np.linspace(0, 0.5 / rule.curvature.max(), 4001)[:-1]
    return sum(0.5 * math.exp(min(log_term(label, t) for t in admissible)) for label in (1, -1))


@pytest.mark.parametrize(
    ("mu", "pair", "exact", "rigorous"),
    [
        (along_ones(50, 1), (0.0, 0.3), 0.51422, 0.58540),
        (along_ones(50, 1), (0.1, 0.3), 0.50741, 0.54373),
        (along_ones(10, 1), (0.0, 0.5), 0.50709, 0.54102),
        (along_ones(10, 5), (0.0, 0.5), 0.61534, 0.75752),
        (MU, (0.1, 0.5), 0.50916, 0.53302),
    ],
)
def test_the_printed_bound_is_violated_and_ours_is_not(mu, pair, exact, rigorous):
    assert clean_accuracy(mu, *pair) == pytest.approx(exact, abs=6e-6)
    assert chernoff_bound(mu, *pair) == pytest.approx(rigorous, abs=6e-6)
    assert printed_bound(mu, *pair) < exact


def test_the_printed_tail_bound_is_violated():
    curvature, slope, gap, t = np.array([0.01, 0.02, 0.03]), np.array([1.0, 0.5, 0.2]), 0.5, 5.0
    z = np.random.default_rng(9).standard_normal((200_000, 3))
    tail = np.mean((z**2 - 1) @ curvature + z @ slope >= gap)
    size = np.linalg.norm(slope)
    printed = math.exp(-t / (4 * size**2 * 0.03) - t * (gap + 0.06 + size)) / np.sqrt(np.prod(1 - 2 * t * curvature))
    assert tail == pytest.approx(0.3272, abs=0.005)
    assert printed == pytest.approx(2.8e-18, rel=0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clean_accuracy(np.zeros(5), 0.1, 0.2), "a mean mu that is not zero, found zero"),
        (lambda: clean_accuracy([1.0, math.nan], 0.1, 0.2), "finite numbers"),
        (lambda: clean_accuracy([[1.0, 2.0]], 0.1, 0.2), "as a vector"),
        (lambda: clean_accuracy(["a"], 0.1, 0.2), "made of numbers"),
        (lambda: clean_accuracy([1.0, 2.0], [1, 1, 1], 0.2), "can be inverted, found a condition number"),
        (lambda: clean_accuracy([1.0, 1.0], -1.0, 0.2), "can be inverted"),
        (lambda: clean_accuracy([1e-200, 0.0], 0.1, 0.2), "a mean mu that is not zero, found 1e-200"),
        (lambda: clean_accuracy([1e200, 0.0], 0.1, 0.1), "at most 1e\\+100 in size, found 1e\\+200"),
        (lambda: clean_accuracy([1.0, 2.0], 0.1, 0.2, noise=-1), "a noise >= 0, found -1"),
        (lambda: clean_accuracy([1.0, 2.0], [[1], [2, 3]], 0.2), "a filter made of numbers"),
        (lambda: monte_carlo([1.0, 2.0], 0.1, 0.2, samples=1e3), "as a whole number, found 1000.0"),
        (lambda: monte_carlo([1.0, 2.0], 0.1, 0.2, seed=-1), "a seed of at least 0"),
        (lambda: poisoned_rule([1.0, 2.0], 0.1, 0.2).score(np.ones((3, 4))), r"shape \(n, 2\)"),
        (lambda: picture_filter(np.ones((3, 3)), 5, 5, "mirror"), "reflect or zero, found 'mirror'"),
        (lambda: picture_filter(np.ones((3, 3)), 5.5, 5), "a height as a whole number"),
        (lambda: clean_accuracy([1.0, 2.0], [1, 0.5], 0.2), "an odd number of taps, found 2"),
        (lambda: clean_accuracy([1.0, 2.0], np.eye(3), 0.2), r"shape \(2, 2\)"),
        (lambda: clean_accuracy([1.0, 2.0], np.ones((2, 2, 2)), 0.2), "3 dimensions"),
        (lambda: monte_carlo([1.0, 2.0], 0.1, 0.2, samples=0), "samples"),
        (lambda: monte_carlo_classes([[1.0], [2.0]], [0.1], samples=10), "2 filters"),
        (lambda: monte_carlo_classes([[1.0]], [0.1], samples=10), "classes"),
        (lambda: picture_filter(np.ones((2, 3)), 5, 5), "odd sides"),
        (lambda: picture_filter(np.ones((9, 9)), 4, 9), "reaches less far"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_half_in_many_dimensions_is_computed_and_its_conditioning_told():
    found = exact_accuracy(along_ones(2000, 1), 0.5, 0.5)
    assert found.condition == pytest.approx(4 * 2001**2 / math.pi**2, rel=1e-2)
    assert 0.5 < found.accuracy < stats.norm.cdf(1)
