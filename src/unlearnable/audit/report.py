"""The report: everything an audit found, on one page that needs nothing else."""

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unlearnable import pages
from unlearnable.audit import tables
from unlearnable.audit.charts import axis_end, zones
from unlearnable.audit.method import dig, facts, limits, settings, untried
from unlearnable.audit.results import Results, Sample, read
from unlearnable.audit.scores import Score, Summary, summarise
from unlearnable.audit.verdict import PROTECTED, WEAKENED, CleanNeeded, Way, clean_needed
from unlearnable.pictures import sheet

_SHEET_ROWS: Final = 12  # pictures shown of each set
_NUMBERED: Final = 16  # classes up to which a confusion is a table of numbers
_SHADES: Final = 8  # of a larger one
_MISTAKES: Final = 5  # that are named
_MARKS: Final = (  # drawn around (0, 0); colour alone never tells sets apart
    "M-4.4 0a4.4 4.4 0 1 0 8.8 0a4.4 4.4 0 1 0-8.8 0z",
    "M-4-4H4V4H-4z",
    "M0-5.2L5 4H-5z",
    "M0-5.6L5.6 0 0 5.6-5.6 0z",
    "M0 5.2L5-4H-5z",
)


class Panel(NamedTuple):
    """Training curves of one way to learn, by the set's number.

    accuracies, losses: a curve a seed, as points from 0 to 100 across and downwards.
    """

    way: Way
    accuracies: list[tuple[int | None, str]]
    losses: list[tuple[int | None, str]]
    tests: list[tuple[int | None, Score]]


class Confusion(NamedTuple):
    """What is taken for what.

    shares: of each true class (row), by answer (column).
    shades: the same as SVG paths of unit squares, from faint to strong.
    mistakes: the most frequent ones: true class, answer, share.
    """

    title: str
    score: Score
    shares: list[list[float]]
    shades: list[str]
    mistakes: list[tuple[str, str, float]]


