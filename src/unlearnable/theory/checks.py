"""What the theory's functions ask of the numbers they are given."""

import operator
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unlearnable.errors import expected

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


_LARGEST: Final = 1e100  # its square, and the sum of many such squares, are float64
_SMALLEST: Final = 1e-100


def array(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return an array of float64, none NaN or beyond 1e100. Raises InputError for anything else."""
    try:
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise expected(f"{name} made of numbers", repr(values)[:60], "give an array of numbers") from None
    if np.isnan(found).any():
        raise expected(f"{name} made of finite numbers", "NaN", "leave those out")
    if np.abs(found).max(initial=0) > _LARGEST:
        found_size = f"{np.abs(found).max():g}"
        raise expected(f"{name} made of finite numbers, at most {_LARGEST:g} in size", found_size, "rescale it")
    return found


def numbers(values: ArrayLike, dimensions: int, name: str) -> NDArray[np.float64]:
    """Return an array of finite float64 with this many dimensions. Raises InputError for anything else."""
    found = array(values, name)
    if found.ndim != dimensions or not found.size:
        shape = ("a number", "a vector", "a matrix")[dimensions]
        raise expected(f"{name} as {shape}", f"shape {found.shape}", "reshape it")
    return found


def mean_vector(mu: ArrayLike) -> Vector:
    """Return a mean of shape (d,). Raises InputError if it is zero: the classes are then one and the same."""
    mean = numbers(mu, 1, "the mean mu")
    if np.abs(mean).max() < _SMALLEST:
        size = f"{np.abs(mean).max():g}" if mean.any() else "zero"
        raise expected("a mean mu that is not zero", size, "with mu = 0 there is nothing to tell the classes apart")
    return mean


def radius(epsilon: float, name: str = "a radius epsilon") -> float:
    """Return an adversary's radius, or another size. Raises InputError unless it is a number from 0 on."""
    size = float(numbers(epsilon, 0, name))
    if size < 0:
        raise expected(f"{name} >= 0", f"{size:g}", "use 0 for none")
    return size


def count(value: int, least: int, name: str) -> int:
    """Return a whole number. Raises InputError for others, and below ``least``."""
    try:
        whole = operator.index(value)
    except TypeError:
        raise expected(f"{name} as a whole number", repr(value)[:60], "leave out the fraction") from None
    if whole < least:
        raise expected(f"{name} of at least {least}", str(whole), "raise it")
    return whole
