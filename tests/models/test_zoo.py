"""What holds for every network of the zoo, and what is published of it."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from unlearnable import InputError
from unlearnable.models import build, head, models
from unlearnable.models.base import Normalised

pytestmark = pytest.mark.usefixtures("one_thread")

PARAMETERS = {  # for ten classes of 32 x 32 colour pictures, as published or, for transformers, counted by hand
    "resnet9-w16": 412_944,
    "resnet9-w32": 1_646_112,
    "resnet9-w64": 6_573_120,
    "resnet18": 11_173_962,
    "resnet50": 23_520_842,
    "vgg16": 14_728_266,
    "wrn-34-10": 46_160_474,
    "wrn-40-2": 2_243_546,
    "densenet121": 6_956_298 + 128,  # the usual one lacks the first normalisation, of 64 channels
    "mobilenetv2": 2_236_682,
    "efficientnetv2-s": 21_458_488 - 990 * 1281,  # of ImageNet's, with 990 classes fewer
    "deit-tiny": 5_717_416 - 990 * 193 - (256 - 16) * 3 * 192 - (196 - 64) * 192,  # and smaller and fewer patches
    "deit-small": 22_050_664 - 990 * 385 - (256 - 16) * 3 * 384 - (196 - 64) * 384,
}
LARGE = {"resnet18": 11_689_512, "densenet121": 7_978_856, "mobilenetv2": 3_504_872, "deit-tiny": 5_717_416}


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_names_are_those_of_the_design() -> None:
    assert set(models) == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_small_networks_are_the_published_ones(name: str) -> None:
    network = build(name, classes=10).eval()
    assert count(network) == PARAMETERS[name]
    last = head(network)
    assert last.out_features == 10
    assert any(module is last for module in network.modules())
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    features = []
    last.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    with torch.inference_mode():
        logits = network(images)
        alone = torch.cat([network(image[None]) for image in images])
    assert logits.shape == (3, 10)
    assert features[0].shape == (3, last.in_features)
    # In untrained networks signals grow from layer to layer, and rounding with them: to 3e-4 of the logits in
    # EfficientNetV2-S, where 64-bit numbers agree to 4e-14.
    torch.testing.assert_close(logits, alone, rtol=0, atol=1e-3 * float(logits.abs().max()))
    # Each tensor has one name, as safetensors wants it.
    places = [tensor.data_ptr() for tensor in network.state_dict().values() if tensor.numel()]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_layer_learns_from_grey_pictures_of_16_pixels(name: str) -> None:
    network = build(name, classes=7, channels=1, size=16)
    logits = network(torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (2, 7)
    logits.logsumexp(1).sum().backward()
    assert all(weights.grad is not None and weights.grad.isfinite().all() for weights in network.parameters())


@pytest.mark.parametrize("name", LARGE)
def test_networks_for_large_pictures_are_those_of_imagenet(name: str) -> None:
    network = build(name, classes=1000, size=224).eval()
    assert count(network) == LARGE[name]
    with torch.inference_mode():
        assert network(torch.rand(1, 3, 224, 224)).shape == (1, 1000)


@pytest.mark.parametrize(
    ("name", "reduced"),
    [("resnet18", 8), ("densenet121", 8), ("mobilenetv2", 8), ("efficientnetv2-s", 16), ("vgg16", 32)],
)
def test_pictures_below_96_pixels_are_kept_large(name: str, reduced: int) -> None:
    for size, factor in ((64, reduced), (96, 32)):
        if name == "vgg16" and size == 96:
            continue  # half a gigabyte of weights
        network = build(name, classes=2, size=size).eval()
        with torch.inference_mode():
            features = network.network.forward_features(torch.rand(1, 3, size, size))
        assert features.shape[2:] == (size // factor, size // factor)


@pytest.mark.parametrize(
    ("size", "patch", "patches"), [(16, 2, 64), (32, 4, 64), (33, 5, 49), (64, 8, 64), (96, 16, 36)]
)
def test_transformers_cut_pictures_into_patches(size: int, patch: int, patches: int) -> None:
    network = build("deit-tiny", classes=2, size=size).eval()
    assert network.network.patch_embed.proj.kernel_size == (patch, patch)
    assert network.network.pos_embed.shape == (1, patches + 1, 192)
    with torch.inference_mode():
        assert network(torch.rand(1, 3, size, size)).shape == (1, 2)


@pytest.mark.parametrize("name", ["resnet9-w16", "wrn-40-2", "mobilenetv2", "deit-tiny"])
def test_networks_normalise_their_input_themselves(name: str) -> None:
    network, seen = build(name, classes=2).eval(), []
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        network(images)
    torch.testing.assert_close(seen[0], (images - 0.45) / 0.25)
    assert not {"mean", "std"} & set(network.state_dict())


def test_any_network_of_timm_is_taken_as_it_is() -> None:
    network = build("timm/test_vit", classes=3, size=64).eval()  # one of the library's small test networks
    assert isinstance(network, Normalised)
    assert network.network.patch_embed.img_size == (64, 64)
    assert head(network).out_features == 3
    assert network.mean.flatten().tolist() == pytest.approx([0.5, 0.5, 0.5])  # what it was trained with
    with torch.inference_mode():
        assert network(torch.rand(1, 3, 64, 64)).shape == (1, 3)
        grey = build("timm/test_resnet", classes=3, channels=1).eval()
        assert grey(torch.rand(1, 1, 32, 32)).shape == (1, 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", "expected a known model, found 'resnet19': did you mean 'resnet1"),
        ("timm/resnet1888", "expected a model of timm, found 'resnet1888': did you mean resnet18"),
        ("timm/hf-hub:someone/something", "expected a model of timm, found 'hf-hub:someone/something'"),
    ],
)
def test_unknown_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(name, classes=2)


def test_a_network_without_a_linear_last_layer_has_no_head() -> None:
    with pytest.raises(InputError, match="expected a network whose last layer is linear, found"):
        head(nn.Sequential(nn.Conv2d(3, 2, 1)))


def test_listing_networks_loads_no_library() -> None:
    code = "import sys; from unlearnable.models import models; list(models); sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
