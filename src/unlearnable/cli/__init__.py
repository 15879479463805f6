"""The command line: one small module a verb, loaded when its verb is called."""

import sys
from typing import Annotated

import typer
from typer.exceptions import TyperException

from unlearnable import __version__
from unlearnable.cli import (
    audit,
    demo,
    evaluate,
    export,
    inspect,
    keygen,
    listing,
    preview,
    protect,
    prune,
    report,
    theory,
    train,
    unlock,
    verify,
)
from unlearnable.errors import InputError

_STOPPED = 130  # what typer makes of a Ctrl-C, too

app = typer.Typer(
    name="unlearnable",
    help="Publish pictures that people can look at and models cannot learn from.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _tell_version(asked: bool) -> None:
    if asked:
        print(f"unlearnable {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


app.command()(keygen.keygen)
app.command()(protect.protect)
app.command()(verify.verify)
app.command()(unlock.unlock)
app.command()(preview.preview)
app.command()(inspect.inspect)
app.command()(train.train)
app.command()(evaluate.evaluate)
app.command()(prune.prune)
app.command()(export.export)
app.command()(audit.audit)
app.command()(report.report)
app.command()(theory.theory)
app.command("list")(listing.list_names)
app.command()(demo.demo)


def main() -> None:
    """Run the command line: exit 0 done, 1 a check said no, 2 bad input or usage, 130 stopped by Ctrl-C."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        code = app(arguments or ["--help"], standalone_mode=False)
    except KeyboardInterrupt:
        code = _STOPPED
    except (InputError, TyperException, FloatingPointError, MemoryError, OSError) as error:
        if debug:
            raise
        _complain(_one_line(error))
        code = 2
    if code == _STOPPED:
        _complain("stopped; what is done is kept: the same command goes on from here")
    sys.exit(code)


def _one_line(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "expected memory for this work, found too little: use fewer --workers"
    if isinstance(error, OSError):
        place = "" if error.filename is None else f" at {error.filename}"
        return f"expected files that can be read and written, found: {error.strerror or error}{place}"
    words = error.format_message() if isinstance(error, TyperException) else str(error)
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(words.split("\n")))


def _complain(words: str) -> None:
    print(f"unlearnable: {words}", file=sys.stderr)
