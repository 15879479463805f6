"""Networks of the timm library, changed for small pictures.

Networks made for pictures of 224 pixels first make them four times smaller; of small ones nothing would be left.
Below 96 pixels they are built as the versions that the literature trains on CIFAR.
"""

import difflib
from typing import Any, Final

from torch import nn

from unlearnable.errors import expected
from unlearnable.models.base import Normalised, models

_SMALL: Final = 96  # pixels, below which a picture is small
_PATCHES: Final = 8  # a side, of a small picture in a transformer
_PATCH: Final = 16  # pixels a side, of a patch of a larger one


@models.register("resnet18")
def resnet18(classes: int, *, channels: int = 3, size: int = 32) -> nn.Module:
    """He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016."""
    return _resnet("resnet18", classes, channels, size)


@models.register("resnet50")
def resnet50(classes: int, *, channels: int = 3, size: int = 32) -> nn.Module:
    """As ResNet-18, with bottleneck blocks."""
    return _resnet("resnet50", classes, channels, size)


def _resnet(name: str, classes: int, channels: int, size: int) -> nn.Module:
    network = _timm(name, classes, channels)
    if size < _SMALL:
        network.conv1 = _small_stem(network.conv1)
        network.maxpool = nn.Identity()
    return Normalised(network)


@models.register("vgg16")
def vgg16(classes: int, *, channels: int = 3, size: int = 32) -> nn.Module:
    """Simonyan, Zisserman, "Very Deep Convolutional Networks", ICLR 2015, with batch normalisation.

    For small pictures one linear layer stands in place of three, which would hold nine tenths of the weights.
    """
    if size >= _SMALL:
        return Normalised(_timm("vgg16_bn", classes, channels))
    from timm.layers.classifier import ClassifierHead

    network = _timm("vgg16_bn", classes, channels, mlp_ratio=1 / 4096)  # so narrow because it goes at once
    network.pre_logits = nn.Identity()
    network.head = ClassifierHead(network.num_features, classes)
    for layer in network.features:
        if isinstance(layer, nn.MaxPool2d):
            layer.ceil_mode = True  # rounding up keeps a pixel of even the smallest picture
    return Normalised(network)


@models.register("densenet121")
def densenet121(classes: int, *, channels: int = 3, size: int = 32) -> nn.Module:
    """Huang, Liu, van der Maaten, Weinberger, "Densely Connected Convolutional Networks", CVPR 2017."""
    network = _timm("densenet121", classes, channels)
    if size < _SMALL:
        network.features.conv0 = _small_stem(network.features.conv0)
        network.features.pool0 = nn.Identity()
    return Normalised(network)


@models.register("mobilenetv2")
def mobilenetv2(classes: int, *, channels: int = 3, size: int = 32) -> nn.Module:
    """Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2", CVPR 2018; the first two layers that halve do not."""
    network = _timm("mobilenetv2_100", classes, channels)
    if size < _SMALL:
        network.conv_stem.stride = (1, 1)
        network.blocks[1][0].conv_dw.stride = (1, 1)
    return Normalised(network)


@models.register("efficientnetv2-s")
def efficientnetv2_s(classes: int, *, channels: int = 3, size: int = 32) -> nn.Module:
    """Tan, Le, "EfficientNetV2: Smaller Models and Faster Training", ICML 2021; the first layer does not halve."""
    network = _timm("tf_efficientnetv2_s", classes, channels)
    if size < _SMALL:
        network.conv_stem.stride = (1, 1)
    return Normalised(network)


@models.register("deit-tiny")
def deit_tiny(classes: int, *, channels: int = 3, size: int = 32) -> nn.Module:
    """Touvron and others, "Training data-efficient image transformers", ICML 2021, without distillation.

    Takes pictures of this size alone, in 8 x 8 patches (4 pixels a side at 32), from 96 pixels on in patches of 16.
    """
    return _deit("deit_tiny_patch16_224", classes, channels, size)


@models.register("deit-small")
def deit_small(classes: int, *, channels: int = 3, size: int = 32) -> nn.Module:
    """As DeiT-tiny, twice as wide."""
    return _deit("deit_small_patch16_224", classes, channels, size)


def _deit(name: str, classes: int, channels: int, size: int) -> nn.Module:
    patch = -(-size // _PATCHES) if size < _SMALL else _PATCH
    padding = -size % patch
    network = _timm(name, classes, channels, img_size=size + padding, patch_size=patch)
    return Normalised(network, padding=padding)


def any_of_timm(name: str, classes: int, *, channels: int, size: int) -> nn.Module:
    """Build any classifier of the library, as it is: with its own stem, and the normalisation it was trained with.

    Raises InputError for a name that it does not have, with the nearest ones.
    """
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        remedy = f"did you mean {' or '.join(near)}?" if near else "see timm.list_models()"
        raise expected("a model of timm", repr(name), remedy)
    cfg = timm.get_pretrained_cfg(name)
    sized = {"img_size": size} if cfg is not None and cfg.fixed_input_size else {}
    network = _timm(name, classes, channels, **sized)
    if cfg is None or channels != len(cfg.mean):
        return Normalised(network)
    return Normalised(network, mean=cfg.mean, std=cfg.std)


def _timm(name: str, classes: int, channels: int, **options: Any) -> Any:
    import timm  # takes a second: only where it is needed

    return timm.create_model(name, pretrained=False, num_classes=classes, in_chans=channels, **options)


def _small_stem(large: nn.Conv2d) -> nn.Conv2d:
    small = nn.Conv2d(large.in_channels, large.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(small.weight, mode="fan_out", nonlinearity="relu")
    return small
