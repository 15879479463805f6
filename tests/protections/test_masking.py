"""How loud noise may be: quiet in even places, loud in busy ones, and the same for SSIM."""

import numpy as np
import pytest

from unlearnable.pictures.quality import ssim
from unlearnable.protections.masking import loudest, masked


def stripes(contrast):
    """Return a picture whose standard deviation, in windows of seven, is about so many grey levels."""
    line = 128 + contrast * np.where(np.arange(32) % 2, 1, -1)
    return np.broadcast_to(line[:, None], (32, 32, 1)).astype(np.uint8)


def test_the_radius_goes_with_the_contrast():
    even, little, much = (masked(stripes(contrast)[None], 8, 1).mean() for contrast in (0, 16, 32))
    assert even == 4
    assert little == pytest.approx(8, abs=0.6)
    assert much == pytest.approx(2 * little, rel=0.05)
    assert masked(stripes(32)[None], 8, 2).mean() == pytest.approx(4 * 8, rel=0.05)
    assert (masked(stripes(32)[None], 8, 0) == 8).all()


@pytest.mark.parametrize(("radius", "least", "most"), [(1, 1, 4), (8, 4, 32), (11, 6, 44), (60, 30, 127)])
def test_it_stays_between_half_the_radius_and_four_times_as_much(radius, least, most):
    assert loudest(radius) == most
    pictures = np.stack([stripes(0), stripes(127)])
    found = masked(pictures, radius, 2)
    assert (found.dtype, found.shape) == (np.int8, (2, 32, 32))
    assert (found[0] == least).all()
    assert (found[1] == most).all()


def test_places_differ_within_a_picture_and_beside_even_ones_noise_is_quiet():
    half = stripes(40)
    half[:, :16] = 128
    found = masked(half[None], 8, 1)[0]
    assert (found[:, :14] == 4).all()
    assert (found[:, 20:] > 16).all()
    assert (found[:, 16] < found[:, 20]).all()  # where windows reach into the even half


def test_colours_count_by_their_brightness():
    grey = stripes(40)
    blue = np.concatenate([np.full_like(grey, 128)] * 2 + [grey], 2)
    assert masked(blue[None], 8, 1).mean() < masked(grey[None], 8, 1).mean() / 2


def test_masked_noise_is_louder_at_the_same_similarity(rng):
    ramp = np.linspace(0, 60, 32)[:, None] * np.where(np.arange(32) % 2, 1, -1)
    picture = (128 + ramp[..., None]).round().astype(np.uint8)
    signs = rng.choice([-1, 1], picture.shape)
    levels = masked(picture[None], 9, 1)[0, ..., None].astype(int)

    def similarity(loud):
        return ssim(picture, (picture + signs * loud).clip(0, 255).astype(np.uint8))

    assert similarity(levels) > similarity(13)
    assert levels.mean() > 16
