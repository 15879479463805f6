"""Runs and networks on disk, as safetensors: where a run goes on from, and what it ends with. Nothing is unpickled."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn, optim

from unlearnable.errors import expected
from unlearnable.pictures.destination import writing
from unlearnable.training.rsr.masks import keep_pruned, settled
from unlearnable.training.rsr.noise import inject_noise, noise_free
from unlearnable.training.rsr.sparse import described, pack, unpack

_RUN: Final = "unlearnable-run-1"
_NETWORK: Final = "unlearnable-network-1"
_SPARSE: Final = "unlearnable-sparse-network-1"


class Epoch(NamedTuple):
    """One pass over the pictures: its number, from 1; mean loss; share named rightly in training; seconds it took.

    outlier, boundary, robust: what share of the pictures an accelerated recipe sorted where; None with any other.
    held_out: the share of held-out pictures named rightly after it (:mod:`unlearnable.training.holdout`); None where
    nothing was held out.
    """

    number: int
    loss: float
    accuracy: float
    seconds: float
    outlier: float | None = None
    boundary: float | None = None
    robust: float | None = None
    held_out: float | None = None


class Split(NamedTuple):
    """How many pictures of one step an accelerated recipe sorted where (:mod:`unlearnable.training.bullettrain`)."""

    outlier: int
    boundary: int
    robust: int


@dataclass
class Snapshot:
    """A run between two steps.

    step: steps done. totals: loss and right answers summed over the epoch so far; seconds: that it took. history: the
    epochs before it. gradients: see :class:`unlearnable.training.meter.GradientMeter`. splits: of every step, with an
    accelerated recipe.
    """

    step: int
    totals: Tensor
    seconds: float = 0.0
    history: list[Epoch] = field(default_factory=list)
    gradients: int = 0
    splits: list[Split] = field(default_factory=list)


def save_run(
    path: Path, about: Mapping[str, Any], snapshot: Snapshot, parts: Mapping[str, nn.Module], optimizer: optim.Optimizer
) -> None:
    """Write where a run stands; ``about``: all that decides it, in JSON's values. The old file stays until then."""
    tensors = {
        f"{part}.{name}": tensor for part, module in parts.items() for name, tensor in module.state_dict().items()
    }
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in state.items()}
    tensors["totals"] = snapshot.totals
    rest = {name: value for name, value in vars(snapshot).items() if name != "totals"}
    _write(path, tensors, {"format": _RUN, "about": json.dumps(about), "rest": json.dumps(rest)})


def load_run(
    path: Path, about: Mapping[str, Any], parts: Mapping[str, nn.Module], optimizer: optim.Optimizer
) -> Snapshot:
    """Put modules and optimizer back to where a run stood.

    Raises InputError where the file holds no run, or one of other options or another network, and says which.
    """
    tensors, metadata = _read(path, (_RUN,), "a run that was interrupted", "name another file, or remove it")
    was = json.loads(metadata["about"])
    now = json.loads(json.dumps(about))
    if now != was:
        name, mine, other = _difference(now, was)
        remedy = "start it with the same options, name another file, or remove this one"
        raise expected(f"a run started with {name} {mine}", f"{other} in {path}", remedy)
    for part, module in parts.items():
        mine = {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}
        _restore(module, mine, path)
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".", 2)
            state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    rest = json.loads(metadata["rest"])
    history = [Epoch(*epoch) for epoch in rest.pop("history")]
    splits = [Split(*split) for split in rest.pop("splits", ())]
    return Snapshot(totals=tensors["totals"], history=history, splits=splits, **rest)


