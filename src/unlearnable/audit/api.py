"""An audit from start to end: folders in, a verdict out."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from unlearnable import __version__
from unlearnable.audit.grid import PLAIN, Attempt, Cell, Grid
from unlearnable.audit.plan import Plan
from unlearnable.audit.presets import COLOUR, PROMISING, STRONG, colourless, for_grey, preset
from unlearnable.audit.results import PICTURES, ROWS, SPEC, STORE, described
from unlearnable.audit.run import Bench, Outcome, Progress, Told, check_names, run_cells
from unlearnable.audit.search import Halves, Search, check_runs, search
from unlearnable.audit.sets import Sets, load_sets
from unlearnable.audit.store import Row, Store, key_of, read_rows, write_rows
from unlearnable.audit.verdict import CleanNeeded, Interval, Verdict, clean_needed, interval, judge, weakest
from unlearnable.countermeasures import countermeasures as registry
from unlearnable.errors import expected
from unlearnable.pictures.destination import writing
from unlearnable.training.precision import Precision

CHECKPOINTS: Final = "checkpoints"
"""Where, in an audit's folder, unfinished runs stand."""

_FORMAT: Final = 1  # of spec.json
_IDENTITY: Final = ("command", "sets", "grid", "options")  # of spec.json: what tells audits of one folder apart
_BRIEF: Final = (
    *("protection", "fraction", "countermeasure", "recipe", "model", "seed", "accuracy"),
    *("right", "total", "seconds", "key"),
)

Place = str | os.PathLike[str]


class Composition(NamedTuple):
    """What a search found, with every seed: by the half of the test pictures that nothing was chosen by.

    accuracy: mean over the seeds, with its 95 % interval (see :func:`unlearnable.audit.verdict.interval`).
    """

    attempt: Attempt
    accuracy: float
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class Searched:
    """The worst composition and the worst single countermeasure that a search found for one set.

    tried: all it tried, with one seed.
    """

    best: Composition
    single: Composition
    tried: Search


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """What an audit found.

    verdicts: of every set, and of every fraction of it. clean_needed, searches: by the set's name, where measured.
    rows: every run. out: the audit's folder.
    """

    verdicts: tuple[Verdict, ...]
    clean_needed: Mapping[str, CleanNeeded]
    searches: Mapping[str, Searched]
    rows: tuple[Row, ...]
    seconds: float
    out: str

    @property
    def worst(self) -> Verdict:
        """The verdict on the wholly protected set that holds worst."""
        return weakest(verdict for verdict in self.verdicts if verdict.fraction == 1)

    def summary(self) -> dict[str, Any]:
        """Return it in plain values, for JSON: the worst verdict first, without what only the store needs."""
        searches = {
            name: {
                kind: one.attempt._asdict() | {"accuracy": one.accuracy, "interval": one.interval}
                for kind, one in (("best", found.best), ("single", found.single))
            }
            | {"runs": len(found.tried.tried)}
            for name, found in self.searches.items()
        }
        needed = {
            name: asdict(one) | {"mixes": [mix._asdict() for mix in one.mixes]}
            for name, one in self.clean_needed.items()
        }
        return _plain(self.worst) | {
            "rows": [{name: getattr(row, name) for name in _BRIEF} for row in self.rows],
            "verdicts": [_plain(verdict) for verdict in self.verdicts],
            "clean_needed": needed,
            "search": searches,
            "seconds": self.seconds,
            "run": self.out,
        }


