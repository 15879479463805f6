"""A step of SEM against the same step written the obvious way, and against a step of REM.

    uv run benchmarks/sem.py [--model resnet18] [--batch 128] [--rounds 1]

The papers' CIFAR-10 settings: 10 sign steps for the noise of a batch, 5 samples of crop and mirroring in each, and a
surrogate trained against 10 steps of PGD. One step is the noise of one batch and one step of the surrogate on it: 61
passes through the network, forward and backward, for SEM, and 561 for REM (counted here, not only worked out).

The obvious way: 32-bit floats, torchvision's transforms picture by picture inside the graph, one sample at a time, the
network in PyTorch's default layout. All in one run, by the median of rounds that take turns. REM is timed on a smaller
batch (``--rem-batch``), beside SEM on the same, since its step takes about nine times as long. With --model resnet18
and --batch 128 a round takes minutes on two cores.
"""

import argparse
import contextlib
import statistics
import time
from dataclasses import replace

import numpy as np
import torch
from rows import append
from torch import Tensor, nn
from torchvision import transforms

from unlearnable.budgets import Linf
from unlearnable.models import build
from unlearnable.pictures.dataset import Dataset
from unlearnable.protections._bilevel import fit_noise
from unlearnable.protections.error_minimizing import REM, SEM, AdditiveNoise
from unlearnable.protections.settings import Status
from unlearnable.training.precision import default_device

RADIUS, INNER, CLASSES, SIDE = Linf.of_255(8), Linf.of_255(4), 10, 32
NOISE_STEPS, SAMPLES, INNER_STEPS = 10, 5, 10
PLACE = torch.device(default_device())


class EnoughError(Exception):
    """The step that is timed is over."""


def finish() -> None:
    if PLACE.type == "cuda":
        torch.cuda.synchronize()


def ours(kind: type[AdditiveNoise], model: str, data: Dataset) -> tuple[float, int]:
    """Time one step after a first that warms up; return the seconds, and the passes of a picture."""
    method = kind(preset="paper", model=model)
    seen: list[tuple[float, int]] = []

    def note(status: Status) -> None:
        finish()
        seen.append((time.perf_counter(), status.gradients))
        if len(seen) == 2:
            raise EnoughError

    with contextlib.suppress(EnoughError):
        fit_noise(
            data,
            network=lambda: build(model, classes=CLASSES, size=SIDE),
            member=method.member(SIDE),
            settings=replace(method.settings(), batch_size=len(data)),
            radius=RADIUS,
            seed=0,
            progress=note,
        )
    (start, before), (end, after) = seen
    return end - start, (after - before) // len(data)


def attacked(network: nn.Module, views: Tensor, labels: Tensor) -> Tensor:
    """Return the views under PGD, as everybody writes it."""
    start = views
    views = (views + torch.empty_like(views).uniform_(-INNER.radius, INNER.radius)).clamp(0, 1)
    for _ in range(INNER_STEPS):
        views = views.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(network(views), labels), views)
        views = views + 2 * INNER.radius / INNER_STEPS * gradient.sign()
        views = (start + (views - start).clamp(-INNER.radius, INNER.radius)).clamp(0, 1)
    return views.detach()


def obvious(model: str, data: Dataset) -> float:
    """Time one step, after one that warms up."""
    network = build(model, classes=CLASSES, size=SIDE).to(PLACE)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    transform = transforms.Compose([transforms.RandomCrop(SIDE, padding=4), transforms.RandomHorizontalFlip()])
    images = (torch.from_numpy(data.images).permute(0, 3, 1, 2).float() / 255).contiguous().to(PLACE)
    labels = torch.from_numpy(data.labels).to(PLACE)

    def views_of(pictures: Tensor) -> Tensor:
        return torch.stack([transform(picture) for picture in pictures])

    def step() -> None:
        network.eval().requires_grad_(False)
        noise = torch.empty_like(images).uniform_(-RADIUS.radius, RADIUS.radius)
        for _ in range(NOISE_STEPS):
            noise.requires_grad_()
            total = torch.zeros_like(noise)
            for _ in range(SAMPLES):
                views = views_of((images + noise).clamp(0, 1))
                shaken = (views + torch.empty_like(views).uniform_(-INNER.radius, INNER.radius)).clamp(0, 1)
                loss = nn.functional.cross_entropy(network(shaken), labels)
                total += torch.autograd.grad(loss, noise)[0]
            noise = (noise.detach() - 2 * RADIUS.radius / NOISE_STEPS * total.sign()).clamp(
                -RADIUS.radius, RADIUS.radius
            )
        views = attacked(network, views_of((images + noise).clamp(0, 1)), labels)
        network.train().requires_grad_(True)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(views), labels).backward()
        optimizer.step()
        finish()

    step()
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def pictures(count: int) -> Dataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    names = tuple(map(str, range(count)))
    return Dataset(images, np.arange(count) % CLASSES, tuple(map(str, range(CLASSES))), names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rem-batch", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    data, few = pictures(options.batch), pictures(options.rem_batch)
    times: dict[str, list[float]] = {"sem": [], "obvious": [], "sem of few": [], "rem of few": []}
    for _ in range(options.rounds):
        seconds, sem_passes = ours(SEM, options.model, data)
        times["sem"].append(seconds)
        times["obvious"].append(obvious(options.model, data))
        times["sem of few"].append(ours(SEM, options.model, few)[0])
        seconds, rem_passes = ours(REM, options.model, few)
        times["rem of few"].append(seconds)
    found = {name: statistics.median(rounds) for name, rounds in times.items()}
    append(
        "sem",
        model=options.model,
        batch=options.batch,
        rem_batch=options.rem_batch,
        rounds=options.rounds,
        threads=torch.get_num_threads(),
        device=str(PLACE),
        sem_passes=sem_passes,
        rem_passes=rem_passes,
        sem_seconds_a_step=found["sem"],
        sem_speed_over_obvious=found["obvious"] / found["sem"],
        rem_time_over_sem=found["rem of few"] / found["sem of few"],
        torch=torch.__version__,
    )


if __name__ == "__main__":
    main()
