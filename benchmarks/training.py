"""The training loop and adversarial training, against the passes through the network that they cannot do without.

    uv run benchmarks/training.py [--model resnet9-w16] [--pictures 6400]

Three comparisons, each in one run, by the median of rounds that take turns:

- one epoch of ``train`` with crop and flip, over a bare loop: same network, batches, arithmetic and optimizer, on
  batches that lie ready as floats in memory, not augmented;
- the same epoch, over what one finds everywhere: a ``DataLoader`` with a worker a core over PIL pictures, cropped,
  flipped and turned into tensors by torchvision one by one, and a network in PyTorch's default layout and type;
- one epoch of PGD-10 adversarial training, over its 11 bare passes forward and backward a batch.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from PIL import Image
from rows import append
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms

from unlearnable.budgets import Linf
from unlearnable.models import models
from unlearnable.pictures.dataset import Dataset
from unlearnable.training.loop import train
from unlearnable.training.precision import autocast
from unlearnable.training.recipes import Recipe, named

PLACE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BATCH = 128


def ours(data: Dataset, build: Callable[[], nn.Module], recipe: Recipe) -> float:
    """Time one epoch of the loop, without what comes before its first step."""
    times: list[float] = []
    train(data, model=build, recipe=recipe, progress=lambda *_: times.append(time.perf_counter()))
    return (times[-1] - times[0]) * len(times) / (len(times) - 1)


def bare(data: Dataset, build: Callable[[], nn.Module], passes: int) -> float:
    """Time as many batches, ready in memory, with so many passes each, the last of them a step of SGD."""
    network = build().to(PLACE).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    floats = (torch.from_numpy(data.images).permute(0, 3, 1, 2) / 255).to(PLACE)
    floats, labels = floats.contiguous(memory_format=torch.channels_last), torch.from_numpy(data.labels).to(PLACE)
    batches = list(zip(floats.split(BATCH), labels.split(BATCH), strict=True))
    loss_of = nn.CrossEntropyLoss()

    def step(images: Tensor, targets: Tensor) -> None:
        with autocast(PLACE, "auto"):
            for _ in range(passes - 1):
                network.eval().requires_grad_(False)
                images = images.detach().requires_grad_()
                torch.autograd.grad(loss_of(network(images), targets), images)
            loss = loss_of(network.train().requires_grad_(True)(images.detach()), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    step(*batches[0])
    start = time.perf_counter()
    for batch in batches:
        step(*batch)
    return time.perf_counter() - start


class Pictures(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """PIL pictures, transformed one by one."""

    def __init__(self, data: Dataset) -> None:
        self.data = data
        self.transform = transforms.Compose(
            [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        )

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.data.images[place])), int(self.data.labels[place])


def usual(data: Dataset, build: Callable[[], nn.Module]) -> float:
    network = build().to(PLACE).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    loader = DataLoader(Pictures(data), BATCH, shuffle=True, num_workers=os.cpu_count() or 1)
    start = time.perf_counter()
    for images, targets in loader:
        loss = nn.functional.cross_entropy(network(images.to(PLACE)), targets.to(PLACE))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet9-w16")
    parser.add_argument("--pictures", type=int, default=6400)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    count = options.pictures
    data = Dataset(
        rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8),
        rng.integers(0, 10, count),
        tuple(map(str, range(10))),
        tuple(map(str, range(count))),
    )
    build = partial(models.create, options.model, classes=10)
    erm = Recipe(epochs=1, batch_size=BATCH)
    pgd = replace(named("adversarial", budget=Linf.of_255(4), steps=10), epochs=1, batch_size=BATCH)
    few = data.select(np.arange(count // 8))
    works: dict[str, Callable[[], float]] = {
        "loop": lambda: ours(data, build, erm),
        "bare": lambda: bare(data, build, 1),
        "usual": lambda: usual(data, build),
        "pgd": lambda: ours(few, build, pgd),
        "passes": lambda: bare(few, build, 11),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(options.rounds + 1):
        for name, work in works.items():
            times[name].append(work())
    found = {name: statistics.median(rounds[1:]) for name, rounds in times.items()}  # the first warms up
    append(
        "training",
        model=options.model,
        threads=torch.get_num_threads(),
        pictures_a_second=count / found["loop"],
        loop_speed_over_bare=found["bare"] / found["loop"],
        loop_speed_over_usual=found["usual"] / found["loop"],
        pgd_time_over_passes=found["pgd"] / found["passes"],
        torch=torch.__version__,
    )


if __name__ == "__main__":
    main()
