"""``unlearnable verify``."""

from pathlib import Path
from typing import Annotated

import typer

from unlearnable.cli.common import Json, KeyFile, ManifestFile, Seed, print_json, secret, telling

_SHOWN = 20


def verify(
    destination: Annotated[Path, typer.Argument(metavar="DST", help="The published pictures.")],
    manifest: ManifestFile = None,
    key: KeyFile = None,
    reference_seed: Seed = None,
    json: Json = False,
) -> None:
    """Compare published pictures with the manifest.

    Exits with 1 if they differ, or if the key is another one.
    """
    from unlearnable.pipeline import verify

    secrets = None if key is None and reference_seed is None else secret(key, reference_seed)
    with telling("verifying") as progress:
        report = verify(destination, manifest=manifest, key=secrets, progress=progress)
    if json:
        print_json(report)
    else:
        for what, ids in (("changed", report.changed), ("missing", report.missing), ("extra", report.extra)):
            for id_ in ids[:_SHOWN]:
                typer.echo(f"{what}: {id_!r}")
            if len(ids) > _SHOWN:
                typer.echo(f"{what}: {len(ids) - _SHOWN} more")
        if report.unfinished:
            typer.echo(f"{report.unfinished} pictures are not protected yet: run the same protect command again")
        if report.failed:
            typer.echo(f"{report.failed} pictures could not be protected and were not published; see protect")
        if report.key is False:
            typer.echo("the key is not the one that these pictures were protected with")
        typer.echo("All as published." if report.ok else "NOT as published.")
    raise typer.Exit(0 if report.ok else 1)
