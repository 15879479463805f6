"""Additive noise: a perturbation that holds one small pattern a picture, and one a class for pictures to come."""

import hashlib
import json
import shutil
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from unlearnable.compiled import compiled
from unlearnable.errors import expected
from unlearnable.pictures.borders import folded
from unlearnable.pictures.samples import Part, eight_bit
from unlearnable.protections.base import (
    ROUNDING,
    Images,
    Labels,
    Perturbation,
    Trace,
    TraceError,
    Traces,
    check_images,
    stored_grey,
)
from unlearnable.protections.tensors import pieces, reading_tensors, write_tensors

_FORMAT: Final = "unlearnable-noise-1"
_RUN: Final = 128  # samples that are looked through at a time

Pattern = NDArray[np.int8]
"""(..., height, width, channels) int8, in grey levels of 255: what is added to a picture of the canvas's size."""


class Noise(Perturbation):
    """Noise for pictures that were there when it was made, by id; and for any other of the classes, by class.

    patterns: (count, side, side, channels), in the order of ``ids``; in memory, or mapped from a file.
    by_class: (classes, side, side, channels); zero for a class that had no pictures.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        ids: Sequence[str],
        patterns: Pattern,
        by_class: Pattern,
        *,
        radius: int,
        method: str,
        masking: float = 0,
        path: Path | None = None,
    ) -> None:
        """Take the patterns. radius: in grey levels, the most that any of them changes a sample by.

        masking: how that goes with the contrast of a place (see :func:`unlearnable.protections.masking.masked`), in
        patterns of pictures; 0 for one radius everywhere.

        Raises InputError where the parts do not fit each other.
        """
        if len(patterns) not in (0, len(ids)) or (len(patterns) and patterns.shape[1:] != by_class.shape[1:]):
            raise expected(
                f"noise for {len(ids)} pictures of {_size(by_class)}",
                f"{len(patterns)} of {_size(patterns)}",
                "make it anew for these pictures",
            )
        if len(by_class) != len(class_names):
            found = f"{len(by_class)}"
            raise expected(f"noise for {len(class_names)} classes", found, "make it anew for these pictures")
        self.class_names = tuple(class_names)
        self.ids = tuple(ids)
        self.patterns, self.by_class = patterns, by_class
        self.radius, self.method, self.masking = radius, method, masking
        self.path = path
        self._last: tuple[int, tuple[int, ...], Pattern] | None = None  # class, size and pattern
        self._places = {id_: place for place, id_ in enumerate(self.ids)} if len(patterns) else {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to another process as the name of a file, if there is one: the patterns may be larger than the memory."""
        return (type(self).load, (self.path,)) if self.path is not None else super().__reduce__()  # type: ignore[return-value]

    def _has_own(self, id_: str) -> bool:
        """Tell whether a picture has a pattern of its own, beside that of its class."""
        return id_ in self._places

    def pattern(self, label: int, id_: str) -> Pattern:
        """Return the pattern of one picture, on the canvas. Raises InputError where its class has none."""
        place = self._places.get(id_)
        found: Pattern = self.by_class[label] if place is None else self.patterns[place]
        if place is None and not found.any():
            wanted = f"noise for {id_!r} of the class {self.class_names[label]!r}"
            remedy = "protect the pictures of that class into a destination of their own"
            raise expected(wanted, "none, since that class had no pictures when it was made", remedy)
        return found

    def apply_traced(self, images: Images, labels: Labels, ids: Sequence[str]) -> tuple[Images, Traces]:
        """Add each picture's noise, brought to the picture's size; the traces tell what was cut off, as bytes."""
        check_images(images, labels, len(self.class_names))
        out, traces = np.empty_like(images), np.empty(len(images), object)
        for n, (image, label, id_) in enumerate(zip(images, labels.tolist(), ids, strict=True)):
            pattern = self._carried(label, id_, image.shape)
            out[n], traces[n] = _added(image, pattern)
        return out, traces

    def _carried(self, label: int, id_: str, shape: tuple[int, ...]) -> Pattern:
        """Return the pattern of one picture, at its size; the last of a class is kept for the next of its size."""
        if self._has_own(id_):
            return carried(self.pattern(label, id_), shape)
        last = self._last
        if last is None or last[:2] != (label, shape):
            self._last = last = (label, shape, carried(self.pattern(label, id_), shape))
        return last[2]

    def restore(
        self, images: Images, labels: Labels, ids: Sequence[str], traces: Traces, noise: float = ROUNDING
    ) -> Images:
        """Take the noise off: exactly, where pictures were stored without loss and their traces are known.

        Where a trace is a number, that share of the noise is taken off; where it is None, all of it, and samples that
        were cut off come back as near as they can.
        """
        check_images(images, labels, len(self.class_names))
        out = np.empty_like(images)
        for n, (image, label, id_, trace) in enumerate(zip(images, labels.tolist(), ids, traces, strict=True)):
            pattern = self.pattern(label, id_)
            before, exact = _removed(image, carried(pattern, image.shape), trace)
            if stored_grey(image):
                grey = image[..., :1]  # as which it may have been protected
                of_grey, exact_of_grey = _removed(grey, carried(pattern, grey.shape), trace)
                if exact_of_grey or not exact:
                    before = of_grey
            out[n] = before
        return out

    def before(self, protected: Images, label: int, id_: str, part: Part) -> Images:
        """Return a part of a picture, (height, width, channels), as it was without noise.

        Samples at an end of the range, which may have been cut off, are returned as they are.
        """
        full = int(np.iinfo(protected.dtype).max)
        levels = self._carried(label, id_, protected.shape)[part].astype(np.int32) * (full // 255)
        stored = protected[part]
        before: Images = np.where((stored == 0) | (stored == full), stored, stored - levels).astype(stored.dtype)
        return before

    @property
    def adds_noise(self) -> bool:
        """It does."""
        return True

    def traced_in_loss(
        self, trace: Trace, original: Images, protected: Images, stored: Images, part: Part, label: int, id_: str
    ) -> Trace:
        """Return the share of the noise that is left."""
        return share_left(original[part], protected[part], stored)

    def noise_left(self, trace: Trace) -> float | None:
        """Return the trace, if it is such a share."""
        return trace if isinstance(trace, float) else None

    def digests(self) -> dict[str, str]:
        """Return a digest of each class's noise, by class name; it tells nothing about it."""
        common = hashlib.sha256(self.method.encode())
        for piece in pieces(self.patterns):
            common.update(piece)
        return {
            name: hashlib.sha256(common.digest() + np.ascontiguousarray(self.by_class[label]).tobytes()).hexdigest()
            for label, name in enumerate(self.class_names)
        }

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, piece by piece: the noise need not fit into memory. It is as secret as the key."""
        names = np.frombuffer(json.dumps(self.ids).encode(), np.uint8)
        about = {
            "format": _FORMAT,
            "class_names": json.dumps(self.class_names),
            "radius": str(self.radius),
            "method": self.method,
        }
        if self.masking:
            about["masking"] = str(self.masking)
        write_tensors(Path(path), {"noise": self.patterns, "classes": self.by_class, "ids": names}, about)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Map noise written by :meth:`save` into memory. Raises InputError for any other file."""
        path = Path(path)
        with reading_tensors(path, _FORMAT, "noise", "make it again") as (file, about):
            ids = json.loads(file.get_tensor("ids").tobytes())
            by_class = file.get_tensor("classes")
            shape = tuple(file.get_slice("noise").get_shape())
            kinds = {file.get_slice(name).get_dtype() for name in ("noise", "classes")}
            names, radius, method = json.loads(about["class_names"]), int(about["radius"]), about["method"]
            masking = float(about.get("masking", 0))
            with path.open("rb") as raw:
                length = int.from_bytes(raw.read(8), "little")
                start = json.loads(raw.read(length))["noise"]["data_offsets"][0]
            if kinds != {"I8"} or by_class.ndim != 4 or by_class.shape[1] != by_class.shape[2]:
                raise ValueError(f"{by_class.dtype} of {_size(by_class)}, no square patterns of int8")
            if by_class.shape[3] not in (1, 3):
                raise ValueError(f"patterns of {by_class.shape[3]} channels")
            if not all(isinstance(name, str) for name in (*names, *ids)):
                raise ValueError("names that are no text")
        patterns = (
            np.memmap(path, np.int8, "r", 8 + length + start, shape) if np.prod(shape) else np.empty(shape, np.int8)
        )
        return cls(names, ids, patterns, by_class, radius=radius, method=method, masking=masking, path=path)


def _size(pattern: Pattern) -> str:
    return " x ".join(map(str, pattern.shape[1:]))


def carried(pattern: Pattern, shape: tuple[int, ...]) -> Pattern:
    """Bring a canvas's pattern (side, side, channels) to a picture of (height, width, channels).

    The canvas is what :func:`unlearnable.pictures.samples.square` cuts out of the middle of the scaled picture;
    beyond it the pattern is mirrored. It is scaled bilinearly and rounded, and never gets larger. A grey picture takes
    the mean of the colours; the black of a CMYK picture is left alone, so that no colour it stands for changes by more.
    """
    height, width, channels = shape
    side = pattern.shape[0]
    if channels == 1 and pattern.shape[2] == 3:
        pattern = np.rint(pattern.mean(2, keepdims=True)).astype(np.int8)
    elif channels >= 3 and pattern.shape[2] == 1:
        pattern = np.repeat(pattern, 3, axis=2)
    if (height, width) != (side, side):
        scaled = [side * length // min(height, width) for length in (height, width)]
        down, across = (folded(np.arange(length) - (length - side) // 2, side) for length in scaled)
        whole = np.ascontiguousarray(pattern[down[:, None], across])
        pattern = np.empty((height, width, whole.shape[2]), np.int8)
        resample(whole, *_taps(scaled[0], height), *_taps(scaled[1], width), pattern)
    if channels == 4:
        pattern = np.concatenate([pattern, np.zeros_like(pattern[..., :1])], 2)
    return pattern


@lru_cache(8)
def _taps(before: int, after: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return where a line's samples begin that make up each sample of the scaled line, (after,), and their weights.

    Bilinear: weights, (after, taps), fall with the distance; scaled down, a sample takes as many times more neighbours.
    """
    scale = before / after
    reach = max(scale, 1.0)
    centres = (np.arange(after) + 0.5) * scale
    first = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + reach + 0.5).astype(np.int64), before)
    weights, total = np.zeros((after, (last - first).max())), np.zeros(after)
    for tap in range(weights.shape[1]):
        distance = np.abs((first + tap - centres + 0.5) * (1 / reach))
        weights[:, tap] = np.where((distance < 1) & (first + tap < last), 1 - distance, 0)
        total += weights[:, tap]  # in one order, so that the last bit is the same on every machine
    return first, weights / total[:, None]


def _resample(
    pattern: Pattern,
    first_down: NDArray[np.int64],
    down: NDArray[np.float64],
    first_across: NDArray[np.int64],
    across: NDArray[np.float64],
    out: Pattern,
) -> None:
    """Scale a pattern to (height, width, channels), by :func:`_taps` of both directions, and round it.

    What Pillow's bilinear filter makes of it, in a fifth of the time, and with sums in one order on every machine. Most
    lines of patches equal the one before: where all rows under a line's weights are equal, their weighted mean is that
    row as a float32, whatever the weights, and so the line before is copied.
    """
    height, width, channels = out.shape
    rows = np.empty((pattern.shape[0], width * channels), np.float32)
    first_alike = np.arange(pattern.shape[0])  # of each row, the first of the run of equal rows that it is in
    for y in range(pattern.shape[0]):
        if y and (pattern[y] == pattern[y - 1]).all():
            rows[y], first_alike[y] = rows[y - 1], first_alike[y - 1]
            continue
        for x in range(width):
            for c in range(channels):
                total = 0.0
                for tap in range(across.shape[1]):
                    if across[x, tap]:  # others may lie beyond the pattern
                        total += pattern[y, first_across[x] + tap, c] * across[x, tap]
                rows[y, x * channels + c] = total
    flat = out.reshape(height, width * channels)
    line = np.empty(width * channels)
    run_before = -1
    for y in range(height):
        first, last = first_down[y], min(first_down[y] + down.shape[1], pattern.shape[0]) - 1
        run = first_alike[first] if first_alike[first] == first_alike[last] else -1
        if run >= 0 and run == run_before:
            flat[y] = flat[y - 1]
            continue
        run_before = run
        line[:] = 0
        for tap in range(down.shape[1]):
            if down[y, tap]:
                row, weight = rows[first + tap], down[y, tap]
                for i in range(line.shape[0]):
                    line[i] += row[i] * weight
        for i in range(line.shape[0]):
            flat[y, i] = np.int8(np.rint(np.float32(line[i])))


resample = compiled(_resample)


def added(image: Images, pattern: Pattern) -> Images:
    """Add noise to a picture, whatever is beyond its range cut off.

    >>> added(np.array([[[250]]], np.uint8), np.array([[[8]]], np.int8)).item()
    255
    """
    return _added(image, pattern)[0]


def _added(image: Images, pattern: Pattern) -> tuple[Images, bytes]:
    """Add noise, and write down how far samples that may have been cut off lay from that end: mostly 0."""
    full = int(np.iinfo(image.dtype).max)
    out, distance = np.empty(image.shape, image.dtype), np.empty(image.size, np.uint16)
    noise = np.ascontiguousarray(np.broadcast_to(pattern, image.shape))
    count = add(
        np.ascontiguousarray(image).reshape(-1), noise.reshape(-1), full // 255, full, out.reshape(-1), distance
    )
    # Level 6 takes eight times as long, for 16 % fewer bytes.
    return out, zlib.compress(distance[:count].astype("<u2").tobytes(), 1) if count else b""


def _add(image: Images, noise: Pattern, scale: int, full: int, out: NDArray[Any], distance: NDArray[np.uint16]) -> int:
    """Add flat noise to a flat picture; put down the distances of those that may have been cut off.

    They are looked for in those runs alone that reach an end of the range: the rest goes through whole vectors.
    """
    # A float32 holds every sum here exactly: 65,535 + 128 x 257 is below 2**24.
    times, end, zero = np.float32(scale), np.float32(full), np.float32(0)
    for i in range(image.shape[0]):
        out[i] = np.int32(min(max(np.float32(image[i]) + np.float32(noise[i]) * times, zero), end))
    count = 0
    for start in range(0, image.shape[0], _RUN):
        least, most = out[start], out[start]
        for after in out[start : start + _RUN]:
            least, most = min(least, after), max(most, after)
        if least == 0 or most == full:
            for i in range(start, min(start + _RUN, image.shape[0])):
                if (out[i] == 0 and noise[i] < 0) or (out[i] == full and noise[i] > 0):
                    distance[count] = abs(np.int64(image[i]) - np.int64(out[i]))
                    count += 1
    return count


add = compiled(_add, reorder=True)


def _removed(protected: Images, pattern: Pattern, record: Trace) -> tuple[Images, bool]:
    """Take noise off; and tell whether what :func:`_added` has written down is of such a picture, and all is exact."""
    full = int(np.iinfo(protected.dtype).max)
    if isinstance(record, float):
        if not abs(record) <= full:  # what a sample changes by for each grey level of noise, at most; nor is it NaN
            raise TraceError
        levels = pattern.astype(np.int32) * (full // 255)
        return np.rint(protected - record * levels).clip(0, full).astype(protected.dtype), False
    distance = _distances(record or b"", protected.size)
    out = np.empty(protected.shape, protected.dtype)
    noise = np.ascontiguousarray(np.broadcast_to(pattern, protected.shape))
    flat = np.ascontiguousarray(protected).reshape(-1), noise.reshape(-1), full // 255, full
    count = remove(*flat, distance, out.reshape(-1))
    exact = record is not None and count == len(distance)
    if not exact:
        remove(*flat, distance[:0], out.reshape(-1))
    return out, exact


def _distances(record: bytes, most: int) -> NDArray[np.uint16]:
    """Read the distances that :func:`_added` has written down; if there are more than ``most``, one more of them."""
    if not record:
        return np.empty(0, np.uint16)
    unpacking = zlib.decompressobj()
    try:
        data = unpacking.decompress(record, 2 * (most + 1))
    except zlib.error:
        raise TraceError from None
    if len(data) % 2 or not (unpacking.eof or len(data) > 2 * most):
        raise TraceError
    return np.frombuffer(data, "<u2").astype(np.uint16)


def _remove(
    protected: Images, noise: Pattern, scale: int, full: int, distance: NDArray[np.uint16], out: NDArray[Any]
) -> int:
    """Take flat noise off a flat picture, with the distances as far as they go; count how many it would take."""
    count = 0
    for i in range(protected.shape[0]):
        after, level = int(protected[i]), int(noise[i]) * scale
        before = min(max(after - level, 0), full)
        if (after == 0 and level < 0) or (after == full and level > 0):
            if count < distance.shape[0]:
                before = int(distance[count]) if after == 0 else full - int(distance[count])
            count += 1
        out[i] = before
    return count


remove = compiled(_remove)


def share_left(original: Images, protected: Images, stored: Images) -> float:
    """Return how much of a change is still there in what was stored: 1 for all, 0 for none of it."""
    if stored.dtype != original.dtype:
        original, protected = eight_bit(original), eight_bit(protected)
    stored = stored[..., : original.shape[2]]  # grey comes back as colours from some formats
    left, whole = products(*(np.ascontiguousarray(these).reshape(-1) for these in (original, protected, stored)))
    return float(left) / max(1.0, float(whole))


def _products(original: Images, protected: Images, stored: Images) -> tuple[Any, Any]:
    """Multiply, and add up over flat pictures, what is left of each sample's change with the change; and its square."""
    left = whole = np.int64(0)
    for i in range(original.shape[0]):
        wanted = np.int64(protected[i]) - np.int64(original[i])
        left += wanted * (np.int64(stored[i]) - np.int64(original[i]))
        whole += wanted * wanted
    return left, whole


products = compiled(_products)


def check_room(place: Path, size: int) -> None:
    """Raise InputError unless there is room for so many bytes at a place, an existing folder."""
    free = shutil.disk_usage(place).free
    if free < size:
        raise expected(
            f"{size / 1e6:,.1f} MB of room on the disk for the noise",
            f"{free / 1e6:,.1f} MB at {place}",
            "free some, or choose a smaller canvas with --size or noise a class",
        )
