"""What each layer of a network costs: its weights and its multiply-adds, and how many of them pruning has left."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unlearnable.training.rsr.noise import noise_off
from unlearnable.training.rsr.weights import Place, places


@dataclass(frozen=True)
class LayerCost:
    """A layer: its name, weights, those that are not zero, and multiply-adds for one picture, before and after."""

    layer: str
    weights: int
    kept: int
    multiply_adds: int
    remaining: int

    @property
    def sparsity(self) -> float:
        """The share of weights that are zero."""
        return 1 - self.kept / self.weights


def layer_costs(network: nn.Module, *, channels: int, size: int) -> list[LayerCost]:
    """Count the cost of every convolution and linear layer for a picture of ``channels`` and of side ``size``.

    Each weight of a layer is multiplied once for every place of its output: a pixel, or a token of a transformer.
    A picture's border counts like its middle. Layers that do not take part in the answer are left out.
    """
    used: dict[str, int] = {}

    def watch(place: Place) -> Any:
        def see(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            outputs = place.values.shape[0]
            used[place.path] = used.get(place.path, 0) + output.numel() // outputs

        return place.layer.register_forward_hook(see)

    found = places(network)
    handles = [watch(place) for place in found]
    modes = [(module, module.training) for module in network.modules()]
    try:
        with torch.inference_mode(), noise_off(network):
            network.eval()(next(network.parameters()).new_zeros(1, channels, size, size))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode
    return [_cost(place, used[place.path]) for place in found if place.path in used]


def _cost(place: Place, times: int) -> LayerCost:
    weights, kept = place.values.numel(), int(place.kept.count_nonzero())
    return LayerCost(place.path, weights, kept, weights * times, kept * times)


def together(layers: Sequence[LayerCost]) -> LayerCost:
    """Add up the cost of layers.

    >>> together([LayerCost("a", 10, 5, 100, 50), LayerCost("b", 10, 1, 10, 1)]).sparsity
    0.7
    """
    weights, kept = sum(layer.weights for layer in layers), sum(layer.kept for layer in layers)
    return LayerCost("all", weights, kept, sum(x.multiply_adds for x in layers), sum(x.remaining for x in layers))
