"""``unlearnable demo``."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to fill.")] = Path("unlearnable-demo"),
) -> None:
    """Show it all on a small real data set: protect, verify, train with and without. No data or network needed."""
    from unlearnable.demo import demo

    demo(out)
