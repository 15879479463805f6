"""How what a panel of attacks found is told."""

from typing import TYPE_CHECKING

import typer

from unlearnable.cli.common import print_json

if TYPE_CHECKING:
    from unlearnable.defence import PanelReport
    from unlearnable.training.withstanding import Spread


def show_panel(report: "PanelReport", *, json: bool) -> None:
    """Print a panel: a line for each way of asking, and what it comes to."""
    if json:
        print_json(report)
        return
    typer.echo(f"{report.pictures:,} pictures, {report.budget}, a network defended by {report.defence}:")
    for name, spread in {**report.accuracies, **report.baselines}.items():
        typer.echo(f"{_percent(spread)}  {name}")
    for radius, share in report.sweep.items():
        typer.echo(f"{100 * share:6.1f} %           bpda, radius {radius}")
    if report.gain is not None:
        seeming, left = (100 * gain for gain in report.gain)
        typer.echo(
            f"Over the baseline the noise seems to add {seeming:.1f} points under PGD-20; under EOT, {left:.1f}."
        )
    if report.gain_left is not None:
        typer.echo(f"EOT leaves {100 * report.gain_left:.0f} % of the gain.")
    if report.external_passes:
        typer.echo(f"An answer costs {report.external_passes} passes of the external network, forward and backward.")
    for name, cost in report.training.items():
        behind = f" and {cost.external_gradients:,} of the external network" * bool(cost.external_gradients)
        typer.echo(f"Training the {name} took {cost.gradients:,} passes{behind}, in {cost.seconds:.0f} s.")


def _percent(spread: "Spread") -> str:
    """Write a mean with its deviation, where there is one.

    >>> from unlearnable.training.withstanding import Spread
    >>> _percent(Spread(0.5, 0.01, 5)), _percent(Spread(0.5, 0.0, 1))
    ('  50.0 % ± 1.0   ', '  50.0 %         ')
    """
    deviation = f" ± {100 * spread.deviation:.1f}" if spread.draws > 1 else ""
    return f"{100 * spread.mean:6.1f} %{deviation:9}"
