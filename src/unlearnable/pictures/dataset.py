"""Data sets in memory: pictures of one size with their labels, from whatever holds pictures."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from unlearnable.errors import InputError, expected
from unlearnable.pictures import cache, codec
from unlearnable.pictures.folder import Folder
from unlearnable.pictures.samples import Samples, coloured, eight_bit, square, upright
from unlearnable.pictures.source import CONTAINER_SUFFIXES, Containers, Payload, class_order, open_source, payloads
from unlearnable.pictures.store import Entry
from unlearnable.workers import Lost, Pool, cores

Skipped = tuple[tuple[str, str], ...]
"""Pictures that are not there: id and reason."""

_NAMED: Final = 3  # pictures that a message names
_FEW: Final = 256  # pictures, for which no workers are started
_CHUNK: Final = 1 << 24  # bytes that are hashed at a time
_DECODING: Final = 1  # raised when other pixels are made of the same files

_log = logging.getLogger(__name__)


class Change(Protocol):
    """What is done to pictures as they are stored, whatever their size, before they are turned or scaled.

    It is sent to other processes.
    """

    @property
    def digest(self) -> str:
        """What tells it from every other change."""
        ...

    def __call__(self, samples: Samples, entry: Entry) -> Samples:
        """Return new samples of a picture, of the same shape and type."""
        ...


@dataclass(frozen=True, eq=False)
class Dataset:
    """Pictures of one size.

    images: (count, height, width, 1 or 3) uint8, in memory or a memory map that can only be read.
    labels: (count,) int64, each the place of a class in ``class_names``.
    ids: stable and unique: the paths of the pictures, relative to where they were loaded from.
    skipped: pictures of the source that could not be read.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    ids: tuple[str, ...]
    skipped: Skipped = ()

    def __post_init__(self) -> None:
        """Raise ValueError where the parts do not fit each other."""
        images, labels = self.images, self.labels
        if images.ndim != 4 or images.shape[3] not in (1, 3) or images.dtype != np.uint8:
            found = f"{images.dtype} of shape {images.shape}"
            raise ValueError(f"expected uint8 pictures as (count, height, width, 1 or 3), found {found}")
        if labels.shape != images.shape[:1] or labels.dtype != np.int64:
            raise ValueError(f"expected {len(images)} int64 labels, found {labels.dtype} of shape {labels.shape}")
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.class_names):
            found = f"{labels.min()} to {labels.max()}"
            raise ValueError(f"expected labels from 0 to {len(self.class_names) - 1}, found {found}")
        if len(self.ids) != len(images):
            raise ValueError(f"expected {len(images)} ids, found {len(self.ids)}")

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, index: NDArray[np.integer[Any]] | NDArray[np.bool_] | slice) -> "Dataset":
        """Take some of the pictures, in the order of an index; ``skipped`` stays."""
        places = np.arange(len(self))[index]
        ids = tuple(self.ids[place] for place in places)
        return replace(self, images=self.images[index], labels=self.labels[index], ids=ids)

    def limit(self, count: int) -> "Dataset":
        """Take ``count`` pictures, or all if there are fewer: the first of each class in turn, in their order here.

        Raises InputError for a count below 1.
        """
        return self if count >= len(self) else self.select(_balanced(self.labels, count))

    def fingerprint(self) -> str:
        """Return the SHA-256 of pictures, labels and class names, in hexadecimal. The ids do not matter."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        about = {"shape": self.images.shape, "class_names": self.class_names}
        digest = hashlib.sha256(json.dumps(about).encode())
        digest.update(self.labels.astype("<i8").tobytes())
        step = max(1, _CHUNK // max(1, self.images[:1].nbytes))
        for start in range(0, len(self), step):
            digest.update(np.ascontiguousarray(self.images[start : start + step]).data)
        return digest.hexdigest()


def load(
    path: str | os.PathLike[str],
    *,
    classes: str = "folder",
    size: int | None = None,
    limit: int | None = None,
    in_memory: int | None = None,
    turned: bool = True,
    change: Change | None = None,
) -> Dataset:
    """Load the pictures of a source as people see them: upright, 8 bits, without alpha, CMYK as RGB.

    All are grey (one channel) if all of the source's are; otherwise all have three. A picture that cannot be read is
    left out, logged as a warning, and named in ``skipped``.

    path: a folder with a subfolder a class, a flat folder, a parquet, tar or npz file or a folder of such, or one of
        CIFAR batches.
    classes: "folder", "single" or the path of a CSV file of path,label (see :class:`Folder`).
    size: of the square that the middle of each picture is scaled to. Without it all must have one size.
    limit: pictures, at most, the first of each class in turn; by default all.
    in_memory: bytes of pictures, at most, that are held in memory; by default half of what the machine has. A larger
        set is decoded once into a file in the user's cache folder, and mapped from there.
    turned: upright; False leaves pictures as they are stored, which is how protections are applied.
    change: done to each picture first.

    Raises InputError where there are no pictures, none can be read, or their sizes differ.
    """
    path = Path(path)
    if size is not None and size < 1:
        raise expected("a size of 1 pixel or more", str(size), "leave it out to keep the pictures' own")
    source = open_source(path, classes)
    found = list(source.scan())
    skipped = [(entry.id, entry.error) for entry, _ in found if entry.error is not None]
    good = [(entry, stamp) for entry, stamp in found if entry.error is None]
    names = tuple(class_order(source, {entry.label for entry, _ in good}))
    places = {name: place for place, name in enumerate(names)}
    while True:
        if not good:
            raise _none_readable(path, skipped)
        labels = np.array([places[entry.label] for entry, _ in good], np.int64)
        chosen = good
        if limit is not None:
            index = _balanced(labels, limit)
            chosen, labels = [good[place] for place in index], labels[index]
        images, failures = _images(source, chosen, _Wanted(size, turned, change), in_memory)
        skipped += failures.items()
        if not failures or len(chosen) == len(good):
            break
        good = [(entry, stamp) for entry, stamp in good if entry.id not in failures]  # others take their places
    if not len(images):
        raise _none_readable(path, skipped)
    if skipped:
        _log.warning("%d of %d pictures in %s cannot be read: %s", len(skipped), len(found), path, _some(skipped))
    kept = [place for place, (entry, _) in enumerate(chosen) if entry.id not in failures]
    return Dataset(images, labels[kept], names, tuple(chosen[place][0].id for place in kept), tuple(skipped))


def _balanced(labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the places of the first ``count`` pictures if the classes take turns, in ascending order."""
    if count < 1:
        raise expected("a limit of 1 picture or more", str(count), "leave it out to take all")
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    turns = np.empty_like(order)
    turns[order] = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return np.sort(np.lexsort((labels, turns))[:count])