def _plain(verdict: Verdict) -> dict[str, Any]:
    broken_by = None if verdict.broken_by is None else verdict.broken_by._asdict()
    return asdict(verdict) | {"strongest": verdict.strongest._asdict(), "broken_by": broken_by}


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What an audit is asked to do; frozen, and written down beside its results.

    clean: the clean pictures. protected: protected copies of them, as PATH or NAME=PATH. test: clean pictures that
        were not trained on. (For what they may lie in, see ``docs/data.md``.)
    out: the audit's own folder; an earlier audit's goes on, with what is finished in it.
    preset: the name of a ready-made grid; or grid. Not both.
    models, seeds, fractions, epochs, batch_size: in place of the grid's own; seeds: how many, from ``seed`` on.
    search: runs spent on each set in looking for the worst composition of countermeasures; 0 for none.
    size: side of the squares that pictures are brought to; without it all must have one size.
    limit: pictures of each set, at most; the first of each class in turn.
    leaked: clean originals that the scraper has in his hands; for paired-regression.
    weights: of a network trained before, which finetune and linear-probe start from.
    external: a checkpoint of the network that adversarial-transformation uses.
    device, precision: of PyTorch; a GPU where there is one, and what is fastest there, if not given.
    """

    clean: Place
    protected: Sequence[Place]
    test: Place
    out: Place
    preset: str | None = None
    grid: Grid | None = None
    models: Sequence[str] = ()
    seeds: int | None = None
    seed: int = 0
    fractions: Sequence[float] = ()
    epochs: int | None = None
    batch_size: int | None = None
    search: int = 0
    size: int | None = None
    limit: int | None = None
    leaked: int = 0
    weights: Path | None = None
    external: Path | None = None
    device: str | None = None
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if isinstance(self.protected, str):
            raise expected("a list of protected sets", repr(self.protected), f"write [{self.protected!r}]")
        if self.preset is not None and self.grid is not None:
            raise expected("either a preset or a grid", "both", "leave one out")
        for name, least in (("seeds", 1), ("seed", 0), ("search", 0), ("leaked", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise expected(f"{name} of {least} or more", str(value), "raise it, or leave it out")

    def wanted(self) -> Grid:
        """Return the grid, with what is given in its place put in. Without preset and grid it is "quick"."""
        grid = self.grid or preset(self.preset or "quick")
        seeds = len(grid.seeds) if self.seeds is None else self.seeds
        numbers = grid.seeds if self.seeds is None and not self.seed else range(self.seed, self.seed + seeds)
        return replace(
            grid,
            seeds=tuple(numbers),
            models=tuple(self.models) or grid.models,
            other_models=() if self.models else grid.other_models,
            fractions=tuple(self.fractions) or grid.fractions,
            epochs=grid.epochs if self.epochs is None else self.epochs,
            batch_size=grid.batch_size if self.batch_size is None else self.batch_size,
        )


def wanted_grid(
    preset: str | None, file: Path | None, recipes: Sequence[str], countermeasures: Sequence[str]
) -> Grid | None:
    """Return the grid that a file or lists of recipes and countermeasures ask for; None where neither is given.

    Raises InputError where more than one thing says what to try.
    """
    options = bool(recipes or countermeasures)
    if (preset is not None) + (file is not None) + options > 1:
        raise expected("one of --preset, --grid, or --recipe and --countermeasure", "more", "leave the others out")
    if file is not None:
        return Grid.from_file(file)
    return Grid.product(countermeasures, recipes) if options else None


def run_audit(
    audit: Audit, *, command: str | None = None, told: Told | None = None, progress: Progress | None = None
) -> AuditReport:
    """Find out how well protected sets hold: train on them in every way that is asked for, and judge.

    Started again with the same arguments after an interruption, however rude, it does what is left; any number of
    processes may do so at once. The folder ``audit.out`` then holds the store of all runs, the same as JSON lines
    (those of other audits may be appended to the file: they count as finished), a few pictures, and what was asked.

    command: that starts the same audit again, for the report.
    told: called with the row of each run as it is finished. progress: called with training steps done and in all.

    Raises InputError for whatever the caller can mend.
    """
    started = time.monotonic()
    out = Path(audit.out)
    sets, bench, grid = _prepared(audit)
    cells = grid.cells(list(sets.protected))
    bench.check(cells)
    if audit.search:
        check_runs(audit.search, _recipes(audit, grid))
    _make_room(out)
    with Store(out / STORE) as store:  # first: by it the folder is known from here on
        with writing(out):
            (out / CHECKPOINTS).mkdir(exist_ok=True)
        sets.save_sample(out / PICTURES)
        if (out / ROWS).exists():
            store.merge(read_rows(out / ROWS))

        def run(some: Sequence[Cell]) -> Outcome:
            return run_cells(bench, some, store, out / CHECKPOINTS, told=told, progress=progress)

        _write_spec(out / SPEC, audit, grid, bench, cells, command, {})
        rows = run(cells).all()
        searches = {}
        if audit.search:
            for name in sets.protected:
                searches[name], more = _searched(audit, bench, grid, name, run)
                cells += [cell for cell in more if cell not in cells]
            _write_spec(out / SPEC, audit, grid, bench, cells, command, searches)
            rows = run(cells).all()
        write_rows(store.rows(), out / ROWS)
    judged = sorted({(row.protection, -row.fraction) for row in rows if row.protection in sets.protected})
    needed = {name: clean_needed(rows, name, len(sets.clean)) for name in sets.protected}
    return AuditReport(
        verdicts=tuple(judge(rows, name, -fraction) for name, fraction in judged),
        clean_needed={name: one for name, one in needed.items() if one is not None},
        searches=searches,
        rows=tuple(rows),
        seconds=time.monotonic() - started,
        out=str(out),
    )


def plan_audit(audit: Audit) -> Plan:
    """Tell which runs an audit is made of and how long they will take; a search comes on top. Writes nothing."""
    from unlearnable.audit.plan import plan

    out = Path(audit.out)
    sets, bench, grid = _prepared(audit)
    cells = grid.cells(list(sets.protected))
    bench.check(cells)
    if not (out / STORE).exists():
        return plan(bench, cells, lambda _: None)
    with Store(out / STORE) as store:
        return plan(bench, cells, store.get)


def _prepared(audit: Audit) -> tuple[Sets, Bench, Grid]:
    grid = audit.wanted()
    check_names((*grid.attempts, *(grid.mixed or ()), *grid.clean, *grid.on_others))  # loading may take minutes
    sets = load_sets(audit.clean, audit.protected, audit.test, size=audit.size, limit=audit.limit)
    if audit.grid is None and sets.clean.images.shape[3] == 1:
        grid = for_grey(grid)
    bench = Bench(
        sets=sets,
        epochs=grid.epochs,
        batch_size=grid.batch_size,
        limit=audit.limit,
        leaked=audit.leaked,
        weights=audit.weights,
        external=audit.external,
        device=audit.device,
        precision=audit.precision,
    )
    return sets, bench, grid


def _make_room(out: Path) -> None:
    """Make the audit's folder, or see that it is one. Raises InputError where it holds something else."""
    with writing(out):
        found = sorted(entry.name for entry in out.iterdir()) if out.exists() else []
        if found and not {STORE, ROWS} & set(found):
            raise expected("a new folder, or an earlier audit", f"{found[0]!r} in {out}", "name another with --out")
        out.mkdir(parents=True, exist_ok=True)


