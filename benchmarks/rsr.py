"""Noise on the weights, lasso and pruning: what they cost, and what is left of accuracy, robustness and size.

    uv run benchmarks/rsr.py speed
    uv run benchmarks/rsr.py lasso CIFAR/train [--prices 3e-4 1e-3 3e-3 1e-2]
    uv run benchmarks/rsr.py run CIFAR/train --test CIFAR/test --price P [--seeds 0 1 2]
    uv run benchmarks/rsr.py table [--figure FILE]

``speed`` compares, in one run and by the median of rounds that take turns, an epoch with noise and one without, plain
and adversarial; and the sparse file of a network pruned at 85 % with its dense one.

``lasso`` chooses the price of weights: PGD-AT with noise and each price, pruned at 85 %, is judged along mean gradients
on pictures of the training folder that are not trained on.

``run`` trains PGD-AT, with noise, with lasso, with both; prunes, with and without training afterwards; and asks every
network what it withstands: on the first test pictures of each class in turn, clean accuracy on more of them. Networks
with noise are asked as ``evaluate --panel`` asks, PGD-AT of the same seed being the baseline, and the dense ones and
those pruned at 85 % by AutoAttack, too, on fewer pictures still.

What is written down already is not run again: networks in --runs, rows in ``results/rsr_lasso.jsonl`` and
``results/rsr_accuracy.jsonl``. ``--minutes`` stops in the middle, and the same command goes on from there. ``table``
reads those rows: means over the seeds with the 95 % interval of the mean (Student); ``--figure`` draws accuracy against
sparsity (PDF and PNG), of the largest such table.
"""

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from parts import parted, setting
from rows import append, deadline, key, rows, spread, stop_after
from torch import nn

from unlearnable.attacks import EOTPGD, PGD, AutoAttack, fgsm
from unlearnable.budgets import Linf
from unlearnable.models import models
from unlearnable.pictures.dataset import Dataset, load
from unlearnable.plots import COLOURS, MARKERS, STYLE, save
from unlearnable.training.checkpoint import Network, load_network, save_network
from unlearnable.training.loop import train
from unlearnable.training.precision import default_device
from unlearnable.training.recipes import Recipe, named
from unlearnable.training.rsr.costs import layer_costs, together
from unlearnable.training.rsr.noise import inject_noise, strengths
from unlearnable.training.rsr.panel import noise_panel
from unlearnable.training.rsr.pruning import fine_tune, prune, reestimate
from unlearnable.training.rsr.weights import places
from unlearnable.training.withstanding import Spread, withstood

BUDGET: Final = Linf.of_255(8)
KINDS: Final = {  # with noise, with lasso
    "at": (False, False),
    "at+noise": (True, False),
    "at+lasso": (False, True),
    "at+noise+lasso": (True, True),
}
HEADLINE: Final = 0.85  # of ResNet-18's weights are pruned in the paper
PUBLISHED: Final = "clean +0.68, under PGD +8.72"  # points won over PGD-AT all the same
DRAWS: Final = 5  # of the noise
PLACE: Final = torch.device(default_device())


def main() -> None:
    options = parsed()
    try:
        options.work(options)
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from here")


# Networks


def recipe(options: argparse.Namespace, *, noise: bool, price: float) -> Recipe:
    asked = {"epochs": options.epochs, "batch_size": options.batch_size, "noise": noise, "lasso": price}
    return named("adversarial", steps=7, **asked)


def dense(data: Dataset, made: Recipe, seed: int, options: argparse.Namespace) -> nn.Module:
    """Train a network, or read the one that was trained."""
    about = {"model": options.model, "seed": seed, "spec": made.spec(), "data": data.fingerprint()}
    file = options.runs / f"{key(about)}.safetensors"
    if not file.exists():
        state = file.with_suffix(".run")
        network = train(
            data,
            model=partial(models.create, options.model, classes=len(data.class_names)),
            recipe=made,
            seed=seed,
            checkpoint=state,
            progress=lambda *_: stop_after(options.deadline),
        ).model
        names, channels, size = data.class_names, data.images.shape[3], data.images.shape[1]
        save_network(
            file,
            network,
            Network(
                model=options.model, class_names=names, channels=channels, size=size, training=about, noise=made.noise
            ),
        )
        state.unlink()
    return load_network(file)[0].to(PLACE).to(memory_format=torch.channels_last)


