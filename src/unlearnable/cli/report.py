"""``unlearnable report``."""

from pathlib import Path
from typing import Annotated

import typer

from unlearnable.cli.common import Json, needing


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The audit's folder.")],
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="The page. [default: RUN/report.html]")
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="The table, for programs.")] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", metavar="FILE", help="The table, for people.")] = None,
    figures: Annotated[
        Path | None, typer.Option("--figures", metavar="DIR", help="The charts, for papers: PDF and PNG.")
    ] = None,
    json: Json = False,
) -> None:
    """Report what an audit found.

    One page that needs nothing else: verdict, charts, tables, pictures. Only what is asked for is written.
    """
    with needing("report"):
        from unlearnable.audit import report as reports

        written = reports.report(run, html=html, csv=csv, markdown=markdown, figures=figures)
    if json:
        from json import dumps

        print(dumps(written.plain()))
        return
    for place in (written.html, written.csv, written.markdown):
        if place is not None:
            typer.echo(f"Wrote {place}.")
    if written.figures:
        typer.echo(f"Drew {len(written.figures)} figures, each as PDF and PNG, in {figures}.")
    if written.missing:
        typer.echo(f"Runs of the audit that are not finished, so not in it: {written.missing}.")
    if written.left_out:
        typer.echo(f"Runs in the folder that cannot be compared with these, so not in it: {written.left_out}.")
