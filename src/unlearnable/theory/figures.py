"""Draw the theory: each figure as PDF and PNG, its numbers as CSV and JSON, one page that explains them all."""

import csv
import html
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from threadpoolctl import threadpool_limits

from unlearnable.errors import expected
from unlearnable.plots import COLOURS, MARKERS, STYLE, save
from unlearnable.theory import tables
from unlearnable.theory.tables import Table


class Plot(NamedTuple):
    """One figure of a report: file name, what it shows, its table, how it is drawn."""

    name: str
    title: str
    text: str
    table: Callable[[], Table]
    draw: Callable[[Table], Figure]


class Topic(NamedTuple):
    """One report: its title, what its words mean, and its figures."""

    title: str
    lead: str
    plots: tuple[Plot, ...]


@dataclass(frozen=True)
class Report:
    """What a report wrote: the page that explains it, the figures' names, and the seconds it took."""

    page: Path
    figures: list[str]
    seconds: float


def report(
    model: Literal["cuda", "latent"],
    out: Path,
    *,
    mnist: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Compute, draw and explain everything about one model into a folder, made if missing.

    ``mnist`` holds digits as pictures, for one figure more about latent models. ``progress`` is told how many of how
    many figures are done. Raises InputError for digits that belong to no figure of the model.
    """
    start = time.perf_counter()
    topic = _TOPICS[model]
    plots = topic.plots
    if mnist is not None:
        if model != "latent":
            raise expected("digits for the latent models", f"digits for {model}", "leave --mnist out")
        plots = (*plots, _mnist_plot(mnist))
    out.mkdir(parents=True, exist_ok=True)
    tables_made: dict[Callable[[], Table], Table] = {}
    sections = []
    # Small matrices gain nothing from more threads, and lose minutes to them on a machine that is busy.
    with threadpool_limits(1), rc_context(STYLE):
        for done, plot in enumerate(plots):
            if progress:
                progress(done, len(plots))
            table = tables_made[plot.table] = tables_made.get(plot.table) or plot.table()
            _write_table(table, out / plot.name)
            save(plot.draw(table), out / plot.name)
            sections.append(_section(plot, table))
    page = out / "index.html"
    page.write_text(
        _PAGE.format(title=topic.title, lead=html.escape(topic.lead), body="\n".join(sections)), encoding="utf-8"
    )
    return Report(page, [plot.name for plot in plots], time.perf_counter() - start)


def _write_table(table: Table, path: Path) -> None:
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, table.rows[0].keys())
        writer.writeheader()
        writer.writerows(table.rows)
    path.with_suffix(".json").write_text(json.dumps(asdict(table), indent=1), encoding="utf-8")


def _section(plot: Plot, table: Table) -> str:
    settings = ", ".join(f"{key.replace('_', ' ')} = {value}" for key, value in table.settings.items())
    title, links = (
        html.escape(plot.title),
        " ".join(f'<a href="{plot.name}.{kind}">{kind.upper()}</a>' for kind in ("pdf", "png", "csv", "json")),
    )
    return (
        f"<section>\n<h2>{title}</h2>\n<p>{html.escape(plot.text)}</p>\n"
        f'<div class="figure"><img src="{plot.name}.png" alt="{title}"></div>\n'
        f'<p class="settings">{html.escape(settings)}</p>\n<p class="links">{links}</p>\n</section>'
    )


_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{ --page: #fff; --ink: #222; --quiet: #595959; --link: #0b57d0 }}
@media (prefers-color-scheme: dark) {{ :root {{ --page: #17181a; --ink: #e6e6e6; --quiet: #a6a6a6; --link: #8ab4f8 }} }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem;
  background: var(--page); color: var(--ink) }}
h1, h2 {{ line-height: 1.25 }}
h2 {{ margin-top: 3rem }}
a {{ color: var(--link) }}
.figure {{ overflow-x: auto; background: #fff; border-radius: 6px }}
.figure img {{ display: block; width: 100%; min-width: 34rem }}
.settings {{ color: var(--quiet); font-size: 85%; margin-bottom: 0 }}
.links {{ margin-top: .2rem }}
.links a {{ display: inline-block; padding: .4rem .8rem .4rem 0 }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{lead}</p>
{body}
</body>
</html>
"""


def _line(axes: Axes, x: ArrayLike, y: ArrayLike, index: int, label: str, **style: Any) -> None:
    axes.plot(x, y, **({"color": COLOURS[index], "marker": MARKERS[index], "label": label} | style))


def _panels(count: int, *, height: float = 2.9, share: bool = True) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(7.2, height))
    return figure, list(np.atleast_1d(figure.subplots(1, count, sharey=share)))


