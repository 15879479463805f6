"""The verdict: the best that a scraper reaches, between chance and what clean pictures give. Pure functions of rows."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, NamedTuple

from scipy import stats

from unlearnable.audit.store import CLEAN, SUBSET, Row
from unlearnable.errors import expected

PROTECTED: Final = 0.25
"""The highest learnability that is called protected."""

WEAKENED: Final = 0.6
"""The highest learnability that is called weakened."""

Word = Literal["protected", "weakened", "not protected", "undecided"]
Interval = tuple[float, float]

_CONFIDENCE: Final = 0.95
_ROUNDING: Final = 1e-6  # of a picture


class Way(NamedTuple):
    """A way to learn from pictures: what is done to them, the recipe, the network; by name."""

    countermeasure: str
    recipe: str
    model: str

    def __str__(self) -> str:
        return f"{self.countermeasure}, {self.recipe}, {self.model}"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the runs on one set say.

    protection, fraction: the set's name, and which part of the pictures was protected.
    verdict: "protected", "weakened" or "not protected", by the learnability; "undecided" without one.
    learnability: (accuracy - chance) / (clean accuracy - chance) of the strongest way to learn from the set; None
        where the clean accuracy is not above chance with confidence, so that there was nothing to protect from.
    interval: its 95 % interval, over draws of as many test pictures and, with several seeds, over seeds.
    seeds: how many runs of the strongest way stand behind it.
    strongest: the way with the highest mean accuracy; broken_by: the same, or None if nothing did.
    accuracy, clean_accuracy: means over seeds; chance: what the best constant answer reaches. All 0 to 1.
    """

    protection: str
    fraction: float
    verdict: Word
    learnability: float | None
    interval: Interval | None
    seeds: int
    strongest: Way
    broken_by: Way | None
    accuracy: float
    clean_accuracy: float
    chance: float

    @property
    def doubt(self) -> tuple[Word, Word] | None:
        """What it would be called at the two ends of the interval; None where that is the same, or there is none."""
        low, high = map(word, self.interval) if self.interval is not None else (self.verdict, self.verdict)
        return None if low == high else (low, high)


class Mix(NamedTuple):
    """What a partly protected set gives at best, and its clean part alone.

    fraction: that is protected. clean_pictures: how many are not.
    """

    fraction: float
    clean_pictures: int
    mixed: float
    alone: float


@dataclass(frozen=True, kw_only=True)
class CleanNeeded:
    """What it would take a scraper to do as well without the protected pictures.

    mixes: by falling fraction.
    better_without: how many clean pictures, the fewest of the measured numbers, alone gave at least as much as
        together with the protected ones; None where none did.
    enough: how many clean pictures alone give as much as the wholly protected set at best, on straight lines between
        the measured numbers of them (too many rather than too few: what one more picture adds gets less); None where
        even all of them do not.
    """

    mixes: tuple[Mix, ...]
    better_without: int | None
    enough: int | None


def chance_of(counts: Iterable[int]) -> float:
    """Return the accuracy of the best constant answer, given how many test pictures each class has.

    >>> chance_of([10, 10]), chance_of([30, 10])
    (0.5, 0.75)
    """
    counts = list(counts)
    return max(counts) / sum(counts)


def learnability(accuracy: float, clean: float, chance: float) -> float:
    """Return where an accuracy lies between chance, 0, and the clean one, 1; below 0 and above 1 it goes on.

    >>> round(learnability(0.5, clean=0.9, chance=0.1), 3)
    0.5
    """
    return (accuracy - chance) / (clean - chance)


def word(learnability: float) -> Word:
    """Call a learnability by its name.

    >>> [word(x) for x in (-0.1, 0.25, 0.6, 0.61)]
    ['protected', 'protected', 'weakened', 'not protected']
    """
    return "protected" if learnability <= PROTECTED else "weakened" if learnability <= WEAKENED else "not protected"


def interval(right: Sequence[int], total: Sequence[int]) -> Interval:
    """Return the 95 % interval of an accuracy from the counts of one run a seed.

    Two things make it uncertain: which pictures it is tested on, and the seeds. For the first, Wilson's score interval
    (JASA 1927) of the mean over as many test pictures as one run has: all seeds see the same ones. For the second,
    with several seeds, Student's t of the mean. The one that reaches further counts, at either end: so a few seeds
    that happen to agree do not make for certainty.
    """
    low, high = _wilson(*_typical(right, total))
    if len(right) == 1:
        return low, high
    least, most = _students([r / n for r, n in zip(right, total, strict=True)])
    return max(0.0, min(low, least)), min(1.0, max(high, most))


