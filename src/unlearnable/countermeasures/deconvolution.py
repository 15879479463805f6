"""Deconvolution-based adversarial training: an adversary keeps a filter for each class, and the model learns to cope.

Sadasivan, Soltanolkotabi, Feizi, "CUDA", CVPR 2023 (arXiv 2303.04278), as its adaptive attack. The published code is
unfair to the attack: it lets the class-pure passes of the ascent overwrite the model's BatchNorm statistics, forgets
the filters after every batch, ascends on pictures that are not normalised and trains on pictures that are, and leaves
the last step unclipped. Here the model is frozen in evaluation mode during the ascent, filters persist, pictures are
normalised alike inside and outside, and every step is clipped. A bias of the filters has no part: the normalisation
takes it out again.
"""

from dataclasses import dataclass
from typing import ClassVar, Final

import torch
from torch import Tensor, nn

from unlearnable.attacks.base import cross_entropy, frozen
from unlearnable.countermeasures.base import Countermeasure, countermeasures
from unlearnable.countermeasures.batched import filter_each, uniform
from unlearnable.errors import expected

_LIMIT: Final = 5.0  # of the weights' size
_RATE: Final = 0.1  # of the ascent, on the raw gradient


@countermeasures.register("deconvolution")
@dataclass(frozen=True, kw_only=True)
class Deconvolution(Countermeasure):
    """Filter each batch by class, with filters that have just been moved to raise the model's loss.

    size: side of the filters, odd; the paper tries 3, 5 and 7.
    steps: of gradient ascent a batch, each as costly as a training step without the update.
    """

    name: ClassVar[str] = "deconvolution"
    main: ClassVar[str | None] = "size"
    size: int = 5
    steps: int = 10

    def __post_init__(self) -> None:
        if self.size < 3 or self.size % 2 == 0:
            raise expected("an odd filter size of at least 3", str(self.size), "choose 3, 5 or 7")
        if self.steps < 1:
            raise expected("at least 1 step", str(self.steps), "choose 10, as the paper does")

    def every_batch(self, classes: int) -> "FilterAdversary":
        return FilterAdversary(classes, self.size, self.steps)


class FilterAdversary(nn.Module):
    """The filters of all classes, (classes, size, size), kept from batch to batch; drawn at the first."""

    weights: Tensor
    drawn: Tensor

    def __init__(self, classes: int, size: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.register_buffer("weights", torch.zeros(classes, size, size))
        self.register_buffer("drawn", torch.zeros((), dtype=torch.bool))

    def forward(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Move the filters of the classes that are there, then filter the batch and normalise every picture."""
        self.to(images.device)
        if not self.drawn:
            bound = 1 / self.weights.shape[-1]  # how PyTorch starts a convolution of this size
            self.weights.copy_(uniform(tuple(self.weights.shape), -bound, bound, generator, images))
            self.drawn.fill_(True)
        share = 1 / labels.bincount(minlength=len(self.weights)).to(images.dtype)[labels]
        with frozen(model):
            for _ in range(self.steps):
                weights = self.weights.clone().requires_grad_()
                loss = (cross_entropy(model(filtered(images, weights[labels])), labels) * share).sum()
                (gradient,) = torch.autograd.grad(loss, weights)
                self.weights.copy_((self.weights + _RATE * gradient).clamp_(-_LIMIT, _LIMIT))
        return filtered(images, self.weights[labels])


def filtered(images: Tensor, kernels: Tensor) -> Tensor:
    """Filter each picture with its kernel and stretch it over the range from 0 to 1."""
    out = filter_each(images, kernels)
    low, high = out.amin((1, 2, 3), keepdim=True), out.amax((1, 2, 3), keepdim=True)
    return (out - low) / (high - low).clamp_min(1e-6)
