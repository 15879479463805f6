"""The grid: which runs an audit is made of."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import yaml

from unlearnable.audit.store import CLEAN, SUBSET
from unlearnable.audit.verdict import Way
from unlearnable.budgets import parse
from unlearnable.errors import expected
from unlearnable.options import value as read_value


class Attempt(NamedTuple):
    """What a scraper tries: a countermeasure, by the name that ``countermeasures.named`` takes, and a recipe."""

    countermeasure: str
    recipe: str


PLAIN: Final = Attempt("none", "erm")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run: a set (or ``clean``, or ``clean subset``), how much of it is protected, and how it is learned from."""

    protection: str
    fraction: float
    countermeasure: str
    recipe: str
    model: str
    seed: int

    @property
    def way(self) -> Way:
        """How it is learned from."""
        return Way(self.countermeasure, self.recipe, self.model)

    def __str__(self) -> str:
        part = "" if self.fraction in (0, 1) else f" {100 * self.fraction:g} %"
        return f"{self.protection}{part}, {self.way}, seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Everything that decides an audit's runs, but for the pictures.

    attempts: on the wholly protected sets.
    models: by name; seeds: each decides a run's training and its choice of pictures.
    fractions: which parts of the sets are protected, above 0 and at most 1. The whole, 1, is always among them.
    mixed: the attempts on partly protected sets, and on their clean parts alone; all attempts if not given.
    clean: the attempts on the clean set. Plain training is always among them.
    other_models: on which nothing is tried but the attempts ``on_others``, on the clean and the wholly protected sets.
    epochs, batch_size: in place of the recipes' own.

    Raises InputError for values out of range.
    """

    attempts: tuple[Attempt, ...] = (PLAIN,)
    models: tuple[str, ...] = ("resnet9-w16",)
    seeds: tuple[int, ...] = (0,)
    fractions: tuple[float, ...] = (1.0,)
    mixed: tuple[Attempt, ...] | None = None
    clean: tuple[Attempt, ...] = (PLAIN,)
    other_models: tuple[str, ...] = ()
    on_others: tuple[Attempt, ...] = (PLAIN,)
    epochs: int | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("attempts", "models", "seeds", "fractions"):
            if not getattr(self, name):
                raise expected(f"at least one of {name}", "none", "name one, or leave it out")
        for fraction in self.fractions:
            if not 0 < fraction <= 1:
                raise expected(
                    "fractions above 0 and at most 1", f"{fraction:g}", "0.2 protects a fifth of the pictures"
                )
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise expected(
                    f"{name.replace('_', ' ')} of 1 or more", str(value), "leave it out for the recipe's own"
                )
        if min(self.seeds) < 0:
            raise expected("seeds of 0 or more", str(min(self.seeds)), "choose another")

    def cells(self, protections: Sequence[str]) -> list[Cell]:
        """List the runs, each once: a seed's clean ones first, then the sets, then the partly protected ones."""
        found: dict[Cell, None] = {}  # a set that keeps its order

        def add(protection: str, fraction: float, attempts: Iterable[Attempt], model: str, seed: int) -> None:
            for attempt in attempts:
                cell = Cell(protection=protection, fraction=fraction, **attempt._asdict(), model=model, seed=seed)
                found.setdefault(cell)

        parts = sorted({f for f in self.fractions if f < 1}, reverse=True)
        mixed = (self.attempts if self.mixed is None else self.mixed) if parts else ()
        for seed in self.seeds:
            for model in self.models:
                add(CLEAN, 0.0, (PLAIN, *self.clean), model, seed)
                for name in protections:
                    add(name, 1.0, (*self.attempts, *mixed), model, seed)
                for fraction in parts:
                    for name in (*protections, SUBSET):
                        add(name, fraction, mixed, model, seed)
            for model in self.other_models:
                add(CLEAN, 0.0, (PLAIN, *self.on_others), model, seed)
                for name in protections:
                    add(name, 1.0, self.on_others, model, seed)
        return list(found)

    @classmethod
    def product(cls, countermeasures: Sequence[str] = (), recipes: Sequence[str] = (), **others: Any) -> Self:
        """Try every countermeasure (without any: none) with every recipe (without any: erm)."""
        pairs = [Attempt(c, r) for c in countermeasures or (PLAIN.countermeasure,) for r in recipes or (PLAIN.recipe,)]
        return cls(attempts=tuple(pairs), **others)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a grid from a YAML file.

        Its names are those of this class's fields, and ``countermeasures`` and ``recipes``: all pairs of those are
        attempts beside the listed ones. An attempt is a list of a countermeasure and a recipe; ``seeds: 3`` is short
        for [0, 1, 2], ``clean: all`` for every attempt.

        Raises InputError for anything else.
        """
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise expected("a grid as YAML", f"{path}, which cannot be read ({reason})", "see docs/audit.md") from None
        if not isinstance(found, dict):
            raise expected("a grid as YAML: names and values", f"{type(found).__name__} in {path}", "see docs/audit.md")
        return cls(**_read(found, [field.name for field in fields(cls)]))


def _read(found: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
    """Turn what YAML gives into the arguments of a grid."""
    names = [*known, "countermeasures", "recipes"]
    for name in found:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(names)}"
            raise expected("a known name in the grid", repr(name), remedy)
    lists = {name: value if isinstance(value, list) else [value] for name, value in found.items()}
    values: dict[str, Any] = {}
    for name in ("epochs", "batch_size"):
        if name in found:
            values[name] = _number(name, found[name], int)
    for name in ("models", "other_models", "countermeasures", "recipes"):
        if name in found:
            values[name] = tuple(str(value) for value in lists[name])
    for name, kind in (("seeds", int), ("fractions", float)):
        if name in found:
            values[name] = tuple(_number(name, value, kind) for value in lists[name])
    if isinstance(found.get("seeds"), int):
        values["seeds"] = tuple(range(found["seeds"]))
    for name in ("attempts", "mixed", "clean", "on_others"):
        if name in found and (name, found[name]) != ("clean", "all"):
            values[name] = tuple(_attempt(name, value) for value in lists[name])
    pairs = {"countermeasures": values.pop("countermeasures", ()), "recipes": values.pop("recipes", ())}
    if any(pairs.values()) or "attempts" not in values:
        values["attempts"] = (*values.get("attempts", ()), *Grid.product(**pairs).attempts)
    if found.get("clean") == "all":
        values["clean"] = values["attempts"]
    return values


def _number(name: str, value: object, kind: type[int] | type[float]) -> int | float:
    if isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool):
        return kind(value)
    raise expected(f"a{' whole' * (kind is int)} number for {name}", repr(value), "see docs/audit.md")


def _attempt(name: str, value: object) -> Attempt:
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(word, str) for word in value):
        raise expected(f"[countermeasure, recipe] in {name}", repr(value), "write for example [coin+jpeg, erm]")
    return Attempt(*value)


def recipe_options(text: str, kind: str = "recipe", example: str = "erm:epochs=9") -> tuple[str, dict[str, Any]]:
    """Take the name and the options of a recipe, or of another ``kind``, apart.

    They are written ``NAME`` or ``NAME:option=value,option=value``.

    >>> recipe_options("adversarial:budget=l2:0.5,steps=7")
    ('adversarial', {'budget': L2(radius=0.5), 'steps': 7})

    Raises InputError where an option has no value.
    """
    name, _, rest = text.partition(":")
    options: dict[str, Any] = {}
    for word in filter(None, rest.split(",")):
        option, equals, value = word.partition("=")
        if not (equals and option and value):
            raise expected(f"a {kind} as NAME:option=value,option=value", repr(text), f"write for example: {example}")
        options[option] = parse(value) if option == "budget" else read_value(value)
    return name, options
