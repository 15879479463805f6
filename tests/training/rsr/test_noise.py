"""Noise on the weights, against the formula; what it leaves alone."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.training.small import BUILD, dark_and_bright, weights
from unlearnable.attacks import PGD
from unlearnable.budgets import Linf
from unlearnable.errors import InputError
from unlearnable.models import models
from unlearnable.training.bullettrain import accelerators
from unlearnable.training.loop import train
from unlearnable.training.recipes import named
from unlearnable.training.rsr.noise import ChannelNoise, inject_noise, layers, noise_from, noise_off, strengths
from unlearnable.training.rsr.pruning import prune
from unlearnable.training.rsr.weights import places

pytestmark = pytest.mark.usefixtures("one_thread")

ZOO = ("densenet121", "deit-tiny", "efficientnetv2-s", "mobilenetv2", "resnet18", "resnet9-w16", "vgg16", "wrn-40-2")


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 4, size: int = 8) -> Tensor:
    return torch.rand(count, 3, size, size, generator=chance(7))


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 3))


def drawn_as_one(network: nn.Module, seed: int) -> list[Tensor]:
    """Draw what every layer of a network in PyTorch's default memory order is given."""
    shapes = [place.values.shape for place in places(network)]
    flat = torch.empty(sum(shape.numel() for shape in shapes)).normal_(generator=chance(seed))
    return [part.reshape(shape) for part, shape in zip(flat.split([s.numel() for s in shapes]), shapes, strict=True)]


def test_the_weights_are_what_the_formula_says() -> None:
    network = inject_noise(small()).eval()
    for number, strength in enumerate(strengths(network)):
        with torch.no_grad():
            strength.copy_(torch.rand(strength.shape, generator=chance(number)) - 0.3)
    convolution, norm, _, linear = network
    noisy = []
    for layer, place, eta in zip((convolution, linear), places(network), drawn_as_one(network, 5), strict=True):
        w, alpha = place.values.detach().double().numpy(), layer.parametrizations.weight[0].strength.detach().numpy()
        noisy.append(torch.from_numpy(w + alpha * w.std() * eta.double().numpy()).float())
    x = pictures()
    by_hand = norm(functional.conv2d(x, noisy[0], convolution.bias)).flatten(1)
    with noise_from(network, chance(5)):
        torch.testing.assert_close(network(x), functional.linear(by_hand, noisy[1], linear.bias))


def test_a_strength_of_zero_or_a_switch_gives_the_plain_network_to_the_bit() -> None:
    plain, network = small(), inject_noise(small())
    x = pictures()
    with noise_off(network):
        assert torch.equal(network(x), plain(x))
        with noise_off(network):
            assert torch.equal(network(x), plain(x))
        assert torch.equal(network(x), plain(x))
    assert not torch.equal(network(x), plain(x))
    for strength in strengths(network):
        nn.init.zeros_(strength)
    assert torch.equal(network(x), plain(x))


def test_gradients_of_strengths_and_weights_take_the_noise_for_a_constant() -> None:
    network = inject_noise(small())
    x = pictures()
    eta = drawn_as_one(network, 3)
    with noise_from(network, chance(3)):
        network(x).square().sum().backward()
    # The same network with the noisy weights as its own, whose gradients are those of W + noise.
    same = small()
    for own, place, noise, strength in zip(places(same), places(network), eta, strengths(network), strict=True):
        own.values.data = (place.values + strength * place.values.std(correction=0) * noise).detach()
    same(x).square().sum().backward()
    for own, place, noise, strength in zip(places(same), places(network), eta, strengths(network), strict=True):
        torch.testing.assert_close(place.values.grad, own.values.grad)
        deviation = place.values.detach().std(correction=0)
        wanted = (own.values.grad * noise * deviation).flatten(1).sum(1)
        torch.testing.assert_close(strength.grad.flatten(), wanted, rtol=1e-4, atol=1e-5)


def test_noise_is_new_in_every_pass_and_never_used_twice() -> None:
    network = inject_noise(small()).eval()
    x = pictures(1)
    answers = [network(x) for _ in range(4)]
    with torch.inference_mode():
        answers += [network(x).clone() for _ in range(2)]
    _ = network[0].weight  # taken out of turn
    answers += [network(x)]
    assert len({tuple(answer.flatten().tolist()) for answer in answers}) == 7
    with noise_from(network, chance(1)):
        first = [network(x), network(x)]
    with noise_from(network, chance(1)):
        assert all(torch.equal(network(x), before) for before in first)
    assert not torch.equal(first[0], first[1])


def test_two_passes_before_one_backward_keep_their_own_noise() -> None:
    network = inject_noise(small())
    x = pictures()
    with noise_from(network, chance(2)):
        (network(x).sum() + network(x).square().sum()).backward()
    together = [strength.grad.clone() for strength in strengths(network)]
    network.zero_grad()
    with noise_from(network, chance(2)):
        network(x).sum().backward()
        network(x).square().sum().backward()
    for strength, sum_ in zip(strengths(network), together, strict=True):
        torch.testing.assert_close(strength.grad, sum_, rtol=1e-4, atol=1e-5)


