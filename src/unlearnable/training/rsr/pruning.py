"""Pruning: the smallest weights of the whole network are cut off at once, after training, and stay zero from then on.

One-shot global magnitude pruning by ``torch.nn.utils.prune``. Noise goes with the weights it was on: without that,
0 + alpha eta would fill every gap again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import prune as torch_prune

from unlearnable.errors import expected
from unlearnable.pictures.dataset import Dataset
from unlearnable.training.loop import Trained, train
from unlearnable.training.recipes import Recipe
from unlearnable.training.rsr.masks import mask_noise
from unlearnable.training.rsr.weights import places


def check_sparsity(sparsity: float) -> None:
    """Raise InputError unless it is a share of weights that can be cut off."""
    if not 0 <= sparsity < 1:
        raise expected("a sparsity from 0 to below 1", str(sparsity), "0.85 cuts off 85 % of the weights")


@torch.no_grad()
def prune(network: nn.Module, sparsity: float) -> float:
    """Cut off the smallest weights of convolutions and linear layers, in place; return the share that is cut off.

    sparsity: the share, 0 to below 1, over all layers together. Where the lasso has made more weights zero than that,
    they are all cut off. std(W), which goes with the noise, is that of W with its zeros from then on.

    Raises InputError for a share out of range, a network that is pruned already, or one with nothing to prune.
    """
    check_sparsity(sparsity)
    found = places(network)
    if torch_prune.is_pruned(network):
        raise expected("a network that is not pruned", "one that is", "prune the dense network it came from")
    total = sum(place.values.numel() for place in found)
    zeros = sum(int((place.values == 0).sum()) for place in found)
    cut = max(round(sparsity * total), zeros)
    # Not by global_unstructured, which refuses weights in the memory order that networks are trained in.
    sizes = torch.cat([place.values.abs().flatten() for place in found])
    kept = torch.ones_like(sizes).index_fill_(0, sizes.topk(cut, largest=False).indices, 0)
    for place, part in zip(found, torch.split(kept, [place.values.numel() for place in found]), strict=True):
        torch_prune.custom_from_mask(  # type: ignore[no-untyped-call]
            place.owner, place.name, part.view_as(place.values)
        )
        mask_noise(place)
    return cut / total


def reestimate(network: nn.Module, dataset: Dataset, recipe: Recipe, **options: Any) -> Trained:
    """Estimate the statistics of batch normalisation anew, in place, from what training shows the network in one epoch.

    recipe: that it was trained by; its attack and its augmentations count, its learning rate does not.
    options: seed, device and precision of :func:`unlearnable.training.loop.train`.
    """
    with _averaging(network):
        recipe = replace(recipe, epochs=1, learning_rate=0.0, ema=None)
        return train(dataset, model=lambda: network, recipe=recipe, **options)


def fine_tune(network: nn.Module, dataset: Dataset, recipe: Recipe, epochs: int, **options: Any) -> Trained:
    """Train a pruned network on, in place, at a tenth of the recipe's learning rate; what is cut off stays zero.

    options: seed, device, precision and progress of :func:`unlearnable.training.loop.train`.
    """
    recipe = replace(recipe, epochs=epochs, learning_rate=recipe.learning_rate / 10, ema=None)
    return train(dataset, model=lambda: network, recipe=recipe, **options)


@contextmanager
def _averaging(network: nn.Module) -> Iterator[None]:
    """Have batch normalisation take the mean over all batches to come, in place of a moving one."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    before = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = None
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.zero_()  # the first batch then takes the place of all earlier ones
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
