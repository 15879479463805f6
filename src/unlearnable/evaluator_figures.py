"""What an evaluation found, drawn: accuracy by the radius of the attacks, and by the severity of the corruptions."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from unlearnable.attacks.corruptions import SEVERITIES
from unlearnable.budgets import Budget, Linf
from unlearnable.pictures.destination import writing
from unlearnable.plots import COLOURS, MARKERS, STYLE, save
from unlearnable.training.evaluation import Accuracy

if TYPE_CHECKING:
    from unlearnable.evaluator import EvaluateReport

_WIDTH: Final = 7.2  # inches: a page of two columns
_FAINT: Final = "#777777"
_KINDS: Final = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}


def draw(report: "EvaluateReport", budget: Budget, folder: Path) -> list[Path]:
    """Draw what there are numbers for, into a folder made if missing; returns the files without their suffixes."""
    with writing(folder), rc_context(STYLE):
        folder.mkdir(parents=True, exist_ok=True)
        figures = {}
        if report.by_radius:
            figures["accuracy-by-radius"] = by_radius(report, budget)
        if report.corruptions:
            figures["accuracy-by-severity"] = by_severity(report)
        for name, figure in figures.items():
            save(figure, folder / name)
    return [folder / name for name in figures]


def by_radius(report: "EvaluateReport", budget: Budget) -> Figure:
    """Draw the accuracy under each attack by its radius, with 95 % intervals (Wilson)."""
    figure = Figure(figsize=(0.62 * _WIDTH, 3.0))
    axes = figure.subplots()
    scale, unit = (255.0, "grey levels of 255") if isinstance(budget, Linf) else (1.0, "on the 0 to 1 scale")
    for number, (name, points) in enumerate(report.by_radius.items()):
        alone = len(points) == 2  # AutoAttack, at the budget alone
        shown = points[1:] if alone else points
        shares = np.array([share for _, share in shown])
        spread = np.transpose([_interval(share, report.pictures) for share in shares])
        away = np.abs(spread - shares)
        axes.errorbar(
            [scale * radius for radius, _ in shown],
            100 * shares,
            100 * away,
            label=name,
            elinewidth=0.9,
            linestyle="none" if alone else "-",
            **_mark(number),
        )
    axes.axvline(scale * budget.radius, color=_FAINT, linewidth=0.8, linestyle=":")
    axes.set_ylim(0, 100)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"{type(budget).__name__} radius ({unit})")
    axes.set_ylabel("accuracy (%)")
    axes.legend(title=f"{report.pictures:,} pictures; dotted: {budget}", title_fontsize=8, alignment="left")
    return figure


def by_severity(report: "EvaluateReport") -> Figure:
    """Draw the accuracy on corrupted pictures by severity, 0 the clean ones, and in each panel the mean of all."""
    figure = Figure(figsize=(_WIDTH, 4.6))
    panels = figure.subplots(2, 2, sharex=True, sharey=True).ravel()
    severities = (0, *SEVERITIES)
    # Files may hold other pictures than the folder: then there is no clean accuracy to begin at.
    start = [report.clean] if report.corruption_files is None else []
    places = severities[len(severities) - len(SEVERITIES) - len(start) :]
    mean = start + np.mean(list(report.corruptions.values()), 0).tolist()
    for axes, (kind, names) in zip(panels, _KINDS.items(), strict=True):
        axes.plot(places, 100 * np.array(mean), color=_FAINT, linestyle="--", linewidth=1.2, label="mean of all 15")
        for number, name in enumerate(names):
            shares = start + report.corruptions[name]
            axes.plot(places, 100 * np.array(shares), label=name.replace("_", " "), **_mark(number))
        axes.set_title(kind)
        axes.set_ylim(0, 100)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))  # beside the curves, which may lie anywhere
    for axes in panels[2:]:
        axes.set_xlabel("severity" + (" (0: clean)" if start else ""))
    for axes in panels[::2]:
        axes.set_ylabel("accuracy (%)")
    return figure


def _interval(share: float, total: int) -> tuple[float, float]:
    return Accuracy(round(share * total), total).interval()


def _mark(number: int) -> Any:
    # Not clipped, and above the axes: accuracies of 0 and radii of 0 lie on the border.
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "clip_on": False,
        "zorder": 3,
    }
