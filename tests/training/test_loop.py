"""One loop for all: what it sees, what it learns, that it stops and goes on as if it had not."""

import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.training.small import BUILD, SMALL, Constant, dark_and_bright, tiny, weights
from unlearnable.budgets import Linf
from unlearnable.errors import InputError
from unlearnable.pictures.dataset import Dataset
from unlearnable.training.bullettrain import BulletTrain
from unlearnable.training.checkpoint import Epoch
from unlearnable.training.evaluation import Accuracy, evaluate
from unlearnable.training.loop import train
from unlearnable.training.objectives import Noisy
from unlearnable.training.precision import default_device
from unlearnable.training.recipes import Recipe, named
from unlearnable.training.schedule import Schedule, rate

DATA = dark_and_bright()


def test_learns() -> None:
    recipe = Recipe(epochs=4, batch_size=8, learning_rate=0.1, crop=1)
    trained = train(DATA, model=BUILD, recipe=recipe)
    assert evaluate(trained.model, DATA.images, DATA.labels) == Accuracy(40, 40)
    assert not trained.model.training
    assert [epoch.number for epoch in trained.history] == [1, 2, 3, 4]
    assert trained.history[-1].accuracy > 0.9
    assert trained.gradients == 160


def test_same_seed_same_numbers_whatever_was_drawn_before() -> None:
    first = train(DATA, model=BUILD, recipe=SMALL, seed=3)
    torch.rand(5)
    state = torch.get_rng_state()
    second = train(DATA, model=BUILD, recipe=SMALL, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(weights(first.model), weights(second.model))
    assert not torch.equal(weights(first.model), weights(train(DATA, model=BUILD, recipe=SMALL, seed=4).model))


def test_every_picture_once_an_epoch_in_batches_of_about_one_size() -> None:
    network = Constant([0.0, 0.0])
    train(dark_and_bright(33), model=lambda: network, recipe=SMALL)
    assert network.asked == [11, 11, 11] * 2


def test_pictures_come_in_another_order_every_epoch() -> None:
    seen: list[int] = []
    data = dark_and_bright()
    numbered = Dataset(data.images.copy(), data.labels, data.class_names, data.ids)
    numbered.images[:] = np.arange(40)[:, None, None, None]

    def change(model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        seen.extend((images[:, 0, 0, 0] * 255).round().int().tolist())
        assert (labels == (images[:, 0, 0, 0] * 255).round() % 2).all()
        return images

    train(numbered, model=lambda: Constant([0.0, 0.0]), recipe=SMALL, change=change)
    assert sorted(seen[:40]) == sorted(seen[40:]) == list(range(40))
    assert len({tuple(seen[:40]), tuple(seen[40:]), tuple(range(40))}) == 3


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_is_cross_entropy_with_label_smoothing(smoothing: float) -> None:
    logits = [0.3, -1.0]
    recipe = Recipe(epochs=2, batch_size=7, learning_rate=0.0, label_smoothing=smoothing)
    trained = train(DATA, model=lambda: Constant(logits), recipe=recipe, precision="float32")
    surprise = math.log(sum(math.exp(x) for x in logits)) - np.array(logits)
    wanted = (1 - smoothing) * surprise[DATA.labels].mean() + smoothing * surprise.mean()
    assert [epoch.loss for epoch in trained.history] == [pytest.approx(wanted)] * 2
    assert [epoch.accuracy for epoch in trained.history] == [0.5] * 2


def test_a_loss_that_is_no_number_is_an_error() -> None:
    recipe = Recipe(epochs=9, batch_size=40, learning_rate=1e30, crop=1)
    with pytest.raises(FloatingPointError, match=r"in epoch [2-9]: lower the learning rate"):
        train(DATA, model=BUILD, recipe=recipe)


@pytest.mark.parametrize(
    ("data", "recipe", "message"),
    [
        (DATA, Recipe(epochs=1, crop=8), "expected a crop below the pictures' 8 x 8 pixels, found 8"),
        (DATA.select(np.arange(0, 40, 2)), SMALL, "expected pictures of two classes at least to train on"),
    ],
)
def test_what_cannot_be_trained_on_is_an_error(data: Dataset, recipe: Recipe, message: str) -> None:
    with pytest.raises(InputError, match=message):
        train(data, model=BUILD, recipe=recipe)


KINDS = {
    "sgd": SMALL,
    "adamw": Recipe(epochs=2, batch_size=16, crop=2, optimizer="adamw", learning_rate=0.01, schedule="cosine"),
    "averaged": Recipe(epochs=2, batch_size=16, crop=2, ema=0.9, clip_norm=1.0, schedule="step"),
    "cutmix": named("cutmix", epochs=2, batch_size=16, crop=2),
    "adversarial": named("adversarial", budget=Linf.of_255(4), steps=2, epochs=2, batch_size=16, crop=2),
    "smoothing": named("smoothing", epochs=2, batch_size=16, crop=2),
}


class Growing(nn.Module):
    """A change that remembers how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("times", torch.zeros(()))

    def forward(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        self.times += 1
        return (images + 0.01 * self.times).clamp(0, 1)


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    pass


@pytest.mark.parametrize("recipe", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("stop", [1, 3, 4])
def test_a_run_goes_on_to_the_same_numbers(recipe: Recipe, stop: int, tmp_path: Path, monkeypatch) -> None:
    whole = train(DATA, model=tiny, recipe=recipe, change=Growing())
    monkeypatch.setattr("unlearnable.training.loop._SAVE_SECONDS", 0.0)
    state = tmp_path / "run"

    def stopping(done: int, steps: int, epoch: Epoch | None) -> None:
        if done == stop + 1:  # as kill -9 does: the step before is the last that was written down
            raise Stopped

    with pytest.raises(Stopped):
        train(DATA, model=tiny, recipe=recipe, change=Growing(), checkpoint=state, progress=stopping)
    steps: list[int] = []
    again = train(
        DATA,
        model=tiny,
        recipe=recipe,
        change=Growing(),
        checkpoint=state,
        progress=lambda done, total, epoch: steps.append(done),
    )
    assert steps == list(range(stop + 1, 7))
    assert torch.equal(weights(again.model), weights(whole.model))
    assert [epoch[:3] for epoch in again.history] == [epoch[:3] for epoch in whole.history]
    assert again.gradients == whole.gradients
    finished = train(DATA, model=tiny, recipe=recipe, change=Growing(), checkpoint=state)
    assert torch.equal(weights(finished.model), weights(whole.model))


def test_ctrl_c_ends_the_step_and_writes_it_down(tmp_path: Path) -> None:
    state = tmp_path / "run"
    seen: list[int] = []

    def pressing(done: int, steps: int, epoch: Epoch | None) -> None:
        seen.append(done)
        if done == 2:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(DATA, model=BUILD, recipe=SMALL, checkpoint=state, progress=pressing)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [1, 2]
    trained = train(DATA, model=BUILD, recipe=SMALL, checkpoint=state)
    assert torch.equal(weights(trained.model), weights(train(DATA, model=BUILD, recipe=SMALL).model))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "expected a run started with seed 1, found 0 in"),
        ({"recipe": Recipe(epochs=3, batch_size=16)}, "expected a run started with recipe crop 4, found 2 in"),
        ({"recipe": named("mixup")}, "expected a run started with recipe augmentations"),
        ({"recipe": replace(SMALL, objective=Noisy(sigma=0.1))}, "recipe objective kind Noisy, found CrossEntropy in"),
        ({"recipe": named("mart", accelerate=BulletTrain())}, "recipe accelerate BulletTrain, found None in"),
        ({"precision": "bfloat16"}, "expected a run started with precision bfloat16, found float32"),
        ({"model": lambda: Constant([0.0, 1.0])}, "expected a checkpoint of this network, found another"),
    ],
    ids=["seed", "recipe", "augmentation", "objective", "accelerated", "precision", "network"],
)
def test_a_run_does_not_go_on_as_another(change: dict, message: str, tmp_path: Path) -> None:
    same = {"model": BUILD, "recipe": SMALL, "precision": "float32", "checkpoint": tmp_path / "run"}
    train(DATA, **same)
    with pytest.raises(InputError, match=message):
        train(DATA, **same | change)


def test_a_mapped_file_trains_as_memory_does(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", DATA.images)
    mapped = Dataset(np.load(tmp_path / "images.npy", mmap_mode="r"), DATA.labels, DATA.class_names, DATA.ids)
    first, second = (train(data, model=BUILD, recipe=SMALL) for data in (DATA, mapped))
    assert torch.equal(weights(first.model), weights(second.model))


def test_averaged_weights_are_the_moving_average() -> None:
    network, passed = Constant([0.0, 0.0]), []

    def note(done: int, steps: int, epoch: Epoch | None) -> None:
        passed.append(network.logits.detach().clone())

    data = DATA.select(np.flatnonzero((DATA.labels == 0) | (np.arange(40) < 12)))
    recipe = Recipe(epochs=3, batch_size=8, crop=1, ema=0.75, learning_rate=0.5)
    trained = train(data, model=lambda: network, recipe=recipe, progress=note)
    average = passed[0]
    for logits in passed[1:]:
        average = 0.75 * average + 0.25 * logits
    assert torch.allclose(trained.model.logits, average)
    assert not torch.allclose(average, passed[-1], atol=1e-4)


def test_a_linear_probe_trains_the_last_layer_alone() -> None:
    start = train(DATA, model=BUILD, recipe=SMALL).model
    before = {name: tensor.clone() for name, tensor in start.state_dict().items()}
    probe = named("linear-probe", epochs=1, batch_size=16, crop=1)
    trained = train(DATA, model=lambda: start, recipe=probe)
    changed = {name for name, tensor in trained.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"head.weight"}
    assert all(parameter.requires_grad for parameter in trained.model.parameters())


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "step", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 99])
def test_learning_rate_rises_to_the_highest_and_falls(schedule: Schedule, steps: int) -> None:
    rates = [rate(schedule, step, steps) for step in range(steps)]
    top = rates.index(1.0)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert min(rates) > 0
    assert top <= steps / 4


def test_a_gpu_is_taken_where_there_is_one(monkeypatch) -> None:
    for available, name in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        assert default_device() == name
