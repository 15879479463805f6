"""BulletTrain against a slow version of its rules, picture by picture, and what it must never change."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.training.small import SMALL, dark_and_bright, tiny, weights
from unlearnable.attacks import EOTPGD, PGD, AutoAttack, frozen
from unlearnable.budgets import L2, Linf
from unlearnable.errors import InputError
from unlearnable.training.bullettrain import (
    BOUNDARY,
    OUTLIER,
    PUBLISHED,
    ROBUST,
    BulletTrain,
    Effort,
    Memory,
    Mining,
    accelerators,
    grouped,
    signed_spread,
)
from unlearnable.training.checkpoint import Epoch, Split
from unlearnable.training.loop import train
from unlearnable.training.meter import GradientMeter
from unlearnable.training.objectives import TRADES, Adversarial, Robust
from unlearnable.training.recipes import named

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("adversarial", "trades", "mart")


def chance(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(classes: int = 4, channels: int = 3) -> nn.Module:
    """Small, with batch statistics, in double precision; sure of itself, so that its answers differ by picture."""
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(channels, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, classes)
    ).double()
    with torch.no_grad():
        made[4].weight *= 12
    return made.train()


def pictures(count: int = 24, channels: int = 3) -> Tensor:
    return torch.rand(count, channels, 8, 8, dtype=torch.float64, generator=chance(1))


def partly_right(model: nn.Module, images: Tensor) -> Tensor:
    """Labels of which two in three are what the network answers."""
    with frozen(model):
        said = model(images)
    wrong = torch.arange(len(images)) % 3 == 0
    return torch.where(wrong, (said.argmax(1) + 1) % said.shape[1], said.argmax(1))


def slow_groups(logits: np.ndarray, labels: np.ndarray, accuracy: float) -> list[int]:
    """The published rules, picture by picture."""
    spreads = []
    for row, label in zip(logits, labels, strict=True):
        shares = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        spread = np.sqrt(((shares - shares.mean()) ** 2).sum() / (len(shares) - 1))
        spreads.append(spread if row.argmax() == label else -spread)
    threshold = max(0.0, float(np.quantile(spreads, min(1.0, max(0.0, 1 - accuracy)))))
    return [OUTLIER if v < 0 else BOUNDARY if v <= threshold else ROBUST for v in spreads]


def slow_attack(model, image, label, begun, answer, *, from_answers, budget, steps, size) -> Tensor:
    """One picture alone, a batch of one."""
    if steps == 0:
        return image
    moved = begun
    for _ in range(steps):
        moved = moved.detach().requires_grad_()
        logits = model(moved[None])
        if from_answers:
            loss = (answer * (answer.log() - logits[0].log_softmax(0))).sum()
        else:
            loss = functional.cross_entropy(logits, label[None])
        loss.backward()
        if isinstance(budget, Linf):
            change = moved.detach() + size * moved.grad.sign() - image
            change = change.clamp(-budget.radius, budget.radius)
        else:
            change = moved.detach() + size * moved.grad / moved.grad.norm() - image
            change = change * min(1.0, budget.radius / float(change.norm()))
        moved = (image + change).clamp(0, 1)
    return moved.detach()


def mining(attack: PGD, rule: BulletTrain, accuracy: float) -> Mining:
    memory = Memory()
    memory.accuracy.fill_(accuracy)
    return Mining(budget=attack.budget, attack=attack, rule=rule, memory=memory)


RULES = {
    "published": BulletTrain(),
    "other efforts": BulletTrain(boundary=Effort(steps=3, size=0.5), robust=Effort(steps=5, size=0.3), gamma=0.5),
    "outliers too": BulletTrain(outlier=Effort(steps=1, size=1.0), robust=Effort(steps=0, size=1.0), momentum=0.0),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("budget", [Linf.of_255(8), L2(0.5)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_picture_gets_what_it_would_get_alone(name: str, budget, rule: BulletTrain) -> None:
    model, images = network(), pictures()
    labels = partly_right(model, images)
    attack = named(name, budget=budget).objective.attack
    mined = mining(attack, rule, 0.4)
    found = mined(model, images, labels, chance())

    begun = attack.begin(images, chance())
    with frozen(model):
        clean = model(images).detach()
        groups = slow_groups(clean.numpy(), labels.numpy(), 0.4)
        assert {OUTLIER, BOUNDARY, ROBUST} == set(groups)
        whole = Effort(steps=attack.steps, size=(attack.step_size or 2.5 * budget.radius / 10) / budget.radius)
        efforts = {OUTLIER: rule.outlier, BOUNDARY: rule.boundary or whole, ROBUST: rule.robust}
        wanted = torch.stack(
            [
                slow_attack(
                    model,
                    images[i],
                    labels[i],
                    begun[i],
                    clean[i].softmax(0),
                    from_answers=name == "trades",
                    budget=budget,
                    steps=efforts[group].steps,
                    size=efforts[group].size * budget.radius,
                )
                for i, group in enumerate(groups)
            ]
        )
        right = (model(wanted).argmax(1) == labels).double().mean().item()
    assert torch.allclose(found, wanted, rtol=0, atol=1e-12)
    assert mined.memory.split == tuple(groups.count(group) for group in (OUTLIER, BOUNDARY, ROBUST))
    after = rule.momentum * 0.4 + (1 - rule.momentum) * rule.gamma * right
    assert mined.memory.accuracy.item() == pytest.approx(after, rel=1e-12)
    assert model.training


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("accuracy", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("rule", [BulletTrain(), PUBLISHED], ids=["ours", "published"])
def test_passes_are_those_of_the_efforts_and_no_more(name: str, accuracy: float, rule: BulletTrain) -> None:
    model, images = network(), pictures()
    labels = partly_right(model, images)
    objective, memory = rule.over(named(name).objective)
    memory.accuracy.fill_(accuracy)
    seen: list[tuple[int, bool]] = []
    model.register_forward_pre_hook(lambda module, given: seen.append((len(given[0]), torch.is_grad_enabled())))
    meter = GradientMeter(model)
    objective(model, images, labels, 0.0, chance())
    updates = {"adversarial": 1, "trades": 2, "mart": 2}[name]
    outlier, boundary, robust = memory.split
    assert sum(memory.split) == 24
    assert outlier == 8
    attacked = outlier if rule.outlier.steps else 0
    assert meter.count == attacked + 10 * boundary + 2 * robust + updates * 24
    without = [count for count, counted in seen if not counted]
    assert without == [24, attacked + boundary + robust]  # to sort them; to see how many withstand
    if accuracy == 0:
        assert robust == 0


def test_attack_makes_exactly_one_ten_and_two_gradients() -> None:
    model, images = network(), pictures()
    labels = partly_right(model, images)
    meter = GradientMeter(model)
    mined = mining(PGD(budget=Linf.of_255(8)), BulletTrain(), 0.5)
    mined(model, images, labels, chance())
    outlier, boundary, robust = mined.memory.split
    assert meter.count == outlier + 10 * boundary + 2 * robust


def test_gradients_are_the_attacks_own() -> None:
    """Of an attack that takes the mean of several gradients, several are taken."""
    model, images = network(), pictures()
    labels = partly_right(model, images)
    meter = GradientMeter(model)
    mined = mining(EOTPGD(budget=Linf.of_255(8), samples=3), BulletTrain(), 0.5)
    mined(model, images, labels, chance())
    outlier, boundary, robust = mined.memory.split
    assert meter.count == 3 * (outlier + 10 * boundary + 2 * robust)


@pytest.mark.parametrize("name", NAMES)
def test_where_all_groups_get_the_whole_attack_training_is_the_plain_one(name: str) -> None:
    """To the last bit, under the same seed."""
    whole = Effort(steps=10, size=0.25)
    plain = named(name, budget=Linf(0.0625), epochs=2, batch_size=16, crop=2, learning_rate=0.05)
    alike = replace(plain, accelerate=BulletTrain(robust=whole, outlier=whole))
    data = dark_and_bright()
    first, second = (train(data, model=tiny, recipe=one, seed=3) for one in (plain, alike))
    assert torch.equal(weights(first.model), weights(second.model))
    assert first.gradients == second.gradients
    third = train(data, model=tiny, recipe=replace(plain, accelerate=BulletTrain()), seed=3)
    assert not torch.equal(weights(first.model), weights(third.model))
    assert third.gradients < first.gradients


def test_all_wrong_is_all_outliers_and_no_attack() -> None:
    model, images = network(), pictures()
    with frozen(model):
        labels = (model(images).argmax(1) + 1) % 4
    for name in NAMES:
        meter = GradientMeter(model)
        objective, memory = PUBLISHED.over(named(name).objective)
        memory.accuracy.fill_(0.5)
        assert isinstance(objective, Robust)
        assert torch.equal(objective.attack(model, images, labels, chance()), images)
        assert memory.split == Split(24, 0, 0)
        assert memory.accuracy.item() == pytest.approx(0.45)
        assert meter.count == 0
        meter.close()


def test_outliers_come_back_bit_for_bit_and_diverge_by_nothing() -> None:
    """In float32, with a network of no batch statistics, for which a picture's answer is its own."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    images = pictures().float()
    labels = partly_right(model, images)
    mined = mining(named("trades").objective.attack, PUBLISHED, 0.4)
    changed = mined(model, images, labels, chance())
    with frozen(model):
        wrong = model(images).argmax(1) != labels
        before, after = model(images).log_softmax(1), model(changed).log_softmax(1)
        apart = functional.kl_div(after, before, reduction="none", log_target=True).sum(1)
    assert torch.equal(changed[wrong], images[wrong])
    assert (apart[wrong] == 0).all()
    assert (apart[~wrong] > 0).all()
    assert ((changed - images).abs() <= 8 / 255 + 1e-7).all()


