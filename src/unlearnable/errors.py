"""What a user can mend: one line that says what was expected, what was found and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Bad input or usage. The command line prints the message and exits with 2."""


class NotLearnedError(InputError):
    """A surrogate does not learn, so that its noise would protect nothing."""


def expected(wanted: str, found: str, remedy: str) -> InputError:
    """Word an error the way every error of this package is worded.

    >>> expected("a key file of 32 bytes", "an empty file", "make a new one with: unlearnable keygen")
    InputError('expected a key file of 32 bytes, found an empty file: make a new one with: unlearnable keygen')
    """
    return InputError(f"expected {wanted}, found {found}: {remedy}")


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """Say what to install where an import finds that an extra of the package is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise expected(f"the {extra} extra", f"no {error.name}", f"pip install 'unlearnable[{extra}]'") from None


def no_room(place: object) -> InputError:
    """Word the error of a full disk. Everything done so far is kept."""
    return expected("room on the disk", f"none left at {place}", "free some and run the same command again")
