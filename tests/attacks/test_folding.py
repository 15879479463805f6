"""Folding changes how a network computes, and nothing else."""

import pytest
import torch
from torch import nn

from unlearnable.attacks.base import frozen
from unlearnable.attacks.folding import folded
from unlearnable.models import build
from unlearnable.training.rsr.noise import inject_noise, noise_from


class Branching(nn.Module):
    """A network whose first convolution is seen by two layers, and whose last is used twice."""

    def __init__(self):
        super().__init__()
        self.seen, self.seen_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.twice, self.twice_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.once, self.once_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, affine=False)

    def forward(self, images):
        seen = self.seen(images)
        images = seen + self.seen_norm(seen)
        images = self.twice_norm(self.twice(images)) + self.twice(images)
        return self.once_norm(self.once(images)).mean((2, 3))


class Deciding(nn.Sequential):
    """A network that looks at its pictures, and so cannot be traced."""

    def forward(self, images):
        return super().forward(images if images.sum() > 0 else images + 1)


def used(network):
    """Give batch normalisation statistics and weights of its own."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                if tensor is not None:
                    tensor.data.uniform_(0.5, 1.5, generator=generator)
    return network.double().eval()


def folds(network):
    """Return the names of the layers that compute otherwise inside."""
    with folded(network):
        return [name for name, module in network.named_modules() if "forward" in vars(module)]


@pytest.mark.parametrize(("name", "norms"), [("resnet9-w16", 8), ("resnet18", 20), ("wrn-40-2", 19)])
def test_answers_and_gradients_stay(name, norms):
    network = used(build(name, classes=3))
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64, requires_grad=True)

    def asked():
        logits = network(images)
        return logits, *torch.autograd.grad(logits[:, 0].sum(), images)

    before = asked()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    with folded(network):
        inside = asked()
    assert len(folds(network)) == 2 * norms
    for expected, found, after in zip(before, inside, asked(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
        assert torch.equal(after, expected)
    assert all(torch.equal(network.state_dict()[key], value) for key, value in state.items())


def test_only_what_goes_into_the_normalisation_alone_is_folded():
    network = used(Branching())
    images = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    expected = network(images)
    assert folds(network) == ["once", "once_norm"]
    with folded(network):
        torch.testing.assert_close(network(images), expected, rtol=1e-12, atol=1e-12)


def test_what_computes_otherwise_is_left_alone():
    class Other(nn.Conv2d):
        pass

    other = nn.Sequential(Other(3, 3, 1), nn.BatchNorm2d(3))
    watched = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    watched[0].register_forward_hook(lambda *_: None)
    of_batches = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False))
    deciding = Deciding(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    for network in (other, watched, of_batches, deciding):
        assert folds(network.eval()) == []
    assert folds(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).train()) == []


def test_a_network_can_be_held_twice_and_is_whole_after_an_error():
    network = used(build("resnet9-w16", classes=3)).train()
    with pytest.raises(KeyError), frozen(network), frozen(network):
        raise KeyError
    assert not any("forward" in vars(module) for module in network.modules())
    assert network.training


def test_new_weights_are_folded_anew():
    network = used(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))
    images = torch.rand(1, 3, 2, 2, dtype=torch.float64)
    with folded(network):
        network(images)
    with torch.no_grad():
        network[0].weight.mul_(2)
        network[1].running_var.mul_(3)
    expected = network(images)
    with folded(network):
        torch.testing.assert_close(network(images), expected, rtol=1e-12, atol=1e-12)


def test_noise_on_weights_is_drawn_in_every_pass():
    network = used(inject_noise(build("resnet9-w16", classes=3)))
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)

    def asked():
        with noise_from(network, torch.Generator().manual_seed(5)):
            return network(images), network(images)

    expected = asked()
    assert len(folds(network)) == 16
    with folded(network):
        found = asked()
    assert not torch.equal(*expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
