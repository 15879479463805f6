"""The search for the worst composition of countermeasures, greedily and within a budget of runs.

Choosing the best of many by the number that is then reported flatters the scraper: some of them were only lucky. So
the test pictures are cut in two halves. What the search chooses, it chooses by the first half; what it reports was
measured on the second.
"""

from collections.abc import Callable, Sequence
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
    tried: everything, in order; as many runs as that were spent.
    """

    best: Tried
    single: Tried
    tried: tuple[Tried, ...]


Measure = Callable[[Sequence[Attempt]], Sequence[Halves]]
"""Runs attempts, and returns their accuracies in the same order."""


def search(measure: Measure, parts: Sequence[str], recipes: Sequence[str], runs: int) -> Search:
    """Look for the composition that teaches most.

    First each recipe is tried without a countermeasure, then with single ones, for half of the runs that are left.
    Then the best one so far is extended by one more countermeasure, those that did best by themselves first, for half
    of what is left; and so on, until nothing is left or no extension is better than what it extends.

    parts: names of single countermeasures, the most promising first, for when there are too few runs for all.
    runs: how many are spent at most.

    Raises InputError where the runs are too few for a single countermeasure.
    """
    if runs <= len(recipes) or not parts:
        raise expected(f"at least {len(recipes) + 1} runs to search with", str(runs), "allow more, or name one recipe")
    tried: dict[Attempt, Halves] = {}

    def spend(attempts: Sequence[Attempt]) -> Tried:
        tried.update(zip(attempts, measure(attempts), strict=True))
        return max((Tried(a, tried[a]) for a in attempts), key=lambda one: one.accuracy.selection)

    best = spend([Attempt(PLAIN.countermeasure, recipe) for recipe in recipes])
    singles = [Attempt(part, recipe) for part in parts for recipe in recipes][: _half(runs - len(tried))]
    best = single = spend(singles)
    while runs > len(tried):
        ranked = sorted(parts, key=lambda part: -_alone(tried, part))  # stable: untried ones in their own order
        held = best.attempt.countermeasure.split("+")
        longer = [Attempt("+".join([*held, part]), best.attempt.recipe) for part in ranked if part not in held]
        if not longer:
            break
        found = spend(longer[: _half(runs - len(tried))])
        if found.accuracy.selection <= best.accuracy.selection:
            break
        best = found
    everything = tuple(Tried(attempt, accuracy) for attempt, accuracy in tried.items())
    return Search(best=max(everything, key=lambda one: one.accuracy.selection), single=single, tried=everything)


def _half(runs: int) -> int:
    return max(1, runs // 2)


def _alone(tried: dict[Attempt, Halves], part: str) -> float:
    """Return the best that a countermeasure reached by itself, with any recipe."""
    return max((accuracy.selection for attempt, accuracy in tried.items() if attempt.countermeasure == part), default=0)
