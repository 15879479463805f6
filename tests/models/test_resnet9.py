import pytest
import torch

from unlearnable.models import models
from unlearnable.models.resnet9 import ResNet9


@pytest.mark.parametrize("name", models.available("resnet9-*"))
@pytest.mark.parametrize(("height", "width", "channels"), [(32, 32, 3), (28, 28, 1), (64, 48, 3), (7, 5, 3), (1, 1, 1)])
def test_takes_pictures_of_any_size(name: str, height: int, width: int, channels: int) -> None:
    network = models.create(name, classes=4, channels=channels).eval()
    assert network(torch.rand(2, channels, height, width)).shape == (2, 4)


def test_names_give_the_width() -> None:
    assert models.available("resnet9-*") == ["resnet9-w16", "resnet9-w32", "resnet9-w64"]
    for width in (16, 32, 64):
        assert next(models.create(f"resnet9-w{width}", classes=10).parameters()).shape == (width, 3, 3, 3)


def test_has_the_parameters_of_the_published_network() -> None:
    assert sum(weights.numel() for weights in ResNet9(classes=10).parameters()) == 6_573_120


def test_normalises_its_input_itself() -> None:
    network, seen = ResNet9(classes=2, width=16), []
    network.features.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.rand(2, 3, 8, 8)
    network(images)
    torch.testing.assert_close(seen[0], (images - 0.45) / 0.25)
    assert not any("mean" in name and "running" not in name for name in network.state_dict())


def test_every_layer_learns() -> None:
    network = ResNet9(classes=3, width=16)
    network(torch.rand(4, 3, 16, 16)).square().sum().backward()
    assert all(weights.grad is not None and weights.grad.abs().sum() > 0 for weights in network.parameters())
