"""PSNR and SSIM against scikit-image."""

import math

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from tests.conftest import draw_picture
from unlearnable.pictures.quality import brightness, psnr, ssim


@pytest.mark.parametrize("shape", [(7, 7), (8, 100), (64, 48), (301, 203)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_against_scikit_image(shape, mode, rng):
    one, other = (np.asarray(draw_picture(rng, *shape).convert(mode)) for _ in range(2))
    one, other = (x.reshape(*shape, -1) for x in (one, other))
    assert psnr(one, other) == pytest.approx(peak_signal_noise_ratio(one, other, data_range=255), rel=1e-6)
    _, map_ = structural_similarity(brightness(one), brightness(other), data_range=255, full=True)
    rows = map_[3:-3, 3:-3][:: 1 if min(shape) < 100 else 4]  # windows within the picture
    assert ssim(one, other) == pytest.approx(rows.mean(), abs=2e-5)


def test_every_fourth_row_of_windows_stands_for_all(rng):
    one = np.asarray(draw_picture(rng, 300, 400))
    other = np.clip(one.astype(int) + rng.normal(0, 20, one.shape), 0, 255).astype(np.uint8)
    wanted = structural_similarity(brightness(one), brightness(other), data_range=255)
    assert ssim(one, other) == pytest.approx(wanted, abs=5e-3)


def test_brightness_is_pillows(rng):
    picture = draw_picture(rng, 50, 40)
    assert np.array_equal(brightness(np.asarray(picture)), np.asarray(picture.convert("L")))


def test_sixteen_bit(rng):
    one = rng.integers(0, 65536, (30, 20, 3), dtype=np.uint16)
    other = (one // 2).astype(np.uint16)
    assert psnr(one, other) == pytest.approx(peak_signal_noise_ratio(one, other, data_range=65535), rel=1e-5)
    assert ssim(one, other) == ssim((one >> 8).astype(np.uint8), (other >> 8).astype(np.uint8))


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 5, 1), (2, 60, 3)])
def test_pictures_smaller_than_a_window(shape, rng):
    one, other = (rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(2))
    assert math.isinf(psnr(one, one))
    assert ssim(one, one) == pytest.approx(1)
    assert -1 <= ssim(one, other) < 1
