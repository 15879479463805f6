"""Decoded data sets that are too large for memory: files in the user's cache folder, mapped from there.

Each lies in a folder of its own, named by what decides it. It appears whole, by a rename, or not at all; whoever comes
second throws his own away. All of it may be deleted at any time.
"""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from unlearnable.pictures.destination import writing


def home() -> Path:
    """Return the folder of all cached sets."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return Path(base if os.path.isabs(base) else Path.home() / ".cache", "unlearnable", "datasets")


def find(key: str) -> tuple[NDArray[np.uint8], dict[str, str]] | None:
    """Return the pictures kept under a key, mapped read-only, and why some are not among them; None without any."""
    place = home() / key
    try:
        about = json.loads((place / "about.json").read_text(encoding="utf-8"))
        images = np.memmap(place / "images", np.uint8, "r", shape=tuple(about["shape"]))
        return images, about["failures"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):  # damaged: made again
        shutil.rmtree(place, ignore_errors=True)
        return None


class Making:
    """A data set in the making, in memory if it is small enough. A context manager that leaves nothing half done."""

    def __init__(self, key: str, in_memory: int | None = None) -> None:
        """Take the key to keep it under, and how many bytes may be in memory: by default half of what there is."""
        self._key = key
        self._in_memory = _half_of_memory() if in_memory is None else in_memory
        self._partial: Path | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._partial:
            shutil.rmtree(self._partial, ignore_errors=True)

    def allocate(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Make room for pictures. Raises InputError where there is none."""
        size = math.prod(shape)
        if size <= self._in_memory:
            return np.empty(shape, np.uint8)
        with writing(home()):
            if self._partial is None:
                home().mkdir(0o700, parents=True, exist_ok=True)
                self._partial = Path(tempfile.mkdtemp(prefix="partial-", dir=home()))
            file = self._partial / "images"
            file.unlink(missing_ok=True)  # what is mapped from it stays so
            with file.open("xb") as out:
                if hasattr(os, "posix_fallocate"):  # a full disk shows here, and not in a write to mapped memory
                    os.posix_fallocate(out.fileno(), 0, size)
                else:
                    out.truncate(size)
            return np.memmap(file, np.uint8, "r+", shape=shape)

    def keep(self, images: NDArray[np.uint8], failures: Mapping[str, str]) -> NDArray[np.uint8]:
        """Keep pictures, the first of those allocated, if they are in a file; return them as :func:`find` would."""
        if self._partial is None or not isinstance(images, np.memmap):
            return images
        with writing(home()):
            images.flush()
            about = {"shape": images.shape, "failures": failures}
            (self._partial / "about.json").write_text(json.dumps(about), encoding="utf-8")
            try:
                self._partial.rename(home() / self._key)
            except OSError:
                if not (home() / self._key).is_dir():  # else another process was faster
                    raise
        kept = find(self._key)
        return images if kept is None else kept[0]


def _half_of_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
