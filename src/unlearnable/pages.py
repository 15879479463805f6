"""Pages: one file of HTML each, that needs nothing else and looks the same everywhere; the audit's and training's."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from unlearnable.pictures import destination
from unlearnable.shares import between, percent

_POINTS: Final = 120  # of a curve, at most


def template(name: str, filters: Mapping[str, Callable[..., Any]]) -> Template:
    """Load a page's template, with filters of its own beside those that all pages have; values are escaped."""
    loader = PackageLoader("unlearnable")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    shared: dict[str, Callable[..., Any]] = {"pct": _unbroken(percent), "between": _unbroken(between), "at": _at}
    environment.filters |= shared | dict(filters)
    return environment.get_template(name)


def publish(text: str, path: Path) -> None:
    """Write a text so that the file is whole or not there. Raises InputError where it cannot be written."""
    with destination.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    destination.publish(text.encode(), path.with_name(f".{path.name}.partial"), path)


def curve(values: Sequence[float]) -> str:
    """Return the points of an SVG polyline, 0 to 100 across and downwards, for values from 0 to 1 at even distances.

    >>> curve([0.0, 0.5, 1.0])
    '0.0,100.0 50.0,50.0 100.0,0.0'
    """
    chosen = np.linspace(0, len(values) - 1, min(len(values), _POINTS)).round().astype(int).tolist()
    last = max(len(values) - 1, 1)
    points = [(100 * place / last, 100 - 100 * values[place]) for place in chosen]
    if len(points) == 1:
        points.append((100.0, points[0][1]))
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _unbroken(write: Callable[[Any], str]) -> Callable[[Any], str]:
    """Have numbers stay on one line, with a minus sign that is one."""
    return lambda value: write(value).replace(" ", "\u00a0").replace("-", "\u2212")


def _at(value: float, top: float = 1.0) -> str:
    """Place a value on an axis from 0, as SVG takes it; what lies beyond is drawn at the end.

    >>> _at(0.25, 0.8), _at(-0.1)
    ('31.25%', '0%')
    """
    return f"{round(100 * min(max(value / top, 0), 1), 2):g}%"
