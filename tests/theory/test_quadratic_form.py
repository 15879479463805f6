import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

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
