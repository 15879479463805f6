"""Sets that others have protected, as they publish them: numbered pictures, or noise to be added to the clean set."""

import hashlib
import math
import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from unlearnable.errors import InputError, expected
from unlearnable.pictures import cache
from unlearnable.pictures.dataset import Dataset, load, match
from unlearnable.pictures.folder import is_picture
from unlearnable.pictures.npz import Archive
from unlearnable.pictures.unpickling import Array, unpickle

_TENSORS: Final = (".pt", ".pth")
_PICKLES: Final = (".pkl", ".pickle")
_FULL: Final = 255
_PART: Final = 1 << 22  # samples that are looked at or made at a time
_COMPARED: Final = 500  # pictures by which their order is judged
_BELONGING: Final = "take the file that was made for just this set"


def load_protected(
    text: str, clean: Dataset, *, classes: str = "folder", size: int | None = None, limit: int | None = None
) -> tuple[str, Dataset]:
    """Load a protected set, its pictures in the order of the clean ones.

    text: its path, or NAME=PATH. The name is the file's or the folder's, without suffix, unless given.
    clean: the set that was protected. With a foreign set (see :func:`is_foreign`) all of it.
    classes, size, limit: as the clean set was loaded with; a foreign set is neither scaled nor cut.

    Raises InputError where the two do not belong together, or do not differ.
    """
    name, path = _parsed(text)
    if is_foreign(path) and _numbers(path) != {_stem(id_) for id_ in clean.ids}:
        return name, open_foreign(path, clean)
    published = load(path, classes=classes, size=size, limit=limit)
    index = match(clean, published)
    if not np.array_equal(index, np.arange(len(index))):
        published = published.select(index)
    _check_changed(published.images, clean, path)
    return name, published


def _parsed(text: str) -> tuple[str, Path]:
    name, equals, place = text.partition("=")
    if not equals or os.sep in name or Path(text).exists():
        name, place = "", text
    elif not name or not place:
        raise expected("a protected set as NAME=PATH", repr(text), "write a name before =, or the path alone")
    path = Path(place)
    if not path.exists():
        raise expected("a protected set", f"nothing at {path}", "check the path")
    return name or (path.resolve().name if path.is_dir() else path.stem), path


def is_foreign(path: Path) -> bool:
    """Tell whether a protected set has no names of its own, and is to be read in the order of the clean one.

    That is noise or pictures in a .npy, .pt or .pkl file, or in an .npz file without ``images``; or a flat folder of
    pictures that are all named by numbers.
    """
    if path.is_dir():
        return bool(_numbers(path))
    if path.suffix.lower() == ".npz":
        with Archive.open(path) as archive:
            return "images.npy" not in archive.zip.namelist()
    return path.suffix.lower() in (".npy", *_TENSORS, *_PICKLES)


def _numbers(folder: Path) -> set[str]:
    """Return the names, without suffixes, of a flat folder's pictures; none unless all are numbers."""
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        seen = [entry for entry in entries if not entry.name.startswith(".")]
    stems = {_stem(entry.name) for entry in seen if is_picture(entry.name)}
    flat = not any(entry.is_dir() for entry in seen)
    return stems if flat and all(stem.isdecimal() for stem in stems) else set()


def _stem(id_: str) -> str:
    return os.path.splitext(id_)[0]


