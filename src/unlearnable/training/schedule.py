"""How the learning rate goes over a run."""

import math
from typing import Final, Literal

Schedule = Literal["one-cycle", "cosine", "step", "constant"]
"""one-cycle: up linearly over the first quarter of the steps, and down to 0 again (Smith and Topin, 2017). cosine: down
half a wave. step: a tenth after two fifths of the steps, a hundredth after four fifths (the REM and CUDA papers')."""

_WARM_UP: Final = 0.25  # share of the steps in which the rate of one cycle rises


def rate(schedule: Schedule, step: int, steps: int) -> float:
    """Return the learning rate of a step, from 0, as a share of the highest.

    >>> [round(rate("one-cycle", step, 8), 2) for step in range(8)]
    [0.5, 1.0, 0.86, 0.71, 0.57, 0.43, 0.29, 0.14]
    >>> [round(rate("step", step, 5), 3) for step in range(5)]
    [1.0, 1.0, 0.1, 0.1, 0.01]
    """
    match schedule:
        case "one-cycle":
            rising = math.ceil(_WARM_UP * steps)
            return (step + 1) / rising if step < rising else (steps - step) / (steps - rising + 1)
        case "cosine":
            return (1 + math.cos(math.pi * step / steps)) / 2
        case "step":
            return 0.1 ** ((5 * step >= 2 * steps) + (5 * step >= 4 * steps))
        case "constant":
            return 1.0
