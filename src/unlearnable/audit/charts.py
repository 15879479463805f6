"""What the page and the figures draw alike."""

import math
from collections.abc import Iterable

from unlearnable.audit.verdict import PROTECTED, WEAKENED, Verdict


def axis_end(shares: Iterable[float]) -> float:
    """Return where an axis of shares that starts at 0 ends: at the next fifth.

    >>> axis_end([0.1, 0.62]), axis_end([0.2]), axis_end([1.0])
    (0.8, 0.2, 1.0)
    """
    return min(1.0, max(1, math.ceil(5 * max(shares) - 1e-9)) / 5)


def zones(verdict: Verdict, end: float) -> list[tuple[str, float, float]]:
    """Return what an accuracy would be called, up to the end of the axis: words with where they start and end.

    Nothing where clean pictures teach nothing either.
    """
    if verdict.learnability is None:
        return []
    span = verdict.clean_accuracy - verdict.chance
    bounds = [0.0, verdict.chance + PROTECTED * span, verdict.chance + WEAKENED * span, end]
    return list(zip(("protected", "weakened", "not protected"), bounds[:-1], bounds[1:], strict=True))
