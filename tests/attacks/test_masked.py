"""PGD with a radius of each place's own, against closed forms."""

import numpy as np
import pytest
import torch

from tests.attacks.networks import Linear, convolutional, pictures
from unlearnable import InputError
from unlearnable.attacks import frozen
from unlearnable.attacks.masked import MaskedPGD
from unlearnable.budgets import L2, Linf
from unlearnable.protections.masking import masked
from unlearnable.training.bullettrain import BulletTrain
from unlearnable.training.recipes import named

pytestmark = pytest.mark.usefixtures("one_thread")


def half_even(count=6, size=32):
    """Pictures whose left half is even, and whose right half is noise."""
    images = pictures(count, size)
    images[..., : size // 2] = 0.5
    return (255 * images).round() / 255


def test_radii_are_those_of_masked_noise():
    images = half_even()
    radii = MaskedPGD(budget=Linf.of_255(8), masking=1).radii(images)
    levels = np.ascontiguousarray((255 * images).round().byte().permute(0, 2, 3, 1).numpy())
    assert torch.equal(radii[:, 0], torch.from_numpy(masked(levels, 8, 1)) / 255)
    assert radii[..., 0].unique().tolist() == [pytest.approx(4 / 255)]
    assert radii[..., -1].min() > 16 / 255


@pytest.mark.parametrize(("steps", "channels"), [(5, 3), (20, 1)])
def test_two_classes_of_a_linear_network_are_attacked_to_the_border_of_each_place(steps, channels):
    model = Linear(classes=2, shape=(channels, 32, 32))
    images = 0.3 + 0.4 * half_even()[:, :channels]
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    attack = MaskedPGD(budget=Linf.of_255(4), steps=steps)
    changed = attack(model, images, labels, torch.Generator().manual_seed(0))
    away = (model.weight[1] - model.weight[0]).sign().view(1, channels, 32, 32) * (1 - 2 * labels)[:, None, None, None]
    assert model.passes == steps
    assert torch.allclose(changed, (images + attack.radii(images) * away).clamp(0, 1), atol=1e-6)


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
    assert ((first - images).abs() <= attack.radii(images) + 1e-6).all()
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())
    assert modes == [module.training for module in model.modules()]


def test_it_trains_by_a_recipe_of_its_own():
    recipe = named("masked-adversarial", budget=Linf.of_255(6), steps=5, masking=2.0)
    assert recipe.objective.attack == MaskedPGD(budget=Linf.of_255(6), steps=5, masking=2.0)
    assert recipe.spec()["objective"]["attack"]["masking"] == 2.0
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