class Sheet(NamedTuple):
    """The pictures of one set: the contact sheet as a data URI, and what was measured."""

    name: str
    image: str
    pictures: int
    psnr: tuple[float, float]
    ssim: tuple[float, float]
    median_psnr: float
    median_ssim: float


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was reported, and where to; figures without their suffixes, .pdf and .png.

    missing, left_out: runs that are not in it, see :class:`unlearnable.audit.results.Results`.
    """

    summary: Summary
    html: str | None
    csv: str | None
    markdown: str | None
    figures: tuple[str, ...]
    missing: int
    left_out: int

    def plain(self) -> dict[str, Any]:
        """Return it in plain values, for JSON, with the verdicts and scores."""
        verdicts = [
            asdict(one) | {"strongest": one.strongest._asdict(), "broken_by": one.broken_by and one.broken_by._asdict()}
            for one in self.summary.verdicts
        ]
        places = {name: getattr(self, name) for name in ("html", "csv", "markdown", "figures", "missing", "left_out")}
        return places | {"verdicts": verdicts, "scores": tables.records(self.summary)}


def report(
    run: Path,
    *,
    html: Path | None = None,
    csv: Path | None = None,
    markdown: Path | None = None,
    figures: Path | None = None,
) -> Written:
    """Report what an audit found, in whatever form is asked for; without any, as a page beside it.

    run: the audit's folder. html: the page, in one file. csv, markdown: the scores as tables. figures: a folder.

    Raises InputError where there is no audit, too little of one for a verdict, or a place cannot be written.
    """
    results = read(run)
    summary = summarise(results.rows, results.verdicts)
    if not (html or csv or markdown or figures):
        html = run / "report.html"
    if html:
        pages.publish(page(results, untried=untried(summary)), html)
    if csv:
        pages.publish(tables.csv_table(summary), csv)
    if markdown:
        pages.publish(tables.markdown(summary), markdown)
    drawn = []
    if figures:
        from unlearnable.audit.figures import draw

        drawn = draw(summary, results.class_names, figures)
    return Written(
        summary=summary,
        html=None if html is None else str(html),
        csv=None if csv is None else str(csv),
        markdown=None if markdown is None else str(markdown),
        figures=tuple(map(str, drawn)),
        missing=results.missing,
        left_out=results.left_out,
    )


def page(results: Results, *, untried: Mapping[str, Sequence[str]]) -> str:
    """Write the page.

    untried: by kind, the names that this release knows beside those tried.
    """
    summary, names = summarise(results.rows, results.verdicts), results.class_names
    filters: dict[str, Callable[..., Any]] = {
        "decibels": lambda value: "∞ (unchanged)" if math.isinf(value) else f"{value:.1f}\u00a0dB",
        "pairs": pairwise,
        "by_set": lambda scores: [list(group) for _, group in groupby(scores, key=lambda one: one.protection)],
    }
    template = pages.template("audit.html", filters)
    ways, classes = summary.ways(), summary.by_class(names)
    lines = [(way, [(n, one.accuracy, one.interval) for n, one in found]) for way, found in ways.items()]
    top = axis_end(end for _, values in lines for *_, (_, end) in values)
    return template.render(
        summary=summary,
        verdicts=[(number, one, summary.worst(one)) for number, one in enumerate(summary.verdicts)],
        thresholds=(PROTECTED, WEAKENED),
        marks=_MARKS,
        lines=lines,
        top=top,
        ticks=[tick / 10 for tick in range(0, round(10 * top) + 1, 2)],
        zones=zones(summary.verdicts[0], top),
        partly=summary.partly(),
        needed=_needed(summary),
        panels=_panels(summary),
        most_loss=_most_loss(summary),
        searches=[(name, results.searches[name]) for name in summary.sets if name in results.searches],
        sheets=[] if results.sample is None else _sheets(results.sample, summary),
        class_names=names,
        class_tests=_from_to([sum(counts) for counts in summary.clean.first.confusion]),
        classes=classes,
        class_top=axis_end(end for line in classes for *_, (_, end) in line.values),
        confusions=_confusions(summary, names),
        numbered=len(names) <= _NUMBERED,
        facts=facts(summary),
        settings=settings(summary),
        commands=results.commands,
        asked=results.asked,
        missing=results.missing,
        left_out=results.left_out,
        limits=limits(summary, untried),
    )


def _needed(summary: Summary) -> list[tuple[str, CleanNeeded, int]]:
    count = dig(summary.clean.first.spec, "train", "count")
    if not isinstance(count, int):
        return []
    found = [(name, clean_needed(summary.rows, name, count)) for name in summary.sets]
    return [(name, one, count) for name, one in found if one is not None]


def _most_loss(summary: Summary) -> float:
    return max((epoch["loss"] for row in summary.rows for epoch in row.history), default=0.0)


def _panels(summary: Summary) -> list[Panel]:
    most = _most_loss(summary) or 1.0
    panels = []
    for way, found in summary.ways().items():
        runs = [(number, row.history) for number, one in found for row in one.rows if row.history]
        if runs:
            accuracies = [(number, pages.curve([epoch["accuracy"] for epoch in history])) for number, history in runs]
            losses = [(number, pages.curve([epoch["loss"] / most for epoch in history])) for number, history in runs]
            panels.append(Panel(way, accuracies, losses, found))
    return panels


def _confusions(summary: Summary, names: Sequence[str]) -> list[Confusion]:
    confusions = []
    for number, score in summary.worst_of_each():
        shares = score.confusion()
        wrong = shares * (1 - np.eye(len(names)))
        most = np.argsort(wrong, axis=None, kind="stable")[::-1][:_MISTAKES]
        pairs = zip(*np.unravel_index(most, wrong.shape), strict=True)
        mistakes = [(names[true], names[answer], float(wrong[true, answer])) for true, answer in pairs]
        title = "clean" if number is None else summary.sets[number]
        shown = [one for one in mistakes if one[2] > 0]
        confusions.append(Confusion(title, score, shares.tolist(), _shades(shares), shown))
    return confusions


def _shades(shares: NDArray[np.float64]) -> list[str]:
    """Return a path of unit squares for each shade; less than half of the faintest is left out."""
    levels = np.rint(shares * _SHADES).astype(int)
    squares = [np.argwhere(levels == level).tolist() for level in range(1, _SHADES + 1)]
    return ["".join(f"M{x} {y}h1v1h-1z" for y, x in found) for found in squares]


def _sheets(sample: Sample, summary: Summary) -> list[Sheet]:
    """Draw a contact sheet of each audited set: the first picture of each class, then the next ones."""
    labels = sample.labels.tolist()
    order = sorted(range(len(labels)), key=lambda place: (labels[:place].count(labels[place]), place))[:_SHEET_ROWS]
    sheets = []
    for number, name in enumerate(sample.names.tolist()):
        if name in summary.sets:
            psnr, ssim = sample.psnr[number], sample.ssim[number]
            rows = [
                sheet.Row(
                    str(sample.class_names[labels[place]]),
                    sample.clean[place],
                    sample.protected[number, place],
                    float(psnr[place]),
                    float(ssim[place]),
                )
                for place in sorted(order, key=lambda place: labels[place])
            ]
            sheets.append(
                Sheet(
                    name,
                    _drawn(rows, name),
                    len(labels),
                    (float(psnr.min()), float(psnr.max())),
                    (float(ssim.min()), float(ssim.max())),
                    float(sample.median_psnr[number]),
                    float(sample.median_ssim[number]),
                )
            )
    return sheets


def _drawn(rows: Sequence[sheet.Row], title: str) -> str:
    out = io.BytesIO()
    sheet.contact_sheet(rows, title=title).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def _from_to(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
