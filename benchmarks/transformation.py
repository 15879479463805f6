"""The adversarial transformation, against the passes of the external network that it cannot do without.

    uv run benchmarks/transformation.py [--model resnet9-w16] [--pictures 256] [--steps 10]
    uv run benchmarks/transformation.py --train DIR --test DIR --out DIR [--limit 2000] [--epochs 8] [--seed 0]

The first compares, in one run and by the median of rounds that take turns, the transformation of a batch with as many
bare passes forward and backward to the picture.

The second trains an external network, a classifier behind it, one behind mere noise of that size, and one adversarially
at about the cost of the second; and puts the second before its panel. Checkpoints in --out are not made again.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from rows import append

import unlearnable
from unlearnable.attacks.base import frozen
from unlearnable.attacks.transformation import Transformation
from unlearnable.defence import panel
from unlearnable.models import models


def speed(model: str, count: int, steps: int, rounds: int) -> None:
    external = models.create(model, classes=10).to(memory_format=torch.channels_last).eval()
    images = torch.rand(count, 3, 32, 32).to(memory_format=torch.channels_last)
    kind = Transformation(steps=steps)

    def bare() -> None:
        with frozen(external):
            for _ in range(steps):
                moved = images.detach().requires_grad_()
                logits = external(moved)
                torch.autograd.grad(torch.nn.functional.cross_entropy(logits, logits.argmax(1)), moved)

    works: dict[str, Callable[[], object]] = {"bare": bare, "transformation": lambda: kind(external, images)}
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start)
    found = {name: statistics.median(taken[1:]) for name, taken in times.items()}  # the first warms up
    append(
        "transformation",
        model=model,
        steps=steps,
        threads=torch.get_num_threads(),
        time_over_passes=found["transformation"] / found["bare"],
        torch=torch.__version__,
    )


def accuracy(options: argparse.Namespace) -> None:
    external = options.out / f"external-{options.seed}.safetensors"
    behind = options.out / f"behind-{options.seed}.safetensors"
    noise = options.out / f"noise-{options.seed}.safetensors"
    robust = options.out / f"adversarial-{options.seed}.safetensors"
    text = f"adversarial:steps={options.steps},budget={options.budget}"
    drawn = f"adversarial:steps=0,random_start=true,budget={options.budget}"
    wanted = {
        external: {},
        behind: {"transform": text, "external": external},
        noise: {"transform": drawn, "external": external},
        robust: {"recipe": "adversarial"},  # 10 steps of its own, against as many of the external network
    }
    for file, more in wanted.items():
        if not file.exists():
            start = time.perf_counter()
            report = unlearnable.train(
                options.train,
                test=options.test,
                out=file,
                options={"epochs": options.epochs},
                model=options.model,
                limit=options.limit,
                seed=options.seed,
                **more,
            )
            append(
                "transformation_training",
                kind=file.stem,
                clean=report.clean_accuracy,
                gradients=report.gradients,
                seconds=time.perf_counter() - start,
            )
    for file in (behind, noise):
        asked = {"external": external, "baseline": robust, "queries": options.queries, "limit": options.attacked}
        found = panel(file, options.test, seed=options.seed, **asked)
        append("transformation_accuracy", kind=file.stem, epochs=options.epochs, limit=options.limit, **asdict(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet9-w16")
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    for name in ("--train", "--test", "--out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--budget", default="16/255")
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--attacked", type=int, default=100)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.train is None:
        speed(options.model, options.pictures, options.steps, options.rounds)
    else:
        accuracy(options)


if __name__ == "__main__":
    main()
