from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.training.small import BUILD
from unlearnable.attacks import PGD
from unlearnable.budgets import Linf
from unlearnable.errors import InputError
from unlearnable.training.objectives import (
    MART,
    TRADES,
    Adversarial,
    CrossEntropy,
    Noisy,
    divergence,
    mart_loss,
    trades_penalty,
)
from unlearnable.training.recipes import named


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return BUILD().train()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))


LABELS = torch.tensor([0, 1, 1, 0, 1, 0])


def chance() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def test_cross_entropy(model: nn.Module, images: Tensor) -> None:
    loss, logits = CrossEntropy()(model, images, LABELS, 0.0, chance())
    assert torch.allclose(loss, -logits.log_softmax(1)[torch.arange(6), LABELS].mean())
    soft = functional.one_hot(LABELS, 2).float()
    assert torch.allclose(CrossEntropy()(model, images, soft, 0.0, chance()).loss, loss)


def test_adversarial_is_the_loss_at_what_the_attack_finds(model: nn.Module, images: Tensor) -> None:
    attack = PGD(budget=Linf.of_255(8), steps=3)
    found = attack(model, images, LABELS, chance())
    loss, _ = Adversarial(attack=attack)(model, images, LABELS, 0.1, chance())
    assert model.training
    assert torch.allclose(loss, functional.cross_entropy(model(found), LABELS, label_smoothing=0.1))
    assert loss > CrossEntropy()(model, images, LABELS, 0.1, chance()).loss
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_noise_has_the_deviation_asked_for(images: Tensor) -> None:
    seen: list[Tensor] = []

    class Seeing(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images)
            return images.mean((2, 3))

    many = torch.zeros(40, 3, 32, 32)
    Noisy(sigma=0.5)(Seeing(), many, torch.zeros(40, dtype=torch.int64), 0.0, chance())
    assert seen[0].std() == pytest.approx(0.5, rel=0.01)
    assert seen[0].mean() == pytest.approx(0, abs=0.01)


def softmax(row: np.ndarray) -> np.ndarray:
    powers = np.exp(row - row.max())
    return powers / powers.sum()


def slow_divergence(before: np.ndarray, after: np.ndarray) -> float:
    return sum(p * np.log(p / q) for p, q in zip(before, after, strict=True))


def slow_mart(clean: np.ndarray, changed: np.ndarray, labels: np.ndarray, beta: float) -> float:
    """Picture by picture, from the formula."""
    losses = []
    for i, y in enumerate(labels):
        before, after = softmax(clean[i]), softmax(changed[i])
        runner_up = max(p for k, p in enumerate(after) if k != y)
        boosted = -np.log(after[y]) - np.log(1.0001 - runner_up + 1e-12)
        moved = sum(p * (np.log(p) - np.log(q + 1e-12)) for p, q in zip(before, after, strict=True))
        losses.append(boosted + beta * moved * (1.0000001 - before[y]))
    return float(np.mean(losses))


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("single", [False, True], ids=["mixed", "single class"])
def test_mart_and_trades_against_their_formulas(classes: int, single: bool) -> None:
    drawn = torch.randn(2, 7, classes, dtype=torch.float64, generator=chance()) * 3
    clean, changed = drawn.requires_grad_()
    labels = torch.zeros(7, dtype=torch.int64) if single else torch.arange(7) % classes
    before, after, true = clean.detach().numpy(), changed.detach().numpy(), labels.numpy()
    assert mart_loss(clean, changed, labels, 5.0).item() == pytest.approx(
        slow_mart(before, after, true, 5.0), rel=1e-12
    )
    each = [slow_divergence(softmax(p), softmax(q)) for p, q in zip(before, after, strict=True)]
    assert trades_penalty(clean, changed).item() == pytest.approx(np.mean(each), rel=1e-12)
    assert divergence(changed, clean.detach().softmax(1)).tolist() == pytest.approx(each, rel=1e-12)
    assert torch.autograd.gradcheck(lambda p, q: mart_loss(p, q, labels, 5.0), (clean, changed))
    assert torch.autograd.gradcheck(trades_penalty, (clean, changed))


def test_divergence_has_the_gradient_the_attack_needs() -> None:
    logits = torch.randn(4, 3, dtype=torch.float64, generator=chance()).requires_grad_()
    shares = torch.randn(4, 3, dtype=torch.float64, generator=chance()).softmax(1).roll(1, 0)
    assert torch.autograd.gradcheck(lambda q: divergence(q, shares), logits)


