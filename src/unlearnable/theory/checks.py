"""What the theory's functions ask of the arrays they are given."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unlearnable.errors import expected

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


def numbers(values: ArrayLike, dimensions: int, name: str) -> NDArray[np.float64]:
    """Return an array of finite float64 with this many dimensions. Raises InputError for anything else."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise expected(f"{name} made of numbers", repr(values)[:60], "give an array of numbers") from None
    if array.ndim != dimensions or not array.size:
        shape = ("a number", "a vector", "a matrix")[dimensions]
        raise expected(f"{name} as {shape}", f"shape {array.shape}", "reshape it")
    if not np.isfinite(array).all():
        raise expected(f"{name} made of finite numbers", "NaN or infinity", "leave those out")
    return array


def mean_vector(mu: ArrayLike) -> Vector:
    """Return a mean of shape (d,). Raises InputError if it is zero: the classes are then one and the same."""
    mean = numbers(mu, 1, "the mean mu")
    if not mean.any():
        raise expected("a mean mu that is not zero", "zero", "with mu = 0 there is nothing to tell the classes apart")
    return mean


def radius(epsilon: float) -> float:
    """Return an adversary's radius. Raises InputError unless it is a finite number from 0 on."""
    if not (math.isfinite(epsilon) and epsilon >= 0):
        raise expected("a radius epsilon >= 0", str(epsilon), "use 0 for no adversary")
    return float(epsilon)


def count(value: int, least: int, name: str) -> int:
    """Return a whole number. Raises InputError below ``least``."""
    if value < least:
        raise expected(f"{name} of at least {least}", str(value), "raise it")
    return value
