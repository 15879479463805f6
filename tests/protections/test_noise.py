"""Noise on pictures of any size: inside its radius, off again exactly, from a file larger than memory if need be."""

import pickle
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from torch.nn import functional

from unlearnable.errors import InputError
from unlearnable.pictures.samples import square
from unlearnable.protections import tensors
from unlearnable.protections.noise import Noise, added, carried, check_room
from unlearnable.protections.tensors import write_tensors

NAMES = ("ant", "bee")
IDS = ("a.png", "b.png", "c.png")


@pytest.fixture
def made(rng):
    patterns, by_class = (rng.integers(-8, 9, (count, 16, 16, 3)).astype(np.int8) for count in (3, 2))
    return Noise(NAMES, IDS, patterns, by_class, radius=8, method="SEM")


def test_a_picture_of_the_canvas_gets_its_pattern_as_it_is(made, rng):
    images = rng.integers(0, 256, (3, 16, 16, 3)).astype(np.uint8)
    out = made.apply(images, np.array([0, 1, 0]), IDS)
    assert np.array_equal(out, (images + made.patterns.astype(int)).clip(0, 255))


def test_a_picture_that_is_not_known_gets_the_noise_of_its_class(made, rng):
    images = rng.integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    out = made.apply(images, np.array([1, 0]), ["new", "b.png"])
    assert np.array_equal(out[0], (images[0] + made.by_class[1].astype(int)).clip(0, 255))
    assert np.array_equal(out[1], (images[1] + made.patterns[1].astype(int)).clip(0, 255))


def test_a_picture_of_a_class_without_noise_is_refused(made, rng):
    made.by_class[1] = 0
    images = rng.integers(0, 256, (1, 16, 16, 3)).astype(np.uint8)
    with pytest.raises(InputError, match="expected noise for 'new' of the class 'bee', found none"):
        made.apply(images, np.array([1]), ["new"])
    assert (made.apply(images, np.array([1]), ["b.png"]) != images).any()  # it has noise of its own


@pytest.mark.parametrize("shape", [(40, 40, 3), (48, 31, 3), (25, 100, 3), (9, 11, 3), (64, 64, 1)])
def test_radius_holds_at_every_size(made, rng, shape):
    image = rng.integers(0, 256, (1, *shape)).astype(np.uint8)
    out = made.apply(image, np.array([0]), ["a.png"])
    change = out.astype(int) - image
    assert 0 < abs(change).max() <= 8
    wide = image.astype(np.uint16) * 257
    assert abs(made.apply(wide, np.array([0]), ["a.png"]).astype(int) - wide).max() <= 8 * 257


def test_square_pictures_get_the_pattern_scaled_bilinearly(made):
    """Against torch, which interpolates in the same way when it enlarges."""
    planes = torch.from_numpy(made.patterns[:1].astype(np.float32)).permute(0, 3, 1, 2)
    wanted = functional.interpolate(planes, (40, 40), mode="bilinear", align_corners=False, antialias=True)
    found = carried(made.patterns[0], (40, 40, 3))
    assert abs(found - wanted[0].permute(1, 2, 0).numpy()).max() <= 0.5 + 1e-3  # but for rounding


