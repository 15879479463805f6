"""What the command line does with noise, lasso and pruning."""

import json
from pathlib import Path

import pytest

from tests.cli.test_cli import run
from tests.test_trainer import folders as folders
from unlearnable.training.checkpoint import load_network
from unlearnable.training.rsr.noise import strengths


@pytest.fixture(scope="module")
def noisy(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("noisy") / "noisy.safetensors"
    said = run(
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
    first, second = (run("evaluate", noisy, folders[1], "--attack", "pgd3", "--json") for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout) == json.loads(second.stdout)
