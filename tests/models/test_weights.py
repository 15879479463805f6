"""Networks that start from a file."""

import logging
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unlearnable import InputError
from unlearnable.models import build, head

pytestmark = pytest.mark.usefixtures("one_thread")

NAME = "timm/test_resnet"  # one of the library's small test networks


def inner(network: nn.Module) -> dict[str, Tensor]:
    """The weights as the library names them."""
    return {name.removeprefix("network."): tensor for name, tensor in network.state_dict().items()}


def same(first: nn.Module, second: nn.Module) -> bool:
    mine, other = first.state_dict(), second.state_dict()
    return all(torch.equal(tensor, other[name]) for name, tensor in mine.items())


@pytest.fixture
def network() -> nn.Module:
    return build(NAME, classes=5)


@pytest.mark.parametrize("names", ["ours", "library"])
@pytest.mark.parametrize("form", ["safetensors", "pth", "state_dict", "model", "parallel"])
def test_weights_come_from_a_file(network: nn.Module, tmp_path: Path, form: str, names: str) -> None:
    weights = network.state_dict() if names == "ours" else inner(network)
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        save_file(weights, path)
    elif form == "pth":
        torch.save(weights, path)
    elif form == "parallel":
        torch.save({f"module.{name}": tensor for name, tensor in weights.items()}, path)
    else:
        torch.save({form: weights, "epoch": 3}, path)
    assert not same(build(NAME, classes=5), network)
    assert same(build(NAME, classes=5, weights=path), network)


@pytest.mark.parametrize("name", ["resnet9-w16", "wrn-40-2"])
def test_our_own_networks_start_from_files_too(tmp_path: Path, name: str) -> None:
    network = build(name, classes=3)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    assert same(build(name, classes=3, weights=tmp_path / "w.safetensors"), network)


def test_a_file_is_what_it_holds_whatever_its_name(network: nn.Module, tmp_path: Path) -> None:
    save_file(network.state_dict(), tmp_path / "network")
    assert same(build(NAME, classes=5, weights=tmp_path / "network"), network)


@pytest.mark.parametrize("kept", [True, False])
def test_a_last_layer_of_other_classes_starts_anew(
    network: nn.Module, tmp_path: Path, kept: bool, caplog: pytest.LogCaptureFixture
) -> None:
    weights = {name: tensor for name, tensor in inner(network).items() if kept or not name.startswith("fc.")}
    save_file(weights, tmp_path / "w.safetensors")
    with caplog.at_level(logging.WARNING):
        other = build(NAME, classes=4, weights=tmp_path / "w.safetensors")
    assert "no last layer for these classes" in caplog.text
    assert head(other).out_features == 4
    mine = inner(other)
    assert all(torch.equal(mine[name], tensor) for name, tensor in weights.items() if not name.startswith("fc."))


def test_files_from_before_the_counters_of_batch_normalisation_are_read(network: nn.Module, tmp_path: Path) -> None:
    weights = {name: x for name, x in inner(network).items() if not name.endswith("num_batches_tracked")}
    torch.save(weights, tmp_path / "w.pth")
    assert same(build(NAME, classes=5, weights=tmp_path / "w.pth"), network)


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("raise SystemExit('it ran')",)


def broken(kind: str, network: nn.Module, folder: Path) -> Path:
    weights = inner(network)
    path = folder / ("w.safetensors" if kind.endswith("safetensors") else "w.pth")
    match kind:
        case "lacking":
            del weights["conv1.0.weight"]
            torch.save(weights, path)
        case "another shape":
            torch.save(weights | {"conv1.0.weight": torch.zeros(16, 1, 3, 3)}, path)
        case "another network":
            torch.save(build("resnet9-w16", classes=5).state_dict(), path)
        case "evil":
            path.write_bytes(pickle.dumps(Evil()))
        case "evil tensor":
            torch.save(weights | {"x": Evil()}, path)
        case "no tensors":
            torch.save([1, 2], path)
        case "more than tensors":
            torch.save(weights | {"epoch": 3}, path)
        case "cut short":
            torch.save(weights, path)
            path.write_bytes(path.read_bytes()[:-1000])
        case "cut short safetensors":
            save_file(weights, path)
            path.write_bytes(path.read_bytes()[:-1000])
        case "empty" | "empty safetensors":
            path.touch()
        case "text" | "text safetensors":
            path.write_text("hello, world\n" * 9)
        case "folder":
            path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("absent", "expected a file of weights, found none at .*w.pth: check the path"),
        ("lacking", "expected the weights of this network in .*, found no network.conv1.0.weight: give its own"),
        ("another shape", r"found network.conv1.0.weight of shape \(16, 1, 3, 3\), not \(\d+, 3, 3, 3\): give"),
        ("another network", r"found no network.conv1.0.weight, and \d+ more differences: give"),
        ("evil", "expected tensors by name"),
        ("evil tensor", "expected tensors by name"),
        ("no tensors", "expected tensors by name in .*, found something else: give a .safetensors file, or a .pth"),
        ("more than tensors", "expected tensors by name"),
        ("cut short", "expected tensors by name"),
        ("cut short safetensors", "expected tensors by name"),
        ("empty", "expected tensors by name"),
        ("empty safetensors", "expected tensors by name"),
        ("text", "expected tensors by name"),
        ("text safetensors", "expected tensors by name"),
        ("folder", "expected tensors by name"),
    ],
)
def test_wrong_files_are_refused_in_one_line(network: nn.Module, tmp_path: Path, kind: str, message: str) -> None:
    path = broken(kind, network, tmp_path)
    with pytest.raises(InputError, match=message) as error:
        build(NAME, classes=5, weights=path)
    assert "\n" not in str(error.value)