def test_noise_has_the_deviation_it_claims() -> None:
    layer = inject_noise(nn.Sequential(nn.Linear(400, 300)))
    weight = places(layer)[0].values
    noise = (layer[0].weight - weight).detach()
    claimed = 0.25 * weight.detach().numpy().std()
    assert abs(noise.numpy().std() / claimed - 1) < 5 / np.sqrt(2 * noise.numel())  # five standard errors
    assert abs(noise.mean()) < 5 * claimed / np.sqrt(noise.numel())


@pytest.mark.parametrize("name", ZOO)
def test_every_network_of_the_zoo_takes_it(name: str) -> None:
    network = inject_noise(models.create(name, classes=3, size=16)).eval()
    assert len(layers(network)) == len(places(network)) > 8
    x = pictures(2, 16)
    with torch.inference_mode():
        assert not torch.equal(network(x), network(x))
        with noise_off(network):
            assert torch.equal(network(x), network(x))
    network(x).sum().backward()
    assert all(strength.grad is not None for strength in strengths(network))


def test_attacks_meet_the_noise_and_leave_it_alone() -> None:
    network = inject_noise(small())
    before = copy.deepcopy(network.state_dict())
    asked: list[int] = []
    for layer in layers(network):
        layer.register_forward_hook(lambda *_: asked.append(1))
    x, y = pictures(), torch.tensor([0, 1, 2, 0])
    attack = PGD(budget=Linf.of_255(8), steps=3)
    with noise_from(network, chance(0)):
        first = attack(network, x, y, chance(1))
        assert not torch.equal(first, attack(network, x, y, chance(1)))
    assert len(asked) == 2 * 3 * 2
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(strength.requires_grad and strength.grad is None for strength in strengths(network))


@pytest.mark.parametrize("accelerate", [None, "bullettrain"])
@pytest.mark.parametrize("recipe", ["adversarial", "trades", "mart"])
def test_recipes_train_it(recipe: str, accelerate: str | None) -> None:
    faster = {} if accelerate is None else {"accelerate": accelerators.create(accelerate)}
    made = named(recipe, epochs=1, batch_size=20, crop=1, noise=True, **faster)
    data = dark_and_bright()
    first, second = (train(data, model=BUILD, recipe=made, seed=1).model for _ in range(2))
    assert torch.equal(weights(first), weights(second))
    assert all((strength != 0.25).any() for strength in strengths(first))


def test_a_run_goes_on_to_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = named("adversarial", steps=2, epochs=2, batch_size=8, crop=1, noise=True, lasso=1e-3, ema=0.9)
    data = dark_and_bright()
    whole = train(data, model=BUILD, recipe=recipe, seed=1)

    def stop(done: int, total: int, _: object) -> None:
        if done == 7:
            raise RuntimeError

    path = tmp_path / "run"
    monkeypatch.setattr("unlearnable.training.loop._SAVE_SECONDS", 0)
    with pytest.raises(RuntimeError):
        train(data, model=BUILD, recipe=recipe, seed=1, checkpoint=path, progress=stop)
    again = train(data, model=BUILD, recipe=recipe, seed=1, checkpoint=path)
    assert torch.equal(weights(whole.model), weights(again.model))


def test_strengths_do_not_decay() -> None:
    network = inject_noise(BUILD())
    with torch.no_grad():
        network.head.parametrizations.weight.original.zero_()  # so that nothing before it has a gradient
    before = [strength.detach().clone() for strength in strengths(network)[:-1]]
    recipe = named("erm", epochs=1, batch_size=40, crop=0, weight_decay=0.5, noise=True)
    kept = [place.values.detach().norm() for place in places(network)]
    trained = train(dark_and_bright(), model=lambda: network, recipe=recipe).model
    assert all(torch.equal(*pair) for pair in zip(before, strengths(trained)[:-1], strict=True))
    assert all(place.values.norm() < norm for place, norm in zip(places(trained)[:-1], kept, strict=False))


def test_bad_input() -> None:
    with pytest.raises(InputError, match="expected a network with convolutions or linear layers, found Sequential"):
        inject_noise(nn.Sequential(nn.BatchNorm2d(3)))
    with pytest.raises(InputError, match="expected a network without noise, found one that has it already"):
        inject_noise(inject_noise(small()))
    pruned = small()
    prune(pruned, 0.5)
    with pytest.raises(InputError, match="expected a network that is not pruned, found one that is: put noise on"):
        inject_noise(pruned)


def test_noise_is_what_the_parametrization_is_called() -> None:
    assert isinstance(inject_noise(small())[0].parametrizations.weight[0], ChannelNoise)
