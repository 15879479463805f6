"""What several verbs share: options, how a secret is named, and how much is told."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from unlearnable.errors import expected

if TYPE_CHECKING:
    from unlearnable.keys import Key
    from unlearnable.protections.convolution import ReferenceSeed

_LINE_SECONDS = 10.0  # between two lines of progress where there is no terminal

KeyFile = Annotated[Path | None, typer.Option("--key", metavar="KEYFILE", help="The secret key, from: keygen.")]
Seed = Annotated[
    int | None,
    typer.Option("--reference-seed", metavar="N", help="In place of a key: the published code's filters of this seed."),
]
ManifestFile = Annotated[
    Path | None, typer.Option("--manifest", metavar="FILE", help="The manifest. [default: DST.manifest]")
]
Workers = Annotated[int | None, typer.Option("--workers", metavar="N", help="Worker processes. [default: one a core]")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Method = Annotated[str, typer.Option("--method", metavar="NAME", help="The protection; see: list protections.")]
Classes = Annotated[
    str,
    typer.Option(
        "--classes", metavar="HOW", help="folder: a subfolder a class. single: all one class. Or a CSV of path,label."
    ),
]
KernelSize = Annotated[
    int | None,
    typer.Option("--kernel-size", metavar="K", help="Side of the filters, odd. [default: by picture size, 3 to 9]"),
]
Blur = Annotated[
    float | None,
    typer.Option("--blur", metavar="P", help="p_b, upper end of the other taps. [default: 0.3 at K=3, 0.06 at K=9]"),
]
Model = Annotated[str, typer.Option("--model", metavar="NAME", help="See: list models; or timm/NAME.")]
Epochs = Annotated[int | None, typer.Option("--epochs", metavar="N", help="Passes over the pictures.")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", metavar="N", help="Pictures a step.")]
TrainingSeed = Annotated[int, typer.Option("--seed", metavar="N", help="Of everything random.")]
Size = Annotated[int | None, typer.Option("--size", metavar="PX", help="Bring pictures to squares of this side.")]
Limit = Annotated[
    int | None, typer.Option("--limit", metavar="N", help="Take N pictures of each folder, of each class in turn.")
]
Device = Annotated[str | None, typer.Option("--device", metavar="D", help="cpu, cuda ... [default: a GPU if any]")]
Precision = Annotated[Literal["auto", "float32", "bfloat16"], typer.Option("--precision", help="Of the arithmetic.")]


def secret(key: Path | None, seed: int | None) -> "Key | ReferenceSeed":
    """Load whichever was given. Raises InputError unless it is exactly one."""
    from unlearnable.keys import Key
    from unlearnable.protections.convolution import ReferenceSeed

    if (key is None) == (seed is None):
        found = "neither" if key is None else "both"
        raise expected("either --key or --reference-seed", found, "make a key with: unlearnable keygen KEYFILE")
    if key is not None:
        return Key.load(key)
    assert seed is not None  # noqa: S101 - for the type checker
    typer.echo("warning: filters from a 32-bit seed can be found by trying; for comparison, not protection", err=True)
    return ReferenceSeed(seed)


def options(kernel_size: int | None, blur: float | None) -> dict[str, Any]:
    """Collect the options of a method that were given."""
    given = {"kernel_size": kernel_size, "blur": blur}
    return {name: value for name, value in given.items() if value is not None}


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """Say what to install where an import finds that an extra of the package is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise expected(f"the {extra} extra", f"no {error.name}", f"pip install 'unlearnable[{extra}]'") from None


def print_json(report: Any) -> None:
    """Print a report as one JSON object."""
    print(json.dumps(asdict(report)))


def _rate(done: int, seconds: float) -> str:
    """Word how fast something goes, from pictures to whole figures.

    >>> _rate(500, 2.0), _rate(2, 30.0), _rate(0, 10.0)
    ('250 a second', '15 s each', 'the first takes a while')
    """
    if not done:
        return "the first takes a while"
    return f"{done / seconds:.0f} a second" if done >= seconds else f"{seconds / done:.0f} s each"


@contextmanager
def telling(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show progress: a bar on a terminal, a line now and then elsewhere; on standard error, which is not for data."""
    if not sys.stderr.isatty():
        last = started = time.monotonic()

        def line(done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _LINE_SECONDS:
                last = now
                typer.echo(f"{what}: {done:,} of {total:,} ({_rate(done, now - started)})", err=True)

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(TextColumn):
        def render(self, task: Any) -> Text:
            return Text(_rate(round(task.completed), task.elapsed) if task.completed and task.elapsed else "")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(""), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
