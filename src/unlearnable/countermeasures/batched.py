"""Arithmetic on batches of pictures, (count, channels, height, width) floats; random numbers from one generator."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor


def uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator, like: Tensor) -> Tensor:
    """Draw uniform numbers on the generator's device, for use beside ``like``."""
    drawn = torch.empty(shape, device=generator.device).uniform_(low, high, generator=generator)
    return drawn.to(like.device, like.dtype)


def normal(shape: tuple[int, ...], std: float, generator: torch.Generator, like: Tensor) -> Tensor:
    """Draw normal numbers of mean 0 on the generator's device, for use beside ``like``."""
    drawn = torch.empty(shape, device=generator.device).normal_(0, std, generator=generator)
    return drawn.to(like.device, like.dtype)


@contextmanager
def global_draws(generator: torch.Generator, like: Tensor) -> Iterator[None]:
    """Seed PyTorch's global generators from ``generator``, for libraries that draw from those; restore them after."""
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with torch.random.fork_rng([like.device] if like.device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def filter_each(images: Tensor, kernels: Tensor) -> Tensor:
    """Correlate each picture with a kernel of its own, the same for all its channels; borders are repeated.

    images: (count, channels, height, width); kernels: (count, k, k) with k odd. In full precision.
    """
    margin = kernels.shape[-1] // 2
    padded = F.pad(images, (margin,) * 4, mode="replicate").transpose(0, 1)
    with torch.autocast(images.device.type, enabled=False):  # pictures have eight bits, bfloat16 keeps eight or nine
        return F.conv2d(padded, kernels[:, None], groups=len(kernels)).transpose(0, 1)