def open_foreign(path: str | os.PathLike[str], clean: Dataset) -> Dataset:
    """Load a foreign set (see :func:`is_foreign`), with the labels and ids of the clean one.

    Numbered pictures, from 0, are in the order of the clean set; so are the entries of an array. An array may have its
    channels first or last. One whose entries are as many as the classes (and not the pictures) has one for each class.
    Integers are in pixel units (0 to 255), and so are floats of which one is beyond 1; other floats are fractions of
    full scale. Arrays without negative numbers that go beyond half of full scale are pictures; all others are noise,
    which is added to the clean pictures, rounded, and cut off at 0 and 255.

    Raises InputError where the file is not what it seems, or does not fit the clean set; nothing in it is ever run.
    """
    path = Path(path)
    if path.is_dir():
        images = _numbered(path, clean)
        _check_order(images, clean, path)
    else:
        values = _values(path)
        entries, owners = _arranged(values, clean, path)
        unit, are_pictures = _meaning(entries, path)
        if are_pictures and len(entries) != len(clean):
            raise expected(f"{len(clean)} pictures, as the clean set has", f"{len(entries)} in {path}", _BELONGING)
        images = _added(entries, owners, unit, None if are_pictures else clean.images, _key(path, clean))
        if are_pictures:
            _check_order(images, clean, path)
    _check_changed(images, clean, path)
    return replace(clean, images=images)


def _numbered(folder: Path, clean: Dataset) -> NDArray[np.uint8]:
    """Load pictures named by the numbers from 0 on, in that order."""
    found = load(folder, classes="single")
    if found.skipped:
        id_, reason = found.skipped[0]
        raise expected(f"{len(clean)} pictures in {folder}", f"{id_!r}, which cannot be read ({reason})", "mend it")
    numbers = np.array([int(_stem(id_)) for id_ in found.ids])
    order = np.argsort(numbers)
    if not np.array_equal(numbers[order], np.arange(len(clean))):
        there = f"{len(numbers)} named {numbers.min()} to {numbers.max()}"
        raise expected(f"{len(clean)} pictures named 0 to {len(clean) - 1} in {folder}", there, _BELONGING)
    if found.images.shape[1:] != clean.images.shape[1:]:
        raise _wrong_shape(found.images.shape, clean, folder)
    return found.images[order]


def _values(path: Path) -> NDArray[Any]:
    """Read the one array of a file. Raises InputError where it holds anything else, which is never run."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".npz":
            return _zipped(path)
        if suffix in _TENSORS:
            return _tensor(path)
        if suffix in _PICKLES:
            found = unpickle(path.read_bytes())
            if not isinstance(found, Array):
                raise TypeError(f"a {type(found).__name__}")
            return found.values()
        return np.lib.format.open_memmap(path, mode="r")
    except InputError:
        raise
    except Exception as error:  # pickle, torch and numpy do not name all that they raise
        reason = str(error).partition("\n")[0]
        raise expected("an array of numbers and no more", f"{path} ({reason})", "save it with numpy.save") from None


def _zipped(path: Path) -> NDArray[Any]:
    with Archive.open(path) as archive:
        shapes = archive.shapes()
        names = [name for name, shape in shapes.items() if len(shape) in (3, 4)]
        if len(names) != 1:
            found = ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "none"
            raise expected(f"one array of noise or pictures in {path}", found, "save it alone, with numpy.save")
        array = archive.array(names[0])
        (values,) = archive.rows(array, max(1, array.shape[0]))
        return values


def _tensor(path: Path) -> NDArray[Any]:
    try:
        import torch
    except ImportError:
        raise expected(f"PyTorch, to read {path}", "none installed", "pip install 'unlearnable[train]'") from None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # its message tells how to read such a file all the same, and run what is in it
        raise TypeError("no tensor alone, or damaged") from None
    if not isinstance(found, torch.Tensor):
        raise TypeError(f"a {type(found).__name__}")
    values = found.detach()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def _arranged(values: NDArray[Any], clean: Dataset, path: Path) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Bring an array to (entries, height, width, channels), and tell which entry belongs to each clean picture."""
    count, height, width, channels = clean.images.shape
    if values.ndim == 3 and channels == 1:
        values = values[..., None]
    elif values.shape[1:] == (channels, height, width):
        values = values.transpose(0, 2, 3, 1)
    if values.shape[1:] != (height, width, channels):
        raise _wrong_shape(values.shape, clean, path)
    if len(values) == count:
        return values, np.arange(count)
    if len(values) == len(clean.class_names):
        return values, clean.labels
    wanted = f"{count} entries, one for each clean picture, or {len(clean.class_names)}, one for each class"
    raise expected(wanted, f"{len(values)} in {path}", f"{_BELONGING}, and load all of that")


