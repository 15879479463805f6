"""Robust recipes, plain and accelerated by BulletTrain: what they cost, and how good the networks are.

    uv run benchmarks/robust.py train CIFAR/train --test CIFAR/test [--pictures 4000] [--epochs 8] [--seeds 0 1 2]
    uv run benchmarks/robust.py table [--figure FILE]
    uv run benchmarks/robust.py speed

``train`` trains every recipe by every way and seed, each to its last epoch, and measures it clean, and under PGD-20 or,
with AugMix, under the 15 corruptions at 5 severities (mean of all): on test pictures, which choose nothing, and on as
many of the training folder's pictures as were not trained on, by which a way is chosen; after each epoch too, on fewer
test pictures, for the curve of accuracy over time. The ways are: plainly; by BulletTrain as published, as it is by
default, and with a longer attack, or one view, for outliers. Seconds are of training alone. A row for each goes into
``results/robust.jsonl``, and what stands there already is not run again; ``--minutes`` stops in the middle of a run,
and the same command goes on from there.

``table`` reads those rows: means over the seeds with the 95 % interval of the mean (Student), and the ratios of plain
to accelerated in wall-clock time and in gradients, seed by seed; ``--figure`` draws the curves (PDF and PNG).

``speed`` times one step, in one run, by the median of rounds that take turns: of each recipe over the passes forward
and backward that it cannot do without, of the same batch sizes through the same network, on tensors that lie ready.
BulletTrain's passes forward alone, by which pictures are sorted and counted, are among them; their own share of the
step is told too. The network is brought back after each, so that pictures are sorted alike in all rounds.
"""

import argparse
import copy
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from parts import parted
from rows import append, deadline, key, rows, spread, stop_after
from torch import Tensor, nn
from torch.nn import functional

from unlearnable.attacks import PGD, frozen
from unlearnable.attacks.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from unlearnable.attacks.pgd import answers
from unlearnable.budgets import Linf
from unlearnable.models import models
from unlearnable.pictures.dataset import Dataset, load
from unlearnable.plots import COLOURS, MARKERS, STYLE, save
from unlearnable.training.augmix import VIEWS
from unlearnable.training.bullettrain import PUBLISHED, BulletTrain, Effort, Memory
from unlearnable.training.chance import generator
from unlearnable.training.checkpoint import Epoch, Split
from unlearnable.training.evaluation import Accuracy, evaluate
from unlearnable.training.loop import train
from unlearnable.training.objectives import Objective
from unlearnable.training.precision import autocast, default_device
from unlearnable.training.recipes import Recipe, named

RECIPES: Final = ("adversarial", "trades", "mart", "augmix")
WAYS: Final[dict[str, BulletTrain | None]] = {
    "plain": None,
    "published": PUBLISHED,
    "bullettrain": BulletTrain(),
    "outliers-more": BulletTrain(outlier=Effort(steps=2, size=0.75), views=(1, VIEWS, 0)),
}
PLACE: Final = torch.device(default_device())


def main() -> None:
    options = parsed()
    try:
        run(options)
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from here")


def run(options: argparse.Namespace) -> None:
    {"train": train_all, "table": print_table, "speed": measure_speed}[options.what](options)


# Training


def train_all(options: argparse.Namespace) -> None:
    data, held = parted(options.source, options.pictures, options.tests)
    tests = load(options.test, limit=options.tests)
    build = partial(models.create, options.model, classes=len(data.class_names))
    end = deadline(options.minutes)
    options.runs.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        for name in options.recipes:
            for way in options.ways:
                recipe = named(name, epochs=options.epochs, batch_size=options.batch_size, accelerate=WAYS[way])
                about = {
                    "recipe": name,
                    "way": way,
                    "model": options.model,
                    "seed": seed,
                    "pictures": len(data),
                    "epochs": options.epochs,
                    "batch_size": options.batch_size,
                    "tests": len(tests),
                    "held": len(held),
                    "spec": recipe.spec(),
                    "data": data.fingerprint(),
                }
                if key(about) not in {row["key"] for row in rows("robust")}:
                    measure(data, tests, held, build, recipe, about, end, options)


