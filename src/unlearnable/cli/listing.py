"""``unlearnable list``."""

from enum import StrEnum
from importlib import import_module
from typing import Annotated

import typer

from unlearnable.cli.common import Json
from unlearnable.registry import Registry


class Kind(StrEnum):
    """What can be listed: each the name of a registry."""

    protections = "protections"
    countermeasures = "countermeasures"
    attacks = "attacks"
    models = "models"
    recipes = "recipes"


_MODULES = {Kind.recipes: "unlearnable.training.recipes"}
"""Where a registry lies, if not in the package of its name."""


def list_names(kind: Annotated[Kind, typer.Argument(help="What to list.")], json: Json = False) -> None:
    """List the names that other commands take."""
    names = _names(kind)
    if json:
        from json import dumps

        print(dumps({"names": names}))
    else:
        typer.echo("\n".join(names))


def _names(kind: Kind) -> list[str]:
    registry: Registry[object] = getattr(import_module(_MODULES.get(kind, f"unlearnable.{kind}")), kind)
    return registry.available()
