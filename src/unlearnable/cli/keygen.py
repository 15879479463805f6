"""``unlearnable keygen``."""

from pathlib import Path
from typing import Annotated

import typer


def keygen(keyfile: Annotated[Path, typer.Argument(metavar="KEYFILE", help="The file to make.")]) -> None:
    """Make a secret key.

    256 random bits in a file that only you can read.
    """
    from unlearnable.keys import Key

    Key.generate().save(keyfile)
    typer.echo(f"Wrote {keyfile}. Keep it secret and keep a copy: without it nothing can be unlocked.")