def _none_readable(path: Path, skipped: Sequence[tuple[str, str]]) -> InputError:
    found = f"none among {len(skipped)}: {_some(skipped)}" if skipped else "none"
    return expected(f"pictures that can be read in {path}", found, "check the path and the files")


def _some(skipped: Sequence[tuple[str, str]]) -> str:
    named = [f"{id_!r} ({reason})" for id_, reason in skipped[:_NAMED]]
    return ", ".join(named) + (" ..." if len(skipped) > _NAMED else "")


class _Wanted(NamedTuple):
    """What is made of pictures: the side of a square, if one was named; upright, or as stored; a change before both."""

    size: int | None
    turned: bool
    change: Change | None

    def about(self) -> list[int | bool | str | None]:
        """Return what tells it from others."""
        return [self.size, self.turned, *([] if self.change is None else [self.change.digest])]

    def changed(self, samples: Samples, entry: Entry) -> Samples:
        """Return a picture's samples as they are, or changed."""
        return samples if self.change is None else self.change(samples, entry)


Chosen = Sequence[tuple[Entry, str | None]]
"""Pictures, and what tells whether their files have changed."""


def _images(
    source: Folder | Containers, chosen: Chosen, wanted: _Wanted, in_memory: int | None
) -> tuple[NDArray[np.uint8], dict[str, str]]:
    """Decode pictures into one array; return it, and by id why some of them are not in it."""
    about = [_DECODING, str(source.root.resolve()), *wanted.about(), [(entry.id, stamp) for entry, stamp in chosen]]
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()
    if (kept := cache.find(key)) is not None:
        return kept
    pictures = _decoded(source, [entry for entry, _ in chosen], wanted)
    with cache.Making(key, in_memory) as making:
        images, failures = _gathered(pictures, len(chosen), making.allocate)
        return making.keep(images, failures), failures


def _gathered(
    pictures: Iterable[tuple[Entry, NDArray[np.uint8] | str]],
    count: int,
    allocate: Callable[[tuple[int, ...]], NDArray[np.uint8]],
) -> tuple[NDArray[np.uint8], dict[str, str]]:
    """Write pictures into one array, ``count`` at most. Raises InputError where their sizes differ."""
    images = np.empty((0, 1, 1, 1), np.uint8)
    failures: dict[str, str] = {}
    done = 0
    for entry, pixels in pictures:
        if isinstance(pixels, str):
            failures[entry.id] = pixels
            continue
        if not done:
            first, images = entry.id, allocate((count, *pixels.shape))
        elif pixels.shape[:2] != images.shape[1:3]:
            found = f"e.g. {_shape(images[0])} ({first!r}) and {_shape(pixels)} ({entry.id!r})"
            raise expected("pictures of one size", found, "say --size N to scale their middles to N x N")
        elif pixels.shape[2] > images.shape[3]:  # the first that is not grey
            grey, images = images, allocate((*images.shape[:3], 3))
            images[:done] = grey[:done]
        images[done] = pixels
        done += 1
    return images[:done], failures


def _shape(pixels: NDArray[np.uint8]) -> str:
    return f"{pixels.shape[-2]}x{pixels.shape[-3]}"


