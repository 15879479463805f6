"""The runs of an audit: what one is made of, and how all of them get done, by one process or several."""

import logging
import math
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from unlearnable import __version__
from unlearnable.audit.grid import Attempt, Cell, recipe_options
from unlearnable.audit.mix import choose
from unlearnable.audit.sets import Sets
from unlearnable.audit.store import SUBSET, Row, Store, key_of
from unlearnable.countermeasures import Composition, Leak, Published, named
from unlearnable.countermeasures.adversarial_transformation import AdversarialTransformation
from unlearnable.countermeasures.relabelling import Relabelling
from unlearnable.errors import InputError, expected
from unlearnable.models import build
from unlearnable.pictures.dataset import Dataset
from unlearnable.training.distributed import local_device
from unlearnable.training.evaluation import predictions
from unlearnable.training.loop import train
from unlearnable.training.precision import Precision, autocast, default_device
from unlearnable.training.recipes import Recipe
from unlearnable.training.recipes import named as recipe_named

PRETRAINED: Final = ("finetune", "linear-probe")
"""Recipes that start from a network trained before."""

_DECISIVE: Final = ("kornia", "numpy", "pillow", "timm", "torch", "torchvision")  # packages whose release may matter
_PATIENCE: Final = 0.5  # seconds between two looks at what another process is at work on

