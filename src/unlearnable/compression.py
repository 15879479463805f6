"""A trained network made smaller: most of its weights cut off; written without them, or as ONNX."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unlearnable.budgets import parse
from unlearnable.defence import check_pictures, transformation_of
from unlearnable.errors import expected
from unlearnable.pictures.dataset import load
from unlearnable.training.bullettrain import BulletTrain
from unlearnable.training.checkpoint import Network, load_network, save_network
from unlearnable.training.evaluation import evaluate
from unlearnable.training.precision import Precision
from unlearnable.training.recipes import Recipe
from unlearnable.training.recipes import named as recipe_named
from unlearnable.training.rsr.costs import LayerCost, layer_costs
from unlearnable.training.rsr.pruning import check_sparsity, fine_tune, reestimate
from unlearnable.training.rsr.pruning import prune as cut_off

Progress = Callable[[int, int], None]
"""Told, now and then, how much is done and how much there is."""


@dataclass(frozen=True)
class PruneReport:
    """What pruning came to.

    sparsity: the share of weights of convolutions and linear layers that is cut off. clean_accuracy: share of the test
    pictures named rightly, with its 95 % interval (Wilson). layers: of each, its name, weights, those left, and
    multiply-adds for a picture, in all and left.
    """

    checkpoint: str
    sparsity: float
    clean_accuracy: float
    interval: tuple[float, float]
    layers: list[LayerCost] = field(default_factory=list)


@dataclass(frozen=True)
class ExportReport:
    """What was written, in bytes, and beside it the bytes of the checkpoint that it was made from."""

    file: str
    bytes: int
    checkpoint_bytes: int
    layers: list[LayerCost] = field(default_factory=list)


def prune(
    checkpoint: str | os.PathLike[str],
    source: str | os.PathLike[str],
    *,
    test: str | os.PathLike[str],
    sparsity: float,
    out: str | os.PathLike[str],
    epochs: int = 0,
    external: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    device: str | None = None,
    precision: Precision = "auto",
    progress: Progress | None = None,
) -> PruneReport:
    """Cut off the smallest weights of a network that :func:`unlearnable.train` has written.

    The statistics of batch normalisation are estimated anew; the network is trained on, at a tenth of the learning
    rate and by the recipe it was trained by, for some epochs if wanted.

    source, test: pictures of the classes it was trained on. sparsity: the share of weights to cut off, 0 to below 1.
    epochs: of training afterwards. external: the checkpoint that it was trained with, for one behind a transformation.

    Raises InputError for whatever the caller can mend, a network that is pruned already among it.
    """
    check_sparsity(sparsity)
    if epochs < 0:
        raise expected("0 epochs or more", str(epochs), "0 trains no more after pruning")
    if Path(out).is_dir():
        raise expected(
            "a file to write the checkpoint to", f"the folder {out}", f"name {Path(out, 'pruned.safetensors')}"
        )
    network, about = load_network(Path(checkpoint))
    behind = transformation_of(about, external)
    data, tests = (load(pictures, size=about.size, limit=limit) for pictures in (source, test))
    check_pictures(data, about, source)
    check_pictures(tests, about, test)
    recipe = recipe_of(about)
    share = cut_off(network, sparsity)
    change = None if behind is None else behind.every_batch(len(about.class_names))
    options: dict[str, Any] = {"change": change, "seed": seed, "device": device, "precision": precision}
    reestimate(network, data, recipe, **options)
    if epochs:
        told = None if progress is None else lambda done, total, _: progress(done, total)
        fine_tune(network, data, recipe, epochs, progress=told, **options)
    tested = network if behind is None else behind.before(network)
    accuracy = evaluate(tested, tests.images, tests.labels, precision=precision, seed=seed)
    about = replace(about, sparsity=share, training={**about.training, "fine_tuning": epochs})
    save_network(Path(out), network, about)
    layers = layer_costs(network, channels=about.channels, size=about.size)
    return PruneReport(str(out), share, accuracy.share, accuracy.interval(), layers)


def recipe_of(about: Network) -> Recipe:
    """Build the recipe that a network was trained by, from its checkpoint.

    Raises InputError for a checkpoint of an earlier release, which does not tell.
    """
    if "options" not in about.training:
        raise expected("a checkpoint that tells how it was trained", "an earlier one", "train the network anew")
    options = dict(about.training["options"])
    if about.training["accelerate"] is not None:
        options["accelerate"] = BulletTrain()
    if "budget" in options:
        options["budget"] = parse(options["budget"])
    return recipe_named(about.training["recipe"], **options)


def export(checkpoint: str | os.PathLike[str], out: str | os.PathLike[str]) -> ExportReport:
    """Write a network for use: compressed without its zeros, or as ONNX without its noise.

    out: a file that ends in .safetensors, which ``evaluate`` reads, or in .onnx.

    Raises InputError for whatever the caller can mend.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    if out.suffix not in (".safetensors", ".onnx"):
        raise expected("a file that ends in .safetensors or .onnx", repr(out.name), "the ending says what is written")
    network, about = load_network(checkpoint)
    if out.suffix == ".onnx":
        from unlearnable.training.rsr.onnx import export_onnx

        export_onnx(out, network, about)
    else:
        save_network(out, network, about, sparse=True)
    layers = layer_costs(network, channels=about.channels, size=about.size)
    return ExportReport(str(out), out.stat().st_size, checkpoint.stat().st_size, layers)
