"""What every countermeasure is: what somebody who scraped a data set does to its pictures to learn from them anyway.

It knows the published pictures, their labels and the model being trained; never which protection was used, and no
clean original unless one has leaked (:class:`Leak`), or is among the few that are labelled to rename classes by. It
may act once, before training, or on every batch, after crop and flip; and it may ask for the same treatment of test
pictures.
"""

import re
from abc import ABC
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unlearnable.errors import expected
from unlearnable.registry import Registry
from unlearnable.workers import cores

_PIECE: Final = 2**22  # samples worked on at a time: what is floating point stays small, whatever the data set
_PATIENCE: Final = 10  # batches in which a countermeasure has to change something

BatchChange = Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]
"""``(model, images, labels, generator) -> images``, fresh for every batch: images are (count, channels, height, width)
floats on the 0 to 1 scale, labels (count,) integers. Draws from the generator alone, and leaves the model and the
images given to it as they were. One with a state is an ``nn.Module`` that keeps it in buffers."""


@dataclass(frozen=True, eq=False)
class Leak:
    """Clean originals of some published pictures, as many as have come into a scraper's hands.

    index: (n,) places of the published pictures. images: (n, height, width, channels) uint8, in the same order.
    """

    index: NDArray[np.int64]
    images: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Published:
    """All that a scraper has: pictures (count, height, width, 1 or 3) uint8, and labels (count,) below ``classes``."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: int
    leaked: Leak | None = None

    def __post_init__(self) -> None:
        shape = self.images.shape
        if len(shape) != 4 or shape[-1] not in (1, 3) or 0 in shape or self.images.dtype != np.uint8:
            found = f"{self.images.dtype} of shape {shape}"
            raise expected("pictures as (count, height, width, 1 or 3) in uint8", found, "convert them")
        if self.labels.shape != shape[:1] or self.labels.dtype.kind not in "iu":
            found = f"{self.labels.dtype} of shape {self.labels.shape}"
            raise expected(f"{shape[0]} integer labels, one a picture", found, "give one label a picture")
        if self.labels.min() < 0 or self.labels.max() >= self.classes:
            found = f"{self.labels.min()} to {self.labels.max()}"
            raise expected(f"labels from 0 to {self.classes - 1}", found, "number the classes from 0")
        if self.leaked is not None:
            index, images = self.leaked.index, self.leaked.images
            if images.shape != (len(index), *shape[1:]) or images.dtype != np.uint8:
                found = f"{images.dtype} of shape {images.shape}"
                raise expected(f"{len(index)} leaked originals, uint8, of {shape[1:]}", found, "make them alike")
            if len(index) and not 0 <= index.min() <= index.max() < shape[0]:
                found = f"{index.min()} to {index.max()}"
                raise expected(f"places of leaked pictures from 0 to {shape[0] - 1}", found, "number pictures from 0")


class Countermeasure(ABC):
    """A change of pictures, with its parameters: the fields of the subclass, a frozen keyword-only dataclass.

    A subclass overrides what it does, and nothing else; :func:`compose` checks that it does something.
    """

    name: ClassVar[str]
    main: ClassVar[str | None] = None
    """The parameter that a number behind the name stands for, as in ``jpeg-10``."""

    def clean(self, published: Published, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return all the published pictures, changed: once, before training."""
        return published.images

    def at_test(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return test pictures, (count, height, width, channels) uint8, as the scraper feeds them to the model."""
        return images

    def every_batch(self, classes: int) -> BatchChange | None:
        """Return what changes each batch of training, or None where nothing does."""
        return None

    def spec(self) -> dict[str, object]:
        """Return everything that decides what it does, for JSON."""
        return {"name": self.name, **asdict(self)}  # type: ignore[call-overload]

    def __str__(self) -> str:
        """Write the name that :func:`named` takes, with the main parameter unless it has its default."""
        if self.main is None:
            return self.name
        value = getattr(self, self.main)
        return self.name if value == _default(type(self), self.main) else f"{self.name}-{value:g}"


countermeasures: Registry[Countermeasure] = Registry("countermeasure")


@dataclass(frozen=True, kw_only=True)
class Composition(Countermeasure):
    """Countermeasures one after another: first what is done once, then what is done to every batch, each in order.

    Checks each of them: one that leaves every picture as it was is an error, not a row in a table.
    """

    parts: tuple[Countermeasure, ...]

    def __post_init__(self) -> None:
        names = [part.name for part in self.parts]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise expected("each countermeasure once", f"{twice!r} twice in {str(self)!r}", "leave one out")
        if "none" in names and len(names) > 1:
            raise expected("none by itself", repr(str(self)), "leave none out")
        if not names:
            raise expected("at least one countermeasure", "none at all", "for none, write: none")

    def clean(self, published: Published, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Change the pictures by every part that acts once. Raises InputError where a part changes none of them."""
        for part, stream in zip(self.parts, rng.spawn(len(self.parts)), strict=True):
            if type(part).clean is Countermeasure.clean:
                continue
            images = part.clean(published, stream)
            if np.array_equal(images, published.images):
                raise _no_change(part)
            published = replace(published, images=images)
        return published.images

    def at_test(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Change test pictures by every part that asks for it, in order."""
        for part in self.parts:
            images = part.at_test(images)
        return images

    def every_batch(self, classes: int) -> "Chain | None":
        """Return the parts that act on every batch, in order, as one module."""
        changes = [(part, part.every_batch(classes)) for part in self.parts]
        active = [(part, change) for part, change in changes if change is not None]
        return Chain(active) if active else None

    def spec(self) -> dict[str, object]:
        """Return the parts' specs, in order."""
        return {"parts": [part.spec() for part in self.parts]}

    def __str__(self) -> str:
        return "+".join(map(str, self.parts))


class Chain(nn.Module):
    """Changes of a batch, one after another; without gradients.

    Raises InputError when one of them has left its first ten batches exactly as they were.
    """

    def __init__(self, changes: Sequence[tuple[Countermeasure, BatchChange]]) -> None:
        super().__init__()
        self._changes = list(changes)
        self._unchanged: list[int | None] = [0] * len(changes)  # batches so far; None once a change was seen
        for part, change in changes:
            if isinstance(change, nn.Module):
                self.add_module(part.name, change)

    def forward(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Change a batch (see :data:`BatchChange`)."""
        with torch.no_grad():
            for number, (part, change) in enumerate(self._changes):
                before, images = images, change(model, images, labels, generator)
                count = self._unchanged[number]
                if count is not None:
                    self._unchanged[number] = count + 1 if torch.equal(before, images) else None
                    if count + 1 == _PATIENCE and self._unchanged[number] is not None:
                        raise _no_change(part)
        return images


def compose(*parts: Countermeasure) -> Composition:
    """Put countermeasures together; also the way to have a single one checked."""
    return Composition(parts=parts)


def named(text: str) -> Composition:
    """Read a name: countermeasures joined by ``+``, each with a number behind its name if wanted.

    >>> from unlearnable.countermeasures import named
    >>> named("grayscale+coin+jpeg-30").parts
    (Grayscale(), Coin(alpha=2.0), Jpeg(quality=30))
    >>> str(named("jpeg-10+coin-1.6"))
    'jpeg+coin-1.6'

    Raises InputError for an unknown name, one that is there twice, and ``none`` beside others.
    """
    return compose(*(_part(word) for word in text.split("+")))


def _part(word: str) -> Countermeasure:
    found = re.fullmatch(r"(.+)-(\d+(?:\.\d+)?)", word)
    if found is None or word in countermeasures:
        return countermeasures.create(word)
    name, number = found.groups()
    kind: Any = countermeasures.builder(name)
    if kind.main is None:
        raise expected(f"{name} without a number", repr(word), f"write: {name}")
    whole = isinstance(_default(kind, kind.main), int)
    if whole and "." in number:
        raise expected(f"a whole number behind {name}", repr(word), f"write: {name}-{float(number):.0f}")
    return countermeasures.create(name, **{kind.main: int(number) if whole else float(number)})


def _default(kind: type[Any], name: str) -> Any:
    field = next(field for field in fields(kind) if field.name == name)
    assert field.default is not MISSING  # noqa: S101 - a main parameter has a default
    return field.default


def _no_change(part: Countermeasure) -> Exception:
    found = f"that {part} leaves every picture as it was"
    return expected("a countermeasure that changes pictures", found, "leave it out, or give it a stronger setting")


def by_pieces(
    change: Callable[..., NDArray[Any]], images: NDArray[np.uint8], *beside: NDArray[Any]
) -> NDArray[np.uint8]:
    """Change pictures a piece at a time, on every core; return them as uint8, rounded and clipped.

    ``change`` is given some of the pictures, and those of whatever arrays stand ``beside`` them, such as labels; it
    returns the pictures' values on the 0 to 255 scale.
    """
    out = np.empty(images.shape, np.uint8)

    def work(part: slice) -> None:
        changed = change(images[part], *(array[part] for array in beside))
        out[part] = changed if changed.dtype == np.uint8 else np.clip(np.rint(changed), 0, 255)

    with ThreadPoolExecutor(cores()) as pool:
        for done in [pool.submit(work, part) for part in pieces(images)]:
            done.result()
    return out


def pieces(images: NDArray[np.uint8]) -> list[slice]:
    """Cut pictures, (count, height, width, channels), into pieces small enough to work on in floating point."""
    step = max(1, _PIECE // max(1, images[0].size)) if len(images) else 1
    return [slice(start, start + step) for start in range(0, len(images), step)]