def _decoded(
    source: Folder | Containers, entries: Sequence[Entry], wanted: _Wanted
) -> Iterator[tuple[Entry, NDArray[np.uint8] | str]]:
    """Go through pictures, decoded, or why they cannot be."""
    for are_arrays, pictures in groupby(payloads(source, entries), lambda item: isinstance(item[1], np.ndarray)):
        with Pool(_read, wanted, 0 if are_arrays or len(entries) <= _FEW else cores()) as pool:
            for (entry, _), pixels in pool.map(pictures, _bytes):
                yield entry, str(pixels) if isinstance(pixels, Lost) else pixels


def _bytes(task: tuple[Entry, Payload]) -> int:
    """Return the size of an encoded picture."""
    _, payload = task
    try:
        return os.stat(payload).st_size if isinstance(payload, str) else len(payload or b"")
    except OSError:
        return 0


def _read(wanted: _Wanted, task: tuple[Entry, Payload]) -> NDArray[np.uint8] | str:
    """Read and decode one picture, or say why that cannot be: what the workers do."""
    entry, payload = task
    try:
        if isinstance(payload, np.ndarray):
            if payload.shape[-1] in (1, 3):
                return seen(wanted.changed(payload, entry), wanted.size)
            return f"it has {payload.shape[-1]} channels, not 1 or 3: save it without alpha"
        data = Path(payload).read_bytes() if isinstance(payload, str) else payload
        if data is None:
            return "it holds no picture"
        picture = codec.decode(data)
        pixels = wanted.changed(picture.pixels, entry)
        return seen(upright(pixels, picture.info.get("exif")) if wanted.turned else pixels, wanted.size)
    except codec.PictureError as error:
        return str(error)
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    except MemoryError:
        return "too large for the memory there is"


def seen(pixels: Samples, size: int | None) -> NDArray[np.uint8]:
    """Return a picture as a data set holds it: one or three channels of 8 bits; of a size, its middle square."""
    whole = coloured(eight_bit(pixels))
    return whole if size is None else square(whole, size)


def match(clean: Dataset, published: Dataset) -> NDArray[np.int64]:
    """Pair two sets by id: return the place in ``published`` of each clean picture.

    Suffixes do not matter, since formats may have changed; nor does the name of the one file that a whole set lies
    in. Raises InputError where the sets differ in more than their pixels and their order.
    """
    _check_classes(clean.class_names, published.class_names)
    keys, others = _keys(clean.ids), _keys(published.ids)
    places = {key: place for place, key in enumerate(others)}
    missing = [id_ for id_, key in zip(clean.ids, keys, strict=True) if key not in places]
    known = set(keys)
    more = [id_ for id_, key in zip(published.ids, others, strict=True) if key not in known]
    if missing or more:
        parts = [f"{len(ids)} {what} ({_listed(ids)})" for ids, what in ((missing, "missing"), (more, "more")) if ids]
        unread = f"; {len(published.skipped)} cannot be read" if published.skipped else ""
        raise expected(
            f"the same {len(clean)} pictures in the clean and the published set",
            " and ".join(parts) + unread,
            "name the two sets that belong together, whole",
        )
    if clean.images.shape[1:] != published.images.shape[1:]:
        raise expected(
            f"published pictures of {_format(clean.images)}, as the clean ones are",
            _format(published.images),
            "say --size N to scale both",
        )
    index = np.array([places[key] for key in keys], np.int64)
    if len(differing := np.flatnonzero(published.labels[index] != clean.labels)):
        first = differing[0]
        found = f"{published.class_names[published.labels[index[first]]]!r} for {clean.ids[first]!r}"
        raise expected(
            f"the class {clean.class_names[clean.labels[first]]!r} as in the clean set",
            f"{found}, one of {len(differing)} that differ",
            "name the two sets that belong together",
        )
    return index


def _check_classes(clean: Sequence[str], published: Sequence[str]) -> None:
    if clean == published:
        return
    only = [(name, "clean") for name in clean if name not in published]
    only += [(name, "published") for name in published if name not in clean]
    found = ", ".join(f"{name!r} in the {where} set only" for name, where in only[:_NAMED]) or "another order"
    raise expected(
        "the same classes in the clean and the published set", found, "name two sets with the same class names"
    )


def _keys(ids: Sequence[str]) -> Sequence[str]:
    """Return what pairs pictures: their ids without suffixes, and without the file that all lie in."""
    top = ids[0].partition("/")[0] + "/" if ids else ""
    if os.path.splitext(top[:-1])[1].lower() in CONTAINER_SUFFIXES and all(id_.startswith(top) for id_ in ids):
        ids = [id_.removeprefix(top) for id_ in ids]
    stems = [os.path.splitext(id_)[0] for id_ in ids]
    return stems if len(set(stems)) == len(stems) else ids


def _listed(ids: Sequence[str]) -> str:
    return ", ".join(repr(id_) for id_ in ids[:_NAMED]) + (" ..." if len(ids) > _NAMED else "")


def _format(images: NDArray[np.uint8]) -> str:
    return f"{_shape(images)} and {images.shape[-1]} channel{'s' if images.shape[-1] > 1 else ''}"
