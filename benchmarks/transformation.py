"""The adversarial transformation: what it costs, which of its choices are best, and what adaptive attacks leave of it.

    uv run benchmarks/transformation.py speed
    uv run benchmarks/transformation.py sweep CIFAR/train
    uv run benchmarks/transformation.py run CIFAR/train --test CIFAR/test [--transform OPTION=VALUE,...] [--seeds 0 1 2]
    uv run benchmarks/transformation.py table

``speed`` compares, in one run and by the median of rounds that take turns, the transformation of a batch with as many
bare passes forward and backward to the picture.

``sweep`` trains a classifier behind the transformation of each setting, and judges it on pictures of the training
folder that neither it nor the external network was trained on: by what withstands, picture by picture, BPDA and what
was made on both networks together, on average over two radii of the attack. The best one should be the default.

``run`` trains an external network, a classifier behind the transformation, one behind mere noise of its size, and one
adversarially at about the cost of the second; and puts the second and the third before the panel of
``evaluate --panel``.

What is written down already is not run again: networks in --runs, rows in ``results/transformation_sweep.jsonl`` and
``results/transformation_accuracy.jsonl``. ``--minutes`` stops in the middle, and the same command goes on from there.
``table`` reads those rows: means over the seeds with the 95 % interval of the mean (Student).
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from parts import parted, setting
from rows import append, deadline, key, rows, spread, stop_after
from torch import nn

from unlearnable.attacks import EOTPGD, PGD
from unlearnable.attacks.base import frozen
from unlearnable.attacks.transformation import Transformation, Transformed
from unlearnable.budgets import Budget, Linf
from unlearnable.countermeasures.adversarial_transformation import AdversarialTransformation
from unlearnable.defence import transformation_named
from unlearnable.models import models
from unlearnable.pictures.dataset import Dataset, load
from unlearnable.training.adaptive import Both, adaptive_panel
from unlearnable.training.checkpoint import Network, load_network, save_network
from unlearnable.training.loop import train
from unlearnable.training.precision import default_device
from unlearnable.training.recipes import Recipe, named
from unlearnable.training.withstanding import withstood

SETTINGS: Final = (  # each one choice away from the first
    "budget=16/255,steps=10",
    "budget=8/255,steps=10",
    "budget=32/255,steps=10",
    "budget=16/255,steps=3",
    "budget=16/255,steps=10,targeted=true",
    "budget=16/255,steps=10,label=least-likely,targeted=true",
    "budget=16/255,steps=10,label=random,targeted=true",
    "budget=16/255,steps=10,random_start=true",
)
RADII: Final = (2, 8)  # of 255, that a sweep attacks within
BUDGET: Final = Linf.of_255(8)
PLACE: Final = torch.device(default_device())


def main() -> None:
    options = parsed()
    try:
        options.work(options)
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from here")


# Networks


def trained(
    data: Dataset,
    made: Recipe,
    seed: int,
    options: argparse.Namespace,
    behind: AdversarialTransformation | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Train a network, unless it is there already; return its file, and what its training took."""
    about: dict[str, Any] = {"model": options.model, "seed": seed, "spec": made.spec(), "data": data.fingerprint()}
    about |= {} if behind is None else {"transform": behind.spec()}
    file = options.runs / f"{key(about)}.safetensors"
    if not file.exists():
        state = file.with_suffix(".run")
        done = train(
            data,
            model=partial(models.create, options.model, classes=len(data.class_names)),
            recipe=made,
            change=None if behind is None else behind.every_batch(len(data.class_names)),
            seed=seed,
            checkpoint=state,
            progress=lambda *_: stop_after(options.deadline),
        )
        cost = {
            "passes": done.gradients,
            "external_passes": 0 if behind is None else behind.steps * len(data) * made.epochs,
            "seconds": sum(one.seconds for one in done.history),
        }
        names, channels, size = data.class_names, data.images.shape[3], data.images.shape[1]
        told = Network(model=options.model, class_names=names, channels=channels, size=size, training=about | cost)
        save_network(file, done.model, told)
        state.unlink()
    return file, {name: load_network(file)[1].training[name] for name in ("passes", "external_passes", "seconds")}


def network_of(file: Path) -> nn.Module:
    return load_network(file)[0].to(PLACE).to(memory_format=torch.channels_last)


