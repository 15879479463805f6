"""A network and a folder in; how well it does out: as it is, under attack, on corrupted pictures."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from unlearnable.attacks import Attack, AutoAttack
from unlearnable.attacks import named as attack_named
from unlearnable.attacks.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from unlearnable.attacks.corruptions.released import Released, open_released
from unlearnable.budgets import Budget, Linf
from unlearnable.errors import expected
from unlearnable.pictures.dataset import Dataset, load
from unlearnable.training import evaluation
from unlearnable.training.checkpoint import Network, load_network
from unlearnable.training.distributed import local_device
from unlearnable.training.precision import Precision, default_device, for_testing
from unlearnable.training.smoothing import certify

_RADII: Final = (0.25, 0.5, 1, 2, 4)  # of the curve of accuracy by radius, in radii of the budget
_COLOURS: Final = {1: "grey", 3: "colour"}

Progress = Callable[[int, int], None]
"""Told, now and then, how much is done and how much there is."""

Point = tuple[float, float]
"""A radius on the 0 to 1 scale, and the share of the pictures named rightly within it."""


@dataclass(frozen=True)
class EvaluateReport:
    """How well a network does. Accuracies are shares of the pictures named rightly, 0 to 1.

    clean: as the pictures are; interval: its 95 % interval (Wilson).
    attacks: under each attack, by its name. worst: the share that no attack turned. budget: of the attacks.
    certified: share certainly named rightly at each L2 radius, by radius, where asked for.
    corruptions: of each corruption the accuracy at severity 1 to 5, where asked for. mean_corruption_error: share named
        wrongly, over all of them. corrupted_pictures: at each severity of each. corruption_files: the folder that they
        were read from; None if they were made.
    by_radius: of each attack the accuracy at several radii, 0 the first, where figures were asked for.
    figures: those drawn, without their suffixes, .pdf and .png.
    """

    clean: float
    interval: tuple[float, float]
    attacks: dict[str, float]
    worst: float
    budget: str
    pictures: int
    certified: dict[str, float] = field(default_factory=dict)
    corruptions: dict[str, list[float]] = field(default_factory=dict)
    mean_corruption_error: float | None = None
    corrupted_pictures: int = 0
    corruption_files: str | None = None
    by_radius: dict[str, list[Point]] = field(default_factory=dict)
    figures: list[str] = field(default_factory=list)


def evaluate(
    checkpoint: str | os.PathLike[str],
    source: str | os.PathLike[str],
    *,
    attacks: Sequence[str] = (),
    budget: Budget | None = None,
    corruptions: bool = False,
    corruption_files: str | os.PathLike[str] | None = None,
    certify_sigma: float | None = None,
    certify_samples: int = 10_000,
    figures: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    device: str | None = None,
    precision: Precision = "auto",
    progress: Progress | None = None,
) -> EvaluateReport:
    """Test a network that :func:`unlearnable.train` has written on a folder of pictures.

    attacks: names such as fgsm, pgd20, pgd100x5 (100 steps, 5 restarts), autoattack. budget: of them all; L∞ 8/255 if
        not given.
    corruptions: whether to test on the pictures corrupted in 15 ways (see :mod:`unlearnable.attacks.corruptions`).
    corruption_files: a folder of CIFAR-10-C or CIFAR-100-C to test on in place of corrupting the pictures. Its labels
        are numbers, taken to be in the order of the network's classes: CIFAR's are in that of the alphabet.
    certify_sigma: standard deviation of the noise to certify the smoothed network with (see
        :mod:`unlearnable.training.smoothing`); None to leave that out. certify_samples: noisy copies of each picture;
        the paper takes 100,000, and fewer certify smaller radii.
    figures: a folder for curves of accuracy by radius and by severity. For the first, every attack but AutoAttack is
        run at four other radii, from a quarter of the budget to four times it.
    precision: "auto" is float32 here (:func:`unlearnable.training.precision.for_testing`).

    Raises InputError for whatever the caller can mend.
    """
    budget = budget or Linf.of_255(8)
    precision = for_testing(precision)
    chosen = {name: attack_named(name, budget=budget) for name in attacks}
    corruptions = corruptions or corruption_files is not None
    if figures is not None and not (chosen or corruptions):
        raise expected("attacks or corruptions to draw figures of", "neither", "name an attack, or add --corruptions")
    network, about = load_network(Path(checkpoint))
    if "transform" in about.training:
        behind = "one behind a transformation, which makes others of them"
        raise expected("a network that is shown pictures as they are", behind, "ask it with --panel and --external")
    for attack in chosen.values():
        attack.check(len(about.class_names))
    data = load(source, size=about.size, limit=limit)
    _check(data, about, source)
    released = None if corruption_files is None else open_released(Path(corruption_files))
    if released is not None:
        _check_released(released, about)
    sets = _corrupted(data, seed) if released is None else _read(released, about, limit)
    network = network.to(local_device(device or default_device())).to(memory_format=torch.channels_last)
    swept = [name for name, attack in chosen.items() if figures is not None and not isinstance(attack, AutoAttack)]
    tests = len(chosen) + len(swept) * (len(_RADII) - 1) + corruptions * len(CORRUPTIONS) * len(SEVERITIES)
    done = 0

    def tell(pictures: int) -> None:
        if progress is not None:
            progress(done * len(data) + pictures, tests * len(data))

    def withstood(attack: Attack) -> NDArray[np.bool_]:
        return evaluation.withstood(
            network, attack, data.images, data.labels, precision=precision, seed=seed, progress=tell
        )

    standing = evaluation.predictions(network, data.images, precision=precision) == data.labels
    clean = evaluation.Accuracy(int(standing.sum()), len(data))
    shares, worst = {}, standing.copy()
    curves: dict[str, list[Point]] = {}
    for name, attack in chosen.items():
        right = standing & withstood(attack)
        shares[name] = float(right.mean())
        worst &= right
        done += 1
        if figures is not None:
            curves[name] = [(0.0, clean.share), (budget.radius, shares[name])]
    for name in swept:
        for radius in _other_radii(budget):
            attack = attack_named(name, budget=type(budget)(radius))
            right = standing & withstood(attack)
            curves[name].append((radius, float(right.mean())))
            done += 1
        curves[name].sort()
    found: dict[str, list[float]] = {}
    count = 0
    for name, corrupted in sets if corruptions else ():
        count = len(corrupted)
        named = evaluation.evaluate(network, corrupted.images, corrupted.labels, precision=precision)
        found.setdefault(name, []).append(named.share)
        done += 1
        tell(0)
    certified = {}
    if certify_sigma is not None:
        certificate = certify(
            network, data.images, data.labels, sigma=certify_sigma, samples=certify_samples, seed=seed
        )
        radii = [step * certify_sigma / 2 for step in range(7)]
        certified = {f"{radius:g}": certificate.certified_accuracy(radius) for radius in radii}
    report = EvaluateReport(
        clean=clean.share,
        interval=clean.interval(),
        attacks=shares,
        worst=float(worst.mean()),
        budget=str(budget),
        pictures=len(data),
        certified=certified,
        corruptions=found,
        mean_corruption_error=1 - float(np.mean(list(found.values()))) if found else None,
        corrupted_pictures=count,
        corruption_files=None if corruption_files is None else os.fspath(corruption_files),
        by_radius=curves,
    )
    if figures is not None:
        from unlearnable.evaluator_figures import draw

        report.figures.extend(map(str, draw(report, budget, Path(figures))))
    return report


def _check(data: Dataset, about: Network, source: str | os.PathLike[str]) -> None:
    """Raise InputError for pictures that a network was not trained to name."""
    channels = data.images.shape[3]
    if channels != about.channels:
        wanted = f"{_COLOURS[about.channels]} pictures, as the network was trained on"
        raise expected(wanted, f"{_COLOURS[channels]} ones in {source}", "name pictures of the same kind")
    if data.class_names != about.class_names:
        other = sorted(set(data.class_names) ^ set(about.class_names))
        differing = f" that differ in {', '.join(map(repr, other[:3]))}" if other else " in another order"
        wanted = f"pictures of the {len(about.class_names)} classes it was trained on"
        raise expected(wanted, f"{len(data.class_names)}{differing} in {source}", "name pictures of the same classes")


def _other_radii(budget: Budget) -> list[float]:
    """Return the radii of a curve but the budget's own; Linf ends at 1."""
    most = 1.0 if isinstance(budget, Linf) else np.inf
    return sorted({min(times * budget.radius, most) for times in _RADII} - {budget.radius})