def test_groups_at_both_ends_of_the_reference() -> None:
    spread = torch.tensor([-0.4, -0.1, 0.05, 0.2, 0.3])
    assert grouped(spread, torch.tensor(0.0)).tolist() == [OUTLIER, OUTLIER, BOUNDARY, BOUNDARY, BOUNDARY]
    assert grouped(spread, torch.tensor(1.0)).tolist() == [OUTLIER, OUTLIER, ROBUST, ROBUST, ROBUST]
    right = spread[2:]  # at 1 the threshold is the least of them, itself at the boundary
    assert grouped(right, torch.tensor(1.0)).tolist() == [BOUNDARY, ROBUST, ROBUST]
    assert grouped(torch.tensor([0.1]), torch.tensor(0.7)).tolist() == [BOUNDARY]


@pytest.mark.parametrize("accuracy", [0.0, 0.21, 0.5, 0.77, 1.0])
@pytest.mark.parametrize("classes", [2, 5])
def test_groups_against_the_formula_and_under_renamed_classes(classes: int, accuracy: float) -> None:
    logits = 2 * torch.randn(40, classes, dtype=torch.float64, generator=chance())
    labels = torch.where(torch.arange(40) % 4 == 0, torch.arange(40) % classes, logits.argmax(1))
    found = grouped(signed_spread(logits, labels), torch.tensor(accuracy))
    assert found.tolist() == slow_groups(logits.numpy(), labels.numpy(), accuracy)
    names = torch.randperm(classes, generator=chance())
    renamed = logits[:, names.argsort()]
    assert torch.equal(grouped(signed_spread(renamed, names[labels]), torch.tensor(accuracy)), found)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("classes", "channels", "single"), [(2, 3, False), (3, 1, False), (4, 3, True)])
