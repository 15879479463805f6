"""Every corruption against its formula, and what holds for all of them."""

import math

import numpy as np
import pytest

from tests.attacks.corruptions import slow
from unlearnable.attacks.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from unlearnable.attacks.corruptions.base import motion_blurred, truncated, zoom_matrix
from unlearnable.attacks.corruptions.blur import disk
from unlearnable.attacks.corruptions.weather import height_map
from unlearnable.errors import InputError

COARSE = {"pixelate": 1.5 / 255, "jpeg_compression": 1.5 / 255}  # they round to grey levels on the way
TIES = {"jpeg_compression": 0.1}  # share of values where a weight is rounded the other way; 0.15 at other qualities
RANDOM = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "glass_blur",
    "motion_blur",
    "snow",
    "frost",
    "fog",
    "elastic_transform",
)


def pictures(count=4, height=32, width=32, channels=3):
    """Smooth pictures with edges and noise, black and white among their values."""
    rng = np.random.default_rng(height * width + channels)
    row, column = np.mgrid[:height, :width]
    waves = [np.sin(row / rng.uniform(2, 9) + column / rng.uniform(2, 9)) for _ in range(count * channels)]
    smooth = np.reshape(waves, (count, channels, height, width)).transpose(0, 2, 3, 1)
    noisy = 128 + 110 * smooth + rng.normal(0, 12, smooth.shape)
    noisy[:, 3:9, 5:8] = 0
    noisy[:, 10:12, 4:9, 0] = 255
    return noisy.clip(0, 255).astype(np.uint8)


IMAGES = pictures()
IDS = ("a", "b/c", "ü", "4")


