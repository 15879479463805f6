"""How long an audit will take, from a short measurement of what it is made of."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, Final

import numpy as np

from unlearnable.audit.grid import Cell
from unlearnable.audit.run import Bench
from unlearnable.audit.store import Row, key_of
from unlearnable.pictures.dataset import Dataset
from unlearnable.training.evaluation import predictions
from unlearnable.training.loop import train

_BATCH: Final = 64  # pictures a step in the measurement, at most
_SAMPLE: Final = 256  # pictures that are changed, and named, to see how long that takes


@dataclass(frozen=True)
class Planned:
    """A run, and how long it will take from its start; ``finished`` ones take no more."""

    cell: Cell
    finished: bool
    seconds: float


@dataclass(frozen=True)
class Plan:
    """The runs of an audit, and how many seconds those take that are not finished, one after another."""

    runs: tuple[Planned, ...]

    @property
    def seconds(self) -> float:
        return sum(run.seconds for run in self.runs if not run.finished)

    def summary(self) -> dict[str, Any]:
        """Return it in plain values, for JSON."""
        runs = [asdict(run.cell) | {"finished": run.finished, "seconds": run.seconds} for run in self.runs]
        return {"cells": runs, "seconds": self.seconds}


def plan(bench: Bench, cells: Sequence[Cell], known: Callable[[str], Row | None]) -> Plan:
    """Measure how long runs will take: of each network, recipe and countermeasure a few steps, of each only once.

    known: gives the finished run of a key, or None; how long a finished one took is known.
    """
    pictures = bench.sets.clean

    @cache
    def a_step(model: str, recipe: str, countermeasure: str) -> float:
        return _training(bench, model, recipe, countermeasure)

    @cache
    def once(countermeasure: str) -> float:
        some = _spread(pictures, _SAMPLE)
        published = bench.published(some, 0)
        return _timed(lambda: bench.countermeasure(countermeasure).clean(published, np.random.default_rng(0))) / len(
            some
        )

    @cache
    def naming(model: str, recipe: str) -> float:
        some = _spread(bench.sets.test, _SAMPLE)
        network = bench.network(model, recipe)().to(bench.place)
        return _timed(lambda: predictions(network, some.images, precision=bench.precision)) / len(some)

    def seconds(cell: Cell) -> float:
        batchwise = bench.countermeasure(cell.countermeasure).every_batch(len(pictures.class_names)) is not None
        trained = a_step(cell.model, cell.recipe, cell.countermeasure if batchwise else "none")
        epochs = bench.recipe(cell.recipe).epochs
        tested = len(bench.sets.test) * naming(cell.model, cell.recipe)
        return bench.count(cell) * (epochs * trained + once(cell.countermeasure)) + tested

    runs = []
    for cell in cells:
        row = known(key_of(bench.spec(cell)))
        runs.append(Planned(cell, row is not None, seconds(cell) if row is None else row.seconds))
    return Plan(tuple(runs))


def _training(bench: Bench, model: str, recipe: str, countermeasure: str) -> float:
    """Measure the seconds that a picture takes each epoch: two steps, as the difference of three and one."""
    full = bench.recipe(recipe)
    short = replace(full, epochs=1, batch_size=min(full.batch_size, _BATCH))

    def epoch(steps: int) -> float:
        some = _spread(bench.sets.clean, steps * short.batch_size)
        return _timed(
            lambda: train(
                some,
                model=bench.network(model, recipe),
                recipe=short,
                change=bench.countermeasure(countermeasure).every_batch(len(some.class_names)),
                device=bench.device,
                precision=bench.precision,
            )
        )

    epoch(1)  # the first one of its kind has things to set up
    return max(0.0, epoch(3) - epoch(1)) / (2 * short.batch_size)


def _spread(dataset: Dataset, count: int) -> Dataset:
    """Take ``count`` pictures from all over a set; some of them twice where it has fewer."""
    return dataset.select(np.linspace(0, len(dataset) - 1, count).astype(np.int64))


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
