"""What a network learns from clean and from protected CIFAR-10, in the same run with the same recipe.

    python benchmarks/cifar10_learnability.py --clean-train CIFAR/train --test CIFAR/test --protected-train PROTECTED

Folders have a subfolder a class, of pictures of one size; PROTECTED is what ``unlearnable protect`` made of the clean
training pictures. Prints the accuracies on the clean test pictures, and appends a row a seed to the results.
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

import numpy as np
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
    clean, protected, test = (load(path) for path in (options.clean_train, options.protected_train, options.test))
    assert np.array_equal(clean.labels, protected.labels), "the protected pictures are not those of the clean folder"
    classes = len(clean.class_names)
    recipe = Recipe(epochs=options.epochs)

    def learn(name: str, pictures: Dataset, seed: int) -> Accuracy:
        return measured(name, pictures, test, partial(models.create, options.model, classes=classes), recipe, seed)

    shares: dict[str, list[float]] = {"clean": [], "protected": []}
    for seed in options.seeds:
        started = time.monotonic()
        found = {"clean": learn("clean", clean, seed), "protected": learn("protected", protected, seed)}
        for name, accuracy in found.items():
            shares[name].append(accuracy.share)
        append(
            {
                "benchmark": "cifar10_learnability",
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
                "version": __version__,
                "machine": machine(),
                "model": options.model,
                "recipe": recipe.spec(),
                "seed": seed,
                "training_pictures": len(clean),
                **{name: {**accuracy._asdict(), "accuracy": accuracy.share} for name, accuracy in found.items()},
                "seconds": round(time.monotonic() - started, 1),
            }
        )
    for name, values in shares.items():
        each = ", ".join(f"{100 * value:.2f}" for value in values)
        print(f"{name:>9}: {100 * statistics.mean(values):.2f} % on average (seeds {options.seeds}: {each})")


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
    for name in ("--clean-train", "--protected-train", "--test"):
        parser.add_argument(name, type=Path, required=True, metavar="DIR")
    parser.add_argument("--model", default="resnet9-w32")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    return parser.parse_args()


if __name__ == "__main__":
    main()
