"""Random numbers that depend on a seed and on what they are for, and on nothing drawn before.

So a run goes on from any step exactly as if it had never stopped, with no generator's state to keep.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derived(seed: int, *purpose: str | int) -> int:
    """Derive a seed of 63 bits for one purpose.

    >>> derived(0, "step", 1) == derived(0, "step", 1), derived(0, "step", 1) == derived(0, "step", 2)
    (True, False)
    """
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(device: torch.device | str, seed: int, *purpose: str | int) -> torch.Generator:
    """Return a generator on a device for one purpose (see :func:`derived`)."""
    return torch.Generator(device).manual_seed(derived(seed, *purpose))


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed PyTorch's global generators for the time being, and have cuDNN give the same numbers each time."""
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        torch.manual_seed(seed)
        yield
