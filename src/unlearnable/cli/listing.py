"""``unlearnable list``."""

from enum import StrEnum
from typing import Annotated

import typer

from unlearnable.cli.common import Json


class Kind(StrEnum):
    """What can be listed."""

    protections = "protections"
    models = "models"


def list_names(kind: Annotated[Kind, typer.Argument(help="What to list.")], json: Json = False) -> None:
    """List the names that other commands take."""
    names = _names(kind)
    if json:
        from json import dumps

        print(dumps({"names": names}))
    else:
        typer.echo("\n".join(names))


def _names(kind: Kind) -> list[str]:
    if kind is Kind.protections:
        from unlearnable.protections import protections

        return protections.available()
    from unlearnable.models import models

    return models.available()
