"""Channel-wise noise on a network's weights, as strong as training finds best.

He, Rakin, Fan, "Parametric Noise Injection", CVPR 2019, section 3.2 (arXiv 1811.09310), with a strength for each output
channel: W + alpha_c eta, eta ~ N(0, std(W)^2), drawn anew in every pass, in attacks and in use as well as in training.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils import prune as torch_prune

from unlearnable.errors import expected
from unlearnable.training.rsr.weights import places

_STRENGTH: Final = 0.25  # of alpha, to begin with (the paper's)


class _Draws:
    """Standard normal numbers for all layers of a network, drawn in one go; each is given out once.

    on: whether there is noise at all. generator: it is drawn from; PyTorch's own if None.
    """

    def __init__(self) -> None:
        self.on = True
        self.generator: torch.Generator | None = None
        self._ends = [0]
        self._drawn: Tensor | None = None
        self._left: set[int] = set()

    def join(self, count: int) -> int:
        """Take in a layer of so many weights; return its number."""
        self._ends.append(self._ends[-1] + count)
        return len(self._ends) - 2

    def take(self, number: int, like: Tensor) -> Tensor:
        """Return a layer's numbers, in the shape and memory order of its weights."""
        drawn = self._drawn
        if drawn is None or number not in self._left or not _fits(drawn, like):
            drawn = like.new_empty(self._ends[-1]).normal_(generator=self.generator)
            self._left = set(range(len(self._ends) - 1))
        self._left.remove(number)
        self._drawn = drawn if self._left else None
        return drawn.as_strided(like.shape, like.stride(), self._ends[number])

    def forget(self) -> None:
        """Throw away what was drawn and not yet given out."""
        self._drawn = None


def _fits(drawn: Tensor, like: Tensor) -> bool:
    same = drawn.device == like.device and drawn.dtype == like.dtype
    return same and drawn.is_inference() == torch.is_inference_mode_enabled()


class ChannelNoise(nn.Module):
    """A parametrization of a weight W, (output channels, ...): W + strength * std(W) * N(0, 1).

    strength: alpha, learned, one an output channel. Its gradient is the sum over the channel of the weight's gradient
    times the noise; std(W), over all of W, is a constant to gradients.
    mask: 1 and 0 where weights are kept and cut off: what is cut off has no noise. None where nothing is.
    """

    strength: nn.Parameter
    mask: Tensor | None

    def __init__(self, weight: Tensor, draws: _Draws) -> None:
        super().__init__()
        self.strength = nn.Parameter(weight.new_full((len(weight), *[1] * (weight.ndim - 1)), _STRENGTH))
        self.register_buffer("mask", None, persistent=False)
        self.draws = draws
        self._number = draws.join(weight.numel())

    def forward(self, weight: Tensor) -> Tensor:
        """Add noise to a weight, or none where it is switched off."""
        if not self.draws.on:
            return weight
        drawn = self.draws.take(self._number, weight)
        if self.mask is not None:
            drawn = drawn * self.mask
        return torch.addcmul(weight, self.strength * weight.detach().std(correction=0), drawn)


def inject_noise(network: nn.Module) -> nn.Module:
    """Put noise on the weights of all convolutions and linear layers, in place, and return the network.

    Raises InputError for a network that has it already, is pruned, or has no such layers.
    """
    if strengths(network):
        raise expected("a network without noise", "one that has it already", "leave it as it is")
    if torch_prune.is_pruned(network):
        raise expected("a network that is not pruned", "one that is", "put noise on the dense one, and prune it then")
    draws = _Draws()
    draws.on = False  # registering tries the parametrization out, which shall draw nothing
    for place in places(network):
        parametrize.register_parametrization(place.layer, "weight", ChannelNoise(place.values, draws))
    draws.on = True
    return network


def layers(network: nn.Module) -> list[ChannelNoise]:
    """List the noise of a network, in the order of its layers."""
    return [module for module in network.modules() if isinstance(module, ChannelNoise)]


def strengths(network: nn.Module) -> list[nn.Parameter]:
    """List the learned strengths of a network's noise; none where it has no noise."""
    return [layer.strength for layer in layers(network)]


def noise_free(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a noisy network's ``state_dict`` as that of the plain network."""
    plain = {name.replace("parametrizations.weight.original", "weight"): tensor for name, tensor in state.items()}
    return {name: tensor for name, tensor in plain.items() if ".parametrizations." not in f".{name}"}


@contextmanager
def noise_off(network: nn.Module) -> Iterator[None]:
    """Switch a network's noise off for the time being."""
    found = [(layer.draws, layer.draws.on) for layer in layers(network)]
    try:
        for draws, _ in found:
            draws.on = False
        yield
    finally:
        for draws, on in found:
            draws.on = on


@contextmanager
def noise_from(network: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Draw a network's noise from a generator, on the device of its weights, for the time being."""
    found = [(layer.draws, layer.draws.generator) for layer in layers(network)]
    try:
        for draws, _ in found:
            draws.generator = generator
            draws.forget()
        yield
    finally:
        for draws, before in found:
            draws.generator = before
            draws.forget()