def _difference(now: Mapping[str, Any], was: Mapping[str, Any]) -> tuple[str, Any, Any]:
    """Return the first value, of nested ones, that two descriptions give otherwise: its name, and both.

    >>> _difference({"seed": 0, "attack": {"kind": "PGD", "steps": 9}}, {"seed": 0, "attack": {"kind": "PGD"}})
    ('attack steps', 9, None)
    """
    others = (name for name in now.keys() | was.keys() if now.get(name) != was.get(name))
    name = min(others, key=lambda name: (name != "kind", name))
    mine, other = now.get(name), was.get(name)
    if isinstance(mine, Mapping) and isinstance(other, Mapping):
        within, mine, other = _difference(mine, other)
        return f"{name} {within}", mine, other
    # What the other is without has its kind told, and not all of its fields.
    mine, other = (value.get("kind", value) if isinstance(value, Mapping) else value for value in (mine, other))
    return name, mine, other


@dataclass(frozen=True, kw_only=True)
class Network:
    """What a trained network is, beside its weights: enough to build it again.

    model: a name of ``unlearnable list models``. class_names: in the order of its outputs. channels, size: of the
    pictures it was trained on. training: how, for people. noise: whether its weights have noise on them (see
    :mod:`unlearnable.training.rsr.noise`). sparsity: the share of weights cut off, 0 if it is not pruned.
    """

    model: str
    class_names: tuple[str, ...]
    channels: int
    size: int
    training: Mapping[str, Any]
    noise: bool = False
    sparsity: float = 0.0


def save_network(path: Path, network: nn.Module, about: Network, *, sparse: bool = False) -> None:
    """Write a trained network: its ``state_dict``, which plain PyTorch loads, and what it is.

    sparse: compressed, without the zeros (see :mod:`unlearnable.training.rsr.sparse`); only this package reads that.
    """
    description = json.dumps(vars(about) | {"class_names": list(about.class_names)})
    tensors, header = settled(network.state_dict()), {"format": _NETWORK, "network": description}
    if sparse:
        kinds = {name: described(tensor) for name, tensor in tensors.items()}
        tensors = {name: pack(tensor) for name, tensor in tensors.items()}
        header |= {"format": _SPARSE, "tensors": json.dumps(kinds)}
    _write(path, tensors, header)


def load_network(path: Path) -> tuple[nn.Module, Network]:
    """Build a network that :func:`save_network` has written, in evaluation mode on the CPU.

    Raises InputError for any other file.
    """
    tensors, metadata = _read(path, (_NETWORK, _SPARSE), "a trained network", "make one with: unlearnable train")
    if metadata["format"] == _SPARSE:
        kinds = json.loads(metadata["tensors"])
        tensors = {name: unpack(tensors[name], dtype, shape) for name, (dtype, shape) in kinds.items()}
    description = json.loads(metadata["network"])
    about = Network(**description | {"class_names": tuple(description["class_names"])})
    network = _built(about)
    if about.noise:
        inject_noise(network)
    _restore(network, tensors, path)
    if about.sparsity:
        keep_pruned(network)
    return network.eval(), about


def plain_network(network: nn.Module, about: Network) -> nn.Module:
    """Build a network with the same weights and zeros but without noise, in evaluation mode on the CPU."""
    plain = _built(about)
    plain.load_state_dict(noise_free(settled(network.state_dict())))
    return plain.eval()


def _built(about: Network) -> nn.Module:
    from unlearnable.models import build

    return build(about.model, classes=len(about.class_names), channels=about.channels, size=about.size)


def _restore(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        found = f"another in {path} ({str(error).splitlines()[-1].strip()})"
        raise expected("a checkpoint of this network", found, "name the model it was trained with") from None


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    partial = path.with_name(path.name + ".partial")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Cloned, since tensors that share memory are refused; contiguous, since the format knows no other order.
        save_file({name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}, partial, metadata)
        os.replace(partial, path)


def _read(path: Path, kinds: tuple[str, ...], wanted: str, remedy: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") not in kinds:
                raise ValueError(metadata.get("format", "of no format known here"))
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118 - no mapping
    except FileNotFoundError:
        raise expected(wanted, f"nothing at {path}", remedy) from None
    except (OSError, ValueError, SafetensorError) as error:
        raise expected(wanted, f"something else at {path} ({error})", remedy) from None
