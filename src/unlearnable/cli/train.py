"""``unlearnable train``."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from unlearnable.cli.common import (
    BatchSize,
    Device,
    Epochs,
    Json,
    Limit,
    Model,
    Precision,
    Size,
    TrainingSeed,
    needing,
    print_json,
    telling,
)


def train(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Pictures to train on, a subfolder a class.")],
    test: Annotated[Path, typer.Option("--test", metavar="DIR", help="Pictures to test with.")],
    out: Annotated[Path, typer.Option("--out", metavar="CKPT", help="The checkpoint to write, safetensors.")],
    recipe: Annotated[str, typer.Option("--recipe", metavar="NAME", help="How; see: list recipes.")] = "erm",
    accelerate: Annotated[
        str | None,
        typer.Option("--accelerate", metavar="NAME", help="bullettrain: fewer attack steps where they teach little."),
    ] = None,
    model: Model = "resnet9-w16",
    budget: Annotated[
        str | None,
        typer.Option("--budget", metavar="B", help="Of adversarial training, such as 8/255 or l2:0.5."),
    ] = None,
    beta: Annotated[
        float | None, typer.Option("--beta", metavar="B", help="Weight of robustness in trades and mart.")
    ] = None,
    awp: Annotated[
        float | None, typer.Option("--awp", metavar="G", help="Perturb weights too, in adversarial, trades and mart.")
    ] = None,
    sigma: Annotated[
        float | None, typer.Option("--sigma", metavar="S", help="Of the noise of smoothing, on the 0 to 1 scale.")
    ] = None,
    noise: Annotated[
        bool, typer.Option("--noise", help="Train noise on the weights, of a strength for each channel.")
    ] = False,
    lasso: Annotated[
        float | None, typer.Option("--lasso", metavar="L", help="Price of the size of weights; many become zero.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", metavar="FILE", help="A network trained before, to start from.")
    ] = None,
    transform: Annotated[
        str | None,
        typer.Option("--transform", metavar="T", help="adversarial[:OPTION=VALUE,...]: train behind a transformation."),
    ] = None,
    external: Annotated[
        Path | None, typer.Option("--external", metavar="CKPT", help="The network that transforms.")
    ] = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    seed: TrainingSeed = 0,
    size: Size = None,
    limit: Limit = None,
    hold_out: Annotated[
        float | None,
        typer.Option("--hold-out", metavar="F", help="Keep the best epoch by this share of the training pictures."),
    ] = None,
    device: Device = None,
    precision: Precision = "auto",
    tensorboard: Annotated[
        Path | None, typer.Option("--tensorboard", metavar="DIR", help="Write curves there, for TensorBoard.")
    ] = None,
    report_file: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="A page of how it went: curves, cost, settings.")
    ] = None,
    json: Json = False,
) -> None:
    """Train a network.

    Interrupted, the same command goes on from there. Test pictures choose nothing: the last epoch is what is tested
    and kept, or with --hold-out the best by pictures that are not trained on.
    """
    with needing("train"):
        from unlearnable.budgets import parse
        from unlearnable.trainer import train
        from unlearnable.training.distributed import is_first

    given = {
        "epochs": epochs,
        "batch_size": batch_size,
        "beta": beta,
        "awp": awp,
        "sigma": sigma,
        "noise": noise or None,
        "lasso": lasso,
        "budget": None if budget is None else parse(budget),
    }
    if report_file is not None:
        with needing("report"):
            import jinja2  # noqa: F401 - to be missed before work is begun

    with telling("training") as progress:
        report = train(
            source,
            test=test,
            out=out,
            recipe=recipe,
            options={name: value for name, value in given.items() if value is not None},
            accelerate=accelerate,
            model=model,
            weights=weights,
            transform=transform,
            external=external,
            size=size,
            limit=limit,
            seed=seed,
            hold_out=hold_out,
            device=device,
            precision=precision,
            tensorboard=tensorboard,
            report=report_file,
            command=shlex.join(["unlearnable", *sys.argv[1:]]),
            progress=progress,
        )
    if not is_first():
        return
    if json:
        print_json(report)
        return
    low, high = report.interval
    behind = f", and {report.external_gradients:,} through the external network" * bool(report.external_gradients)
    how = f"{report.recipe} and {report.accelerate}" if report.accelerate else report.recipe
    typer.echo(
        f"Trained {report.model} with {how} for {report.epochs} epoch{'s' * (report.epochs != 1)}"
        f" in {report.seconds:.0f} s"
        f" ({report.gradients:,} pictures forward and backward{behind})."
    )
    if report.held_out is not None:
        under = f", under {report.judged_by}" if report.judged_by else ""
        typer.echo(
            f"Kept epoch {report.best_epoch}: the best by {report.held_out_pictures:,} pictures held out of training"
            f" ({100 * report.held_out:.1f} % named rightly{under})."
        )
    typer.echo(
        f"It names {100 * report.clean_accuracy:.1f} % of the test pictures rightly"
        f" (95 % interval {100 * low:.1f} to {100 * high:.1f}, one seed). Checkpoint: {report.checkpoint}"
    )
    if report.report is not None:
        typer.echo(f"How it went: {report.report}")
