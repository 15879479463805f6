"""What the command line does with noise, lasso and pruning."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnxruntime import InferenceSession
from safetensors import safe_open

import unlearnable
from tests.conftest import in_process
from tests.test_trainer import folders as folders
from unlearnable.budgets import Linf
from unlearnable.compression import recipe_of
from unlearnable.defence import panel
from unlearnable.errors import InputError
from unlearnable.training.bullettrain import BulletTrain
from unlearnable.training.checkpoint import Network, load_network
from unlearnable.training.recipes import named
from unlearnable.training.rsr.noise import noise_off, strengths


@pytest.fixture(scope="module")
def noisy(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("noisy") / "noisy.safetensors"
    said = in_process(
        *("train", folders[0], "--test", folders[1], "--out", out, "--epochs", 2, "--batch-size", 8),
        *("--noise", "--lasso", 1e-3, "--json"),
    )
    assert said.returncode == 0, said.stderr
    return out


def test_a_noisy_network_comes_back_as_it_was(noisy: Path, folders: tuple[Path, Path]) -> None:
    network, about = load_network(noisy)
    assert about.noise
    assert len(strengths(network)) == 9
    assert about.training["lasso"] == 1e-3
    first, second = (in_process("evaluate", noisy, folders[1], "--attack", "pgd3", "--json") for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout) == json.loads(second.stdout)


@pytest.fixture(scope="module")
def pruned(noisy: Path, folders: tuple[Path, Path]) -> Path:
    out = noisy.parent / "pruned.safetensors"
    report = unlearnable.prune(noisy, folders[0], test=folders[1], sparsity=0.85, out=out, epochs=1)
    assert report.sparsity == pytest.approx(0.85, abs=1e-5)
    assert report.clean_accuracy == unlearnable.evaluate(out, folders[1]).clean
    return out


def test_prune_and_export_from_the_command_line(noisy: Path, folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "pruned.safetensors"
    said = in_process("prune", noisy, folders[0], "--test", folders[1], "--sparsity", 0.85, "--out", out)
    assert said.returncode == 0, said.stderr
    assert "Cut off 85.0 % of the weights." in said.stdout
    assert "multiply-adds left" in said.stdout
    said = in_process("export", out, tmp_path / "small.safetensors", "--json")
    assert said.returncode == 0, said.stderr
    report = json.loads(said.stdout)
    assert report["bytes"] == (tmp_path / "small.safetensors").stat().st_size <= report["checkpoint_bytes"] / 4
    again = in_process("prune", out, folders[0], "--test", folders[1], "--sparsity", 0.9, "--out", tmp_path / "twice")
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr == (
        "unlearnable: expected a network that is not pruned, found one that is: prune the dense network it came from\n"
    )


def content(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Read the arrays of a safetensors file and what it says of them, in whatever order it says that."""
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118 - no mapping


def test_the_small_file_is_the_same_network(pruned: Path, folders: tuple[Path, Path], tmp_path: Path) -> None:
    small = tmp_path / "small.safetensors"
    unlearnable.export(pruned, small)
    assert unlearnable.evaluate(small, folders[1]) == unlearnable.evaluate(pruned, folders[1])
    other = tmp_path / "again.safetensors"
    unlearnable.export(small, other)
    (wanted, about), (found, said) = content(small), content(other)
    assert said == about
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_onnx_is_the_network_without_noise(pruned: Path, tmp_path: Path) -> None:
    file = tmp_path / "network.onnx"
    unlearnable.export(pruned, file)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    session = InferenceSession(file, providers=["CPUExecutionProvider"])
    network, _ = load_network(pruned)
    for count in (1, 5):
        images = torch.rand(count, 3, 12, 12)
        with noise_off(network), torch.no_grad():
            wanted = network(images).numpy()
        np.testing.assert_allclose(session.run(None, {"images": images.numpy()})[0], wanted, rtol=1e-4, atol=1e-5)


def test_bad_input(noisy: Path, folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a file that ends in \.safetensors or \.onnx, found 'network\.pt'"):
        unlearnable.export(noisy, tmp_path / "network.pt")
    with pytest.raises(InputError, match=r"expected a sparsity from 0 to below 1, found 85\.0"):
        unlearnable.prune(noisy, folders[0], test=folders[1], sparsity=85.0, out=tmp_path / "x")
    with pytest.raises(InputError, match="expected 0 epochs or more, found -1"):
        unlearnable.prune(noisy, folders[0], test=folders[1], sparsity=0.5, out=tmp_path / "x", epochs=-1)
    with pytest.raises(InputError, match="channel pictures of the 2 classes it was trained on, found 3 channels and 1"):
        unlearnable.prune(noisy, folders[0] / "dark", test=folders[1], sparsity=0.5, out=tmp_path / "x")
    with pytest.raises(InputError, match=f"expected a file to write the checkpoint to, found the folder {tmp_path}"):
        unlearnable.prune(noisy, folders[0], test=folders[1], sparsity=0.5, out=tmp_path)
    with pytest.raises(InputError, match="expected a network behind a transformation, with --external, found one"):
        panel(noisy, folders[1], external=noisy)
    with pytest.raises(InputError, match="expected a baseline that is not defended, found one with noise on its"):
        panel(noisy, folders[1], baseline=noisy)
    assert list(tmp_path.iterdir()) == []


def test_pruning_goes_by_the_recipe_of_the_training() -> None:
    made = named("trades", epochs=3, beta=2.0, budget=Linf.of_255(4), accelerate=BulletTrain(), noise=True)
    told = {"recipe": "trades", "options": {"epochs": 3, "beta": 2.0, "budget": "Linf 4/255", "noise": True}}
    about = Network(model="resnet9-w16", class_names=("a", "b"), channels=3, size=8, training=told | made.spec())
    assert recipe_of(about) == made
