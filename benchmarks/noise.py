"""What makes error-minimizing noise hold: how it is perturbed while it is made, its surrogate, and how many steps.

    uv run benchmarks/noise.py CIFAR/train --test CIFAR/test [--noise random] [--surrogate adversary] [--steps 100 400]
        [--noise-steps 5] [--samples 2] [--inner-steps 5]
    uv run benchmarks/noise.py CIFAR/train --test CIFAR/test --table
    uv run benchmarks/noise.py CIFAR/train --test CIFAR/test --figure trade-off

The loop of EM, REM and SEM with every kind of inner perturbation and of surrogate asked for: EM is ``plain`` noise for
a ``plain`` surrogate (over crops and mirrorings here, as all are), SEM ``random`` noise for a surrogate trained against
an ``adversary``, and REM takes the adversary for both; ``none`` are the clean pictures. They are trained on plainly and
adversarially (L-infinity 4/255, 5 steps), as in the audit's tables, and tested on clean pictures: lower is better.
What is not said is as in ``fast``. Settings are chosen by pictures held out of training, given as ``--test``: which
pictures tested is a part of each row. Rows go into ``results/noise.jsonl``; what stands there is not rerun. With the
accuracies goes how steady the noise is: the surrogate's loss on clean pictures, on protected ones, and with their noise
disturbed within 4/255, at random and by PGD. ``--figure`` draws the one against the other, for each training apart.
"""

import argparse
import math
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rows import append, rows
from torch import Tensor, nn

from unlearnable.attacks import PGD, Attack
from unlearnable.budgets import Linf
from unlearnable.models import build
from unlearnable.pictures.dataset import Dataset, load
from unlearnable.plots import save
from unlearnable.protections._bilevel import Member, Perturb, UniformNoise, Unperturbed, fit_noise
from unlearnable.protections.crop_flip import CropFlip
from unlearnable.protections.settings import Settings, preset
from unlearnable.protections.stability import Stability, stability
from unlearnable.protections.trade_off import Point, trade_off
from unlearnable.training.evaluation import evaluate
from unlearnable.training.loop import train
from unlearnable.training.objectives import Adversarial, CrossEntropy
from unlearnable.training.recipes import named

KINDS: Final = ("plain", "random", "adversary")
INNER: Final = Linf.of_255(4)
WAYS: Final = ("erm", "adversarial")
STEADY: Final = 2_000  # pictures that the stability is measured on, of each class in turn
EFFORT: Final = ("noise_steps", "samples", "inner_steps")
DECIDING: Final = ("noise", "surrogate", "steps", *EFFORT, "way", "seed", "pictures", "data", "tests", "epochs")
KIND: Final = (
    "pictures",
    "tests",
    "epochs",
    "noise",
    "surrogate",
    "steps",
    *EFFORT,
)  # what a mean is over the seeds of


@dataclass(frozen=True, kw_only=True)
class Shaking(Attack):
    """Uniform noise in an attack's place, to train a surrogate with."""

    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        return (images + INNER.start(images, generator)).clamp(0, 1)


def main() -> None:
    options = parsed()
    if options.table:
        print_table()
    if options.figure is not None:
        draw(options.figure)
    if options.table or options.figure is not None:
        return
    data, tests = load(options.source, limit=options.pictures), load(options.test)
    for seed in options.seeds:
        for steps in options.steps:
            for noise in options.noise:
                for surrogate in options.surrogate:
                    about = {"noise": noise, "surrogate": surrogate, "steps": steps, "seed": seed}
                    about |= {name: getattr(options, name) for name in EFFORT}
                    about |= {"pictures": len(data), "data": data.fingerprint()[:16], "epochs": options.epochs}
                    about["tests"] = tests.fingerprint()[:16]
                    measure(data, tests, about, options.ways)


def measure(data: Dataset, tests: Dataset, about: dict[str, Any], ways: list[str]) -> None:
    known = {tuple(row[name] for name in DECIDING) for row in rows("noise")}
    left = [way for way in ways if tuple((about | {"way": way})[name] for name in DECIDING) not in known]
    if not left:
        return
    start = time.perf_counter()
    settings = replace(preset("fast"), **{name: about[name] for name in ("steps", *EFFORT)})
    protected, made = protect(data, about["noise"], about["surrogate"], settings, about["seed"])
    seconds = time.perf_counter() - start
    for way in left:
        budget = {} if way == "erm" else {"budget": INNER, "steps": 5}
        recipe = named(way, epochs=about["epochs"], batch_size=64, **budget)
        network = partial(build, "resnet9-w16", classes=len(data.class_names))
        trained = train(protected, model=network, recipe=recipe, seed=about["seed"])
        accuracy = evaluate(trained.model, tests.images, tests.labels).share
        threads = torch.get_num_threads()
        append("noise", **about, way=way, accuracy=accuracy, seconds_made=seconds, **made, threads=threads)


