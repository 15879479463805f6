"""The transformation: within its ball, each picture by itself, external network untouched, gradients as they claim."""

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.attacks.networks import Linear, convolutional, pictures
from unlearnable.attacks import PGD, frozen
from unlearnable.attacks.reparameterised import Reparameterised
from unlearnable.attacks.transformation import Transformation, Transformed
from unlearnable.budgets import L2, Linf
from unlearnable.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = [
    Transformation(),
    Transformation(steps=3, label="least-likely", targeted=True),
    Transformation(steps=3, label="random", targeted=True),
    Transformation(steps=3, random_start=True, step_size=0.01),
    Transformation(steps=4, budget=L2(0.7)),
    Transformation(steps=0, random_start=True),
]


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_contract(kind: Transformation) -> None:
    external, images = convolutional(), pictures(5)
    before, modes = copy.deepcopy(external.state_dict()), [module.training for module in external.modules()]
    given = images.clone().requires_grad_()
    changed = kind(external, given, chance())
    order = torch.inf if isinstance(kind.budget, Linf) else 2
    moved = torch.linalg.vector_norm((changed - images).flatten(1), order, dim=1)
    assert (moved <= kind.budget.radius + 1e-6).all()
    assert (moved > 0.2 * kind.budget.radius).all()
    assert (changed.min() >= 0, changed.max() <= 1, changed.requires_grad) == (True, True, False)
    assert all(torch.equal(before[name], value) for name, value in external.state_dict().items())
    assert modes == [module.training for module in external.modules()]
    assert torch.equal(changed, kind(external, images, chance()))
    assert torch.equal(changed, kind(external, images, chance(1))) != kind.random
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            assert torch.equal(changed, kind(external, images.clone(), chance()))
    if not kind.random:
        alone = torch.cat([kind(external, image[None]) for image in images])
        torch.testing.assert_close(alone, changed)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("label", ["predicted", "least-likely"])
def test_the_steps_are_those_of_the_formula(label: str, targeted: bool) -> None:
    external, images = Linear().double(), pictures(6, 4).double()
    kind = Transformation(budget=Linf(0.05), steps=3, step_size=0.02, label=label, targeted=targeted)
    logits = external(images)
    wanted = logits.argmax(1) if label == "predicted" else logits.argmin(1)
    z, way = images, -1 if targeted else 1
    for _ in range(3):
        # The gradient of a linear network's cross-entropy in closed form: W^T (softmax - one-hot).
        shares = external(z).softmax(1) - nn.functional.one_hot(wanted, 5)
        gradient = (shares @ external.weight).reshape(z.shape).detach()
        z = (images + (z + 0.02 * way * gradient.sign() - images).clamp(-0.05, 0.05)).clamp(0, 1)
    torch.testing.assert_close(kind(external, images), z)


def test_costs_a_pass_forward_and_backward_a_step_and_no_others() -> None:
    external = Linear()
    Transformation(steps=7)(external, pictures(3, 4))
    assert external.passes == 7


