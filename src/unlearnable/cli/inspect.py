"""``unlearnable inspect``."""

from pathlib import Path
from typing import Annotated

import typer

from unlearnable.cli.common import Classes, Json, print_json


def inspect(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Published pictures, as protect takes and writes.")],
    clean: Annotated[
        Path | None, typer.Option("--clean", metavar="DIR", help="The clean pictures, to look at the difference.")
    ] = None,
    classes: Classes = "folder",
    size: Annotated[
        int | None,
        typer.Option("--size", metavar="N", help="Scale pictures to N pixels a side; hides the finest detail."),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", help="Look at the first N pictures, as many of each class.")
    ] = 4000,
    json: Json = False,
) -> None:
    """Tell whether pictures look protected, and how.

    Needs no key. No sign is no proof: noise that simple models cannot separate is not seen.
    """
    from unlearnable.inspection import inspect
    from unlearnable.pictures.dataset import load

    published = load(directory, classes=classes, size=size, limit=limit)
    originals = None if clean is None else load(clean, classes=classes, size=size, limit=limit)
    found = inspect(published, originals)
    if json:
        print_json(found)
        return
    typer.echo(f"Looks like: {found.looks}.")
    for reason in found.reasons:
        typer.echo(f"- {reason}")
    typer.echo(
        f"{found.pictures:,} pictures of {found.classes} classes. Held-out share named rightly by linear models:"
    )
    for what, share in (
        ("coarse pixels", found.content),
        ("fine detail", found.detail),
        ("power spectra", found.spectra),
        ("chance", found.chance),
    ):
        typer.echo(f"  {100 * share:5.1f} %  {what}")
    typer.echo(
        f"Class spectra lie {found.spectral_distance:.2f} apart ({found.spectral_ratio:.0f} times chance). Borders have"
        f" {', '.join(f'{100 * side:.0f}' for side in found.borders)} % of the brightness inside. "
        f"{100 * found.full_range:.0f} % of the pictures reach 255."
    )
