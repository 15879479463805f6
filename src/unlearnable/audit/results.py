"""What an audit's folder holds, read again: the runs it asked for, as far as they are done, and what goes with them."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from unlearnable.audit.store import CLEAN, SUBSET, Row, Store, read_rows
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

    runs: how many it spent. seeds: behind the accuracies.
    """

    best: Found
    single: Found
    runs: int
    seeds: int


@dataclass(frozen=True, kw_only=True)
class Results:
    """An audit, read again.

    rows: the finished runs, by the names that the audit gave them. missing: how many it asked for beside.
    verdicts: one a set of which there are finished runs with all of it protected; at least one.
    class_names: in the order of the rows' classes; by number where nothing names them.
    command: what starts the same audit again. searches: by the set's name.
    """

    rows: tuple[Row, ...]
    missing: int
    verdicts: tuple[Verdict, ...]
    class_names: tuple[str, ...]
    command: str | None
    searches: Mapping[str, Searched]
    sample: Sample | None


def read(run: Path) -> Results:
    """Read an audit's folder. It needs the store, or else the rows as JSON lines; without the rest it tells less.

    Raises InputError where it holds no audit, something damaged, or too little for a verdict.
    """
    about = _about(run / SPEC)
    rows, cells = _rows(run), about.get("cells")
    wanted = len(rows)
    if cells is not None:
        by_key = {row.key: row for row in rows}
        found = [(by_key.get(cell["key"]), {name: cell[name] for name in _NAMES}) for cell in cells]
        rows, wanted = [replace(row, **names) for row, names in found if row is not None], len(cells)
    sets = about.get("sets", {}).get("protected", sorted({row.protection for row in rows} - {CLEAN, SUBSET}))
    whole = {row.protection for row in rows if row.fraction == 1}
    if not whole & set(sets):
        raise expected("finished runs on a protected set", "none", "let the audit finish: run its command again")
    count = len(rows[0].per_class)
    return Results(
        rows=tuple(rows),
        missing=wanted - len(rows),
        verdicts=tuple(judge(rows, name) for name in sets if name in whole),
        class_names=tuple(about.get("class_names", [f"class {number}" for number in range(count)])),
        command=about.get("command"),
        searches={name: _searched(found, about) for name, found in about.get("search", {}).items()},
        sample=Sample.load(run / PICTURES) if (run / PICTURES).exists() else None,
    )


def _rows(run: Path) -> list[Row]:
    if (run / STORE).exists():
        with Store(run / STORE) as store:
            return store.rows()
    if (run / ROWS).exists():
        return read_rows(run / ROWS)
    found = "no such folder" if not run.is_dir() else f"neither {STORE} nor {ROWS} in {run}"
    raise expected("the folder of an audit", found, "name the one that was given to: unlearnable audit --out")


def _about(path: Path) -> dict[str, Any]:
    """Read what an audit has written down about itself."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        found = error
    if not isinstance(found, dict):
        remedy = "move it away, or run the audit's command again"
        raise expected("an audit's description", f"something else at {path} ({found})", remedy)
    return found


def _searched(found: Mapping[str, Any], about: Mapping[str, Any]) -> Searched:
    def one(kind: str) -> Found:
        (countermeasure, recipe), accuracy, (low, high) = found[kind]
        return Found(countermeasure, recipe, accuracy, (low, high))

    return Searched(one("best"), one("single"), len(found["tried"]["tried"]), len(about["grid"]["seeds"]))
