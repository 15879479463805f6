"""Tone, against the formula written out slowly."""

import hashlib

import numpy as np
import pytest

from unlearnable import InputError, Key
from unlearnable.pictures import quality
from unlearnable.protections import protections, tone
from unlearnable.protections.tone import ClasswiseTone, Look, Tone, default_distance, distances_to, response

NAMES = ("ant", "bee", "cow")


class Names:
    class_names = NAMES


def as_defined(image, look):
    """Gamma, mix, shade in floating point, pixel by pixel."""
    full = np.iinfo(image.dtype).max
    height, width, _ = image.shape
    grid = len(look.shade)
    out = np.empty(image.shape)
    for i in range(height):
        for j in range(width):
            y, x = i * (grid - 1) / (height - 1), j * (grid - 1) / (width - 1)
            top, left = min(int(y), grid - 2), min(int(x), grid - 2)
            a, b = y - top, x - left
            light = (
                (1 - a) * (1 - b) * look.shade[top, left]
                + (1 - a) * b * look.shade[top, left + 1]
                + a * (1 - b) * look.shade[top + 1, left]
                + a * b * look.shade[top + 1, left + 1]
            ) / 4096
            out[i, j] = light * (look.mix / 1024) @ (image[i, j] / full) ** look.gamma
    return out * full


@pytest.mark.parametrize(("dtype", "off"), [(np.uint8, 0.6), (np.uint16, 80)])
@pytest.mark.parametrize("grid", [2, 5])
def test_pictures_look_as_defined(dtype, off, grid, key, rng):
    images = rng.integers(0, np.iinfo(dtype).max + 1, (3, 11, 17, 3), dtype)
    fitted = Tone(strength=0.8, grid=grid).fit(Names, key)
    out = fitted.apply(images, np.arange(3), ["a", "b", "c"])
    for n in range(3):
        assert np.abs(out[n] - as_defined(images[n], fitted.looks[n])).max() < off


def test_white_in_the_light_stays_white_and_black_stays_black(key):
    images = np.stack([np.zeros((9, 9, 3), np.uint8), np.full((9, 9, 3), 255, np.uint8)])
    fitted = Tone(strength=1).fit(Names, key)
    black, white = fitted.apply(images, np.array([1, 1]), ["a", "b"])
    assert not black.any()
    assert white.max() == 255


def test_pictures_come_back(key, rng):
    smooth = np.kron(rng.integers(0, 256, (3, 4, 4, 3), dtype=np.uint8), np.ones((1, 8, 8, 1), np.uint8))
    fitted = Tone().fit(Names, key)
    out, traces = fitted.apply_traced(smooth, np.arange(3), ["a", "b", "c"])
    back = fitted.restore(out, np.arange(3), ["a", "b", "c"], traces)
    for n in range(3):
        assert quality.psnr(smooth[n], out[n]) < 30
        assert quality.psnr(smooth[n], back[n]) > 45


def test_grey_pictures_take_greens_curve(key, rng):
    grey = rng.integers(0, 256, (1, 9, 8, 1), dtype=np.uint8)
    fitted = Tone().fit(Names, key)
    gamma, _, shade = fitted.looks[0]
    alike = Look(gamma[[1, 1, 1]], 1024 * np.eye(3, dtype=np.int64), shade)
    coloured = ClasswiseTone(NAMES, [alike] * 3).apply(grey.repeat(3, 3), np.array([0]), ["a"])
    assert np.array_equal(fitted.apply(grey, np.array([0]), ["a"]), coloured[..., :1])


def test_grey_pictures_that_were_stored_as_colours_come_back(key, rng):
    grey = np.kron(rng.integers(0, 256, (3, 4, 4, 1), dtype=np.uint8), np.ones((1, 6, 6, 1), np.uint8))
    fitted = Tone().fit(Names, key)
    out, traces = fitted.apply_traced(grey, np.arange(3), ["a", "b", "c"])
    stored = np.repeat(out, 3, axis=3)
    back = fitted.restore(stored, np.arange(3), ["a", "b", "c"], traces)
    assert np.array_equal(back, np.repeat(fitted.restore(out, np.arange(3), ["a", "b", "c"], traces), 3, axis=3))
    assert quality.psnr(back, np.repeat(grey, 3, axis=3)) > 45