def test_two_classes_grey_pictures_and_batches_of_one_class(
    name: str, classes: int, channels: int, single: bool
) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, classes)).double()
    images = pictures(6, channels)
    labels = torch.zeros(6, dtype=torch.int64) if single else torch.arange(6) % classes
    objective, memory = BulletTrain().over(named(name).objective)
    for _ in range(3):
        loss = objective(model, images, labels, 0.0, chance()).loss
        assert loss.isfinite()
    loss.backward()
    assert sum(memory.split) == 6


@pytest.mark.parametrize("name", ["adversarial", "trades"])
def test_label_smoothing_is_the_objectives(name: str) -> None:
    model, images = network(), pictures()
    labels = partly_right(model, images)
    objective, _ = BulletTrain().over(named(name).objective)
    assert isinstance(objective, Robust)
    changed = objective.attack(deepcopy(model), images, labels, chance())
    loss = BulletTrain().over(named(name).objective)[0](deepcopy(model), images, labels, 0.1, chance()).loss
    wanted = named(name).objective.loss(deepcopy(model), images, changed, labels, 0.1).loss
    assert torch.equal(loss, wanted)


RECIPE = named(
    "trades", budget=Linf.of_255(8), epochs=3, batch_size=16, crop=2, learning_rate=0.05, accelerate=BulletTrain()
)


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    pass


