"""Random numbers that depend on a seed and on what they are for, and on nothing drawn before.

So a run goes on from any step exactly as if it had never stopped, with no generator's state to keep.
"""

import hashlib

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
