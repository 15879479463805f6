"""``unlearnable evaluate``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unlearnable.cli.common import Device, Json, Limit, Precision, TrainingSeed, needing, print_json, telling
from unlearnable.errors import expected

if TYPE_CHECKING:
    from unlearnable.evaluator import EvaluateReport


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint, from: train.")],
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Pictures to test with, a subfolder a class.")],
    attack: Annotated[
        list[str] | None,
        typer.Option(
            "--attack", metavar="NAME", help="fgsm, pgd20, pgd100x5 (5 restarts), autoattack ...; repeatable."
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", metavar="B", help="Of the attacks. [default: linf:8/255]")
    ] = None,
    corruptions: Annotated[
        bool, typer.Option("--corruptions", help="Test on the pictures corrupted in 15 ways, as CIFAR-10-C is.")
    ] = False,
    corruption_files: Annotated[
        Path | None,
        typer.Option("--corruption-files", metavar="DIR", help="Test on CIFAR-10-C or CIFAR-100-C as released."),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option("--figures", metavar="DIR", help="Draw accuracy by radius and by severity; four more radii."),
    ] = None,
    panel: Annotated[
        bool, typer.Option("--panel", help="All attacks that a network with noise or a transformation calls for.")
    ] = False,
    external: Annotated[
        Path | None, typer.Option("--external", metavar="CKPT", help="The network that it was trained to stand behind.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", metavar="CKPT", help="A network to compare with, in the panel.")
    ] = None,
    queries: Annotated[
        int, typer.Option("--queries", metavar="N", help="Answers to each picture for the panel's blind attacks.")
    ] = 5000,
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
    """Test a trained network: clean, attacked, on corruptions."""
    _check(
        panel=panel,
        apart={
            "--attack": attack,
            "--corruptions": corruptions,
            "--corruption-files": corruption_files,
            "--figures": figures,
            "--certify": certify,
        },
        within={"--external": external, "--baseline": baseline},
    )
    if panel:
        from unlearnable.cli.panel import show_panel

        with needing("train"):
            from unlearnable.budgets import parse
            from unlearnable.defence import panel as asked

        with telling("attacking") as progress:
            found = asked(
                checkpoint,
                source,
                budget=None if budget is None else parse(budget),
                external=external,
                baseline=baseline,
                queries=queries,
                limit=limit,
                seed=seed,
                device=device,
                precision=precision,
                progress=progress,
            )
        show_panel(found, json=json)
        return
    with needing("train"):
        from unlearnable.budgets import parse
        from unlearnable.evaluator import evaluate

    if figures is not None:
        with needing("report"):
            import matplotlib  # noqa: F401 - to be missed before work is begun

    with telling("testing") as progress:
        report = evaluate(
            checkpoint,
            source,
            attacks=attack or [],
            budget=None if budget is None else parse(budget),
            corruptions=corruptions,
            corruption_files=corruption_files,
            figures=figures,
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
    if report.mean_corruption_error is not None:
        _tell_corruptions(report)
    if report.figures:
        typer.echo(f"Drew {len(report.figures)} figures, each as PDF and PNG, in {figures}.")


def _check(*, panel: bool, apart: dict[str, object], within: dict[str, object]) -> None:
    """Raise InputError for an option that does nothing beside the panel, or without it."""
    for name, value in (apart if panel else within).items():
        if value:
            wanted, found = ("no --panel", "both") if panel else ("--panel", "none")
            raise expected(f"{wanted} with {name}", found, f"leave {'one' if panel else name} out")


def _tell_corruptions(report: "EvaluateReport") -> None:
    """Print the table of corruptions, a column a severity, and what it comes to."""
    made = report.corruption_files is None
    typer.echo(f"\n{report.corrupted_pictures:,} corrupted pictures" + (", made here:" if made else ", as released:"))
    typer.echo(f"{'severity':<38}     1     2     3     4     5  mean")
    for name, shares in report.corruptions.items():
        columns = "".join(f"{100 * share:6.1f}" for share in (*shares, sum(shares) / len(shares)))
        typer.echo(f"{name:<38}{columns}")
    typer.echo(f"{100 * (report.mean_corruption_error or 0):6.1f} %  mean corruption error")
