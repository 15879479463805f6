"""The report's charts as figures for papers: PDF and PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator

from unlearnable.audit.charts import axis_end, zones
from unlearnable.audit.scores import Score, Summary
from unlearnable.audit.store import CLEAN, SUBSET
from unlearnable.audit.verdict import Way
from unlearnable.pictures.destination import writing
from unlearnable.plots import COLOURS, MARKERS, STYLE, save

_WIDTH = 7.2  # inches: a page of two columns
_CLEAN, _FAINT = "#777777", "#555555"
_SHADES = (0.0, 0.045, 0.09)  # of protected, weakened, not protected
_LETTERS = 100  # in a legend's line
_ACROSS = 4  # panels of training curves side by side
_GREYS = 20  # that a reader tells apart, and few enough to be drawn as vectors
_NAMED = 20  # classes up to which a confusion's axes name them


def draw(summary: Summary, class_names: Sequence[str], folder: Path) -> list[Path]:
    """Draw what the rows have numbers for, into a folder made if missing; returns the files without their suffixes."""
    with writing(folder), rc_context(STYLE):
        folder.mkdir(parents=True, exist_ok=True)
        figures = {
            "accuracies": accuracies(summary),
            "partial": partial(summary),
            "training": training(summary),
            "classes": classes(summary, class_names),
            "confusion": confusion(summary, class_names),
        }
        for name, figure in figures.items():
            if figure is not None:
                save(figure, folder / name)
    return [folder / name for name, figure in figures.items() if figure is not None]


def accuracies(summary: Summary) -> Figure:
    """Draw what each way to train reaches on each whole set, the worst for the owner on top."""
    ways = summary.ways()
    pitch = 0.2 if len(summary.sets) == 1 else 0.12 * (len(summary.sets) + 1)
    figure = Figure(figsize=(_WIDTH, 1.0 + pitch * len(ways)))
    axes = figure.subplots()
    for number, name in [(None, CLEAN), *enumerate(summary.sets)]:
        found = [(place, one) for place, scores in enumerate(ways.values()) for n, one in scores if n == number]
        shift = 0 if number is None else (number - (len(summary.sets) - 1) / 2) * 0.7 / len(summary.sets)
        _dots(axes, [one for _, one in found], [place + shift for place, _ in found], number, name)
    _references(axes, summary, axis_end(one.interval[1] for found in ways.values() for _, one in found), shaded=True)
    axes.set_yticks(range(len(ways)), [_named(way, summary) for way in ways])
    axes.set_ylim(len(ways) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("test accuracy (%)")
    _legend(figure, summary)
    return figure


def partial(summary: Summary) -> Figure | None:
    """Draw accuracy by the protected share of the pictures, beside the clean rest alone; None without such runs."""
    ways = list(dict.fromkeys(one.way for one in summary.scores if 0 < one.fraction < 1))
    if not ways:
        return None
    across = min(len(ways), 3)
    down = -(-len(ways) // across)
    figure = Figure(figsize=(_WIDTH, 0.6 + 2.4 * down))
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, way in zip(panels, ways, strict=False):
        start = [one for one in summary.of(CLEAN) if one.way == way]
        for number, name in [(None, SUBSET), *enumerate(summary.sets)]:
            found = [one for one in summary.of(name) if one.way == way]
            if any(one.fraction < 1 for one in found):
                _curve(axes, start + found[::-1], number, "clean rest alone" if number is None else name)
        axes.axhline(100 * summary.clean.first.chance, color=_FAINT, linewidth=0.8, linestyle=":")
        axes.set_title(_named(way, summary))
        axes.set_ylim(0, 100)
        axes.set_xticks([0, 20, 40, 60, 80, 100])
        axes.set_xlabel("protected (%)")
    for axes in panels[len(ways) :]:
        axes.remove()
    panels[0].set_ylabel("test accuracy (%)")
    panels[0].legend(loc="lower left")
    return figure


def training(summary: Summary) -> Figure | None:
    """Draw training accuracy and loss by epoch, a column a way to train, a line a seed; None without histories."""
    ways = {
        way: scores
        for way, scores in summary.ways().items()
        if any(row.history for _, one in scores for row in one.rows)
    }
    if not ways:
        return None
    across = min(len(ways), _ACROSS)
    down = -(-len(ways) // across)
    figure = Figure(figsize=(_WIDTH, 0.5 + 2.1 * down))
    panels = figure.subplots(2 * down, across, squeeze=False, sharex=True, sharey=False, height_ratios=[2, 1] * down)
    most = max(epoch["loss"] for row in summary.rows for epoch in row.history)
    for place, (way, scores) in enumerate(ways.items()):
        line, column = divmod(place, across)
        upper, lower = panels[2 * line][column], panels[2 * line + 1][column]
        for number, one in scores:
            for row in one.rows:
                epochs = [epoch["epoch"] for epoch in row.history]
                style: Any = {"color": _colour(number), "linewidth": 0.9}
                upper.plot(epochs, [100 * epoch["accuracy"] for epoch in row.history], **style)
                lower.plot(epochs, [epoch["loss"] for epoch in row.history], **style)
            upper.plot(len(one.first.history), 100 * one.accuracy, **_mark(number), clip_on=False, linestyle="none")
        upper.set_title(_named(way, summary), fontsize=7.5)
        upper.set_ylim(0, 100)
        lower.set_ylim(0, most)
        if column:
            upper.set_yticklabels([])
            lower.set_yticklabels([])
        else:
            upper.set_ylabel("accuracy (%)")
            lower.set_ylabel("loss")
        if line == down - 1:
            lower.set_xlabel("epoch")
            lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    for place in range(len(ways), across * down):
        line, column = divmod(place, across)
        panels[2 * line][column].remove()
        panels[2 * line + 1][column].remove()
    for number, name in [(None, CLEAN), *enumerate(summary.sets)]:
        panels[0][0].plot([], [], label=_plain(name), **_mark(number))
    _legend(figure, summary)
    return figure


def classes(summary: Summary, names: Sequence[str]) -> Figure:
    """Draw the accuracy by class, clean and in the worst case for the owner, from the best learned class down."""
    lines = summary.by_class(names)
    figure = Figure(figsize=(_WIDTH, 0.9 + 0.17 * len(lines)))
    axes = figure.subplots()
    for number, name in [(None, CLEAN), *enumerate(summary.sets)]:
        found = [
            (place, share, ends) for place, one in enumerate(lines) for n, share, ends in one.values if n == number
        ]
        shift = 0 if number is None else (number - (len(summary.sets) - 1) / 2) * 0.6 / len(summary.sets)
        for place, share, ends in found:
            _whisker(axes, share, ends, place + shift, number, name if place == found[0][0] else None)
    _references(axes, summary, axis_end(ends[1] for line in lines for *_, ends in line.values), shaded=False)
    axes.set_yticks(range(len(lines)), [_plain(one.name) for one in lines])
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("test accuracy (%)")
    _legend(figure, summary)
    return figure


def confusion(summary: Summary, names: Sequence[str]) -> Figure:
    """Draw the answers by true class, clean and in the worst case for the owner."""
    chosen = [(CLEAN, summary.clean), *((one.protection, summary.worst(one)) for one in summary.verdicts)]
    across = min(len(chosen), 3)
    down = -(-len(chosen) // across)
    figure = Figure(figsize=(_WIDTH, (3.8 if across < 3 else 3.2) * down))
    panels = figure.subplots(down, across, squeeze=False).ravel()
    greys = colormaps["Greys"].resampled(_GREYS)
    for axes, (name, one) in zip(panels, chosen, strict=False):
        shown = axes.pcolormesh(100 * one.confusion(), cmap=greys, vmin=0, vmax=100, rasterized=len(names) > 50)
        axes.set_title(f"{_plain(name)}\n{_named(one.way, summary)}", fontsize=7.5)
        axes.set_aspect("equal")
        axes.invert_yaxis()
        axes.grid(visible=False)
        if len(names) <= _NAMED:
            middles = np.arange(len(names)) + 0.5
            axes.set_xticks(middles, [_plain(n) for n in names], rotation=90, fontsize=7)
            axes.set_yticks(middles, [_plain(n) for n in names], fontsize=7)
        axes.set_xlabel("answer")
    panels[0].set_ylabel("true class")
    for axes in panels[len(chosen) :]:
        axes.remove()
    figure.colorbar(shown, ax=list(panels[: len(chosen)]), label="% of the true class", shrink=0.6)
    return figure


def _references(axes: Axes, summary: Summary, end: float, *, shaded: bool) -> None:
    """Mark chance and the clean accuracy on an axis up to ``end``, and what an accuracy would be called."""
    verdict = summary.verdicts[0]
    axes.set_xlim(0, 100 * end)
    axes.xaxis.set_major_locator(MultipleLocator(20 if end > 0.4 else 10 if end > 0.2 else 5))
    top = axes.secondary_xaxis("top")
    top.set_xticks([100 * verdict.chance, 100 * verdict.clean_accuracy], ["guessing", "clean"])
    top.tick_params(length=0, labelsize=7.5, labelcolor=_FAINT, pad=12 if shaded else 1)
    top.spines["top"].set_visible(False)
    if verdict.clean_accuracy - verdict.chance < 0.15 * end:
        guessing, clean = top.get_xticklabels()
        guessing.set_horizontalalignment("right")
        clean.set_horizontalalignment("left")
    for share in (verdict.chance, verdict.clean_accuracy):
        axes.axvline(100 * share, color=_FAINT, linewidth=0.8, linestyle=":")
    for shade, (word, low, high) in zip(_SHADES, zones(verdict, end) if shaded else (), strict=False):
        axes.axvspan(100 * low, 100 * high, color="black", alpha=shade, linewidth=0)
        if high - low > 0.14 * end:
            style: Any = {"ha": "center", "fontsize": 7.5, "color": _FAINT, "style": "italic"}
            place: Any = {"xycoords": ("data", "axes fraction"), "xytext": (0, 3), "textcoords": "offset points"}
            axes.annotate(word, (50 * (low + high), 1), **place, **style)


def _legend(figure: Figure, summary: Summary) -> None:
    longest = max(map(len, (CLEAN, *summary.sets)))
    figure.legend(loc="outside upper left", ncols=max(1, _LETTERS // (longest + 8)))


def _dots(axes: Axes, scores: Sequence[Score], places: Sequence[float], number: int | None, name: str) -> None:
    for one, place in zip(scores, places, strict=True):
        _whisker(axes, one.accuracy, one.interval, place, number, name if one is scores[0] else None)


def _whisker(
    axes: Axes, share: float, ends: tuple[float, float], place: float, number: int | None, name: str | None
) -> None:
    axes.plot([100 * end for end in ends], [place, place], color=_colour(number), linewidth=0.9)
    axes.plot(100 * share, place, label=None if name is None else _plain(name), linestyle="none", **_mark(number))


def _curve(axes: Axes, scores: Sequence[Score], number: int | None, name: str) -> None:
    across, up = [100 * one.fraction for one in scores], [100 * one.accuracy for one in scores]
    spread = [[100 * abs(one.accuracy - one.interval[side]) for one in scores] for side in (0, 1)]
    style = _mark(number) | (
        {"linestyle": "--", "marker": "o", "markersize": 4, "markerfacecolor": "white"} if number is None else {}
    )
    axes.errorbar(across, up, spread, label=_plain(name), elinewidth=0.9, linewidth=1.2, **style)


def _colour(number: int | None) -> str:
    return _CLEAN if number is None else COLOURS[number % len(COLOURS)]


def _mark(number: int | None) -> Any:
    marker = "|" if number is None else MARKERS[number % len(MARKERS)]
    return {"color": _colour(number), "marker": marker, "markersize": 7 if number is None else 4}


def _named(way: Way, summary: Summary) -> str:
    words = way if summary.several_models else way[:2]
    return _plain(" · ".join(words))


def _plain(name: str) -> str:
    """Keep a name, which may hold anything, from being taken for a formula or several lines."""
    return " ".join(name.split()).replace("$", r"\$")
