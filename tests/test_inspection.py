"""What a data set looks like: simple models against slow ones, and sets made to look protected."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, uniform_filter
from scipy.signal import welch
from sklearn.linear_model import Ridge

from tests.conftest import in_process
from unlearnable import Key
from unlearnable.errors import InputError
from unlearnable.inspection import (
    Look,
    border_brightness,
    coarse,
    filter_share,
    fine,
    held_out,
    inspect,
    log_spectra,
    spectral_spread,
)
from unlearnable.pictures.dataset import Dataset
from unlearnable.protections.convolution import Convolution, ReferenceSeed

COUNT, SIDE = 360, 32
NAMES = ("a", "b", "c")


def noise_pictures(rng, count=COUNT, side=SIDE):
    """Coloured noise with the spectrum of photographs, each class shaded in a smooth way of its own."""
    rough = rng.normal(size=(count, side, side, 3))
    images = sum(scale * gaussian_filter(rough, (0, scale, scale, 0), mode="wrap") for scale in (0.5, 1, 2, 4, 8))
    labels = np.arange(count) % 3
    images += 0.12 * np.sin(np.linspace(0, 2 * np.pi, side)[:, None, None] + 2 * labels[:, None, None, None])
    return np.clip(110 + 45 * images, 0, 255).astype(np.uint8), labels


@pytest.fixture(scope="module")
def clean():
    images, labels = noise_pictures(np.random.default_rng(0))
    return Dataset(images, labels, NAMES, tuple(f"{NAMES[label]}/{n}" for n, label in enumerate(labels)))


def convolved(clean, key):
    fitted = Convolution().fit(clean, key)
    return replace(clean, images=fitted.apply(clean.images, clean.labels, clean.ids))


def added(clean, noise):
    return replace(clean, images=np.clip(clean.images.astype(int) + noise, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def sets(clean):
    rng = np.random.default_rng(1)
    half = np.arange(COUNT) % 2 == 0
    keyed = convolved(clean, Key(bytes(32)))
    return {
        "clean": clean,
        "convolved": keyed,
        "convolved, black borders": convolved(clean, ReferenceSeed(0)),
        "half convolved": replace(clean, images=np.where(half[:, None, None, None], keyed.images, clean.images)),
        "noise of a class": added(clean, rng.choice([-8, 8], (3, SIDE, SIDE, 3))[clean.labels]),
        "patches of a class": added(clean, rng.choice([-6, 6], (3, 4, 4, 3)).repeat(8, 1).repeat(8, 2)[clean.labels]),
        "noise of a picture": added(clean, rng.choice([-8, 8], clean.images.shape)),
    }


@pytest.mark.parametrize(
    ("name", "looks"),
    [
        ("clean", Look.none),
        ("convolved", Look.convolution),
        ("convolved, black borders", Look.convolution),
        ("noise of a class", Look.additive),
        ("noise of a picture", Look.none),
    ],
)
def test_looks(name, looks, sets):
    assert inspect(sets[name]).looks == looks


@pytest.mark.parametrize(
    ("name", "looks", "reason"),
    [
        ("clean", Look.none, "the pictures are the clean ones"),
        ("convolved", Look.convolution, "a filter for each class accounts for"),
        ("convolved, black borders", Look.convolution, "a filter for each class accounts for"),
        ("half convolved", Look.convolution, "50 % of the pictures differ"),
        ("noise of a class", Look.additive, "up to 8 grey levels"),
        ("patches of a class", Look.additive, "up to 6 grey levels"),
        ("noise of a picture", Look.none, "no simple model tells the classes by how they differ"),
    ],
)
def test_looks_beside_the_clean_ones(name, looks, reason, sets):
    order = np.random.default_rng(2).permutation(COUNT)  # pictures are matched by their ids
    found = inspect(sets[name].select(order), sets["clean"])
    assert found.looks == looks
    assert reason in " ".join(found.reasons)


def test_borders_and_range_of_a_convolution(sets):
    dark, keyed, clean = (inspect(sets[name]) for name in ("convolved, black borders", "convolved", "clean"))
    assert min(dark.borders) < 0.7
    assert min(keyed.borders) > 0.9
    assert any("of the brightness of those further in" in reason for reason in dark.reasons)
    assert keyed.full_range == 1
    assert clean.full_range < 1
    assert keyed.spectral_distance > 1.3 * clean.spectral_distance


def test_the_linear_model_is_ridge_regression(rng):
    features = rng.normal(size=(80, 30)) * rng.uniform(0.1, 9, 30) + rng.normal(size=30)
    features[:, 7] = 3  # says nothing
    labels = rng.integers(0, 3, 80)
    features[:, :3] += np.eye(3)[labels] * 40
    order = np.random.default_rng(0).permutation(80)
    train, test = order[:40], order[40:]
    scale = features[train].std(0)
    scale[7] = 1
    standard = (features - features[train].mean(0)) / scale
    penalty = 3 * (standard[train] ** 2).sum(1).mean()
    model = Ridge(alpha=penalty).fit(standard[train], np.eye(3)[labels[train]])
    wanted = (model.predict(standard[test]).argmax(1) == labels[test]).mean()
    assert held_out(features, labels) == wanted
    assert held_out(features * 1000, labels) == wanted
    assert wanted > 0.6
    assert held_out(np.ones((20, 4)), np.arange(20) % 2) <= 0.7  # nothing to learn from


def test_features_against_scipy(rng):
    images = rng.integers(0, 256, (3, 40, 48, 3), dtype=np.uint8)
    inside = images[:, 5:-5, 6:-6].astype(float)  # 30 x 36
    assert np.allclose(coarse(images), inside.reshape(3, 15, 2, 18, 2, 3).mean((2, 4)))
    window = inside[:, :, 1:-1]  # 30 x 34
    detail = window - uniform_filter(window, (0, 3, 3, 0))
    assert np.allclose(fine(images), detail[:, 1:-1, 1:-1], atol=1e-4)


def test_spectra_are_welchs(rng):
    """Pictures that are the same along one axis, against scipy's one-dimensional spectra of the other."""
    row = rng.integers(0, 256, 96)
    images = np.broadcast_to(row[None, None, :, None], (1, 32, 96, 1)).astype(np.uint8)
    taper = np.hanning(34)[1:-1]
    how = {"detrend": "constant", "scaling": "spectrum", "return_onesided": False}
    _, wanted = welch(row, window=taper, nperseg=32, noverlap=0, **how)
    power = np.exp(log_spectra(images)[0, 0]) - (np.outer(taper, taper) ** 2).sum() / 12
    assert np.allclose(power, wanted[:17] * taper.sum() ** 4, rtol=1e-3)


