"""Which tensors of a network the noise, the lasso and the pruning are about: weights of convolutions, linear layers."""

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.utils import parametrize

from unlearnable.errors import expected

Layer = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear


class Place(NamedTuple):
    """Where the learned values of a layer's weight lie: ``owner`` holds them under ``name``, with noise or without."""

    path: str
    layer: Layer
    owner: nn.Module
    name: str

    @property
    def values(self) -> nn.Parameter:
        """The values that an optimizer changes; those that pruning has cut off still have some, which do not count."""
        pruned = f"{self.name}_orig"
        return self.owner.get_parameter(pruned if pruned in self.owner._parameters else self.name)

    @property
    def kept(self) -> Tensor:
        """The values that count: zero where pruning has cut them off; without a gradient."""
        mask = self.owner._buffers.get(f"{self.name}_mask")
        values = self.values.detach()
        return values if mask is None else values * mask


def places(network: nn.Module) -> list[Place]:
    """List where the weights of all convolutions and linear layers lie, in the network's order.

    Biases and batch normalisation are left alone. Raises InputError where there is no such layer.
    """
    found = []
    for path, layer in network.named_modules():
        if isinstance(layer, Layer):
            if parametrize.is_parametrized(layer, "weight"):
                found.append(Place(path, layer, layer.get_submodule("parametrizations.weight"), "original"))
            else:
                found.append(Place(path, layer, layer, "weight"))
    if not found:
        kind = type(network).__name__
        raise expected("a network with convolutions or linear layers", f"{kind} without any", "choose another model")
    return found
