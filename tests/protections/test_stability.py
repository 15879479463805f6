"""The stability measure against what a linear network's losses are by formula."""

import numpy as np
import pytest
import torch
from torch import nn

from unlearnable.budgets import Linf
from unlearnable.errors import InputError
from unlearnable.protections import stability as module
from unlearnable.protections.stability import stability

pytestmark = pytest.mark.usefixtures("one_thread")

RADIUS = 4 / 255


class Linear(nn.Module):
    """Logits that are linear in the picture; in training mode it would give others."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3 * 4 * 4, 2)

    def forward(self, images):
        return self.layer(images.flatten(1)) + float(self.training)


def losses(weight, bias, images, labels):
    """Mean cross-entropy of (count, values) images, in float64."""
    logits = images @ weight.T + bias
    other = logits[np.arange(len(labels)), 1 - labels] - logits[np.arange(len(labels)), labels]
    return np.log1p(np.exp(other)).mean()


def test_losses_of_a_linear_network_are_those_of_the_formula(monkeypatch):
    """Where nothing is cut off, PGD ends in the corner that a linear network of two classes has as its worst."""
    monkeypatch.setattr(module, "_BATCH", 5)  # the last batch is a smaller one
    torch.manual_seed(0)
    network = Linear().train()
    rng = np.random.default_rng(0)
    clean, protected = (rng.integers(20, 235, (12, 4, 4, 3)).astype(np.uint8) for _ in range(2))
    labels = np.arange(12) % 2
    found = stability(network, clean, protected, labels, budget=Linf(RADIUS), samples=40)
    assert network.training
    weight, bias = (parameter.detach().double().numpy() for parameter in network.layer.parameters())
    flat = [(images.transpose(0, 3, 1, 2) / 255).reshape(12, -1) for images in (clean, protected)]
    towards = np.sign(weight[1 - labels] - weight[labels])
    assert found.clean == pytest.approx(losses(weight, bias, flat[0], labels), rel=1e-5)
    assert found.protected == pytest.approx(losses(weight, bias, flat[1], labels), rel=1e-5)
    assert found.adversarial == pytest.approx(losses(weight, bias, flat[1] + RADIUS * towards, labels), rel=1e-5)
    shaken = flat[1] + rng.uniform(-RADIUS, RADIUS, (2_000, *flat[1].shape))
    by_chance = losses(weight, bias, shaken.reshape(-1, 48), np.tile(labels, 2_000))
    assert found.random == pytest.approx(by_chance, abs=0.002)
    assert found.rise == (found.random - found.protected, found.adversarial - found.protected)


@pytest.mark.parametrize(("clean", "protected", "labels"), [(4, 2, 4), (4, 4, 2), (0, 0, 0)])
def test_pictures_that_are_no_pairs_are_refused(clean, protected, labels):
    parts = (np.zeros((clean, 4, 4, 3), np.uint8), np.zeros((protected, 4, 4, 3), np.uint8), np.zeros(labels, np.int64))
    with pytest.raises(InputError, match="expected clean and protected pictures in pairs, and a label for each, found"):
        stability(Linear(), *parts, budget=Linf(RADIUS))
