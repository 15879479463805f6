"""Adversarial weight perturbation against a slow version: move the weights, descend, put them back."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.training.small import dark_and_bright, tiny, weights
from unlearnable.budgets import Linf
from unlearnable.errors import InputError
from unlearnable.training.awp import perturbed
from unlearnable.training.bullettrain import BulletTrain
from unlearnable.training.loop import train
from unlearnable.training.meter import GradientMeter
from unlearnable.training.objectives import Robust
from unlearnable.training.recipes import named

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("adversarial", "trades", "mart")
LABELS = torch.arange(6) % 3


def chance() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def network(*, normalised: bool = True) -> nn.Module:
    torch.manual_seed(0)
    normalisation = nn.BatchNorm2d(5) if normalised else nn.Identity()
    return nn.Sequential(nn.Conv2d(3, 5, 3), normalisation, nn.ReLU(), nn.Flatten(), nn.Linear(180, 3)).double().train()


def pictures() -> Tensor:
    return torch.rand(6, 3, 8, 8, dtype=torch.float64, generator=chance())


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_at_the_moved_weights(name: str, normalised: bool) -> None:
    gamma, images = 0.02, pictures()
    objective = named(name, steps=2, awp=gamma).objective
    plain = replace(objective, awp=0.0)
    assert isinstance(objective, Robust)
    model, slow = network(normalised=normalised), network(normalised=normalised)
    meter = GradientMeter(model)
    outcome = objective(model, images, LABELS, 0.0, chance())
    outcome.loss.backward()
    assert meter.count == 6 * {"adversarial": 2 + 2 * 1, "trades": 2 + 2 * 2, "mart": 2 + 2 * 2}[name]

    scout = deepcopy(slow)  # whose batch statistics nobody sees
    changed = objective.attack(scout, images, LABELS, chance())
    plain.loss(scout, images, changed, LABELS, 0.0).loss.backward()
    moves = {}
    for (key, weight), seen in zip(slow.named_parameters(), scout.parameters(), strict=True):
        direction = seen.grad / (seen.grad**2).sum().sqrt() if key in ("0.weight", "4.weight") else 0 * seen.grad
        moves[key] = gamma * (weight.detach() ** 2).sum().sqrt() * direction
    with torch.no_grad():
        for key, weight in slow.named_parameters():
            weight += moves[key]
    wanted = plain.loss(slow, images, changed, LABELS, 0.0)
    wanted.loss.backward()
    with torch.no_grad():
        for key, weight in slow.named_parameters():
            weight -= moves[key]

    assert outcome.loss.item() == pytest.approx(wanted.loss.item(), rel=1e-10)
    assert outcome.loss > plain(network(normalised=normalised), images, LABELS, 0.0, chance()).loss
    for one, other in zip(model.parameters(), slow.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-14)  # put back
        assert torch.allclose(one.grad, other.grad, rtol=1e-9, atol=1e-12)
    for one, other in zip(model.buffers(), slow.buffers(), strict=True):
        assert torch.allclose(one.double(), other.double(), rtol=1e-10)


def test_gradient_by_finite_differences() -> None:
    """With the perturbation held, the loss's gradient in the weights is what finite differences say."""
    model, images = network(), pictures()
    weight = model[4].weight

    def loss_of(answering) -> Tensor:
        return nn.functional.cross_entropy(answering(images), LABELS)

    answering = perturbed(model, loss_of, 0.05)
    held = {name: moved.detach() - dict(model.named_parameters())[name] for name, moved in answering.args[1].items()}
    loss_of(answering).backward()

    def at(values: Tensor) -> Tensor:
        given = {name: dict(model.named_parameters())[name].detach() + move.detach() for name, move in held.items()}
        given["4.weight"] = values + held["4.weight"].detach()
        return nn.functional.cross_entropy(torch.func.functional_call(model, given, images), LABELS)

    values = weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(at, values, nondet_tol=0, fast_mode=True)
    (wanted,) = torch.autograd.grad(at(values), values)
    assert torch.allclose(weight.grad, wanted, rtol=1e-10)


def test_a_layer_without_gradient_stays() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    with torch.no_grad():
        model[1].weight.zero_()
    images = pictures().float()
    answering = perturbed(model, lambda network: 0 * network(images).sum(), 0.1)
    assert torch.equal(answering(images), model(images))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_in_training_with_and_without_bullettrain(precision: str) -> None:
    data = dark_and_bright()
    common = {"budget": Linf.of_255(8), "steps": 2, "epochs": 2, "batch_size": 16, "crop": 2, "learning_rate": 0.05}
    for accelerate in (None, BulletTrain()):
        with_, without = (
            train(data, model=tiny, recipe=named("mart", awp=awp, accelerate=accelerate, **common), precision=precision)
            for awp in (0.01, 0.0)
        )
        assert weights(with_.model).isfinite().all()
        assert not torch.equal(weights(with_.model), weights(without.model))
        if accelerate is None:
            assert with_.gradients - without.gradients == 2 * 2 * 40


def test_what_is_out_of_range_is_an_error() -> None:
    for awp in (-0.1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="expected a weight perturbation of 0 or more"):
            named("trades", awp=awp)
    with pytest.raises(InputError, match="expected options of the recipe erm"):
        named("erm", awp=0.1)