def test_spread_of_shuffled_labels_is_chance(clean):
    spectra = log_spectra(clean.images)
    _, ratio = spectral_spread(spectra, np.random.default_rng(5).permutation(clean.labels))
    assert 0.5 < ratio < 1.6
    shifted = spectra + np.array([-1.0, 0, 1])[clean.labels, None, None]
    distance, ratio = spectral_spread(shifted, clean.labels)
    assert distance == pytest.approx((2 / 3) ** 0.5, rel=0.1)
    assert ratio > 20


@pytest.mark.parametrize("level", [0, 10])
def test_a_black_frame_is_no_convolution(level, clean):
    framed = clean.images.copy()
    framed[:, [0, -1]] = framed[:, :, [0, -1]] = level
    assert inspect(replace(clean, images=framed)).looks == Look.none
    framed[:, [0, -1]] = clean.images[:, [0, -1]]  # at two sides alone, and grey
    framed[:, :, [0, -1]] = 60
    assert inspect(replace(clean, images=framed)).looks == Look.none


def test_borders():
    images = np.full((4, 16, 24, 3), 200, np.uint8)
    images[:, :, -1], images[:, 0] = 150, 100
    above, below, left, right = border_brightness(images)
    assert below == pytest.approx(1, abs=0.02)  # its last pixel is darker
    assert above == pytest.approx(0.5, abs=0.02)
    assert left == pytest.approx(1, abs=0.01)
    assert right == pytest.approx(0.75, abs=0.02)
    assert border_brightness(np.zeros((2, 1, 1, 1), np.uint8)) == (1, 1, 1, 1)


def test_one_filter_for_all_is_no_filter_for_each_class(clean):
    blurred = gaussian_filter(clean.images, (0, 1, 1, 0))
    assert filter_share(clean.images, blurred, clean.labels) < 0.1
    own = np.empty_like(clean.images)
    for label in range(3):
        sigma = 0.3 + 0.5 * label
        own[clean.labels == label] = gaussian_filter(clean.images[clean.labels == label], (0, sigma, sigma, 0))
    assert filter_share(clean.images, own, clean.labels) > 0.7


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (70, 40)])
def test_any_size(size, rng):
    images = rng.integers(0, 256, (40, *size, 1), dtype=np.uint8)
    set_ = Dataset(images, np.arange(40) % 2, ("a", "b"), tuple(map(str, range(40))))
    found = inspect(set_, set_)
    assert found.looks == Look.none
    assert np.isfinite([found.content, found.detail, found.spectra, *found.borders, found.spectral_distance]).all()


def test_too_little_to_tell(clean):
    with pytest.raises(InputError, match="at least 2 classes, and 10 pictures a class, found 12 pictures of 3"):
        inspect(clean.select(slice(0, 12)))
    with pytest.raises(InputError, match="found 120 pictures of 1"):
        inspect(clean.select(clean.labels == 0))
    with pytest.raises(InputError, match="the same 60 pictures"):
        inspect(clean, clean.select(slice(0, 60)))


def test_the_command(clean, sets, tmp_path):
    for name in ("clean", "noise of a class"):
        np.savez(tmp_path / f"{name}.npz", images=sets[name].images, labels=clean.labels)
    said = in_process("inspect", tmp_path / "noise of a class.npz", "--clean", tmp_path / "clean.npz", "--json")
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    assert (found["looks"], found["pictures"], found["difference"]["largest"]) == ("additive noise", COUNT, 8)
    said = in_process("inspect", tmp_path / "clean.npz", "--limit", 300)
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("Looks like: no sign.\n- what simple models")
    assert "300 pictures of 3 classes" in said.stdout
    assert max(map(len, said.stdout.splitlines())) < 160
    said = in_process("inspect", tmp_path / "clean.npz", "--limit", 9)
    assert said.returncode == 2
    assert len(said.stderr.splitlines()) == 1
