"""A panel of attacks on a network with noise: each figure against what it claims to be."""

import numpy as np
import pytest
import torch

from unlearnable.attacks import PGD
from unlearnable.budgets import Linf
from unlearnable.errors import InputError
from unlearnable.models import build
from unlearnable.pictures.dataset import Dataset
from unlearnable.training.chance import generator
from unlearnable.training.evaluation import evaluate
from unlearnable.training.loop import train
from unlearnable.training.recipes import named
from unlearnable.training.rsr.noise import noise_off, strengths
from unlearnable.training.rsr.panel import Quiet, noise_panel
from unlearnable.training.withstanding import Spread, withstood

pytestmark = pytest.mark.usefixtures("one_thread")

BUDGET = Linf.of_255(24)


def grey_levels(count: int = 36, size: int = 8) -> Dataset:
    """Pictures of three classes, told apart by how bright they are."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 3
    images = (rng.integers(0, 60, (count, size, size, 3)) + 90 * labels[:, None, None, None]).astype(np.uint8)
    return Dataset(images, labels, ("black", "grey", "white"), tuple(map(str, range(count))))


DATA = grey_levels()


@pytest.fixture(scope="module")
def networks() -> tuple[torch.nn.Module, torch.nn.Module]:
    def model() -> torch.nn.Module:
        return build("resnet9-w16", classes=3, size=8)

    plain, noisy = (named("erm", epochs=4, batch_size=9, crop=0, noise=noise) for noise in (False, True))
    return train(DATA, model=model, recipe=plain).model, train(DATA, model=model, recipe=noisy).model


def test_every_figure_is_what_it_says(networks) -> None:
    plain, noisy = networks
    asked = {"images": DATA.images, "labels": DATA.labels}
    told: list[tuple[int, int]] = []
    options = {"baseline": plain, "samples": 3, "autoattack": False, "progress": lambda *now: told.append(now)}
    panel = noise_panel(noisy, DATA.images, DATA.labels, budget=BUDGET, **options)
    assert told == [(number * 36, 10 * 36) for number in range(1, 11)]
    on = {"clean", "fgsm", "pgd7", "pgd20", "eot-pgd20", "transfer", "transfer-noise-off"}
    names = on | {"clean, noise off", "pgd20, noise off", "worst"}
    assert panel.accuracies.keys() == names
    assert panel.baseline["clean"] == evaluate(plain, DATA.images, DATA.labels).share
    with noise_off(noisy):
        assert panel.accuracies["clean, noise off"] == Spread.of([evaluate(noisy, DATA.images, DATA.labels).share])
    pgd = withstood(noisy, PGD(budget=BUDGET, steps=20), seeds=5, **asked)
    assert panel.accuracies["pgd20"].mean == pytest.approx(pgd.mean())
    assert panel.accuracies["pgd20"].deviation == pytest.approx(pgd.mean(1).std(ddof=1))
    assert panel.accuracies["worst"].mean <= min(panel.accuracies[name].mean for name in on)
    assert panel.gain == (
        panel.accuracies["pgd20"].mean - panel.baseline["pgd20"],
        panel.accuracies["eot-pgd20"].mean - panel.baseline["pgd20"],
    )
    if panel.gain[0] > 0:
        assert panel.gain_left == panel.gain[1] / panel.gain[0]


def test_transfer_is_made_on_the_other_network(networks) -> None:
    plain, noisy = networks
    seen: list[torch.Tensor] = []
    handle = plain.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].detach().clone()))
    asked = {"images": DATA.images, "labels": DATA.labels}
    right = withstood(noisy, PGD(budget=BUDGET, steps=2), made_on=plain, seeds=2, **asked)
    handle.remove()
    assert len(seen) == 2  # one pass a step, and none to test
    assert right.shape == (2, 36)


def test_examples_of_the_network_without_noise_are_tested_with_it(networks) -> None:
    noisy, attack = networks[1], PGD(budget=BUDGET, steps=2)
    asked = {"images": DATA.images, "labels": DATA.labels}
    seen: list[torch.Tensor] = []
    handle = noisy.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].detach().clone()))
    right = withstood(noisy, attack, made_on=Quiet(noisy), seeds=5, precision="float32", **asked)
    handle.remove()
    with noise_off(noisy):
        true = torch.from_numpy(DATA.labels)
        images = torch.from_numpy(DATA.images).permute(0, 3, 1, 2) / 255
        wanted = attack(noisy, images, true, generator("cpu", 0, "attack", 0))
    assert right.shape == (5, 36)
    for shown in seen[-5:]:  # the same pictures for every draw, as they are made without noise
        torch.testing.assert_close(shown, wanted)


def test_draws_differ_and_repeat(networks) -> None:
    asked = {"images": DATA.images, "labels": DATA.labels}
    noisy = networks[1]
    before = [strength.detach().clone() for strength in strengths(noisy)]
    with torch.no_grad():
        for strength in strengths(noisy):
            strength.fill_(2.0)  # so much that answers turn
    first, second = (withstood(noisy, None, seeds=4, **asked) for _ in range(2))
    assert np.array_equal(first, second)
    assert len({row.tobytes() for row in first}) > 1
    with torch.no_grad():
        for strength, was in zip(strengths(noisy), before, strict=True):
            strength.copy_(was)


def test_autoattack_for_random_networks_is_among_them(networks) -> None:
    some = DATA.select(np.arange(3))
    panel = noise_panel(networks[1], some.images, some.labels, budget=BUDGET, samples=1)
    assert panel.accuracies["autoattack-rand"].draws == 5
    assert (panel.baseline, panel.gain, panel.gain_left) == ({}, None, None)


def test_bad_input(networks) -> None:
    plain, noisy = networks
    with pytest.raises(InputError, match="expected a network with noise on its weights, found one without"):
        noise_panel(plain, DATA.images, DATA.labels, budget=BUDGET)
    with pytest.raises(InputError, match="expected at least 5 seeds, found 3"):
        noise_panel(noisy, DATA.images, DATA.labels, budget=BUDGET, seeds=3)
