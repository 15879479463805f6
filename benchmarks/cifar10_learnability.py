"""What a network learns from clean CIFAR-10 and from protected sets of it, with one recipe.

    python benchmarks/cifar10_learnability.py CIFAR/train KEY-0 KEY-1 --test CIFAR/test

Folders have a subfolder a class, of pictures of one size; KEY-0 and KEY-1 are what ``unlearnable protect`` made of the
clean training pictures with two keys. Prints the accuracies on the clean test pictures, and appends a row a training
to the results.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch

from unlearnable import __version__
from unlearnable.models import models
from unlearnable.pictures.dataset import Dataset, load
from unlearnable.training.checkpoint import Epoch
from unlearnable.training.evaluation import Accuracy, evaluate
from unlearnable.training.loop import train
from unlearnable.training.precision import default_device
from unlearnable.training.recipes import Recipe

RESULTS = Path(__file__).parent / "results" / "cifar10_learnability.jsonl"


def main() -> None:
    options = parsed()
    test = load(options.test)
    build = partial(models.create, options.model, classes=len(test.class_names))
    recipe = Recipe(epochs=options.epochs)
    shares: dict[str, list[float]] = {}
    for path in options.train:
        pictures = load(path)
        for seed in options.seeds:
            started = time.monotonic()
            accuracy = measured(path.name, pictures, test, build, recipe, seed)
            shares.setdefault(path.name, []).append(accuracy.share)
            append(
                {
                    "benchmark": "cifar10_learnability",
                    "time": datetime.now(UTC).isoformat(timespec="seconds"),
                    "version": __version__,
                    "machine": machine(),
                    "model": options.model,
                    "recipe": recipe.spec(),
                    "seed": seed,
                    "set": path.name,
                    "data": pictures.fingerprint(),
                    "training_pictures": len(pictures),
                    **accuracy._asdict(),
                    "accuracy": accuracy.share,
                    "seconds": round(time.monotonic() - started, 1),
                }
            )
    for name, values in shares.items():
        each = ", ".join(f"{100 * value:.2f}" for value in values)
        print(f"{name:>12}: {100 * statistics.mean(values):.2f} % on average (seeds {options.seeds}: {each})")


def measured(
    name: str, pictures: Dataset, test: Dataset, build: Callable[[], torch.nn.Module], recipe: Recipe, seed: int
) -> Accuracy:
    started = time.monotonic()

    def progress(done: int, steps: int, epoch: Epoch | None) -> None:
        if epoch:
            words = f"{name}, seed {seed}, epoch {epoch.number}: loss {epoch.loss:.3f}"
            print(f"  {words}, {time.monotonic() - started:.0f} s", flush=True)

    network = train(pictures, model=build, recipe=recipe, seed=seed, progress=progress).model
    accuracy = evaluate(network, test.images, test.labels)
    low, high = accuracy.interval()
    print(
        f"{name}, seed {seed}: {100 * accuracy.share:.2f} % of {accuracy.total} clean test pictures"
        f" ({100 * low:.2f} to {100 * high:.2f} %)",
        flush=True,
    )
    return accuracy


def machine() -> dict[str, str | int]:
    gpu = torch.cuda.get_device_name() if default_device() == "cuda" else "none"
    return {
        "system": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count() or 1,
        "gpu": gpu,
        "torch": torch.__version__,
    }


def processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def append(row: dict[str, object]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path, nargs="+", metavar="DIR", help="clean, and protected with this or that key")
    parser.add_argument("--test", type=Path, required=True, metavar="DIR")
    parser.add_argument("--model", default="resnet9-w16")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    return parser.parse_args()


if __name__ == "__main__":
    main()
