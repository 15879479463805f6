"""CIFAR-10 and CIFAR-100 as they are published for Python: pickled batches of 32 x 32 pictures."""

import io
import pickle
import pickletools
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from unlearnable.errors import InputError, expected
from unlearnable.pictures.store import BLOCK, Block, Container, Entry, Transform, transform_array

_SIDE: Final = 32
_SAMPLES: Final = 3 * _SIDE * _SIDE
_BATCHES: Final = (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "train", "test")
_META: Final = {"batches.meta": "label_names", "meta": "fine_label_names"}  # and what they call the class names
_STRINGS: Final = ("BINSTRING", "BINBYTES", "BINBYTES8", "BINUNICODE")  # opcodes that can hold a batch's pixels
_AGAIN: Final = "fetch it again, or pickle it again with protocol 2, 3 or 4"


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
        if not isinstance(array, _Array) or not isinstance(labels, list):
            raise self._wrong(f"{', '.join(fields) or 'nothing'} in it")
        pixels, names = array.pixels, self.class_names
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
    data: bytes
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
        _check_sizes(content)
        fields = _Unpickler(content).load()
        return content, {_text(key): value for key, value in fields.items()}
    except Exception as error:  # the documentation of pickle names some that it can raise, and says there are others
        reason = str(error).partition("\n")[0]
        raise expected("a pickle of a CIFAR batch and no more", f"{path} ({reason})", _AGAIN) from None


def _check_sizes(content: bytes) -> None:
    """Raise an exception if a pickle declares more than it has: the unpickler takes memory first, then looks."""
    for number, (code, argument, _) in enumerate(_opcodes(content)):
        if code in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= argument <= number:
            raise pickle.UnpicklingError(f"a memo numbered {argument}")


class _Unpickler(pickle.Unpickler):
    """Runs no code but what is written here: a pickle gets stand-ins for the few functions that it may name.

    NumPy's own would not do: a hostile state of a dtype makes it read wherever it is told to.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self._left = len(content)

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        # A pickle can set attributes of what it is given, so that it gets new functions each time.
        match module_name.replace("numpy._core", "numpy.core"), global_name:
            case "numpy.core.multiarray", "_reconstruct":
                return lambda *_: _Array()
            case "numpy", "ndarray":
                return "ndarray"
            case "numpy", "dtype":
                return lambda code, *_: _Dtype(code)
            case "_codecs", "encode":  # how Python 3 stores bytes for Python 2
                return lambda text, _: self._encoded(text)
            case "__builtin__" | "builtins", "bytes":  # and no bytes at all
                return lambda: b""
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}")

    def _encoded(self, text: str) -> bytes:
        self._left -= len(text)
        if self._left < 0:
            raise pickle.UnpicklingError("it repeats itself")
        return text.encode("latin-1")


class _Dtype:
    """Stands for numpy.dtype("u1"), whose state says nothing more."""

    def __init__(self, code: bytes | str) -> None:
        if code not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"an array of {code!r}")

    def __setstate__(self, state: object) -> None:
        pass


class _Array:
    """Stands for a numpy.ndarray of pixels."""

    data = b""
    order: Literal["C", "F"] = "C"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, by_columns, data = state
        count, rest = divmod(len(data), _SAMPLES)
        if rest or shape != (count, _SAMPLES) or not isinstance(data, bytes) or not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError(f"an array of shape {shape}")
        self.data, self.order = data, "F" if by_columns else "C"

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The pixels as (count, 3072): all of red, of green, of blue."""
        return np.frombuffer(self.data, np.uint8).reshape(-1, _SAMPLES, order=self.order)


def _spliced(content: bytes, old: bytes, new: bytes) -> list[bytes | memoryview] | None:
    """Return the parts of a pickle with one string put in place of another of its size; None if it is not there."""
    view = memoryview(content)
    for (code, argument, start), (_, _, end) in pairwise(_opcodes(content)):
        if code in _STRINGS and len(argument) == len(old):
            if (argument if isinstance(argument, bytes) else argument.encode("latin-1", "replace")) != old:
                continue
            if code != "BINUNICODE":
                return [view[: end - len(new)], new, view[end:]]
            text = new.decode("latin-1").encode()
            return [view[:start], b"X" + struct.pack("<I", len(text)), text, view[end:]]
    return None


def _opcodes(content: bytes) -> Iterator[tuple[str, Any, int]]:
    """Go through a pickle without running it: yield the names of its opcodes, their arguments and their places."""
    for code, argument, place in pickletools.genops(content):
        yield code.name, argument, place or 0
