"""The store: one SQLite file that knows every finished run, and which of the others somebody is at work on."""

import contextlib
import hashlib
import json
import os
import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from unlearnable.errors import expected, no_room
from unlearnable.pictures.destination import writing

CLEAN: Final = "clean"
"""The name of the clean set in rows."""

SUBSET: Final = "clean subset"
"""The name, in rows, of a partly protected set whose protected part is thrown away."""

SCHEMA_VERSION: Final = 1
"""Of the file, as SQLite's ``user_version``; raised whenever the tables or the meaning of a key change."""

LEASE: Final = 20.0
"""Seconds after its last sign of life at which a process's claim on a run lapses."""

_KIND: Final = 0x756E6C61  # SQLite's application_id of these files: "unla" in ASCII
_BUSY_SECONDS: Final = 30.0  # that a process waits for another one's write
_COLUMNS: Final = (
    *("protection", "fraction", "countermeasure", "recipe", "model", "seed"),
    *("accuracy", "right", "total", "chance", "seconds", "finished"),
)
_SCHEMA: Final = (
    "CREATE TABLE runs (key TEXT PRIMARY KEY, row TEXT NOT NULL CHECK (json_valid(row))) WITHOUT ROWID",
    "CREATE TABLE claims (key TEXT PRIMARY KEY, owner TEXT NOT NULL, until REAL NOT NULL) WITHOUT ROWID",
    # For people with the sqlite3 program at hand.
    f"CREATE VIEW results AS SELECT {', '.join(f'row ->> {name!r} AS {name}' for name in _COLUMNS)} FROM runs",
    f"PRAGMA application_id = {_KIND}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One finished run.

    key: sha256, as hexadecimal digits, of ``spec``: of everything that determines the run.
    protection: the set's name; "clean" for the clean one; "clean subset" where the protected part is thrown away.
    fraction: of the training pictures that is protected (or thrown away); 0 for the clean set.
    countermeasure, recipe, model: by the names that the command takes.
    accuracy: share of the test pictures named rightly, ``right`` of ``total``; 0 to 1.
    chance: what the best constant answer reaches on the test pictures.
    per_class: accuracy by class; confusion: counts, a row a true class, a column an answer.
    history: a mapping an epoch: epoch (from 1), loss, accuracy (on the training pictures).
    gradients: pictures passed forward and backward, those of attacks included.
    seconds: of training and testing, over all processes that had a part in it.
    halves: [right, total] of the two halves of the test set: the one a search may choose by, the one it reports.
    versions: of the software and the kind of machine; told, and but for a part of it no part of the key.
    finished: UTC, ISO 8601.
    """

    key: str
    protection: str
    fraction: float
    countermeasure: str
    recipe: str
    model: str
    seed: int
    accuracy: float
    right: int
    total: int
    chance: float
    per_class: list[float]
    confusion: list[list[int]]
    history: list[dict[str, float]]
    gradients: int
    seconds: float
    spec: dict[str, Any]
    versions: dict[str, str]
    finished: str
    halves: list[list[int]] = field(default_factory=list)


class Merged(NamedTuple):
    """What became of rows from elsewhere: new ones, known ones, and known ones whose accuracy is another."""

    added: int
    known: int
    differing: int


def key_of(spec: Mapping[str, Any]) -> str:
    """Hash what determines a run, whatever the order it is named in.

    >>> key_of({"seed": 0, "model": "resnet9-w16"}) == key_of({"model": "resnet9-w16", "seed": 0})
    True
    """
    return hashlib.sha256(json.dumps(spec, sort_keys=True, allow_nan=False).encode()).hexdigest()


class Store:
    """An open store; a context manager. Any number of processes on one machine may work on one store."""

    def __init__(self, path: Path, *, lease: float | None = None) -> None:
        """Open a store, or start one where there is no file.

        lease: in seconds, :data:`LEASE` if not given; all processes at work on one store have the same.

        Raises InputError where the file is something else, or a store of another version.
        """
        self.path, self.lease = path, LEASE if lease is None else lease
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex}"
        with speaking(path):
            self._database = self._connect()
            try:
                self._prepare()
            except BaseException:
                self._database.close()
                raise

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, isolation_level=None, timeout=_BUSY_SECONDS)

    def _prepare(self) -> None:
        with self._transaction():
            if not self._database.execute("SELECT 1 FROM sqlite_schema").fetchone():
                for statement in _SCHEMA:
                    self._database.execute(statement)
        (kind,) = self._database.execute("PRAGMA application_id").fetchone()
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if kind != _KIND:
            raise expected("a store of an audit", f"a database of another kind at {self.path}", "name another folder")
        if version != SCHEMA_VERSION:
            raise expected(
                f"a store of version {SCHEMA_VERSION}",
                f"version {version} at {self.path}",
                "use the release that made it, or name another folder",
            )
        self._write_ahead()
        self._database.execute("PRAGMA synchronous = NORMAL")

    def _write_ahead(self) -> None:
        """Switch to the journal that lets others read meanwhile; SQLite itself does not wait for its turn to."""
        patience = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                self._database.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > patience:
                    raise
                time.sleep(0.01)
            else:
                return

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def get(self, key: str) -> Row | None:
        """Return a finished run, or None."""
        with speaking(self.path):
            found = self._database.execute("SELECT row FROM runs WHERE key = ?", (key,)).fetchone()
        return None if found is None else Row(**json.loads(found[0]))

    def rows(self) -> list[Row]:
        """List every finished run, by key."""
        with speaking(self.path):
            found = self._database.execute("SELECT row FROM runs ORDER BY key").fetchall()
        return [Row(**json.loads(row)) for (row,) in found]

    def add(self, row: Row) -> None:
        """Keep a finished run; one that is known already stays as it is."""
        self.merge([row])

    def merge(self, rows: Iterable[Row]) -> Merged:
        """Keep runs from elsewhere. Those that are known already stay as they are, and are counted."""
        added = known = differing = 0
        with speaking(self.path), self._transaction():
            for row in rows:
                mine = self.get(row.key)
                if mine is None:
                    self._database.execute("INSERT INTO runs VALUES (?, ?)", (row.key, _one_line(row)))
                    added += 1
                else:
                    known += 1
                    differing += (mine.right, mine.total) != (row.right, row.total)
        return Merged(added, known, differing)

    @contextlib.contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Claim a run for as long as the block lasts; yields whether that succeeded.

        It does not where the run is finished, or another process has claimed it. A claim lapses when its process has
        given no sign of life for the length of the lease: a thread gives one often enough.
        """
        if not self._take(key):
            yield False
            return
        over = threading.Event()
        beating = threading.Thread(target=self._beat, args=(key, over), daemon=True)
        beating.start()
        try:
            yield True
        finally:
            over.set()
            beating.join()
            with speaking(self.path):
                self._database.execute("DELETE FROM claims WHERE key = ? AND owner = ?", (key, self.owner))

    def _take(self, key: str) -> bool:
        query = "SELECT 1 FROM runs WHERE key = ? UNION ALL SELECT 1 FROM claims WHERE key = ? AND until > ?"
        with speaking(self.path), self._transaction():
            now = time.time()
            if self._database.execute(query, (key, key, now)).fetchone():
                return False
            claim = (key, self.owner, now + self.lease)
            self._database.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", claim)
        return True

    def _beat(self, key: str, over: threading.Event) -> None:
        with contextlib.closing(self._connect()) as database:
            while not over.wait(self.lease / 4):
                with contextlib.suppress(sqlite3.OperationalError):  # there is time for another try
                    until = time.time() + self.lease
                    query = "UPDATE claims SET until = ? WHERE key = ? AND owner = ?"
                    database.execute(query, (until, key, self.owner))


def write_rows(rows: Iterable[Row], path: Path) -> None:
    """Write runs as JSON lines, by key: the same runs give the same bytes. Raises InputError where that cannot be."""
    lines = [_one_line(row) + "\n" for row in sorted(rows, key=lambda row: row.key)]
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with writing(path):
        try:
            partial.write_text("".join(lines), encoding="utf-8")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def read_rows(path: Path) -> list[Row]:
    """Read runs from JSON lines.

    Raises InputError, with the line, for anything that is not a run, and where a key is not that of its ``spec``.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise expected("rows, one a line", f"{path}, which cannot be read ({error})", "check the path") from None
    return [_read(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def _read(line: str, place: str) -> Row:
    needed = {field.name for field in fields(Row)}
    remedy = "take the line out"
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        raise expected("a row as JSON", f"{error.msg} at {place}", remedy) from None
    if not isinstance(found, dict) or found.keys() != needed:
        odd = sorted(needed ^ found.keys()) if isinstance(found, dict) else [type(found).__name__]
        raise expected("a row with the fields of this release", f"{', '.join(odd)} amiss at {place}", remedy)
    if found["key"] != key_of(found["spec"]):
        raise expected("a row whose key is that of its spec", f"another one at {place}", remedy)
    return Row(**found)


def _one_line(row: Row) -> str:
    return json.dumps(asdict(row), sort_keys=True, allow_nan=False)


@contextlib.contextmanager
def speaking(path: Path) -> Iterator[None]:
    """Turn what SQLite says about a store into words for its owner."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        match getattr(error, "sqlite_errorname", ""):
            case "SQLITE_FULL" | "SQLITE_IOERR_WRITE":
                raise no_room(path) from None
            case "SQLITE_BUSY":
                raise expected("a store that can be written", f"{path} in use", "stop the other program") from None
            case "SQLITE_CANTOPEN" | "SQLITE_READONLY" | "SQLITE_READONLY_DBMOVED":
                found = f"{path}, which cannot be written"
                raise expected("a store that can be written", found, "name another folder") from None
        found = f"something else, or a damaged one, at {path} ({error})"
        raise expected("a store of an audit", found, "move it away; rows.jsonl beside it is read again") from None
