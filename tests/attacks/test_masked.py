"""PGD with a radius of each place's own, against closed forms."""

import numpy as np
import pytest
import torch

from tests.attacks.networks import Linear, convolutional, pictures
from unlearnable import InputError
from unlearnable.attacks import frozen
from unlearnable.attacks.masked import MaskedPGD, shares
from unlearnable.budgets import L2, Linf
from unlearnable.pictures import contrast
from unlearnable.training.bullettrain import BulletTrain
from unlearnable.training.recipes import named

pytestmark = pytest.mark.usefixtures("one_thread")


def half_even(count=6, size=32, channels=3):
    """Pictures whose left half is even, and whose right half is noise."""
    images = pictures(count, size)[:, :channels]
    images[..., : size // 2] = 0.5
    return (255 * images).round() / 255


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("masking", [0.5, 1.0, 2.0])
def test_contrast_is_measured_as_for_masked_noise(masking, channels):
    images = torch.cat(
        [half_even(channels=channels), 0.02 * half_even(channels=channels), 1 - torch.zeros(1, channels, 32, 32)]
    )
    levels = np.ascontiguousarray((255 * images).round().byte().permute(0, 2, 3, 1).numpy())
    wanted = contrast.shares(levels, masking)
    found = shares(torch.from_numpy(levels).permute(0, 3, 1, 2) / 255, masking)[:, 0].numpy()
    assert np.allclose(found, wanted, rtol=0.01)  # the other rounds brightness to whole grey levels
    assert np.median(np.abs(found / wanted - 1)) < 1e-3
    assert found[0, :, 0].max() < 0.6
    assert found[0, :, -1].min() > 1.2


def test_there_are_shares_of_no_and_of_the_smallest_pictures():
    assert shares(torch.zeros(0, 3, 8, 8), 1).shape == (0, 1, 8, 8)
    assert shares(torch.rand(2, 3, 1, 1), 1).tolist() == [[[[0.5]]], [[[0.5]]]]


@pytest.mark.parametrize(("levels", "steps", "channels"), [(4, 5, 3), (0.5, 5, 3), (60, 20, 1)])
def test_two_classes_of_a_linear_network_are_attacked_to_the_border_of_each_place(levels, steps, channels):
    model = Linear(classes=2, shape=(channels, 32, 32))
    images = 0.3 + 0.4 * half_even(channels=channels)
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    changed = MaskedPGD(budget=Linf.of_255(levels), steps=steps)(model, images, labels)
    away = (model.weight[1] - model.weight[0]).sign().view(1, channels, 32, 32) * (1 - 2 * labels)[:, None, None, None]
    assert model.passes == steps
    assert torch.allclose(changed, (images + shares(images, 1) * levels / 255 * away).clamp(0, 1), atol=1e-6)


def test_the_network_is_left_as_it_was_and_draws_come_from_the_generator():
    model, images = convolutional(), half_even(size=8)
    with frozen(model):
        labels = model(images).argmax(1)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    attack = MaskedPGD(budget=Linf.of_255(8), steps=3, masking=0.5)
    with torch.inference_mode():
        first, second = (attack(model, images, labels, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, attack(model, images, labels, torch.Generator().manual_seed(4)))
    assert ((first - images).abs() <= shares(images, 0.5) * 8 / 255 + 1e-6).all()
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())
    assert modes == [module.training for module in model.modules()]


@pytest.mark.parametrize("mixed", [False, True])
def test_it_trains_by_a_recipe_of_its_own(mixed):
    objective = named("masked-adversarial", budget=Linf.of_255(6), steps=5, masking=2.0).objective
    assert objective.attack == MaskedPGD(budget=Linf.of_255(6), steps=5, masking=2.0)
    model, images = convolutional(), half_even(size=8)
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    if mixed:
        labels = torch.nn.functional.one_hot(labels).float().lerp(torch.full((6, 5), 0.2), 0.3)
    generator = torch.Generator().manual_seed(0)
    changed = objective.attack(model, images, labels, generator)
    generator.manual_seed(0)
    torch.manual_seed(0)
    outcome = objective(model, images, labels, 0.0, generator)
    model_again = convolutional()
    torch.manual_seed(0)
    wanted = torch.nn.functional.cross_entropy(model_again(changed), labels)
    assert torch.allclose(outcome.loss, wanted)
    outcome.loss.backward()
    assert model[-1].weight.grad.abs().sum() > 0


def test_it_cannot_be_accelerated():
    with pytest.raises(InputError, match="PGD attack to accelerate, found MaskedPGD: choose adversarial"):
        named("masked-adversarial", accelerate=BulletTrain())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": L2(0.5)}, "expected an Linf budget, found L2 0.5"),
        ({"masking": 0.0}, "expected masking above 0, up to 2, found 0.0"),
        ({"masking": 2.5}, "found 2.5"),
        ({"masking": float("nan")}, "found nan"),
        ({"steps": 0}, "expected at least 1 step"),
    ],
)
def test_parameters_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        MaskedPGD(**{"budget": Linf.of_255(8)} | options)
