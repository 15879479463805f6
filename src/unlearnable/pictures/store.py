"""What the places where pictures lie have in common.

A *source* is a folder of picture files or of container files (parquet, tar, npz, CIFAR batches). A container is read
and rewritten block by block, so that memory does not grow with its size.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK: Final = 256
"""Pictures in a block, at most."""

BLOCK_BYTES: Final = 1 << 26
"""Bytes of pictures in a block, unless one alone is larger."""

_READ: Final = ".jpg .jpeg .jpe .jfif .png .apng .webp .tif .tiff .bmp .gif .ppm .pgm .pbm .jp2 .avif"
_REPORTED: Final = ".heic .heif .jxl .dng .cr2 .cr3 .nef .arw .orf .raf .rw2"  # not read, but never passed over
PICTURE_SUFFIXES: Final = frozenset(f"{_READ} {_REPORTED}".split())
"""What the names of picture files end in, in lower case."""


class Entry(NamedTuple):
    """One picture, before anything of it is decoded.

    id: stable and unique: its path, relative to the source, with ``/``; inside a container the container's path,
        ``/``, and its name or number there.
    label: its class's name.
    error: why it cannot be protected, if that is known already.
    """

    id: str
    label: str
    error: str | None = None


@dataclass
class Block:
    """Some pictures of one container, in its order.

    ``payloads`` is a list of encoded picture files (None: a picture that cannot be had, or could not be protected),
    or an array (count, height, width, channels) of uint8 or uint16.
    """

    ids: list[str]
    labels: list[str]
    payloads: list[bytes | None] | NDArray[np.unsignedinteger[Any]]


Transform = Callable[[Block], Block]
"""Takes a block, returns one of the same ids with other payloads."""


def transform_array(block: Block, transform: Transform) -> NDArray[np.unsignedinteger[Any]]:
    """Transform a block that holds an array. Raises ValueError where the new array has another shape or type."""
    old, new = block.payloads, transform(block).payloads
    shape, answer = [(array.shape, array.dtype) if isinstance(array, np.ndarray) else None for array in (old, new)]
    if shape != answer or not isinstance(new, np.ndarray):
        raise ValueError(f"expected a transform that returns {shape} for {shape}, found {answer}")
    return new


class Container(ABC):
    """One file that holds many pictures. Nothing is ever unpickled, extracted or trusted beyond what is checked."""

    def __init__(self, path: Path, name: str) -> None:
        """Take the file, and its name relative to the source, which begins the ids of its pictures."""
        self.path = path
        self.name = name

    @property
    @abstractmethod
    def class_names(self) -> Sequence[str] | None:
        """The classes in the order of their labels, where the file says so; None where only names are known."""

    @abstractmethod
    def scan(self) -> Iterator[Entry]:
        """List the pictures, decoding none. Raises InputError for a file that is not what it claims to be."""

    @abstractmethod
    def read(self) -> Iterator[Block]:
        """Read the pictures, at most :data:`BLOCK` at a time (fewer if they are large)."""

    @abstractmethod
    def rewrite(self, target: Path, transform: Transform) -> None:
        """Write a copy in which only the pictures differ. The same pictures give the same bytes.

        A picture whose new payload is None is left out; where the format must keep its row, the row holds none.
        """
