"""The zoo: names to networks. Each takes pictures as floats on the 0 to 1 scale and normalises them itself."""

from pathlib import Path

from torch import nn

from unlearnable.models import library as library
from unlearnable.models import resnet9 as resnet9
from unlearnable.models import wide_resnet as wide_resnet
from unlearnable.models.base import head as head
from unlearnable.models.base import models as models


def build(name: str, *, classes: int, channels: int = 3, size: int = 32, weights: Path | None = None) -> nn.Module:
    """Build a network of the zoo, or any classifier of the timm library, written ``timm/NAME``.

    channels: colour channels of the pictures, 1 or 3.
    size: their side in pixels, which decides the first layers of networks made for large pictures.
    weights: a .safetensors or .pth file to start from; chance if not given.

    Raises InputError for an unknown name, with the nearest ones, and for weights of another network.
    """
    if name.startswith("timm/"):
        network = library.any_of_timm(name.removeprefix("timm/"), classes, channels=channels, size=size)
    else:
        network = models.create(name, classes=classes, channels=channels, size=size)
    if weights is not None:
        from unlearnable.models.weights import load_weights

        load_weights(network, weights)
    return network
