"""Veils, against the formula written out slowly."""

import hashlib

import numpy as np
import pytest

from unlearnable import InputError, Key
from unlearnable.pictures import quality
from unlearnable.protections import veil


def names(count):
    return type("Names", (), {"class_names": tuple(map(str, range(count)))})


def as_defined(image, points):
    """A light that is linear between its points, on the middle tones, in floating point, pixel by pixel."""
    full = np.iinfo(image.dtype).max
    height, width, channels = image.shape
    light = points / 1024 / 255
    if channels == 1:
        light = light.mean(2, keepdims=True)
    grid = len(points)
    out = image / full
    for i in range(height):
        for j in range(width):
            y, x = i * (grid - 1) / max(height - 1, 1), j * (grid - 1) / max(width - 1, 1)
            top, left = min(int(y), grid - 2), min(int(x), grid - 2)
            a, b = y - top, x - left
            there = (1 - a) * ((1 - b) * light[top, left] + b * light[top, left + 1])
            there += a * ((1 - b) * light[top + 1, left] + b * light[top + 1, left + 1])
            lit = out[i, j, : len(there)]
            lit += there * 4 * lit * (1 - lit)
    return out * full


@pytest.mark.parametrize(("dtype", "off"), [(np.uint8, 0.6), (np.uint16, 30)])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("grid", [3, 6])
def test_pictures_are_lit_as_defined(dtype, off, channels, grid, key, rng):
    images = rng.integers(0, np.iinfo(dtype).max + 1, (3, 11, 17, channels), dtype)
    fitted = veil.Veil(radius=60, grid=grid).fit(names(3), key)
    out = fitted.apply(images, np.arange(3), list("abc"))
    for n in range(3):
        assert np.abs(out[n] - as_defined(images[n], fitted.points[n])).max() < off


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_black_stays_black_and_white_white_and_what_is_brighter_brighter(dtype):
    full = np.iinfo(dtype).max
    ramp = np.arange(0, full + 1, full // 255, dtype=dtype)
    points = np.full((2, 3, 3, 3), 60 * 1024) * np.array([1, -1])[:, None, None, None]
    out = veil.ClasswiseVeil(["a", "b"], points).apply(
        np.broadcast_to(ramp[None, None, :, None], (2, 1, 256, 3)).copy(), np.array([0, 1]), ["a", "b"]
    )
    assert (out[:, :, 0] == 0).all()
    assert (out[:, :, -1] == full).all()
    assert (np.diff(out.astype(int), axis=2) >= 0).all()
    assert (out[0, 0, 127] // (full // 255) == 187).all()
    assert (out[1, 0, 127] // (full // 255) == 67).all()


def test_light_goes_both_ways_and_seven_tenths_are_common_to_all_channels(key):
    light = np.stack([veil.draw_points(key.stream("many", str(n)), 8) for n in range(200)]) / 10240
    assert np.abs(light).max() <= 1
    assert light.mean() == pytest.approx(0, abs=0.01)
    assert light.std() == pytest.approx(((0.7**2 + 0.3**2) / 3) ** 0.5, abs=0.01)  # of even numbers from -1 to 1
    assert np.corrcoef(light[:, :, :4].reshape(-1, 3).T)[0, 1] == pytest.approx(0.7**2 / (0.7**2 + 0.3**2), abs=0.02)


@pytest.mark.parametrize("classes", [10, 60])
def test_brightness_is_kept_apart(classes):
    for seed in range(5):
        fitted = veil.Veil(radius=60).fit(names(classes), Key(bytes([seed] * 32)))
        light = fitted.points.mean(3) / 1024 / 60
        for n in range(classes - 1):
            nearest = np.sqrt(((light[n + 1 :] - light[n]) ** 2).mean((1, 2))).min()
            assert nearest >= veil.default_distance(classes) - 1e-4


@pytest.mark.parametrize("grid", [3, 4, 7])
def test_in_the_mirror_it_is_the_same(grid, key):
    fitted = veil.Veil(grid=grid).fit(names(3), key)
    assert np.array_equal(fitted.points, fitted.points[:, :, ::-1])
    grey = np.full((3, 40, 51, 3), 128, np.uint8)
    lit = fitted.apply(grey, np.arange(3), list("abc")).astype(int)
    assert np.abs(lit - lit[:, :, ::-1]).max() <= 1
    assert np.abs(lit - lit[:, ::-1]).max() > 10


def test_structure_costs_little_and_light_comes_off(key, rng):
    smooth = np.kron(rng.integers(60, 200, (3, 8, 8, 3), dtype=np.uint8), np.ones((1, 10, 10, 1), np.uint8))
    labels, ids = np.arange(3), list("abc")
    fitted = veil.Veil(radius=60, grid=3).fit(names(3), key)
    out, traces = fitted.apply_traced(smooth, labels, ids)
    back = fitted.restore(out, labels, ids, traces)
    for n in range(3):
        change = out[n].astype(int) - smooth[n]
        as_loud = rng.permutation(change.ravel()).reshape(change.shape)  # but without order
        assert quality.psnr(smooth[n], out[n]) < 27
        assert quality.ssim(smooth[n], out[n]) > 0.95
        assert quality.ssim(smooth[n], (smooth[n] + as_loud).clip(0, 255).astype(np.uint8)) < 0.8
        assert quality.psnr(smooth[n], back[n]) > 47


def test_grey_pictures_that_were_stored_as_colours_come_back(key, rng):
    grey = np.kron(rng.integers(0, 256, (3, 4, 4, 1), dtype=np.uint8), np.ones((1, 6, 6, 1), np.uint8))
    fitted = veil.Veil().fit(names(3), key)
    out, traces = fitted.apply_traced(grey, np.arange(3), list("abc"))
    back = fitted.restore(np.repeat(out, 3, axis=3), np.arange(3), list("abc"), traces)
    assert quality.psnr(back, np.repeat(grey, 3, axis=3)) > 47


def test_the_black_of_cmyk_is_left_alone(key, rng):
    images = rng.integers(0, 256, (1, 9, 8, 4), dtype=np.uint8)
    out = veil.Veil().fit(names(1), key).apply(images, np.array([0]), ["a"])
    assert np.array_equal(out[..., 3], images[..., 3])
    assert (out[..., :3] != images[..., :3]).any()


def test_a_weaker_veil_is_the_same_but_fainter(key):
    strong, faint = (veil.Veil(radius=radius).fit(names(2), key).points for radius in (60, 30))
    assert np.abs(strong // 2 - faint).max() <= 1
    assert veil.Veil(radius=60).scaled(0.5) == veil.Veil(radius=30)
    assert veil.Veil(radius=20).scaled(0.01) == veil.Veil(radius=4)


def test_veils_are_pinned_for_ever():
    """Digests are compared when a folder is unlocked, so they have to be the same on every machine."""
    fitted = veil.Veil(radius=50, grid=3).fit(names(3), Key(bytes(32)))
    assert fitted.digests()["1"] == "dbea8335d075e731085b11118248679dff8f222bc239084ff2e6cfebde66570f"
    images = np.arange(3 * 40 * 17 * 3, dtype=np.uint32).reshape(3, 40, 17, 3)
    for dtype, digest in (
        (np.uint8, "2c475af1b950668d627824a912606437b58fbd8f162ff97a63dc229e6d47ec62"),
        (np.uint16, "6ce3e5d6b3205d75218f1508b87570c44e4e283e78e0dcdf8c706835d8ebbe11"),
    ):
        full = np.iinfo(dtype).max
        out = fitted.apply((images * 40503 % (full + 1)).astype(dtype), np.arange(3), list("abc"))
        assert hashlib.sha256(out.tobytes()).hexdigest() == digest


@pytest.mark.parametrize("options", [{"radius": 3}, {"radius": 61}, {"radius": 4.5}, {"grid": 2}, {"grid": 9}])
def test_values_out_of_range(options):
    with pytest.raises(InputError, match="is the default"):
        veil.Veil(**options)
