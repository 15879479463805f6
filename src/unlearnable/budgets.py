"""How far a picture may be changed: balls around it, with their radius on the 0 to 1 pixel scale.

Torch is not imported here; the methods work on torch tensors through their own methods. Each treats every picture of
a batch, (count, ...) floats, by itself.
"""

import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from unlearnable.errors import InputError, expected

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_NOTHING: Final = 1e-30  # squares of lengths below any that counts
_GREY_LEVELS: Final = 255
_NUMBER: Final = r"\d*\.?\d+(?:e-?\d+)?"
_BUDGET: Final = re.compile(
    rf"(?:(?P<norm>linf|l2)\s*[: ]\s*)?(?P<top>{_NUMBER})(?:\s*/\s*(?P<bottom>{_NUMBER}))?", re.IGNORECASE
)


@dataclass(frozen=True)
class Budget(ABC):
    """A ball around each picture, its ``radius`` on the 0 to 1 pixel scale. Raises InputError for one out of range."""

    radius: float

    def __post_init__(self) -> None:
        if not 0 < self.radius < math.inf:
            raise self._mended(f"an {type(self).__name__} radius above 0")

    @classmethod
    def of_255(cls, levels: float) -> Self:
        """Take the radius in grey levels, of which a picture has 255.

        >>> Linf.of_255(8)
        Linf(radius=0.03137254901960784)
        """
        return cls(levels / _GREY_LEVELS)

    def __str__(self) -> str:
        decimal = str(float(self.radius)).removesuffix(".0")
        levels = round(self.radius * _GREY_LEVELS)
        fraction = f"{levels}/{_GREY_LEVELS}"
        exact = self.radius == levels / _GREY_LEVELS
        return f"{type(self).__name__} {fraction if exact and len(fraction) < len(decimal) else decimal}"

    @abstractmethod
    def project(self, delta: "Tensor") -> "Tensor":
        """Return the nearest changes inside the ball."""

    @abstractmethod
    def start(self, images: "Tensor", generator: "torch.Generator | None" = None) -> "Tensor":
        """Draw changes of these pictures, uniform in the ball, on the generator's device and brought to theirs."""

    @abstractmethod
    def step(self, gradient: "Tensor") -> "Tensor":
        """Return the change of size 1 that climbs fastest along a gradient; none where the gradient is zero."""

    def _mended(self, wanted: str) -> InputError:
        return expected(wanted, f"{self.radius:g}", "pixels go from 0 to 1; eight grey levels are 8/255")


class Linf(Budget):
    """Every value changes by at most the radius, which is at most 1.

    >>> print(Linf.of_255(8), "and", Linf(0.05))
    Linf 8/255 and Linf 0.05
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.radius > 1:
            raise self._mended("an Linf radius of at most 1")

    def project(self, delta: "Tensor") -> "Tensor":
        return delta.clamp(-self.radius, self.radius)

    def start(self, images: "Tensor", generator: "torch.Generator | None" = None) -> "Tensor":
        place = generator.device if generator else images.device
        drawn = images.new_empty(images.shape, device=place)
        return drawn.uniform_(-self.radius, self.radius, generator=generator).to(images.device)

    def step(self, gradient: "Tensor") -> "Tensor":
        return gradient.sign()


class L2(Budget):
    """The Euclidean length of the change of a whole picture, over all its channels, is at most the radius.

    >>> print(L2(0.5))
    L2 0.5
    """

    def project(self, delta: "Tensor") -> "Tensor":
        return delta * (self.radius / _length(delta).clamp(min=self.radius))

    def start(self, images: "Tensor", generator: "torch.Generator | None" = None) -> "Tensor":
        place = generator.device if generator else images.device
        direction = images.new_empty(images.shape, device=place).normal_(generator=generator)
        share = images.new_empty((len(images), *[1] * (images.ndim - 1)), device=place).uniform_(generator=generator)
        # The volume within a radius r grows with r to the number of values.
        distance = self.radius * share ** (1 / images[0].numel())
        return (self.step(direction) * distance).to(images.device)

    def step(self, gradient: "Tensor") -> "Tensor":
        # Gradients of a sure network are so small that their squares are zero in float32: scale them up first.
        largest = gradient.abs().amax(tuple(range(1, gradient.ndim)), keepdim=True)
        scaled = gradient / (largest + (largest == 0))
        return scaled / _length(scaled).clamp(min=1)


def parse(text: str) -> Budget:
    """Read a budget as it is typed: a norm, Linf if not given, and a radius, which may be a fraction.

    >>> parse("8/255"), parse("l2:0.5"), parse("Linf 0.05")
    (Linf(radius=0.03137254901960784), L2(radius=0.5), Linf(radius=0.05))

    Raises InputError for anything else.
    """
    match = _BUDGET.fullmatch(text.strip())
    if match is None or float(match["bottom"] or 1) == 0:
        raise expected("a budget such as 8/255, linf:8/255 or l2:0.5", repr(text), "write a norm and a radius")
    kind = L2 if (match["norm"] or "linf").lower() == "l2" else Linf
    return kind(float(match["top"]) / float(match["bottom"] or 1))


def _length(change: "Tensor") -> "Tensor":
    """Measure the Euclidean length of each picture's change: (count, 1, ...)."""
    squares = (change * change).sum(tuple(range(1, change.ndim)), keepdim=True)
    return squares.clamp(min=_NOTHING).sqrt()  # whose derivative at 0 is infinite