def _points(
    axes: Axes, x: ArrayLike, table: Table, name: str, index: int, label: str, style: str = "-", **where: Any
) -> None:
    """Draw means of draws, with bars of two standard errors; hollow where the line is not solid."""
    axes.errorbar(
        x,
        table.column(name, **where),
        2 * table.column(f"{name}_error", **where),
        color=COLOURS[index],
        marker=MARKERS[index],
        markerfacecolor=COLOURS[index] if style == "-" else "white",
        linestyle=style,
        label=label,
        capsize=2,
        elinewidth=0.8,
    )


def _ratio_axis(axes: Axes, table: Table) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    ratios = np.unique(table.column("ratio"))
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
        axes.set_xlim(0, 1.05)
        axes.set_xticks((0, 0.5, 1), ("0", "0.5", "1"))
        axes.legend(loc="lower left")
    panels[0].set_ylabel("clean accuracy")
    return figure


def _draw_pictures(table: Table) -> Figure:
    figure, panels = _panels(3, height=3.1)
    views = (
        ("blur", "middle", "tap of 1 in the middle"),
        ("distortion", "middle", "the same, by distortion"),
        ("distortion", "anywhere", "tap of 1 anywhere"),
    )
    for axes, (x, tap, title) in zip(panels, views, strict=True):
        for index, k in enumerate(table.values("k")):
            along, exact = (table.column(name, tap=tap, k=k) for name in (x, "exact"))
            look: dict[str, Any] = {"color": COLOURS[index], "marker": MARKERS[index]}
            axes.plot(along, exact, linestyle="", alpha=0.35, markeredgewidth=0, **look)
            blurs = np.unique(table.column("blur", tap=tap, k=k))
            means = [
                [float(table.column(name, tap=tap, k=k, blur=blur).mean()) for blur in blurs] for name in (x, "exact")
            ]
            axes.plot(*means, label=f"k = {k}", **look)
        axes.set_title(title)
        axes.set_xlabel("$p_b$" if x == "blur" else "distortion ‖(A − I)μ‖ / ‖μ‖")
    panels[0].set_xscale("log")
    for axes in panels[1:]:
        axes.set_xlim(0, 1)
        axes.set_xticks((0, 0.5, 1), ("0", "0.5", "1"))
    panels[0].set_ylabel("clean accuracy")
    panels[2].legend(title="side of the filter", loc="upper right")
    return figure