def measure(
    data: Dataset,
    tests: Dataset,
    held: Dataset,
    build: Callable[[], nn.Module],
    recipe: Recipe,
    about: dict[str, Any],
    end: float,
    options: argparse.Namespace,
) -> None:
    """Train one network, measured after each epoch, and append what came of it."""
    named_by = key(about)
    state, curve = (options.runs / f"{named_by}{suffix}" for suffix in (".run", ".curve"))
    networks: list[nn.Module] = []

    def built() -> nn.Module:
        networks.append(build())
        return networks[0]

    def note(done: int, steps: int, epoch: Epoch | None) -> None:
        if epoch is not None:
            twin = copy.deepcopy(networks[0])  # whose passes are not counted, and whose mode is nobody's
            point = {"epoch": epoch.number} | accuracies(twin, tests.limit(options.curve), about["recipe"])
            with curve.open("a") as file:
                file.write(json.dumps(point) + "\n")
            words = " ".join(f"{about[name]}" for name in ("recipe", "way", "seed"))
            print(f"{words}: {point}, {epoch.seconds:.0f} s", flush=True)
        if done < steps:
            stop_after(end)

    trained = train(data, model=built, recipe=recipe, seed=about["seed"], checkpoint=state, progress=note)
    points = {point["epoch"]: point for point in map(json.loads, curve.read_text().splitlines())}
    seconds = np.cumsum([epoch.seconds for epoch in trained.history])
    append(
        "robust",
        key=named_by,
        **about,
        **accuracies(trained.model, tests, about["recipe"]),
        on_held=accuracies(trained.model, held, about["recipe"]),
        seconds=float(seconds[-1]),
        gradients=trained.gradients,
        shares=[epoch[4:7] for epoch in trained.history],
        curve=[points[n + 1] | {"seconds": float(at)} for n, at in enumerate(seconds)],
        threads=torch.get_num_threads(),
        device=PLACE.type,
        torch=torch.__version__,
    )
    state.unlink()
    curve.unlink()


def accuracies(network: nn.Module, tests: Dataset, recipe: str) -> dict[str, float]:
    clean = evaluate(network, tests.images, tests.labels).share
    if recipe == "augmix":
        return {"clean": clean, "corrupted": corrupted(network, tests)}
    return {"clean": clean, "pgd20": withstood(network, tests)}


def corrupted(network: nn.Module, tests: Dataset) -> float:
    shares = []
    for name in CORRUPTIONS:
        for severity in SEVERITIES:
            changed = corrupt(tests.images, name, severity, ids=tests.ids)
            shares.append(evaluate(network, changed, tests.labels).share)
    return statistics.mean(shares)


def withstood(network: nn.Module, tests: Dataset) -> float:
    """Measure the accuracy under PGD-20 of 2.5 radii in all, L∞ 8/255, from a random start."""
    attack = PGD(budget=Linf.of_255(8), steps=20)
    right = 0
    for start in range(0, len(tests), 250):
        images = torch.from_numpy(tests.images[start : start + 250]).to(PLACE).permute(0, 3, 1, 2) / 255
        labels = torch.from_numpy(tests.labels[start : start + 250]).to(PLACE)
        with autocast(PLACE, "auto"):
            changed = attack(network, images, labels, generator(PLACE, 0, "attack", start))
            with frozen(network):
                right += int((answers(network, changed).argmax(1) == labels).sum())
    return Accuracy(right, len(tests)).share


# Table


def print_table(options: argparse.Namespace) -> None:
    settings = sorted({setting(row) for row in rows("robust")})
    if options.figure:
        draw(options.figure.with_suffix(""), settings)
    for model, pictures, epochs, batch_size in settings:
        print(f"{model}, {pictures:,} pictures, {epochs} epochs, batches of {batch_size}")
        found = {
            (row["recipe"], row["way"], row["seed"]): row
            for row in rows("robust")
            if setting(row) == (model, pictures, epochs, batch_size)
        }
        pairs = sorted({(recipe, way) for recipe, way, _ in found})
        for recipe, way in pairs:
            measures = ("clean", hard(recipe))
            seeds = sorted(seed for one, other, seed in found if (one, other) == (recipe, way))
            of = [found[recipe, way, seed] for seed in seeds]
            words = [f"{name} {spread([100 * row[name] for row in of])}" for name in measures]
            both = [
                (found[recipe, "plain", seed], found[recipe, way, seed])
                for seed in seeds
                if way != "plain" and (recipe, "plain", seed) in found
            ]
            if both:
                words += [
                    f"{name} {spread([a[name] / b[name] for a, b in both])} x" for name in ("seconds", "gradients")
                ]
                words += [f"{name} lost {spread([100 * (a[name] - b[name]) for a, b in both])}" for name in measures]
                lost = ((name, [100 * (a["on_held"][name] - b["on_held"][name]) for a, b in both]) for name in measures)
                words += [f"{name} lost on held-out pictures {spread(values)}" for name, values in lost]
            print(f"  {recipe:12} {way:12} " + "; ".join(words))
            if any(of[0]["shares"][0]):
                shares = np.mean([row["shares"] for row in of], 0)
                print(
                    "    outlier, boundary, robust by epoch: "
                    + ", ".join("/".join(f"{100 * s:.0f}" for s in one) for one in shares)
                )


