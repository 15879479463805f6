"""Names in commands and files, classes in code, one registry between."""

import difflib
import fnmatch
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from unlearnable.errors import expected

Thing = TypeVar("Thing")
Builder = TypeVar("Builder", bound=Callable[..., object])


class Registry(Generic[Thing]):
    """Everything of one kind, by name.

    >>> shapes: Registry[list[int]] = Registry("shape")
    >>> @shapes.register("point")
    ... def point(*, at: int = 0) -> list[int]:
    ...     return [at]
    >>> shapes.create("point", at=3), list(shapes)
    ([3], ['point'])
    >>> shapes.create("pint")
    Traceback (most recent call last):
    unlearnable.errors.InputError: expected a known shape, found 'pint': did you mean 'point'?
    """

    def __init__(self, kind: str) -> None:
        """Start empty; ``kind`` is the word for one entry, used in errors."""
        self.kind = kind
        self._builders: dict[str, Callable[..., Thing]] = {}

    def register(self, name: str) -> Callable[[Builder], Builder]:
        """Enter a class or function under a name. Raises ValueError if the name is taken."""
        if name in self._builders:
            raise ValueError(f"{self.kind} {name!r} is registered twice")

        def enter(builder: Builder) -> Builder:
            self._builders[name] = builder  # type: ignore[assignment]
            return builder

        return enter

    def builder(self, name: str) -> Callable[..., Thing]:
        """Return the class or function of a name. Raises InputError, with a suggestion, for an unknown one."""
        if name not in self._builders:
            near = difflib.get_close_matches(name, self._builders, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(self)}"
            raise expected(f"a known {self.kind}", repr(name), remedy)
        return self._builders[name]

    def create(self, name: str, **options: object) -> Thing:
        """Build the entry of a name with these options."""
        return self.builder(name)(**options)

    def available(self, pattern: str = "*") -> list[str]:
        """List the names that match a shell pattern, sorted."""
        return sorted(fnmatch.filter(self._builders, pattern))

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._builders))
