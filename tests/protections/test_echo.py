"""Echo, against the definition written out slowly."""

import hashlib
import itertools

import numpy as np
import pytest

from tests.conftest import draw_picture
from unlearnable import InputError, Key
from unlearnable.countermeasures import echo_removal
from unlearnable.pictures import quality
from unlearnable.protections import echo, protections
from unlearnable.protections.echo import ClasswiseEcho, Echo, default_distance, distances_to

NAMES = ("ant", "bee", "cow")


class Names:
    class_names = NAMES


class Many:
    class_names = tuple(map(str, range(10)))


def as_defined(image, displacement, share):
    """Every sample and the one its echo is of, found in the picture repeated in mirrors."""
    height, width, _ = image.shape
    down, across = (int(np.floor(part * min(height, width) / 1024 + 0.5)) for part in displacement)
    tiled = np.pad(image, ((9 * height, 9 * height), (9 * width, 9 * width), (0, 0)), mode="reflect").astype(int)
    top, left = 9 * height - down, 9 * width - across
    echo = tiled[top : top + height, left : left + width]
    return (image * (256 - share) + echo * share + 128) // 256


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(32, 32, 3), (19, 40, 1), (40, 19, 4), (2, 30, 3), (1, 1, 3)])
def test_pictures_are_exposed_twice_as_defined(shape, dtype, key, rng):
    images = rng.integers(0, np.iinfo(dtype).max + 1, (3, *shape), dtype)
    fitted = Echo(strength=0.3).fit(Names, key)
    out = fitted.apply(images, np.arange(3), ["a", "b", "c"])
    for n in range(3):
        assert np.array_equal(out[n], as_defined(images[n].astype(int), fitted.displacements[n], 77))


@pytest.mark.parametrize("strip", [1, 50, 200])
def test_strips_of_a_picture_are_exposed_as_the_whole(strip, key, rng, monkeypatch):
    images = rng.integers(0, 256, (3, 19, 12, 3), np.uint8)
    fitted = Echo().fit(Names, key)
    whole = fitted.apply(images, np.arange(3), "abc")
    monkeypatch.setattr(echo, "_STRIP", strip)
    assert np.array_equal(fitted.apply(images, np.arange(3), "abc"), whole)


@pytest.mark.parametrize("strength", [0.01, 0.25, 0.4])
@pytest.mark.parametrize("size", [(32, 32), (70, 51)])
def test_pictures_come_back(size, strength, key, rng):
    images = np.stack([np.asarray(draw_picture(rng, *size)) for _ in range(3)])
    fitted = Echo(strength=strength).fit(Names, key)
    out, traces = fitted.apply_traced(images, np.arange(3), ["a", "b", "c"])
    back = fitted.restore(out, np.arange(3), ["a", "b", "c"], traces)
    for n in range(3):
        assert quality.psnr(images[n], back[n]) > (45 if strength < 0.4 else 40)


def test_sixteen_bits_come_back_finer(key, rng):
    images = np.stack([np.asarray(draw_picture(rng, 40, 30)) for _ in range(3)]).astype(np.uint16) * 257
    fitted = Echo().fit(Names, key)
    back = fitted.restore(fitted.apply(images, np.arange(3), "abc"), np.arange(3), "abc", np.zeros(3))
    assert np.abs(back.astype(int) - images).max() <= 2


def test_displacements_keep_their_distance_mirrored_and_opposite(key):
    for seed in range(20):
        displacements = Echo().fit(Many, Key(bytes([seed] * 32))).displacements
        lengths = np.hypot(*displacements.T) / 1024
        assert (lengths >= echo_removal._NEAREST).all()
        assert (lengths <= echo_removal._FURTHEST).all()
        for one, other in itertools.combinations(displacements, 2):
            for turned in itertools.product((1, -1), repeat=2):
                assert np.hypot(*(one - turned * other)) / 1024 >= 0.9 * default_distance(10)
    assert distances_to(np.array([[3.0, 4.0], [-3.0, -4.0], [3.0, -4.0]]), np.array([-3.0, 4.0])).max() == 0


def test_the_order_of_classes_and_the_strength_leave_displacements_alone(key):
    class Turned:
        class_names = NAMES[::-1]

    displacements = Echo().fit(Names, key).displacements
    assert np.array_equal(Echo(strength=0.1).fit(Turned, key).displacements, displacements[::-1])
    assert not np.array_equal(Echo().fit(Names, Key(bytes(32))).displacements, displacements)


@pytest.mark.parametrize("count", [20, 100, 1000])
def test_many_classes_keep_all_of_their_distance(count, key):
    class Lots:
        class_names = tuple(map(str, range(count)))

    displacements = Echo().fit(Lots, key).displacements.astype(float)
    nearest = [distances_to(displacements[:n], displacements[n]).min() for n in range(1, count)]
    assert min(nearest) >= default_distance(count)


def test_bytes_are_pinned_for_ever():
    images = (np.arange(3 * 24 * 20 * 3) * 89 % 256).astype(np.uint8).reshape(3, 24, 20, 3)
    out = Echo().fit(Names, Key(bytes(32))).apply(images, np.arange(3), "abc")
    assert hashlib.sha256(out.tobytes()).hexdigest()[:16] == "ed12b7fffbb2540a"


def test_written_and_read(tmp_path, key, rng):
    fitted = Echo(strength=0.1).fit(Names, key)
    fitted.save(tmp_path / "echo")
    again = ClasswiseEcho.load(tmp_path / "echo")
    images = rng.integers(0, 256, (3, 20, 20, 3), dtype=np.uint8)
    assert np.array_equal(again.apply(images, np.arange(3), "abc"), fitted.apply(images, np.arange(3), "abc"))
    assert again.digests() == fitted.digests() != Echo().fit(Names, key).digests()
    (tmp_path / "echo").write_bytes(b"something")
    with pytest.raises(InputError, match="echoes written by this package"):
        ClasswiseEcho.load(tmp_path / "echo")


def test_weaker():
    assert Echo(strength=0.4).scaled(0.5) == Echo(strength=0.2)
    assert Echo(strength=0.02).scaled(0.1) == Echo(strength=0.01)


@pytest.mark.parametrize("strength", [0, 0.009, 0.41, float("nan")])
def test_values_out_of_range(strength):
    with pytest.raises(InputError, match=r"a strength from 0\.01 to 0\.4, found"):
        protections.create("echo", strength=strength)
