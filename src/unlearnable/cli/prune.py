"""``unlearnable prune``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unlearnable.cli.common import Device, Json, Limit, Precision, TrainingSeed, needing, print_json, telling

if TYPE_CHECKING:
    from unlearnable.training.rsr.costs import LayerCost


def prune(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint, from: train.")],
    source: Annotated[Path, typer.Argument(metavar="DIR", help="The pictures it was trained on.")],
    test: Annotated[Path, typer.Option("--test", metavar="DIR", help="Pictures to test with.")],
    sparsity: Annotated[float, typer.Option("--sparsity", metavar="S", help="Share of weights to cut off, 0 to 1.")],
    out: Annotated[Path, typer.Option("--out", metavar="CKPT", help="The checkpoint to write, safetensors.")],
    epochs: Annotated[int, typer.Option("--epochs", metavar="N", help="Training afterwards.")] = 0,
    external: Annotated[
        Path | None, typer.Option("--external", metavar="CKPT", help="The network that it was trained to stand behind.")
    ] = None,
    limit: Limit = None,
    seed: TrainingSeed = 0,
    device: Device = None,
    precision: Precision = "auto",
    json: Json = False,
) -> None:
    """Cut off the smallest weights of a trained network."""
    with needing("train"):
        from unlearnable.compression import prune

    with telling("training") as progress:
        report = prune(
            checkpoint,
            source,
            test=test,
            sparsity=sparsity,
            out=out,
            epochs=epochs,
            external=external,
            limit=limit,
            seed=seed,
            device=device,
            precision=precision,
            progress=progress,
        )
    if json:
        print_json(report)
        return
    show_layers(report.layers)
    low, high = report.interval
    typer.echo(
        f"Cut off {100 * report.sparsity:.1f} % of the weights. It names {100 * report.clean_accuracy:.1f} %"
        f" of the test pictures rightly (95 % interval {100 * low:.1f} to {100 * high:.1f})."
        f" Checkpoint: {report.checkpoint}"
    )


def show_layers(layers: "list[LayerCost]") -> None:
    """Print a line for each layer, and one for all of them."""
    from unlearnable.training.rsr.costs import together

    width = max(len(layer.layer) for layer in layers)
    typer.echo(f"{'layer':{width}}  {'weights':>12}  {'zero':>7}  {'multiply-adds left':>18}")
    for layer in [*layers, together(layers)]:
        zero = f"{100 * layer.sparsity:.1f} %"
        typer.echo(f"{layer.layer:{width}}  {layer.weights:12,}  {zero:>7}  {layer.remaining:18,}")
