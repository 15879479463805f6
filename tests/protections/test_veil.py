"""Veils, against linear interpolation written out in fractions."""

import hashlib
from fractions import Fraction
from math import floor

import numpy as np
import pytest

from unlearnable import InputError, Key
from unlearnable.pictures import quality
from unlearnable.protections import veil

spread = veil._spread


def names(count):
    return type("Names", (), {"class_names": tuple(map(str, range(count)))})


@pytest.mark.parametrize(("radius", "grid"), [(64, 3), (40, 4), (9, 7)])
def test_light_is_linear_between_its_points(radius, grid, key):
    fitted = veil.Veil(radius=radius, grid=grid).fit(names(1), key)
    points = veil.draw_points(key.stream("veil", "0", {"grid": grid}), grid)
    for i, j in ((0, 0), (31, 31), (0, 31), (5, 17), (16, 8), (30, 1)):
        y, x = Fraction(i * (grid - 1), 31), Fraction(j * (grid - 1), 31)
        top, left = min(int(y), grid - 2), min(int(x), grid - 2)
        a, b = y - top, x - left
        corners = points[top : top + 2, left : left + 2].astype(object)
        light = (corners * np.array([[(1 - a) * (1 - b), (1 - a) * b], [a * (1 - b), a * b]])[..., None]).sum((0, 1))
        expected = [floor(radius * channel / 10240 + Fraction(1, 2)) for channel in light]
        assert fitted.by_class[0, i, j].tolist() == expected


def test_light_goes_both_ways_and_seven_tenths_are_common_to_all_channels(key):
    light = np.stack([veil.draw_points(key.stream("many", str(n)), 8) for n in range(200)]) / 10240
    assert np.abs(light).max() <= 1
    assert light.mean() == pytest.approx(0, abs=0.01)
    assert light.std() == pytest.approx(((0.7**2 + 0.3**2) / 3) ** 0.5, abs=0.01)  # of even numbers from -1 to 1
    assert np.corrcoef(light[:, :, :4].reshape(-1, 3).T)[0, 1] == pytest.approx(0.7**2 / (0.7**2 + 0.3**2), abs=0.02)


@pytest.mark.parametrize("classes", [10, 60])
def test_brightness_is_kept_apart(classes, monkeypatch):
    points = []
    monkeypatch.setattr(veil, "_spread", lambda drawn, radius: points.append(drawn) or spread(drawn, radius))
    for seed in range(5):
        veil.Veil().fit(names(classes), Key(bytes([seed] * 32)))
        grey = veil.brightness(points.pop())
        for n in range(classes - 1):
            nearest = np.sqrt(((grey[n + 1 :] - grey[n]) ** 2).mean((1, 2))).min()
            assert nearest >= veil.default_distance(classes) - 1e-12


@pytest.mark.parametrize("grid", [3, 4, 7])
def test_in_the_mirror_it_is_the_same(grid, key):
    drawn = veil.Veil(grid=grid).fit(names(3), key).by_class
    assert np.array_equal(drawn, drawn[:, :, ::-1])
    assert not np.array_equal(drawn, drawn[:, ::-1])


@pytest.mark.parametrize("grid", [3, 4])
def test_even_the_faintest_veil_is_there(grid):
    for seed in range(30):
        assert veil.Veil(radius=4, grid=grid).fit(names(10), Key(bytes([seed] * 32))).by_class.any((1, 2, 3)).all()


def test_structure_costs_nothing_and_light_comes_back(key, rng):
    smooth = np.kron(rng.integers(90, 160, (3, 8, 8, 3), dtype=np.uint8), np.ones((1, 10, 10, 1), np.uint8))
    labels, ids = np.arange(3), list("abc")
    fitted = veil.Veil(radius=60, grid=3).fit(names(3), key)
    out, traces = fitted.apply_traced(smooth, labels, ids)
    for n in range(3):
        change = out[n].astype(int) - smooth[n]
        as_loud = rng.permutation(change.ravel()).reshape(change.shape)  # but without order
        assert quality.psnr(smooth[n], out[n]) < 27
        assert quality.ssim(smooth[n], out[n]) > 0.95
        assert quality.ssim(smooth[n], (smooth[n] + as_loud).clip(0, 255).astype(np.uint8)) < 0.8
    assert np.array_equal(fitted.restore(out, labels, ids, traces), smooth)


def test_a_weaker_veil_is_the_same_but_fainter(key):
    strong, faint = (veil.Veil(radius=radius).fit(names(2), key).by_class.astype(float) for radius in (60, 30))
    assert np.abs(strong / 2 - faint).max() <= 0.75
    assert veil.Veil(radius=60).scaled(0.5) == veil.Veil(radius=30)
    assert veil.Veil(radius=20).scaled(0.01) == veil.Veil(radius=4)


def test_veils_are_pinned_for_ever():
    grey = np.full((3, 50, 40, 3), 128, np.uint8)
    out = veil.Veil(radius=50, grid=3).fit(names(3), Key(bytes(32))).apply(grey, np.arange(3), list("abc"))
    assert (
        hashlib.sha256(out.tobytes()).hexdigest() == "f674f30f42b42779bd114c8506356e162ae22524c41bb33a2f2252cf936c96c3"
    )


@pytest.mark.parametrize("options", [{"radius": 3}, {"radius": 65}, {"radius": 2.5}, {"grid": 2}, {"grid": 9}])
def test_values_out_of_range(options):
    with pytest.raises(InputError, match="is the default"):
        veil.Veil(**options)
