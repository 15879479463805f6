"""COIN against scipy, a pixel at a time."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from unlearnable.countermeasures.coin import Coin, draw_displacement, warp
from unlearnable.errors import InputError


@pytest.mark.parametrize(("height", "width", "channels"), [(16, 16, 3), (7, 12, 1), (3, 2, 3), (1, 1, 1)])
@pytest.mark.parametrize("alpha", [0.8, 2.0, 3.2])
def test_against_scipy(height, width, channels, alpha):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, channels, height, width, generator=generator)
    displacement = draw_displacement(images, alpha, generator)
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    wanted = np.empty(images.shape)
    for n in range(4):
        place = [rows + displacement[n, ..., 1].numpy(), columns + displacement[n, ..., 0].numpy()]
        for c in range(channels):
            wanted[n, c] = map_coordinates(images[n, c].double().numpy(), place, order=1, mode="grid-wrap")
    assert np.allclose(warp(images, displacement, int(np.ceil(alpha))).numpy(), wanted, atol=3e-6)


def test_a_whole_displacement_is_a_cyclic_shift():
    images = torch.rand(2, 3, 9, 5)
    displacement = torch.tensor([2.0, -1.0]).expand(2, 9, 5, 2)
    assert torch.allclose(warp(images, displacement, 2), images.roll((1, -2), (2, 3)), atol=1e-6)


def test_displacements_are_uniform_and_each_pixels_own():
    drawn = draw_displacement(torch.empty(8, 3, 40, 40), 2.0, torch.Generator().manual_seed(0))
    assert drawn.abs().max() <= 2
    # 25,600 draws of variance 4/3: the mean is within 0.03 and the spread within 0.02, four standard deviations.
    assert drawn.mean().abs() < 0.03
    assert abs(drawn.std().item() - (4 / 3) ** 0.5) < 0.02
    assert np.abs(np.corrcoef(drawn[..., 0].ravel(), drawn[..., 1].ravel())[0, 1]) < 0.04


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("inf"), float("nan")])
def test_bad_alpha(alpha):
    with pytest.raises(InputError, match="alpha above 0"):
        Coin(alpha=alpha)
