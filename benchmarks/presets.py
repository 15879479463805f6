"""What a stack's presets cost beside CUDA alone, from file to file.

    uv run benchmarks/presets.py CIFAR/train PHOTOS [--limit N]

``protect`` in this process, CUDA and every preset that needs no network by turns: pictures of a data set as one file
of arrays (in which nothing is coded, so that the methods count for most), and a folder of photographs, written as they
came. Ratios of processor time, so that other work on the machine does not count, by the median of the rounds.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np
from rows import append

from unlearnable import Key, protect
from unlearnable.pictures.dataset import load
from unlearnable.protections.stack import PRESETS, Stack

ROUNDS: Final = 3
DRAWN: Final = [preset for preset in PRESETS if Stack(preset=preset).made is None]  # the others need a network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, metavar="DIR", help="pictures of one size, a subfolder a class")
    parser.add_argument("photographs", type=Path, metavar="PHOTOS")
    parser.add_argument("--limit", type=int, help="pictures of the data set, of each class in turn")
    options = parser.parse_args()
    data = load(options.dataset, limit=options.limit)
    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder, "arrays.npz")
        np.savez(arrays, images=data.images, labels=data.labels, class_names=np.array(data.class_names))
        for kind, source, classes in (("arrays", arrays, "folder"), ("photographs", options.photographs, "single")):
            times, pictures = measured(source, Path(folder, "out"), classes)
            for preset in DRAWN:
                ratio = statistics.median(a / b for a, b in zip(times[preset], times["cuda"], strict=True))
                append(
                    "presets",
                    kind=kind,
                    preset=preset,
                    layers=PRESETS[preset],
                    pictures=pictures,
                    processor_seconds=statistics.median(times[preset]),
                    cuda_processor_seconds=statistics.median(times["cuda"]),
                    ratio=ratio,
                )


def measured(source: Path, out: Path, classes: str) -> tuple[dict[str, list[float]], int]:
    """Return the processor seconds of each round, by preset, and of CUDA; and how many pictures were protected."""
    plain: dict[str, tuple[str, dict[str, str]]] = {"cuda": ("cuda", {})}
    ways = plain | {preset: ("stack", {"preset": preset}) for preset in DRAWN}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS + 1):
        for name, (method, options) in ways.items():
            destination = out / source.name
            start = time.process_time()
            report = protect(
                source, destination, key=Key(bytes(32)), method=method, options=options, classes=classes, workers=0
            )
            if number:  # loops are compiled in the first round
                times[name].append(time.process_time() - start)
            shutil.rmtree(out)
    return times, report.protected


if __name__ == "__main__":
    main()
