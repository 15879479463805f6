"""Options given in words: what their values are, and whether those are of the right kind."""

import contextlib
from collections.abc import Mapping
from types import UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

from unlearnable.errors import expected

_WORDS: Final = {"true": True, "false": False, "none": None}
_KINDS: Final = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "none"}


def value(text: str) -> bool | int | float | str | None:
    """Read a value: a number, true, false, none, or else a word.

    >>> value("5"), value("5e-4"), value("true"), value("none"), value("cosine")
    (5, 0.0005, True, None, 'cosine')
    """
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return _WORDS.get(text.lower(), text)


def check(options: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """Raise InputError for an option whose value is not of its kind, a type as in annotations.

    >>> check({"epochs": "nine"}, {"epochs": int | None})
    Traceback (most recent call last):
    unlearnable.errors.InputError: expected a whole number or none for epochs, found 'nine': change it, or leave it out
    """
    for name, given in options.items():
        if name in kinds and not _is(given, kinds[name]):
            raise expected(f"{_told(kinds[name])} for {name}", repr(given), "change it, or leave it out")


def _is(given: object, kind: Any) -> bool:
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return any(_is(given, one) for one in get_args(kind))
    if origin is Literal:
        return given in get_args(kind)
    if kind is float:
        kind = (int, float)
    return isinstance(given, origin or kind) and (kind is bool or not isinstance(given, bool))


def _told(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(map(_told, inner))
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    name = (origin or kind).__name__
    return _KINDS.get(kind) or f"{'an' if name[0] in 'AEIO' else 'a'} {name}"