def erm(options: argparse.Namespace) -> Recipe:
    return named("erm", epochs=options.epochs, batch_size=options.batch_size)


# Which setting


def sweep(options: argparse.Namespace) -> None:
    data, held = parted(options.source, options.pictures, options.held)
    about = setting(data, options) | {"held": len(held), "seed": options.seed, "radii": list(RADII)}
    for text in options.settings:
        row = about | {"setting": text}
        if key(row) in {row["key"] for row in rows("transformation_sweep")}:
            continue
        external, _ = trained(data, erm(options), options.seed, options)
        behind = transformation_named(f"adversarial:{text}", external, data.class_names)
        file, cost = trained(data, erm(options), options.seed, options, behind)
        found = judged(network_of(file), network_of(external), behind.transformation, held)
        append("transformation_sweep", key=key(row), **row, **found, cost=cost, torch=torch.__version__)
        stop_after(options.deadline)
    found = [row for row in rows("transformation_sweep") if about.items() <= row.items()]
    for row in found:
        worst = " and ".join(f"{100 * share:.1f}" for share in row["worst"].values())
        print(f"  {row['setting']}: clean {100 * row['clean']:.1f}, worst {worst}, score {100 * row['score']:.1f}")
    best = max(found, key=lambda row: (row["score"], row["clean"]))
    print(f"--transform {best['setting']}")


def judged(classifier: nn.Module, external: nn.Module, kind: Transformation, held: Dataset) -> dict[str, Any]:
    """Return what a classifier behind a transformation names rightly, of held-out pictures, clean and attacked."""
    composed, known = (Transformed(classifier, external, kind, backward) for backward in ("none", "identity"))
    asked: dict[str, Any] = {"images": held.images, "labels": held.labels, "seeds": 5 if kind.random else 1}
    clean = withstood(composed, None, **asked)
    worst = {}
    for radius in RADII:
        budget = Linf.of_255(radius)
        standing = clean & withstood(composed, climbing(budget, kind), made_on=known, **asked)
        standing &= withstood(composed, PGD(budget=budget, steps=20), made_on=Both(classifier, external), **asked)
        worst[str(budget)] = float(standing.mean())
    return {"clean": float(clean.mean()), "worst": worst, "score": statistics.mean(worst.values())}


def climbing(budget: Budget, kind: Transformation) -> PGD:
    return EOTPGD(budget=budget, steps=20, samples=5) if kind.random else PGD(budget=budget, steps=20)


# What it withstands


def run_all(options: argparse.Namespace) -> None:
    data, _ = parted(options.source, options.pictures, options.held)
    tests = load(options.test, limit=options.attacked)
    for seed in options.seeds:
        for kind in ("behind", "noise"):
            row = setting(data, options) | {
                "kind": kind,
                "setting": options.transform,
                "seed": seed,
                "attacked": len(tests),
                "queries": options.queries,
            }
            if key(row) in {row["key"] for row in rows("transformation_accuracy")}:
                continue
            external, first = trained(data, erm(options), seed, options)
            behind = transformation_named(f"adversarial:{options.transform}", external, data.class_names)
            # As many steps of its own as the other takes of the external network.
            robust = named(
                "adversarial", epochs=options.epochs, batch_size=options.batch_size, steps=max(1, behind.steps)
            )
            baseline, of_baseline = trained(data, robust, seed, options)
            if kind == "noise":
                behind = replace(behind, steps=0, random_start=True)
            file, cost = trained(data, erm(options), seed, options, behind)
            start = time.perf_counter()
            found = adaptive_panel(
                network_of(file),
                network_of(external),
                behind.transformation,
                tests.images,
                tests.labels,
                budget=BUDGET,
                baseline=network_of(baseline),
                queries=options.queries,
                sweep=kind == "behind",
                seed=seed,
            )
            append(
                "transformation_accuracy",
                key=key(row),
                **row,
                costs={kind: cost, "external": first, "baseline": of_baseline},
                **asdict(found),
                seconds=time.perf_counter() - start,
                device=PLACE.type,
                torch=torch.__version__,
            )
            stop_after(options.deadline)


# Table


