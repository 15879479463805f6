"""Whatever holds pictures, opened by looking at it."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from unlearnable.errors import expected
from unlearnable.pictures import folder
from unlearnable.pictures.folder import Folder
from unlearnable.pictures.store import PICTURE_SUFFIXES, Container, Entry

CONTAINER_SUFFIXES: Final = (".parquet", ".tar", ".npz")
"""What the names of container files end in, in lower case."""

COMPANIONS: Final = ("batches.meta", "meta")
"""Files that name the classes of the CIFAR batches beside them."""
_KINDS: Final = "a folder of pictures, of parquet, tar or npz files or of CIFAR batches, or one such file"

Payload = str | bytes | NDArray[np.unsignedinteger[Any]] | None
"""A picture before it is decoded: its file's path, or content, or its samples; None if it cannot be had."""


@dataclass
class Containers:
    """One file or a folder of files that hold many pictures each."""

    root: Path
    files: Sequence[Container]
    classes: str = "folder"
    companions: Sequence[str] = ()
    """Files that belong to the format and are copied, by name."""
    skipped: int = 0
    """Other files that lie beside them."""

    def scan(self) -> Iterator[tuple[Entry, str | None]]:
        """Go through the pictures of all files, in order: each with its file's size and time."""
        table = folder.read_table(Path(self.classes)) if self.classes not in ("folder", "single") else None
        for container in self.files:
            file = container.path.stat()
            for entry in container.scan():
                label = folder.SINGLE if self.classes == "single" else entry.label
                problem = entry.error
                if table is not None:
                    label = table.get(entry.id, "")
                    problem = problem or (None if label else "it is not in the table of labels")
                yield Entry(entry.id, label, problem), f"{file.st_size}:{file.st_mtime_ns}"

    @property
    def names(self) -> list[str]:
        """The names of all files, companions included."""
        return [container.name for container in self.files] + list(self.companions)

    @property
    def class_names(self) -> Sequence[str] | None:
        """The classes in the order of their labels, where the files say so."""
        if self.classes != "folder":
            return None
        orders = [container.class_names for container in self.files]
        if any(order is None for order in orders):
            return None
        return in_order(dict.fromkeys(name for order in orders for name in order or ()))


def in_order(names: Iterable[str]) -> list[str]:
    """Order class names: as they come if they are words, by value if they are all numbers."""
    names = list(names)
    return sorted(names, key=int) if names and all(name.isdecimal() for name in names) else names


def class_order(source: Folder | Containers, found: Iterable[str]) -> list[str]:
    """Order the classes found: by their labels where the source has any, else by name or number."""
    names = in_order(sorted(found))
    if isinstance(source, Containers) and source.class_names is not None:
        known = list(source.class_names)
        return known + [name for name in names if name not in known] if names else []
    return names


def payloads(source: Folder | Containers, entries: Iterable[Entry]) -> Iterator[tuple[Entry, Payload]]:
    """Go through pictures of a source: all that its scan has found, or some, in its order."""
    if isinstance(source, Folder):
        yield from ((entry, os.path.join(source.root, entry.id)) for entry in entries)
        return
    wanted = iter(entries)
    entry = next(wanted, None)
    for container in source.files:
        for block in container.read():
            for id_, payload in zip(block.ids, block.payloads, strict=True):
                if entry is None:
                    return
                if id_ == entry.id:
                    yield entry, payload
                    entry = next(wanted, None)


def open_source(path: Path, classes: str = "folder") -> Folder | Containers:
    """Open a source of pictures; ``classes`` as in :class:`Folder`. Raises InputError where there are none."""
    if path.is_file():
        if path.suffix.lower() not in CONTAINER_SUFFIXES:
            raise expected(_KINDS, f"the file {path}", "name the folder that it lies in")
        return Containers(path, [open_container(path, path.name, classes)], classes)
    if not path.is_dir():
        raise expected(_KINDS, f"nothing at {path}", "check the path")
    if meta := [name for name in COMPANIONS if (path / name).is_file()]:
        from unlearnable.pictures.cifar import CifarBatch, cifar_batches, is_cifar_folder

    if meta and is_cifar_folder(path):
        batches = [CifarBatch(batch, batch.name) for batch in cifar_batches(path)]
        others = sum(entry.is_file() for entry in path.iterdir()) - len(batches) - len(meta)
        return Containers(path, batches, classes, meta, others)
    shards: list[Path] = []
    others = 0
    loose: str | None = None
    for parent, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        pictures = (name for name in files if _suffix(name) in PICTURE_SUFFIXES and name[0] != ".")
        loose = loose or next((os.path.join(parent, name) for name in pictures), None)
        found = [Path(parent, name) for name in sorted(files) if _suffix(name) in CONTAINER_SUFFIXES]
        others += len(files) - len(found)
        shards += found
    if not shards:
        return Folder(path, classes)
    if loose:
        both = f"{loose} beside {shards[0]}"
        raise expected("a folder of pictures or one of container files", both, "move the one or the other elsewhere")
    home = path.resolve()
    for shard in shards:
        if home not in shard.resolve().parents:
            raise expected("files inside the source", f"the link {shard}, which leaves it", "put a copy in its place")
    opened = [open_container(shard, shard.relative_to(path).as_posix(), classes) for shard in shards]
    return Containers(path, opened, classes, skipped=others)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def open_published(path: Path, name: str, classes: str) -> Container | None:
    """Open one file of a published set of containers, by the name it had; None for a companion."""
    if name in COMPANIONS:
        return None
    if _suffix(name) in CONTAINER_SUFFIXES:
        return open_container(path, name, classes)
    from unlearnable.pictures.cifar import CifarBatch

    return CifarBatch(path, name)


def open_container(path: Path, name: str, classes: str) -> Container:
    """Open one container file, by its suffix, under a name."""
    match path.suffix.lower():
        case ".parquet":
            from unlearnable.pictures.parquet import Parquet

            return Parquet(path, name, labelled=classes == "folder")
        case ".tar":
            from unlearnable.pictures.webdataset import WebDataset

            return WebDataset(path, name, labelled=classes == "folder")
        case _:
            from unlearnable.pictures.npz import Npz

            return Npz(path, name, labelled=classes == "folder")
