"""A batch transformed at once, against torchvision picture by picture, there and back."""

import pytest
import torch
from torchvision.transforms.v2 import functional as vision

from unlearnable.protections.crop_flip import CropFlip

PADDING = 3


def one_by_one(images, crops, copies):
    """The obvious way: border, mirror and cut each picture with a library."""
    count, _, height, width = images.shape
    out = []
    for n in range(count * copies):
        mirrored = bool(crops.columns[n, 0] > crops.columns[n, 1])
        picture = vision.hflip(images[n % count]) if mirrored else images[n % count]
        first = int(crops.columns[n, 0])
        left = width + 2 * PADDING - 1 - first if mirrored else first
        out.append(vision.crop(vision.pad(picture, [PADDING]), int(crops.rows[n, 0]), left, height, width))
    return torch.stack(out)


@pytest.mark.parametrize("copies", [1, 3])
def test_forward_and_adjoint_are_the_librarys(copies):
    chance = torch.Generator().manual_seed(0)
    images = torch.rand(5, 3, 8, 10, generator=chance, requires_grad=True)
    transform = CropFlip(padding=PADDING)
    crops = transform.draw(5 * copies, 8, 10, chance)
    wanted = one_by_one(images, crops, copies)
    assert torch.equal(transform.apply(images.detach(), crops), wanted)
    gradient = torch.rand(wanted.shape, generator=chance)
    (back,) = torch.autograd.grad(wanted, images, gradient)
    torch.testing.assert_close(transform.adjoint(gradient, crops, 5), back)


def test_border_is_black_and_drawn_anew_for_every_picture_and_sample():
    transform = CropFlip(padding=4)
    crops = transform.draw(600, 8, 8, torch.Generator().manual_seed(0))
    views = transform.apply(torch.ones(2, 1, 8, 8), crops)
    assert set(views.unique().tolist()) == {0.0, 1.0}
    starts = torch.stack([crops.rows[:, 0], crops.columns.min(1).values], 1)
    assert len(starts.unique(dim=0)) == 81  # every place there is, for two pictures
    assert 0.4 < (crops.columns[:, 0] > crops.columns[:, 1]).float().mean() < 0.6


def test_nothing_to_draw_is_the_identity():
    transform = CropFlip(padding=0, flip=False)
    images = torch.rand(2, 3, 5, 6)
    crops = transform.draw(2, 5, 6, torch.Generator())
    assert torch.equal(transform.apply(images, crops), images)
    assert torch.equal(transform.adjoint(images, crops, 2), images)
