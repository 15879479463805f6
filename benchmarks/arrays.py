"""CUDA over an array, against a copy of it and against the obvious loop.

    uv run benchmarks/arrays.py

50,000 pictures of 32 x 32 x 3 uint8, k = 3, all cores. The copy is NumPy's, warm. The loop is what a user of torch
would write, and what the published code does on a GPU: a ``conv2d`` a picture, on the CPU, divided by its maximum.
Both are the median of several rounds in one run; the loop is timed on a part of the pictures and scaled up.
"""

import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from rows import append

from unlearnable import Key
from unlearnable.protections.convolution import Convolution

COUNT, PART, CLASSES = 50_000, 5_000, 10


def seconds(work: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (COUNT, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, COUNT)
    ids = [""] * COUNT
    names = [str(label) for label in range(CLASSES)]
    perturbation = Convolution(kernel_size=3, blur=0.3).fit(SimpleNamespace(class_names=names), Key(bytes(32)))
    weights = torch.from_numpy(perturbation.banks[3].weights)[:, None, None].repeat(1, 3, 1, 1, 1)

    def loop() -> None:
        out = np.empty((PART, 32, 32, 3), np.uint8)
        for n in range(PART):
            x = torch.from_numpy(images[n]).permute(2, 0, 1)[None].float() / 255
            y = torch.nn.functional.conv2d(x, weights[labels[n]], padding=1, groups=3)
            y = y / y.max()
            out[n] = (y * 255).clamp(0, 255).to(torch.uint8)[0].permute(1, 2, 0).numpy()

    perturbation.apply(images[:9], labels[:9], ids[:9])  # compiled, or read from the compiler's cache
    images.copy()
    copying = seconds(images.copy, 15)
    protecting = seconds(lambda: perturbation.apply(images, labels, ids), 15)
    with torch.inference_mode():
        looping = seconds(loop, 3) * COUNT / PART
    append(
        "arrays",
        copy_seconds=copying,
        protect_seconds=protecting,
        loop_seconds=looping,
        protect_over_copy=protecting / copying,
        loop_over_protect=looping / protecting,
    )


if __name__ == "__main__":
    main()
