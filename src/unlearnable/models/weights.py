"""Weights from a file: safetensors, or PyTorch's own format read without running anything that is in it."""

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from unlearnable.errors import InputError, expected
from unlearnable.models.base import Normalised, head

_log = logging.getLogger(__name__)


def load_weights(network: nn.Module, path: Path) -> None:
    """Put a file's weights into a network.

    The file names them as the network does, or as the library's network inside it does. A last layer of other classes
    is left out, which is logged; all else has to be there, in the same shapes. Raises InputError if it is not.
    """
    found, wanted = _read(path), network.state_dict()
    if isinstance(network, Normalised) and not found.keys() & wanted.keys():
        found = {f"network.{name}": tensor for name, tensor in found.items()}
    last = _names_of(head(network), network)
    if any(name not in found or found[name].shape != wanted[name].shape for name in last):
        _log.warning("%s has no last layer for these classes: it starts anew", path)
        found, wanted = ({name: x for name, x in some.items() if name not in last} for some in (found, wanted))
    differences = [
        # The counters of batch normalisation are younger than many a file, and nothing here reads them.
        *(f"no {name}" for name in wanted if name not in found and not name.endswith("num_batches_tracked")),
        *(f"{name}, which the network lacks" for name in found if name not in wanted),
        *(
            f"{name} of shape {tuple(found[name].shape)}, not {tuple(wanted[name].shape)}"
            for name in wanted
            if name in found and found[name].shape != wanted[name].shape
        ),
    ]
    if differences:
        raise expected(
            f"the weights of this network in {path}",
            differences[0] + (f", and {len(differences) - 1} more differences" if len(differences) > 1 else ""),
            "give its own, made for pictures of this size and number of channels",
        )
    network.load_state_dict(found, strict=False)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors" or _is_safetensors(path):
            return load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise expected("a file of weights", f"none at {path}", "check the path") from None
    except Exception as error:  # what is no such file may fail anywhere in its reader
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _unreadable(path, reason) from error
    for wrapper in ("state_dict", "model"):  # around the tensors, in files from training scripts
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise _unreadable(path, "something else")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def _is_safetensors(path: Path) -> bool:
    """Tell by the content: the length of a header in eight bytes, and then the header, in JSON."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _unreadable(path: Path, found: str) -> InputError:
    return expected(f"tensors by name in {path}", found, "give a .safetensors file, or a .pth file of weights alone")


def _names_of(part: nn.Module, whole: nn.Module) -> set[str]:
    prefix = next(name for name, module in whole.named_modules() if module is part)
    return {f"{prefix}.{name}" for name in part.state_dict()}
