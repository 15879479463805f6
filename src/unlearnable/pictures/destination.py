"""Where pictures are written: claimed by one run at a time, and never seen half done."""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from unlearnable.errors import expected, no_room

PARTIAL: Final = ".unlearnable-partial"
"""Folder, inside the destination, of files that are not whole yet; gone when the work is done."""


def check_apart(source: Path, destination: Path, *secrets: Path) -> None:
    """Raise InputError where one of two places lies in the other, or a secret file lies in either."""
    here, there = source.resolve(), destination.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise expected(
            "a destination apart from the source", f"{destination} and {source}", "choose a folder outside the source"
        )
    for secret in secrets:
        for place in (here, there):
            if place == secret.resolve() or place in secret.resolve().parents:
                raise expected(
                    "secret files outside the pictures' folders", f"{secret} in {place}", "put it somewhere else"
                )


@contextmanager
def claimed(destination: Path, *, single_file: bool) -> Iterator[Path]:
    """Claim a destination for this run, and give it a folder for files that are not whole yet.

    Raises InputError where another run has claimed it, or it cannot be written.
    """
    home = destination.parent if single_file else destination
    partial = home / f"{PARTIAL}-{destination.name}" if single_file else home / PARTIAL
    with writing(destination):
        partial.mkdir(parents=True, exist_ok=True)
        claim = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not (partial.exists() and os.path.samestat(os.fstat(claim), os.stat(partial))):
                raise BlockingIOError  # the folder was another run's, which has just removed it
        except BlockingIOError:
            remedy = "wait until it is done, or choose another destination"
            raise expected("a destination of its own", f"another run at work on {destination}", remedy) from None
        for left in partial.iterdir():
            left.unlink()
        try:
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            if not single_file:
                with contextlib.suppress(OSError):  # it holds something: then it stays
                    destination.rmdir()
    finally:
        os.close(claim)


@contextmanager
def writing(place: Path | str) -> Iterator[None]:
    """Turn what the system says about a place that cannot be written into words for its owner."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_room(place) from None
        raise expected(
            "a destination that can be written", f"{error.strerror} at {error.filename or place}", "choose another"
        ) from None


def publish(data: bytes, partial: str | Path, target: str | Path) -> None:
    """Write a whole file or none. Raises InputError where it cannot be written."""
    with writing(target):
        try:
            with open(partial, "wb") as file:
                file.write(data)
            try:
                os.replace(partial, target)
            except FileNotFoundError:  # its folder, most likely: made once it is needed
                os.makedirs(os.path.dirname(target), exist_ok=True)
                os.replace(partial, target)
        except OSError:
            Path(partial).unlink(missing_ok=True)
            raise


def published(destination: Path) -> Iterator[str]:
    """Go through the files of a destination, by path relative to it; partial ones left out."""
    for folder, folders, files in os.walk(destination):
        below = os.path.relpath(folder, destination)
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]  # never followed
        folders[:] = sorted(name for name in folders if name not in links and not (below == "." and name == PARTIAL))
        for name in sorted(files + links):
            yield name if below == "." else f"{below}/{name}".replace(os.sep, "/")