def _searched(audit: Audit, bench: Bench, grid: Grid, name: str, run: Any) -> tuple[Searched, list[Cell]]:
    """Search for the worst composition against one set, and run what was found with every seed."""

    def cell(attempt: Attempt, seed: int) -> Cell:
        words = attempt._asdict()
        return Cell(protection=name, fraction=1.0, **words, model=grid.models[0], seed=seed)

    def measure(attempts: Sequence[Attempt]) -> list[Halves | None]:
        outcome = run([cell(attempt, grid.seeds[0]) for attempt in attempts])
        return [_halves(outcome.rows.get(cell(attempt, grid.seeds[0]))) for attempt in attempts]

    found = search(measure, _parts(bench), _recipes(audit, grid), audit.search, known=_known(bench))
    cells = [cell(one.attempt, seed) for seed in grid.seeds for one in (found.best, found.single)]
    outcome = run(cells)
    outcome.all()

    def reported(attempt: Attempt) -> Composition:
        halves = [outcome.rows[cell(attempt, seed)].halves[1] for seed in grid.seeds]
        right, total = zip(*halves, strict=True)
        share = sum(r / n for r, n in halves) / len(halves)
        return Composition(attempt, share, interval(right, total))

    both = {"best": reported(found.best.attempt), "single": reported(found.single.attempt)}
    return Searched(**both, tried=found), cells


