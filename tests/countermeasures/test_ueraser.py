"""UEraser: the choice of the hardest view, the plasma against kornia's, TrivialAugment a picture at a time."""

import math

import numpy as np
import pytest
import torch
from kornia.contrib import diamond_square as kornias
from torch import nn

from tests.countermeasures.conftest import as_batch, build_model, textured
from unlearnable.countermeasures.ueraser import UEraserMax, augment, diamond_square, hardest, plasma, trivial_augment
from unlearnable.errors import InputError


def test_the_view_of_the_highest_loss_is_taken():
    model = build_model().eval()
    views = [torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    with torch.no_grad():
        chosen = hardest(model, iter(views), labels)
        for n in range(6):
            losses = [-model(view[n : n + 1]).double().log_softmax(1)[0, labels[n]].item() for view in views]
            assert torch.equal(chosen[n], views[int(np.argmax(losses))][n])


def test_max_of_views_is_harder_than_one(published):
    images, labels = as_batch(published)
    model = build_model().eval()

    def loss(change):
        changed = change.every_batch(3)(model, images, labels, torch.Generator().manual_seed(0))
        return nn.functional.cross_entropy(model(changed), labels, reduction="none").detach()

    few, many = loss(UEraserMax(views=2)), loss(UEraserMax(views=8))  # the first two views are the same
    assert (many >= few - 1e-6).all()
    assert many.mean() > few.mean()


@pytest.mark.parametrize("size", [3, 9, 32, 33])
def test_plasma_against_kornia(size):
    generator = torch.Generator().manual_seed(0)
    roughness = torch.tensor([0.2, 0.6])
    draws = [torch.rand(2, 2, 6, generator=generator)]
    side = 3
    while side <= 2 ** math.ceil(math.log2(size - 1)) + 1:
        draws.append(torch.rand(side, side, 6, generator=generator))
        side = 2 * side - 1
    ours = iter(draws)
    maps = diamond_square(size, roughness.repeat_interleave(3), lambda shape: next(ours))
    # kornia draws nothing for the first halving, and keeps the corners columns first.
    theirs = iter([draws[0].transpose(0, 1), *draws[2:]])

    def draw(shape, **kind):
        return next(theirs).permute(2, 0, 1).reshape(*shape)

    wanted = kornias((2, 3, size, size), roughness, random_fn=draw)
    assert torch.allclose(maps[:size, :size].permute(2, 0, 1).reshape(wanted.shape), wanted, atol=1e-6)


def test_plasma_of_any_shape_is_in_range():
    for shape in ((2, 3, 5, 17), (1, 1, 3, 3)):
        maps = plasma(torch.zeros(shape), torch.Generator().manual_seed(0))
        assert maps.shape == shape
        assert 0 <= maps.min() < maps.max() <= 1


def test_each_picture_has_a_change_of_its_own(rng):
    images, _ = as_batch(textured(rng, count=1))
    out = augment(images.expand(40, -1, -1, -1), torch.Generator().manual_seed(0))
    different = {tuple(picture.flatten().tolist()) for picture in out}
    assert len(different) > 30  # one in 8 x 14 is left as it is


def test_trivial_augment_leaves_one_in_fourteen(rng):
    images, _ = as_batch(textured(rng, count=1))
    out = trivial_augment(images.expand(1400, -1, -1, -1), torch.Generator().manual_seed(0))
    same = (out == images).all(3).all(2).all(1).sum().item()
    assert 60 < same < 180  # 100 expected; an operation drawn with no effect adds some


def test_bad_input():
    with pytest.raises(InputError, match="at least 2 views"):
        UEraserMax(views=1)
    with pytest.raises(InputError, match="at least 3x3 pixels, found 2x9"):
        augment(torch.rand(1, 3, 2, 9), torch.Generator())