_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Told, now and then, how many training steps are done and how many there are."""

Told = Callable[[Row], None]
"""Told each run as it is finished."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """Everything that decides the numbers of runs, but for their cells.

    epochs, batch_size: in place of the recipes' own, unless a recipe's text names them.
    leaked: clean originals, of each class alike, that the scraper has in his hands; for paired regression.
    weights: of a network trained before, which finetune and linear-probe start from.
    external: a checkpoint of the network that adversarial-transformation uses.
    """

    sets: Sets
    epochs: int | None = None
    batch_size: int | None = None
    limit: int | None = None
    leaked: int = 0
    weights: Path | None = None
    external: Path | None = None
    device: str | None = None
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        """Raise InputError for a device that there is not."""
        local_device(self.device or default_device())

    def check(self, cells: Iterable[Cell]) -> None:
        """Raise InputError, with the nearest name, for a recipe, countermeasure or model that there is not."""
        cells = list(cells)
        for text in dict.fromkeys(cell.recipe for cell in cells):
            self.recipe(text)
            if recipe_options(text)[0] in PRETRAINED and self.weights is None:
                raise expected(f"weights to start {text} from", "none", "name a checkpoint with --weights")
        for text in dict.fromkeys(cell.countermeasure for cell in cells):
            countermeasure = self.countermeasure(text)
            countermeasure.every_batch(len(self.sets.clean.class_names))
            if "paired-regression" in [part.name for part in countermeasure.parts] and not self.leaked:
                raise expected("leaked originals for paired-regression", "none", "say how many with --leaked")
        for model, recipe in dict.fromkeys((cell.model, cell.recipe) for cell in cells):
            self.network(model, recipe)()

    def recipe(self, text: str) -> Recipe:
        """Build a recipe from its text."""
        name, options = recipe_options(text)
        mine = {"epochs": self.epochs, "batch_size": self.batch_size}
        return recipe_named(name, **{key: value for key, value in mine.items() if value is not None} | options)

    def countermeasure(self, text: str) -> Composition:
        """Build a countermeasure from its name, with the external network where it needs one."""
        made = named(text)
        if not any(isinstance(part, AdversarialTransformation) for part in made.parts):
            return made
        parts = [
            replace(part, external=self.external) if isinstance(part, AdversarialTransformation) else part
            for part in made.parts
        ]
        return replace(made, parts=tuple(parts))

    def network(self, model: str, recipe: str) -> Callable[[], torch.nn.Module]:
        """Return what builds a network for these pictures."""
        size, channels = self.sets.clean.images.shape[1], self.sets.clean.images.shape[3]
        weights = self.weights if recipe_options(recipe)[0] in PRETRAINED else None
        classes = len(self.sets.clean.class_names)
        return partial(build, model, classes=classes, channels=channels, size=size, weights=weights)

    def spec(self, cell: Cell) -> dict[str, Any]:
        """Return everything that determines a run, for JSON; its hash is the run's key."""
        height, width, channels = self.sets.clean.images.shape[1:]
        model = {"name": cell.model, "channels": channels, "size": [height, width]}
        known = _relabelling(self.countermeasure(cell.countermeasure)) is not None
        return {
            **self.sets.identity(cell.protection, cell.fraction, known=known),
            "limit": self.limit,
            "countermeasure": self.countermeasure(cell.countermeasure).spec(),
            "leaked": self.leaked if "paired-regression" in cell.countermeasure else 0,
            "recipe": self.recipe(cell.recipe).spec(),
            "model": model | {"classes": len(self.sets.clean.class_names)},
            "weights": self._weights_digest if recipe_options(cell.recipe)[0] in PRETRAINED else None,
            "seed": cell.seed,
            "device": self.place.type,
            "precision": self._arithmetic,
            "versions": releases(),
        }

    @cached_property
    def place(self) -> torch.device:
        """Where it is computed."""
        return local_device(self.device or default_device())

    @cached_property
    def _arithmetic(self) -> str:
        """What "auto" stands for here."""
        with autocast(self.place, self.precision):
            return "bfloat16" if torch.is_autocast_enabled(self.place.type) else "float32"

    @cached_property
    def _weights_digest(self) -> str:
        from hashlib import file_digest

        assert self.weights is not None  # noqa: S101 - check() has seen to that
        with self.weights.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()

    def published(self, dataset: Dataset, seed: int) -> Published:
        """Return what a scraper has: the pictures, and such originals of theirs as have leaked."""
        leak = None
        if self.leaked:
            names = [dataset.class_names[label] for label in dataset.labels]
            chosen = choose(dataset.ids, names, min(1, self.leaked / len(dataset)), seed, "leak")
            index = np.flatnonzero(chosen)
            places = {id_: place for place, id_ in enumerate(self.sets.clean.ids)}
            originals = self.sets.clean.images[[places[dataset.ids[place]] for place in index]]
            leak = Leak(index, originals)
        return Published(dataset.images, dataset.labels, len(dataset.class_names), leak)

    def known(self, count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return clean pictures that a scraper has labelled himself, so many of each class, and their labels."""
        clean, chosen = self.sets.clean, []
        for label in np.unique(clean.labels):
            own = np.flatnonzero(clean.labels == label)
            ids = [clean.ids[place] for place in own]
            chosen.append(
                own[choose(ids, [clean.class_names[label]] * len(own), min(1, count / len(own)), seed, "known")]
            )
        places = np.concatenate(chosen)
        return clean.images[places], clean.labels[places]

    @lru_cache(maxsize=1)  # noqa: B019 - a bench lives as long as its audit
    def cleaned(self, protection: str, fraction: float, seed: int, countermeasure: str) -> Dataset:
        """Put the training pictures together and do to them what is done once; kept for the next run that asks."""
        dataset = self.sets.training(protection, fraction, seed)
        changed = self.countermeasure(countermeasure).clean(self.published(dataset, seed), np.random.default_rng(seed))
        return replace(dataset, images=changed)

    @lru_cache(maxsize=1)  # noqa: B019
    def tests(self, countermeasure: str) -> NDArray[np.uint8]:
        """Return the test pictures as the scraper feeds them to the network."""
        return self.countermeasure(countermeasure).at_test(self.sets.test.images)

    def count(self, cell: Cell) -> int:
        """Count the training pictures of a run."""
        thrown_away = round(cell.fraction * len(self.sets.clean)) if cell.protection == SUBSET else 0
        return len(self.sets.clean) - thrown_away

    def steps(self, cell: Cell) -> int:
        """Count the training steps of a run."""
        recipe = self.recipe(cell.recipe)
        return recipe.epochs * math.ceil(self.count(cell) / recipe.batch_size)

    def run(self, cell: Cell, checkpoint: Path | None = None, progress: Progress | None = None) -> Row:
        """Train and test once.

        checkpoint: where the training stands, for when it is interrupted; removed at the end.

        Raises FloatingPointError when the loss is no longer a number, InputError for a countermeasure that changes
        nothing.
        """
        started = time.monotonic()
        countermeasure = self.countermeasure(cell.countermeasure)
        dataset = self.cleaned(cell.protection, cell.fraction, cell.seed, cell.countermeasure)
        prepared = time.monotonic()
        trained = train(
            dataset,
            model=self.network(cell.model, cell.recipe),
            recipe=self.recipe(cell.recipe),
            change=countermeasure.every_batch(len(dataset.class_names)),
            seed=cell.seed,
            device=self.device,
            precision=self.precision,
            checkpoint=checkpoint,
            progress=None if progress is None else lambda done, total, _: progress(done, total),
        )
        learned = time.monotonic()
        answers = predictions(trained.model, self.tests(cell.countermeasure), precision=self.precision)
        if (relabelling := _relabelling(countermeasure)) is not None:
            shown, labels = self.known(relabelling.known, cell.seed)
            told = predictions(trained.model, countermeasure.at_test(shown), precision=self.precision)
            answers = relabelling.renamed(told, labels, len(dataset.class_names))[answers]
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
        spec, truth = self.spec(cell), self.sets.test.labels
        right, halves = answers == truth, self.sets.selection
        confusion = np.zeros((len(dataset.class_names),) * 2, np.int64)
        np.add.at(confusion, (truth, answers), 1)
        return Row(
            key=key_of(spec),
            protection=cell.protection,
            fraction=cell.fraction,
            countermeasure=cell.countermeasure,
            recipe=cell.recipe,
            model=cell.model,
            seed=cell.seed,
            accuracy=float(right.mean()),
            right=int(right.sum()),
            total=len(right),
            chance=self.sets.chance,
            per_class=[float(share) for share in confusion.diagonal() / confusion.sum(1)],
            confusion=confusion.tolist(),
            history=[
                {"epoch": epoch.number, "loss": epoch.loss, "accuracy": epoch.accuracy, "seconds": epoch.seconds}
                for epoch in trained.history
            ],
            gradients=trained.gradients,
            # An epoch counts with the time it took, even if that was in another process.
            seconds=sum(e.seconds for e in trained.history) + prepared - started + time.monotonic() - learned,
            spec=spec,
            versions=machine(self.place),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            halves=[[int(right[half].sum()), int(half.sum())] for half in (halves, ~halves)],
        )


def _relabelling(countermeasure: Composition) -> Relabelling | None:
    return next((part for part in countermeasure.parts if isinstance(part, Relabelling)), None)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of runs: the rows of the finished ones, in their order, and why the others cannot be finished."""

    rows: Mapping[Cell, Row]
    failures: Mapping[Cell, str]

    def all(self) -> list[Row]:
        """List the rows. Raises InputError where some runs cannot be finished."""
        if self.failures:
            cell, reason = next(iter(self.failures.items()))
            raise expected(
                f"all {len(self.rows) + len(self.failures)} runs to finish",
                f"{len(self.failures)} that cannot, the first of them {cell} ({reason})",
                "mend or leave out what they try; the others are kept",
            )
        return list(self.rows.values())


def check_names(attempts: Iterable[Attempt]) -> None:
    """Raise InputError, with the nearest name, for a countermeasure or a recipe that there is not."""
    for countermeasure, recipe in dict.fromkeys(attempts):
        named(countermeasure)
        name, options = recipe_options(recipe)
        recipe_named(name, **options)


def releases() -> dict[str, str]:
    """Return the releases of this package and of those that its numbers come from."""
    found = {"unlearnable": __version__}
    for name in _DECISIVE:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine(place: torch.device) -> dict[str, str]:
    """Describe what a run is computed with, and on."""
    processor = torch.cuda.get_device_name(place) if place.type == "cuda" else platform.processor() or "unknown"
    about = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    return releases() | about | {"processor": processor, "threads": str(torch.get_num_threads())}


def run_cells(
    bench: Bench,
    cells: Sequence[Cell],
    store: Store,
    checkpoints: Path,
    *,
    told: Told | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Get runs done.

    Those that the store has are not run again; those that another process is at work on are waited for, and taken
    over should that process die.

    checkpoints: a folder for where unfinished runs stand.
    """
    keys = {cell: key_of(bench.spec(cell)) for cell in cells}
    rows: dict[Cell, Row] = {}
    failures: dict[Cell, str] = {}
    steps = {cell: bench.steps(cell) for cell in cells if store.get(keys[cell]) is None}
    todo, done, total, waited = list(keys), 0, sum(steps.values()), False
    while todo:
        waiting = []
        for cell in todo:
            row = store.get(keys[cell])
            if row is None:
                with store.claim(keys[cell]) as mine:
                    if not mine:
                        waiting.append(cell)
                        continue
                    tell = None if progress is None else _offset(progress, done, total)
                    place = checkpoints / f"{keys[cell]}.safetensors"
                    try:
                        row = bench.run(cell, place, tell)
                    except (FloatingPointError, InputError) as error:
                        failures[cell] = str(error)
                        place.unlink(missing_ok=True)
                    except torch.OutOfMemoryError as error:  # of a GPU; another run may need less
                        failures[cell] = f"{str(error).partition('. ')[0]}: choose a smaller --batch-size"
                        torch.cuda.empty_cache()
                    else:
                        store.add(row)
                        if told is not None:
                            told(row)
            done += steps.get(cell, 0)
            if row is not None:
                rows[cell] = labelled(row, cell)
        if len(waiting) == len(todo):
            if not waited:
                _log.warning("waiting for %d runs that other processes are at work on", len(waiting))
            waited = True
            time.sleep(_PATIENCE)
        todo = waiting
    return Outcome(rows={cell: rows[cell] for cell in keys if cell in rows}, failures=failures)


def labelled(row: Row, cell: Cell) -> Row:
    """Give a row the names by which it was asked for; it may have been stored under others that mean the same."""
    return replace(
        row,
        protection=cell.protection,
        fraction=cell.fraction,
        countermeasure=cell.countermeasure,
        recipe=cell.recipe,
    )


def _offset(progress: Progress, done: int, total: int) -> Progress:
    return lambda steps, _: progress(done + steps, total)
