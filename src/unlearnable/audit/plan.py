"""How long an audit will take, from a short measurement of what it is made of."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from typing import Any, Final

import numpy as np
import torch

from unlearnable.audit.grid import PLAIN, Cell
from unlearnable.audit.run import Bench
from unlearnable.audit.store import Row, key_of
from unlearnable.pictures.dataset import Dataset
from unlearnable.training.loop import train

_MODEL: Final = "resnet9-w16"  # that everything but the network's own work is measured with
_BATCHES: Final = (8, 64)  # pictures a step in a measurement: 64 where 8 take no more than
_BRIEF: Final = 0.5  # seconds
_SAMPLE: Final = 256  # pictures that are changed once, to see how long that takes
_FORWARD: Final = 1 / 3  # of a pass forward and backward


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
    """Work out how long runs will take, from a few short measurements.

    Of each network a few steps of plain training are timed; how many passes through the network a recipe and a
    countermeasure ask for is counted with a small one, and what they take beside that is timed with it.

    known: gives the finished run of a key, or None; how long a finished one took is known.
    """
    pictures, plain = bench.sets.clean, PLAIN.recipe

    @cache
    def a_pass(model: str) -> float:
        return _seconds(bench, model, plain, PLAIN.countermeasure)

    @cache
    def beside(recipe: str, countermeasure: str) -> float:
        seconds = _seconds(bench, _MODEL, recipe, countermeasure)
        return max(0.0, seconds - passes(recipe, countermeasure) * a_pass(_MODEL))

    @cache
    def passes(recipe: str, countermeasure: str) -> float:
        return work(bench, recipe, countermeasure)

    @cache
    def once(countermeasure: str) -> float:
        some = _spread(pictures, _SAMPLE)
        published = bench.published(some, 0)
        return _timed(lambda: bench.countermeasure(countermeasure).clean(published, np.random.default_rng(0))) / len(
            some
        )

    def seconds(cell: Cell) -> float:
        batchwise = bench.countermeasure(cell.countermeasure).every_batch(len(pictures.class_names)) is not None
        change = cell.countermeasure if batchwise else PLAIN.countermeasure
        # A recipe and a countermeasure are measured apart: of many of both there are many more pairs.
        through = passes(cell.recipe, PLAIN.countermeasure) + passes(plain, change) - 1
        trained = through * a_pass(cell.model) + beside(cell.recipe, PLAIN.countermeasure) + beside(plain, change)
        epochs = bench.recipe(cell.recipe).epochs
        tested = len(bench.sets.test) * _FORWARD * a_pass(cell.model)
        return bench.count(cell) * (epochs * trained + once(cell.countermeasure)) + tested

    runs = []
    for cell in cells:
        row = known(key_of(bench.spec(cell)))
        runs.append(Planned(cell, row is not None, seconds(cell) if row is None else row.seconds))
    return Plan(tuple(runs))


def work(bench: Bench, recipe: str, countermeasure: str) -> float:
    """Count a picture's passes through the network in a step: forward and backward; one forward alone is a third.

    Where only the last layer is trained, there is nothing but forward passes.
    """
    alone = done = 0

    def network() -> torch.nn.Module:
        made = _network(bench, _MODEL, recipe)

        def see(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
            nonlocal alone, done
            alone += len(inputs[0]) * (not torch.is_grad_enabled())
            done += len(inputs[0]) * torch.is_grad_enabled()

        made.register_forward_pre_hook(see)
        return made

    some = _spread(bench.sets.clean, _BATCHES[0])
    _trained(bench, some, network, recipe, countermeasure, len(some))
    backward = 1.0 if bench.recipe(recipe).trained == "all" else _FORWARD
    return (backward * done + _FORWARD * alone) / len(some)


def _seconds(bench: Bench, model: str, recipe: str, countermeasure: str) -> float:
    """Measure the seconds that a picture takes each epoch: two steps, as the difference of three and one."""

    def measured(batch: int) -> float:
        def epoch(steps: int) -> float:
            some = _spread(bench.sets.clean, steps * batch)
            network = partial(_network, bench, model, recipe)
            return _timed(lambda: _trained(bench, some, network, recipe, countermeasure, batch))

        epoch(1)  # the first one of its kind has things to set up
        return max(0.0, epoch(3) - epoch(1)) / (2 * batch)

    few, many = _BATCHES
    found = measured(few)
    return found if few * found > _BRIEF else measured(many)


def _network(bench: Bench, model: str, recipe: str) -> torch.nn.Module:
    """Build a network as the bench does, but from nothing: weights may be another network's."""
    return replace(bench, weights=None).network(model, recipe)()


def _trained(
    bench: Bench,
    pictures: Dataset,
    network: Callable[[], torch.nn.Module],
    recipe: str,
    countermeasure: str,
    batch_size: int,
) -> None:
    train(
        pictures,
        model=network,
        recipe=replace(bench.recipe(recipe), epochs=1, batch_size=batch_size),
        change=bench.countermeasure(countermeasure).every_batch(len(pictures.class_names)),
        device=bench.device,
        precision=bench.precision,
    )


def _spread(dataset: Dataset, count: int) -> Dataset:
    """Take ``count`` pictures from all over a set; some of them twice where it has fewer."""
    return dataset.select(np.linspace(0, len(dataset) - 1, count).astype(np.int64))


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
