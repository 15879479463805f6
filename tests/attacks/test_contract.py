"""What holds for every attack in the registry, those to come included."""

import copy

import pytest
import torch

from tests.attacks.networks import convolutional, pictures
from unlearnable.attacks import attacks, frozen
from unlearnable.budgets import L2, Linf

pytestmark = pytest.mark.usefixtures("one_thread")

CASES = [  # a new attack is one row: its name and options that make it fast
    ("fgsm", {}),
    ("pgd", {"steps": 3}),
    ("pgd", {"steps": 2, "restarts": 2}),
    ("pgd", {"random_start": False, "step_size": 0.5}),
    ("pgd", {"steps": 3, "start_deviation": 0.001}),
    ("autoattack", {}),
    ("eot-pgd", {"steps": 3, "samples": 2}),
    ("eot-pgd", {"steps": 2, "samples": 2, "restarts": 2}),
    ("nes", {"steps": 5, "pairs": 10}),
    ("square", {"queries": 300}),
]
BUDGETS = [Linf.of_255(8), L2(0.5)]
LARGE = {Linf: Linf(0.5), L2: L2(4)}  # at which the first attacks of the slow ones leave little for the others


def sizes(budget, change):
    order = torch.inf if isinstance(budget, Linf) else 2
    return torch.linalg.vector_norm(change.double().flatten(1), order, dim=1)


def test_every_attack_has_a_row():
    assert {name for name, _ in CASES} == set(attacks)


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize(("name", "options"), CASES)
def test_contract(name, options, budget):
    budget = LARGE[type(budget)] if name == "autoattack" else budget
    attack = attacks.create(name, budget=budget, **options)
    model, images = convolutional(), pictures(6)
    model.train()
    model[5].eval()
    with frozen(model):
        labels = model(images).argmax(1)
    labels[-1] = (labels[-1] + 1) % 5  # one that is named wrongly to begin with
    inputs = images.clone(), labels.clone()
    weights = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    needing = [parameter.requires_grad for parameter in model.parameters()]
    state = torch.get_rng_state()

    changed = attack(model, images, labels, torch.Generator().manual_seed(3))
    assert (changed.shape, changed.dtype, changed.requires_grad) == (images.shape, images.dtype, False)
    assert (sizes(budget, changed - images) <= budget.radius + 2e-6).all()
    assert changed.min() >= 0
    assert changed.max() <= 1
    with frozen(model):
        assert (model(changed).argmax(1) == labels).sum() < 5  # it did something

    # The network, the pictures and PyTorch's own generator are as they were.
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())
    assert modes == [module.training for module in model.modules()]
    assert needing == [parameter.requires_grad for parameter in model.parameters()]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(images, inputs[0])
    assert torch.equal(labels, inputs[1])
    assert torch.equal(torch.get_rng_state(), state)

    assert torch.equal(changed, attack(model, images, labels, torch.Generator().manual_seed(3)))
    torch.manual_seed(5)
    without = attack(model, images, labels)
    torch.manual_seed(5)
    assert torch.equal(without, attack(model, images, labels))

    one = attack(model, images[:1], labels[:1], torch.Generator().manual_seed(3))
    assert one.shape == images[:1].shape
    assert sizes(budget, one - images[:1]) <= budget.radius + 2e-6


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_attacks_work_where_gradients_are_off(name, options, context):
    attack = attacks.create(name, budget=LARGE[Linf], **options)
    model, images, labels = convolutional(), pictures(3), torch.zeros(3, dtype=torch.int64)
    plain = attack(model, images, labels, torch.Generator().manual_seed(0))
    with context():
        inside = attack(model, images.clone(), labels.clone(), torch.Generator().manual_seed(0))
    assert torch.equal(plain, inside)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_attacks_work_in_half_precision_and_channels_last(name, options):
    attack = attacks.create(name, budget=LARGE[L2], **options)
    model = convolutional().to(memory_format=torch.channels_last)
    images, labels = pictures(3).to(memory_format=torch.channels_last), torch.arange(3)
    with torch.autocast("cpu", torch.bfloat16):
        changed = attack(model, images, labels, torch.Generator().manual_seed(0))
    assert changed.dtype == torch.float32
    assert (sizes(LARGE[L2], changed - images) <= 4 + 2e-6).all()
