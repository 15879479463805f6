"""A quality budget for a stack: how strong its layers may be if people are to see no more than so much of them.

All strengths are multiplied by one common share, the greatest at which the pictures keep the SSIM that is asked for.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final

from unlearnable.errors import InputError, expected
from unlearnable.protections.stack import Stack

_STEPS: Final = 64  # shares that are told apart
MEASUREMENTS: Final = 2 + round(math.log2(_STEPS))
"""Stacks, at most, that are measured on the way to one that meets its budget."""

_CERTAINTY: Final = 1.645  # standard deviations: one in twenty samples, of five values at least, may promise too much


def strongest(stack: Stack, least: float, measure: Callable[[Stack], float]) -> Stack:
    """Return the stack, at the greatest share of its strengths (found by bisection) at which the budget is met.

    measure: gives the SSIM of a stack. Filters and looks are drawn anew for each strength, so that it need not fall
    evenly as strengths grow; what is returned has been measured, and meets the budget.

    Raises InputError where it is not met at the least strengths either.
    """
    if measure(stack) >= least:
        return stack
    weakest = stack.scaled(1 / _STEPS)
    if (best := measure(weakest)) < least:
        raise _out_of_reach(weakest, least, best, measure)
    low, high = 1, _STEPS + 1
    while high - low > 1:
        middle = (low + high) // 2
        if measure(stack.scaled(middle / _STEPS)) >= least:
            low = middle
        else:
            high = middle
    return stack.scaled(low / _STEPS)


def _out_of_reach(weakest: Stack, least: float, best: float, measure: Callable[[Stack], float]) -> InputError:
    remedy = "ask for less"
    names = [name for name, _ in weakest.protections()]
    if len(names) > 1:
        reached, name = max((measure(weakest.without(name)), name) for name in names)
        remedy += f", or leave out {name} ({_digits(reached)} at best)"
    return expected(f"layers that can keep a median SSIM of {least:g}", f"{_digits(best)} at best", remedy)


def _digits(ssim: float) -> str:
    """Write an SSIM so that it can be asked for: rounded down.

    >>> _digits(0.99996)
    '0.999'
    """
    return f"{math.floor(1000 * ssim) / 1000:.3f}"


def median_at_least(values: Sequence[float], total: int) -> float:
    """Return what the median of ``total`` values is at least, going by a sample of them, drawn without replacement.

    A lower confidence bound (95 %) from the order of the values alone, whatever their distribution, in the normal
    approximation: half of the sample, less 1.645 standard deviations of how many of it lie below the median, are taken
    to lie there. Fewer than five values are too few for it: it is the least of them, which lies above the median of
    many once in two samples of one value, once in four of two, in eight of three, in sixteen of four. Of all values it
    is the median itself, of an even number the lower of the two in the middle.

    >>> median_at_least([0.9, 0.7, 0.8], 3), median_at_least([0.9, 0.7, 0.8], 1000)
    (0.8, 0.7)
    """
    count = len(values)
    spread = math.sqrt(count * (total - count) / max(total - 1, 1)) / 2
    return sorted(values)[max(1, math.floor((count + 1) / 2 - _CERTAINTY * spread)) - 1]
