import math
from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest
from torch import Tensor, nn

from unlearnable.models import models
from unlearnable.training.loop import Accuracy, Precision, Recipe, _moved, draw_moves, evaluate, one_cycle, train

SMALL = Recipe(epochs=2, batch_size=16, learning_rate=0.05, crop=2)
BUILD = partial(models.create, "resnet9-w16", classes=2)


def pictures(count: int = 40, size: int = 8) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Dark ones and bright ones."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2
    return (rng.integers(0, 100, (count, size, size, 3)) + 155 * labels[:, None, None, None]).astype(np.uint8), labels


class Constant(nn.Module):
    """Gives the same answer for every picture, and takes down how many it is asked."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))
        self.asked: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.asked.append(len(images))
        return self.logits.expand(len(images), -1)


def weights(network: nn.Module) -> Tensor:
    return torch.cat([tensor.flatten().float() for tensor in network.state_dict().values()])


def test_learns() -> None:
    images, labels = pictures()
    network = train(images, labels, model=BUILD, recipe=Recipe(epochs=4, batch_size=8, learning_rate=0.1, crop=1))
    assert evaluate(network, images, labels) == Accuracy(40, 40)
    assert not network.training


def test_same_seed_same_numbers_whatever_was_drawn_before() -> None:
    images, labels = pictures()
    first = train(images, labels, model=BUILD, recipe=SMALL, seed=3)
    torch.rand(5)
    state = torch.get_rng_state()
    second = train(images, labels, model=BUILD, recipe=SMALL, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(train(images, labels, model=BUILD, recipe=SMALL, seed=4)))


def test_every_picture_once_an_epoch_in_batches_of_about_one_size() -> None:
    images, labels = pictures(33)
    network = Constant([0.0, 0.0])
    train(images, labels, model=lambda: network, recipe=SMALL)
    assert network.asked == [11, 11, 11] * 2


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_is_cross_entropy_with_label_smoothing(smoothing: float) -> None:
    images, labels = pictures()
    logits = [0.3, -1.0]
    told: list[tuple[int, float]] = []
    train(
        images,
        labels,
        model=lambda: Constant(logits),
        recipe=Recipe(epochs=2, batch_size=7, learning_rate=0.0, label_smoothing=smoothing),
        precision="float32",
        progress=lambda epoch, loss: told.append((epoch, loss)),
    )
    surprise = math.log(sum(math.exp(x) for x in logits)) - np.array(logits)
    wanted = (1 - smoothing) * surprise[labels].mean() + smoothing * surprise.mean()
    assert told == [(1, pytest.approx(wanted)), (2, pytest.approx(wanted))]


def test_a_loss_that_is_no_number_is_an_error() -> None:
    with pytest.raises(FloatingPointError, match="in epoch 2: lower the learning rate"):
        train(*pictures(), model=BUILD, recipe=Recipe(epochs=9, batch_size=40, learning_rate=math.nan, crop=1))


def test_a_crop_as_large_as_the_pictures_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected a crop below the pictures' 8 x 8 pixels, got 8"):
        train(*pictures(), model=BUILD, recipe=Recipe(epochs=1, crop=8))


def test_pictures_of_another_kind_are_an_error() -> None:
    images, labels = pictures()
    for wrong in (images / 255, images[..., 0]):
        with pytest.raises(ValueError, match=r"expected pictures as .* in uint8, found (float64|uint8) of \(40, 8, 8"):
            train(wrong, labels, model=BUILD, recipe=SMALL)


@pytest.mark.parametrize("flip", [False, True])
def test_moves_are_a_crop_of_the_reflected_picture_and_a_flip(flip: bool) -> None:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (30, 7, 9, 3), dtype=np.uint8)
    recipe = Recipe(epochs=1, crop=3, flip=flip)
    moves = draw_moves(30, 7, 9, recipe, torch.Generator().manual_seed(0))
    batch = _moved(torch.from_numpy(images), torch.arange(30), moves)
    assert batch.shape == (30, 3, 7, 9)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    seen = set()
    for image, moved in zip(images, batch, strict=True):
        large = np.pad(image, ((3, 3), (3, 3), (0, 0)), "reflect")
        crops = {
            (y, x, mirrored): large[y : y + 7, x : x + 9][:, :: -1 if mirrored else 1]
            for y in range(7)
            for x in range(7)
            for mirrored in (False, True)
        }
        result = (moved.permute(1, 2, 0) * 255).round().numpy().astype(np.uint8)
        seen |= {place for place, crop in crops.items() if np.array_equal(crop, result)}
        assert any(np.array_equal(crop, result) for crop in crops.values())
    assert {mirrored for _, _, mirrored in seen} == ({False, True} if flip else {False})
    assert {y for y, _, _ in seen} == {x for _, x, _ in seen} == set(range(7))


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 99])
def test_learning_rate_rises_to_the_highest_and_falls(steps: int) -> None:
    rates = [one_cycle(step, steps) for step in range(steps)]
    top = rates.index(1.0)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert min(rates) > 0
    assert top <= steps / 4


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "auto"])
def test_evaluation_does_not_depend_on_the_batch(precision: Precision) -> None:
    images, labels = pictures()
    network = train(images, labels, model=BUILD, recipe=SMALL)
    counts = {evaluate(network, images, labels, precision=precision, batch_size=size).right for size in (1, 7, 40)}
    assert len(counts) == 1


def test_evaluation_counts_right_answers() -> None:
    images, labels = pictures(11)
    assert evaluate(Constant([0.0, 1.0]), images, labels, batch_size=4) == Accuracy(right=5, total=11)


@pytest.mark.parametrize(("right", "total"), [(0, 10), (3, 10), (10, 10), (87, 500), (1, 1)])
def test_interval_is_wilsons(right: int, total: int) -> None:
    wanted = binomtest(right, total).proportion_ci(method="wilson")
    assert Accuracy(right, total).interval() == pytest.approx((wanted.low, wanted.high), abs=1e-6)
