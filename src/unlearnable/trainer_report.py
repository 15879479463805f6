"""The report of a training run: its curves, its cost and its settings, on one page that needs nothing else."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from unlearnable import pages
from unlearnable.training.checkpoint import Epoch, Split

if TYPE_CHECKING:
    from unlearnable.trainer import TrainReport

_MARK: Final = "M0-5.6L5.6 0 0 5.6-5.6 0z"  # of the test accuracy, drawn around (0, 0)
_TICKS: Final = 5  # epochs that an axis names, at most


@dataclass(frozen=True, kw_only=True)
class About:
    """What a run's report has to be told beside the run.

    pictures: trained on, without those held out. size: (height, width, channels). settings: the recipe's, as
    :meth:`unlearnable.training.recipes.Recipe.spec` gives them. attacked: whether the training accuracy is that
    under attack. machine: by
    name, what it ran with and on. command: that starts the same run again; None if no command did.
    """

    pictures: int
    test_pictures: int
    classes: int
    size: tuple[int, ...]
    seed: int
    precision: str
    parameters: int
    settings: Mapping[str, Any]
    attacked: bool
    machine: Mapping[str, str]
    command: str | None


def page(run: "TrainReport", about: About) -> str:
    """Write the page of a run that has ended."""
    epochs = run.history
    last = epochs[-1].number
    most = max(epoch.loss for epoch in epochs)
    accuracies = [("training", pages.curve([epoch.accuracy for epoch in epochs]))]
    judged = [epoch.held_out for epoch in epochs if epoch.held_out is not None]
    if judged:
        accuracies.append(("held", pages.curve(judged)))
    return pages.template("training.html", {"ordinal": _ordinal}).render(
        run=run,
        how=f"{run.recipe} and {run.accelerate}" if run.accelerate else run.recipe,
        epochs=epochs,
        chosen=run.best_epoch is not None,
        kept=run.best_epoch or last,
        span=max(last - 1, 1),
        ticks=_ticks(last),
        accuracies=accuracies,
        losses=pages.curve([epoch.loss / most if most else 0.0 for epoch in epochs]),
        most=most,
        shares=_shares(epochs),
        attacked=about.attacked,
        mark=_MARK,
        facts={
            "pictures": about.pictures,
            "test_pictures": about.test_pictures,
            "classes": about.classes,
            "told": _facts(run, about),
            "settings": list(settings(about.settings)),
        },
        command=about.command,
        limits=_limits(run, about),
    )


def settings(spec: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """List nested settings as name and value; what is off or not given is left out.

    >>> list(settings({"objective": {"kind": "TRADES", "attack": {"kind": "PGD", "steps": 10}}, "ema": None}))
    [('objective', 'TRADES'), ('objective attack', 'PGD'), ('objective attack steps', '10')]
    """
    for name, value in spec.items():
        words = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, Mapping):
            if "kind" in value:
                yield words, str(value["kind"])
            yield from settings({key: one for key, one in value.items() if key != "kind"}, f"{words} ")
        elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
            for one in value:
                yield from settings({name: one}, prefix)
        elif value not in (None, False, "", []):
            yield words, "yes" if value is True else f"{value:g}" if isinstance(value, float) else str(value)


def _facts(run: "TrainReport", about: About) -> list[tuple[str, str]]:
    seconds = sum(epoch.seconds for epoch in run.history)
    height, width, channels = about.size
    passes = run.gradients / (about.pictures * run.epochs)
    place = [about.machine.get(name, "") for name in ("processor", "system")]
    threads, colour = about.machine["threads"], "grey" if channels == 1 else "in colour"
    software = {name: value for name, value in about.machine.items() if name not in ("processor", "system", "threads")}
    held = f", and {run.held_out_pictures:,} held out of training" if run.held_out_pictures else ""
    external = f"; {run.external_gradients:,} through the external network" if run.external_gradients else ""
    found = {
        "Network": f"{run.model}, {about.parameters:,} parameters",
        "Training pictures": f"{about.pictures:,} of {width} x {height} pixels, {colour}{held}",
        "Test pictures": f"{about.test_pictures:,}",
        "Seed": str(about.seed),
        "Cost": f"{run.gradients:,} pictures passed forward and backward: {passes:.2f} times each picture an epoch, "
        f"attacks included{external}",
        "Time": f"{seconds:,.0f} seconds of training",
        "Arithmetic": about.precision,
        "Machine": ", ".join(
            [*(one for one in place if one not in ("", "unknown")), f"{threads} thread{'s' if threads != '1' else ''}"]
        ),
        "Software": ", ".join(f"{name} {value}" for name, value in software.items()),
        "Checkpoint": run.checkpoint,
    }
    return list(found.items())


def _limits(run: "TrainReport", about: About) -> list[str]:
    told = [
        (
            True,
            "One seed was trained. The interval tells of the choice of test pictures, not of how much another differs.",
        ),
        (
            True,
            "Accuracy on clean pictures says nothing of attacks and corruptions: unlearnable evaluate tells of those.",
        ),
        (
            about.attacked,
            "The training accuracy under attack is that of the recipe's own short attack, on augmented pictures. A "
            "stronger attack finds more.",
        ),
        (
            run.best_epoch is not None,
            "The held-out accuracy of the epoch that was kept is the best of several, and so a little too good; the "
            "test accuracy is not.",
        ),
    ]
    return [words for holds, words in told if holds]


def _shares(epochs: Sequence[Epoch]) -> list[tuple[str, str]]:
    """Return a curve for each group that an accelerated recipe sorts pictures into; none with any other."""
    shares = {group: [getattr(epoch, group) for epoch in epochs] for group in Split._fields}
    return [(group, pages.curve(found)) for group, found in shares.items() if None not in found]


def _ticks(last: int) -> list[int]:
    """Return the epochs that an axis names: the first, the last, and some at even distances between.

    >>> _ticks(1), _ticks(3), _ticks(30)
    ([1], [1, 2, 3], [1, 8, 15, 23, 30])
    """
    count = min(last, _TICKS)
    return [1 + round(place * (last - 1) / max(count - 1, 1)) for place in range(count)]


def _ordinal(number: int) -> str:
    """Write a place in an order.

    >>> [_ordinal(number) for number in (1, 2, 3, 4, 11, 12, 13, 22)]
    ['1st', '2nd', '3rd', '4th', '11th', '12th', '13th', '22nd']
    """
    teen = number // 10 % 10 == 1
    return f"{number}{'th' if teen else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"