def print_table(options: argparse.Namespace) -> None:
    alike = ("model", "pictures", "epochs", "batch_size", "data", "attacked", "queries", "setting", "kind")
    found = rows("transformation_accuracy")
    for chosen in dict.fromkeys(tuple(row[name] for name in alike) for row in found):
        of = [row for row in found if tuple(row[name] for name in alike) == chosen]
        model, pictures, epochs, batch_size, _, attacked, queries, text, kind = chosen
        print(f"{kind} ({text}): {model}, {pictures:,} pictures, {epochs} epochs, batches of {batch_size};", end=" ")
        print(f"{attacked:,} test pictures, {queries:,} queries")
        for name in of[0]["accuracies"]:
            print(f"  {name}: {spread([100 * row['accuracies'][name]['mean'] for row in of])}")
        for name in of[0]["baselines"]:
            print(f"  {name}: {spread([100 * row['baselines'][name]['mean'] for row in of])}")
        for radius in of[0]["sweep"]:
            shares = [100 * row["sweep"].get(radius, 0.0) for row in of]  # a sweep ends where nothing is left
            print(f"  bpda, radius {255 * float(radius):g}/255: {spread(shares)}")
        for name in of[0]["costs"]:
            costs = [row["costs"][name] for row in of]
            passes, external, seconds = (
                statistics.mean(cost[what] for cost in costs) for what in ("passes", "external_passes", "seconds")
            )
            print(f"  training {name}: {passes:,.0f} passes, {external:,.0f} of the external network, {seconds:.0f} s")
        print(f"  an answer: 1 pass forward, {of[0]['external_passes']} forward and backward of the external network")


# Speed


def measure_speed(options: argparse.Namespace) -> None:
    steps = options.steps
    external = models.create(options.model, classes=10).to(memory_format=torch.channels_last).eval()
    images = torch.rand(options.pictures, 3, 32, 32).to(memory_format=torch.channels_last)
    kind = Transformation(steps=steps)

    def bare() -> None:
        with frozen(external):
            for _ in range(steps):
                moved = images.detach().requires_grad_()
                logits = external(moved)
                torch.autograd.grad(nn.functional.cross_entropy(logits, logits.argmax(1)), moved)

    works: dict[str, Callable[[], object]] = {"bare": bare, "transformation": lambda: kind(external, images)}
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(options.rounds + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start)
    rounds = zip(times["transformation"][1:], times["bare"][1:], strict=True)  # the first warms up
    append(
        "transformation",
        model=options.model,
        steps=steps,
        threads=torch.get_num_threads(),
        time_over_passes=statistics.median(ours / passes for ours, passes in rounds),
        torch=torch.__version__,
    )


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    speed, sweeping, run, table = (verbs.add_parser(name) for name in ("speed", "sweep", "run", "table"))
    for verb, work in ((speed, measure_speed), (sweeping, sweep), (run, run_all), (table, print_table)):
        verb.set_defaults(work=work)
    speed.add_argument("--pictures", type=int, default=256)
    speed.add_argument("--steps", type=int, default=10)
    speed.add_argument("--rounds", type=int, default=5)
    for verb in (speed, sweeping, run):
        verb.add_argument("--model", default="resnet9-w16")
    for verb in (sweeping, run):
        verb.add_argument("source", type=Path, metavar="DIR", help="pictures to train on, a subfolder a class")
        verb.add_argument("--pictures", "--limit", type=int, default=2000, help="to train on, of each class in turn")
        verb.add_argument("--held", type=int, default=100, help="others of that folder, to choose a setting by")
        verb.add_argument("--epochs", type=int, default=10)
        verb.add_argument("--batch-size", type=int, default=64)
        verb.add_argument("--runs", type=Path, default=Path("transformation-runs"), metavar="DIR", help="for networks")
        verb.add_argument("--minutes", type=float, default=math.inf, help="stop after so many")
    sweeping.add_argument("--settings", nargs="+", default=SETTINGS, metavar="OPTION=VALUE,...")
    sweeping.add_argument("--seed", type=int, default=0)
    run.add_argument("--test", type=Path, required=True, metavar="DIR")
    run.add_argument("--transform", default=SETTINGS[1], metavar="OPTION=VALUE,...", help="as sweep has chosen it")
    run.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    run.add_argument("--attacked", type=int, default=100, help="test pictures")
    run.add_argument("--queries", type=int, default=500, help="to each of them")
    options = parser.parse_args()
    options.deadline = deadline(getattr(options, "minutes", math.inf))
    return options


if __name__ == "__main__":
    main()
