"""A quality budget for a stack: how strong its layers may be if people are to see no more than so much of them.

All strengths are multiplied by one common share, as great as bisection finds one at which the pictures keep the quality
that is asked for.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from unlearnable.errors import InputError, expected
from unlearnable.protections.stack import Stack

_STEPS: Final = 64  # shares that are told apart
MEASUREMENTS: Final = 2 + round(math.log2(_STEPS))
"""Stacks, at most, that are measured on the way to one that meets its budget."""

_CERTAINTY: Final = 1.645  # standard deviations: one in twenty samples, of five values at least, may promise too much


@dataclass(frozen=True)
class Limit:
    """What an entry of a budget is a limit of.

    name: for people. decimals: that they read. perfect: the value of a picture that did not change.
    better: 1 where more of it is better, -1 where less is.
    """

    name: str
    decimals: int
    perfect: float
    better: Literal[1, -1] = 1

    def allows(self, value: float, bound: float) -> bool:
        """Tell whether a value is no worse than a bound."""
        return self.better * value >= self.better * bound

    def written(self, value: float) -> str:
        """Write a value so that it can be asked for: rounded to the worse.

        >>> LIMITS["min_ssim"].written(0.99996), LIMITS["max_ciede2000"].written(1.201)
        ('0.999', '1.21')
        """
        scale = 10**self.decimals
        return f"{self.better * math.floor(self.better * value * scale) / scale:.{self.decimals}f}"


LIMITS: Final[Mapping[str, Limit]] = MappingProxyType(
    {
        "min_ssim": Limit("SSIM", 3, perfect=1),
        "min_psnr": Limit("PSNR in dB", 1, perfect=math.inf),
        "max_ciede2000": Limit("CIEDE2000", 2, perfect=0, better=-1),
    }
)
"""By the option of :class:`unlearnable.protections.stack.Stack`; all are limits of medians."""


def strongest(stack: Stack, budget: Mapping[str, float], measure: Callable[[Stack], Mapping[str, float]]) -> Stack:
    """Return the stack, at the share of its strengths, found by bisection, at which the budget is met.

    budget: bounds by the names of :data:`LIMITS`. measure: gives the medians of a stack that they limit, by the same
    names. Filters and looks are drawn anew for each strength, so that quality need not fall evenly as strengths grow:
    what is returned has been measured, and meets the budget, which some greater shares may meet too.

    Raises InputError where it is not met at the least strengths either.
    """

    def unmet(found: Mapping[str, float]) -> list[str]:
        return [name for name, bound in budget.items() if not LIMITS[name].allows(found[name], bound)]

    if not unmet(measure(stack)):
        return stack
    weakest = stack.scaled(1 / _STEPS)
    if missed := unmet(best := measure(weakest)):
        raise _out_of_reach(weakest, missed[0], budget[missed[0]], best, measure)
    low, high = 1, _STEPS + 1
    while high - low > 1:
        middle = (low + high) // 2
        if unmet(measure(stack.scaled(middle / _STEPS))):
            high = middle
        else:
            low = middle
    return stack.scaled(low / _STEPS)


def _out_of_reach(
    weakest: Stack,
    missed: str,
    bound: float,
    best: Mapping[str, float],
    measure: Callable[[Stack], Mapping[str, float]],
) -> InputError:
    limit, remedy = LIMITS[missed], "ask for less"
    names = [name for name, _ in weakest.protections()]
    reached = {name: measure(weakest.without(name))[missed] for name in names} if len(names) > 1 else {}
    reached = {name: value for name, value in reached.items() if value != limit.perfect}  # else the rest does nothing
    if reached:
        name = max(reached, key=lambda name: (limit.better * reached[name], name))
        value = limit.written(reached[name])
        met = limit.allows(reached[name], bound)
        remedy += f", or leave out {name} ({value} at best)" if met else f" ({value} at best without {name})"
    found = f"{limit.written(best[missed])} at best"
    return expected(f"layers that can keep a median {limit.name} of {bound:g}", found, remedy)


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


def promised(values: Sequence[float], total: int, limit: Limit) -> float:
    """Return what the median of ``total`` values is no worse than, as :func:`median_at_least`.

    The PSNR of pictures that did not change is infinite; as in the median that is reported, they do not count there.

    >>> promised([3.0, 1.0, 2.0], 1000, LIMITS["max_ciede2000"]), promised([9.0, math.inf], 2, LIMITS["min_psnr"])
    (3.0, 9.0)
    """
    finite = [limit.better * value for value in values if math.isfinite(value)]
    if not finite:
        return limit.perfect
    return limit.better * median_at_least(finite, round(total * len(finite) / len(values)))