def _wrong_shape(shape: tuple[int, ...], clean: Dataset, path: Path) -> InputError:
    _, height, width, channels = clean.images.shape
    wanted = f"(count, {height}, {width}, {channels}) or (count, {channels}, {height}, {width})"
    return expected(f"the shape {wanted}, as the clean pictures have", f"{shape} in {path}", _BELONGING)


def _meaning(values: NDArray[Any], path: Path) -> tuple[int, bool]:
    """Tell how many pixel units 1 is, and whether the numbers are pictures. Raises InputError for neither."""
    if values.dtype.kind not in "iuf":
        raise expected("an array of integers or floats", f"{values.dtype} in {path}", "save numbers")
    extremes = [(float(values[part].min()), float(values[part].max())) for part in _parts(values)]
    lowest, highest = min(low for low, _ in extremes), max(high for _, high in extremes)
    if not all(math.isfinite(number) for pair in extremes for number in pair):
        raise expected("finite numbers", f"NaN or infinity in {path}", "make the noise again: its training diverged")
    largest = max(highest, -lowest)
    unit = _FULL if values.dtype.kind == "f" and largest <= 1 else 1
    if largest * unit > _FULL:
        raise expected(f"numbers from -{_FULL} to {_FULL}", f"{lowest:g} to {highest:g} in {path}", _BELONGING)
    return unit, lowest >= 0 and highest * unit > _FULL / 2


def _added(
    values: NDArray[Any], owners: NDArray[np.int64], unit: int, base: NDArray[np.uint8] | None, key: str
) -> NDArray[np.uint8]:
    """Return values[owners], in pixel units, added to the base if there is one; rounded and cut off at 0 and 255."""
    if (kept := cache.find(key)) is not None:
        return kept[0]
    with cache.Making(key) as making:
        images = making.allocate((len(owners), *values.shape[1:]))
        for part in _parts(images):
            samples = values[owners[part]].astype(np.float64) * unit
            if base is not None:
                samples += base[part]
            images[part] = np.rint(samples).clip(0, _FULL)
        return making.keep(images, {})


def _key(path: Path, clean: Dataset) -> str:
    file = path.stat()
    about = f"{path.resolve()}\n{file.st_size}\n{file.st_mtime_ns}\n{clean.fingerprint()}"
    return hashlib.sha256(about.encode(errors="backslashreplace")).hexdigest()


def _parts(values: NDArray[Any]) -> Iterator[slice]:
    """Cut an array into parts of which each fits well into memory."""
    step = max(1, _PART // max(1, math.prod(values.shape[1:])))
    return (slice(start, start + step) for start in range(0, len(values), step))


def _check_order(images: NDArray[np.uint8], clean: Dataset, path: Path) -> None:
    """Raise InputError unless most pictures are nearer to their clean ones than to others of the clean set."""
    places = np.unique(np.linspace(0, len(clean) - 1, _COMPARED).astype(int))
    if len(places) < 2:
        return
    originals, published = (array[places].astype(np.int16) for array in (clean.images, images))
    own, other = (np.abs(published - np.roll(originals, step, 0)).mean((1, 2, 3)) for step in (0, 1))
    if 2 * (own < other).sum() <= len(places):
        wanted = "pictures in the order of the clean set"
        raise expected(wanted, f"others in {path}", "name the clean set that they were made of, in their order")


def _check_changed(images: NDArray[np.uint8], clean: Dataset, path: Path) -> None:
    if all(np.array_equal(images[part], clean.images[part]) for part in _parts(images)):
        raise expected("pictures that differ from the clean ones", f"the same in {path}", "name the protected set")
