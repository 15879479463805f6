"""``unlearnable export``."""

from pathlib import Path
from typing import Annotated

import typer

from unlearnable.cli.common import Json, needing, print_json
from unlearnable.cli.prune import show_layers


def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint, from: train or prune.")],
    out: Annotated[
        Path, typer.Argument(metavar="FILE", help=".safetensors: compressed, without zeros. .onnx: without noise.")
    ],
    json: Json = False,
) -> None:
    """Write a trained network in a small form, or for other programs."""
    with needing("train"):
        from unlearnable.compression import export

    with needing("onnx"):
        report = export(checkpoint, out)
    if json:
        print_json(report)
        return
    show_layers(report.layers)
    typer.echo(
        f"Wrote {report.file}: {report.bytes:,} bytes, {report.bytes / report.checkpoint_bytes:.2f} of the"
        f" {report.checkpoint_bytes:,} of {checkpoint}."
    )