def _corrupted(data: Dataset, seed: int) -> Iterator[tuple[str, Dataset]]:
    for name in CORRUPTIONS:
        for severity in SEVERITIES:
            images = corrupt(data.images, name, severity, ids=data.ids, seed=seed)
            yield name, Dataset(images, data.labels, data.class_names, data.ids)


def _check_released(released: Released, about: Network) -> None:
    """Raise InputError for released files of other classes or another size than a network was trained on."""
    classes = int(released.labels.max()) + 1
    if classes != len(about.class_names):
        wanted = f"corrupted pictures of {len(about.class_names)} classes"
        raise expected(wanted, f"{classes} in {released.folder}", "name the files of the data set it was trained on")
    for name in CORRUPTIONS:
        shape = released.pictures(name, SEVERITIES[0]).shape[1:]
        if shape != (about.size, about.size, about.channels):
            wanted, found = f"{about.size}x{about.size}x{about.channels}", "x".join(map(str, shape))
            remedy = "train the network on pictures of that size"
            raise expected(f"corrupted pictures of {wanted}", f"{found} in {released.folder}", remedy)


def _read(released: Released, about: Network, limit: int | None) -> Iterator[tuple[str, Dataset]]:
    for name in CORRUPTIONS:
        for severity, labels in zip(SEVERITIES, released.labels, strict=True):
            images = released.pictures(name, severity)
            ids = tuple(map(str, range(len(labels))))
            read = Dataset(images, labels, about.class_names, ids)
            yield name, read if limit is None else read.limit(limit)
