"""The corrupted test sets as they were released, CIFAR-10-C and CIFAR-100-C: a file of pictures a corruption."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from unlearnable.attacks.corruptions import CORRUPTIONS, SEVERITIES
from unlearnable.errors import expected

_LABELS: Final = "labels.npy"
_REMEDY: Final = "name the folder that CIFAR-10-C or CIFAR-100-C was unpacked into"


@dataclass(frozen=True)
class Released:
    """A folder of such files, with labels (5, count) int64: places in the data set's own order of classes."""

    folder: Path
    labels: NDArray[np.int64]

    def pictures(self, name: str, severity: int) -> NDArray[np.uint8]:
        """Map a corruption's pictures at one severity from the disk: (count, height, width, channels) uint8.

        Raises InputError where the file holds something else.
        """
        path = _path(self.folder, name)
        images = _mapped(path)
        count = self.labels.shape[1]
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) != self.labels.size:
            wanted = f"{self.labels.size} uint8 pictures in {path}"
            raise expected(wanted, f"{images.dtype} of shape {images.shape}", _REMEDY)
        return images[(severity - 1) * count : severity * count]


def open_released(folder: Path) -> Released:
    """Open a folder of ``NAME.npy`` for each corruption, severity 1 first, and ``labels.npy``.

    Raises InputError where one is missing, before anything long is begun.
    """
    missing = [path.name for path in (folder / _LABELS, *(_path(folder, n) for n in CORRUPTIONS)) if not path.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise expected(f"the files of {len(CORRUPTIONS)} corruptions in {folder}", f"no {missing[0]}{more}", _REMEDY)
    labels = _mapped(folder / _LABELS)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels) or len(labels) % len(SEVERITIES):
        wanted = f"a label a picture and severity in {folder / _LABELS}"
        raise expected(wanted, f"{labels.dtype} of shape {labels.shape}", _REMEDY)
    return Released(folder, labels.astype(np.int64).reshape(len(SEVERITIES), -1))


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"


def _mapped(path: Path) -> NDArray[Any]:
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise expected(f"an array in {path}", f"none ({error})", _REMEDY) from None
