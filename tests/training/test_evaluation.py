import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from tests.training.small import BUILD, Constant, dark_and_bright
from unlearnable.training.evaluation import Accuracy, evaluate, predictions
from unlearnable.training.precision import Precision


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "auto"])
def test_evaluation_does_not_depend_on_the_batch(precision: Precision) -> None:
    data = dark_and_bright()
    torch.manual_seed(0)
    network = BUILD()
    counts = {
        evaluate(network, data.images, data.labels, precision=precision, batch_size=size).right for size in (1, 7, 40)
    }
    assert len(counts) == 1


def test_evaluation_counts_right_answers() -> None:
    data = dark_and_bright(11)
    assert evaluate(Constant([0.0, 1.0]), data.images, data.labels, batch_size=4) == Accuracy(right=5, total=11)
    assert (predictions(Constant([0.0, 1.0]), data.images, batch_size=4) == 1).all()
    assert predictions(Constant([0.0, 1.0]), data.images[:0]).shape == (0,)


class Drawing(torch.nn.Module):
    """Answers by chance alone, which it draws from PyTorch's own generator."""

    def __init__(self) -> None:
        super().__init__()
        self.none = torch.nn.Parameter(torch.zeros(()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.rand(len(images), 10)


def test_what_a_network_draws_goes_by_the_seed_and_leaves_no_trace() -> None:
    data, network = dark_and_bright(), Drawing()
    torch.manual_seed(1)
    first, state = predictions(network, data.images), torch.get_rng_state()
    torch.rand(7)
    assert np.array_equal(first, predictions(network, data.images))
    assert not np.array_equal(first, predictions(network, data.images, seed=1))
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(("right", "total"), [(0, 10), (3, 10), (10, 10), (87, 500), (1, 1)])
def test_interval_is_wilsons(right: int, total: int) -> None:
    wanted = binomtest(right, total).proportion_ci(method="wilson")
    assert Accuracy(right, total).interval() == pytest.approx((wanted.low, wanted.high), abs=1e-6)


def test_pictures_reach_the_network_from_0_to_1_channels_first() -> None:
    images = np.zeros((2, 3, 4, 3), np.uint8)
    images[0, 1, 2, 0] = 255
    network = Constant([0.0, 1.0])
    evaluate(network, images, np.array([0, 1]))
    assert network.seen is not None
    assert network.seen.shape == (2, 3, 3, 4)
    assert network.seen[0, 0, 1, 2] == 1
    assert network.seen.sum() == 1
