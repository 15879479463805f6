"""Wide residual networks for small pictures, the usual networks of adversarial training.

Zagoruyko, Komodakis, "Wide Residual Networks", BMVC 2016 (arXiv 1605.07146), table 1: a 3x3 convolution of 16
channels, three groups of blocks of 16, 32 and 64 times the width, the last two halving the picture, the mean of each
channel, and a linear layer. A block normalises before it convolves.
"""

from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from unlearnable.models.base import models, normalise


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        normal = functional.relu(self.norm1(x))
        changed: Tensor = self.conv2(functional.relu(self.norm2(self.conv1(normal))))
        return changed + (x if self.shortcut is None else self.shortcut(normal))


class WideResNet(nn.Module):
    """A wide residual network for pictures of any size.

    classes: number of outputs.
    depth: number of convolutions with weights, shortcuts aside: 4 more than a multiple of 6.
    width: factor by which the blocks are wider than those of a plain residual network.
    channels: colour channels of the pictures.
    size: of the pictures; does not matter here.

    >>> import torch
    >>> WideResNet(10, depth=10, width=1)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, classes: int, *, depth: int, width: int, channels: int = 3, size: int = 32) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        inputs = 16
        for outputs, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
            for place in range((depth - 4) // 6):
                blocks.append(_Block(inputs, outputs, 1 if place else stride))
                inputs = outputs
        self.features = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1, bias=False), *blocks, nn.BatchNorm2d(inputs), nn.ReLU(inplace=True)
        )
        self.head = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Map (count, channels, height, width) on the 0 to 1 scale to (count, classes)."""
        logits: Tensor = self.head(self.features(normalise(images)).mean((2, 3)))
        return logits


for _depth, _width in ((34, 10), (40, 2)):
    models.register(f"wrn-{_depth}-{_width}")(partial(WideResNet, depth=_depth, width=_width))
