"""Training pictures in batches: held on the device if they fit, streamed from a file mapped into memory if not."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def batches(
    images: NDArray[np.uint8], device: torch.device, indices: Iterable[Tensor]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield each index (count,) of ``indices``, pictures on the device, and where in them (count,) the batch's own are.

    images: (all, height, width, channels) uint8, in memory or mapped into it. What is mapped, or too large for half
    of a GPU's free memory, is read a batch at a time, one batch ahead of the one worked on.
    """
    if not _streamed(images, device):
        held = torch.from_numpy(np.ascontiguousarray(images)).to(device)
        for index in indices:
            yield index, held, index.to(device)
        return

    def read(index: Tensor) -> tuple[Tensor, Tensor]:
        return index, torch.from_numpy(images[index.numpy()])

    with ThreadPoolExecutor(1) as reader:
        ahead = None
        for coming in (reader.submit(read, index) for index in indices):
            if ahead is not None:
                yield _placed(*ahead.result(), device)
            ahead = coming
        if ahead is not None:
            yield _placed(*ahead.result(), device)


def _streamed(images: NDArray[np.uint8], device: torch.device) -> bool:
    if isinstance(images, np.memmap):
        return True
    return device.type == "cuda" and images.nbytes > torch.cuda.mem_get_info(device)[0] // 2


def _placed(index: Tensor, batch: Tensor, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    return index, batch.to(device), torch.arange(len(batch), device=device)
