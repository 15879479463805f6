"""``unlearnable audit``."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unlearnable.cli.common import (
    BatchSize,
    Device,
    Epochs,
    Json,
    Limit,
    Precision,
    Size,
    TrainingSeed,
    needing,
    telling,
)
from unlearnable.shares import between, percent

if TYPE_CHECKING:
    from unlearnable.audit.api import AuditReport
    from unlearnable.audit.plan import Plan
    from unlearnable.audit.store import Row
    from unlearnable.audit.verdict import Verdict


def audit(
    clean: Annotated[Path, typer.Option("--clean", metavar="DIR", help="The clean pictures, a subfolder a class.")],
    protected: Annotated[
        list[str],
        typer.Option("--protected", metavar="[NAME=]PATH", help="A protected copy of them; again for another."),
    ],
    test: Annotated[Path, typer.Option("--test", metavar="DIR", help="Clean pictures to test with.")],
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="The audit's folder.")],
    preset: Annotated[
        str | None, typer.Option("--preset", metavar="NAME", help="quick, standard or full. [default: quick]")
    ] = None,
    grid: Annotated[
        Path | None, typer.Option("--grid", metavar="FILE", help="What to try, as YAML; see docs/audit.md.")
    ] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option("--recipe", metavar="NAME[:OPTION=VALUE,...]", help="How to train; again for another."),
    ] = None,
    countermeasure: Annotated[
        list[str] | None,
        typer.Option("--countermeasure", metavar="NAME[+NAME...]", help="What to do to pictures; again for another."),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", metavar="NAME", help="The network; again for another.")
    ] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", metavar="N", help="Runs of everything.")] = None,
    fraction: Annotated[
        list[float] | None,
        typer.Option("--fraction", metavar="F", help="Also with this share protected; again for another."),
    ] = None,
    search: Annotated[
        int, typer.Option("--search", metavar="N", help="Spend N more runs in looking for the worst composition.")
    ] = 0,
    plan: Annotated[bool, typer.Option("--plan", help="Only tell what would be run, and for how long.")] = False,
    leaked: Annotated[
        int, typer.Option("--leaked", metavar="N", help="Clean originals that a scraper has; for paired-regression.")
    ] = 0,
    weights: Annotated[
        Path | None, typer.Option("--weights", metavar="FILE", help="A network to start finetune, linear-probe from.")
    ] = None,
    external: Annotated[
        Path | None, typer.Option("--external", metavar="CKPT", help="The network of adversarial-transformation.")
    ] = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    seed: TrainingSeed = 0,
    size: Size = None,
    limit: Limit = None,
    device: Device = None,
    precision: Precision = "auto",
    json: Json = False,
) -> None:
    """Find out how well protected pictures hold.

    Networks are trained on them in every way that is asked for, and tested on clean pictures. The verdict is the
    worst case for the owner. Interrupted, the same command goes on from there; several may work on one RUN.
    """
    with needing("train"):
        from unlearnable.audit.api import Audit, plan_audit, run_audit, wanted_grid

    asked = Audit(
        clean=clean,
        protected=protected,
        test=test,
        out=out,
        preset=preset,
        grid=wanted_grid(preset, grid, recipe or (), countermeasure or ()),
        models=model or (),
        seeds=seeds,
        seed=seed,
        fractions=fraction or (),
        epochs=epochs,
        batch_size=batch_size,
        search=search,
        size=size,
        limit=limit,
        leaked=leaked,
        weights=weights,
        external=external,
        device=device,
        precision=precision,
    )
    if plan:
        _show_plan(plan_audit(asked), search=search, json=json)
        return
    with telling("auditing") as progress:
        report = run_audit(asked, command=shlex.join(["unlearnable", *sys.argv[1:]]), told=_tell, progress=progress)
    if json:
        from json import dumps

        print(dumps(report.summary()))
        return
    _show(report)


def _tell(row: "Row") -> None:
    typer.echo(f"{percent(row.accuracy)}  {_of(row)} ({row.seconds:.0f} s)", err=True)


def _of(row: "Row") -> str:
    part = "" if row.fraction in (0, 1) else f" {100 * row.fraction:g} %"
    return f"{row.protection}{part}: {row.countermeasure}, {row.recipe}, {row.model}, seed {row.seed}"


def _show_plan(plan: "Plan", *, search: int, json: bool) -> None:
    if json:
        from json import dumps

        print(dumps(plan.summary()))
        return
    for run in plan.runs:
        typer.echo(f"{'finished' if run.finished else _duration(run.seconds):>10}  {run.cell}")
    left = sum(not run.finished for run in plan.runs)
    typer.echo(f"{left} runs of {len(plan.runs)} to do: about {_duration(plan.seconds)}, one after another.")
    if search:
        typer.echo(f"The search, {search} runs on each set, comes on top.")


def _show(report: "AuditReport") -> None:
    for verdict in report.verdicts:
        typer.echo("\n".join(_said(verdict)))
    for name, needed in report.clean_needed.items():
        if needed.enough is not None:
            typer.echo(f"{name}: about {needed.enough:,} clean pictures alone give as much as all the protected ones.")
        if needed.better_without is not None:
            typer.echo(f"{name}: with {needed.better_without:,} clean ones, the protected ones are better left out.")
    for name, found in report.searches.items():
        for what, one in (("composition", found.best), ("single countermeasure", found.single)):
            attempt = f"{one.attempt.countermeasure}, {one.attempt.recipe}"
            typer.echo(f"{name}: worst {what} found: {attempt}: {percent(one.accuracy)} ({between(one.interval)})")
    typer.echo(f"{len(report.rows)} runs in {report.out}. For the report: unlearnable report {report.out}")


def _said(verdict: "Verdict") -> list[str]:
    part = "" if verdict.fraction == 1 else f", {100 * verdict.fraction:g} % of it protected"
    name = f"{verdict.protection}{part}"
    if verdict.learnability is None or verdict.interval is None:
        clean = f"{percent(verdict.clean_accuracy)} against {percent(verdict.chance)} by guessing"
        return [f"{name}: UNDECIDED. Not even the clean pictures teach anything ({clean}): train longer, or on more."]
    seeds = f"{verdict.seeds} seeds" if verdict.seeds > 1 else "one seed"
    doubt = []
    if verdict.doubt:
        low, high = verdict.doubt
        doubt = [
            f"  not certain: the interval goes from {low} to {high}; more seeds, epochs or test pictures would tell"
        ]
    return [
        f"{name}: {verdict.verdict.upper()}. Of what the clean pictures teach, a scraper learns"
        f" {percent(verdict.learnability)} (95 % interval {between(verdict.interval)}, {seeds}).",
        f"  strongest: {verdict.strongest}: {percent(verdict.accuracy)} of the test pictures named rightly;"
        f" clean pictures {percent(verdict.clean_accuracy)}, guessing {percent(verdict.chance)}",
        *doubt,
    ]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
