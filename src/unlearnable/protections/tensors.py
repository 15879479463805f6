"""The files that perturbations are kept in: safetensors, written for their owner alone to read."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from unlearnable.errors import expected
from unlearnable.pictures.destination import writing

_CHUNK: Final = 1 << 24  # bytes that are copied at a time
_KINDS: Final = {"int8": "I8", "uint8": "U8", "int64": "I64", "float32": "F32", "float64": "F64"}  # of safetensors


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], about: Mapping[str, str]) -> None:
    """Write arrays of the types in ``_KINDS``, piece by piece; about: its metadata, with the ``format`` among them."""
    header: dict[str, Any] = {"__metadata__": about}
    end = 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": _KINDS[tensor.dtype.name],
            "shape": tensor.shape,
            "data_offsets": [end, end + tensor.nbytes],
        }
        end += tensor.nbytes
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    partial = path.with_name(path.name + ".partial")
    with writing(path):
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(len(encoded).to_bytes(8, "little") + encoded)
            for tensor in tensors.values():
                file.writelines(pieces(tensor))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)


@contextmanager
def reading_tensors(path: str | Path, form: str, what: str, remedy: str) -> Iterator[tuple[Any, dict[str, str]]]:
    """Open a file of :func:`write_tensors`, and yield what safetensors opens of it, for NumPy, and its metadata.

    form: the ``format`` it has to be of. what, remedy: for the InputError that is raised for any other file, for one
    that cannot be read, and for whatever the caller runs into that comes of wrong contents.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            about = file.metadata() or {}
            if about.get("format") != form:
                raise KeyError(form)
            yield file, about
    except (OSError, AttributeError, LookupError, TypeError, ValueError, SafetensorError) as error:
        raise expected(f"{what} written by this package", f"{path} ({error})", remedy) from None


def pieces(tensor: NDArray[Any]) -> Iterator[bytes]:
    """Cut an array along its first axis into pieces of at most 16 MiB of bytes, or of one entry, if that is more."""
    step = max(1, _CHUNK // max(1, tensor[:1].nbytes))
    for start in range(0, len(tensor), step):
        yield np.ascontiguousarray(tensor[start : start + step]).tobytes()
