"""How an audit measured, and what it does not tell: in words, from its rows."""

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, Final

from unlearnable.audit.scores import Summary
from unlearnable.audit.store import Row

_MACHINE: Final = ("processor", "system", "threads")  # what is no software among a row's versions
_REGISTRIES: Final = {
    "countermeasures": "unlearnable.countermeasures",
    "recipes": "unlearnable.training.recipes",
    "models": "unlearnable.models",
}
_FOREKNOWING: Final = ("finetune", "linear-probe")  # recipes whose networks have seen other pictures before


def facts(summary: Summary) -> list[tuple[str, str]]:
    """Tell how it was measured: name and value."""
    rows = summary.rows
    days = sorted({row.finished[:10] for row in rows})
    seconds = sum(row.seconds for row in rows)
    took = f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.1f} minutes"
    found = {
        "Networks": _several(row.model for row in rows),
        "Seeds": _several(str(row.seed) for row in rows),
        "Training pictures": _several(dig(row.spec, "train", "count") for row in rows),
        "Their size": _several(_size(row.spec) for row in rows),
        "Test pictures": _several(row.total for row in rows),
        "Guessing": "the best constant answer on the test pictures",
        "Runs": f"{len(rows)}, {took} of training and testing in all, {sum(row.gradients for row in rows):,} gradients",
        "Finished": days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}",
        "Arithmetic": _several(dig(row.spec, "precision") for row in rows),
        "Machine": _several(_machine(row) for row in rows),
        "Software": _several(_told({n: v for n, v in row.versions.items() if n not in _MACHINE}) for row in rows),
    }
    return [(name, value) for name, value in found.items() if value]


def settings(summary: Summary) -> list[tuple[str, list[tuple[str, str]]]]:
    """List what each recipe and countermeasure was set to, by kind."""
    kinds = {"Recipes": "recipe", "Countermeasures": "countermeasure"}
    found = []
    for title, kind in kinds.items():
        names = sorted({getattr(row, kind) for row in summary.rows})
        told = {
            name: _several(_set_to(name, dig(row.spec, kind)) for row in summary.rows if getattr(row, kind) == name)
            for name in names
        }
        found.append((title, [(name, value) for name, value in told.items() if value]))
    return [(title, values) for title, values in found if values]


def limits(summary: Summary, untried: Mapping[str, Sequence[str]]) -> list[str]:
    """Tell what an audit does not: what it did not try, and how far its numbers go.

    untried: by kind, the names that this release knows beside those that were tried.
    """
    ways = {way for way, found in summary.ways().items() if any(number is not None for number, _ in found)}
    together = max(way.countermeasure.count("+") + 1 for way in ways)
    more = [f"{kind.capitalize()}: {', '.join(names)}." for kind, names in untried.items() if names]
    limit = _several(dig(row.spec, "limit") for row in summary.rows)
    foreknowing = any(way.recipe.partition(":")[0] in _FOREKNOWING for way in ways)
    told = [
        (
            True,
            f"{len(ways)} {'ways were' if len(ways) > 1 else 'way was'} tried. Somebody may find a better one, now or "
            "in years, and what is published cannot be taken back.",
        ),
        (bool(more), " ".join(["Not everything that this release knows was tried.", *more])),
        (together > 1, f"Countermeasures were combined up to {together} at a time."),
        (together == 1, "Countermeasures were tried one at a time; together they take away more."),
        (True, f"Networks: {_several(sorted({way.model for way in ways}))}. Larger ones may learn more."),
        (
            not foreknowing,
            "Every network started from nothing. One that has learned from other pictures before needs less.",
        ),
        (bool(limit), f"Only a part of the pictures was used (--limit {limit}); more of them may teach more."),
        (
            not summary.partly(),
            "Every picture was protected. Clean pictures beside the protected ones teach what they teach.",
        ),
        (
            True,
            "Each set was protected once. Another key, or the same method on other pictures, may hold better or worse.",
        ),
        (
            any(len(one.rows) == 1 for one in summary.scores),
            "Some ways have one run each. Their intervals tell of the choice of test pictures, and nothing of how much "
            "another run would differ.",
        ),
        (
            len(ways) > 1,
            "The verdict goes by the best of all ways. The best of many is partly lucky, and looks a little better for "
            "the scraper than it is.",
        ),
    ]
    return [words for holds, words in told if holds]


def untried(summary: Summary) -> dict[str, list[str]]:
    """List by kind what this release knows beside what was tried on protected sets; nothing if it lacks PyTorch."""
    rows = [row for row in summary.rows if row.protection in summary.sets]
    tried = {
        "countermeasures": {part["name"] for row in rows for part in dig(row.spec, "countermeasure", "parts") or ()},
        "recipes": {row.recipe.partition(":")[0] for row in rows},
        "models": {row.model for row in rows},
    }
    try:
        known = {kind: getattr(import_module(home), kind) for kind, home in _REGISTRIES.items()}
    except ModuleNotFoundError:
        return {}
    return {kind: [name for name in known[kind] if name not in tried[kind]] for kind in known}


def dig(value: Any, *names: str) -> Any:
    """Return what lies under names in nested mappings, or None."""
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _several(values: Iterable[object]) -> str:
    """Tell the different ones of some values, in order of appearance, those apart that are None or empty."""
    found = dict.fromkeys(f"{one:,}" if isinstance(one, int) else str(one) for one in values if one not in (None, ""))
    return "; ".join(found) if any("," in one for one in found) else ", ".join(found)


def _told(value: Any) -> str:
    """Write nested settings on one line; what is off or not given is left out.

    >>> _told({"epochs": 12, "attack": {"name": "pgd", "steps": 10}, "ema": None})
    'epochs 12, attack pgd (steps 10)'
    >>> _told({"parts": [{"name": "grayscale"}, {"name": "jpeg", "quality": 10}]})
    'grayscale, jpeg (quality 10)'
    """
    if isinstance(value, Mapping):
        if value.keys() == {"parts"}:
            return _told(value["parts"])
        rest = {name: one for name, one in value.items() if name != "name" and one not in (None, False, "", [], {})}
        words = ", ".join(f"{name.replace('_', ' ')} {_nested(one)}" for name, one in rest.items())
        return f"{value['name']} ({words})" if words and "name" in value else str(value.get("name", words))
    if isinstance(value, list):
        return ", ".join(map(_told, value))
    return "yes" if value is True else f"{value:g}" if isinstance(value, float) else str(value)


def _nested(value: Any) -> str:
    return f"({_told(value)})" if isinstance(value, Mapping | list) and "name" not in value else _told(value)


def _set_to(name: str, spec: Any) -> str:
    """Write what a recipe or a countermeasure was set to; nothing where that is only its name."""
    told, start = _told(spec or ""), f"{name} ("
    if told.startswith(start):
        return told[len(start) : -1]
    return "" if told == name else told


def _size(spec: Mapping[str, Any]) -> str:
    size, channels = dig(spec, "model", "size"), dig(spec, "model", "channels")
    return "" if size is None else f"{' x '.join(map(str, size))} pixels, {channels} channels"


def _machine(row: Row) -> str:
    threads = row.versions.get("threads")
    found = [dig(row.spec, "device"), row.versions.get("processor"), row.versions.get("system")]
    found.append(f"{threads} threads" if threads else None)
    return ", ".join(str(one) for one in found if one not in (None, "", "unknown"))
