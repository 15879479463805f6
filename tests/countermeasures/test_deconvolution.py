"""The filter adversary: it raises the loss, remembers, and leaves BatchNorm alone."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate
from torch import nn

from tests.countermeasures.conftest import as_batch, build_model
from unlearnable.countermeasures.deconvolution import Deconvolution, filtered
from unlearnable.errors import InputError


def loss(model, images, labels):
    model.eval()
    value = nn.functional.cross_entropy(model(images), labels)
    model.train()
    return value.item()


def test_filtering_against_scipy():
    generator = torch.Generator().manual_seed(0)
    images, kernels = torch.rand(3, 3, 9, 8, generator=generator), torch.randn(3, 5, 5, generator=generator)
    out = filtered(images, kernels).numpy()
    for n in range(3):
        kernel = kernels[n].double().numpy()
        wanted = np.stack([correlate(channel, kernel, mode="nearest") for channel in images[n].double().numpy()])
        assert np.allclose(out[n], (wanted - wanted.min()) / (wanted.max() - wanted.min()), atol=1e-5)


def test_one_step_against_the_formula(published):
    images, labels = as_batch(published)
    model, change = build_model(), Deconvolution(size=3, steps=1).every_batch(3)
    change(model, images, labels, torch.Generator().manual_seed(0))  # draws the filters
    start = change.weights.clone()
    change(model, images, labels, torch.Generator().manual_seed(0))
    model.eval()
    for label in range(3):  # a class at a time, as the published code does
        kernel = start[label].clone().requires_grad_()
        own = images[labels == label]
        value = nn.functional.cross_entropy(
            model(filtered(own, kernel.expand(len(own), 3, 3))), labels[labels == label]
        )
        (gradient,) = torch.autograd.grad(value, kernel)
        assert torch.allclose(change.weights[label], start[label] + 0.1 * gradient, atol=1e-6)


def test_it_raises_the_loss_and_remembers(published):
    images, labels = as_batch(published)
    model, change = build_model(), Deconvolution(size=5, steps=5).every_batch(3)
    losses = [loss(model, change(model, images, labels, torch.Generator().manual_seed(0)), labels) for _ in range(12)]
    assert np.all(np.diff(losses) > 0)
    again = Deconvolution(size=5, steps=5).every_batch(3)
    again.load_state_dict(change.state_dict())
    first, second = (c(model, images, labels, torch.Generator().manual_seed(9)) for c in (change, again))
    assert torch.equal(first, second)  # a checkpoint goes on where it was


def test_batch_norm_statistics_and_absent_classes_stay(published):
    images, labels = as_batch(published)
    model, change = build_model(), Deconvolution(size=3, steps=3).every_batch(5)
    change(model, images, labels, torch.Generator().manual_seed(0))
    start = change.weights.clone()
    change(model, images[labels == 1], labels[labels == 1], torch.Generator().manual_seed(0))
    moved = (change.weights != start).flatten(1).any(1)
    assert moved.tolist() == [False, True, False, False, False]
    norm = model.layers[1]
    assert (norm.running_mean == 0).all()
    assert (norm.running_var == 1).all()
    assert norm.num_batches_tracked == 0


def test_weights_stay_within_the_limit(published):
    images, labels = as_batch(published)
    change = Deconvolution(size=3, steps=1).every_batch(3)
    change(build_model(), images, labels, torch.Generator().manual_seed(0))
    change.weights.mul_(1000)
    change(build_model(), images, labels, torch.Generator().manual_seed(0))
    assert change.weights.abs().max() <= 5


@pytest.mark.parametrize(("options", "message"), [({"size": 4}, "odd filter size"), ({"steps": 0}, "at least 1 step")])
def test_bad_parameters(options, message):
    with pytest.raises(InputError, match=message):
        Deconvolution(**options)
