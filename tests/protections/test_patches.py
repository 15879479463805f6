"""Patches and autoregressive noise: what each class's pattern is, and that no two are alike."""

import hashlib
import pickle

import numpy as np
import pytest

from unlearnable import InputError, Key
from unlearnable.protections import autoregressive, patches, protections


def names(count):
    return type("Names", (), {"class_names": tuple(map(str, range(count)))})


def test_every_sample_goes_up_or_down_by_the_radius_patch_by_patch(key):
    grey = np.full((3, 32, 32, 3), 128, np.uint8)
    change = patches.Patches(radius=5, grid=8).fit(names(3), key).apply(grey, np.arange(3), list("abc")) - 128.0
    assert (np.abs(change) == 5).all()
    blocks = change.reshape(3, 8, 4, 8, 4, 3)
    assert (blocks == blocks[:, :, :1, :, :1]).all()
    assert not np.array_equal(change[0], change[1])


@pytest.mark.parametrize("classes", [10, 60])
def test_patterns_are_kept_apart(classes):
    for seed in range(5):
        made = patches.Patches().fit(names(classes), Key(bytes([seed] * 32))).by_class[:, ::8, ::8] > 0
        for n in range(classes - 1):
            for other in (made[n], made[n][:, ::-1]):
                assert (made[n + 1 :] != other).mean((1, 2, 3)).min() >= patches.default_distance(classes)


def test_a_field_is_the_process_written_out(key):
    weights = autoregressive.draw_weights(key.stream("weights"))
    assert np.allclose(np.abs(weights).sum(1), 0.95)
    found = autoregressive.draw_field(key.stream("start"), weights, 12)
    field = 2 * key.stream("start").uniform(28 * 28 * 3).reshape(28, 28, 3) - 1
    for i in range(2, 28):
        for j in range(2, 28):
            window = field[i - 2 : i + 1, j - 2 : j + 1].reshape(9, 3)[:8]
            field[i, j] += (weights.T * window).sum(0)
    assert np.allclose(found, field[16:, 16:], atol=1e-12)


def test_noise_of_one_class_obeys_its_weights_and_not_anothers(key):
    fitted = autoregressive.Autoregressive(radius=32).fit(names(4), key)
    grey = np.full((40, 32, 32, 3), 128, np.uint8)
    labels = np.arange(40) % 4
    noise = fitted.apply(grey, labels, [str(n) for n in range(40)]) - 128.0
    assert 0.5 * 32 < np.sqrt((noise**2).mean()) < 0.65 * 32
    rest = np.empty((40, 4))
    for n, field in enumerate(noise):
        windows = np.lib.stride_tricks.sliding_window_view(field, (3, 3), (0, 1)).reshape(30, 30, 3, 9)
        for label in range(4):
            predicted = (windows[..., :8] * fitted.weights[label]).sum(-1)
            rest[n, label] = ((windows[..., 8] - predicted) ** 2).mean()
    assert (rest.argmin(1) == labels).all()


@pytest.mark.parametrize("classes", [10, 60])
def test_processes_are_kept_apart(classes):
    for seed in range(3):
        weights = autoregressive.Autoregressive().fit(names(classes), Key(bytes([seed] * 32))).weights
        nearest = min(autoregressive.distances_to(weights[n + 1 :], weights[n]).min() for n in range(classes - 1))
        assert nearest >= autoregressive.default_distance(classes)


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("patches", "345ca4a0136c1251d196ba09d7a117c50c2a0d5d2c5eca20c5d173571e7f2599"),
        ("autoregressive", "ee9833f368032934e001e9f3b858245e3866bd7a298d606c4fcbef69d3665bbb"),
    ],
)
def test_patterns_are_pinned_for_ever(name, digest):
    grey = np.full((3, 50, 40, 3), 128, np.uint8)
    out = protections.create(name, radius=9).fit(names(3), Key(bytes(32))).apply(grey, np.arange(3), list("abc"))
    assert hashlib.sha256(out.tobytes()).hexdigest() == digest


def test_to_another_process_processes_go_without_a_pattern_a_class(key):
    few, many = (pickle.dumps(autoregressive.Autoregressive(size=size).fit(names(9), key)) for size in (8, 512))
    assert len(many) < len(few) + 100


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("patches", {"radius": 0}),
        ("patches", {"radius": 65}),
        ("patches", {"grid": 5}),
        ("autoregressive", {"radius": 0}),
        ("autoregressive", {"size": 4}),
    ],
)
def test_values_out_of_range(name, options):
    with pytest.raises(InputError, match="is the default"):
        protections.create(name, **options)
