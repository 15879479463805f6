"""ResNet-9: nine layers that learn small pictures in a few epochs.

The network of the DAWNBench CIFAR-10 entries (Page, "How to train your ResNet", 2018): a 3x3 convolution, three
stages that halve the picture and double the channels, the first and last with a residual branch of two convolutions,
the highest value of each channel, and a linear layer whose output is scaled down.
"""

from functools import partial
from typing import Final

from torch import Tensor, nn

from unlearnable.models.base import models, normalise

_OUTPUT_SCALE: Final = 0.125


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(_convolution(channels, channels), _convolution(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.branch(x)
        return out


class ResNet9(nn.Module):
    """A ResNet-9 for pictures of any size.

    classes: number of outputs.
    width: channels after the first layer; the last stage has eight times as many.
    channels: colour channels of the pictures.
    size: of the pictures; does not matter here.

    >>> import torch
    >>> ResNet9(classes=10, width=16)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, classes: int, *, width: int = 64, channels: int = 3, size: int = 32) -> None:
        super().__init__()
        halve = nn.MaxPool2d(2, ceil_mode=True)  # rounding up keeps a pixel of even the smallest picture
        self.features = nn.Sequential(
            _convolution(channels, width),
            nn.Sequential(_convolution(width, 2 * width), halve, _Residual(2 * width)),
            nn.Sequential(_convolution(2 * width, 4 * width), halve),
            nn.Sequential(_convolution(4 * width, 8 * width), halve, _Residual(8 * width)),
        )
        self.head = nn.Linear(8 * width, classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map (count, channels, height, width) on the 0 to 1 scale to (count, classes)."""
        features = self.features(normalise(images))
        logits: Tensor = self.head(features.amax((2, 3))) * _OUTPUT_SCALE
        return logits


for _width in (16, 32, 64):
    models.register(f"resnet9-w{_width}")(partial(ResNet9, width=_width))