def judge(rows: Iterable[Row], protection: str, fraction: float = 1.0) -> Verdict:
    """Judge a set by its rows and the clean ones.

    The clean accuracy is that of plain training (recipe ``erm``, no countermeasure) on the clean pictures, with the
    model that is best at it: the mean over seeds.

    The interval goes from the lowest accuracy over the highest clean one to the highest over the lowest, each within
    its Wilson interval; with several seeds, to the ends of Student's t of the learnability where those lie further
    out (see :func:`interval`).

    Raises InputError where rows are missing.
    """
    rows = list(rows)
    clean = clean_rows(rows)
    ways = by_way(row for row in rows if row.protection == protection and row.fraction == fraction)
    if not ways:
        found = f"none of {protection!r} at fraction {fraction:g}"
        raise expected("finished runs to judge by", found, "let the audit finish")
    strongest = _best(ways)
    runs, chance, clean_accuracy = ways[strongest], clean[0].chance, _mean(clean)
    bases, accuracies = _wilson_of(clean), _wilson_of(runs)
    value = between = None
    if bases[0] > chance:
        learned = [learnability(row.accuracy, clean_accuracy, chance) for row in runs]
        value = statistics.fmean(learned)
        ends = [learnability(accuracy, base, chance) for accuracy in accuracies for base in bases]
        ends += _students(learned) if len(runs) > 1 else ()
        between = min(ends), max(ends)
    return Verdict(
        protection=protection,
        fraction=fraction,
        verdict="undecided" if value is None else word(value),
        learnability=value,
        interval=between,
        seeds=len(runs),
        strongest=strongest,
        broken_by=None if value is None or value <= PROTECTED else strongest,
        accuracy=_mean(runs),
        clean_accuracy=clean_accuracy,
        chance=chance,
    )


def weakest(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict on the set that holds worst: the one from which most is learned."""
    return max(verdicts, key=lambda verdict: verdict.accuracy)


def clean_rows(rows: Iterable[Row]) -> list[Row]:
    """List the runs that make the clean accuracy: plain training on the clean pictures, of the model best at it.

    Raises InputError where there are none.
    """
    plain = [row for row in rows if (row.protection, row.countermeasure, row.recipe) == (CLEAN, "none", "erm")]
    if not plain:
        raise expected("a clean row: recipe erm, countermeasure none", "no such row", "let the audit finish")
    ways = by_way(plain)
    return ways[_best(ways)]


def clean_needed(rows: Iterable[Row], protection: str, pictures: int) -> CleanNeeded | None:
    """Find what it would take to do without the protected pictures, of ``pictures`` in all; None if not measured.

    A scraper is given the best of all ways at every fraction, with the protected part and without.
    """
    rows = list(rows)

    def best(name: str) -> dict[float, float]:
        found = {row.fraction for row in rows if row.protection == name}
        ways = {f: by_way(row for row in rows if (row.protection, row.fraction) == (name, f)) for f in found}
        return {f: _mean(ways[f][_best(ways[f])]) for f in found}

    mixed, alone, clean = best(protection), best(SUBSET), best(CLEAN)
    fractions = sorted(mixed.keys() & alone.keys(), reverse=True)
    if not fractions or not clean or 1.0 not in mixed:
        return None
    mixes = tuple(Mix(f, round((1 - f) * pictures), mixed[f], alone[f]) for f in fractions)
    without = next((mix.clean_pictures for mix in mixes if mix.alone >= mix.mixed), None)
    chance = next(row.chance for row in rows)
    curve = [(0, chance), *((mix.clean_pictures, mix.alone) for mix in mixes), (pictures, max(clean.values()))]
    return CleanNeeded(mixes=mixes, better_without=without, enough=_reached(curve, mixed[1.0]))


def by_way(rows: Iterable[Row]) -> dict[Way, list[Row]]:
    """Take together the runs that differ in their seed alone."""
    ways: dict[Way, list[Row]] = {}
    for row in rows:
        ways.setdefault(Way(row.countermeasure, row.recipe, row.model), []).append(row)
    return ways


def _best(ways: Mapping[Way, Sequence[Row]]) -> Way:
    """Return the way of the highest mean accuracy, the first by name among equals."""
    return min(ways, key=lambda way: (-_mean(ways[way]), way))


def _mean(rows: Iterable[Row]) -> float:
    return statistics.fmean(row.accuracy for row in rows)


def _reached(curve: Sequence[tuple[int, float]], accuracy: float) -> int | None:
    """Return where the lines through points of rising place first reach a height, or None."""
    if accuracy <= curve[0][1]:
        return curve[0][0]
    for (left, low), (right, high) in pairwise(curve):
        if high >= accuracy:  # and low < accuracy, or it had been reached before
            return math.ceil(left + (right - left) * ((accuracy - low) / (high - low)) - _ROUNDING)
    return None


def _students(values: Sequence[float]) -> Interval:
    """Return the 95 % interval of the mean of two values or more, by Student's t."""
    mean, n = statistics.fmean(values), len(values)
    half = float(stats.t.ppf((1 + _CONFIDENCE) / 2, n - 1)) * statistics.stdev(values) / math.sqrt(n)
    return mean - half, mean + half


def _wilson_of(runs: Sequence[Row]) -> Interval:
    return _wilson(*_typical([row.right for row in runs], [row.total for row in runs]))


def _typical(right: Sequence[int], total: Sequence[int]) -> tuple[int, int]:
    """Return the counts of a run as they are on average."""
    return round(statistics.fmean(right)), round(statistics.fmean(total))


def _wilson(right: int, total: int) -> Interval:
    found = stats.binomtest(right, total).proportion_ci(_CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)
