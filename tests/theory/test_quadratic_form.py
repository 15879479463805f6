import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.integrate import quad

from unlearnable.theory.quadratic_form import QuadraticForm


def chi_squared(degrees, threshold):
    return QuadraticForm(np.ones(degrees), np.zeros(degrees), np.zeros(degrees), -threshold)


@pytest.mark.parametrize("degrees", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("threshold", [0.01, 1.0, 10.0, 100.0, 700.0])
def test_both_tails_of_chi_squared_to_twelve_digits(degrees, threshold):
    form = chi_squared(degrees, threshold)
    assert form.positive().value == pytest.approx(stats.chi2.sf(threshold, degrees), rel=1e-12, abs=0)
    assert (-form).positive().value == pytest.approx(stats.chi2.cdf(threshold, degrees), rel=1e-12, abs=0)


@pytest.mark.parametrize("threshold", [0.1, 1.0, 5.0, 20.0, 60.0])
def test_non_central_chi_squared(threshold):
    form = QuadraticForm(np.ones(2), np.zeros(2), np.array([1.0, 2.0]), -threshold)
    assert form.positive().value == pytest.approx(stats.ncx2.sf(threshold, 2, 5), rel=1e-10)


@pytest.mark.parametrize("threshold", [-30.0, -3.0, 0.0, 1.0, 5.0, 20.0, 37.0])
def test_a_linear_form_is_normal_far_into_the_tail(threshold):
    form = QuadraticForm(np.zeros(2), np.array([0.6, 0.8]), np.array([1.0, 1.0]), -1.4 - threshold)
    assert form.positive().value == pytest.approx(stats.norm.sf(threshold), rel=1e-11, abs=0)


def test_a_difference_of_two_squares_against_the_f_distribution():
    # x1^2 > 3 x2^2, each a chi-squared number of one degree: the slowest fall of the integrand, with both signs.
    form = QuadraticForm(np.array([1.0, -3.0]), np.zeros(2), np.zeros(2), 0.0)
    assert form.positive().value == pytest.approx(stats.f.sf(3, 1, 1), rel=1e-12)


def test_a_form_of_one_sign_never_has_the_other():
    form = QuadraticForm(-np.ones(3), np.zeros(3), np.ones(3), -1.0)
    assert form.positive() == (0.0, 0.0)
    assert (-form).positive() == (1.0, 0.0)
    assert form.log_chernoff() == -math.inf
    assert (-form).log_chernoff() == 0.0


def test_a_constant():
    zero = np.zeros(2)
    assert [QuadraticForm(zero, zero, zero, value).positive().value for value in (2.0, -2.0)] == [1.0, 0.0]


@pytest.mark.parametrize("power", [0, 7, 14])
def test_a_step_of_fourteen_decades_between_curvatures(power):
    # What the huge term does is known exactly: its sign decides, but for a probability of the order of 10^(-power/2).
    form = QuadraticForm(np.array([10.0**power, -1.0]), np.zeros(2), np.zeros(2), 0.0)
    assert (-form).positive().value == pytest.approx(2 / math.pi * math.atan(10 ** (-power / 2)), rel=1e-10)


@pytest.mark.parametrize("tiny", [1e-12, 1e-6])
def test_a_saddle_far_nearer_than_the_wall_behind_it(tiny):
    # A tiny curvature of the other sign puts a wall at 1 / (2 tiny), twenty decades beyond the saddle.
    curvature = np.array([-3e9, -5e7, -4e6, -8e5, tiny])
    form = QuadraticForm(curvature, np.zeros(5), np.zeros(5), 8.0)
    assert form.first(form.saddle).real == pytest.approx(0, abs=1e-6)
    # Near 0 the density of four normal numbers is (2 pi)^-2: the volume of the ellipsoid, pi^2 / 2 times its half-axes.
    small = math.pi**2 / 2 * np.prod(np.sqrt(8 / -curvature[:4])) / (2 * math.pi) ** 2
    assert form.positive().value == pytest.approx(small, rel=1e-4)


def test_the_path_leaves_to_the_side_where_nothing_grows():
    # To the other side the integrand falls to 1e-18 of its peak, and then grows without bound.
    curvature = np.array([-3.12364167e-02, 7.41995049e-01, -3.60532824e01])
    slope, mean = np.array([-0.364495, 1.33546965, 0.80169708]), np.array([-8.2691214, 6.4383284, 9.19339053])
    form = QuadraticForm(curvature, slope, mean, -0.3111672629364124)

    def last_fits(u, v):
        """P(Q > 0) given the first two coordinates: the last lies between two roots, in its lower tail."""
        rest = form.constant + (curvature[0] * u + slope[0]) * u + (curvature[1] * v + slope[1]) * v
        if (square := slope[2] ** 2 - 4 * curvature[2] * rest) <= 0:
            return 0.0
        ends = (-slope[2] + np.array([1, -1]) * math.sqrt(square)) / (2 * curvature[2])
        low, high = stats.norm.cdf(ends - mean[2])
        return float(high - low)

    def expect(function, centre):
        return quad(lambda w: function(w) * stats.norm.pdf(w - centre), centre - 9, centre + 9, limit=200)[0]

    true = expect(lambda v: expect(lambda u: last_fits(u, v), mean[0]), mean[1])
    assert form.positive().value == pytest.approx(true, rel=1e-7)
    assert (-form).positive().value == pytest.approx(1 - true, rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), d=st.integers(1, 30), spread=st.floats(0, 3), shift=st.floats(-4, 4))
