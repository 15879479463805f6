"""What every protection is: fitted once with a key, then applied to any number of pictures."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from unlearnable.errors import InputError
from unlearnable.keys import Key
from unlearnable.pictures.samples import Part
from unlearnable.registry import Registry
from unlearnable.workers import cores

ROUNDING: Final = 12**-0.5
"""Standard deviation of what rounding to whole grey levels does."""

Images = NDArray[np.unsignedinteger[Any]]
"""Pictures of one size: (count, height, width, channels), uint8 or uint16, with 1, 3 or 4 colour channels, no alpha."""

Labels = NDArray[np.integer[Any]]
"""(count,) integers: the place of each picture's class in ``class_names``."""

Trace = float | bytes | None

Traces = NDArray[Any]
"""(count,): what it takes, beside the key, to take the protection off each picture: a float64, or an object that is
a number, bytes, or None where it is not known."""


class TraceError(InputError):
    """A picture's trace is none that its protection has written."""

    def __init__(self) -> None:
        super().__init__(
            "expected the manifest as it was written, found the trace of a picture damaged: restore a copy of the"
            " manifest, and unlock to another place"
        )

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()  # workers send it to their parent


class Classed(Protocol):
    """Whatever knows its classes: a data set in memory, or a source of pictures on disk."""

    @property
    def class_names(self) -> Sequence[str]:
        """Every class once, in the order of the labels."""
        ...


class Perturbation(ABC):
    """A fitted protection. Pure: the same picture, class and id give the same bytes, in whatever batch."""

    class_names: Sequence[str]

    def apply(self, images: Images, labels: Labels, ids: Sequence[str]) -> Images:
        """Return the protected pictures, of the same shape, type and range."""
        return self.apply_traced(images, labels, ids)[0]

    @abstractmethod
    def apply_traced(self, images: Images, labels: Labels, ids: Sequence[str]) -> tuple[Images, Traces]:
        """Return the protected pictures and, for each, what :meth:`restore` needs beside the key."""

    @abstractmethod
    def restore(
        self, images: Images, labels: Labels, ids: Sequence[str], traces: Traces, noise: float = ROUNDING
    ) -> Images:
        """Take the protection off again, as well as the stored precision allows.

        ``noise``: standard deviation, in grey levels, of what storing them has done to the protected pictures.

        Raises TraceError where a trace that plays a part is none of this protection.
        """

    @property
    def adds_noise(self) -> bool:
        """Whether noise is added, some of which a lossy format takes away."""
        return False

    def traced_in_loss(
        self, trace: Trace, original: Images, protected: Images, stored: Images, part: Part, label: int, id_: str
    ) -> Trace:
        """Return the trace of a picture that was stored with loss: of noise it tells the share that is left.

        original, protected: (height, width, channels). stored: what is read again of the rows and columns of ``part``;
        it may have other channels or fewer bits.
        """
        return trace

    def noise_left(self, trace: Trace) -> float | None:
        """Return the share of a picture's noise that a lossy format has left; None for one stored without loss."""
        return None

    @abstractmethod
    def digests(self) -> dict[str, str]:
        """Return, by class name, a digest of all that decides what becomes of the class's pictures."""

    @abstractmethod
    def save(self, path: str | Path) -> None:
        """Write a safetensors file. It is as secret as the key."""

    @classmethod
    @abstractmethod
    def load(cls, path: str | Path) -> "Perturbation":
        """Read a file written by :meth:`save`."""


class Protection(ABC):
    """A method, with its parameters."""

    @abstractmethod
    def fit(self, dataset: Classed, key: Key) -> Perturbation:
        """Draw or optimise the perturbation of a data set."""

    @abstractmethod
    def parameters(self) -> dict[str, int | float | str | None]:
        """Everything that decides the result, beside the key: what the manifest records."""


class Layer(Protection):
    """A method that can be a layer of a stack, as strong as a quality budget allows."""

    @abstractmethod
    def scaled(self, share: float) -> Self:
        """Return it at a share, above 0 and at most 1, of its strength, and without what costs quality for nothing.

        A share that is too small for its parameters gives the weakest that they allow.
        """


protections: Registry[Protection] = Registry("protection")


def check_images(images: NDArray[Any], labels: NDArray[Any], classes: int) -> None:
    """Raise ValueError, with what was expected and found, unless pictures and labels fit each other."""
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4) or 0 in images.shape[1:]:
        hint = " (channel-first? transpose(0, 2, 3, 1))" if images.ndim == 4 and images.shape[1] in (1, 3) else ""
        raise ValueError(f"expected pictures as (count, height, width, 1, 3 or 4), found shape {images.shape}{hint}")
    if images.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"expected uint8 or uint16 pictures, found {images.dtype}")
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"expected {len(images)} integer labels, one a picture, found {labels.dtype} of shape {labels.shape}"
        )
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        raise ValueError(f"expected labels from 0 to {classes - 1}, found {labels.min()} to {labels.max()}")


def stored_grey(image: Images) -> bool:
    """Tell whether a picture, (height, width, channels), may have been grey, in a format that knows only colours."""
    return image.shape[2] == 3 and bool((image == image[..., :1]).all())


def in_parallel(work: Callable[[slice], None], count: int, size: int) -> None:
    """Run ``work`` over all of ``range(count)``, on every core if the data, ``size`` bytes, are worth it."""
    pieces = min(count, 8 * cores())
    if pieces < 2 or size < 2**20:
        work(slice(0, count))
        return
    bounds = [count * i // pieces for i in range(pieces + 1)]
    with ThreadPoolExecutor(cores()) as pool:
        for done in [pool.submit(work, slice(a, b)) for a, b in pairwise(bounds)]:
            done.result()
