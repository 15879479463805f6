"""WebDataset shards: tar files in which consecutive members of the same key make up a sample."""

import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from unlearnable.errors import InputError, expected
from unlearnable.pictures.store import BLOCK, BLOCK_BYTES, PICTURE_SUFFIXES, Block, Container, Entry, Transform

_HEADER: Final = 1 << 16  # bytes of an extended header, at most
_TEXT: Final = 1 << 24  # of a member that tells the class, at most
_PICTURE: Final = 1 << 30  # of an encoded picture, at most
_CHUNK: Final = 1 << 20  # that is copied at a time
_CLASS_FIELDS: Final = ("label", "class", "cls")  # of a .json member


class WebDataset(Container):
    """One tar shard.

    Links, devices, second copies and members whose names lead out of the archive are never passed on. All others are,
    with every bit of their headers and in their order; of pictures only what they hold and its size change.
    """

    def __init__(self, path: Path, name: str, *, labelled: bool = True) -> None:
        """Take the file, its name, and whether its classes matter; where they do not, every label is ""."""
        super().__init__(path, name)
        self._labelled = labelled

    @property
    def class_names(self) -> Sequence[str] | None:
        return None

    def scan(self) -> Iterator[Entry]:
        with self._open() as archive:
            for _, entry in self._pieces(archive):
                if entry is not None:
                    yield entry

    def read(self) -> Iterator[Block]:
        with self._open() as archive:
            for pieces in _batches(self._pieces(archive)):
                block = _block(archive, pieces)
                if block.ids:
                    yield block

    def rewrite(self, target: Path, transform: Transform) -> None:
        with self._open() as archive, target.open("wb") as out:
            for pieces in _batches(self._pieces(archive)):
                block = _block(archive, pieces)
                pictures = dict(zip(block.ids, transform(block).payloads if block.ids else [], strict=True))
                for member, entry in pieces:
                    if entry is None:
                        out.writelines(archive.parts(member.start, member.end))
                    elif entry.error is None and (picture := pictures[entry.id]) is not None:
                        headers = archive.part(member.start, member.data)
                        out.write(headers if len(picture) == member.size else _resized(headers, len(picture)))
                        out.write(picture)
                        out.write(bytes(-len(picture) % tarfile.BLOCKSIZE))
            out.write(bytes(2 * tarfile.BLOCKSIZE))
            out.write(bytes(-out.tell() % tarfile.RECORDSIZE))

    def _open(self) -> "_Archive":
        try:
            return _Archive(self.path)
        except OSError as error:
            raise expected("a tar file", f"{self.path} ({error.strerror})", "check the path") from None

    def _pieces(self, archive: "_Archive") -> Iterator["_Piece"]:
        """Go through all that is passed on, and through the pictures that cannot be."""
        seen: set[str] = set()
        for sample in _samples(archive.members()):
            label, unclear = self._class(archive, sample)
            for member in sample:
                name, problem = member.name, member.problem
                if name.startswith("/") or ".." in name.replace("\\", "/").split("/"):
                    problem = "its name leads out of the archive"
                if name in seen:
                    problem, name = "another member has its name", f"{name} at byte {member.start}"
                seen.add(member.name)
                if member.is_picture:
                    readable = name.encode("utf-8", "backslashreplace").decode()
                    if readable != name:
                        problem = "its name is not valid Unicode"
                    if member.too_large:
                        problem = "it is too large"
                    yield _Piece(member, Entry(f"{self.name}/{readable}", label, problem or unclear))
                elif problem is None:
                    yield _Piece(member, None)

    def _class(self, archive: "_Archive", sample: Sequence["_Member"]) -> tuple[str, str | None]:
        """Return the class of a sample, or why it cannot be told."""
        if not self._labelled:
            return "", None
        members = {member.extension: member for member in reversed(sample) if member.key and not member.problem}
        for extension, parse in (("cls", _class_in_text), ("json", _class_in_json)):
            if member := members.get(extension):
                data = archive.part(member.data, member.data + min(member.size, _TEXT))
                try:
                    label = parse(data.decode())
                except (ValueError, RecursionError) as error:
                    return "", f"the class in {member.name!r} cannot be read ({error})"
                if label is not None:
                    return label, None
        folder, slash, _ = sample[0].name.partition("/")
        return (folder, None) if slash else ("", "it has no class: no .cls, no label in .json, no folder")


def _class_in_text(text: str) -> str:
    if not text.strip():
        raise ValueError("it is empty")
    return text.strip()


def _class_in_json(text: str) -> str | None:
    fields = json.loads(text)
    found = [fields[name] for name in _CLASS_FIELDS if name in fields] if isinstance(fields, dict) else []
    if not found:
        return None
    if isinstance(found[0], bool) or not isinstance(found[0], str | int) or found[0] == "":
        raise ValueError("it is neither a name nor a number")
    return str(found[0]).encode().decode()  # JSON can spell what is not valid Unicode