def _recipes(audit: Audit, grid: Grid) -> list[str]:
    """List the recipes to search with: those that were asked for; of a preset's, those it has with countermeasures."""
    asked = [one for one in grid.attempts if audit.grid is not None or one.countermeasure != PLAIN.countermeasure]
    return list(dict.fromkeys(attempt.recipe for attempt in asked))


def _halves(row: Row | None) -> Halves | None:
    if row is None:
        return None
    (right, total), (reported, others) = row.halves
    return Halves(selection=right / total, report=reported / others)


def _parts(bench: Bench) -> list[str]:
    """List the countermeasures that a search puts together, the most promising first."""
    left_out = {"none", *(() if bench.leaked else ("paired-regression",))}
    if bench.sets.clean.images.shape[3] == 1:
        left_out |= set(COLOUR)
    names = [name for name in registry if name not in left_out]
    return sorted(names, key=lambda name: PROMISING.index(name) if name in PROMISING else len(PROMISING))


def _known(bench: Bench) -> list[str]:
    """List the compositions that a search begins with."""
    grey = bench.sets.clean.images.shape[3] == 1
    return list(dict.fromkeys(colourless(name) if grey else name for name in STRONG))


def _write_spec(
    path: Path,
    audit: Audit,
    grid: Grid,
    bench: Bench,
    cells: Sequence[Cell],
    command: str | None,
    searches: Mapping[str, Searched],
) -> None:
    """Write down what an audit is made of: for the report, and for people. Earlier audits of the folder are kept."""
    sets = bench.sets
    about: dict[str, Any] = {
        "format": _FORMAT,
        "unlearnable": __version__,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "sets": {
            "clean": _described(audit.clean, sets.clean),
            "test": _described(audit.test, sets.test),
            "protected": {
                name: _described(os.fspath(text).removeprefix(f"{name}="), one)
                for text, (name, one) in zip(audit.protected, sets.protected.items(), strict=True)
            },
        },
        "class_names": sets.clean.class_names,
        "shape": sets.clean.images.shape[1:],
        "chance": sets.chance,
        "grid": asdict(grid),
        "options": {
            name: getattr(audit, name) for name in ("preset", "search", "size", "limit", "leaked", "precision")
        },
        "cells": [asdict(cell) | {"key": key_of(bench.spec(cell))} for cell in cells],
        "search": {name: asdict(found) for name, found in searches.items()},
    }
    before = described(path, damaged={})
    if before and _same(before, about):
        about["earlier"] = before.get("earlier", [])
        # What a search has found is not forgotten while the same audit looks whether anything is left to do.
        keys = {cell["key"] for cell in before["cells"]}
        if before["search"] and not searches and keys >= {cell["key"] for cell in about["cells"]}:
            return
    elif before:
        kept = {name: before.get(name) for name in (*_IDENTITY, "written", "search")}
        kept["keys"] = [cell["key"] for cell in before["cells"]]
        earlier = [*before.get("earlier", ()), kept]
        about["earlier"] = [one for one in earlier if not _same(one, about)]
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with writing(path):
        partial.write_text(json.dumps(about, indent=1), encoding="utf-8")
        os.replace(partial, path)


def _same(one: Mapping[str, Any], about: Mapping[str, Any]) -> bool:
    """Tell whether two descriptions, one of them read from a file, are of the same audit."""
    mine = json.loads(json.dumps(about))
    return all(one.get(name) == mine[name] for name in _IDENTITY)


def _described(place: Place, dataset: Any) -> dict[str, Any]:
    return {"path": os.fspath(place), "pictures": len(dataset), "sha256": dataset.fingerprint()}