def chance(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_it_is_what_the_formula_says(name, severity):
    corruption = CORRUPTIONS[name]
    level = corruption.severities[severity - 1]
    images = IMAGES / 255
    if name == "jpeg_compression":  # what the formula here leaves out is how colours are thinned out
        images = np.repeat(images[..., :1], 3, 3)
    draws = [corruption.draw(chance(seed), one, level) for seed, one in enumerate(images)]
    changed = corruption.change(images, *map(np.stack, zip(*draws, strict=True)), level)
    wanted = [getattr(slow, name)(image, severity, *drawn) for image, drawn in zip(images, draws, strict=True)]
    off = np.abs(changed - wanted) > COARSE.get(name, 1e-9)
    assert off.mean() <= TIES.get(name, 0)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_has_the_moments_it_should(severity):
    grey, of = np.full((100, 100, 3), 0.4), severity - 1
    deviation = (0.04, 0.06, 0.08, 0.09, 0.10)[of]
    (noise,) = CORRUPTIONS["gaussian_noise"].draw(chance(), grey, deviation)
    assert noise.mean() == pytest.approx(0, abs=5 * deviation / math.sqrt(noise.size))
    assert noise.std() == pytest.approx(deviation, rel=0.03)
    most = (500, 250, 100, 75, 50)[of]
    (photons,) = CORRUPTIONS["shot_noise"].draw(chance(), grey, most)
    assert (photons / most).mean() == pytest.approx(0.4, rel=0.01)
    assert (photons / most).var() == pytest.approx(0.4 / most, rel=0.05)
    share = (0.01, 0.02, 0.03, 0.05, 0.07)[of]
    (grains,) = CORRUPTIONS["impulse_noise"].draw(chance(), grey, share)
    assert np.isin(grains, (0, 1)).mean() == pytest.approx(share, rel=0.2)
    assert np.nanmean(grains) == pytest.approx(0.5, abs=0.1)


def test_angles_offsets_and_anchors_are_spread_as_they_should_be():
    picture = IMAGES[0] / 255
    rng = chance()
    for name, low, high in (("motion_blur", -45, 45), ("snow", -135, -45)):
        corruption = CORRUPTIONS[name]
        angles = [float(corruption.draw(rng, picture, corruption.severities[2])[-1]) for _ in range(300)]
        assert low <= min(angles) < low + 3
        assert high - 3 < max(angles) <= high
        assert np.mean(angles) == pytest.approx((low + high) / 2, abs=6)
    flakes = np.stack([CORRUPTIONS["snow"].draw(rng, picture, CORRUPTIONS["snow"].severities[4])[0] for _ in range(20)])
    assert (flakes.mean(), flakes.std()) == (pytest.approx(0.3, abs=0.01), pytest.approx(0.3, rel=0.02))
    glass = CORRUPTIONS["glass_blur"]
    (offsets,) = glass.draw(rng, picture, glass.severities[4])
    assert offsets.shape == (2, 32, 32, 2)
    assert sorted(np.unique(offsets)) == [-1, 0]
    elastic = CORRUPTIONS["elastic_transform"]
    drawn = [elastic.draw(rng, picture, elastic.severities[0]) for _ in range(100)]
    shifts, fields = map(np.stack, zip(*drawn, strict=True))
    assert shifts.shape == (100, 3, 2)
    assert 0.95 * 0.08 * 32 < np.abs(shifts).max() <= 0.08 * 32
    assert 0.99 < np.abs(fields).max() <= 1


@pytest.mark.parametrize("decay", [3, 1.75])
@pytest.mark.parametrize("side", [2, 8, 32])
def test_height_maps_are_those_of_diamond_and_square(side, decay):
    found = height_map(side, decay, chance(side))
    np.testing.assert_allclose(found, slow.mountains(side, decay, chance(side)), rtol=0, atol=1e-12)
    assert (found.min(), found.max()) == (0, 1)


IMAGEMAGICK = {  # convert in.png -motion-blur ANGLE out.png, of ImageMagick 6.9.11-60 Q16
    (6, 2, 30): """
        193 159 112 162 182 143 118 160  144 119 162 190 171  99 124 178  137 146 140 145 205 202 167 102
        162 121 159 160 168 154 175 183  142 154 111  98 110 124 140  95  116  97 130 145 107 110 135 139
         96 132 128  83  97 132 176 170  136 105 115  89 102 118 133 104""",
    (8, 3, -100): """
        255 237 103  90 199 207  71  87  219 223 114 107 186 198  88 113  209 176 161  80 187 193 140  89
        204 153 189 100 173 191 185 113  193 124 203  82 175 158 203  92  162 141 152 151 117 131 170 130
        126 142 162 132 105 107 175 147  135 125 162 136  80 106 156 159""",
}


@pytest.mark.parametrize("arguments", IMAGEMAGICK, ids=str)
def test_motion_blur_is_imagemagicks(arguments):
    radius, sigma, angle = arguments
    picture = np.random.default_rng(1).integers(0, 256, (1, 8, 8, 1), dtype=np.uint8)
    blurred = motion_blurred(picture / 255, np.array([float(angle)]), radius=radius, sigma=sigma)
    wanted = np.array(IMAGEMAGICK[arguments].split(), int).reshape(8, 8)
    assert np.array_equal(truncated(blurred)[0, ..., 0], wanted)


def test_a_disk_out_of_focus_adds_up_to_one():
    for level in CORRUPTIONS["defocus_blur"].severities:
        assert disk(*level).sum() == pytest.approx(1)


@pytest.mark.parametrize("factor", [1, 1.01, 1.25, 2.25])
@pytest.mark.parametrize("size", [8, 17, 32])
def test_zooming_keeps_what_is_even(size, factor):
    matrix = zoom_matrix(size, factor)
    assert np.allclose(matrix.sum(1), 1)
    assert matrix.min() >= 0


@pytest.mark.parametrize("shape", [(8, 8, 3), (9, 21, 1), (40, 33, 3)], ids=str)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_any_size_and_grey_pictures(name, shape):
    images = pictures(3, *shape)
    before = images.copy()
    for severity in (1, 5):
        changed = corrupt(images, name, severity, ids=IDS[:3])
        assert (changed.shape, changed.dtype) == (images.shape, np.uint8)
        if (name, severity) != ("pixelate", 1) and name != "zoom_blur":
            assert not np.array_equal(changed, images)
    assert np.array_equal(images, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_picture_becomes_the_same_in_any_batch(name):
    many, ids = np.tile(IMAGES, (40, 1, 1, 1)), tuple(map(str, range(160)))
    whole = corrupt(many, name, 3, ids=ids, seed=7)
    assert np.array_equal(whole, corrupt(many, name, 3, ids=ids, seed=7))
    for place in (0, 5, 130, 159):
        alone = corrupt(many[place : place + 1], name, 3, ids=ids[place : place + 1], seed=7)
        assert np.array_equal(alone[0], whole[place])
    order = np.random.default_rng(0).permutation(160)
    shuffled = corrupt(many[order], name, 3, ids=[ids[place] for place in order], seed=7)
    assert np.array_equal(shuffled, whole[order])
    others = (
        corrupt(IMAGES, name, 3, ids=IDS, seed=8),
        corrupt(IMAGES, name, 3, ids=IDS[::-1], seed=7),
    )
    assert all(np.array_equal(other, whole[:4]) != (name in RANDOM) for other in others)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_severest_is_worse_than_the_mildest(name):
    images = pictures(12)
    ids = tuple(map(str, range(12)))
    mild, severe = (np.abs(corrupt(images, name, s, ids=ids) - images.astype(float)).mean() for s in (1, 5))
    if name == "elastic_transform":  # from one large bend to many small ones
        assert min(mild, severe) > 1
    else:
        assert 0 < mild < severe


def test_whole_grey_levels_survive_and_parts_are_cut_off():
    levels = np.arange(256)
    assert np.array_equal(truncated(levels / 255), levels)
    assert truncated(np.array([-0.5, 0.999 / 255, 1.999 / 255, 254.99 / 255, 1.5])).tolist() == [0, 0, 1, 254, 255]


def test_a_black_picture_is_no_trouble():
    black = np.zeros((2, 16, 16, 3), np.uint8)
    for name in CORRUPTIONS:
        changed = corrupt(black, name, 5, ids=("a", "b"))
        if name in ("fog", "contrast", "zoom_blur", "pixelate"):
            assert not changed.any()
    assert (corrupt(black, "brightness", 5, ids=("a", "b")) == 76).all()  # 0.3 of 255, cut off


def test_pictures_too_small_are_refused():
    with pytest.raises(InputError, match="expected pictures of 8 pixels a side at least for corruptions, found 9 x 7"):
        corrupt(np.zeros((1, 7, 9, 3), np.uint8), "fog", 1, ids="a")
