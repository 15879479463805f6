"""Held-out pictures: chosen evenly, never trained on, and the best epoch by them is what comes out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.training.small import SMALL, Constant, dark_and_bright, tiny, weights
from unlearnable.attacks import PGD
from unlearnable.budgets import L2, Linf
from unlearnable.errors import InputError
from unlearnable.pictures.dataset import Dataset
from unlearnable.training.checkpoint import Epoch
from unlearnable.training.evaluation import evaluate, withstood
from unlearnable.training.holdout import best, held_out, judged_by
from unlearnable.training.loop import train
from unlearnable.training.recipes import Recipe, named

DATA = dark_and_bright()


def test_each_class_gives_the_same_share() -> None:
    data = DATA.select(np.flatnonzero((DATA.labels == 0) | (np.arange(40) < 20)))  # 20 dark, 10 bright
    places = held_out(data, 0.2, seed=0)
    assert np.bincount(data.labels[places]).tolist() == [4, 2]
    assert (np.diff(places) > 0).all()


def test_the_choice_goes_by_ids_and_seed() -> None:
    order = np.random.default_rng(0).permutation(40)
    shuffled = DATA.select(order)
    chosen = {DATA.ids[place] for place in held_out(DATA, 0.25, seed=1)}
    assert {shuffled.ids[place] for place in held_out(shuffled, 0.25, seed=1)} == chosen
    assert {DATA.ids[place] for place in held_out(DATA, 0.25, seed=2)} != chosen
    most = {DATA.ids[place] for place in held_out(DATA, 0.5, seed=1)}
    assert chosen < most


@pytest.mark.parametrize(
    ("fraction", "message"),
    [
        (0.0, "expected a share to hold out between 0 and 1, found 0"),
        (1.0, "expected a share to hold out between 0 and 1, found 1"),
        (-0.1, "expected a share to hold out between 0 and 1"),
        (0.01, r"expected enough pictures of each class to hold 0.01 of them out and train on the rest, found 20 of"),
        (0.99, "found 20 of 'dark': hold out another share, or add pictures"),
    ],
)
def test_a_share_that_leaves_nothing_is_an_error(fraction: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        held_out(DATA, fraction, seed=0)


def test_held_out_pictures_are_never_trained_on() -> None:
    seen: set[int] = set()
    images = np.broadcast_to(np.arange(40, dtype=np.uint8)[:, None, None, None], (40, 8, 8, 3)).copy()
    numbered = Dataset(images, DATA.labels, DATA.class_names, DATA.ids)

    def change(model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        numbers = (images[:, 0, 0, 0] * 255).round().int()
        assert (labels == numbers % 2).all()
        seen.update(numbers.tolist())
        return images

    places = held_out(DATA, 0.3, seed=0)
    train(numbered, model=lambda: Constant([0.0, 1.0]), recipe=SMALL, change=change, held_out=places)
    assert seen == set(range(40)) - set(places.tolist())


def recorded(recipe: Recipe, places: np.ndarray, **options: object) -> tuple[list[Tensor], list[Epoch], nn.Module]:
    """Train, and take down what the network knew after each epoch."""
    known: list[Tensor] = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = tiny()
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    def build() -> nn.Module:
        network.load_state_dict(start)
        return network

    def note(done: int, steps: int, epoch: Epoch | None) -> None:
        if epoch is not None:
            known.append(weights(network))

    trained = train(DATA, model=build, recipe=recipe, held_out=places, progress=note, **options)
    return known, trained.history, trained.model


RECIPES = {
    "erm": Recipe(epochs=6, batch_size=8, crop=1, learning_rate=0.3, schedule="constant"),
    "adversarial": named("adversarial", budget=Linf(0.05), steps=2, epochs=6, batch_size=8, crop=1, learning_rate=0.2),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_best_epoch_is_kept_and_judged_by_what_was_held_out(recipe: Recipe) -> None:
    places = held_out(DATA, 0.5, seed=0)
    known, history, model = recorded(recipe, places, precision="float32")
    scores = [epoch.held_out for epoch in history]
    assert len(set(scores)) > 1
    first = scores.index(max(scores))
    assert torch.equal(weights(model), known[first])
    assert best(history) == history[first]
    held = DATA.select(places)
    attack = judged_by(recipe)
    if attack is None:
        wanted = evaluate(model, held.images, held.labels, precision="float32").share
    else:
        assert attack == PGD(budget=Linf(0.05), steps=10)
        wanted = float(withstood(model, attack, held.images, held.labels, precision="float32").mean())
    assert max(scores) == wanted


def test_judging_changes_neither_the_training_nor_its_count() -> None:
    recipe = RECIPES["adversarial"]
    places = held_out(DATA, 0.3, seed=0)
    rest = DATA.select(np.setdiff1d(np.arange(40), places))
    judged = train(DATA, model=tiny, recipe=recipe, held_out=places)
    plain = train(rest, model=tiny, recipe=recipe)
    assert judged.gradients == plain.gradients
    assert [epoch[1:3] for epoch in judged.history] == [epoch[1:3] for epoch in plain.history]
    assert all(epoch.held_out is None for epoch in plain.history)


@pytest.mark.parametrize("ema", [None, 0.5])
@pytest.mark.parametrize("stop", [3, 5, 8])
def test_a_run_goes_on_with_its_best_epoch(stop: int, ema: float | None, tmp_path: Path, monkeypatch) -> None:
    recipe = Recipe(epochs=5, batch_size=16, crop=1, learning_rate=0.3, schedule="constant", ema=ema)
    places = held_out(DATA, 0.3, seed=0)
    whole = train(DATA, model=tiny, recipe=recipe, held_out=places)
    monkeypatch.setattr("unlearnable.training.loop._SAVE_SECONDS", 0.0)

    class Stopped(Exception):  # noqa: N818 - nothing went wrong
        pass

    def stopping(done: int, steps: int, epoch: Epoch | None) -> None:
        if done == stop:
            raise Stopped

    options = {"model": tiny, "recipe": recipe, "held_out": places, "checkpoint": tmp_path / "run"}
    with pytest.raises(Stopped):
        train(DATA, **options, progress=stopping)
    again = train(DATA, **options)
    assert torch.equal(weights(again.model), weights(whole.model))
    assert [epoch.held_out for epoch in again.history] == [epoch.held_out for epoch in whole.history]
    with pytest.raises(InputError, match="expected a run started with held_out"):
        train(DATA, **options | {"held_out": held_out(DATA, 0.3, seed=1)})


@pytest.mark.parametrize("name", ["adversarial", "trades", "mart"])
def test_robust_recipes_are_judged_within_their_own_budget(name: str) -> None:
    assert judged_by(named(name, budget=L2(0.5), steps=3)) == PGD(budget=L2(0.5), steps=10)
    assert judged_by(named("mixup")) is None
