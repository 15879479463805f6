"""Countermeasures: pictures a second; COIN against a loop over pictures.

    uv run benchmarks/countermeasures.py

2,048 pictures of 32 x 32 x 3, all cores. What acts on batches works on batches of 512, with its random numbers. The two
that use the model, a ResNet-9 of width 16, are given one batch of 128. The loops are SciPy's
``map_coordinates``, a picture or a channel of a picture at a time, with random numbers of their own. Medians of several
rounds, those of COIN and of the loops alternating.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from rows import append
from scipy.ndimage import map_coordinates, uniform_filter

from unlearnable.countermeasures import BatchChange, Countermeasure, Leak, Published, countermeasures
from unlearnable.models import models

COUNT, PART, BATCH, CLASSES = 2_048, 256, 512, 10
SLOW = {"deconvolution": 128, "ueraser-max": 128}


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    rng = np.random.default_rng(0)
    grain = uniform_filter(rng.normal(size=(COUNT, 32, 32, 3)), (0, 3, 3, 0))
    images = np.clip(128 + 120 * grain, 0, 255).astype(np.uint8)
    leak = Leak(np.arange(2 * CLASSES), images[: 2 * CLASSES])
    published = Published(images, np.arange(COUNT) % CLASSES, CLASSES, leak)
    floats = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    labels = torch.from_numpy(published.labels)
    model = models.create("resnet9-w16", classes=CLASSES)
    generator = torch.Generator().manual_seed(0)

    coin = countermeasures.create("coin").every_batch(CLASSES)
    first = images[:PART] / np.float32(255)
    rows, columns, channels = np.meshgrid(np.arange(32), np.arange(32), np.arange(3), indexing="ij")

    def batched() -> None:
        for start in range(0, COUNT, BATCH):
            coin(model, floats[start : start + BATCH], labels, generator)

    def by_picture() -> None:
        for picture in first:
            down, right = rng.uniform(-2, 2, (2, 32, 32, 1))
            map_coordinates(picture, [rows + down, columns + right, channels], order=1, mode="grid-wrap")

    def by_channel() -> None:
        for picture in first:
            down, right = rng.uniform(-2, 2, (2, 32, 32))
            for channel in range(3):
                place = [rows[:, :, 0] + down, columns[:, :, 0] + right]
                map_coordinates(picture[:, :, channel], place, order=1, mode="grid-wrap")

    batched()
    rounds = [(seconds(batched) / COUNT, seconds(by_picture) / PART, seconds(by_channel) / PART) for _ in range(15)]
    ours, pictures, single = (statistics.median(times) for times in zip(*rounds, strict=True))

    rates = {}
    for name in sorted(set(countermeasures) - {"none"}):
        part = countermeasures.create(name)
        change = part.every_batch(CLASSES)
        count = SLOW.get(name, COUNT)

        def once(part: Countermeasure = part) -> None:
            part.clean(published, np.random.default_rng(0))

        def batches(change: BatchChange | None = change, count: int = count) -> None:
            with torch.no_grad():
                for start in range(0, count, BATCH):
                    chosen = slice(start, min(count, start + BATCH))
                    change(model, floats[chosen], labels[chosen], generator)

        work = once if change is None else batches
        work()  # libraries are loaded, memory is warm
        rates[name] = count / statistics.median(seconds(work) for _ in range(3))

    append(
        "countermeasures",
        coin_pictures_per_second=1 / ours,
        picture_loop_over_coin=pictures / ours,
        channel_loop_over_coin=single / ours,
        pictures_per_second={name: round(rate) for name, rate in rates.items()},
    )


if __name__ == "__main__":
    main()
