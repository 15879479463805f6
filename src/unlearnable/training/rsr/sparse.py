"""Sparse tensors on disk: a bit a value that tells which are not zero, and those; all of it deflated (RFC 1950)."""

import math
import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from unlearnable.errors import InputError, expected

_LEVEL: Final = 9
_MOST: Final = 1032  # bytes that one deflated byte can stand for
_TYPES: Final = {"float32": torch.float32, "float64": torch.float64, "int64": torch.int64}


def described(tensor: Tensor) -> tuple[str, list[int]]:
    """Return what :func:`unpack` has to know of a tensor: the name of its type, and its shape."""
    return str(tensor.dtype).removeprefix("torch."), list(tensor.shape)


def pack(tensor: Tensor) -> Tensor:
    """Return a tensor's bytes, compressed, as (count,) uint8. Negative zeros become positive ones.

    >>> pack(torch.zeros(10_000)).numel() < 50
    True
    """
    flat = np.ascontiguousarray(tensor.detach().cpu().numpy()).ravel()
    there = flat != 0
    content = np.packbits(there).tobytes() + flat[there].tobytes()
    return torch.from_numpy(np.frombuffer(zlib.compress(content, _LEVEL), np.uint8).copy())


def unpack(packed: Tensor, dtype: str, shape: Sequence[int]) -> Tensor:
    """Return the tensor that :func:`pack` was given; ``dtype`` and ``shape`` as :func:`described` gives them.

    Raises InputError for bytes that are no such tensor's, before memory is taken that they cannot fill.
    """
    if dtype not in _TYPES or math.prod(shape) > 8 * _MOST * packed.numel():
        raise _damaged(f"{packed.numel()} bytes for {dtype} of shape {tuple(shape)}")
    out = torch.zeros(tuple(shape), dtype=_TYPES[dtype])
    flat = out.numpy().reshape(-1)
    bits = -(-flat.size // 8)
    opened = zlib.decompressobj()
    try:
        content = opened.decompress(packed.numpy().tobytes(), bits + flat.nbytes + 1)
    except zlib.error as error:
        raise _damaged(str(error)) from None
    if len(content) < bits:
        raise _damaged("an early end")
    there = np.unpackbits(np.frombuffer(content[:bits], np.uint8), count=flat.size).astype(bool)
    if not opened.eof or len(content) - bits != int(there.sum()) * flat.itemsize:
        raise _damaged("another number of values than it names")
    flat[there] = np.frombuffer(content[bits:], flat.dtype)
    return out


def _damaged(found: str) -> InputError:
    return expected("a compressed tensor", found, "the file is damaged: make it again with: unlearnable export")
