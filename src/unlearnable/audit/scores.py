"""Runs that differ in their seed alone, taken together: what the report, its tables and its figures show."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unlearnable.audit.store import CLEAN, SUBSET, Row
from unlearnable.audit.verdict import Interval, Verdict, Way, clean_rows, interval, learnability, word


@dataclass(frozen=True, kw_only=True)
class Score:
    """What one way to learn from one set reached.

    protection, fraction: of the set, as in the rows.
    rows: one a seed, by seed.
    accuracy: share of the test pictures named rightly, 0 to 1: the mean over the seeds.
    interval: 95 % (see :func:`unlearnable.audit.verdict.interval`).
    learned: the learnability; None beside what a verdict is on, and where clean pictures teach nothing either.
    strength: what it would be called as a verdict; None likewise.
    """

    protection: str
    fraction: float
    way: Way
    rows: tuple[Row, ...]
    accuracy: float
    interval: Interval
    learned: float | None = None
    strength: str | None = None

    @property
    def first(self) -> Row:
        """The first seed's row, for what all of them share."""
        return self.rows[0]

    @property
    def method(self) -> str:
        """How the interval was found."""
        return "Wilson" if len(self.rows) == 1 else "Wilson and Student's t"

    def confusion(self) -> NDArray[np.float64]:
        """Return the shares of each true class (row) by answer (column), over all seeds."""
        counts = np.sum([row.confusion for row in self.rows], axis=0)
        shares: NDArray[np.float64] = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        return shares


class ClassLine(NamedTuple):
    """What is learned of one class: accuracy and 95 % interval by the set's number; None is the clean one."""

    name: str
    values: list[tuple[int | None, float, Interval]]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """An audit's rows, taken together.

    scores: the clean ones first, then set by set, whole sets before part ones; each group from the best accuracy down.
    verdicts: one a protected set. sets: their names, in the same order; charts know a set by its number there.
    clean: plain training on the clean pictures, which everything is measured against.
    """

    rows: tuple[Row, ...]
    scores: tuple[Score, ...]
    verdicts: tuple[Verdict, ...]
    clean: Score

    @property
    def sets(self) -> tuple[str, ...]:
        return tuple(verdict.protection for verdict in self.verdicts)

    @property
    def several_models(self) -> bool:
        return len({one.way.model for one in self.scores}) > 1

    def of(self, protection: str, fraction: float | None = None) -> list[Score]:
        """List the scores of one set, from the best accuracy down."""
        return [one for one in self.scores if one.protection == protection and fraction in (None, one.fraction)]

    def worst(self, verdict: Verdict) -> Score:
        """Find the score that a verdict goes by."""
        return next(one for one in self.of(verdict.protection, verdict.fraction) if one.way == verdict.strongest)

    def worst_of_each(self) -> list[tuple[int | None, Score]]:
        """List the clean score, and of each set the one that its verdict goes by."""
        return [(None, self.clean), *((number, self.worst(one)) for number, one in enumerate(self.verdicts))]

    def ways(self) -> dict[Way, list[tuple[int | None, Score]]]:
        """List by way what the clean set, None, and whole protected ones reach; the worst for the owner first."""
        found: dict[Way, list[tuple[int | None, Score]]] = {}
        for one in self.of(CLEAN):
            found.setdefault(one.way, []).append((None, one))
        for number, verdict in enumerate(self.verdicts):
            for one in self.of(verdict.protection, verdict.fraction):
                found.setdefault(one.way, []).append((number, one))

        def reached(way: Way) -> tuple[float, float]:
            protected = [one.accuracy for number, one in found[way] if number is not None]
            return max(protected, default=-1.0), found[way][0][1].accuracy

        return {way: found[way] for way in sorted(found, key=reached, reverse=True)}

    def partly(self) -> dict[Way, tuple[list[tuple[int, list[Score]]], list[Score]]]:
        """List by way the scores of partly protected sets, by number, and of their clean parts alone.

        Each list goes from the clean set, where the way was tried on it, to the highest fraction.
        """
        found = {}
        for way in dict.fromkeys(one.way for one in self.scores if 0 < one.fraction < 1):
            whole, *sets = [
                sorted((one for one in self.of(name) if one.way == way), key=lambda one: one.fraction)
                for name in (CLEAN, *self.sets)
            ]
            alone = sorted((one for one in self.of(SUBSET) if one.way == way), key=lambda one: one.fraction)
            mixed = [(n, whole + scores) for n, scores in enumerate(sets) if any(one.fraction < 1 for one in scores)]
            found[way] = mixed, whole + alone if alone else []
        return found

    def by_class(self, names: Sequence[str]) -> list[ClassLine]:
        """List what is learned of each class, from the one that a protected set teaches best down."""
        lines = []
        for place, name in enumerate(names):
            values = []
            for number, one in self.worst_of_each():
                right = [row.confusion[place][place] for row in one.rows]
                total = [sum(row.confusion[place]) for row in one.rows]
                values.append(
                    (number, statistics.fmean(row.per_class[place] for row in one.rows), interval(right, total))
                )
            lines.append(ClassLine(name, values))
        return sorted(lines, key=lambda line: max(share for number, share, _ in line.values[1:]), reverse=True)


def summarise(rows: Sequence[Row], verdicts: Sequence[Verdict]) -> Summary:
    """Take rows together that differ in their seed alone.

    verdicts: one at least; rows of sets without one are left out.

    Raises InputError where plain training on the clean pictures is missing.
    """
    by_name = {verdict.protection: verdict for verdict in verdicts}
    order = [CLEAN, *by_name, SUBSET]
    known = sorted((row for row in rows if row.protection in order), key=lambda row: row.seed)
    groups: dict[tuple[str, float, Way], list[Row]] = {}
    for row in known:
        way = Way(row.countermeasure, row.recipe, row.model)
        groups.setdefault((row.protection, row.fraction, way), []).append(row)
    scores = [
        _score(protection, fraction, way, group, by_name.get(protection))
        for (protection, fraction, way), group in groups.items()
    ]
    scores.sort(key=lambda one: (order.index(one.protection), -one.fraction, -one.accuracy, one.way))
    reference = clean_rows(rows)[0]
    clean = next(one for one in scores if reference in one.rows)
    return Summary(rows=tuple(known), scores=tuple(scores), verdicts=tuple(verdicts), clean=clean)


def _score(protection: str, fraction: float, way: Way, rows: list[Row], verdict: Verdict | None) -> Score:
    accuracy = statistics.fmean(row.accuracy for row in rows)
    learned = None
    if verdict is not None and verdict.fraction == fraction and verdict.learnability is not None:
        learned = learnability(accuracy, verdict.clean_accuracy, verdict.chance)
    return Score(
        protection=protection,
        fraction=fraction,
        way=way,
        rows=tuple(rows),
        accuracy=accuracy,
        interval=interval([row.right for row in rows], [row.total for row in rows]),
        learned=learned,
        strength=None if learned is None else word(learned),
    )
