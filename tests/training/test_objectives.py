import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.training.small import BUILD
from unlearnable.attacks import PGD
from unlearnable.budgets import Linf
from unlearnable.training.objectives import Adversarial, CrossEntropy, Noisy


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
