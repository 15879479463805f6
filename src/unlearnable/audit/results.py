"""What an audit's folder holds, read again: the finished runs of the audits in it, and what goes with them."""

import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from unlearnable.audit.method import dig
from unlearnable.audit.store import CLEAN, SUBSET, Row, Store, read_rows
from unlearnable.audit.together import Label, fitting
from unlearnable.audit.verdict import Interval, Verdict, judge
from unlearnable.errors import expected

STORE: Final = "store.sqlite"
ROWS: Final = "rows.jsonl"
SPEC: Final = "spec.json"
PICTURES: Final = "pictures.npz"

_NAMES: Final = ("protection", "fraction", "countermeasure", "recipe")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Some training pictures before and after.

    names: of the P protected sets.
    ids, labels: of the n pictures; a label is a place in ``class_names``.
    clean: (n, height, width, channels), uint8. protected: (P, n, height, width, channels), uint8.
    psnr (dB), ssim: (P, n). median_psnr, median_ssim: (P,), over more pictures than are kept.
    """

    names: NDArray[np.str_]
    class_names: NDArray[np.str_]
    ids: NDArray[np.str_]
    labels: NDArray[np.int64]
    clean: NDArray[np.uint8]
    protected: NDArray[np.uint8]
    psnr: NDArray[np.float64]
    ssim: NDArray[np.float64]
    median_psnr: NDArray[np.float64]
    median_ssim: NDArray[np.float64]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file that :meth:`unlearnable.audit.sets.Sets.save_sample` writes. Raises InputError for another."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
                return cls(**found)
        except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile) as error:
            remedy = "move it away, and run the audit again: it keeps its runs"
            raise expected("an audit's sample of pictures", f"something else at {path} ({error})", remedy) from None


class Found(NamedTuple):
    """What a search found worst: accuracy and 95 % interval on the half of the test pictures it did not choose by."""

    countermeasure: str
    recipe: str
    accuracy: float
    interval: Interval


class Searched(NamedTuple):
    """A search for the worst composition against one set.

    tried: everything it tried, with one seed, and how much of the same half that reached; the best first.
    seeds: behind the other accuracies.
    """

    best: Found
    single: Found
    tried: tuple[tuple[str, str, float], ...]
    seeds: int


@dataclass(frozen=True, kw_only=True)
class Results:
    """The audits of one folder, read again.

    rows: the finished runs, by the names that the last audit gave them, or else by those that they were stored under.
    asked: how many runs the last audit asked for; missing: how many of them are not finished.
    left_out: how many finished runs do not go with the others (:func:`unlearnable.audit.together.fitting`).
    verdicts: one a set of which there are finished runs with all of it protected; at least one.
    class_names: in the order of the rows' classes; by number where nothing names them.
    commands: what starts the same audits again, in order. searches: by the set's name.
    """

    rows: tuple[Row, ...]
    asked: int
    missing: int
    left_out: int
    verdicts: tuple[Verdict, ...]
    class_names: tuple[str, ...]
    commands: tuple[str, ...]
    searches: Mapping[str, Searched]
    sample: Sample | None


def read(run: Path) -> Results:
    """Read an audit's folder. It needs the store, or else the rows as JSON lines; without the rest it tells less.

    Runs of earlier audits in the same folder are taken in, where they go with those of the last one. What searches
    only tried, with one seed, is told with the searches.

    Raises InputError where it holds no audit, something damaged, or too little for a verdict.
    """
    about, stored = described(run / SPEC), {row.key: row for row in _rows(run)}
    audits = [*about.get("earlier", ()), about] if about else []
    cells = about.get("cells", ())
    found = [(stored.get(cell["key"]), {name: cell[name] for name in _NAMES}) for cell in cells]
    asked = [replace(row, **names) for row, names in found if row is not None]
    others = _not_only_tried((row for key, row in stored.items() if key not in {cell["key"] for cell in cells}), audits)
    rows = [*asked, *fitting(asked, others)]
    whole = {row.protection for row in rows if row.fraction == 1}
    sets = list(about.get("sets", {}).get("protected", ()))
    sets += sorted({row.protection for row in rows} - {CLEAN, SUBSET, *sets})
    if not whole:
        raise expected("finished runs on a protected set", "none", "let the audit finish: run its command again")
    count = len(rows[0].per_class)
    return Results(
        rows=tuple(rows),
        asked=len(cells),
        missing=len(cells) - len(asked),
        left_out=len(asked) + len(others) - len(rows),
        verdicts=tuple(judge(rows, name) for name in sets if name in whole),
        class_names=tuple(about.get("class_names", [f"class {number}" for number in range(count)])),
        commands=tuple(one["command"] for one in audits if one.get("command")),
        searches={
            name: _searched(found, one)
            for one in audits
            for name, found in one.get("search", {}).items()
            if _conditions(one, name) == _conditions(about, name)
        },
        sample=Sample.load(run / PICTURES) if (run / PICTURES).exists() else None,
    )


def _not_only_tried(rows: Iterable[Row], audits: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Leave out runs that searches tried, unless an audit asked for them too."""
    tried = {
        Label(name, 1.0, countermeasure, recipe, one["grid"]["models"][0], one["grid"]["seeds"][0])
        for one in audits
        for name, found in one.get("search", {}).items()
        for (countermeasure, recipe), _ in found["tried"]["tried"]
    }
    asked = {key for one in audits for key in one.get("keys", ())}
    return [row for row in rows if row.key in asked or Label.of(row) not in tried]


def _conditions(about: Mapping[str, Any], name: str) -> list[Any]:
    """Return what two audits share whose searches on a set are told on one page."""
    sets, grid = about.get("sets", {}), about.get("grid", {})
    pictures = [sets.get("clean"), sets.get("test"), sets.get("protected", {}).get(name)]
    return [*(dig(one, "sha256") for one in pictures), *(dig(grid, one) for one in ("epochs", "batch_size", "models"))]


def _rows(run: Path) -> list[Row]:
    if (run / STORE).exists():
        with Store(run / STORE) as store:
            return store.rows()
    if (run / ROWS).exists():
        return read_rows(run / ROWS)
    found = "no such folder" if not run.is_dir() else f"neither {STORE} nor {ROWS} in {run}"
    raise expected("the folder of an audit", found, "name the one that was given to: unlearnable audit --out")


def described(path: Path, *, damaged: dict[str, Any] | None = None) -> dict[str, Any]:
    """Read what an audit has written down about itself; nothing where it has not yet.

    Raises InputError where there is something else, unless it is said what stands for a ``damaged`` description.
    """
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        found = error
    if not isinstance(found, dict):
        if damaged is not None:
            return damaged
        remedy = "move it away, or run the audit's command again"
        raise expected("an audit's description", f"something else at {path} ({found})", remedy)
    return found


def _searched(found: Mapping[str, Any], about: Mapping[str, Any]) -> Searched:
    def one(kind: str) -> Found:
        (countermeasure, recipe), accuracy, (low, high) = found[kind]
        return Found(countermeasure, recipe, accuracy, (low, high))

    tried = [(*attempt, report) for attempt, (_, report) in found["tried"]["tried"]]
    return Searched(
        one("best"), one("single"), tuple(sorted(tried, key=lambda one: -one[2])), len(about["grid"]["seeds"])
    )