def test_probabilities_add_to_one_and_stay_below_chernoff(seed, d, spread, shift):
    rng = np.random.default_rng(seed)
    curvature = rng.standard_normal(d) * 10 ** rng.uniform(-spread, spread, d)
    slope, mean = rng.standard_normal((2, d))
    centred = QuadraticForm(curvature, slope, mean, 0.0)
    form = QuadraticForm(curvature, slope, mean, shift * math.sqrt(centred.second(0.0)) - centred.expectation)
    above, below = form.positive(), (-form).positive()
    assert above.value + below.value == pytest.approx(1, abs=1e-11)
    assert above.value <= math.exp(form.log_chernoff()) * (1 + 1e-9)
    assert below.value <= math.exp((-form).log_chernoff()) * (1 + 1e-9)
    assert max(above.error, below.error) < 1e-11


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), d=st.integers(1, 6))
def test_against_drawing(seed, d):
    rng = np.random.default_rng(seed)
    curvature, slope, mean = rng.standard_normal((3, d))
    constant = float(rng.standard_normal())
    x = mean + rng.standard_normal((40_000, d))
    drawn = int(np.sum(x**2 @ curvature + x @ slope + constant > 0))
    exact = QuadraticForm(curvature, slope, mean, constant).positive().value
    assert stats.binomtest(drawn, 40_000, min(max(exact, 1e-12), 1 - 1e-12)).pvalue > 1e-7


def test_moments_of_the_form():
    rng = np.random.default_rng(3)
    form = QuadraticForm(*rng.standard_normal((3, 4)), 0.7)
    x = form.mean + rng.standard_normal((400_000, 4))
    values = x**2 @ form.curvature + x @ form.slope + form.constant
    assert form.expectation == pytest.approx(values.mean(), abs=5 * values.std() / math.sqrt(400_000))
    assert form.second(0.0) == pytest.approx(values.var(), rel=0.02)
    assert form.first(0.0).real == pytest.approx(form.expectation, rel=1e-12)
    step = 1e-6
    slope = (form.cumulant(np.array([step + 0j])) - form.cumulant(np.array([-step + 0j])))[0].real / (2 * step)
    assert slope == pytest.approx(form.expectation, rel=1e-6)
