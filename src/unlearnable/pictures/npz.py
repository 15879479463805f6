"""Zip files of arrays, as numpy.savez writes them: ``images`` and ``labels``, perhaps ``class_names``, and others."""

import io
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unlearnable.errors import InputError, expected
from unlearnable.pictures.codec import MAX_PIXELS
from unlearnable.pictures.store import BLOCK, BLOCK_BYTES, Block, Container, Entry, Transform, transform_array

_HEADER: Final = 1 << 14  # bytes of an array's header, at most
_TEXT: Final = 1 << 12  # of one label or class name, at most
_NAMES: Final = 1 << 26  # of all class names, at most
_CHUNK: Final = 1 << 20  # that is copied at a time
_LABELS: Final = 1 << 12  # labels read at a time, where no pictures are
_MOST: Final = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}  # bytes that one can stand for, by compression
_UNREADABLE: Final = (
    *(OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error, struct.error),
    *(SyntaxError, MemoryError, tokenize.TokenError),  # of an array's header, which is Python's syntax
)
_AGAIN: Final = "fetch it, or save it with numpy.savez, again"


class Npz(Container):
    """One .npz file with uint8 or uint16 pictures: (count, height, width), or that and up to 4 channels."""

    def __init__(self, path: Path, name: str, *, labelled: bool = True) -> None:
        """Take the file, its name, and whether its labels matter; where they do not, every label is ""."""
        super().__init__(path, name)
        self._labelled = labelled

    @property
    def class_names(self) -> Sequence[str] | None:
        with Archive.open(self.path) as archive:
            layout = archive.layout(labelled=self._labelled)
            if layout.labels is None or layout.class_names is not None:
                return layout.class_names
            names = set(chain.from_iterable(archive.labels(layout, _LABELS)))
            return sorted(names, key=int) if layout.labels.dtype.kind in "iu" else sorted(names)

    def scan(self) -> Iterator[Entry]:
        with Archive.open(self.path) as archive:
            labels = archive.labels(archive.layout(labelled=self._labelled), _LABELS)
            for number, label in enumerate(chain.from_iterable(labels)):
                yield Entry(self._id(number), label)

    def read(self) -> Iterator[Block]:
        with Archive.open(self.path) as archive:
            yield from self._blocks(archive, archive.layout(labelled=self._labelled))

    def rewrite(self, target: Path, transform: Transform) -> None:
        with Archive.open(self.path) as archive, zipfile.ZipFile(target, "w") as out:
            layout = archive.layout(labelled=self._labelled)
            out.comment = archive.zip.comment
            for info in archive.zip.infolist():
                # The size of compressed data is not known beforehand: any may need 64 bits.
                with out.open(_like(info), "w", force_zip64=True) as member:
                    if info is not layout.images.info:
                        for chunk in archive.chunks(info):
                            member.write(chunk)
                        continue
                    member.write(layout.images.header)
                    with closing(self._blocks(archive, layout)) as blocks:
                        for block in blocks:
                            member.write(transform_array(block, transform).astype(layout.images.dtype).tobytes())

    def _blocks(self, archive: "Archive", layout: "_Layout") -> Generator[Block]:
        images = layout.images
        step = max(1, min(BLOCK, BLOCK_BYTES // images.row_bytes))
        start = 0
        for rows, labels in zip(archive.rows(images, step), archive.labels(layout, step), strict=True):
            pictures = rows.astype(images.dtype.newbyteorder("="), copy=False)
            ids = [self._id(number) for number in range(start, start + len(rows))]
            yield Block(ids, labels, pictures[..., None] if pictures.ndim == 3 else pictures)
            start += len(rows)

    def _id(self, number: int) -> str:
        return f"{self.name}/{number:06}"


class _Array(NamedTuple):
    """An array of the file: its member, and what its header says."""

    info: zipfile.ZipInfo
    header: bytes
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        """Return the bytes of one entry along the first axis."""
        return self.dtype.itemsize * math.prod(self.shape[1:])


class _Layout(NamedTuple):
    """The arrays that matter. labels, class_names: None where nobody asks, or there are none."""

    images: _Array
    labels: _Array | None
    class_names: list[str] | None


class Archive:
    """An open .npz file. Nothing in it is believed before it is checked, and nothing is unpickled."""

    def __init__(self, path: Path, file: zipfile.ZipFile) -> None:
        self.path = path
        self.zip = file

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator["Archive"]:
        """Open a file. Raises InputError where what it says of its members cannot be."""
        with _speaking(path):
            file = zipfile.ZipFile(path)
        with file:
            members = file.infolist()
            if len({info.filename for info in members}) != len(members):
                raise expected("members of different names", f"two of one name in {path}", _AGAIN)
            for info in members:
                if info.compress_type not in _MOST or info.flag_bits & 1:
                    raise expected(
                        "members as numpy.savez or savez_compressed writes them",
                        f"{info.filename!r} in {path}, compressed otherwise or encrypted",
                        "save it again with either",
                    )
            declared = sum(info.compress_size for info in members) <= path.stat().st_size
            if not declared or any(info.file_size > _MOST[info.compress_type] * info.compress_size for info in members):
                raise expected("members of the sizes that they declare", f"larger ones in {path}", _AGAIN)
            yield cls(path, file)

    def layout(self, *, labelled: bool) -> _Layout:
        """Find the arrays that matter. Raises InputError where they are missing or do not fit each other."""
        names = [name.removesuffix(".npy") for name in self.zip.namelist()]
        wanted = ["images", "labels"] if labelled else ["images"]
        if not set(wanted) <= set(names):
            remedy = "save them under these names; without labels say --classes single"
            raise expected(f"arrays named {' and '.join(wanted)} in {self.path}", ", ".join(names) or "none", remedy)
        images = self.array("images")
        if images.dtype not in ("u1", "<u2", ">u2"):
            advice = "save them as uint8 (floats from 0 to 1: multiply by 255 and round)"
            raise self._wrong(images, "pictures of uint8 or uint16", advice)
        if len(images.shape) not in (3, 4) or math.prod(images.shape[3:]) not in (1, 3, 4) or 0 in images.shape[1:]:
            raise self._wrong(
                images,
                "pictures as (count, height, width) or (count, height, width, 1, 3 or 4 channels)",
                "transpose them (channels first: images.transpose(0, 2, 3, 1))",
            )
        if math.prod(images.shape[1:3]) > MAX_PIXELS:
            raise self._wrong(images, f"pictures of at most {MAX_PIXELS:,} pixels", "make them smaller")
        if not labelled:
            return _Layout(images, None, None)
        labels = self.array("labels")
        if labels.shape != images.shape[:1] or labels.dtype.kind not in "iuUS" or labels.dtype.itemsize > _TEXT:
            wanted_labels = f"{images.shape[0]} labels, whole numbers or short text, one a picture"
            raise self._wrong(labels, wanted_labels, "save them as one row of one of these types")
        return _Layout(images, labels, self._class_names() if "class_names" in names else None)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each array, by name. Raises InputError where one is no plain array."""
        names = [name.removesuffix(".npy") for name in self.zip.namelist() if name.endswith(".npy")]
        return {name: self.array(name).shape for name in names}

    def rows(self, array: _Array, step: int) -> Iterator[NDArray[Any]]:
        """Read an array bit by bit: ``step`` entries along its first axis at a time."""
        with self._stream(array.info) as stream:
            self._take(stream, len(array.header))
            for start in range(0, array.shape[0], step):
                count = min(step, array.shape[0] - start)
                data = self._take(stream, count * array.row_bytes)
                yield np.frombuffer(data, array.dtype).reshape(count, *array.shape[1:])

    def labels(self, layout: _Layout, step: int) -> Iterator[list[str]]:
        """Read the labels, as the names of classes, bit by bit."""
        if layout.labels is None:
            count = layout.images.shape[0]
            for start in range(0, count, step):
                yield [""] * min(step, count - start)
            return
        names = layout.class_names
        numbered = layout.labels.dtype.kind in "iu"
        known = {str(n) if numbered else name: name for n, name in enumerate(names or [])}
        for values in self.rows(layout.labels, step):
            labels = self._texts(values)
            if names is not None:
                if unknown := set(labels) - known.keys():
                    found = f"the label {min(unknown)!r} in {self.path}"
                    raise expected("a class name for every label", found, "add it, or leave class_names out")
                labels = [known[label] for label in labels]
            yield labels

    def chunks(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        """Read a member bit by bit, whatever it is."""
        with self._stream(info) as stream:
            for start in range(0, info.file_size, _CHUNK):
                yield self._take(stream, min(_CHUNK, info.file_size - start))

    def _class_names(self) -> list[str]:
        names = self.array("class_names")
        if len(names.shape) != 1 or names.dtype.kind not in "US" or names.dtype.itemsize > _TEXT:
            raise self._wrong(names, "class names as one row of short text", "save numpy.array(names)")
        if names.shape[0] * names.dtype.itemsize > _NAMES:
            raise self._wrong(names, f"class names of at most {_NAMES:,} bytes", "leave class_names out")
        return [name for values in self.rows(names, _LABELS) for name in self._texts(values)]

    def _texts(self, values: NDArray[Any]) -> list[str]:
        with _speaking(self.path):
            texts = [value.decode() if isinstance(value, bytes) else str(value) for value in values.tolist()]
            "".join(texts).encode()  # numpy can hold what is not valid Unicode
        return texts

    def array(self, name: str) -> _Array:
        """Read the header of an array. Raises InputError where the array is no plain one of just that size."""
        info = self.zip.getinfo(f"{name}.npy")
        with self._stream(info) as stream:
            head = io.BytesIO(self._take(stream, min(_HEADER, info.file_size)))
        with _speaking(self.path):
            if np.lib.format.read_magic(head) == (1, 0):
                shape, by_columns, dtype = np.lib.format.read_array_header_1_0(head)
            else:
                shape, by_columns, dtype = np.lib.format.read_array_header_2_0(head)
        array = _Array(info, head.getvalue()[: head.tell()], shape, dtype)
        if dtype.hasobject:
            remedy = "save text or numbers; objects could run any program when they are loaded"
            raise self._wrong(array, f"an array {name} without objects", remedy)
        if by_columns and len(shape) > 1:
            raise self._wrong(array, f"an array {name} in C order", "save numpy.ascontiguousarray of it")
        if min(shape, default=0) < 0 or len(array.header) + math.prod(shape) * dtype.itemsize != info.file_size:
            raise self._wrong(array, f"an array {name} of {info.file_size:,} bytes", _AGAIN)
        return array

    def _wrong(self, array: _Array, wanted: str, remedy: str) -> InputError:
        return expected(wanted, f"{array.dtype} of shape {array.shape} in {self.path}", remedy)

    @contextmanager
    def _stream(self, info: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
        with _speaking(self.path):
            stream = self.zip.open(info)
        with stream:
            yield stream

    def _take(self, stream: IO[bytes], count: int) -> bytes:
        with _speaking(self.path):
            data = stream.read(count)
            if len(data) != count:
                raise EOFError("a member ends too early")
        return data


@contextmanager
def _speaking(path: Path) -> Iterator[None]:
    """Turn what the readers of zip files and of arrays raise into words for their owner."""
    try:
        yield
    except _UNREADABLE as error:
        raise expected("a whole .npz file", f"{path} ({error})", _AGAIN) from None


def _like(info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """Return a new entry of the same name, time and kind."""
    new = zipfile.ZipInfo(info.filename, info.date_time)
    new.compress_type, new.comment = info.compress_type, info.comment
    new.create_system, new.external_attr = info.create_system, info.external_attr
    return new
