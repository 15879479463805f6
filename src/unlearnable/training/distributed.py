"""Training on several devices: ``torchrun`` starts a process for each, and every process takes a part of each batch."""

import atexit
import importlib
import os
from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn

from unlearnable.errors import expected


def is_first() -> bool:
    """Tell whether this is the process that writes and prints: the only one, or the first of those started."""
    return os.environ.get("RANK", "0") == "0"


class World(NamedTuple):
    """Which process this is, from 0, and how many there are."""

    rank: int
    size: int


def world(device: torch.device) -> World:
    """Join the other processes that ``torchrun`` has started, if it has."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return World(0, 1)
    if not distributed.is_initialized():
        # Optimizers import this, and its functions' defaults hold the group of that moment, and so its threads, beyond
        # destroy_process_group: a thread that lets go of a tensor while Python ends aborts the process.
        importlib.import_module("torch.distributed.nn")
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(distributed.destroy_process_group)
        add_up(torch.zeros(1, device=device))  # none with nothing left to do leaves while another is still joining
    return World(distributed.get_rank(), distributed.get_world_size())


def local_device(name: str) -> torch.device:
    """Return the device of this process: of several GPUs, the one that ``torchrun`` means for it.

    Raises InputError for a device that PyTorch does not have here.
    """
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # what PyTorch raises goes by the kind of device
        found = f"{name!r} ({str(error).splitlines()[0]})"
        raise expected("a device that PyTorch has here, such as cpu or cuda", found, "leave it out") from None
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return torch.device(name)


def average_gradients(model: nn.Module) -> None:
    """Replace each gradient by its mean over all processes; in one message, not one a layer."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def add_up(counts: Tensor) -> Tensor:
    """Add up a tensor over all processes."""
    distributed.all_reduce(counts)
    return counts
