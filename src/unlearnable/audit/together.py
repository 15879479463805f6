"""Several audits in one folder: which of their runs may stand on one page."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from unlearnable.audit.grid import recipe_options
from unlearnable.audit.method import dig
from unlearnable.audit.store import CLEAN, SUBSET, Row

_SHARED: Final = ("test", "limit", "device", "precision", "versions")  # by a row's spec
_SCHEDULE: Final = ("epochs", "batch_size")  # by its recipe's, unless the recipe's text says otherwise


class Label(NamedTuple):
    """What a run is called on a page, where no two may be called the same."""

    protection: str
    fraction: float
    countermeasure: str
    recipe: str
    model: str
    seed: int

    @classmethod
    def of(cls, row: Row) -> "Label":
        return cls(row.protection, row.fraction, row.countermeasure, row.recipe, row.model, row.seed)


def fitting(asked: Sequence[Row], others: Iterable[Row]) -> list[Row]:
    """Take those of other runs whose numbers may stand beside the ones that an audit asked for; the newest first.

    That is, of the same test pictures, limit, device, arithmetic and software, and of as many epochs and as large
    batches as plain training on the clean pictures had. Sets are told apart by their content: a set goes by the name
    that the audit has for it; one that is new, under a name that is taken, is left out; and so is a second run of the
    same label.
    """
    newest = sorted(others, key=lambda row: row.finished, reverse=True)
    known = [*asked, *newest]
    plain = [row for row in known if (row.protection, row.countermeasure, row.recipe) == (CLEAN, "none", "erm")]
    shared = _conditions(plain[0]) if plain else {}
    names: dict[str, str] = {}
    for row in known:
        if row.protection not in (CLEAN, SUBSET) and row.protection not in names.values():
            names.setdefault(_content(row), row.protection)
    labels = {Label.of(row) for row in asked}
    aids = {Label.of(row)._replace(seed=0): _aids(row) for row in asked}
    kept = []
    for row in newest:
        if row.protection not in (CLEAN, SUBSET):
            row = replace(row, protection=names.get(_content(row), ""))
        label = Label.of(row)
        if (
            label.protection
            and label not in labels
            and _agree(_conditions(row), shared)
            and aids.setdefault(label._replace(seed=0), _aids(row)) == _aids(row)
        ):
            labels.add(label)
            kept.append(row)
    return kept


def _agree(some: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    return all(some[name] == others[name] for name in some.keys() & others.keys())


def _conditions(row: Row) -> dict[str, Any]:
    """Return what a run must share with those beside it; without what it does not depend on."""
    own = recipe_options(row.recipe)[1]
    found = {name: dig(row.spec, name) for name in _SHARED}
    found |= {name: dig(row.spec, "recipe", name) for name in _SCHEDULE if name not in own}
    clean = dig(row.spec, "train", "clean")
    return found if clean is None else found | {"clean": clean}


def _content(row: Row) -> str:
    """Return what tells a protected set from others, whatever its name."""
    return str(dig(row.spec, "train", "protected") or row.protection)


def _aids(row: Row) -> tuple[Any, ...]:
    """Return what helped a scraper beside what a label tells: the same for all seeds of one way."""
    return tuple(dig(row.spec, name) for name in ("countermeasure", "leaked", "weights"))
