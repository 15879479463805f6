"""What several verbs share: options, how a secret is named, and how much is told."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import typer

from unlearnable.errors import expected
from unlearnable.errors import needing as needing

if TYPE_CHECKING:
    from unlearnable.keys import Key
    from unlearnable.protections.convolution import ReferenceSeed
    from unlearnable.protections.settings import Status

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
    typer.Option("--kernel-size", metavar="K", help="Side of all filters, odd. [default: by picture size, 3 to 9]"),
]
Blur = Annotated[
    float | None,
    typer.Option(
        "--blur", metavar="P", help="p_b, upper end of the other taps; of 3x3 filters, without K. [default: 0.3]"
    ),
]
NoiseFile = Annotated[
    Path | None, typer.Option("--noise", metavar="FILE", help="Noise of an earlier run, in place of making it.")
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="P",
        help="Noise: fast (default), paper or strong. stack: light, balanced (default), strong or strongest, with a"
        " median SSIM of 0.94, 0.92, 0.86 and 0.85 on CIFAR-10. Where clean pictures teach a network 72.6 % of 10"
        " classes, 10,000 of theirs taught at most 55.6, 50.3, 47.3 and 35.7 % (adversarial training of normalised"
        " light); 50,000 of strong 57.1 % (patterns, light and colours taken off), of strongest 40.5 %. A network makes"
        " noise for strongest, half an hour for 50,000 pictures. See docs/stack.md.",
    ),
]
Layers = Annotated[
    str | None,
    typer.Option(
        "--layers",
        metavar="L",
        help="stack: layers among cuda, echo, tone, veil, patches, autoregressive, em, rem, sem, tap and decoy,"
        " such as cuda,tone:strength=0.5,sem:steps=400, in place of a preset.",
    ),
]
MinSsim = Annotated[
    float | None,
    typer.Option("--min-ssim", metavar="Q", help="stack: weaken the layers until the median SSIM is at least Q."),
]
MinPsnr = Annotated[
    float | None, typer.Option("--min-psnr", metavar="DB", help="stack: until the median PSNR is at least DB.")
]
MaxCiede2000 = Annotated[
    float | None,
    typer.Option("--max-ciede2000", metavar="D", help="stack: until the median colour difference is at most D."),
]
Strength = Annotated[
    float | None,
    typer.Option(
        "--strength", metavar="S", help="tone: 0.01 to 1 [default: 0.5]. echo: its share, 0.01 to 0.4 [default: 0.25]."
    ),
]
Grid = Annotated[
    int | None,
    typer.Option(
        "--grid",
        metavar="G",
        help="tone: points of light a side, 2 (default) to 8. veil: 3 to 8 (default 4). patches: squares a side,"
        " 4 (default), 8 or 16.",
    ),
]
Surrogate = Annotated[
    str | None, typer.Option("--model", metavar="NAME", help="Noise: the surrogate; see: list models.")
]
Steps = Annotated[
    int | None, typer.Option("--steps", metavar="N", help="Noise: batches that the surrogate is trained on.")
]
NoiseSeed = Annotated[int | None, typer.Option("--seed", metavar="N", help="Noise: tells runs of one key apart.")]
Radius = Annotated[
    float | None,
    typer.Option(
        "--radius",
        metavar="R",
        help="Noise, patches, autoregressive, veil: grey levels of 255, at most. [default: 8; veil: 40]",
    ),
]
Per = Annotated[
    str | None, typer.Option("--per", metavar="WHAT", help="Noise: one for each picture (default) or class.")
]
Canvas = Annotated[
    int | None,
    typer.Option(
        "--size",
        metavar="PX",
        help="Noise: side of the square it is made on. [default: the pictures', up to 64; autoregressive: 32]",
    ),
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


def options(**given: Any) -> dict[str, Any]:
    """Collect the options of a method that were given.

    >>> options(kernel_size=3, blur=None)
    {'kernel_size': 3}
    """
    return {name: value for name, value in given.items() if value is not None}


def print_json(report: Any) -> None:
    """Print a report as one JSON object."""
    print(json.dumps(asdict(report)))


def _rate(done: float, seconds: float) -> str:
    """Word how fast something goes, from pictures to whole figures.

    >>> _rate(500, 2.0), _rate(2, 30.0), _rate(0, 10.0)
    ('250 a second', '15 s each', 'the first takes a while')
    """
    if not done:
        return "the first takes a while"
    return f"{done / seconds:.0f} a second" if done >= seconds else f"{seconds / done:.0f} s each"


class Tell(Protocol):
    """Told how much is done and how much there is, and what else is worth a word."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Show it."""
        ...


@contextmanager
def telling(what: str) -> Iterator[Tell]:
    """Show progress: a bar on a terminal, a line now and then elsewhere; on standard error, which is not for data.

    A bar is there from when something is done until all is, so that one can follow another.
    """
    if not sys.stderr.isatty():
        first: tuple[int, float] | None = None
        last = 0.0

        def line(done: int, total: int, note: str = "") -> None:
            nonlocal last, first
            now = time.monotonic()
            if first is None:  # what came before was setting out, or another run's work
                first, last = (done, now), now
            if now - last >= _LINE_SECONDS:
                last = now
                rate = "" if done == first[0] > 0 else _rate(done - first[0], now - first[1])
                words = ", ".join(filter(None, (rate, note)))
                typer.echo(f"{what}: {done:,} of {total:,}{f' ({words})' if words else ''}", err=True)

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(TextColumn):
        def render(self, task: Any) -> Text:
            return Text(_rate(task.speed, 1) if task.speed else "")

    words, note = TextColumn("{task.description}"), TextColumn("{task.fields[note]}")
    columns = (words, BarColumn(), MofNCompleteColumn(), Rate(""), TimeRemainingColumn(), note)
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(what, total=None, note="")

    def show(done: int, total: int, note: str = "") -> None:
        bar.start()
        bar.update(task, completed=done, total=total, note=note)
        if done == total:
            bar.stop()

    try:
        yield show
    finally:
        bar.stop()


@contextmanager
def telling_noise() -> "Iterator[Callable[[Status], None]]":
    """Show how far noise is, and after that what it cost."""
    last: Status | None = None

    def show(status: "Status") -> None:
        nonlocal last
        last = status
        tell(status.done, status.total, _noise_words(status))

    with telling("making noise") as tell:
        yield show
    if last is not None and not last.clean:
        words = f"{last.total:,} steps, {last.gradients:,} pictures forward and backward"
        typer.echo(f"made noise: {words}{'' if last.loss is None else f', loss {last.loss:.3f}'}", err=True)


def _noise_words(status: "Status") -> str:
    """Word what is known of noise in the making.

    >>> from unlearnable.protections.settings import Status
    >>> _noise_words(Status(3, 9, 1.5, 33.25, 500.0, 99)), _noise_words(Status(1, 9, None, None, 20.0, 9, clean=True))
    ('loss 1.500, PSNR 33.2 dB, 8 min left', 'surrogate, 20 s left')
    """
    left = status.seconds_left
    words = [
        "surrogate" * status.clean,
        "" if status.loss is None else f"loss {status.loss:.3f}",
        "" if status.psnr is None else f"PSNR {status.psnr:.1f} dB",
        f"{left:.0f} s left" if left < 100 else f"{left / 60:.0f} min left",
    ]
    return ", ".join(filter(None, words))
