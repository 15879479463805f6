"""Names of attacks, and networks held still."""

import pytest
import torch

from tests.attacks.networks import convolutional, pictures
from unlearnable import InputError
from unlearnable.attacks import PGD, AutoAttack, fgsm, frozen, named
from unlearnable.budgets import L2, Linf

BUDGET = Linf.of_255(8)


@pytest.mark.parametrize(
    ("name", "attack"),
    [
        ("pgd", PGD(budget=BUDGET)),
        ("pgd20", PGD(budget=BUDGET, steps=20)),
        ("pgd7", PGD(budget=BUDGET, steps=7)),
        ("pgd100x5", PGD(budget=BUDGET, steps=100, restarts=5)),
        ("pgdx2", PGD(budget=BUDGET, restarts=2)),
        ("fgsm", fgsm(budget=BUDGET)),
        ("autoattack", AutoAttack(budget=BUDGET)),
    ],
)
def test_attacks_have_names(name, attack):
    assert named(name, budget=BUDGET) == attack


def test_named_attacks_take_options():
    assert named("pgd50", budget=L2(0.5), restarts=3) == PGD(budget=L2(0.5), steps=50, restarts=3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pdg20", "expected a known attack, found 'pdg': did you mean 'pgd'?"),
        ("autoatack", "did you mean 'autoattack'?"),
        ("zzz", "choose one of autoattack, eot-pgd, fgsm, nes, pgd, square"),
        ("20", "choose one of autoattack, eot-pgd, fgsm, nes, pgd, square"),
        ("fgsm20", "expected no number of steps after fgsm, which has none to choose, found 'fgsm20': write 'fgsm'"),
        ("fgsmx3", "expected no number of restarts after fgsm, which has none to choose, found 'fgsmx3': write 'fgsm'"),
        ("pgd20x0", "expected at least 1 restart, found 0: choose 1 to run once"),
        ("pgd0", "expected at least 1 step, found 0: choose 10 for training, 20 or more for testing"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(name, message):
    with pytest.raises(InputError) as error:
        named(name, budget=BUDGET)
    assert message in str(error.value)


def test_a_frozen_network_is_thawed_after_an_error():
    model = convolutional().train()
    model[5].eval()
    modes = [module.training for module in model.modules()]
    needing = [parameter.requires_grad for parameter in model.parameters()]
    assert len(set(modes)) == len(set(needing)) == 2
    with frozen(model):
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(RuntimeError, match="3 channels"), frozen(model):
        model(torch.zeros(2, 1, 8, 8))
    assert modes == [module.training for module in model.modules()]
    assert needing == [parameter.requires_grad for parameter in model.parameters()]


def test_gradients_reach_the_input_of_a_frozen_network_alone():
    model, images = convolutional(), pictures(2).requires_grad_()
    with torch.no_grad(), frozen(model):
        model(images).sum().backward()
    assert images.grad.any()
    assert all(parameter.grad is None for parameter in model.parameters())
