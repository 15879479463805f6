"""The manifest: one SQLite file beside the published pictures that knows every one of them, and never leaves home.

It is also the journal: a run that was stopped, however it was, goes on where its manifest ends.
"""

import contextlib
import itertools
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Self, TypeVar

from unlearnable.errors import InputError, expected, no_room

Item = TypeVar("Item")
Status = Literal["pending", "protected", "kept", "failed"]

_FORMAT: Final = "unlearnable-manifest-1"
_PAGE: Final = 512
_SCHEMA: Final = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE classes (name TEXT PRIMARY KEY, label INTEGER NOT NULL, digest TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE pictures (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,         -- path in the source; inside a container: its path, /, name or number
    output TEXT NOT NULL UNIQUE,     -- the same, in the published copy
    class TEXT NOT NULL,
    source TEXT,                     -- size and time of the source file: a picture that changed is protected anew
    chosen INTEGER NOT NULL DEFAULT 1, -- to be protected, and not kept as it is
    status TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'protected', 'kept', 'failed')),
    sha256 TEXT,                     -- of the published file; inside a container: of the picture's own bytes. A picture
                                     -- that failed has one as long as an earlier copy of it may still be there
    scale REAL,                      -- what the key holder needs, beside the key, to take the protection off: a number,
                                     -- or bytes; of noise in a lossy format the share that the format has kept
    psnr REAL,
    ssim REAL,
    sample BLOB,                     -- some samples of the original, to measure by how well it comes back, and its
                                     -- shape
    error TEXT,
    colour REAL                      -- CIEDE2000 difference to the original, of some of the pictures
);
CREATE TABLE files (                 -- published containers, and files that belong to them
    name TEXT PRIMARY KEY,
    sha256 TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX pending ON pictures (number) WHERE status = 'pending';
"""


class Found(NamedTuple):
    """A picture of the source, as it is entered."""

    id: str
    output: str
    label: str
    source: str | None
    error: str | None


@dataclass(frozen=True)
class Outcome:
    """What became of one picture."""

    status: Status
    sha256: str | None = None
    trace: float | bytes | None = None
    psnr: float | None = None
    ssim: float | None = None
    sample: bytes | None = None
    error: str | None = None
    colour: float | None = None


class Picture(NamedTuple):
    """One row, as a reader of the manifest sees it."""

    number: int
    id: str
    output: str
    label: str
    chosen: bool
    status: Status
    sha256: str | None
    trace: float | bytes | None
    sample: bytes | None


_SELECT: Final = "SELECT number, id, output, class, chosen, status, sha256, scale, sample FROM pictures"


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Cut a stream into lists of ``size``; the last may be shorter."""
    stream = iter(items)
    while page := list(itertools.islice(stream, size)):
        yield page


class Manifest:
    """An open manifest; a context manager. One process at a time can write to it."""

    def __init__(self, path: Path) -> None:
        """Open the database; see :meth:`create` and :meth:`open`."""
        self.path = path
        address = f"{path.absolute().as_uri()}?mode=rw"
        self._database = sqlite3.connect(address, uri=True, isolation_level=None, timeout=0)

    @classmethod
    def create(cls, path: Path, about: Mapping[str, Any]) -> Self:
        """Open the manifest of a run, or start it.

        Raises InputError where the file is something else, is in use, or belongs to a run with other options.
        """
        wanted = {"format": _FORMAT} | {name: json.dumps(value, sort_keys=True) for name, value in about.items()}
        with speaking(path):
            try:
                os.close(os.open(path, os.O_CREAT, 0o600))  # for its owner's eyes only
            except OSError as error:
                place = f"{path} ({error.strerror})"
                raise expected("a place for the manifest", place, "name another with --manifest") from None
            manifest = cls(path)
            database = manifest._database
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute("BEGIN IMMEDIATE")  # takes the lock, which is then held to the end
            if not database.execute("SELECT 1 FROM sqlite_schema").fetchone():
                for statement in _SCHEMA.split(";\n"):
                    database.execute(statement)
                database.executemany("INSERT INTO about VALUES (?, ?)", wanted.items())
            elif "colour" not in (column for _, column, *_ in database.execute("PRAGMA table_info(pictures)")):
                database.execute("ALTER TABLE pictures ADD COLUMN colour REAL")  # it was made before there was one
            database.execute("COMMIT")
            found = manifest._about()
        for name, value in wanted.items():
            if found.get(name) != value:
                manifest.close()
                asked = "asked" if name == "parameters" and "asked" in found else name  # before a budget was met
                was, now = _difference(name, found.get(asked), value)
                remedy = "use the same options, or another destination and manifest"
                raise expected(f"the options of the run that {path} records ({was})", now, remedy)
        return manifest

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a manifest to read. Raises InputError where there is none."""
        if not path.is_file():
            raise expected("a manifest", f"nothing at {path}", "name the file that protect reported")
        with speaking(path):
            manifest = cls(path)
            manifest._about()
        return manifest

    @classmethod
    def begun(cls, path: Path) -> bool:
        """Tell whether anything is recorded: a run that was killed as it began may have left an empty file."""
        if not path.exists():
            return False
        with speaking(path), cls(path) as manifest:
            return manifest._database.execute("SELECT 1 FROM sqlite_schema").fetchone() is not None

    def _about(self) -> dict[str, str]:
        about = dict(self._database.execute("SELECT name, value FROM about"))
        if about.get("format") != _FORMAT:
            raise sqlite3.DatabaseError("not a manifest")
        return about

    def about(self, name: str) -> Any:
        """Return one thing that was recorded when the manifest was made. Raises InputError where it cannot be read."""
        text = self._about()[name]
        try:
            return json.loads(text)
        except ValueError:
            raise expected("the manifest as it was written", f"{name} {text!r}", "restore a copy of it") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; everything written so far is in it, and it can be read where nothing can be written."""
        with contextlib.suppress(sqlite3.Error):
            self._database.execute("PRAGMA journal_mode = DELETE")
        self._database.close()

    @contextlib.contextmanager
    def dropped_on_error(self) -> Iterator[None]:
        """Delete the manifest if what is done inside, before any picture is, goes wrong."""
        try:
            yield
        except BaseException:
            self.close()
            self.path.unlink()
            raise

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All of what is written inside, or, if anything goes wrong, nothing of it. An inner one joins the outer."""
        if self._database.in_transaction:
            yield
            return
        self._database.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def add(self, pictures: Iterable[Found]) -> None:
        """Enter the pictures of the source, in its order. Those known already stay as they are, unless they changed.

        Forgotten are pictures that never could be protected and are not in the source any more.

        Raises InputError where two would be published under one name.
        """
        self._database.execute("CREATE TEMP TABLE IF NOT EXISTS seen (id TEXT PRIMARY KEY) WITHOUT ROWID")
        with self.transaction():
            self._database.execute("DELETE FROM seen")
            for page in batched(pictures, _PAGE):
                self._database.executemany("INSERT OR IGNORE INTO seen VALUES (?)", [(found.id,) for found in page])
                rows = [(*picture[:4], "failed" if picture.error else "pending", picture.error) for picture in page]
                try:
                    self._database.executemany(
                        "INSERT INTO pictures (id, output, class, source, status, error) VALUES (?, ?, ?, ?, ?, ?)"
                        " ON CONFLICT (id) DO UPDATE SET class = excluded.class, source = excluded.source,"
                        " status = excluded.status, error = excluded.error"
                        " WHERE (class, source) IS NOT (excluded.class, excluded.source) OR status = 'failed'",
                        rows,
                    )
                except sqlite3.IntegrityError:
                    raise self._clash(page) from None
            unknown = "status IN ('failed', 'pending') AND sha256 IS NULL AND id NOT IN (SELECT id FROM seen)"
            self._database.execute(f"DELETE FROM pictures WHERE {unknown}")

    def _clash(self, page: Iterable[Found]) -> InputError:
        ids: dict[str, str] = {}
        for picture in page:
            query = "SELECT id FROM pictures WHERE output = ? AND id != ?"
            other = self._database.execute(query, (picture.output, picture.id)).fetchone()
            first = other[0] if other else ids.setdefault(picture.output, picture.id)
            if first != picture.id:
                break
        return expected(
            "names that stay different in the new format",
            f"{first!r} and {picture.id!r}, which both become {picture.output!r}",
            "rename one, or use --format keep",
        )

    def classes(self) -> list[str]:
        """List the classes that have pictures, sorted by name."""
        query = "SELECT DISTINCT class FROM pictures WHERE error IS NULL OR status != 'failed' ORDER BY class"
        return [name for (name,) in self._database.execute(query)]

    def choose(self, flags: Iterable[bool]) -> None:
        """Record, in the source's order, which pictures are to be protected; do anew those that this changes."""
        numbers = [number for (number,) in self._database.execute("SELECT number FROM pictures ORDER BY number")]
        with self.transaction():
            self._database.executemany(
                "UPDATE pictures SET chosen = ? WHERE number = ?", zip(flags, numbers, strict=True)
            )
            self._database.execute(
                "UPDATE pictures SET status = 'pending' WHERE status = iif(chosen, 'kept', 'protected')"
            )

    def bind(self, digests: Mapping[str, str]) -> None:
        """Record, in the order of the labels, what each class is protected with, as a digest.

        Raises InputError where that has changed for a class.
        """
        known = dict(self._database.execute("SELECT name, digest FROM classes"))
        for name, digest in digests.items():
            if known.get(name, digest) != digest:
                if known.keys() == digests.keys():
                    raise expected(
                        f"what the run that the manifest records has protected {name!r} with",
                        "something else, of another noise file or as another version draws it from the same key",
                        f"put its noise file back, or use the version that it was made with ({self.about('version')})",
                    )
                raise expected(
                    "the classes of the run that the manifest records",
                    f"other classes, which change what {name!r} is protected with",
                    "protect into a new, empty destination",
                )
        if known.keys() != digests.keys():
            rows = [(name, label, digest) for label, (name, digest) in enumerate(digests.items())]
            self._database.executemany("INSERT OR REPLACE INTO classes VALUES (?, ?, ?)", rows)

    def labels(self) -> list[str]:
        """List the classes in the order of their labels."""
        return [name for (name,) in self._database.execute("SELECT name FROM classes ORDER BY label")]

    def pictures(self, *statuses: Status) -> Iterator[Picture]:
        """Go through the pictures, in the source's order; only those of some status if any is named."""
        number = 0
        wanted = f"status IN ({', '.join('?' * len(statuses))})" if statuses else "true"
        while page := self._rows(f"WHERE number > ? AND {wanted} ORDER BY number LIMIT {_PAGE}", number, *statuses):
            yield from page
            number = page[-1].number

    def within(self, container: str) -> Iterator[Picture]:
        """Go through the pictures of a container that should be in its published copy."""
        inside = f"{container}/"
        return (row for row in self.pictures("pending", "protected", "kept") if row.id.startswith(inside))

    def look_up(self, ids: Iterable[str]) -> dict[str, Picture]:
        """Return the rows of some pictures, by id; of those alone that were not known to fail at the outset."""
        found = (row for id_ in ids for row in self._rows("WHERE id = ? AND error IS NULL", id_))
        return {row.id: row for row in found}

    def find(self, output: str) -> Picture | None:
        """Look a published picture up by its name."""
        return next(iter(self._rows("WHERE output = ?", output)), None)

    def _rows(self, where: str, *values: object) -> list[Picture]:
        rows = (Picture(*row) for row in self._database.execute(f"{_SELECT} {where}", values))
        return [row._replace(chosen=bool(row.chosen)) for row in rows]

    def open_within(self, container: str) -> bool:
        """Tell whether a container has pictures still to be done."""
        query = "SELECT 1 FROM pictures WHERE status = 'pending' AND substr(id, 1, ?) = ? LIMIT 1"
        return self._database.execute(query, (len(container) + 1, f"{container}/")).fetchone() is not None

    def record(self, outcomes: Iterable[tuple[int, Outcome]]) -> None:
        """Write down what became of pictures."""
        self._database.executemany(
            "UPDATE pictures SET status = ?, sha256 = coalesce(?, sha256), scale = ?, psnr = ?, ssim = ?, sample = ?,"
            " error = ?, colour = ? WHERE number = ?",
            [(*astuple(outcome), number) for number, outcome in outcomes],
        )

    def reopen(self, exists: Callable[[str], bool]) -> None:
        """Have those pictures done again that were published before and do not exist any more."""
        query = "SELECT number, output FROM pictures WHERE status IN ('protected', 'kept')"
        gone = [(number,) for number, output in self._database.execute(query) if not exists(output)]
        with self.transaction():
            self._database.executemany("UPDATE pictures SET status = 'pending' WHERE number = ?", gone)

    def withdraw(self, remove: Callable[[str], None]) -> None:
        """Remove what was published of pictures that failed since, and forget it."""
        for row in self.pictures("failed"):
            if row.sha256 is not None:
                remove(row.output)
                self._database.execute("UPDATE pictures SET sha256 = NULL WHERE number = ?", (row.number,))

    def record_file(self, name: str, sha256: str) -> None:
        """Write down what a published container, or a file that belongs to one, holds."""
        self._database.execute("INSERT OR REPLACE INTO files VALUES (?, ?)", (name, sha256))

    def file_digests(self) -> dict[str, str]:
        """Return what containers and their companions held when they were published, by name."""
        return dict(self._database.execute("SELECT name, sha256 FROM files ORDER BY name"))

    def ids(self) -> Iterator[str]:
        """Go through the ids of all pictures, in the source's order."""
        return (picture.id for picture in self.pictures())

    def total(self) -> int:
        """Count the pictures."""
        return sum(self.counts().values())

    def counts(self) -> dict[Status, int]:
        """Count the pictures by status."""
        found = dict(self._database.execute("SELECT status, count(*) FROM pictures GROUP BY status"))
        return {status: found.get(status, 0) for status in ("pending", "protected", "kept", "failed")}

    def medians(self) -> tuple[float | None, float | None, float | None]:
        """Return the medians of PSNR (dB), SSIM and CIEDE2000 over the protected pictures; None where none is known."""
        psnr, ssim = self._median("psnr", "psnr IS NOT NULL"), self._median("ssim", "ssim IS NOT NULL")
        return psnr, ssim, self._median("colour", "colour IS NOT NULL")

    def _median(self, column: Literal["psnr", "ssim", "colour"], known: str) -> float | None:
        known = f"FROM pictures WHERE {known}"
        (count,) = self._database.execute(f"SELECT count(*) {known}").fetchone()
        middle = f"SELECT {column} AS value {known} ORDER BY value LIMIT 2 - ? % 2 OFFSET (? - 1) / 2"
        (median,) = self._database.execute(f"SELECT avg(value) FROM ({middle})", (count, count)).fetchone()
        return None if median is None else float(median)

    def traces(self) -> Iterator[float | bytes | None]:
        """Go through the traces of the protected pictures."""
        for (trace,) in self._database.execute("SELECT scale FROM pictures WHERE status = 'protected'"):
            yield trace

    def failures(self) -> Iterator[tuple[str, str]]:
        """Go through the pictures that failed: id and reason."""
        yield from self._database.execute("SELECT id, error FROM pictures WHERE status = 'failed' ORDER BY number")


def _difference(name: str, was: str | None, now: str) -> tuple[str, str]:
    """Word how an option was and is; of several that are recorded as one, the first that differs."""
    try:
        before, after = json.loads(was or "null"), json.loads(now)
    except ValueError:  # it is damaged
        before = after = None
    if isinstance(before, dict) and isinstance(after, dict):
        name = next(one for one in sorted(before | after) if before.get(one) != after.get(one))
        was, now = json.dumps(before.get(name)), json.dumps(after.get(name))
    return f"{name}: {was}", f"{name}: {now}"


@contextlib.contextmanager
def speaking(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system say about a manifest into words for its owner."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        match error.sqlite_errorname if hasattr(error, "sqlite_errorname") else "":
            case "SQLITE_FULL" | "SQLITE_IOERR_WRITE":
                raise no_room(path) from None
            case "SQLITE_BUSY":
                remedy = "wait until it is done, or name another manifest and destination"
                raise expected(
                    "a manifest that nobody else writes to", f"another run at work on {path}", remedy
                ) from None
            case "SQLITE_CANTOPEN" | "SQLITE_READONLY" | "SQLITE_READONLY_DBMOVED":
                remedy = "name another with --manifest"
                raise expected("a place for the manifest", f"{path}, which cannot be written", remedy) from None
        raise expected("a manifest", f"something else at {path} ({error})", "name another with --manifest") from None
