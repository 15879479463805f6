"""Two processes train what one does."""

import atexit
import os
import socket
import subprocess
import sys
import weakref
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import distributed, nn

from tests.training.small import dark_and_bright
from unlearnable.training.bullettrain import BulletTrain
from unlearnable.training.distributed import is_first
from unlearnable.training.loop import train
from unlearnable.training.recipes import Recipe, named

RECIPE = Recipe(epochs=2, batch_size=20, learning_rate=0.05, crop=0, flip=False)
MINED = named("adversarial", steps=2, epochs=2, batch_size=20, learning_rate=0.05, accelerate=BulletTrain())


def plain() -> nn.Module:
    """Build a network that treats each picture by itself, so that it does not matter how batches are divided."""
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 2))


def run(out: Path) -> None:
    """Train, and write the weights and the figures of the epochs: what each process does."""
    options = {"model": plain, "device": "cpu", "precision": "float32"}
    trained = train(dark_and_bright(), recipe=RECIPE, checkpoint=out.with_suffix(".run"), **options)
    figures = torch.tensor([[epoch.loss, epoch.accuracy] for epoch in trained.history])
    mined = train(dark_and_bright(), recipe=MINED, checkpoint=out.with_suffix(".mined"), **options)
    splits = torch.tensor(mined.splits)
    if is_first():
        save_file(trained.model.state_dict() | {"figures": figures, "splits": splits}, out)


def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    run(tmp_path / "one")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--local-addr", "127.0.0.1"]  # else they meet at the machine's name, which need not be known to itself
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    root = Path(__file__).parents[2]
    for _ in range(2):  # the second time they go on from the end of the first
        subprocess.run(
            [*command, "-m", "tests.training.test_distributed", tmp_path / "two"],
            check=True,
            cwd=root,
            env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": loopback},
        )
        one, two = load_file(tmp_path / "one"), load_file(tmp_path / "two")
        assert one.keys() == two.keys()
        splits = two.pop("splits")
        assert (splits.sum(1) == 20).all()  # of both processes' pictures
        assert splits.shape == one.pop("splits").shape == (4, 3)
        for name, tensor in one.items():
            assert torch.allclose(two[name], tensor, atol=1e-5), name
        for rank in range(2):  # else the group's threads run on while Python ends, which now and then aborts
            left = tmp_path / f"two.{rank}"
            assert left.read_text() == "None"
            left.unlink()


if __name__ == "__main__":
    out = Path(sys.argv[1])
    groups = []
    # What is registered first comes last: after the group has been destroyed.
    atexit.register(lambda: out.with_suffix("." + os.environ["RANK"]).write_text(str(groups[0]())))
    run(out)
    groups.append(weakref.ref(distributed.group.WORLD))
