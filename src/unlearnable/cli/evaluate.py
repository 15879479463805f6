"""``unlearnable evaluate``."""

from pathlib import Path
from typing import Annotated

import typer

from unlearnable.cli.common import Device, Json, Limit, Precision, TrainingSeed, needing, print_json, telling


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint, from: train.")],
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Pictures to test with, a subfolder a class.")],
    attack: Annotated[
        list[str] | None, typer.Option("--attack", metavar="NAME", help="fgsm, pgd20, autoattack ...; repeatable.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", metavar="B", help="Of the attacks. [default: linf:8/255]")
    ] = None,
    certify: Annotated[
        float | None,
        typer.Option("--certify", metavar="SIGMA", help="Certify in L2 by randomized smoothing with this noise."),
    ] = None,
    samples: Annotated[
        int, typer.Option("--samples", metavar="N", help="Noisy copies of each picture to certify it by.")
    ] = 10_000,
    limit: Limit = None,
    seed: TrainingSeed = 0,
    device: Device = None,
    precision: Precision = "auto",
    json: Json = False,
) -> None:
    """Test a trained network, as it is and under attack."""
    with needing("train"):
        from unlearnable.budgets import parse
        from unlearnable.trainer import evaluate

    with telling("attacking") as progress:
        report = evaluate(
            checkpoint,
            source,
            attacks=attack or [],
            budget=None if budget is None else parse(budget),
            certify_sigma=certify,
            certify_samples=samples,
            limit=limit,
            seed=seed,
            device=device,
            precision=precision,
            progress=progress,
        )
    if json:
        print_json(report)
        return
    low, high = report.interval
    typer.echo(
        f"{100 * report.clean:6.1f} %  of {report.pictures:,} pictures"
        f" (95 % interval {100 * low:.1f} to {100 * high:.1f})"
    )
    for name, share in report.attacks.items():
        typer.echo(f"{100 * share:6.1f} %  under {name}, {report.budget}")
    if len(report.attacks) > 1:
        typer.echo(f"{100 * report.worst:6.1f} %  under the worst of them, picture by picture")
    for radius, share in report.certified.items():
        typer.echo(f"{100 * share:6.1f} %  certainly, within L2 {radius}")