def protect(
    data: Dataset, noise: str, surrogate: str, settings: Settings, seed: int
) -> tuple[Dataset, dict[str, object]]:
    """Return pictures with their noise, and what goes into the rows about it."""
    if noise == "none":
        return data, {"gradients_made": 0, "surrogate_loss": math.nan, "stability": None}
    adversary = PGD(budget=INNER, steps=settings.inner_steps, step_size=2 * INNER.radius / settings.inner_steps)
    perturbs: dict[str, Perturb] = {
        "plain": Unperturbed(),
        "random": UniformNoise(budget=INNER),
        "adversary": adversary,
    }
    member = Member(
        perturb=perturbs[noise],
        objective={
            "plain": CrossEntropy(),
            "random": Adversarial(attack=Shaking(budget=INNER)),
            "adversary": Adversarial(attack=adversary),
        }[surrogate],
        transform=CropFlip(padding=4),
    )
    network = partial(build, settings.model, classes=len(data.class_names))
    made = fit_noise(data, network=network, member=member, settings=settings, radius=Linf.of_255(8), seed=seed)
    noisy = np.clip(data.images.astype(np.int16) + made.patterns, 0, 255).astype(np.uint8)
    protected = replace(data, images=noisy)
    some, same = data.limit(STEADY), protected.limit(STEADY)
    found = stability(made.model, some.images, same.images, some.labels, budget=INNER, seed=seed)
    return protected, {"gradients_made": made.gradients, "surrogate_loss": made.loss, "stability": found._asdict()}


def by_kind() -> dict[tuple[Any, ...], dict[str, list[dict[str, Any]]]]:
    """Gather what has been measured: the rows of each way of training, over the seeds, by all else that decides."""
    found: dict[tuple[Any, ...], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows("noise"):
        kind = tuple(row[name] for name in KIND)
        found[kind][row["way"]].append(row)
    return found


def print_table() -> None:
    for (pictures, tests, epochs, noise, surrogate, steps, *effort), ways in sorted(by_kind().items()):
        words = []
        for way, of in sorted(ways.items()):
            values = [100 * row["accuracy"] for row in of]
            words.append(f"{way} {statistics.mean(values):.1f} ({', '.join(f'{value:.1f}' for value in values)})")
        passes = next(iter(ways.values()))[0]["gradients_made"] / pictures
        kind = f"{pictures:,} pictures, {epochs} epochs, tests {tests}: {noise:9} noise, {surrogate:9} surrogate"
        print(f"{kind}, {steps:4} of {effort}, {passes:5.1f} passes a picture: " + "; ".join(words))


def draw(path: Path) -> None:
    """Draw a figure for each way of training, number of pictures and of epochs, which its file is named by."""
    figures: dict[str, list[Point]] = defaultdict(list)
    for (pictures, tests, epochs, noise, surrogate, *_), ways in sorted(by_kind().items()):
        for way, of in ways.items():
            if noise == "none":
                continue
            passes = of[0]["gradients_made"] / pictures
            losses = (statistics.mean(row["stability"][name] for row in of) for name in Stability._fields)
            accuracy = statistics.mean(row["accuracy"] for row in of)
            point = Point(f"{noise} / {surrogate}, {passes:.0f} passes", Stability(*losses), accuracy)
            figures[f"{path.name}-{way}-{pictures}-{epochs}-{tests}"].append(point)
    for name, points in figures.items():
        save(trade_off(points, chance=0.1), path.with_name(name))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="DIR", help="pictures to protect, a subfolder a class")
    parser.add_argument("--test", type=Path, required=True, metavar="DIR")
    parser.add_argument("--pictures", type=int, default=10_000, help="to protect, of each class in turn")
    parser.add_argument("--noise", nargs="+", choices=("none", *KINDS), default=["random"])
    parser.add_argument("--surrogate", nargs="+", choices=KINDS, default=["adversary"])
    parser.add_argument("--steps", type=int, nargs="+", default=[preset("fast").steps])
    for name in EFFORT:
        usual = getattr(preset("fast"), name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=usual, help=f"of fast: {usual}")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--table", action="store_true", help="print the means of what has been measured")
    parser.add_argument("--figure", type=Path, metavar="PATH", help="draw steadiness against accuracy, as PDF and PNG")
    return parser.parse_args()


if __name__ == "__main__":
    main()