@pytest.mark.parametrize("shape", [(40, 60), (427, 640), (16, 17), (9, 5), (5, 30), (1, 7)])
def test_patterns_are_scaled_as_pillow_does(rng, shape):
    """Enlarged, to the last bit; scaled down but for ties, since Pillow's sums have no order that is promised."""
    pattern = rng.integers(-127, 128, (16, 16, 3)).astype(np.int8)
    side, scaled = min(shape), [16 * length // min(shape) for length in shape]
    margins = [((length - 16) // 2, length - 16 - (length - 16) // 2) for length in scaled]
    whole = np.pad(pattern, [*margins, (0, 0)], mode="symmetric").astype(np.float32)
    planes = [Image.fromarray(np.ascontiguousarray(whole[..., c])) for c in range(3)]
    exact = np.stack([plane.resize(shape[::-1], Image.Resampling.BILINEAR) for plane in planes], -1)
    found = carried(pattern, (*shape, 3))
    assert np.array_equal(found, np.rint(exact)) if side >= 16 else abs(found - exact).max() < 0.5 + 1e-4


def test_the_smallest_pictures_come_through(made):
    image = np.full((1, 1, 7, 3), 9, np.uint8)
    assert abs(made.apply(image, np.array([0]), ["a.png"]).astype(int) - 9).max() <= 8


@pytest.mark.parametrize("shape", [(64, 48), (48, 80), (48, 48)])
def test_scaled_down_as_for_training_the_pattern_is_where_it_was_made(rng, shape):
    """A smooth pattern, so that scaling up and down loses little of it."""
    coarse = torch.from_numpy(rng.uniform(-100, 100, (1, 3, 4, 4)))
    smooth = functional.interpolate(coarse, (16, 16), mode="bicubic").clamp(-100, 100)[0].permute(1, 2, 0)
    pattern = smooth.round().numpy().astype(np.int8)
    grey = np.full((*shape, 3), 128, np.uint8)
    seen = square(added(grey, carried(pattern, grey.shape)), 16).astype(int) - 128
    assert abs(seen - pattern).mean() < 4
    assert np.corrcoef(seen.ravel(), pattern.ravel())[0, 1] > 0.99


def test_black_of_cmyk_is_left_alone_and_grey_takes_the_mean(made):
    pattern = made.patterns[0]
    cmyk = carried(pattern, (16, 16, 4))
    assert np.array_equal(cmyk[..., :3], pattern)
    assert not cmyk[..., 3].any()
    assert np.array_equal(carried(pattern, (16, 16, 1))[..., 0], np.rint(pattern.mean(2)))
    assert np.array_equal(carried(pattern[..., :1], (16, 16, 3)), np.repeat(pattern[..., :1], 3, 2))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(16, 16, 3), (30, 21, 3), (16, 16, 1)])
def test_noise_comes_off_exactly(made, rng, dtype, shape):
    full = np.iinfo(dtype).max
    images = rng.integers(0, full + 1, (3, *shape)).astype(dtype)
    images[0] = rng.choice([0, 1, full - 1, full], shape)  # nearly all of it cut off
    images[1, :5] = full
    labels = np.array([0, 1, 0])
    out, traces = made.apply_traced(images, labels, IDS)
    assert np.array_equal(made.restore(out, labels, IDS, traces), images)
    without = made.restore(out, labels, IDS, np.full(3, None))
    assert not np.array_equal(without, images)
    assert abs(without.astype(int) - images).max() <= 8 * (full // 255)
    part = slice(2, 9), slice(4, 16)
    for n, id_ in enumerate(IDS):
        cut = (out[n][part] == 0) | (out[n][part] == full)
        seen = made.before(out[n], labels[n].item(), id_, part)
        assert np.array_equal(seen, np.where(cut, out[n][part], images[n][part]))


def test_grey_that_was_stored_as_colour_comes_off_exactly(made, rng):
    images = rng.integers(0, 256, (2, 20, 16, 1)).astype(np.uint8)
    out, traces = made.apply_traced(images, np.array([0, 1]), IDS[:2])
    back = made.restore(out.repeat(3, axis=3), np.array([0, 1]), IDS[:2], traces)
    assert np.array_equal(back, images.repeat(3, axis=3))


def test_colours_that_noise_made_black_come_back_exactly():
    patterns = np.tile(np.array([-4, -6, -5], np.int8), (1, 8, 8, 1))
    noise = Noise(("ant",), ("a",), patterns, patterns, radius=8, method="SEM")
    images = np.tile(np.array([3, 2, 0], np.uint8), (1, 8, 8, 1))
    black, traces = noise.apply_traced(images, np.array([0]), ["a"])
    assert not black.any()  # as a grey picture is stored
    assert np.array_equal(noise.restore(black, np.array([0]), ["a"], traces), images)


def test_a_trace_of_more_than_the_picture_is_of_another_one():
    patterns = np.full((1, 8, 8, 3), -4, np.int8)
    noise = Noise(("ant",), ("a",), patterns, patterns, radius=8, method="SEM")
    black = np.zeros((1, 8, 8, 3), np.uint8)
    _, unknown = noise.apply_traced(np.full_like(black, 9), np.array([0]), ["a"])  # nothing was cut off
    wanted = noise.restore(black, np.array([0]), ["a"], unknown)
    traces = np.array([zlib.compress(bytes(1 << 24))], object)
    tracemalloc.start()
    found = noise.restore(black, np.array([0]), ["a"], traces)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(found, wanted)
    assert most < 1 << 22  # all of it is 16 MiB


@pytest.mark.parametrize("channels", [1, 3])
def test_noise_made_for_grey_pictures_comes_off_exactly_whatever_they_are_stored_as(made, rng, channels):
    """Grey pictures as colours, protected as what they are: they are no other after that."""
    of_grey = Noise(NAMES, IDS, made.patterns[..., :1], made.by_class[..., :1], radius=8, method="SEM")
    images = rng.choice([0, 3, 128, 252, 255], (2, 20, 16, 1)).astype(np.uint8).repeat(channels, axis=3)
    out, traces = of_grey.apply_traced(images, np.array([0, 1]), IDS[:2])
    stored = out if channels == 3 else out.repeat(3, axis=3)
    back = of_grey.restore(stored, np.array([0, 1]), IDS[:2], traces)
    assert np.array_equal(back, images if channels == 3 else images.repeat(3, axis=3))


def test_a_large_picture_takes_few_bytes_a_sample(made):
    image = np.full((1, 700, 900, 3), 250, np.uint8)
    tracemalloc.start()
    made.apply_traced(image, np.array([0]), ["a.png"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * image.size


def test_a_share_of_the_noise_comes_off(made, rng):
    images = rng.integers(20, 230, (1, 16, 16, 3)).astype(np.uint8)
    back = made.restore(images, np.array([0]), IDS[:1], np.array([0.5], object))
    assert np.array_equal(back[0], np.rint(images[0] - made.patterns[0] / 2))


def test_what_has_to_be_written_down_is_little(made):
    white = np.full((1, 16, 16, 3), 255, np.uint8)
    middle = np.full((1, 16, 16, 3), 128, np.uint8)
    record, nothing = (made.apply_traced(image, np.array([0]), ["a.png"])[1][0] for image in (white, middle))
    assert len(record) < 30  # of 768 samples
    assert nothing == b""


def test_a_record_that_does_not_fit_is_passed_over(made, rng):
    """Pictures stored with loss come back as near as they can."""
    images = rng.integers(0, 256, (1, 16, 16, 3)).astype(np.uint8)
    out, traces = made.apply_traced(images, np.array([0]), ["a.png"])
    stored = (out.astype(int) + 1).clip(0, 255).astype(np.uint8)
    back = made.restore(stored, np.array([0]), ["a.png"], traces)
    assert abs(back.astype(int) - images).max() <= 9


def test_file_is_safetensors_and_mapped(made, tmp_path, monkeypatch):
    monkeypatch.setattr(tensors, "_CHUNK", 700)  # less than a picture
    path = tmp_path / "noise.safetensors"
    made.save(path)
    assert path.stat().st_mode & 0o077 == 0
    assert np.array_equal(load_file(path)["noise"], made.patterns)  # as the library reads it
    loaded = Noise.load(path)
    assert isinstance(loaded.patterns, np.memmap)
    assert not loaded.patterns.flags.writeable
    assert (loaded.ids, loaded.class_names, loaded.radius, loaded.method) == (IDS, NAMES, 8, "SEM")
    assert np.array_equal(loaded.patterns, made.patterns)
    assert np.array_equal(loaded.by_class, made.by_class)
    sent = pickle.dumps(loaded)
    assert len(sent) < 300  # the name of the file
    assert np.array_equal(pickle.loads(sent).patterns, made.patterns)
    assert np.array_equal(pickle.loads(pickle.dumps(made)).patterns, made.patterns)
    assert list(tmp_path.iterdir()) == [path]


def test_noise_a_class_alone_is_saved_too(made, tmp_path):
    Noise(NAMES, IDS, made.patterns[:0], made.by_class, radius=8, method="EM").save(tmp_path / "noise")
    loaded = Noise.load(tmp_path / "noise")
    assert loaded.patterns.shape == (0, 16, 16, 3)
    assert np.array_equal(loaded.pattern(1, "a.png"), made.by_class[1])


@pytest.mark.parametrize("content", [b"", b"something else", b"\0" * 100])
def test_any_other_file_is_refused(tmp_path, content):
    (tmp_path / "noise").write_bytes(content)
    with pytest.raises(InputError, match="expected noise written by this package"):
        Noise.load(tmp_path / "noise")
    with pytest.raises(InputError, match="expected noise written by this package"):
        Noise.load(tmp_path / "missing")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"classes": np.zeros((2, 16, 8, 3), np.int8)}, "int8 of 16 x 8 x 3, no square patterns"),
        ({"classes": np.zeros((2, 16, 16), np.int8)}, "int8 of 16 x 16, no square patterns"),
        ({"classes": np.zeros((2, 16, 16, 2), np.int8)}, "patterns of 2 channels"),
        ({"classes": np.zeros((2, 16, 16, 3), np.float32)}, "float32 of 16 x 16 x 3, no square patterns of int8"),
        ({"noise": np.zeros((3, 16, 16, 3), np.uint8)}, "no square patterns of int8"),
        ({"ids": np.frombuffer(b"[[1], 2, 3]", np.uint8)}, "names that are no text"),
        ({"ids": np.frombuffer(b"7", np.uint8)}, "not int"),
    ],
)
def test_a_file_of_other_patterns_is_refused(parts, message, made, tmp_path):
    whole = {"noise": made.patterns, "classes": made.by_class, "ids": np.frombuffer(b"[]", np.uint8)}
    about = {"format": "unlearnable-noise-1", "class_names": '["ant", "bee"]', "radius": "8", "method": "SEM"}
    write_tensors(tmp_path / "noise", whole | parts, about)
    with pytest.raises(InputError, match=rf"found .*noise \(.*{message}.*make it again"):
        Noise.load(tmp_path / "noise")


def test_parts_that_do_not_fit_are_refused(made):
    with pytest.raises(InputError, match="expected noise for 3 pictures of 16 x 16 x 3, found 2 of 16 x 16 x 3"):
        Noise(NAMES, IDS, made.patterns[:2], made.by_class, radius=8, method="SEM")
    with pytest.raises(InputError, match="expected noise for 3 pictures of 16 x 16 x 3, found 3 of 8 x 16 x 3"):
        Noise(NAMES, IDS, made.patterns[:, :8], made.by_class, radius=8, method="SEM")
    with pytest.raises(InputError, match="expected noise for 1 classes, found 2"):
        Noise(NAMES[:1], IDS, made.patterns, made.by_class, radius=8, method="SEM")


def test_digests_tell_noise_apart(made):
    before = made.digests()
    assert list(before) == list(NAMES)
    other = made.patterns.copy()
    other[2, 0, 0, 0] ^= 1
    assert Noise(NAMES, IDS, other, made.by_class, radius=8, method="SEM").digests() != before


def test_room_is_checked(tmp_path):
    check_room(tmp_path, 1)
    with pytest.raises(InputError, match=r"expected 1,000,000,000,000\.0 MB of room on the disk for the noise"):
        check_room(tmp_path, 10**18)
