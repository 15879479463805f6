"""TAP: a surrogate trained on clean pictures takes protected ones for the next class."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.small import dark_and_bright, tiny
from unlearnable.budgets import Linf
from unlearnable.errors import InputError
from unlearnable.pictures.dataset import Dataset
from unlearnable.protections import _bilevel, error_maximizing
from unlearnable.protections._bilevel import fit_noise
from unlearnable.protections.error_maximizing import TAP
from unlearnable.training.checkpoint import Network, load_network, save_network
from unlearnable.training.evaluation import predictions
from unlearnable.training.loop import train
from unlearnable.training.recipes import Recipe

pytestmark = pytest.mark.usefixtures("one_thread")


def three_classes(count=30, size=8):
    """Noise of three mean levels, that 100 grey levels lead from any one to any other."""
    rng = np.random.default_rng(0)
    labels = np.arange(count, dtype=np.int64) % 3
    images = rng.integers(0, 100, (count, size, size, 3)) + 40 * labels[:, None, None, None]
    return Dataset(images.astype(np.uint8), labels, ("a", "b", "c"), tuple(f"{n:02}" for n in range(count)))


def build():
    network = tiny()
    network[-1] = nn.Linear(4 * 36, 3)
    return network


DATA = three_classes()


@pytest.fixture(scope="module")
def surrogate():
    recipe = Recipe(epochs=30, batch_size=10, learning_rate=0.05, crop=1)
    return train(DATA, model=build, recipe=recipe, precision="float32").model


@pytest.mark.parametrize("targeted", [True, False])
def test_protected_pictures_are_taken_for_another_class(surrogate, targeted):
    method = TAP(targeted=targeted, noise_steps=40, batch_size=16)
    made = fit_noise(
        DATA,
        network=lambda: surrogate,
        member=method.member(8),
        settings=method.settings(),
        radius=Linf.of_255(100),
        seed=0,
        precision="float32",
    )
    protected = (DATA.images + made.patterns.astype(int)).clip(0, 255).astype(np.uint8)
    before, after = predictions(surrogate, DATA.images), predictions(surrogate, protected)
    assert (before == DATA.labels).mean() > 0.9
    assert (after == DATA.labels).mean() < 0.2
    if targeted:
        assert (after == (DATA.labels + 1) % 3).mean() > 0.8
    assert made.gradients == 30 * 40 + 3 * 40 * 10  # one pass a step: of the pictures, then of the classes


def test_the_surrogate_stays_as_it_came(surrogate):
    before = {name: tensor.clone() for name, tensor in surrogate.state_dict().items()}
    method = TAP(noise_steps=2)
    options = {"member": method.member(8), "settings": method.settings(), "radius": Linf.of_255(8), "seed": 0}
    fit_noise(DATA, network=lambda: surrogate, **options)
    assert all(torch.equal(before[name], tensor) for name, tensor in surrogate.state_dict().items())


def test_steps_are_the_papers():
    assert (TAP().settings().noise_steps, TAP(preset="paper").settings().noise_steps) == (50, 250)
    assert (TAP().settings().steps, TAP(preset="paper").settings().steps, TAP(steps=9).settings().steps) == (
        400,
        5_000,
        9,
    )
    assert TAP(preset="paper", noise_steps=9).settings().noise_steps == 9
    assert TAP(preset="paper").member(32).passes(TAP(preset="paper").settings()) == (0, 250)


def checkpoint(path, names=("a", "b", "c"), size=8):
    from unlearnable.models import build as of_zoo

    network = of_zoo("resnet9-w16", classes=len(names), size=size)
    about = Network(model="resnet9-w16", class_names=names, channels=3, size=size, training={})
    save_network(path, network, about)
    return str(path)


def test_a_trained_network_serves_as_surrogate(tmp_path, key):
    path = checkpoint(tmp_path / "net.safetensors")
    noise = TAP(model=path, noise_steps=1).fit(DATA, key)
    assert np.array_equal(noise.patterns, TAP(model=path, noise_steps=1, steps=7).fit(DATA, key).patterns)


def test_a_trained_network_may_name_the_classes_in_another_order(tmp_path, key):
    path = checkpoint(tmp_path / "net.safetensors", names=("c", "a", "b"))
    found = TAP(model=path, noise_steps=2).fit(DATA, key)
    network, about = load_network(Path(path))
    network.head.weight.data = network.head.weight.data[[1, 2, 0]]
    save_network(Path(path), network, replace(about, class_names=("a", "b", "c")))
    wanted = TAP(model=path, noise_steps=2).fit(DATA, key)
    assert (found.patterns == wanted.patterns).mean() > 0.99  # sums over the classes are rounded otherwise


def test_a_surrogate_of_other_pictures_is_refused(tmp_path, key):
    path = checkpoint(tmp_path / "net.safetensors", size=32)
    with pytest.raises(
        InputError, match="expected a surrogate for pictures of 8 pixels and 3 channels, found one for 32"
    ):
        TAP(model=path).fit(DATA, key)
    path = checkpoint(tmp_path / "net.safetensors", names=("a", "b", "d"))
    with pytest.raises(InputError, match="expected a surrogate trained on these 3 classes"):
        TAP(model=path).fit(DATA, key)


def test_a_run_does_not_go_on_with_another_network_of_the_same_name(tmp_path, key):
    method = TAP(model=checkpoint(tmp_path / "net.safetensors"), noise_steps=1)
    method.fit(DATA, key, state=tmp_path / "state")
    method.fit(DATA, key, state=tmp_path / "state")
    checkpoint(tmp_path / "net.safetensors")  # of other weights
    with pytest.raises(InputError, match=r"\(network with digest .*\), found network with digest"):
        method.fit(DATA, key, state=tmp_path / "state")


def test_a_surrogate_that_has_learned_nothing_stops_it(tmp_path, key, monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    images[6:] = images[:6]  # every picture in both classes
    data = Dataset(images, np.arange(12) // 6, ("a", "b"), tuple(map(str, range(12))))
    method = TAP(model="resnet9-w16", steps=4, noise_steps=1, batch_size=6)
    method.fit(data, key)  # of so few steps nothing is expected
    monkeypatch.setattr(_bilevel, "_ENOUGH", 4)
    wanted = r"expected a surrogate that learns the clean pictures \(a loss below 0\.679\), found .* after 4 steps"
    with pytest.raises(InputError, match=wanted):
        method.fit(data, key, state=tmp_path / "state")
    assert not (tmp_path / "state").exists()


def test_time_left_is_told_from_the_steps_of_this_time(monkeypatch):
    monkeypatch.setattr(error_maximizing.time, "monotonic", iter([0.0, 10.0, 20.0, 30.0] * 2).__next__)
    for before in (0, 2):
        told = []
        tell = error_maximizing._as_status(told.append, 8)
        for step in (1, 2, 3):
            tell(before + step, before + 4, None)
        assert [status.seconds_left for status in told] == [30, 20, 10]


def test_its_training_goes_on_too(tmp_path, key):
    data = dark_and_bright(12)
    method = TAP(model="resnet9-w16", steps=2, noise_steps=2, batch_size=6)
    whole = method.fit(data, key)
    assert np.array_equal(method.fit(data, key, state=tmp_path).patterns, whole.patterns)
    assert (tmp_path / "surrogate.safetensors").exists()
    for name in ("noise.safetensors", "run.safetensors"):  # as if stopped after the training
        (tmp_path / name).unlink()
    assert np.array_equal(method.fit(data, key, state=tmp_path).patterns, whole.patterns)
