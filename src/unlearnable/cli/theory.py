"""``unlearnable theory``: the figures and numbers of a model."""

import json as json_format
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from unlearnable.cli.common import Json, needing, telling
from unlearnable.errors import expected


class Model(StrEnum):
    """What there is a theory of."""

    cuda = "cuda"
    latent = "latent"


def theory(
    model: Annotated[Model, typer.Argument(help="cuda: Gaussian mixtures under CUDA; latent: latent models.")],
    out: Annotated[Path, typer.Option(help="Folder for the figures, their numbers, and the page that explains them.")],
    mnist: Annotated[
        Path | None, typer.Option("--mnist", metavar="SRC", help="latent: MNIST as pictures, for a figure more.")
    ] = None,
    json: Json = False,
) -> None:
    """Draw what is known in theory.

    Figures, their numbers and a page that explains them, in one to three minutes; two more for MNIST.
    """
    with needing("theory"):
        from unlearnable.theory.figures import report
    if out.exists() and not out.is_dir():
        raise expected("a folder", f"a file at {out}", "name another with --out")
    with telling("drawing") as progress:
        written = report(model.value, out, mnist=mnist, progress=progress)
    if json:
        found = {"page": str(written.page), "figures": written.figures, "seconds": round(written.seconds, 1)}
        typer.echo(json_format.dumps(found))
    else:
        typer.echo(f"{len(written.figures)} figures in {written.seconds:.0f} s: open {written.page}")
