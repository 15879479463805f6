"""Pickles of numbers, text and plain NumPy arrays, read without running anything that they ask for."""

import io
import math
import pickle
import pickletools
from collections.abc import Iterator
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

_TYPES: Final = frozenset(("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"))


def unpickle(content: bytes) -> Any:
    """Return what a pickle holds, arrays as :class:`Array`. Raises whatever exception for any other pickle.

    The documentation of pickle names some exceptions that it can raise, and says there are others.
    """
    _check_sizes(content)
    return _Unpickler(content).load()


def opcodes(content: bytes) -> Iterator[tuple[str, Any, int]]:
    """Go through a pickle without running it: yield the names of its opcodes, their arguments and their places."""
    for code, argument, place in pickletools.genops(content):
        yield code.name, argument, place or 0


def _check_sizes(content: bytes) -> None:
    """Raise an exception if a pickle declares more than it has: the unpickler takes memory first, then looks."""
    for number, (code, argument, _) in enumerate(opcodes(content)):
        if code in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= argument <= number:
            raise pickle.UnpicklingError(f"a memo numbered {argument}")


class _Unpickler(pickle.Unpickler):
    """Runs no code but what is written here: a pickle gets stand-ins for the few functions that it may name.

    NumPy's own would not do: a hostile state of a dtype makes it read wherever it is told to.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self._left = len(content)

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        # A pickle can set attributes of what it is given, so that it gets new functions each time.
        match module_name.replace("numpy._core", "numpy.core"), global_name:
            case "numpy.core.multiarray", "_reconstruct":
                return lambda *_: Array()
            case "numpy.core.numeric", "_frombuffer":  # since protocol 5
                return lambda data, dtype, shape, order: Array(shape, dtype, order in (b"F", "F"), data)
            case "numpy", "ndarray":
                return "ndarray"
            case "numpy", "dtype":
                return lambda code, *_: _Dtype(code)
            case "_codecs", "encode":  # how Python 3 stores bytes for Python 2
                return lambda text, _: self._encoded(text)
            case "__builtin__" | "builtins", "bytes":  # and no bytes at all
                return lambda: b""
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}")

    def _encoded(self, text: str) -> bytes:
        self._left -= len(text)
        if self._left < 0:
            raise pickle.UnpicklingError("it repeats itself")
        return text.encode("latin-1")


class _Dtype:
    """Stands for a numpy.dtype of numbers."""

    def __init__(self, code: bytes | str) -> None:
        self.code = code.decode("latin-1") if isinstance(code, bytes) else code
        if self.code not in _TYPES:
            raise pickle.UnpicklingError(f"an array of {code!r}")
        self.order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = ">" if state[1] in (b">", ">") else "<"


class Array:
    """Stands for a numpy.ndarray of numbers.

    data: its bytes, as the pickle has them; dtype: None for one that was never filled.
    """

    def __init__(self, *state: Any) -> None:
        self.data: bytes | bytearray = b""
        self.shape: tuple[int, ...] = ()
        self.dtype: np.dtype[Any] | None = None
        self.order: Literal["C", "F"] = "C"
        if state:
            self.__setstate__((None, *state))

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, by_columns, data = state
        if not (isinstance(data, bytes | bytearray) and isinstance(dtype, _Dtype) and isinstance(shape, tuple)):
            raise pickle.UnpicklingError("an array of objects")
        kind = np.dtype(dtype.order + dtype.code)
        if not all(type(side) is int and side >= 0 for side in shape) or math.prod(shape) * kind.itemsize != len(data):
            raise pickle.UnpicklingError(f"an array of shape {shape} in {len(data)} bytes")
        self.data, self.shape, self.dtype, self.order = data, shape, kind, "F" if by_columns else "C"

    def values(self) -> NDArray[Any]:
        """Return the numbers. Raises ValueError where it was never filled."""
        if self.dtype is None:
            raise ValueError("an array without content")
        return np.frombuffer(self.data, self.dtype).reshape(self.shape, order=self.order)