def cut(network: nn.Module, data: Dataset, made: Recipe, sparsity: float, epochs: int, seed: int) -> float:
    """Prune a network as ``unlearnable prune`` does; return the share that is cut off."""
    share = prune(network, sparsity)
    reestimate(network, data, made, seed=seed)
    if epochs:
        fine_tune(network, data, made, epochs, seed=seed)
    return share


# The price of weights


def choose_price(options: argparse.Namespace) -> None:
    data, held = parted(options.source, options.pictures, options.held)
    attack = EOTPGD(budget=BUDGET, steps=10, samples=5)
    asked: dict[str, Any] = {"images": held.images, "labels": held.labels, "seeds": DRAWS}
    about = setting(data, options) | {"held": len(held), "seed": options.seed}
    for price in options.prices:
        row = about | {"price": price}
        if key(row) in {row["key"] for row in rows("rsr_lasso")}:
            continue
        made = recipe(options, noise=True, price=price)
        network = dense(data, made, options.seed, options)
        zeros = zeros_of(network)
        share = cut(network, data, made, HEADLINE, 0, options.seed)
        clean, robust = (float(withstood(network, one, **asked).mean()) for one in (None, attack))
        append("rsr_lasso", key=key(row), **row, zeros=zeros, share=share, clean_on_held=clean, eot_on_held=robust)
    found = [row for row in rows("rsr_lasso") if about.items() <= row.items()]
    for row in sorted(found, key=lambda row: row["price"]):
        figures = {name: row[name] for name in ("zeros", "share", "clean_on_held", "eot_on_held")}
        print(f"  {row['price']:g}: " + ", ".join(f"{name} {100 * share:.1f}" for name, share in figures.items()))
    print(f"--price {max(found, key=lambda row: row['eot_on_held'])['price']:g}")


def zeros_of(network: nn.Module) -> float:
    values = torch.cat([place.values.detach().flatten() for place in places(network)])
    return float((values == 0).float().mean())


# What networks withstand


def run_all(options: argparse.Namespace) -> None:
    data, _ = parted(options.source, options.pictures, options.held)
    tests = load(options.test, limit=options.tests)
    for seed in options.seeds:
        for kind, (noise, lasso) in KINDS.items():
            made = recipe(options, noise=noise, price=options.price if lasso else 0.0)
            whole = [(0.0, 0)]
            pruned = [(sparsity, epochs) for sparsity in options.sparsity for epochs in options.fine_tuning]
            for sparsity, epochs in whole + pruned * (kind in options.pruned):
                row = setting(data, options) | {
                    "kind": kind,
                    "price": made.lasso,
                    "sparsity": sparsity,
                    "fine_tuning": epochs,
                    "seed": seed,
                    "tests": len(tests),
                    "attacked": options.attacked,
                    "autoattack": options.autoattack,
                }
                if key(row) in {row["key"] for row in rows("rsr_accuracy")}:
                    continue
                network = dense(data, made, seed, options)
                baseline = dense(data, recipe(options, noise=False, price=0.0), seed, options)
                zeros, share = zeros_of(network), 0.0
                if sparsity:
                    share = cut(network, data, made, sparsity, epochs, seed)
                start = time.perf_counter()
                found = withstands(network, baseline, tests, options, thoroughly=sparsity in (0, HEADLINE))
                append(
                    "rsr_accuracy",
                    key=key(row),
                    **row,
                    zeros=zeros,
                    share=share,
                    **found,
                    **costs(network, data),
                    seconds=time.perf_counter() - start,
                    device=PLACE.type,
                    torch=torch.__version__,
                )
                stop_after(options.deadline)