@pytest.mark.parametrize("name", NAMES)
def test_a_run_goes_on_with_its_reference_to_the_same_numbers(name: str, tmp_path: Path, monkeypatch) -> None:
    data, state = dark_and_bright(), tmp_path / "run"
    recipe = replace(RECIPE, objective=named(name).objective)
    whole = train(data, model=tiny, recipe=recipe)
    monkeypatch.setattr("unlearnable.training.loop._SAVE_SECONDS", 0.0)

    def stopping(done: int, steps: int, epoch: Epoch | None) -> None:
        if done == 5:
            raise Stopped

    with pytest.raises(Stopped):
        train(data, model=tiny, recipe=recipe, checkpoint=state, progress=stopping)
    again = train(data, model=tiny, recipe=recipe, checkpoint=state)
    assert torch.equal(weights(again.model), weights(whole.model))
    assert again.splits == whole.splits
    assert again.gradients == whole.gradients
    assert [epoch[:3] + epoch[4:] for epoch in again.history] == [epoch[:3] + epoch[4:] for epoch in whole.history]
    with pytest.raises(InputError, match="expected a run started with recipe"):
        train(data, model=tiny, recipe=replace(recipe, accelerate=BulletTrain(gamma=0.7)), checkpoint=state)


def test_shares_of_every_step_and_epoch() -> None:
    trained = train(dark_and_bright(), model=tiny, recipe=RECIPE)
    assert len(trained.splits) == 9
    assert all(sum(split) in (13, 14) for split in trained.splits)
    for number, epoch in enumerate(trained.history):
        shares = np.array(trained.splits[3 * number : 3 * number + 3]).sum(0) / 40
        assert epoch[4:7] == pytest.approx(shares)
        assert sum(shares) == pytest.approx(1)
    assert trained.splits[0].robust == 0  # the reference begins at 0
    assert trained.splits[-1].robust > 0
    outlier, boundary, robust = np.sum(trained.splits, 0)
    assert trained.gradients == outlier + 10 * boundary + 2 * robust + 2 * 3 * 40
    assert not any(train(dark_and_bright(), model=tiny, recipe=SMALL).history[0][4:])


def test_runs_do_not_remember_one_another() -> None:
    first, second = (train(dark_and_bright(), model=tiny, recipe=RECIPE) for _ in range(2))
    assert torch.equal(weights(first.model), weights(second.model))
    assert first.splits == second.splits


def test_what_cannot_be_accelerated_is_an_error() -> None:
    model, images = network(), pictures(4)
    objective, _ = accelerators.create("bullettrain").over(named("trades").objective)
    with pytest.raises(InputError, match=r"expected one class a picture, to tell which .* found mixed labels"):
        objective(model, images, torch.full((4, 4), 0.25, dtype=torch.float64), 0.0, chance())
    for recipe, found in (("erm", "CrossEntropy"), ("smoothing", "Noisy")):
        with pytest.raises(InputError, match=f"expected a recipe with a PGD attack to accelerate, found {found}"):
            named(recipe, accelerate=BulletTrain())
    with pytest.raises(InputError, match="found AutoAttack"):
        BulletTrain().over(TRADES(attack=AutoAttack(budget=Linf.of_255(8))))
    with pytest.raises(InputError, match="expected one restart, to accelerate an attack, found 3"):
        BulletTrain().over(Adversarial(attack=PGD(budget=Linf.of_255(8), restarts=3)))
    with pytest.raises(InputError, match=r"expected a gamma from 0 to 1, found 1\.5"):
        BulletTrain(gamma=1.5)
    with pytest.raises(InputError, match=r"expected a momentum from 0 to 1, found -1"):
        BulletTrain(momentum=-1)
    with pytest.raises(InputError, match=r"expected 0 steps or more, of a size above 0, found -1 of 0\.5"):
        Effort(steps=-1, size=0.5)
    with pytest.raises(InputError, match="did you mean 'bullettrain'"):
        accelerators.create("bulletrain")
