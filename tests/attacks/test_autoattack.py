"""AutoAttack through our adapter."""

import logging
import sys

import pytest
import torch
from pyautoattack import AutoAttack as Package

from tests.attacks.networks import Linear, convolutional, pictures
from unlearnable import InputError
from unlearnable.attacks import AutoAttack, frozen, named
from unlearnable.budgets import L2, Linf

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def settings(monkeypatch):
    """What the package is asked to run."""
    seen = []

    def noted(self, images, labels, /, *, batch_size):
        seen.append(
            {
                "attacks": self.attacks_to_run,
                "norm": self.norm,
                "apgd": (self.apgd.n_iter, self.apgd.n_restarts, self.apgd.eot_iter, self.apgd.thr_decr),
                "apgd-t": (
                    self.apgd_targeted.n_iter,
                    self.apgd_targeted.n_restarts,
                    self.apgd_targeted.n_target_classes,
                ),
                "fab-t": (self.fab.n_iter, self.fab.n_restarts, self.fab.n_target_classes),
                "square": (self.square.n_queries, self.square.p_init, self.square.n_restarts),
                "radii": {self.apgd.eps, self.apgd_targeted.eps, self.fab.eps, self.square.eps},
            }
        )
        return images, labels

    monkeypatch.setattr(Package, "run_standard_evaluation", noted)
    return seen


@pytest.mark.parametrize(("classes", "targets"), [(4, 3), (9, 8), (10, 9), (100, 9)])
@pytest.mark.parametrize(("budget", "norm"), [(Linf.of_255(8), "Linf"), (L2(0.5), "L2")])
def test_the_settings_are_the_published_ones(settings, budget, norm, classes, targets):
    AutoAttack(budget=budget)(Linear(classes), pictures(2, 4), torch.arange(2))
    assert settings == [
        {
            "attacks": ["apgd-ce", "apgd-t", "fab-t", "square"],
            "norm": norm,
            "apgd": (100, 1, 1, 0.75),
            "apgd-t": (100, 1, targets),
            "fab-t": (100, 1, targets),
            "square": (5000, 0.8, 1),
            "radii": {budget.radius},
        }
    ]


def test_networks_with_noise_are_attacked_on_average(settings):
    AutoAttack(budget=Linf(0.1), version="rand")(Linear(3), pictures(2, 4), torch.arange(2))
    assert settings[0]["attacks"] == ["apgd-ce", "apgd-dlr"]
    assert settings[0]["apgd"] == (100, 1, 20, 0.75)


@pytest.mark.parametrize(("version", "classes", "least"), [("standard", 3, 4), ("standard", 2, 4), ("rand", 2, 3)])
def test_too_few_classes_are_refused(version, classes, least):
    wanted = f"expected at least {least} classes for .*, found a network of {classes}: .* use fgsm or pgd"
    with pytest.raises(InputError, match=wanted):
        AutoAttack(budget=Linf(0.1), version=version)(Linear(classes), pictures(2, 4), torch.arange(2))


@pytest.mark.parametrize("version", ["standard", "rand"])
@pytest.mark.parametrize("kind", [Linf, L2])
def test_robust_accuracy_of_a_linear_network_is_the_exact_one(kind, version):
    model, images = Linear(5, (3, 6, 6)), pictures(16, 6, 0.4, 0.6)
    with frozen(model):
        logits = model(images)
    labels = logits.argmax(1)
    # The distance to each other class's border, in the budget's norm; the nearest decides.
    weight = model.weight.detach()
    order = 1 if kind is Linf else 2
    slopes = torch.linalg.vector_norm(weight[labels][:, None] - weight, order, dim=2)
    gaps = logits.gather(1, labels[:, None]) - logits
    distances = (gaps / slopes).nan_to_num(torch.inf).amin(1)
    radius = float(distances.quantile(0.6))
    changed = AutoAttack(budget=kind(radius), version=version)(model, images, labels, torch.Generator().manual_seed(0))
    with frozen(model):
        right = model(changed).argmax(1) == labels
    sure = (distances / radius - 1).abs() > 0.02
    assert sure.sum() >= 12
    assert torch.equal(right[sure], (distances > radius)[sure])
    assert torch.equal(changed[right], images[right])  # what withstands comes back as it was


def test_it_is_at_least_as_strong_as_pgd():
    model, images, budget = convolutional(), pictures(12), Linf(0.02)
    with frozen(model):
        labels = model(images).argmax(1)
    right = {}
    for name in ("pgd20", "autoattack"):
        changed = named(name, budget=budget)(model, images, labels, torch.Generator().manual_seed(0))
        with frozen(model):
            right[name] = int((model(changed).argmax(1) == labels).sum())
    assert 0 < right["autoattack"] <= right["pgd20"] < 12


def test_doubts_are_logged_and_tracing_goes_on(caplog):
    class Sure(Linear):
        def forward(self, images):
            return super().forward(images).softmax(1)

    def trace(frame, event, argument):
        return None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with caplog.at_level(logging.WARNING, "auto-attack"):
            AutoAttack(budget=Linf(0.5), version="rand")(Sure(), pictures(2, 4), torch.arange(2))
        after = sys.gettrace()
    finally:
        sys.settrace(before)
    assert after is trace
    assert "output is a probability distribution" in caplog.text
