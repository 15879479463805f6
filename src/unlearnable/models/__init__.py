"""The zoo: names to networks. Each takes pictures as floats on the 0 to 1 scale and normalises them itself."""

from functools import partial

from torch import nn

from unlearnable.models.resnet9 import ResNet9
from unlearnable.registry import Registry

models: Registry[nn.Module] = Registry("model")

for _width in (16, 32, 64):
    models.register(f"resnet9-w{_width}")(partial(ResNet9, width=_width))
