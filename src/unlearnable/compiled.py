"""One way to compile a loop over pixels: with numba, cached on disk, free of the interpreter lock."""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function, *, reorder: bool = False) -> Function:
    """Compile a loop at its first call.

    ``reorder`` lets the compiler reorder and fuse floating-point operations. That makes loops fast, and is for
    those alone whose every intermediate result is exact (or whose result decides no byte of a picture): the
    bytes written have to be the same on every machine.
    """
    try:
        made = numba.njit(function, cache=True, nogil=True, fastmath=reorder, error_model="numpy")
    except RuntimeError:  # neither the package's folder nor the user's cache can be written to
        made = numba.njit(function, nogil=True, fastmath=reorder, error_model="numpy")
    return cast("Function", made)
