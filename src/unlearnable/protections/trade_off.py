"""The trade-off of the noise family, as a figure: how steady noise is against how well it protects."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib import rc_context
from matplotlib.figure import Figure

from unlearnable.errors import expected
from unlearnable.plots import COLOURS, MARKERS, STYLE
from unlearnable.protections.stability import Stability


class Point(NamedTuple):
    """A protected set: its name, how steady its noise is, and the clean accuracy, a share, of what learned from it."""

    name: str
    stability: Stability
    accuracy: float


def trade_off(points: Sequence[Point], *, chance: float) -> Figure:
    """Draw how far disturbing the noise raises the loss, across, against clean accuracy, upwards: low left is best.

    Each set shows twice: disturbed at random (hollow) and by an adversary (filled), joined by a line.
    chance: the accuracy, a share, of guessing.

    Raises InputError where there is nothing to draw.
    """
    if not points:
        raise expected("protected sets to compare", "none", "measure some with unlearnable.protections.stability")
    with rc_context(STYLE):
        figure = Figure(figsize=(6.2, 3.2))
        axes = figure.subplots()
        for number, (name, found, accuracy) in enumerate(points):
            colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
            height = 100 * accuracy
            axes.plot(found.rise, [height, height], color=colour, linewidth=0.8)
            axes.plot(found.rise[0], height, marker, color=colour, markerfacecolor="none")
            axes.plot(found.rise[1], height, marker, color=colour, label=name)
        axes.axhline(100 * chance, color="#777777", linewidth=0.8, linestyle=":")
        axes.set_xlabel("rise of the loss as the noise is disturbed")
        axes.set_ylabel("clean accuracy, %")
        axes.set_ylim(0, 100)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure
