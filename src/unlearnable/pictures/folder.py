"""Folders of picture files: who is in them, of which class, and what is not followed."""

import csv
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from unlearnable.errors import expected
from unlearnable.pictures.store import PICTURE_SUFFIXES, Entry

SINGLE: Final = "all"
"""The class of every picture where the whole source is one class."""


class Folder:
    """A folder of picture files, at any depth. After a scan, ``skipped`` counts the files that are no pictures."""

    def __init__(self, root: Path, classes: str = "folder") -> None:
        """Take a folder and where its classes come from.

        classes: "folder" (the name of the first folder below the root; a folder without subfolders is one class),
            "single" (all one class) or the path of a CSV file of path,label.

        Raises InputError where pictures have no class.
        """
        self.root = root
        self.skipped = 0
        self._table: Mapping[str, str] | None = None
        if classes not in ("folder", "single"):
            self._table = read_table(Path(classes))
            self._single = False
            return
        self._single = classes == "single"
        if not self._single:
            with os.scandir(root) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
            loose = next((entry.name for entry in found if is_picture(entry.name) and not entry.is_dir()), None)
            folders = any(entry.is_dir() and not entry.name.startswith(".") for entry in found)
            if loose and folders:
                raise expected(
                    "a subfolder for each class",
                    f"{loose!r} beside the class folders of {root}",
                    "move it into its class's folder, or say --classes single if all are one class",
                )
            self._single = bool(loose)

    def scan(self) -> Iterator[tuple[Entry, str | None]]:
        """Go through the pictures, sorted by path: each with its file's size and time, None where it has no file."""
        self.skipped = 0
        missing = dict(self._table or {})
        home = os.path.realpath(self.root)
        for path, file in self._walk(str(self.root), "", home, frozenset()):
            missing.pop(path, None)
            problem = file if isinstance(file, str) else None
            stamp = None if isinstance(file, str) else f"{file.st_size}:{file.st_mtime_ns}"
            try:
                path.encode()
            except UnicodeEncodeError:
                path = path.encode("utf-8", "backslashreplace").decode()
                problem = "its name is not valid Unicode: rename it"
            label = self._label(path)
            if label is None:
                yield Entry(path, "", problem or "it is not in the table of labels"), None
            else:
                yield Entry(path, label, problem), stamp
        for path, label in missing.items():
            yield Entry(path, label, "it is in the table of labels, but not in the folder"), None

    def _label(self, path: str) -> str | None:
        if self._table is not None:
            return self._table.get(path)
        return SINGLE if self._single else path.partition("/")[0]

    def _walk(
        self, folder: str, below: str, home: str, above: frozenset[tuple[int, int]]
    ) -> Iterator[tuple[str, os.stat_result | str]]:
        """Yield each picture's path and what is known of its file, or why it is not to be had."""
        try:
            names = sorted(os.listdir(folder))  # names alone: memory stays small however many files there are
            here = os.stat(folder)
        except OSError as error:
            yield below or ".", f"the folder cannot be read ({error.strerror})"
            return
        above |= {(here.st_dev, here.st_ino)}
        for name in names:
            path, inside = f"{below}/{name}" if below else name, os.path.join(folder, name)
            try:
                file: os.stat_result | str = os.stat(inside)
            except OSError as error:
                file = f"it cannot be read ({error.strerror})"
            is_folder = not isinstance(file, str) and stat.S_ISDIR(file.st_mode)
            if name.startswith(".") or not (is_folder or is_picture(name)):
                self.skipped += not is_folder
            elif os.path.islink(inside) and not (os.path.realpath(inside) + os.sep).startswith(home + os.sep):
                yield path, "a link that leaves the source folder is not followed"
            elif isinstance(file, str):
                yield path, file
            elif is_folder:
                if (file.st_dev, file.st_ino) in above:
                    self.skipped += 1  # a link back to a folder it lies in: all of that is gone through already
                else:
                    yield from self._walk(inside, path, home, above)
            else:
                yield path, file if stat.S_ISREG(file.st_mode) else "it is not a regular file"


def is_picture(name: str) -> bool:
    """Tell whether a file's name is that of a picture."""
    return os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES


def read_table(path: Path) -> dict[str, str]:
    """Read a CSV file of path,label, with or without that heading. Raises InputError for anything else."""
    table: dict[str, str] = {}
    shape = "a CSV file with a path and a label in each line"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(csv.reader(file), 1):
                if not row or (number == 1 and [field.strip().lower() for field in row] == ["path", "label"]):
                    continue
                if len(row) != 2 or not row[1]:
                    raise expected(shape, f"{row!r} in line {number} of {path}", "write path,label")
                name, label = os.path.normpath(row[0]).replace(os.sep, "/"), row[1]
                if os.path.isabs(name) or name.split("/")[0] == "..":
                    found = f"{row[0]!r} in line {number} of {path}"
                    raise expected("paths inside the source folder", found, "write paths relative to the source")
                if table.setdefault(name, label) != label:
                    raise expected("one label a picture", f"two for {name!r} in {path}", "keep one of them")
    except FileNotFoundError:
        remedy = "use --classes folder, --classes single or the path of a CSV file"
        raise expected("a table of labels", f"nothing at {path}", remedy) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise expected(shape, f"{path} ({error})", "write path,label in UTF-8") from None
    if not table:
        raise expected(shape, f"an empty {path}", "write path,label")
    return table