def test_the_black_of_cmyk_is_left_alone(key, rng):
    images = rng.integers(0, 256, (1, 9, 8, 4), dtype=np.uint8)
    out = Tone().fit(Names, key).apply(images, np.array([0]), ["a"])
    assert np.array_equal(out[..., 3], images[..., 3])
    assert (out[..., :3] != images[..., :3]).any()


@pytest.mark.parametrize("classes", [10, 60])
@pytest.mark.parametrize(
    "tone",
    [Tone(strength=0.5), Tone(strength=0.01, mix=0.15, gamma=0.7), Tone(strength=0.01, mix=0, gamma=0.7)],
    ids=["strength", "mix and gamma", "gamma"],
)
def test_classes_are_kept_apart(tone, classes):
    for seed in range(5):

        class Many:
            class_names = tuple(map(str, range(classes)))

        looks = tone.fit(Many, Key(bytes([seed] * 32))).looks
        responses = np.stack([response(look) for look in looks])
        nearest = min(distances_to(responses[n + 1 :], responses[n]).min() for n in range(classes - 1))
        assert nearest >= default_distance(tone, classes)


def test_a_mirrored_look_is_the_same_look(key):
    look = Tone(grid=3).fit(Names, key).looks[0]
    mirrored = look._replace(shade=look.shade[:, ::-1])
    assert distances_to(response(look)[None], response(mirrored))[0] == 0
    darker = look._replace(shade=look.shade // 2)
    assert distances_to(response(look)[None], response(darker))[0] > 0.1


@pytest.mark.parametrize("strip", [1, 20, 10**6])
def test_strips_of_a_picture_come_back_as_the_whole(strip, key, rng, monkeypatch):
    images = rng.integers(0, 256, (2, 9, 7, 4), dtype=np.uint8)
    fitted = Tone(strength=0.3, grid=3).fit(Names, key)
    monkeypatch.setattr(tone, "_STRIP", strip)
    back = fitted.restore(images, np.arange(2), ["a", "b"], np.zeros(2))
    for n, (gamma, mix, _) in enumerate(fitted.looks[:2]):
        light = as_defined(np.full((9, 7, 3), 255, np.uint8), fitted.looks[n]) / 255  # of what is white
        mixed = (images[n, ..., :3] / 255 / light) @ np.linalg.inv(mix / 1024).T
        wanted = np.concatenate([mixed.clip(0, 1) ** (1 / gamma) * 255, images[n, ..., 3:]], 2)
        assert np.abs(back[n] - wanted).max() < 1


def test_looks_are_pinned_for_ever():
    """Digests are compared when a folder is unlocked, so they have to be the same on every machine."""
    fitted = Tone(strength=0.4, grid=3).fit(Names, Key(bytes(32)))
    assert fitted.digests()["bee"] == "a16f6a99f3b8d7db46c07bc3f686496fcc2140b63970f9961230ee4207b1088b"
    images = np.arange(3 * 40 * 17 * 3, dtype=np.uint32).reshape(3, 40, 17, 3)
    for dtype, digest in (
        (np.uint8, "ac50ffadb4534e87db2c4bcadeac7dab189afd4e6724e5ec965e67f191c462b7"),
        (np.uint16, "52a2cd3901c2b14ece291cd97a164542f45eecd7d22fdd401f91c328cb9f02ec"),
    ):
        full = np.iinfo(dtype).max
        out = fitted.apply((images * 40503 % (full + 1)).astype(dtype), np.arange(3), ["a", "b", "c"])
        assert hashlib.sha256(out.tobytes()).hexdigest() == digest


def test_what_ten_classes_keep_apart_is_pinned_too():
    class Ten:
        class_names = tuple("abcdefghij")

    own = {"strength": 0.01, "mix": 0.15, "gamma": 0.7}
    for options, digest in (
        ({"strength": 0.36}, "ae9f1f76237cf358103144f6d9d0a0ac39f1df45aef9f3fe017ebeb6d01ae434"),
        (own, "bf1b0630721b6548eb7ede22e5359203ac67c32128fd322f0215ebccf49e5a1a"),
    ):
        found = Tone(**options).fit(Ten, Key(bytes([1]) * 32)).digests()
        assert hashlib.sha256("".join(found.values()).encode()).hexdigest() == digest


def test_gammas_do_not_depend_on_last_digits(key):
    gammas = np.stack([look.gamma for look in Tone().fit(Names, key).looks])
    assert (gammas * 2**20 % 1 == 0).all()


@pytest.mark.parametrize("off", [-1, 0, 1])
def test_curves_do_not_depend_on_last_digits(off, monkeypatch):
    # One of few powers that lie so near the middle between two parts that machines may round it differently.
    gamma, sample = 732778 / 2**20, 23476
    power = np.power
    monkeypatch.setattr(np, "power", lambda *some: power(*some) * (1 + 4 * off * np.finfo(float).eps))
    curves = tone._curves.__wrapped__  # that keeps none
    assert curves((gamma,), 65535)[0, sample] == 8187282
    monkeypatch.setattr(tone, "_IN_DOUBT", 1)
    assert np.array_equal(curves((gamma,), 255)[0], np.rint(power(np.arange(256) / 255, gamma) * 65280))


def test_a_share_too_small_gives_the_weakest_look():
    assert Tone(strength=0.02).scaled(0.1) == Tone(strength=0.01)


def test_mixes_and_gammas_may_have_a_strength_of_their_own(key):
    for look in Tone(strength=0.4, mix=0, gamma=0).fit(Names, key).looks:
        assert (look.gamma == 1).all()
        assert np.array_equal(look.mix, 1024 * np.eye(3))
        assert 4096 * 0.64 <= look.shade.min() < 4096 * 0.95
    looks = Tone(strength=0.01, mix=0.5, gamma=1.2).fit(Names, key).looks
    assert all(look.shade.min() > 4096 * 0.99 for look in looks)
    assert 450 < max((1024 - np.diag(look.mix)).max() for look in looks) <= 512
    assert 1.5 < max(np.exp2(np.abs(np.log2(look.gamma))).max() for look in looks) <= 2.3
    tone = Tone(strength=0.4, mix=0.3, gamma=0.2)
    assert tone.scaled(0.5) == Tone(strength=0.2, mix=0.15, gamma=0.1)
    assert protections.create("tone", **tone.parameters()) == tone


@pytest.mark.parametrize(
    "options",
    [
        *({"strength": 0}, {"strength": 0.009}, {"strength": 1.1}, {"grid": 1}, {"grid": 9}),
        *({"mix": -0.1}, {"mix": 0.51}, {"mix": float("nan")}, {"gamma": -0.1}, {"gamma": 1.3}),
    ],
)
def test_values_out_of_range(options):
    with pytest.raises(InputError, match=r"default|leave it out"):
        protections.create("tone", **options)


@pytest.mark.parametrize(
    "wrong",
    [
        {"gamma": np.array([1.0, 0.0, 1.0])},
        {"gamma": np.array([1.0, np.nan, 1.0])},
        {"gamma": np.ones(2)},
        {"mix": np.eye(3, dtype=np.int64)},
        {"mix": 1024 * np.eye(3)},
        {"mix": np.array([[2048, -1024, 0], [0, 1024, 0], [0, 0, 1024]])},
        {"shade": np.full((2, 2), 4097)},
        {"shade": np.zeros((2, 2), np.int64)},
        {"shade": np.full((2, 3), 4096)},
        {"shade": np.full((1, 1), 4096)},
    ],
)
def test_a_file_with_other_looks_is_refused(wrong, tmp_path):
    look = tone.Look(np.ones(3), 1024 * np.eye(3, dtype=np.int64), np.full((2, 2), 4096))
    tone.ClasswiseTone(["a"], [look]).save(tmp_path / "looks")
    assert tone.ClasswiseTone.load(tmp_path / "looks").class_names == ("a",)
    tone.ClasswiseTone(["a"], [look._replace(**wrong)]).save(tmp_path / "looks")
    with pytest.raises(InputError, match="looks written by this package"):
        tone.ClasswiseTone.load(tmp_path / "looks")