def _draw_mixture(table: Table) -> Figure:
    figure = Figure(figsize=(7.2, 5.6))
    grid = figure.subplots(2, 2, sharex=True, sharey=True)
    for row, p in zip(grid, table.values("p"), strict=True):
        for axes, scaling in zip(row, table.values("scaling"), strict=True):
            ratios = _ratio_axis(axes, table)
            for index, epsilon in enumerate(table.values("epsilon")):
                where: dict[str, Any] = {"p": p, "scaling": scaling, "epsilon": epsilon}
                for kind, label, style in (("standard", "AR(standard)", "-"), ("robust", "AR*", "--")):
                    name = f"{kind}_optimal_adversarial"
                    _points(axes, ratios, table, name, index, f"{label}, ε = {epsilon:g}", style, **where)
            axes.axhline(table.column("standard_optimal_standard")[0], color="black", linestyle=":", label="SR*")
            norm = "$\\ell_2$, radius ε" if p == "2" else "$\\ell_\\infty$, radius ε/√d"
            axes.set_title(f"{norm};  W entries N(0, {scaling})")
            axes.set_yscale("log")
            axes.set_yticks((0.02, 0.05, 0.1, 0.2, 0.5, 1), ("0.02", "0.05", "0.1", "0.2", "0.5", "1"))
            axes.minorticks_off()
            axes.label_outer()
        row[0].set_ylabel("risk")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _draw_gaps(table: Table) -> Figure:
    figure = Figure(figsize=(7.2, 5.6))
    grid = figure.subplots(2, 2, sharex=True, sharey=True)
    gaps = (("tradeoff", "AR(standard) − AR*"), ("price", "AR* − SR*"))
    for row, p in zip(grid, table.values("p"), strict=True):
        for axes, (gap, title) in zip(row, gaps, strict=True):
            ratios = _ratio_axis(axes, table)
            for index, epsilon in enumerate(table.values("epsilon")):
                for scaling, style in zip(table.values("scaling"), ("-", "--"), strict=True):
                    values = table.column(gap, p=p, scaling=scaling, epsilon=epsilon)
                    face = COLOURS[index] if style == "-" else "white"
                    label = f"ε = {epsilon:g}, W ~ N(0, {scaling})"
                    _line(axes, ratios, values, index, label, linestyle=style, markerfacecolor=face)
            axes.set_yscale("log")
            axes.set_ylim(1e-5, 1)
            norm = "$\\ell_2$, radius ε" if p == "2" else "$\\ell_\\infty$, radius ε/√d"
            axes.set_title(f"{title};  {norm}")
            axes.label_outer()
        row[0].set_ylabel("gap")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _draw_links(table: Table) -> Figure:
    figure, panels = _panels(2, height=3.6)
    for axes, scaling in zip(panels, table.values("scaling"), strict=True):
        ratios = _ratio_axis(axes, table)
        for index, epsilon in enumerate(table.values("epsilon")):
            where: dict[str, Any] = {"scaling": scaling, "epsilon": epsilon}
            _points(axes, ratios, table, "adversarial", index, f"AR(standard), ε = {epsilon:g}", **where)
            low, high = (table.column(f"{name}_adversarial", **where) for name in ("least", "best_linear"))
            axes.fill_between(ratios, low, high, color=COLOURS[index], alpha=0.25, linewidth=0)
            label = f"AR* at most, ε = {epsilon:g}"
            _line(axes, ratios, high, index, label, linestyle="--", markerfacecolor="white")
        axes.axhline(table.column("standard")[0], color="black", linestyle=":", label="SR*")
        axes.set_title(f"W entries N(0, {scaling})")
        axes.set_ylim(0, 1)
    panels[0].set_ylabel("risk")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _draw_nonlinear(table: Table) -> Figure:
    figure, panels = _panels(2, height=3.6)
    lines = (
        ("standard_rule_certified", "AR at most, standard-optimal rule", "--"),
        ("standard_rule_attacked", "AR found, standard-optimal rule", "-"),
        ("robust_rule_attacked", "AR found, rule made for the adversary", "-"),
        ("standard_rule_standard", "SR, standard-optimal rule", ":"),
    )
    for axes, p in zip(panels, table.values("p"), strict=True):
        ratios = _ratio_axis(axes, table)
        for index, (name, label, style) in enumerate(lines):
            if p == "2" or name != "standard_rule_certified":  # for p = inf it is what was found
                _points(axes, ratios, table, name, index, label, style, p=p)
        axes.set_ylim(0, 1)
        axes.set_title("$\\ell_2$, radius ε" if p == "2" else "$\\ell_\\infty$, radius ε/√d: exact")
    panels[0].set_ylabel("risk")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _draw_finite(table: Table) -> Figure:
    figure, panels = _panels(2, height=3.4)
    for axes, n in zip(panels, table.values("n"), strict=True):
        ratios = _ratio_axis(axes, table)
        for index, training in enumerate(("standard", "adversarial")):
            _points(axes, ratios, table, f"{training}_ar", index, f"AR, {training} training", n=n)
            _points(axes, ratios, table, f"{training}_sr", index, f"SR, {training} training", "--", n=n)
        axes.plot(ratios, table.column("least_ar", n=n), color="black", linestyle=":", label="AR*")
        axes.set_title(f"n = {n} samples")
    panels[0].set_ylabel("risk")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _draw_digits(table: Table) -> Figure:
    figure, panels = _panels(2)
    for axes, rule in zip(panels, table.values("rule"), strict=True):
        for index, training in enumerate(table.values("training")):
            where: dict[str, Any] = {"rule": rule, "training": training}
            k = table.column("k", **where)
            _points(axes, k, table, "adversarial", index, f"AR, {training} training", **where)
            _points(axes, k, table, "standard", index, f"SR, {training} training", "--", **where)
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
        "How often the best classifier of the protected data is right on clean data, for every pair of filters [a, 1, "
        "a]. On the diagonal, where both classes have one filter, little is lost; away from it the accuracy falls to "
        "one half, and never below. The lower row bounds the upper one; it says something only in the valley.",
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
        "Random filters with reflected borders, as pictures get them, scaled to sum to 1: each pair of filters is a "
        "pale point, computed exactly, and the lines join the means. The published strengths (p_b = 0.3 for k = 3, "
        "0.06 for k = 9) leave little more than guessing. For the same distortion a small filter protects more: the "
        "many small taps of a large one average out, and its classes differ less. Right, with the tap of 1 anywhere, "
        "as it is published: classes that are shifted differently are told apart at their borders, and any p_b is "
        "enough; the shift alone is most of the distortion.",
        tables.pictures,
        _draw_pictures,
    ),
)

