"""Attacks that average or guess their gradients, against the sums written out."""

import pytest
import torch
from torch import Tensor, nn

from tests.attacks.networks import Linear, convolutional, pictures
from unlearnable.attacks import EOTPGD, NES, PGD, Square
from unlearnable.attacks.base import cross_entropy, frozen
from unlearnable.budgets import L2, Linf
from unlearnable.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")

BUDGET = Linf.of_255(8)


class Shaken(Linear):
    """A linear classifier whose weights are drawn anew in every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.chance = torch.Generator().manual_seed(1)

    def forward(self, images: Tensor) -> Tensor:
        noise = torch.randn(self.weight.shape, generator=self.chance)
        return (images - 0.5).flatten(1) @ (self.weight + noise).T


def test_on_a_sure_network_the_mean_is_pgd() -> None:
    model, images, labels = convolutional(), pictures(4), torch.arange(4)
    several = EOTPGD(budget=BUDGET, steps=3, samples=4)(model, images, labels, torch.Generator().manual_seed(0))
    once = PGD(budget=BUDGET, steps=3)(model, images, labels, torch.Generator().manual_seed(0))
    assert torch.equal(several, once)


def test_a_step_goes_along_the_mean_of_all_gradients() -> None:
    images, labels = pictures(4, 4, 0.3, 0.7), torch.arange(4)
    attack = EOTPGD(budget=L2(0.1), steps=1, samples=5, step_size=0.1, random_start=False)
    changed = attack(Shaken(), images, labels)
    twin, total = Shaken(), torch.zeros_like(images)
    for _ in range(5):
        moved = images.clone().requires_grad_()
        nn.functional.cross_entropy(twin(moved), labels, reduction="sum").backward()
        total += moved.grad
    length = total.flatten(1).norm(dim=1)[:, None, None, None]
    torch.testing.assert_close(changed, images + 0.1 * total / length, rtol=1e-5, atol=1e-6)


def test_restarts_are_judged_by_mean_loss() -> None:
    images, labels = pictures(6, 4, 0.3, 0.7), torch.arange(6) % 5

    def mean_loss(restarts: int) -> Tensor:
        attack = EOTPGD(budget=Linf(0.2), steps=1, step_size=1e-6, samples=50, restarts=restarts)
        changed = attack(Shaken(), images, labels, torch.Generator().manual_seed(2))
        network = Shaken()
        return torch.stack([cross_entropy(network(changed), labels) for _ in range(200)]).mean()

    assert mean_loss(10) > mean_loss(1) + 0.1


def test_a_guessed_gradient_is_the_sum_over_its_directions() -> None:
    model, images, labels = Linear(), pictures(3, 4), torch.arange(3)
    attack = NES(budget=BUDGET, pairs=4, deviation=0.01)
    with frozen(model):
        guessed = attack.gradient(model, images, labels, torch.Generator().manual_seed(0))
    chance, total = torch.Generator().manual_seed(0), torch.zeros(images.shape, dtype=torch.float64)
    model, precise = model.double(), images.double()
    for _ in range(4):
        u = torch.randn(images.shape, generator=chance).double()
        there = nn.functional.cross_entropy(model(precise + 0.01 * u), labels, reduction="none")
        back = nn.functional.cross_entropy(model(precise - 0.01 * u), labels, reduction="none")
        total += u * ((there - back) / (2 * 0.01))[:, None, None, None].detach()
    torch.testing.assert_close(guessed.double(), total / 4, rtol=1e-3, atol=1e-3)


def test_many_guesses_are_the_gradient() -> None:
    model, images, labels = Linear(), pictures(2, 4), torch.arange(2)
    with frozen(model):
        guessed = NES(budget=BUDGET, pairs=3000).gradient(model, images, labels, torch.Generator().manual_seed(0))
        exact = PGD(budget=BUDGET).gradient(model, images, labels, None)
    alike = torch.cosine_similarity(guessed.flatten(1), exact.flatten(1))
    assert (alike > 0.98).all()


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (EOTPGD, {"samples": 0}, "expected at least 1 sample, found 0"),
        (NES, {"pairs": 0}, "expected at least 1 pair and a deviation above 0, found 0"),
        (NES, {"deviation": 0.0}, "expected at least 1 pair and a deviation above 0"),
        (Square, {"queries": 0}, "expected at least 1 query, found 0"),
    ],
)
def test_values_out_of_range(kind: type, wrong: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind(budget=BUDGET, **wrong)
