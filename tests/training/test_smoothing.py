"""Certificates against the closed form of a linear network, and SciPy's."""

import numpy as np
import pytest
import torch
from scipy.stats import binom, binomtest, norm
from torch import Tensor, nn

from unlearnable import InputError
from unlearnable.training.smoothing import ABSTAINED, Certificate, certify, lower_bound

pytestmark = pytest.mark.usefixtures("one_thread")

SIGMA = 0.5


class Plane(nn.Module):
    """Class 1 on one side of a plane through the middle of all pictures, class 0 on the other."""

    def __init__(self, values: int = 12) -> None:
        super().__init__()
        self.normal = nn.Parameter(torch.randn(values, generator=torch.Generator().manual_seed(0)))
        self.batches: list[int] = []
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        self.batches.append(len(images))
        side = (images - 0.5).flatten(1) @ self.normal
        return torch.stack([-side, side], 1)


def pictures(count: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures of 2 x 2 pixels, the sides of the plane they are on, and their distances from it."""
    images = np.random.default_rng(0).integers(0, 256, (count, 2, 2, 3), dtype=np.uint8)
    images[0] = 127  # all but on it
    normal = Plane().normal.detach().double().numpy()
    side = (images.transpose(0, 3, 1, 2).reshape(count, -1) / 255 - 0.5) @ normal / np.linalg.norm(normal)
    return images, (side > 0).astype(np.int64), np.abs(side)


def test_radii_are_those_of_a_linear_network() -> None:
    images, sides, distances = pictures()
    labels = sides.copy()
    labels[3] = 1 - labels[3]
    network = Plane()
    proven = certify(network, images, labels, sigma=SIGMA, samples=20_000)
    assert network.training
    assert (proven.radii.dtype, proven.predicted.dtype) == (np.float64, np.int64)
    assert proven.predicted[0] == ABSTAINED
    assert proven.radii[0] == 0
    assert proven.predicted[1:].tolist() == sides[1:].tolist()
    # The smoothed classifier is the network itself: nothing beyond the true distance is proven, and nearly all within.
    assert (proven.radii <= distances).all()
    # Where a share p of n answers is right, the bound lies about 3.1 standard deviations below it, for alpha = 0.001.
    shares = norm.cdf(distances / SIGMA)
    near = norm.ppf(shares - 2 * 3.1 * np.sqrt(shares * (1 - shares) / 20_000)) * SIGMA
    assert (proven.radii[1:] >= near[1:]).all()
    assert distances[1:].min() > 0.03
    assert distances.max() < 2.5 * SIGMA
    for radius in (0, 0.1, 0.3):
        right = sides == labels
        sure = np.abs(distances - radius) > 0.05
        certified = (proven.predicted == labels) & (proven.radii >= radius)
        assert (certified == (right & (distances > radius)))[sure].all()
        assert proven.certified_accuracy(radius) == pytest.approx(certified.mean())


def test_samples_limit_the_radius() -> None:
    network = Plane()
    with torch.no_grad():
        network.normal *= 0
        network.normal[0] = 1e6
    images = np.full((1, 2, 2, 3), 255, np.uint8)
    proven = certify(network, images, np.ones(1), sigma=1e-3, samples=500, alpha=0.01)
    assert proven.radii[0] == pytest.approx(1e-3 * norm.ppf(0.01 ** (1 / 500)))  # all 500 answers are right


def test_noise_goes_through_in_batches_of_which_none_is_wasted() -> None:
    network, done = Plane(), []
    images, labels, _ = pictures(2)
    certify(
        network,
        images,
        labels,
        sigma=SIGMA,
        guesses=30,
        samples=250,
        batch_size=100,
        progress=lambda *now: done.append(now),
    )
    assert network.batches == [30, 100, 100, 50] * 2
    assert done == [(1, 2), (2, 2)]


def test_same_seed_same_certificate() -> None:
    images, labels, _ = pictures()
    state = torch.get_rng_state()
    first, second, other = (
        certify(Plane(), images, labels, sigma=SIGMA, samples=300, seed=seed).radii for seed in (0, 0, 1)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("total", [1, 10, 100_000])
@pytest.mark.parametrize("share", [0, 0.3, 0.97, 1])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_lower_bound_is_clopper_pearsons(total: int, share: float, alpha: float) -> None:
    right = round(share * total)
    exact = binomtest(right, total, alternative="greater").proportion_ci(1 - alpha, method="exact")
    assert lower_bound(right, total, alpha) == pytest.approx(exact.low, rel=1e-6)


@pytest.mark.parametrize("probability", [0.4, 0.5, 0.9])
def test_lower_bound_is_wrong_no_more_often_than_allowed(probability: float) -> None:
    counts = np.arange(201)
    wrong = np.array([lower_bound(int(count), 200, 0.05) > probability for count in counts])
    assert 0.02 < binom.pmf(counts, 200, probability)[wrong].sum() <= 0.05


def test_a_radius_counts_for_right_answers_alone() -> None:
    proven = Certificate(np.array([0.5, 9.0, 0.0, 0.2]), np.array([1, 2, ABSTAINED, 0]), np.array([1, 1, 0, 0]))
    assert [proven.certified_accuracy(radius) for radius in (0, 0.2, 0.3, 0.5, 0.6)] == [0.5, 0.5, 0.25, 0.25, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 0}, "expected a sigma above 0, found 0"),
        ({"sigma": float("nan")}, "expected a sigma above 0, found nan"),
        ({"sigma": 1, "samples": 0}, "expected at least 1 noisy copy, found 0"),
        ({"sigma": 1, "alpha": 1}, "expected an alpha between 0 and 1, found 1"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    images, labels, _ = pictures(2)
    with pytest.raises(InputError, match=message):
        certify(Plane(), images, labels, **options)