@dataclass(frozen=True, slots=True)
class _Member:
    """One member of a tar file: headers from start to data, contents from there, padding up to end."""

    name: str
    start: int
    data: int
    size: int
    end: int
    is_folder: bool
    problem: str | None  # why it cannot be passed on
    too_large: bool  # for a picture

    @property
    def key(self) -> str | None:
        """What it shares with the other members of its sample; None if it belongs to none, as a hidden file."""
        folder, base = os.path.split(self.name)
        stem, dot, _ = base.partition(".")
        return f"{folder}/{stem}" if stem and dot and not self.is_folder else None

    @property
    def extension(self) -> str:
        return os.path.basename(self.name).partition(".")[2].lower()

    @property
    def is_picture(self) -> bool:
        return self.key is not None and os.path.splitext(self.name)[1].lower() in PICTURE_SUFFIXES


class _Piece(NamedTuple):
    """A member to be passed on: a picture with its entry, or as it is."""

    member: _Member
    entry: Entry | None


def _samples(members: Iterable[_Member]) -> Iterator[list[_Member]]:
    """Gather the members of each sample; those that belong to none come along with the sample before."""
    sample: list[_Member] = []
    key = None
    for member in members:
        if member.key is not None and member.key != key:
            if sample:
                yield sample
            sample, key = [], member.key
        sample.append(member)
    if sample:
        yield sample


def _batches(pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
    """Cut a stream of members into lists that make up blocks."""
    batch: list[_Piece] = []
    size = 0
    for piece in pieces:
        picture = piece.member.size if piece.entry else 0
        if batch and (len(batch) == BLOCK or size + picture > BLOCK_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(piece)
        size += picture
    if batch:
        yield batch


def _block(archive: "_Archive", pieces: Iterable[_Piece]) -> Block:
    pictures = [(member, entry) for member, entry in pieces if entry is not None]
    return Block(
        [entry.id for _, entry in pictures],
        [entry.label for _, entry in pictures],
        [None if entry.error else archive.part(member.data, member.data + member.size) for member, entry in pictures],
    )


def _resized(headers: bytes, size: int) -> bytes:
    """Return the headers of a member with another size in the last of them, the one that all tar files have."""
    block = bytearray(headers[-tarfile.BLOCKSIZE :])
    block[124:136] = b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return headers[: -tarfile.BLOCKSIZE] + block


class _Archive(io.FileIO):
    """A tar file. Tarfile reads its headers, of whatever size they declare, through :meth:`read`, which does not."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)

    def part(self, start: int, end: int) -> bytes:
        """Return the bytes from start to end."""
        found = os.pread(self.fileno(), end - start, start)
        if len(found) != end - start:
            raise self._broken("its end missing")
        return found

    def parts(self, start: int, end: int) -> Iterator[bytes]:
        """Return the bytes from start to end, bit by bit."""
        for here in range(start, end, _CHUNK):
            yield self.part(here, min(here + _CHUNK, end))

    def members(self) -> Iterator[_Member]:
        """Go through the members. Raises InputError where the file is not a tar file, and whole, from end to end."""
        length = os.fstat(self.fileno()).st_size
        with self._speaking():
            tar = tarfile.TarFile(fileobj=self, encoding="utf-8")
        end = 0
        while True:
            with self._speaking():
                info = tar.next()
            if info is None:
                break
            tar.members.clear()  # type: ignore[attr-defined] # it keeps them all
            start, end = end, tar.offset
            if not start < end <= length:
                raise self._broken(f"{info.name!r} cut off")
            yield self._member(info, start, end)
        if end == length or any(part.strip(b"\0") for part in self.parts(end, length)):
            raise self._broken("no end, or something after it")  # tarfile is content with either

    def _member(self, info: tarfile.TarInfo, start: int, end: int) -> _Member:
        problem = None
        if info.issparse() or not (info.isreg() or info.isdir()):
            problem = "it is a link, a device or a sparse file"
        elif info.isreg() and end - info.offset_data != -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE:
            raise self._broken(f"{info.name!r} damaged")
        return _Member(
            name=str(PurePosixPath(info.name)),
            start=start,
            data=info.offset_data,
            size=info.size,
            end=end,
            is_folder=info.isdir(),
            problem=problem,
            # Sizes that do not fit into a header are in one of their own, which _resized() leaves alone.
            too_large=info.size > _PICTURE or "size" in info.pax_headers,
        )

    def _broken(self, reason: str) -> InputError:
        return expected("a whole tar file, not compressed", f"{self.name} with {reason}", "fetch or write it again")

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        """Turn what tarfile raises at headers that make no sense into words for their owner."""
        try:
            yield
        except (tarfile.TarError, ValueError, IndexError, OverflowError, RecursionError, OSError) as error:
            raise self._broken(f"{error}") from None
