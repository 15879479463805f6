"""The pictures of an audit: the clean set, protected versions of it, and a test set; checked against each other."""

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from unlearnable.audit.mix import choose
from unlearnable.audit.results import Sample
from unlearnable.audit.store import CLEAN, SUBSET
from unlearnable.audit.verdict import chance_of
from unlearnable.errors import InputError, expected
from unlearnable.pictures import quality
from unlearnable.pictures.dataset import Dataset, load
from unlearnable.pictures.destination import writing
from unlearnable.pictures.foreign import is_foreign, load_protected

_NAMED: Final = 3  # things that a message names
_SHOWN: Final = (2, 40)  # pictures for people to see: of each class, and in all
_MEASURED: Final = 1000  # pictures, at most, that the medians of PSNR and SSIM are taken over


@dataclass(frozen=True, kw_only=True, eq=False)
class Sets:
    """Pictures of one size and the same classes.

    protected: by name; each holds the clean set's pictures, in its order.
    """

    clean: Dataset
    protected: Mapping[str, Dataset]
    test: Dataset

    @cached_property
    def chance(self) -> float:
        """What the best constant answer reaches on the test pictures."""
        return chance_of(np.bincount(self.test.labels))

    @cached_property
    def selection(self) -> NDArray[np.bool_]:
        """The half of the test pictures that a search may choose by, as a mask; the same share of every class."""
        return choose(self.test.ids, _classes(self.test), 0.5, 0, "halves")

    @cached_property
    def _ids(self) -> tuple[str, str]:
        """Digests of what parts of the clean and of the test pictures are chosen by."""
        clean, test = (hashlib.sha256("\0".join(sorted(one.ids)).encode()) for one in (self.clean, self.test))
        return clean.hexdigest(), test.hexdigest()

    def training(self, protection: str, fraction: float, seed: int) -> Dataset:
        """Put the training pictures of one run together (see :class:`unlearnable.audit.grid.Cell`)."""
        if protection == CLEAN:
            return self.clean
        if fraction == 1:
            return self.protected[protection]
        chosen = choose(self.clean.ids, _classes(self.clean), fraction, seed, "mix")
        if protection == SUBSET:
            return self.clean.select(~chosen)
        images = np.where(chosen[:, None, None, None], self.protected[protection].images, self.clean.images)
        return replace(self.clean, images=images)

    def identity(self, protection: str, fraction: float, *, known: bool = False) -> dict[str, Any]:
        """Return all that determines the training pictures of a run, beside the seed, and the test pictures.

        known: whether some clean pictures are known to the scraper, whatever is trained on.
        """
        used = {
            "protected": self.protected[protection].fingerprint() if protection in self.protected else None,
            "clean": self.clean.fingerprint() if fraction < 1 or known else None,
        }
        if 0 < fraction < 1 or known:
            used["choice"] = self._ids[0]
        tests = {"pictures": self.test.fingerprint(), "choice": self._ids[1]}
        return {"train": used | {"fraction": fraction, "count": len(self.clean)}, "test": tests}

    def save_sample(self, path: Path) -> None:
        """Write a few pictures of every class, as they were and as protected, for people to look at.

        An .npz file: ``names`` of the P protected sets; ``class_names``; ``ids`` and ``labels`` of the n pictures;
        ``clean``, (n, height, width, channels), and ``protected``, (P, n, height, width, channels), uint8; ``psnr``
        (dB) and ``ssim`` of each, (P, n); and their medians over up to 1,000 pictures, ``median_psnr`` and
        ``median_ssim``, (P,). Sets of the same clean pictures under other names, which an earlier audit has left there,
        stay in it, after these.
        """
        shown = _first_of_each(self.clean.labels, *_SHOWN)
        measured = _first_of_each(self.clean.labels, _MEASURED, _MEASURED)
        figures = {name: self._quality(one, shown) for name, one in self.protected.items()}
        medians = {name: np.median(self._quality(one, measured), 1) for name, one in self.protected.items()}
        clean: dict[str, Any] = {
            "class_names": np.array(self.clean.class_names),
            "ids": np.array([self.clean.ids[place] for place in shown]),
            "labels": self.clean.labels[shown],
            "clean": self.clean.images[shown],
        }
        protected: dict[str, Any] = {
            "names": np.array(list(self.protected)),
            "protected": np.stack([one.images[shown] for one in self.protected.values()]),
            "psnr": np.stack([figures[name][0] for name in figures]),
            "ssim": np.stack([figures[name][1] for name in figures]),
            "median_psnr": np.array([medians[name][0] for name in medians]),
            "median_ssim": np.array([medians[name][1] for name in medians]),
        }
        with contextlib.suppress(InputError):  # where there is nothing yet, or nothing of use
            before = vars(Sample.load(path))
            if all(np.array_equal(before[name], one) for name, one in clean.items()):
                others = ~np.isin(before["names"], protected["names"])
                protected = {name: np.concatenate([one, before[name][others]]) for name, one in protected.items()}
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        with writing(path):
            with partial.open("wb") as file:
                np.savez_compressed(file, **clean, **protected)
            os.replace(partial, path)

    def _quality(self, protected: Dataset, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """Measure PSNR and SSIM of some pictures: (2, count)."""
        pairs = [(self.clean.images[place], protected.images[place]) for place in places]
        return np.array([[measure(*pair) for pair in pairs] for measure in (quality.psnr, quality.ssim)])


def load_sets(
    clean: str | os.PathLike[str],
    protected: Sequence[str | os.PathLike[str]],
    test: str | os.PathLike[str],
    *,
    size: int | None = None,
    limit: int | None = None,
) -> Sets:
    """Load the sets of an audit and check them.

    clean, test, size, limit: see :func:`unlearnable.pictures.dataset.load`.
    protected: PATH or NAME=PATH (see :func:`unlearnable.pictures.foreign.load_protected`).

    Raises InputError where they do not go together.
    """
    if not protected:
        raise expected("a protected set at least", "none", "name one with --protected")
    texts = [os.fspath(text) for text in protected]
    whole = limit is not None and any(_is_foreign(text) for text in texts)  # entries of such go by all of the clean
    cut = None if whole else limit
    before = load(clean, size=size, limit=cut)
    after: dict[str, Dataset] = {}
    for text in texts:
        name, one = load_protected(text, before, size=size, limit=cut)
        if name in (CLEAN, SUBSET):
            raise expected("another name for the protected set", repr(name), "write NAME=PATH")
        if name in after:
            raise expected("protected sets of different names", f"{name!r} twice", "write NAME=PATH")
        after[name] = one
    if whole and limit is not None:
        before, after = before.limit(limit), {name: one.limit(limit) for name, one in after.items()}
    return with_tests(before, after, load(test, size=size, limit=limit))


def with_tests(clean: Dataset, protected: Mapping[str, Dataset], test: Dataset) -> Sets:
    """Put sets together with one to test with, whose labels are numbered by the clean set's classes.

    Grey sets get three channels where others have them. Raises InputError where classes or sizes differ, a class is
    not tested, or the test pictures are those that are trained on.
    """
    if clean.images.shape[3] != test.images.shape[3]:
        clean, test, protected = _coloured(clean), _coloured(test), {n: _coloured(one) for n, one in protected.items()}
    if other := sorted(set(test.class_names) ^ set(clean.class_names)):
        found = f"{len(test.class_names)} in the test set, which differ in {', '.join(map(repr, other[:_NAMED]))}"
        raise expected(f"the {len(clean.class_names)} classes of the clean set", found, "give them the same names")
    if test.images.shape[1:] != clean.images.shape[1:]:
        wanted, found = ("x".join(map(str, one.images.shape[1:3])) for one in (clean, test))
        raise expected(f"test pictures of {wanted} pixels, as the clean ones", found, "bring both to one --size")
    places = np.array([clean.class_names.index(name) for name in test.class_names], np.int64)
    test = replace(test, labels=places[test.labels], class_names=clean.class_names)
    missing = set(range(len(clean.class_names))) - set(test.labels.tolist())
    if missing:
        found = f"none of {clean.class_names[min(missing)]!r}"
        raise expected("test pictures of every class", found, "add some, or raise the limit if there is one")
    if test.fingerprint() == clean.fingerprint():
        raise expected("test pictures apart from the clean ones", "the same ones", "name others: these were trained on")
    return Sets(clean=clean, protected=dict(protected), test=test)


def _is_foreign(text: str) -> bool:
    return is_foreign(Path(text if Path(text).exists() else text.partition("=")[2]))


def _coloured(dataset: Dataset) -> Dataset:
    """Give grey pictures three equal channels."""
    if dataset.images.shape[3] == 3:
        return dataset
    return replace(dataset, images=np.repeat(dataset.images, 3, axis=3))


def _classes(dataset: Dataset) -> list[str]:
    return [dataset.class_names[label] for label in dataset.labels]


def _first_of_each(labels: NDArray[np.int64], each: int, total: int) -> NDArray[np.int64]:
    """Return the places of the first pictures of each class, in turn until there are enough; in ascending order."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    turns = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    kept = turns < each
    return np.sort(order[kept][np.argsort(turns[kept], kind="stable")[:total]])
