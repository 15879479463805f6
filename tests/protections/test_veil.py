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


@pytest.mark.parametrize(("dtype", "off"), [(np.uint8, 0.6), (np.uint16, 12)])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("grid", [3, 6])
def test_pictures_are_lit_as_defined(dtype, off, channels, grid, key, rng):
    full = np.iinfo(dtype).max
    images = rng.integers(0, full + 1, (3, 11, 17, channels), dtype)
    images[:, ::3] //= full // 15  # nearly black, and nearly white
    images[:, 1::3] = full - images[:, 1::3] // (full // 15)
    fitted = veil.Veil(radius=60, grid=grid).fit(names(3), key)
    out = fitted.apply(images, np.arange(3), list("abc"))
    for n in range(3):
        assert np.abs(out[n] - as_defined(images[n], fitted.points[n])).max() < off


@pytest.mark.parametrize("level", [-60, -33.4, -1, 7, 59.9, 60])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_black_stays_black_and_white_white_and_what_is_brighter_brighter(dtype, level):
    full = np.iinfo(dtype).max
    ramp = np.arange(full + 1, dtype=dtype)[None, None, :, None].repeat(3, 3)
    out = veil.ClasswiseVeil(["a"], np.full((1, 3, 3, 3), int(level * 1024))).apply(ramp, np.array([0]), ["a"])
    assert (out[0, 0, 0] == 0).all()
    assert (out[0, 0, -1] == full).all()
    assert (np.diff(out.astype(int), axis=2) >= 0).all()
    assert np.abs(out[0, 0, full // 2] - (127.5 + level) * (full / 255)).max() < 1


def test_light_goes_both_ways_and_seven_tenths_are_common_to_all_channels(key):
    light = np.stack([veil.draw_points(key.stream("many", str(n)), 8) for n in range(200)]) / 10240
    assert np.abs(light).max() <= 1
    assert light.mean() == pytest.approx(0, abs=0.01)
    assert light.std() == pytest.approx(((0.7**2 + 0.3**2) / 3) ** 0.5, abs=0.01)  # of even numbers from -1 to 1
    assert np.corrcoef(light[:, :, :4].reshape(-1, 3).T)[0, 1] == pytest.approx(0.7**2 / (0.7**2 + 0.3**2), abs=0.02)


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("grid", [3, 4, 8])
def test_brightness_is_kept_apart(grid, classes):
    for seed in range(5):
        fitted = veil.Veil(radius=60, grid=grid).fit(names(classes), Key(bytes([seed] * 32)))
        light = fitted.points.mean(3) / 1024 / 60
        for n in range(classes - 1):
            nearest = np.sqrt(((light[n + 1 :] - light[n]) ** 2).mean((1, 2))).min()
            assert nearest >= veil.default_distance(grid, classes) - 1e-4


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
        noisy = (smooth[n] + as_loud).clip(0, 255).astype(np.uint8)
        assert quality.ssim(smooth[n], out[n]) > quality.ssim(smooth[n], noisy) + 0.1
        assert quality.psnr(smooth[n], back[n]) > 47


def test_grey_pictures_that_were_stored_as_colours_come_back(key, rng):
    grey = np.kron(rng.integers(0, 256, (3, 4, 4, 1), dtype=np.uint8), np.ones((1, 6, 6, 1), np.uint8))
    fitted = veil.Veil().fit(names(3), key)
    out, traces = fitted.apply_traced(grey, np.arange(3), list("abc"))
    back = fitted.restore(np.repeat(out, 3, axis=3), np.arange(3), list("abc"), traces)
    assert quality.psnr(back, np.repeat(grey, 3, axis=3)) > 47


@pytest.mark.parametrize("strip", [1, 60])
def test_strips_of_a_picture_come_back_as_the_whole(strip, key, rng, monkeypatch):
    images = rng.integers(0, 256, (2, 9, 7, 4), dtype=np.uint8)
    fitted = veil.Veil().fit(names(2), key)
    whole = fitted.restore(images, np.arange(2), ["a", "b"], np.zeros(2))
    monkeypatch.setattr(veil, "_STRIP", strip)
    assert np.array_equal(fitted.restore(images, np.arange(2), ["a", "b"], np.zeros(2)), whole)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_is_almost_black_or_white_comes_back_nearby(dtype, key):
    full = np.iinfo(dtype).max
    ramp = np.arange(full + 1, dtype=dtype)[None, :, None].repeat(3, 2)
    images = np.broadcast_to(ramp, (3, 5, *ramp.shape[1:])).copy()
    fitted = veil.Veil(radius=60).fit(names(3), key)
    out, traces = fitted.apply_traced(images, np.arange(3), list("abc"))
    back = fitted.restore(out, np.arange(3), list("abc"), traces)
    assert np.abs(back.astype(int) - images).max() <= 8.5  # half a level, where a curve rises by 1 - 4 x 60 / 255 alone


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
    assert fitted.digests()["1"] == "3fb55afdd82ac12ffc1f6e695d2725a13262a7222ee890f582879d320078af06"
    images = np.arange(3 * 40 * 17 * 3, dtype=np.uint32).reshape(3, 40, 17, 3)
    for dtype, digest in (
        (np.uint8, "604b56a36b3ab726bb42b25c412e04179c6c6c95fa9209d14e94ea4c97da41ff"),
        (np.uint16, "7e054fa69dbb4607b4de77ee08e1857b1d676390730bd0288931b28493192339"),
    ):
        full = np.iinfo(dtype).max
        out = fitted.apply((images * 40503 % (full + 1)).astype(dtype), np.arange(3), list("abc"))
        assert hashlib.sha256(out.tobytes()).hexdigest() == digest


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        *(({"radius": radius}, "a radius of 4 to 60 whole grey levels") for radius in (3, 61, 4.5)),
        *(({"grid": grid}, "a grid of 3 to 8 points a side") for grid in (2, 9, 3.5)),
    ],
)
def test_values_out_of_range(options, wanted):
    with pytest.raises(InputError, match=wanted):
        veil.Veil(**options)


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((2, 3, 3, 3), np.int64),
        np.zeros((1, 3, 4, 3), np.int64),
        np.zeros((1, 2, 2, 3), np.int64),
        np.zeros((1, 9)),
        np.zeros((1, 3, 3, 3)),
        np.full((1, 3, 3, 3), -61 * 1024),
    ],
)
def test_a_file_with_other_points_is_refused(points, tmp_path):
    veil.ClasswiseVeil(["a"], points).save(tmp_path / "veil")
    with pytest.raises(InputError, match="veils written by this package"):
        veil.ClasswiseVeil.load(tmp_path / "veil")
