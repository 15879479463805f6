"""The search for the worst composition of countermeasures, greedily and within a budget of runs.

Choosing the best of many by the number that is then reported flatters the scraper: some of them were only lucky. So
the test pictures are cut in two halves. What the search chooses, it chooses by the first half; what it reports was
measured on the second.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from unlearnable.audit.grid import PLAIN, Attempt
from unlearnable.errors import expected


class Halves(NamedTuple):
    """Accuracy, 0 to 1, on the half of the test pictures to choose by and on the half to report."""

    selection: float
    report: float


class Tried(NamedTuple):
    """An attempt, and how it went."""

    attempt: Attempt
    accuracy: Halves


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a search found.

    best: of all compositions, chosen by the selection half; single: of the single countermeasures, likewise.
    tried: everything that could be tried, in order.
    """

    best: Tried
    single: Tried
    tried: tuple[Tried, ...]


Measure = Callable[[Sequence[Attempt]], Sequence[Halves | None]]
"""Runs attempts, and returns their accuracies in the same order; None of one that cannot be run."""


def search(
    measure: Measure, parts: Sequence[str], recipes: Sequence[str], runs: int, *, known: Sequence[str] = ()
) -> Search:
    """Look for the composition that teaches most.

    First each recipe is tried without a countermeasure, then with single ones, for half of the runs that are left, then
    with compositions that are known to be strong, for half of what is left: where a protection has layers, taking away
    one of them alone may help nothing. Then the best one so far is varied in one thing (:func:`_variations`), for half
    of what is left; and so on, until nothing is left or none of all its variations is better.

    parts: names of single countermeasures, the most promising first, for when there are too few runs for all.
    known: names of compositions, likewise.
    runs: how many are spent at most.

    Raises InputError where the runs are too few (:func:`check_runs`), or no single countermeasure could be run.
    """
    check_runs(runs, recipes)
    tried: dict[Attempt, Halves | None] = {}

    def spend(attempts: Sequence[Attempt]) -> Tried | None:
        tried.update(zip(attempts, measure(attempts), strict=True))
        return _best(tried, attempts)

    spend([Attempt(PLAIN.countermeasure, recipe) for recipe in recipes])
    singles = [Attempt(part, recipe) for part in parts for recipe in recipes][: _half(runs - len(tried))]
    best = spend(singles)
    together = [Attempt(name, recipe) for name in known for recipe in recipes]
    if runs > len(tried) and together:
        found = spend(together[: _half(runs - len(tried))])
        if best is not None and found is not None and found.accuracy.selection > best.accuracy.selection:
            best = found
    while runs > len(tried) and best is not None:
        ranked = sorted(parts, key=lambda part: -_alone(tried, part))  # stable: untried ones in their own order
        untried = [attempt for attempt in _variations(best.attempt, ranked, recipes) if attempt not in tried]
        if not untried:
            break
        found = spend(untried[: _half(runs - len(tried))])
        if found is not None and found.accuracy.selection > best.accuracy.selection:
            best = found
    overall = _best(tried, tried)
    single = _best(tried, [attempt for attempt in tried if attempt.countermeasure in parts])
    if overall is None or single is None:
        raise expected("single countermeasures that can be tried", "none among them", "allow more runs")
    everything = tuple(Tried(attempt, accuracy) for attempt, accuracy in tried.items() if accuracy is not None)
    return Search(best=overall, single=single, tried=everything)


def check_runs(runs: int, recipes: Sequence[str]) -> None:
    """Raise InputError where runs are too few to try every recipe, and a countermeasure."""
    if runs <= len(recipes):
        raise expected(f"at least {len(recipes) + 1} runs to search with", str(runs), "allow more, or name one recipe")


def _variations(attempt: Attempt, parts: Sequence[str], recipes: Sequence[str]) -> list[Attempt]:
    """List what differs from an attempt in one thing: its recipe, one countermeasure less, or one more at either end.

    Some countermeasures have to come before others (pattern removal before whatever moves pixels), others after.
    """
    held = attempt.countermeasure.split("+")
    less = ["+".join([*held[:i], *held[i + 1 :]]) for i in range(len(held)) if len(held) > 1]
    more = ["+".join(some) for part in parts if part not in held for some in ([*held, part], [part, *held])]
    others = [attempt._replace(recipe=recipe) for recipe in recipes if recipe != attempt.recipe]
    return others + [attempt._replace(countermeasure=name) for name in (*less, *more)]


def _best(tried: Mapping[Attempt, Halves | None], attempts: Iterable[Attempt]) -> Tried | None:
    """Return the one of some attempts that did best, the first among equals; None where none could be run."""
    ran = [Tried(attempt, accuracy) for attempt in attempts if (accuracy := tried[attempt]) is not None]
    return max(ran, key=lambda one: one.accuracy.selection, default=None)


def _half(runs: int) -> int:
    return max(1, runs // 2)


def _alone(tried: Mapping[Attempt, Halves | None], part: str) -> float:
    """Return the best that a countermeasure reached by itself, with any recipe; 0 for one that was not tried."""
    found = _best(tried, [attempt for attempt in tried if attempt.countermeasure == part])
    return 0.0 if found is None else found.accuracy.selection
