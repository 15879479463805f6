"""The lasso's steps, against the formulas."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.small import BUILD, dark_and_bright
from unlearnable.errors import InputError
from unlearnable.training.loop import train
from unlearnable.training.recipes import named
from unlearnable.training.rsr.lasso import add_lasso
from unlearnable.training.rsr.noise import inject_noise, strengths
from unlearnable.training.rsr.weights import places

pytestmark = pytest.mark.usefixtures("one_thread")


def network_and_gradients() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    return network


def stepped(step: str, price: float) -> tuple[nn.Sequential, nn.Sequential]:
    """Return a network before and after one step of plain SGD at a rate of 0.1."""
    before, after = network_and_gradients(), network_and_gradients()
    optimizer = torch.optim.SGD(after.parameters(), lr=0.1)
    add_lasso(optimizer, after, price, step)
    optimizer.step()
    return before, after


def test_the_proximal_step_is_soft_thresholding() -> None:
    before, after = stepped("proximal", 0.8)
    for was, now in zip(places(before), places(after), strict=True):
        moved = was.values.detach().double().numpy() - 0.1 * was.values.grad.double().numpy()
        wanted = np.sign(moved) * np.maximum(np.abs(moved) - 0.1 * 0.8, 0)
        np.testing.assert_allclose(now.values.detach().numpy(), wanted, rtol=0, atol=1e-7)
        np.testing.assert_array_equal(now.values.detach().numpy() == 0, wanted == 0)
        assert 0.05 < (wanted == 0).mean() < 0.95


def test_the_subgradient_is_lambda_times_the_sign() -> None:
    before, after = stepped("subgradient", 0.8)
    for was, now in zip(places(before), places(after), strict=True):
        size = was.values.detach().double().requires_grad_()
        (0.8 * size.abs().sum()).backward()
        wanted = size.detach() - 0.1 * (was.values.grad.double() + size.grad)
        np.testing.assert_allclose(now.values.detach().numpy(), wanted.numpy(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("step", ["proximal", "subgradient"])
def test_biases_and_batch_normalisation_have_no_price(step: str) -> None:
    before, after = stepped(step, 0.8)
    for name in ("0.bias", "1.weight", "1.bias", "3.bias"):
        was = before.get_parameter(name)
        torch.testing.assert_close(after.get_parameter(name), was - 0.1 * was.grad, rtol=1e-6, atol=1e-7)


def test_training_makes_exact_zeros_and_leaves_strengths_alone() -> None:
    data = dark_and_bright()
    shares = {}
    for price in (0.0, 2e-2):
        recipe = named("erm", epochs=4, batch_size=10, crop=1, noise=True, lasso=price)
        trained = train(data, model=BUILD, recipe=recipe).model
        values = torch.cat([place.values.flatten() for place in places(trained)])
        shares[price] = float((values == 0).float().mean())
        assert all((strength != 0).all() for strength in strengths(trained))
    assert shares[0.0] == 0
    assert shares[2e-2] > 0.1


def test_it_is_on_the_learned_weights_where_there_is_noise() -> None:
    network = inject_noise(network_and_gradients())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    add_lasso(optimizer, network, 1e6, "proximal")
    optimizer.step()
    assert all((place.values == 0).all() for place in places(network))
    assert all((strength == 0.25).all() for strength in strengths(network))


def test_bad_input() -> None:
    with pytest.raises(InputError, match="expected a lasso of 0 or more, found -1"):
        named("erm", lasso=-1.0)
    with pytest.raises(InputError, match="expected one of proximal, subgradient for lasso_step, found 'hard'"):
        named("erm", lasso_step="hard")
