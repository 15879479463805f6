"""Draw the theory: each figure as PDF and PNG, its numbers as CSV and JSON, one page that explains them all."""

import csv
import html
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from unlearnable.plots import COLOURS, MARKERS, STYLE, save
from unlearnable.theory import tables
from unlearnable.theory.tables import Table, Value


class Plot(NamedTuple):
    """One figure of a report: file name, what it shows, its table, how it is drawn."""

    name: str
    title: str
    text: str
    table: Callable[[], Table]
    draw: Callable[[Table], Figure]


@dataclass(frozen=True)
class Report:
    """What a report wrote: the page that explains it, the figures' names, and the seconds it took."""

    page: Path
    figures: list[str]
    seconds: float


def report(model: Literal["cuda", "latent"], out: Path) -> Report:
    """Compute, draw and explain everything about one model into a folder, made if missing."""
    start = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    plots, title = (_CUDA, "Gaussian mixtures under CUDA") if model == "cuda" else (_LATENT, "Latent models")
    sections = []
    for plot in plots:
        table = plot.table()
        _write_table(table, out / plot.name)
        with rc_context(STYLE):
            save(plot.draw(table), out / plot.name)
        sections.append(_section(plot, table))
    page = out / "index.html"
    page.write_text(_PAGE.format(title=title, body="\n".join(sections)), encoding="utf-8")
    return Report(page, [plot.name for plot in plots], time.perf_counter() - start)


def _write_table(table: Table, path: Path) -> None:
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, table.rows[0].keys())
        writer.writeheader()
        writer.writerows(table.rows)
    path.with_suffix(".json").write_text(json.dumps(asdict(table), indent=1), encoding="utf-8")


def _section(plot: Plot, table: Table) -> str:
    settings = ", ".join(f"{key} = {value}" for key, value in table.settings.items())
    return (
        f'<h2>{html.escape(plot.title)}</h2>\n<img src="{plot.name}.png" alt="{html.escape(plot.title)}">\n'
        f'<p>{html.escape(plot.text)}</p>\n<p class="settings">{html.escape(settings)} · '
        f'<a href="{plot.name}.pdf">PDF</a> <a href="{plot.name}.csv">CSV</a> <a href="{plot.name}.json">JSON</a></p>'
    )


_PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#222}}
img{{max-width:100%}} .settings{{color:#666;font-size:85%}}</style>
<h1>{title}</h1>
{body}
</html>
"""


def _line(axes: Axes, x: ArrayLike, y: ArrayLike, index: int, label: str, **style: Any) -> None:
    axes.plot(x, y, **({"color": COLOURS[index], "marker": MARKERS[index], "label": label} | style))


def _panels(count: int, *, height: float = 2.9, share: bool = True) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(7.2, height))
    return figure, list(np.atleast_1d(figure.subplots(1, count, sharey=share)))


def _ratio_axis(axes: Axes, table: Table, **where: Value) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    ratios = np.unique(table.column("ratio", **where))
    axes.set_xscale("log", base=2)
    ticks = [ratio for ratio in ratios if ratio != 1.5]
    axes.set_xticks(ticks, [f"{ratio:g}" for ratio in ticks])
    axes.minorticks_off()
    axes.set_xlabel("d / k")
    return ratios


def _draw_map(table: Table) -> Figure:
    norms = table.values("norm")
    figure = Figure(figsize=(7.2, 4.9))
    rows = figure.subplots(2, len(norms), sharex=True, sharey=True)
    for row, kind in zip(rows, ("exact", "chernoff"), strict=True):
        for axes, norm in zip(row, norms, strict=True):
            a = np.unique(table.column("a_positive", norm=norm))
            values = np.clip(table.column(kind, norm=norm).reshape(len(a), len(a)), 0.5, 1)
            shown = axes.pcolormesh(a, a, values, cmap="cividis", vmin=0.5, vmax=1, rasterized=True)
            axes.set_aspect("equal")
            axes.grid(visible=False)
            axes.set_title(f"{'exact' if kind == 'exact' else 'upper bound'}, ‖μ‖ = {norm:g}")
        row[0].set_ylabel("$a_{-1}$")
    for axes in rows[1]:
        axes.set_xlabel("$a_{+1}$")
    figure.colorbar(shown, ax=rows, label="clean accuracy", shrink=0.9)
    return figure


def _draw_three_ways(table: Table) -> Figure:
    norms = table.values("norm")
    figure, panels = _panels(len(norms))
    for axes, norm in zip(panels, norms, strict=True):
        a, drawn = table.column("a_positive", norm=norm), table.column("drawn", norm=norm)
        low, high = table.column("low", norm=norm), table.column("high", norm=norm)
        _line(axes, a, table.column("chernoff", norm=norm), 1, "Chernoff bound", marker="", linestyle="--")
        _line(axes, a, table.column("exact", norm=norm), 0, "exact", marker="")
        axes.errorbar(
            a, drawn, [drawn - low, high - drawn], fmt="o", markersize=2.5, color="black", label="drawn, 95 %", lw=0.8
        )
        axes.set_title(f"‖μ‖ = {norm:g}")
        axes.set_xlabel("$a_{+1}$")
    panels[0].set_ylabel("clean accuracy")
    panels[-1].legend(loc="lower left")
    return figure


def _draw_dimensions(table: Table) -> Figure:
    figure, (axes,) = _panels(1, height=3.2)
    for index, a in enumerate(table.values("a_positive")):
        _line(axes, table.column("d", a_positive=a), table.column("exact", a_positive=a), index, f"$a_{{+1}}$ = {a:g}")
    axes.set_xscale("log")
    axes.set_xlabel("dimension d")
    axes.set_ylabel("clean accuracy")
    axes.legend()
    return figure


def _draw_classes(table: Table) -> Figure:
    figure, (axes,) = _panels(1, height=3.2)
    for index, most in enumerate(table.values("a_max")):
        k, drawn = table.column("classes", a_max=most), table.column("drawn", a_max=most)
        error = [drawn - table.column("low", a_max=most), table.column("high", a_max=most) - drawn]
        label = f"filters up to a = {most:g}" if most else "no filters"
        axes.errorbar(k, drawn, error, color=COLOURS[index], marker=MARKERS[index], label=label, capsize=2)
    k = np.unique(table.column("classes"))
    axes.plot(k, 1 / k, color="black", linestyle=":", label="guessing")
    axes.set_xscale("log")
    axes.set_xticks(k, [f"{value:g}" for value in k])
    axes.minorticks_off()
    axes.set_xlabel("classes")
    axes.set_ylabel("clean accuracy")
    axes.legend()
    return figure


def _draw_budgets(table: Table) -> Figure:
    figure, panels = _panels(len(table.values("taps")))
    for index, (axes, taps) in enumerate(zip(panels, table.values("taps"), strict=True)):
        x, y = (table.column(name, kind="random", taps=taps) for name in ("distortion", "exact"))
        axes.plot(x, y, ".", color="#888888", markersize=4, label="random pairs")
        x, y = (table.column(name, kind="strongest", taps=taps) for name in ("distortion", "exact"))
        _line(axes, x, y, index, "strongest pair found")
        axes.set_title(f"{taps} taps")
        axes.set_xlabel("distortion ‖(A − I)μ‖ / ‖μ‖")
        axes.legend(loc="lower left")
    panels[0].set_ylabel("clean accuracy")
    return figure


def _draw_pictures(table: Table) -> Figure:
    figure, panels = _panels(2)
    for index, k in enumerate(table.values("k")):
        for axes, name in zip(panels, ("blur", "distortion"), strict=True):
            axes.errorbar(
                table.column(name, k=k),
                table.column("exact", k=k),
                2 * table.column("exact_error", k=k),
                color=COLOURS[index],
                marker=MARKERS[index],
                label=f"k = {k}",
                capsize=2,
            )
    panels[0].set_xscale("log")
    panels[0].set_xlabel("$p_b$")
    panels[1].set_xlabel("distortion ‖(A − I)μ‖ / ‖μ‖")
    panels[0].set_ylabel("clean accuracy")
    panels[0].legend()
    return figure


def _draw_mixture(table: Table) -> Figure:
    figure = Figure(figsize=(7.2, 5.2))
    grid = figure.subplots(2, 2, sharex=True, sharey=True)
    for row, p in zip(grid, table.values("p"), strict=True):
        for axes, scaling in zip(row, table.values("scaling"), strict=True):
            ratios = _ratio_axis(axes, table)
            for index, epsilon in enumerate(table.values("epsilon")):
                where = {"p": p, "scaling": scaling, "epsilon": epsilon}
                worst, least = (table.column(f"{kind}_optimal_adversarial", **where) for kind in ("standard", "robust"))
                _line(axes, ratios, worst, index, f"AR(standard), ε = {epsilon:g}")
                _line(axes, ratios, least, index, f"AR*, ε = {epsilon:g}", linestyle="--", markerfacecolor="white")
            axes.axhline(table.column("standard_optimal_standard")[0], color="black", linestyle=":", label="SR*")
            norm = "$\\ell_2$, radius ε" if p == "2" else "$\\ell_\\infty$, radius ε/√d"
            axes.set_title(f"{norm};  W entries N(0, {scaling})")
            axes.label_outer()
        row[0].set_ylabel("risk")
    grid[0, 0].legend(ncols=1, fontsize=7)
    return figure


def _draw_gaps(table: Table) -> Figure:
    figure, panels = _panels(2)
    for axes, (gap, title) in zip(panels, (("tradeoff", "AR(standard) − AR*"), ("price", "AR* − SR*")), strict=True):
        ratios = _ratio_axis(axes, table)
        for index, epsilon in enumerate(table.values("epsilon")):
            for scaling, style in zip(table.values("scaling"), ("-", "--"), strict=True):
                values = table.column(gap, p="2", scaling=scaling, epsilon=epsilon)
                face = COLOURS[index] if style == "-" else "white"
                label = f"ε = {epsilon:g}, W ~ N(0, {scaling})"
                _line(axes, ratios, values, index, label, linestyle=style, markerfacecolor=face)
        axes.set_yscale("log")
        axes.set_ylim(1e-5, 1)
        axes.set_title(title)
    panels[1].legend(fontsize=7, loc="lower left")
    panels[0].set_ylabel("gap")
    return figure


def _draw_links(table: Table) -> Figure:
    figure, (axes,) = _panels(1, height=3.4)
    ratios = _ratio_axis(axes, table)
    for index, epsilon in enumerate(table.values("epsilon")):
        _line(axes, ratios, table.column("adversarial", epsilon=epsilon), index, f"AR(standard), ε = {epsilon:g}")
        best = table.column("best_linear_adversarial", epsilon=epsilon)
        label = f"least AR of a linear rule, ε = {epsilon:g}"
        _line(axes, ratios, best, index, label, linestyle="--", markerfacecolor="white")
    axes.axhline(table.column("standard")[0], color="black", linestyle=":", label="SR*")
    axes.set_ylabel("risk")
    axes.legend()
    return figure


def _draw_nonlinear(table: Table) -> Figure:
    figure, (axes,) = _panels(1, height=3.2)
    ratios = _ratio_axis(axes, table)
    labels = {"certified": "AR, proven upper bound", "attacked": "AR, found by PGD", "standard": "SR"}
    for index, (name, label) in enumerate(labels.items()):
        axes.errorbar(
            ratios,
            table.column(name),
            2 * table.column(f"{name}_error"),
            color=COLOURS[index],
            marker=MARKERS[index],
            label=label,
            capsize=2,
        )
    axes.set_ylim(0, 1)
    axes.set_ylabel("risk of the standard-optimal rule")
    axes.legend()
    return figure


def _draw_finite(table: Table) -> Figure:
    figure, panels = _panels(2)
    for axes, n in zip(panels, table.values("n"), strict=True):
        ratios = _ratio_axis(axes, table)
        for index, training in enumerate(("standard", "adversarial")):
            _line(axes, ratios, table.column(f"{training}_ar", n=n), index, f"AR, {training} training")
            values = table.column(f"{training}_sr", n=n)
            _line(axes, ratios, values, index, f"SR, {training} training", linestyle="--", markerfacecolor="white")
        axes.plot(ratios, table.column("least_ar", n=n), color="black", linestyle=":", label="AR*")
        axes.set_title(f"n = {n} samples")
    panels[0].set_ylabel("risk")
    panels[0].legend()
    return figure


def _draw_digits(table: Table) -> Figure:
    figure, panels = _panels(2)
    for axes, rule in zip(panels, table.values("rule"), strict=True):
        for index, training in enumerate(table.values("training")):
            for kind, style in (("adversarial", "-"), ("standard", "--")):
                values = table.column(kind, rule=rule, training=training)
                face = COLOURS[index] if style == "-" else "white"
                label = f"{'AR' if kind == 'adversarial' else 'SR'}, {training} training"
                _line(axes, table.column("k", rule=rule, training=training), values, index, label, linestyle=style,
                      markerfacecolor=face)  # fmt: skip
            axes.set_xscale("log", base=2)
        ticks = [float(value) for value in table.values("k")]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xlabel(f"latent dimension k of the mixture (d = {table.settings['d']})")
        axes.set_title(f"{rule} rule")
    panels[0].set_ylabel("risk")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


_CUDA: Final = (
    Plot(
        "accuracy_map",
        "Clean accuracy over the two filters",
        "How often the best classifier of the protected data is right on clean data, for every pair of filters "
        "[a, 1, a]. On the diagonal, where both classes have one filter, little is lost; away from it the accuracy "
        "falls to one half, and never below. The lower row bounds the upper one; it says something only in the valley.",
        tables.accuracy_map,
        _draw_map,
    ),
    Plot(
        "three_ways",
        "Exact, drawn, bounded",
        "One class is left as it is. The points are shares of random draws with their 95 % intervals; they lie on the "
        "exact curve, as they should. The bound is proven for every filter, and loose until the accuracy is near 1/2.",
        tables.three_ways,
        _draw_three_ways,
    ),
    Plot(
        "dimensions",
        "The more dimensions, the weaker the filter that is enough",
        "The mean keeps its length while the dimension grows: the clean task stays as easy (accuracy 0.9999997), the "
        "protected one collapses, because each dimension adds evidence of which filter was used.",
        tables.dimensions,
        _draw_dimensions,
    ),
    Plot(
        "many_classes",
        "More than two classes",
        "Shares of random draws with 95 % intervals; the filters' a are spread evenly over the classes. Two classes "
        "fall to guessing; the more classes share the same range of filters, the further above guessing they stay.",
        tables.many_classes,
        _draw_classes,
    ),
    Plot(
        "budgets",
        "Which filters for how much distortion",
        "The pair of filters with the least clean accuracy found for a distortion (the larger of the two classes'), "
        "and random pairs. Choosing the pair matters: random ones with five taps or more protect hardly at all. "
        "More taps help a little, because the two classes can then use different ones.",
        tables.budgets,
        _draw_budgets,
    ),
    Plot(
        "pictures",
        "Pictures: which p_b and which k",
        "Two-dimensional filters with reflected borders, as pictures get them; exact for each pair of random filters, "
        "mean of the pairs with two standard errors. For a given distortion a small filter protects more: the many "
        "small taps of a large one average out, and its classes differ less. Beside the 1, taps sum to less than 1 on "
        "average: beyond, a filter is soon too close to singular to compute with.",
        tables.pictures,
        _draw_pictures,
    ),
)

_LATENT: Final = (
    Plot(
        "mixture_risks",
        "Gaussian mixture: what an adversary costs",
        "Adversarial risk of the standard-optimal rule (solid) and the least that any classifier can have (dashed), "
        "against how many more dimensions are seen than there are. Mean of 20 draws. Left, W's entries have variance "
        "1/k, and both risks fall to the standard one; right, variance 1/d, and they meet but stay high.",
        tables.mixture_risks,
        _draw_mixture,
    ),
    Plot(
        "two_gaps",
        "Two gaps, not one",
        "Left, what is lost by not training against the adversary: it closes quickly, for both scalings of W. Right, "
        "what the adversary costs even the best classifier: it closes only when W stretches the latent space, that "
        "is when its smallest singular value grows. Values under 0.00001 are not shown.",
        tables.mixture_risks,
        _draw_gaps,
    ),
    Plot(
        "finite_samples",
        "Learned from n samples",
        "Logistic regression, trained as usual and against the adversary; the risks of what was learned are exact, and "
        "averaged over 5 draws. Adversarial training pays where d/k is small; where it is large, both learn the same.",
        tables.finite_samples,
        _draw_finite,
    ),
    Plot(
        "link_risks",
        "Generalised linear model",
        "The label is drawn with a probability that depends on one direction of the latent (logistic link). Standard "
        "risk 0.1055 for any d; the adversarial risk falls towards it. Dashed: the best linear rule, an upper bound of "
        "the least risk of any classifier.",
        tables.link_risks,
        _draw_links,
    ),
    Plot(
        "nonlinear",
        "A curved surface",
        "x = phi(Wz) with phi(t) = t/4 + 3 tanh(t)/4. The adversarial risk of the standard-optimal rule lies between "
        "what gradient steps found and what no attack can exceed; bars are two standard errors over 4 draws of W.",
        tables.nonlinear,
        _draw_nonlinear,
    ),
    Plot(
        "digits",
        "Digits: mixtures of factor analysers",
        "Samples of mixtures of factor analysers, fitted to the digits 3 and 8 with k latent dimensions each, and "
        "classifiers trained on them. One draw of 600 training and 2,000 test points: differences under about 0.02 "
        "mean nothing.",
        tables.digit_risks,
        _draw_digits,
    ),
)