class Smooth(nn.Module):
    """A network that is smooth everywhere, so that derivatives can be had by differences."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 8), nn.Linear(8, 3)
        with torch.no_grad():  # bent, so that second derivatives matter
            self.first.weight *= 4
            self.second.weight *= 4

    def forward(self, images: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(images.flatten(1))))


def test_the_unrolled_gradient_agrees_with_finite_differences() -> None:
    torch.manual_seed(0)
    external = Smooth().double()
    images = pictures(2, 2, 0.3, 0.7).double().requires_grad_()
    kind = Transformation(budget=Linf(0.4), steps=3, step_size=0.05)

    def change(images: Tensor) -> Tensor:
        return kind.unrolled(external, images, direction=lambda gradient: torch.tanh(30 * gradient))

    with frozen(external):
        assert torch.autograd.gradcheck(change, (images,), eps=1e-6, atol=1e-5)
        # It is not the identity's, or there would be nothing to check.
        (through,) = torch.autograd.grad(change(images).square().sum(), images)
        moved = change(images).detach()
    assert (through - 2 * moved).abs().max() > 0.1


def test_the_unrolled_picture_is_the_one_that_is_used() -> None:
    external, images = convolutional(), pictures(4)
    for kind in KINDS:
        if not kind.random:
            with frozen(external):
                unrolled = kind.unrolled(external, images.clone().requires_grad_())
            torch.testing.assert_close(unrolled.detach(), kind(external, images))


def test_what_an_attack_is_told_of_the_gradient() -> None:
    torch.manual_seed(0)
    classifier, external, images = Smooth(), Smooth(), pictures(3, 2, 0.3, 0.7)
    kind = Transformation(budget=Linf(0.1), steps=2)
    gradients = {}
    for backward in ("none", "identity", "unrolled"):
        network = Transformed(classifier, external, kind, backward)
        given = images.clone().requires_grad_()
        answer = network(given)
        torch.testing.assert_close(answer, classifier(kind(external, images)))
        (gradients[backward],) = torch.autograd.grad(answer.square().sum(), given)
    seen = kind(external, images).requires_grad_()
    (behind,) = torch.autograd.grad(classifier(seen).square().sum(), seen)
    assert (gradients["none"] == 0).all()
    torch.testing.assert_close(gradients["identity"], behind)
    assert not torch.allclose(gradients["unrolled"], behind, rtol=1e-2)
    assert external.first.weight.requires_grad


@pytest.mark.parametrize("budget", [Linf(0.1), L2(0.5)], ids=str)
@pytest.mark.parametrize("scale", [30, 1000, 100000])
def test_an_external_network_that_is_sure_does_not_stop_the_unrolled_attack(scale: int, budget: Linf | L2) -> None:
    torch.manual_seed(0)
    classifier, external, images = Smooth(), Smooth(), pictures(8, 2, 0.3, 0.7)
    with torch.no_grad():
        external.second.weight *= scale  # its answers' cross-entropy is 0 in float32
    network = Transformed(classifier, external, Transformation(budget=budget, steps=3), "unrolled")
    given = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(given).square().sum(), given)
    assert gradient.isfinite().all()
    assert (gradient.flatten(1).abs().amax(1) > 0).all()


def test_training_behind_it_trains_the_classifier_alone() -> None:
    network = Transformed(convolutional(), convolutional(), Transformation(steps=2))
    network(pictures(4)).sum().backward()
    assert network.classifier[4].weight.grad is not None
    assert all(parameter.grad is None for parameter in network.external.parameters())


def test_what_comes_from_behind_turns_what_pgd_cannot() -> None:
    torch.manual_seed(1)
    images = pictures(40, 4, 0.3, 0.7)
    network = Transformed(Linear(seed=0), Linear(seed=1), Transformation(budget=Linf(0.05), steps=2))
    labels = network(images).argmax(1)
    budget = Linf(0.02)
    blind = PGD(budget=budget, steps=10)(network, images, labels, chance())
    behind = Reparameterised(budget=budget)(network, images, labels, chance())
    assert (behind - images).abs().max() <= 0.02 + 1e-6
    turned = [(network(changed).argmax(1) != labels).float().mean() for changed in (blind, behind)]
    assert turned[1] > turned[0] + 0.2
    with pytest.raises(InputError, match="expected a network behind a transformation, found Linear"):
        Reparameterised(budget=budget)(Linear(), images, labels)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": -1}, "expected at least 1 step, or 0 with a random start, found -1"),
        ({"steps": 0}, "expected at least 1 step, or 0 with a random start, found 0"),
        ({"label": "true"}, "expected a label of predicted, least-likely, random, found 'true'"),
        ({"step_size": 0.0}, "expected a step size above 0, found 0.0"),
    ],
)
def test_values_out_of_range(wrong: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Transformation(**wrong)


def test_a_ball_without_room_is_refused() -> None:
    with pytest.raises(InputError, match="expected an Linf radius above 0, found 0"):
        Transformation(budget=Linf(0))
