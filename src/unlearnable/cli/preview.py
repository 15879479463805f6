"""``unlearnable preview``."""

from pathlib import Path
from typing import Annotated

import typer

from unlearnable.cli.common import Blur, Classes, KernelSize, KeyFile, Method, Seed, options, secret


def preview(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="The pictures.")],
    out: Annotated[Path, typer.Option("--out", metavar="SHEET.png", help="The contact sheet to draw.")],
    key: KeyFile = None,
    reference_seed: Seed = None,
    method: Method = "cuda",
    classes: Classes = "folder",
    kernel_size: KernelSize = None,
    blur: Blur = None,
) -> None:
    """Draw a contact sheet.

    One picture a class: before, after and their difference.
    """
    from unlearnable.pipeline import preview

    given = options(kernel_size, blur)
    preview(source, key=secret(key, reference_seed), out=out, method=method, options=given, classes=classes)
    typer.echo(f"Wrote {out}.")
