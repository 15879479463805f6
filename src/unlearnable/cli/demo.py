"""``unlearnable demo``."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to fill.")] = Path("unlearnable-demo"),
) -> None:
    """Show it all on a small real data set.

    Protects it, verifies it and trains a network with and without the protection. Needs no data and no network.
    """
    from unlearnable.demo import demo

    demo(out)
