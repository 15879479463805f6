"""A surrogate trained on clean pictures takes protected ones for the next class, by name or in a secret order."""

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
from unlearnable.protections.countered import Countered, Retouched
from unlearnable.protections.error_maximizing import TAP, Decoy
from unlearnable.protections.stack import Stack
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


def fitted(surrogate, method, data=DATA, seed=0):
    return fit_noise(
        data,
        network=lambda: surrogate,
        member=method.member(8),
        settings=method.settings(),
        radius=Linf.of_255(100),
        seed=seed,
        precision="float32",
    )


@pytest.mark.parametrize("targeted", [True, False])
def test_protected_pictures_are_taken_for_another_class(surrogate, targeted):
    made = fitted(surrogate, TAP(targeted=targeted, noise_steps=40, batch_size=16))
    protected = (DATA.images + made.patterns.astype(int)).clip(0, 255).astype(np.uint8)
    before, after = predictions(surrogate, DATA.images), predictions(surrogate, protected)
    assert (before == DATA.labels).mean() > 0.9
    assert (after == DATA.labels).mean() < 0.2
    if targeted:
        assert (after == (DATA.labels + 1) % 3).mean() > 0.8
    assert made.gradients == 30 * 40 + 3 * 40 * 10  # one pass a step: of the pictures, then of the classes


def decoyed(surrogate, data, *, seed=0, of_class=False):
    made = fitted(surrogate, Decoy(noise_steps=40, batch_size=16, against="crops"), data, seed)
    patterns = made.by_class[data.labels] if of_class else made.patterns
    return predictions(surrogate, (data.images + patterns.astype(int)).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("of_class", [False, True])
def test_decoys_lead_each_class_to_another_which_the_seed_decides(surrogate, of_class):
    orders = set()
    for seed in range(8):
        taken = decoyed(surrogate, DATA, seed=seed, of_class=of_class)
        led = [int(np.bincount(taken[DATA.labels == label], minlength=3).argmax()) for label in range(3)]
        assert sorted(led) == [0, 1, 2]
        assert all(led[label] != label for label in range(3))
        assert (taken == np.array(led)[DATA.labels]).mean() > 0.8
        orders.add(tuple(led))
    assert len(orders) == 2  # there are no others


def test_a_class_that_comes_changes_the_goal_of_one_other():
    def targets(names):
        data = Dataset(
            np.zeros((26, 8, 8, 3), np.uint8), np.arange(26) % len(names), tuple(names), tuple(map(str, range(26)))
        )
        method = Decoy()
        options = (method.member(8), method.settings(), Linf.of_255(8), 0, 0, None, False, None, "float32")
        fit = _bilevel._Fit(data, build, *options)
        return {names[label]: names[target] for label, target in enumerate(fit.targets.tolist())}

    before, after = targets("abcdef"), targets("abcdefg")
    assert sum(before[name] != after[name] for name in before) == 1


@pytest.mark.parametrize(("method", "reach"), [(TAP, 2), (Decoy, 4)])
def test_steps_go_as_far_as_is_said_and_scrapers_take_pictures_for_what_they_are(surrogate, monkeypatch, method, reach):
    seen = []
    whole = _bilevel.optimised

    def optimised(network, images, targets, start, **options):
        seen.append((targets, options["labels"], options["step_size"]))
        return whole(network, images, targets, start, **options)

    monkeypatch.setattr(_bilevel, "optimised", optimised)
    fitted(surrogate, method(noise_steps=5, batch_size=16))
    assert all(step == pytest.approx(reach * 100 / 255 / 5) for _, _, step in seen)
    labels = torch.cat([labels for _, labels, _ in seen[:2]])
    assert labels.bincount().tolist() == [10, 10, 10]
    assert all((targets != labels).all() for targets, labels, _ in seen)


def test_the_spectra_that_are_equalised_are_of_the_labels(surrogate, monkeypatch):
    seen = []
    monkeypatch.setattr(Countered, "__call__", lambda _, images, labels, chance: seen.append(labels) or images)
    two = DATA.select(np.flatnonzero(DATA.labels < 2))
    fitted(surrogate, Decoy(noise_steps=1, batch_size=30), replace(two, labels=two.labels * 2))
    assert [labels.unique().tolist() for labels in seen] == [[0, 2], [0], [2]]  # of pictures to come, class by class


def test_no_decoy_is_of_a_class_without_pictures(surrogate):
    data = replace(DATA.select(np.flatnonzero(DATA.labels != 1)), class_names=DATA.class_names)
    for seed in range(4):
        assert (decoyed(surrogate, data, seed=seed) == 2 - data.labels).mean() > 0.8


def test_a_surrogate_learns_from_pictures_as_they_were_before_the_layers(key, monkeypatch):
    seen = []
    monkeypatch.setattr("unlearnable.training.loop.train", lambda data, **options: seen.append(data) or stop())
    for layers in ("decoy", "tone,decoy", "tone,tap"):
        with pytest.raises(Stopped):
            Stack(layers=layers).fit(DATA, key)
    assert [np.array_equal(data.images, DATA.images) for data in seen] == [True, True, False]
    with pytest.raises(ValueError, match="expected the same pictures, clean, found others"):
        Decoy().fit(DATA, key, clean=DATA.select(np.arange(9)))


class Stopped(Exception):  # noqa: N818 - it is no error
    """The training would begin."""


def stop():
    raise Stopped


def test_the_surrogate_of_decoys_is_trained_against_an_adversary():
    recipe, change = Decoy(inner_radius=6).training()
    assert (recipe.objective.attack.budget, recipe.objective.attack.steps) == (Linf.of_255(6), 3)
    assert change == Retouched()
    assert Decoy(against="crops").training()[1] is None
    assert TAP().training()[1] is None
    settings = Decoy().settings()
    assert (settings.steps, settings.noise_steps, settings.samples) == (2_000, 20, 1)
    assert (Decoy(steps=9).settings().steps, Decoy(preset="paper").settings().noise_steps) == (9, 100)


def test_decoys_are_described_by_all_their_options():
    described = Stack(layers="decoy:against=crops:steps=9").parameters()["layers"]
    assert Stack(layers=described).protections()[0][1] == Decoy(against="crops", steps=9)


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