def hard(recipe: str) -> str:
    return "corrupted" if recipe == "augmix" else "pgd20"


def draw(path: Path, settings: list[tuple[str, int, int, int]]) -> None:
    """Draw accuracy over training time, mean over the seeds: a row a setting, a panel a recipe."""
    recipes = [recipe for recipe in RECIPES if recipe in {row["recipe"] for row in rows("robust")}]
    words = {"pgd20": "accuracy under PGD-20, %", "corrupted": "accuracy on corruptions, %"}
    with rc_context(STYLE):
        figure = Figure(figsize=(3.2 * len(recipes), 2.4 * len(settings)))
        panels = figure.subplots(len(settings), len(recipes), squeeze=False)
        for line, chosen in zip(panels, settings, strict=True):
            for panel, recipe in zip(line, recipes, strict=True):
                for way, colour, marker in zip(WAYS, COLOURS, MARKERS, strict=False):
                    curves = [
                        [(point["seconds"], 100 * point[hard(recipe)]) for point in row["curve"]]
                        for row in rows("robust")
                        if setting(row) == chosen and (row["recipe"], row["way"]) == (recipe, way)
                    ]
                    if curves:
                        seconds, accuracy = np.mean(curves, 0).T
                        label = f"{way} ({len(curves)} seeds)"
                        panel.plot(seconds, accuracy, color=colour, marker=marker, label=label)
                        panel.legend(loc="lower right")
                panel.set(title=recipe, xlabel="seconds of training", ylabel=words[hard(recipe)], xlim=(0, None))
                panel.set_ylim(0)
        save(figure, path)


def setting(row: dict[str, Any]) -> tuple[str, int, int, int]:
    return row["model"], row["pictures"], row["epochs"], row["batch_size"]


# Speed


def measure_speed(options: argparse.Namespace) -> None:
    """Time a step of each recipe over its bare passes, at the shares of a training well under way."""
    rng = torch.Generator(PLACE).manual_seed(0)
    images = torch.rand(options.batch, 3, 32, 32, generator=rng, device=PLACE)
    images = images.contiguous(memory_format=torch.channels_last)
    network = models.create(options.model, classes=10).to(PLACE).to(memory_format=torch.channels_last).train()
    with frozen(network), autocast(PLACE, "auto"):
        said = answers(network, images).argmax(1)
    labels = torch.where(torch.arange(options.batch, device=PLACE) % 20 < 3, (said + 1) % 10, said)  # 15 % are wrong
    ready = images.repeat(3, 1, 1, 1).contiguous(memory_format=torch.channels_last), labels.repeat(3)  # AugMix's views
    works: dict[str, Callable[[], None]] = {}
    memories: dict[str, Memory] = {}
    splits: dict[str, dict[str, int]] = {}
    for name in options.recipes:
        plain = named(name).objective
        # Held at 0.45, and the network as it is: the same split in every round.
        faster, memories[name] = BulletTrain(momentum=1.0).over(plain)
        memories[name].to(PLACE).accuracy.fill_(0.45)
        for way, objective in (("plain", plain), ("bullettrain", faster)):
            work = f"{name} {way}"
            works[work] = partial(one_step, network, objective, images, labels, rng)
            timed(works[work], network)
            split = memories[name].split if way == "bullettrain" else Split(0, options.batch, 0)
            of = needed(name, way, split)
            works[f"{work} passes"] = partial(passes, network, *ready, of)
            if way == "bullettrain":
                works[f"{work} forward passes"] = partial(passes, network, *ready, Needed(of.forward, [], []))
            splits[work] = split._asdict()
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(options.rounds + 1):
        for name, work in works.items():
            times[name].append(timed(work, network))
    for name, memory in memories.items():
        if memory.split._asdict() != splits[f"{name} bullettrain"]:
            raise RuntimeError(f"{name} was sorted otherwise in the last round: {memory.split}")
    found = {name: statistics.median(rounds[1:]) for name, rounds in times.items()}
    over = {f"{name} over its passes": found[name] / found[f"{name} passes"] for name in splits}
    of_step = {
        f"{name}: passes forward alone, of the accelerated step": found[f"{name} bullettrain forward passes"]
        / found[f"{name} bullettrain"]
        for name in options.recipes
    }
    faster_by = {
        f"{name}: plain over accelerated": found[f"{name} plain"] / found[f"{name} bullettrain"]
        for name in options.recipes
    }
    append(
        "robust_speed",
        model=options.model,
        batch=options.batch,
        threads=torch.get_num_threads(),
        device=PLACE.type,
        **over,
        **of_step,
        **faster_by,
        splits=splits,
        seconds=found,
        torch=torch.__version__,
    )


