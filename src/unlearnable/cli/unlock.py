"""``unlearnable unlock``."""

from pathlib import Path
from typing import Annotated

import typer

from unlearnable.cli.common import Json, KeyFile, ManifestFile, Seed, Workers, print_json, secret, telling

_SHOWN = 5


def unlock(
    destination: Annotated[Path, typer.Argument(metavar="DST", help="The protected pictures.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Where the unlocked pictures go.")],
    key: KeyFile = None,
    reference_seed: Seed = None,
    manifest: ManifestFile = None,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Take the protection off again, with the key and the manifest.

    Pictures that OUT has already are left. Exits with 1 if one cannot be unlocked.
    """
    from unlearnable.pipeline import unlock

    secrets = secret(key, reference_seed)
    with telling("unlocking") as progress:
        report = unlock(destination, out, key=secrets, manifest=manifest, workers=workers, progress=progress)
    for name, reason in report.failures:
        typer.echo(f"failed: {name!r}: {reason}", err=True)
    for name in report.changed[:_SHOWN]:
        typer.echo(f"changed since it was published: {name!r}", err=True)
    if len(report.changed) > _SHOWN:
        typer.echo(f"changed since they were published: {len(report.changed) - _SHOWN:,} more", err=True)
    if not report.pictures:
        typer.echo(f"warning: {out} has pictures of all these names already; they were left as they are", err=True)
    if json:
        print_json(report)
        raise typer.Exit(1 if report.failed else 0)
    typer.echo(f"Unlocked {report.unlocked:,} of {report.pictures:,} pictures in {report.seconds:.1f} s.")
    if report.psnr is not None:
        typer.echo(f"Median PSNR against the originals {report.psnr:.1f} dB; lowest:")
        for name, psnr in sorted(report.pictures_psnr.items(), key=lambda item: item[1])[:_SHOWN]:
            typer.echo(f"  {psnr:.1f} dB  {name!r}")
    raise typer.Exit(1 if report.failed else 0)
