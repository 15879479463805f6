"""How figures are drawn, everywhere: readable in print, in black and white, and by people with any colour vision."""

from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's."""

MARKERS: Final = ("o", "s", "^", "D", "v", "P")
"""One a colour, for black and white."""

STYLE: Final[Any] = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
}
"""For ``rc_context``, while drawing and saving."""


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PDF, the same bytes for the same figure, and as PNG; ``path`` has no suffix."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out by now, and it takes a while: once is enough for both
    figure.savefig(f"{path}.pdf", metadata={"CreationDate": None})
    figure.savefig(f"{path}.png")
