"""Which weights of a pruned network are cut off: kept while it lives, multiplied in when it is written down."""

import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from unlearnable.training.rsr.noise import ChannelNoise
from unlearnable.training.rsr.weights import Place, places


@torch.no_grad()
def keep_pruned(network: nn.Module) -> None:
    """Cut off, in place, the weights that are zero: what a pruned network read from a file needs."""
    for place in places(network):
        torch_prune.custom_from_mask(place.owner, place.name, place.values != 0)  # type: ignore[no-untyped-call]
        mask_noise(place)


def mask_noise(place: Place) -> None:
    """Take the noise off those weights of a pruned layer that are cut off."""
    for module in place.owner.children():
        if isinstance(module, ChannelNoise):
            module.mask = place.owner.get_buffer(f"{place.name}_mask")


def settled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a pruned network's ``state_dict`` as if it were not pruned: under the plain names, zeros multiplied in."""
    masks = {name.removesuffix("_mask"): mask for name, mask in state.items() if name.endswith("_mask")}
    out = {}
    for name, tensor in state.items():
        plain = name.removesuffix("_orig")
        if plain in masks:
            out[plain] = tensor * masks[plain]
        elif name.removesuffix("_mask") not in masks:
            out[name] = tensor
    return out
