"""Batch normalisation taken up into the convolutions before it, for as long as a network is held still.

In evaluation mode a batch normalisation multiplies each channel by a constant and adds one. A convolution before it can
do that itself, so that what an attack passes through ten times is a network without those layers: about a third less
work, for the same answers up to rounding. Jacob et al., "Quantization and Training of Neural Networks", CVPR 2018,
section 3.2.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeGuard
from weakref import WeakKeyDictionary

import torch
from torch import fx, nn
from torch.fx._symbolic_trace import is_fx_symbolic_tracing
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrize

_known: WeakKeyDictionary[nn.Module, list[tuple[str, str]]] = WeakKeyDictionary()


@contextmanager
def folded(model: nn.Module) -> Iterator[None]:
    """Let convolutions do the batch normalisation behind them, in a network in evaluation mode whose weights rest.

    Nothing of the network changes, parameters, buffers and hooks included, but what the two layers compute. A weight
    that is parametrized is asked for in every pass, since it may be another each time. Pairs that have hooks are left
    alone, as are networks that cannot be traced.
    """
    changed: list[nn.Module] = []
    try:
        for convolution, norm in _pairs(model):
            _fold(convolution, norm)
            changed += convolution, norm
        yield
    finally:
        for module in changed:
            del vars(module)["forward"]


def _pairs(model: nn.Module) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Find convolutions whose results go into a batch normalisation and nowhere else."""
    if isinstance(model, DistributedDataParallel):
        model = model.module
    if is_fx_symbolic_tracing():
        return []
    if model not in _known:
        _known[model] = _traced(model) if any(type(module) is nn.BatchNorm2d for module in model.modules()) else []
    modules = dict(model.named_modules())
    pairs = [(modules.get(one), modules.get(other)) for one, other in _known[model]]
    return [pair for pair in pairs if _foldable(pair)]


def _traced(model: nn.Module) -> list[tuple[str, str]]:
    """Follow the pictures through a network; return the names of such layers."""
    try:
        graph = fx.Tracer().trace(model)
    except Exception:  # the network's own code meets what it was not written for, and may raise anything
        return []
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    found = []
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if isinstance(before, fx.Node) and len(before.users) == 1 and calls[before.target] == calls[node.target] == 1:
            found.append((str(before.target), str(node.target)))
    return found


def _foldable(pair: tuple[nn.Module | None, nn.Module | None]) -> TypeGuard[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    convolution, norm = pair
    return (
        _plain(convolution)
        and type(norm) is nn.BatchNorm2d
        and norm.running_mean is not None
        and not norm.training
        and not any(
            "forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks
            for module in (convolution, norm)
        )
    )


def _plain(module: nn.Module | None) -> TypeGuard[nn.Conv2d]:
    """Tell a convolution from its subclasses, which may compute something else; parametrizing makes one, too."""
    if isinstance(module, nn.Conv2d) and parametrize.is_parametrized(module):
        return type(module).__base__ is nn.Conv2d
    return type(module) is nn.Conv2d


@torch.no_grad()
def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None and norm.running_var is not None  # noqa: S101, PT018 - as _foldable has found
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean if convolution.bias is None else convolution.bias - norm.running_mean
    bias = shift * scale
    if norm.bias is not None:
        bias = bias + norm.bias
    scale = scale[:, None, None, None]
    if parametrize.is_parametrized(convolution):
        vars(convolution)["forward"] = lambda images: convolution._conv_forward(
            images, convolution.weight * scale, bias
        )
    else:
        weight = convolution.weight * scale
        vars(convolution)["forward"] = lambda images: convolution._conv_forward(images, weight, bias)
    vars(norm)["forward"] = lambda images: images