def withstands(
    network: nn.Module, baseline: nn.Module, tests: Dataset, options: argparse.Namespace, *, thoroughly: bool
) -> dict[str, Any]:
    """Return the clean accuracy, and on fewer pictures those under attack, with their deviations over the noise."""
    some = tests.limit(options.attacked)
    asked: dict[str, Any] = {"images": some.images, "labels": some.labels}
    draws = DRAWS if strengths(network) else 1
    clean = float(withstood(network, None, images=tests.images, labels=tests.labels, seeds=draws).mean())
    if draws == 1:
        attacks = {"fgsm": fgsm(budget=BUDGET), **{f"pgd{n}": PGD(budget=BUDGET, steps=n) for n in (7, 20)}}
        found = {name: float(withstood(network, attack, **asked).mean()) for name, attack in attacks.items()}
        return {"clean": clean, "accuracies": found, "deviations": {}}
    panel = noise_panel(network, **asked, budget=BUDGET, baseline=baseline, seeds=DRAWS, autoattack=False)
    known = dict(panel.accuracies)
    if thoroughly and options.autoattack:
        few, attack = tests.limit(options.autoattack), AutoAttack(budget=BUDGET, version="rand")
        right = withstood(network, attack, images=few.images, labels=few.labels, seeds=DRAWS)
        known["autoattack-rand"] = Spread.of(right.mean(1).tolist())
    accuracies = {name: found.mean for name, found in known.items()}
    deviations = {name: found.deviation for name, found in known.items()}
    return {"clean": clean, "accuracies": accuracies, "deviations": deviations, "gain_left": panel.gain_left}


def costs(network: nn.Module, data: Dataset) -> dict[str, float]:
    """Return what is left of the multiply-adds, and of the file."""
    layers = together(layer_costs(network, channels=data.images.shape[3], size=data.images.shape[1]))
    return {"multiply_adds_left": layers.remaining / layers.multiply_adds, "sparse_over_dense": sparse_size(network)}


def sparse_size(network: nn.Module) -> float:
    """Return the size of a network's sparse file over that of its dense one."""
    about = Network(model="", class_names=(), channels=3, size=32, training={})
    with tempfile.TemporaryDirectory() as folder:
        files = {sparse: Path(folder) / str(sparse) for sparse in (False, True)}
        for sparse, file in files.items():
            save_network(file, network, about, sparse=sparse)
        return files[True].stat().st_size / files[False].stat().st_size


# Table


ALIKE: Final = ("model", "pictures", "epochs", "batch_size", "data", "tests", "attacked")  # in rows of one table


def print_table(options: argparse.Namespace) -> None:
    blocks: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows("rsr_accuracy"):
        blocks.setdefault(tuple(row[name] for name in ALIKE), []).append(row)
    for alike, chosen in blocks.items():
        model, pictures, epochs, batch_size, _, tests, attacked = alike
        print(f"{model}, {pictures:,} pictures, {epochs} epochs, batches of {batch_size};", end=" ")
        print(f"clean on {tests:,} test pictures, attacked {attacked:,} of them")
        baselines = {row["seed"]: row for row in chosen if row["kind"] == "at" and not row["sparsity"]}
        for name, of in lines(chosen).items():
            print(f"  {name}: " + "; ".join(told(of)))
            if name != "at" and all(row["seed"] in baselines for row in of):
                print("    over at: " + "; ".join(gains([(row, baselines[row["seed"]]) for row in of])))
    if options.figure:
        draw(options.figure.with_suffix(""), max(blocks.values(), key=len))
    print(f"published, of ResNet-18 pruned at 85 %, over at: {PUBLISHED}")


