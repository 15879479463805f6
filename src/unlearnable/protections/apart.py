"""Secrets for classes, drawn so that no two come close to each other, whatever order the classes are in."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from unlearnable.keys import Key, Parameter, Stream

_DRAWS: Final = 2_000  # of one that keeps its distance, before giving up

Drawn = TypeVar("Drawn")
Features = NDArray[np.float64]


class Purpose(NamedTuple):
    """What keys derive: the purpose of the order of choosing, that of the streams, and their parameters."""

    order: str
    stream: str
    parameters: dict[str, Parameter]


def draw_apart(
    class_names: Sequence[str],
    key: Key,
    purpose: Purpose,
    draw: Callable[[Stream], tuple[Drawn, Features]],
    distances: Callable[[Features, Features], Features],
    least: float,
) -> list[Drawn] | None:
    """Draw something for each class, at least ``least`` apart; None where a class finds no room in so many draws.

    Each class draws from a stream of its own, so that neither the order nor the labels of the classes matter. To
    keep apart, classes choose one after another in a secret order that the key fixes, each taking the first draw of
    its stream that keeps its distance from those chosen before. So the guarantee holds for any two classes, and what a
    class gets depends on the *set* of classes at most.

    draw: takes from a stream what a class would get, and the array that distances are measured with.
    distances: takes the arrays of those chosen before, (count, ...), and of the new one, (...); returns (count,).

    Raises ValueError where there are no classes, and for names that the key takes for one.
    """
    ranks = [key.rank(purpose.order, name) for name in class_names]
    if not ranks or len(set(ranks)) < len(ranks):
        raise ValueError(f"expected class names that differ, at least one, found {tuple(class_names)}")
    found: dict[int, Drawn] = {}
    chosen: Features = np.empty(0)
    order = sorted(range(len(ranks)), key=ranks.__getitem__)
    for place, label in enumerate(order):
        stream = key.stream(purpose.stream, class_names[label], purpose.parameters)
        for _ in range(_DRAWS):
            drawn, features = draw(stream)
            if place == 0 or distances(chosen[:place], features).min() >= least:
                break
        else:
            return None
        if place == 0:
            chosen = np.empty((len(order), *features.shape))
        found[label], chosen[place] = drawn, features
    return [found[label] for label in range(len(class_names))]


def draw_as_apart_as_possible(
    class_names: Sequence[str],
    key: Key,
    purpose: Purpose,
    draw: Callable[[Stream], tuple[Drawn, Features]],
    distances: Callable[[Features, Features], Features],
    least: float,
) -> list[Drawn]:
    """As :func:`draw_apart`; for the few keys that leave no room for so much, at 5 % less, or 5 % less than that ..."""
    while (found := draw_apart(class_names, key, purpose, draw, distances, least)) is None:
        least *= 0.95
    return found
