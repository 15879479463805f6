"""CIFAR-10 and CIFAR-100 as they are published for Python: pickled batches of 32 x 32 pictures."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from unlearnable.errors import InputError, expected
from unlearnable.pictures.store import BLOCK, Block, Container, Entry, Transform, transform_array
from unlearnable.pictures.unpickling import Array, opcodes, unpickle

_SIDE: Final = 32
_SAMPLES: Final = 3 * _SIDE * _SIDE
_BATCHES: Final = (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "train", "test")
_META: Final = {"batches.meta": "label_names", "meta": "fine_label_names"}  # and what they call the class names
_STRINGS: Final = (
    "BINSTRING",
    "BINBYTES",
    "BINBYTES8",
    "BYTEARRAY8",
    "BINUNICODE",
)  # opcodes that can hold a batch's pixels
_AGAIN: Final = "fetch it again, or pickle it again with protocol 2 to 5"


def is_cifar_folder(path: Path) -> bool:
    """Tell whether a folder holds batches of CIFAR-10 or CIFAR-100, and the file that names their classes."""
    return any((path / name).is_file() for name in _META) and bool(cifar_batches(path))


def cifar_batches(path: Path) -> list[Path]:
    """List the batches that a folder holds, in order."""
    return [path / name for name in _BATCHES if (path / name).is_file()]


class CifarBatch(Container):
    """One batch. Rewritten it is the same pickle, to the last bit but for the pixels.

    A batch is one string of pixels, and is held in memory whole.
    """

    @property
    def class_names(self) -> Sequence[str]:
        for name, key in _META.items():
            meta = self.path.with_name(name)
            if meta.is_file():
                names = _unpickled(meta)[1].get(key)
                if not isinstance(names, list) or not all(isinstance(name, bytes | str) for name in names):
                    raise expected(f"a list of {key} in {meta}", "none", _AGAIN)
                return [_text(name) for name in names]
        raise expected(f"{' or '.join(_META)} beside {self.path}", "neither", "copy it there: it names the classes")

    def scan(self) -> Iterator[Entry]:
        batch = self._load()
        return map(Entry, batch.ids, batch.labels)

    def read(self) -> Iterator[Block]:
        return self._load().blocks()

    def rewrite(self, target: Path, transform: Transform) -> None:
        batch = self._load()
        new = np.empty_like(batch.pixels)
        start = 0
        for block in batch.blocks():
            pictures = transform_array(block, transform)
            new[start : start + len(pictures)] = pictures.transpose(0, 3, 1, 2).reshape(-1, _SAMPLES)
            start += len(pictures)
        parts = _spliced(batch.content, batch.data, new.tobytes("A"))
        if parts is None:
            raise self._wrong("pixels stored another way")
        with target.open("wb") as out:
            out.writelines(parts)

    def _load(self) -> "_Batch":
        content, fields = _unpickled(self.path)
        array, labels = fields.get("data"), fields.get("fine_labels", fields.get("labels"))
        if not isinstance(array, Array) or not isinstance(labels, list):
            raise self._wrong(f"{', '.join(fields) or 'nothing'} in it")
        if array.dtype != np.uint8 or array.shape[1:] != (_SAMPLES,):
            raise self._wrong(f"an array of {array.dtype} of shape {array.shape} in it")
        pixels, names = array.values(), self.class_names
        if not len(labels) == len(pixels) > 0:
            raise self._wrong(f"{len(pixels)} pictures and {len(labels)} labels in it")
        if strange := [label for label in labels if not (isinstance(label, int) and 0 <= label < len(names))]:
            raise self._wrong(f"the label {strange[0]!r} in it, and {len(names)} class names")
        ids = [f"{n:06}" for n in range(len(labels))]
        match fields.get("filenames"):
            case [*files] if all(isinstance(file, bytes | str) for file in files):
                if len({_text(file) for file in files}) == len(files) == len(labels):
                    ids = [_text(file) for file in files]
        return _Batch(
            content, array.data, pixels, [f"{self.name}/{id_}" for id_ in ids], [names[label] for label in labels]
        )

    def _wrong(self, found: str) -> InputError:
        return expected("a CIFAR batch of data (pictures, 3072) and labels", f"{self.path} with {found}", _AGAIN)


@dataclass(frozen=True)
class _Batch:
    """A batch: the pickle, the string in it that is the pixels, these as (count, 3072), and whose they are."""

    content: bytes
    data: bytes | bytearray
    pixels: NDArray[np.uint8]
    ids: list[str]
    labels: list[str]

    def blocks(self) -> Iterator[Block]:
        for start in range(0, len(self.ids), BLOCK):
            part = slice(start, start + BLOCK)
            pictures = self.pixels[part].reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
            yield Block(self.ids[part], self.labels[part], np.ascontiguousarray(pictures))


def _text(name: bytes | str) -> str:
    data = name if isinstance(name, bytes) else name.encode("utf-8", "backslashreplace")
    return data.decode("utf-8", "backslashreplace")


def _unpickled(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Read a pickled dictionary. Raises InputError for any pickle but those of numbers, text and arrays of pixels."""
    try:
        content = path.read_bytes()
        return content, {_text(key): value for key, value in unpickle(content).items()}
    except Exception as error:  # whatever unpickle() raises
        reason = str(error).partition("\n")[0]
        raise expected("a pickle of a CIFAR batch and no more", f"{path} ({reason})", _AGAIN) from None


def _spliced(content: bytes, old: bytes | bytearray, new: bytes) -> list[bytes | memoryview] | None:
    """Return the parts of a pickle with one string put in place of another of its size; None if it is not there."""
    view = memoryview(content)
    for (code, argument, start), (_, _, end) in pairwise(opcodes(content)):
        if code in _STRINGS and len(argument) == len(old):
            if (argument.encode("latin-1", "replace") if isinstance(argument, str) else argument) != old:
                continue
            if code != "BINUNICODE":
                return [view[: end - len(new)], new, view[end:]]
            text = new.decode("latin-1").encode()
            return [view[:start], b"X" + struct.pack("<I", len(text)), text, view[end:]]
    return None
