"""Noise on the weights, against training without; pruned networks on disk; what noise, lasso and pruning withstand.

    uv run benchmarks/rsr.py [--model resnet9-w16] [--pictures 1280]
    uv run benchmarks/rsr.py --train DIR --test DIR --out DIR [--limit 2000] [--epochs 8] [--seed 0]

The first compares, in one run and by the median of rounds that take turns, an epoch with noise and one without, plain
and adversarial; and the sparse file of a network pruned at 85 % with its dense one.

The second trains PGD-AT, with noise, with lasso, with both, prunes the last at 50, 70, 85, 90 and 95 %, and puts each
before its attacks; a row each. Checkpoints and finished rows in --out are not made again.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rows import append

import unlearnable
from unlearnable.attacks import EOTPGD, PGD, fgsm
from unlearnable.budgets import Linf
from unlearnable.models import models
from unlearnable.pictures.dataset import Dataset, load
from unlearnable.training.checkpoint import Network, load_network, save_network
from unlearnable.training.loop import train
from unlearnable.training.recipes import Recipe, named
from unlearnable.training.rsr.noise import inject_noise
from unlearnable.training.rsr.pruning import prune
from unlearnable.training.withstanding import withstood

BATCH = 128
SPARSITY = (0.5, 0.7, 0.85, 0.9, 0.95)


def epoch(data: Dataset, model: str, recipe: Recipe) -> float:
    """Time one epoch, without what comes before its first step."""
    times: list[float] = []
    build = partial(models.create, model, classes=10)
    train(data, model=build, recipe=recipe, progress=lambda *_: times.append(time.perf_counter()))
    return (times[-1] - times[0]) * len(times) / (len(times) - 1)


def speed(model: str, count: int, rounds: int) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, count)
    data = Dataset(images, labels, tuple(map(str, range(10))), tuple(map(str, range(count))))
    recipes = {
        (name, noise): named(name, epochs=1, batch_size=BATCH, noise=noise)
        for name in ("erm", "adversarial")
        for noise in (False, True)
    }
    some = {"erm": data, "adversarial": data.select(np.arange(max(2 * BATCH, count // 5)))}
    works: dict[tuple[str, bool], Callable[[], float]] = {
        key: partial(epoch, some[key[0]], model, recipe) for key, recipe in recipes.items()
    }
    times: dict[tuple[str, bool], list[float]] = {key: [] for key in works}
    for _ in range(rounds + 1):
        for key, work in works.items():
            times[key].append(work())
    found = {key: statistics.median(taken[1:]) for key, taken in times.items()}  # the first warms up
    with tempfile.TemporaryDirectory() as folder:
        network = inject_noise(models.create(model, classes=10))
        share = prune(network, 0.85)
        names = tuple(map(str, range(10)))
        about = Network(model=model, class_names=names, channels=3, size=32, training={}, noise=True, sparsity=share)
        dense, sparse = Path(folder) / "dense", Path(folder) / "sparse"
        save_network(dense, network, about)
        save_network(sparse, network, about, sparse=True)
        size = sparse.stat().st_size / dense.stat().st_size
    append(
        "rsr",
        model=model,
        threads=torch.get_num_threads(),
        noise_time_over_plain=found["erm", True] / found["erm", False],
        noise_time_over_adversarial=found["adversarial", True] / found["adversarial", False],
        sparse_size_over_dense_at_85=size,
        torch=torch.__version__,
    )


def withstands(checkpoint: Path, test: Path, limit: int | None) -> dict[str, float]:
    """Return accuracies, means over five draws of the noise."""
    network, about = load_network(checkpoint)
    data, budget = load(test, size=about.size, limit=limit), Linf.of_255(8)
    attacks = {
        "clean": None,
        "fgsm": fgsm(budget=budget),
        "pgd7": PGD(budget=budget, steps=7),
        "pgd20": PGD(budget=budget, steps=20),
        "eot_pgd20": EOTPGD(budget=budget, steps=20, samples=20),
    }
    draws = 5 if about.noise else 1
    if not about.noise:
        del attacks["eot_pgd20"]  # the same as PGD-20
    asked = {"images": data.images, "labels": data.labels, "seeds": draws}
    found = {name: withstood(network, attack, **asked).mean(1) for name, attack in attacks.items()}
    return {name: float(shares.mean()) for name, shares in found.items()} | {
        f"{name}_deviation": float(shares.std(ddof=1)) for name, shares in found.items() if draws > 1
    }


def accuracy(options: argparse.Namespace) -> None:
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    lasso = {"lasso": options.lasso}
    kinds = {"at": {}, "at+noise": {"noise": True}, "at+lasso": lasso, "at+noise+lasso": {"noise": True} | lasso}
    for name, more in kinds.items():
        file = out / f"{name}-{options.seed}.safetensors"
        if not file.exists():
            unlearnable.train(
                options.train,
                test=options.test,
                out=file,
                recipe="adversarial",
                options={"epochs": options.epochs, "steps": 7, **more},
                model=options.model,
                limit=options.limit,
                seed=options.seed,
            )
        row(name, 0.0, file, options)
    dense = out / f"at+noise+lasso-{options.seed}.safetensors"
    for sparsity in SPARSITY:
        file = out / f"at+noise+lasso-{options.seed}-{sparsity}.safetensors"
        if not file.exists():
            unlearnable.prune(dense, options.train, test=options.test, sparsity=sparsity, out=file, limit=options.limit)
        row("at+noise+lasso", sparsity, file, options)


def row(name: str, sparsity: float, file: Path, options: argparse.Namespace) -> None:
    done = file.with_suffix(".json")
    if done.exists():
        return
    found = withstands(file, options.test, options.attacked)
    setting = {"model": options.model, "pictures": options.limit, "epochs": options.epochs, "lasso": options.lasso}
    append(
        "rsr_accuracy", kind=name, sparsity=sparsity, seed=options.seed, attacked=options.attacked, **setting, **found
    )
    done.write_text(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet9-w16")
    parser.add_argument("--pictures", type=int, default=1280)
    parser.add_argument("--rounds", type=int, default=5)
    for name in ("--train", "--test", "--out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--attacked", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--lasso", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.train is None:
        speed(options.model, options.pictures, options.rounds)
    else:
        accuracy(options)


if __name__ == "__main__":
    main()
