import numpy as np
import pytest

from unlearnable.errors import InputError
from unlearnable.theory.filter_design import distortion, strongest_filters
from unlearnable.theory.gaussian_mixture import clean_accuracy, convolution_matrix

MU = 2.5 * np.cos(np.arange(16)) / np.linalg.norm(np.cos(np.arange(16)))


def test_distortion_is_what_the_filter_does_to_the_mean():
    taps = [0.1, 0.2, 1, 0.0, 0.3]
    assert distortion(MU, taps) == pytest.approx(np.linalg.norm(convolution_matrix(taps, 16) @ MU - MU), abs=1e-14)
    assert distortion(MU, [0, 1, 0]) == 0


@pytest.mark.parametrize("budget", [0.5, 1.2])
def test_no_pair_on_a_grid_does_better(budget):
    found = strongest_filters(MU, budget, taps=3, starts=3)
    unit = distortion(MU, [1, 1, 1])
    grid = np.linspace(0, min(0.499, budget / unit), 26)
    least = min(clean_accuracy(MU, low, high) for low in grid for high in grid)
    assert found.accuracy <= least + 1e-6
    assert max(found.distortions) <= budget * (1 + 1e-9)
    assert found.accuracy == pytest.approx(clean_accuracy(MU, found.negative, found.positive), abs=1e-9)
    assert min(found.negative.min(), found.positive.min()) >= 0
    assert found.negative[1] == found.positive[1] == 1


def test_more_budget_and_more_taps_never_protect_less():
    small, large = (strongest_filters(MU, budget, taps=3, starts=2).accuracy for budget in (0.4, 0.8))
    assert large < small
    assert strongest_filters(MU, 0.8, taps=5, starts=3).accuracy <= large + 1e-6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: strongest_filters(np.zeros(4), 1.0), "mu that is not zero"),
        (lambda: strongest_filters(MU, 0.0), "a budget > 0, found 0"),
        (lambda: strongest_filters(MU, -1.0), "a budget >= 0, found -1"),
        (lambda: strongest_filters(MU, np.nan), "a budget made of finite numbers"),
        (lambda: strongest_filters(MU, "much"), "a budget made of numbers"),
        (lambda: strongest_filters(MU, 1.0, starts=0), "starts of at least 1, found 0"),
        (lambda: strongest_filters(MU, 1.0, taps=3.5), "taps as a whole number"),
        (lambda: strongest_filters(MU, 1.0, taps=4), "an odd number of taps, found 4"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
