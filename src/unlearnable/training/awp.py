"""Adversarial weight perturbation: descend the loss not where the weights are, but where a small change harms most.

Wu, Xia, Wang, "Adversarial Weight Perturbation Helps Robust Generalization", NeurIPS 2020 (arXiv 2004.05884), section
4: each layer's weights w are moved by gamma |w| along the loss's gradient, the loss is descended from there, and the
weights are then put back. As in the authors' code, one step; what is moved are the weights of convolutions and linear
layers, not biases and normalisations.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from unlearnable.training.rsr.weights import places

Answering = Callable[[Tensor], Tensor]
"""A network, or one with other weights in place of its own: pictures to logits."""

_NOTHING: Final = 1e-20  # added to a gradient's length, which may be zero


def perturbed(model: nn.Module, loss_of: Callable[[Answering], Tensor], gamma: float) -> Answering:
    """Return the network with its weights moved; gradients of what it gives are those of its own weights.

    loss_of: the loss, a scalar, of a network on the current batch. It is asked once, which costs one backward pass and
        what the loss takes forward, and leaves the network's batch statistics alone.
    gamma: length of the move over that of the weights, layer by layer.
    """
    layers = {place.values for place in places(model)}
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad and weight in layers}
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    gradients = torch.autograd.grad(loss_of(partial(functional_call, model, statistics)), list(weights.values()))
    moved = {}
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        length = gamma * weight.detach().norm() / (gradient.norm() + _NOTHING)
        moved[name] = weight + length * gradient
    return partial(functional_call, model, moved)