def timed(work: Callable[[], None], network: nn.Module) -> float:
    """Time some passes, and leave the network as it was: its batch statistics decide how pictures are sorted."""
    before = [buffer.clone() for buffer in network.buffers()]
    if PLACE.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if PLACE.type == "cuda":
        torch.cuda.synchronize()
    taken = time.perf_counter() - start
    network.zero_grad(set_to_none=True)
    for buffer, value in zip(network.buffers(), before, strict=True):
        buffer.copy_(value)
    return taken


def one_step(network: nn.Module, objective: Objective, images: Tensor, labels: Tensor, chance: torch.Generator) -> None:
    with autocast(PLACE, "auto"):
        loss = objective(network, images, labels, 0.0, chance).loss
    loss.backward()


class Needed(NamedTuple):
    """How many pictures the passes of a step are made of: forward alone, to their gradient, to that of the weights."""

    forward: list[int]
    attack: list[int]
    update: list[int]


def needed(name: str, way: str, split: Split) -> Needed:
    count = sum(split)
    if name == "augmix":
        return Needed([count] * (way != "plain"), [], [count + 2 * split.boundary])
    updates = [count] * (1 if name == "adversarial" else 2)
    if way == "plain":
        return Needed([count] * (name == "trades"), [count] * 10, updates)
    rule = BulletTrain()
    steps = (rule.outlier.steps, 10, rule.robust.steps)
    attack = [sum(n for n, last in zip(split, steps, strict=True) if step <= last) for step in range(1, max(steps) + 1)]
    return Needed([count, attack[0]], attack, updates)


def passes(network: nn.Module, images: Tensor, labels: Tensor, of: Needed) -> None:
    with autocast(PLACE, "auto"):
        with frozen(network):
            for count in of.forward:
                answers(network, images[:count])
            for count in of.attack:
                moved = images[:count].detach().requires_grad_()
                torch.autograd.grad(functional.cross_entropy(network(moved), labels[:count]), moved)
        losses = [functional.cross_entropy(network(images[:count]), labels[:count]) for count in of.update]
    if losses:
        torch.stack(losses).sum().backward()


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="what", required=True)
    training, table, speed = (verbs.add_parser(name) for name in ("train", "table", "speed"))
    training.add_argument("source", type=Path, metavar="DIR", help="pictures to train on, a subfolder a class")
    training.add_argument("--test", type=Path, required=True, metavar="DIR")
    training.add_argument("--pictures", type=int, default=4000, help="to train on, of each class in turn")
    training.add_argument("--tests", type=int, default=2000, help="to measure the last epoch on, held-out ones alike")
    training.add_argument("--curve", type=int, default=500, help="to measure each epoch on")
    training.add_argument("--epochs", type=int, default=8)
    training.add_argument("--batch-size", type=int, default=128)
    training.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    training.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    training.add_argument(
        "--minutes", type=float, default=math.inf, help="stop after so many; started again it goes on"
    )
    training.add_argument("--runs", type=Path, default=Path("robust-runs"), metavar="DIR", help="for unfinished runs")
    table.add_argument("--figure", type=Path, metavar="FILE", help="draw the curves there")
    speed.add_argument("--rounds", type=int, default=15)
    speed.add_argument("--batch", type=int, default=128)
    for verb in (training, speed):
        verb.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
        verb.add_argument("--model", default="resnet9-w16")
    return parser.parse_args()


if __name__ == "__main__":
    main()