def lines(chosen: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Sort rows by what was done to the network; a row a seed in each."""
    out: dict[str, list[dict[str, Any]]] = {}
    for row in chosen:
        words = [row["kind"]]
        words += [f"lasso {row['price']:g}"] * bool(row["price"])
        words += [f"pruned at {100 * row['sparsity']:g} %"] * bool(row["sparsity"])
        words += [f"and trained on for {row['fine_tuning']}"] * bool(row["fine_tuning"])
        out.setdefault(", ".join(words), []).append(row)
    return out


def told(of: list[dict[str, Any]]) -> list[str]:
    """Word accuracies in percent: the mean over seeds; in brackets the mean deviation over draws of the noise."""
    words = [f"clean {spread([100 * row['clean'] for row in of])}"]
    for name in of[0]["accuracies"]:
        if name != "clean" and all(name in row["accuracies"] for row in of):
            word = f"{name} {spread([100 * row['accuracies'][name] for row in of])}"
            deviation = statistics.mean(100 * row["deviations"].get(name, 0.0) for row in of)
            words.append(f"{word} [{deviation:.1f}]" if deviation else word)
    sizes = ("zeros", "share", "multiply_adds_left", "sparse_over_dense")
    return words + [f"{name} {statistics.mean(row[name] for row in of):.3f}" for name in sizes]


def gains(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[str]:
    """Word the points won over PGD-AT of the same seed; and what share of those under PGD-20 is left under EOT."""
    words = [f"clean {spread([100 * (row['clean'] - at['clean']) for row, at in pairs])}"]
    means = {}
    for name in ("pgd20", "eot-pgd20", "transfer-noise-off", "pgd20, noise off", "worst"):
        if all(name in row["accuracies"] for row, _ in pairs):
            won = [100 * (row["accuracies"][name] - at["accuracies"]["pgd20"]) for row, at in pairs]
            words.append(f"{name} {spread(won)}")
            means[name] = statistics.mean(won)
    if "eot-pgd20" in means and means["pgd20"] > 0:
        words.append(f"EOT leaves {100 * means['eot-pgd20'] / means['pgd20']:.0f} % of the gain under PGD-20")
    return words


def draw(path: Path, chosen: list[dict[str, Any]]) -> None:
    """Draw accuracy against sparsity, mean over the seeds: a panel a measure, PGD-AT's own as a line across."""
    curves: dict[str, dict[float, list[dict[str, Any]]]] = {}
    for row in chosen:
        after = f", trained on for {row['fine_tuning']}" if row["fine_tuning"] else ""
        curves.setdefault(f"{row['kind']}{after}", {}).setdefault(row["sparsity"], []).append(row)
    measures: dict[str, Callable[[dict[str, Any]], float]] = {
        "clean": lambda row: row["clean"],
        "PGD-20": lambda row: row["accuracies"]["pgd20"],
        "PGD-20, EOT under noise": lambda row: row["accuracies"].get("eot-pgd20", row["accuracies"]["pgd20"]),
    }
    with rc_context(STYLE):
        figure = Figure(figsize=(9.6, 2.8))
        for panel, (title, measure) in zip(figure.subplots(1, 3), measures.items(), strict=True):
            for name, colour, marker in zip(curves, COLOURS, MARKERS, strict=False):
                points = sorted(curves[name].items())
                means = [100 * statistics.mean(map(measure, of)) for _, of in points]
                panel.plot([100 * s for s, _ in points], means, color=colour, marker=marker, label=name)
                if name == "at":
                    panel.axhline(means[0], color=colour, linewidth=0.8, linestyle="--")
            panel.set(title=title, xlabel="weights cut off, %", ylabel="accuracy, %")
            panel.set_ylim(0)
        panel.legend()
        save(figure, path)


# Speed


def epoch(data: Dataset, model: str, made: Recipe) -> float:
    """Time one epoch, without what comes before its first step."""
    times: list[float] = []
    build = partial(models.create, model, classes=10)
    train(data, model=build, recipe=made, progress=lambda *_: times.append(time.perf_counter()))
    return (times[-1] - times[0]) * len(times) / (len(times) - 1)


def measure_speed(options: argparse.Namespace) -> None:
    rng, count, batch = np.random.default_rng(0), options.pictures, 128
    images, labels = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, count)
    data = Dataset(images, labels, tuple(map(str, range(10))), tuple(map(str, range(count))))
    recipes = {
        (name, noise): named(name, epochs=1, batch_size=batch, noise=noise)
        for name in ("erm", "adversarial")
        for noise in (False, True)
    }
    some = {"erm": data, "adversarial": data.select(np.arange(max(2 * batch, count // 5)))}
    works: dict[tuple[str, bool], Callable[[], float]] = {
        kind: partial(epoch, some[kind[0]], options.model, made) for kind, made in recipes.items()
    }
    times: dict[tuple[str, bool], list[float]] = {kind: [] for kind in works}
    for _ in range(options.rounds + 1):
        for kind, work in works.items():
            times[kind].append(work())
    found = {kind: statistics.median(taken[1:]) for kind, taken in times.items()}  # the first warms up
    network = inject_noise(models.create(options.model, classes=10))
    prune(network, HEADLINE)
    append(
        "rsr",
        model=options.model,
        threads=torch.get_num_threads(),
        noise_time_over_plain=found["erm", True] / found["erm", False],
        noise_time_over_adversarial=found["adversarial", True] / found["adversarial", False],
        sparse_size_over_dense_at_85=sparse_size(network),
        torch=torch.__version__,
    )


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    speed, lasso, run, table = (verbs.add_parser(name) for name in ("speed", "lasso", "run", "table"))
    for verb, work in ((speed, measure_speed), (lasso, choose_price), (run, run_all), (table, print_table)):
        verb.set_defaults(work=work)
    speed.add_argument("--model", default="resnet9-w16")
    speed.add_argument("--pictures", type=int, default=1280)
    speed.add_argument("--rounds", type=int, default=5)
    for verb in (lasso, run):
        verb.add_argument("source", type=Path, metavar="DIR", help="pictures to train on, a subfolder a class")
        verb.add_argument("--model", default="resnet9-w16")
        verb.add_argument("--pictures", "--limit", type=int, default=2000, help="to train on, of each class in turn")
        verb.add_argument("--held", type=int, default=200, help="others of that folder, to choose the price by")
        verb.add_argument("--epochs", type=int, default=10)
        verb.add_argument("--batch-size", type=int, default=64)
        verb.add_argument("--runs", type=Path, default=Path("rsr-runs"), metavar="DIR", help="for networks")
        verb.add_argument("--minutes", type=float, default=math.inf, help="stop after so many")
    lasso.add_argument("--prices", type=float, nargs="+", default=[3e-4, 1e-3, 3e-3, 1e-2])
    lasso.add_argument("--seed", type=int, default=0)
    run.add_argument("--test", type=Path, required=True, metavar="DIR")
    run.add_argument("--price", type=float, required=True, help="of weights, as lasso has chosen it")
    run.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    run.add_argument("--sparsity", type=float, nargs="+", default=[0.5, 0.7, 0.85, 0.9, 0.95])
    run.add_argument("--pruned", nargs="+", choices=KINDS, default=["at", "at+noise+lasso"], help="what is pruned, too")
    run.add_argument("--fine-tuning", type=int, nargs="+", default=[0], help="epochs after pruning")
    run.add_argument("--tests", type=int, default=1000, help="pictures for clean accuracy")
    run.add_argument("--attacked", type=int, default=200, help="of them, that are attacked")
    run.add_argument("--autoattack", type=int, default=50, help="of them, by AutoAttack; 0 for none")
    table.add_argument("--figure", type=Path, metavar="FILE", help="draw accuracy against sparsity there")
    options = parser.parse_args()
    options.deadline = deadline(getattr(options, "minutes", math.inf))
    return options


if __name__ == "__main__":
    main()