_LATENT: Final = (
    Plot(
        "mixture_risks",
        "Gaussian mixture: what an adversary costs",
        "Adversarial risk of the standard-optimal rule (solid) and the least that any classifier can have (dashed), "
        "against how many more dimensions are seen than there are. Means of 20 draws, bars of two standard errors. "
        "Left, W's entries have variance 1/k, and both risks fall to the standard one. Right, variance 1/d: against "
        "the l_2 adversary they meet but stay high; against the ℓ∞ adversary they do not even meet.",
        tables.mixture_risks,
        _draw_mixture,
    ),
    Plot(
        "two_gaps",
        "Two gaps, not one",
        "Left, what is lost by not training against the adversary. In ℓ₂ it closes quickly, for both scalings of W; "
        "in ℓ∞ slowly, and with variance 1/d not at all. Right, what the adversary costs even the best classifier: it "
        "closes when W stretches the latent space, that is when its smallest singular value grows. Means of 20 draws; "
        "values under 0.00001 are not shown.",
        tables.mixture_risks,
        _draw_gaps,
    ),
    Plot(
        "finite_samples",
        "Learned from n samples",
        "Logistic regression, trained as usual and against the adversary; the risks of what was learned are exact, "
        "and averaged over 10 draws (bars: two standard errors). Adversarial training pays where d/k is small; where "
        "it is large, both learn the same.",
        tables.finite_samples,
        _draw_finite,
    ),
    Plot(
        "link_risks",
        "Generalised linear model",
        "The label is drawn with a probability that depends on one direction of the latent (logistic link); ℓ₂, "
        "radius ε. Solid, the standard-optimal rule, with bars of two standard errors over 5 draws. Dashed, the best "
        "linear rule, so that no more is needed; the band below it, mostly too thin to see, ends where no classifier "
        "can go. Left, the adversarial risk falls to the standard one, 0.1055 for any d; right it stays high.",
        tables.link_risks,
        _draw_links,
    ),
    Plot(
        "nonlinear",
        "A curved surface",
        "x = φ(Wz) with φ(t) = t/4 + 3 tanh(t)/4. The adversarial risk of the standard-optimal rule lies between "
        "what gradient steps found and what no attack can exceed; in ℓ∞ the two are one. The other rule has the "
        "weights that would be best against the adversary were φ straight. Bars are two standard errors over 8 draws "
        "of W, whose entries have variance 1/k.",
        tables.nonlinear,
        _draw_nonlinear,
    ),
    Plot(
        "digits",
        "Digits: mixtures of factor analysers",
        "Samples of mixtures of factor analysers, fitted to the digits 3 and 8 with k latent dimensions each, and "
        "classifiers trained on 600 of them, as usual and against an ℓ₂ adversary of radius 0.5; risks on 2,000 "
        "others. Means of 3 draws, bars of two standard errors.",
        tables.digit_risks,
        _draw_digits,
    ),
)


_TOPICS: Final = {
    "cuda": Topic(
        "Gaussian mixtures under CUDA",
        "Two classes, x ~ N(±μ, I); protection filters each class with a filter A of its own. Shown is the clean "
        "accuracy: how often the best possible classifier of the protected data is right on data that are not "
        "protected.",
        _CUDA,
    ),
    "latent": Topic(
        "Latent models",
        "Data of d dimensions that lie near a k-dimensional surface, x = φ(Wz), and an adversary who moves x by ε at "
        "most. SR is the standard risk (the share of mistakes), AR the adversarial one (the share that the adversary "
        "can turn into mistakes); a star marks the least that any classifier can have.",
        _LATENT,
    ),
}


def _mnist_plot(path: Path) -> Plot:
    """Return the digits' figure for digits read from a path. They are read here, so that a wrong path is told first."""
    images, labels = tables.mnist(path)
    return _LATENT[-1]._replace(
        name="mnist",
        title="MNIST: mixtures of factor analysers",
        text="The same for the digits that were given, averaged down to 14 x 14 pixels.",
        table=partial(tables.digit_risks, images, labels),
    )