def slow_climb(model: nn.Module, images: Tensor, loss_of) -> Tensor:
    """Take ten steps of 2/255 from 0.001 N(0, 1), as the papers say, with the passes in evaluation mode."""
    radius, size = 8 / 255, 2.5 * (8 / 255) / 10
    moved = images + (0.001 * torch.empty_like(images).normal_(generator=chance())).clamp(-radius, radius)
    moved = moved.clamp(0, 1)
    for _ in range(10):
        moved = moved.detach().requires_grad_()
        loss_of(model(moved)).backward()
        moved = torch.max(torch.min(moved + size * moved.grad.sign(), images + radius), images - radius).clamp(0, 1)
    return moved.detach()


@pytest.mark.parametrize("name", ["trades", "mart"])
def test_whole_steps_of_trades_and_mart(model: nn.Module, images: Tensor, name: str) -> None:
    model, images = model.double(), images.double()
    twin = deepcopy(model)  # the step below moves the running statistics that the attack goes by
    objective = named(name).objective
    calls: list[tuple[bool, bool]] = []
    hook = model.register_forward_hook(lambda m, i, o: calls.append((m.training, o.requires_grad)))
    loss, logits = objective(model, images, LABELS, 0.0, chance())
    hook.remove()
    model = twin
    assert len(calls) == {"trades": 1 + 10 + 2, "mart": 10 + 2}[name]  # no pass beside those of the formula
    assert calls[-2:] == [(True, True)] * 2
    assert not any(training for training, _ in calls[:-2])

    model.eval()
    clean = model(images).detach().softmax(1)
    if name == "trades":
        found = slow_climb(model, images, lambda q: (clean * (clean.log() - q.log_softmax(1))).sum())
    else:
        found = slow_climb(model, images, lambda q: functional.cross_entropy(q, LABELS, reduction="sum"))
    model.train()
    before, after = model(images), model(found)
    assert torch.equal(logits, before)
    if name == "trades":
        p, q = before.softmax(1), after.softmax(1)
        wanted = functional.cross_entropy(before, LABELS) + 6 * (p * (p / q).log()).sum(1).mean()
    else:
        wanted = torch.tensor(
            slow_mart(before.detach().numpy(), after.detach().numpy(), LABELS.numpy(), 5.0), dtype=torch.float64
        )
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-9)


@pytest.mark.parametrize("objective", [TRADES, MART])
def test_without_weight_on_robustness_trades_is_cross_entropy(model: nn.Module, images: Tensor, objective) -> None:
    loss, logits = objective(attack=PGD(budget=Linf.of_255(8), steps=1), beta=0.0)(model, images, LABELS, 0.0, chance())
    clean = functional.cross_entropy(logits, LABELS)
    assert torch.allclose(loss, clean) == (objective is TRADES)


def test_mart_needs_whole_labels(model: nn.Module, images: Tensor) -> None:
    objective = named("mart", steps=1).objective
    with pytest.raises(InputError, match="one class a picture for MART, found mixed labels"):
        objective(model, images, functional.one_hot(LABELS, 2).float(), 0.0, chance())
    with pytest.raises(InputError, match=r"a label smoothing of 0\.1"):
        objective(model, images, LABELS, 0.1, chance())


@pytest.mark.parametrize("name", ["trades", "mart"])
@pytest.mark.parametrize("channels", [1, 3])
def test_trades_and_mart_without_batch_normalisation_and_in_grey(name: str, channels: int) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(channels * 64, 2))
    images = torch.rand(4, channels, 8, 8, generator=chance())
    loss, _ = named(name, steps=2).objective(network, images, torch.zeros(4, dtype=torch.int64), 0.0, chance())
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in network.parameters())


def test_betas_and_radii_out_of_range() -> None:
    for name in ("trades", "mart"):
        with pytest.raises(InputError, match="expected a beta of 0 or more, found -1"):
            named(name, beta=-1)
        with pytest.raises(InputError, match="found 0"):
            named(name, budget=Linf(0.0))
    with pytest.raises(InputError, match="a start deviation above 0"):
        PGD(budget=Linf.of_255(8), start_deviation=0.0)
    with pytest.raises(InputError, match="with a random start"):
        PGD(budget=Linf.of_255(8), start_deviation=0.1, random_start=False)
