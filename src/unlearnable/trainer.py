"""A folder in, a trained network out; a network and a folder in, how well it does out."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from unlearnable.attacks import Attack
from unlearnable.attacks import named as attack_named
from unlearnable.budgets import Budget, Linf
from unlearnable.errors import expected
from unlearnable.models import build
from unlearnable.pictures.dataset import Dataset, load
from unlearnable.training import evaluation
from unlearnable.training.bullettrain import accelerators
from unlearnable.training.chance import generator
from unlearnable.training.checkpoint import Epoch, Network, Split, load_network, save_network
from unlearnable.training.distributed import is_first, local_device
from unlearnable.training.loop import train as run
from unlearnable.training.precision import Precision, autocast, default_device
from unlearnable.training.recipes import named as recipe_named
from unlearnable.training.rsr.noise import noise_from, strengths
from unlearnable.training.smoothing import certify

_PRETRAINED: Final = ("finetune", "linear-probe")
_BATCH: Final = 250  # pictures attacked at a time

Progress = Callable[[int, int], None]
"""Told, now and then, how much is done and how much there is."""


@dataclass(frozen=True)
class TrainReport:
    """What training came to.

    checkpoint: the file with the network. gradients: pictures passed forward and backward, attacks included.
    clean_accuracy: share of the test pictures named rightly, with its 95 % interval (Wilson).
    history: of each epoch the number, mean loss, share named rightly in training, and seconds; with ``accelerate`` also
        the shares of its pictures sorted as outlier, boundary and robust.
    """

    checkpoint: str
    recipe: str
    accelerate: str | None
    model: str
    epochs: int
    clean_accuracy: float
    interval: tuple[float, float]
    seconds: float
    gradients: int
    history: list[Epoch] = field(default_factory=list)


def train(
    source: str | os.PathLike[str],
    *,
    test: str | os.PathLike[str],
    out: str | os.PathLike[str],
    recipe: str = "erm",
    options: dict[str, Any] | None = None,
    accelerate: str | None = None,
    model: str = "resnet9-w16",
    weights: str | os.PathLike[str] | None = None,
    size: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    device: str | None = None,
    precision: Precision = "auto",
    tensorboard: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> TrainReport:
    """Train a network on a folder of pictures and test its last epoch on another.

    Started again with the same arguments after an interruption, it goes on where it was, to the same numbers.

    source, test: pictures (see :func:`unlearnable.pictures.dataset.load`) of the same classes.
    out: the checkpoint to write, a safetensors file that plain PyTorch loads too.
    recipe, options: a name of ``unlearnable list recipes``, and the arguments of its builder (epochs, budget ...).
    accelerate: "bullettrain" to spend the attack of a robust recipe where it teaches most (see
        :mod:`unlearnable.training.bullettrain`).
    model: a name of ``unlearnable list models``, or timm/NAME.
    weights: of a network trained before, to start from; the recipes finetune and linear-probe need them.
    size: side of the squares that pictures are brought to; without it all must have one size.
    limit: pictures of each folder, at most; the first of each class in turn.
    tensorboard: a folder for the curves of loss and accuracy, as TensorBoard reads them.

    Raises InputError for whatever the caller can mend.
    """
    started = time.monotonic()
    out = Path(out)
    faster = {} if accelerate is None else {"accelerate": accelerators.create(accelerate)}
    made = recipe_named(recipe, **options or {}, **faster)
    if recipe in _PRETRAINED and weights is None:
        raise expected(f"weights to start {recipe} from", "none", "name a checkpoint with --weights")
    if out.is_dir():
        raise expected("a file to write the checkpoint to", f"the folder {out}", f"name {out / 'network.safetensors'}")
    data, tests = load(source, size=size, limit=limit), load(test, size=size, limit=limit)
    check_alike(data, tests)
    channels, side = data.images.shape[3], data.images.shape[1]
    start = None if weights is None else Path(weights)
    network = partial(build, model, classes=len(data.class_names), channels=channels, size=side, weights=start)
    state = out.with_name(out.name + ".run")
    log = _tensorboard_log(tensorboard)

    def tell(done: int, total: int, epoch: Epoch | None) -> None:
        if progress is not None:
            progress(done, total)
        if epoch is not None:
            log("loss/train", epoch.loss, epoch.number)
            log("accuracy/train", epoch.accuracy, epoch.number)
            for group in Split._fields if made.accelerate else ():
                log(f"share/{group}", getattr(epoch, group), epoch.number)

    trained = run(
        data,
        model=network,
        recipe=made,
        seed=seed,
        device=device,
        precision=precision,
        checkpoint=state,
        progress=tell,
    )
    accuracy = evaluation.evaluate(trained.model, tests.images, tests.labels, precision=precision)
    log("accuracy/test", accuracy.share, made.epochs)
    told = {name: str(value) if isinstance(value, Budget) else value for name, value in (options or {}).items()}
    about = {"recipe": recipe, "options": told, "seed": seed, **made.spec(), "data": data.fingerprint()}
    about |= {"history": trained.history, "splits": trained.splits}
    if is_first():
        made_of = Network(
            model=model,
            class_names=data.class_names,
            channels=channels,
            size=side,
            training=about,
            noise=bool(strengths(trained.model)),
        )
        save_network(out, trained.model, made_of)
        state.unlink(missing_ok=True)
    return TrainReport(
        str(out),
        recipe,
        accelerate,
        model,
        made.epochs,
        accuracy.share,
        accuracy.interval(),
        time.monotonic() - started,
        trained.gradients,
        trained.history,
    )


def _tensorboard_log(folder: str | os.PathLike[str] | None) -> Callable[[str, float, int], None]:
    """Return what writes a figure, under a name, for an epoch; nothing where there is no folder to write to."""
    if folder is None:
        return lambda *_: None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        raise expected("the tensorboard package", f"no {error.name}", "pip install tensorboard") from None
    writer = SummaryWriter(os.fspath(folder))

    def write(name: str, value: float, epoch: int) -> None:
        writer.add_scalar(name, value, epoch)
        writer.flush()

    return write


@dataclass(frozen=True)
class EvaluateReport:
    """How well a network does.

    clean: share of the pictures named rightly; interval: its 95 % interval (Wilson).
    attacks: the share named rightly under each attack, by its name. worst: the share that no attack turned.
    budget: of the attacks. certified: share certainly named rightly at each L2 radius, by radius, where asked for.
    """

    clean: float
    interval: tuple[float, float]
    attacks: dict[str, float]
    worst: float
    budget: str
    pictures: int
    certified: dict[str, float] = field(default_factory=dict)


def evaluate(
    checkpoint: str | os.PathLike[str],
    source: str | os.PathLike[str],
    *,
    attacks: Sequence[str] = (),
    budget: Budget | None = None,
    certify_sigma: float | None = None,
    certify_samples: int = 10_000,
    limit: int | None = None,
    seed: int = 0,
    device: str | None = None,
    precision: Precision = "auto",
    progress: Progress | None = None,
) -> EvaluateReport:
    """Test a network that :func:`train` has written on a folder of pictures, as they are and under attack.

    attacks: names such as fgsm, pgd20, autoattack. budget: of them all; L∞ 8/255 if not given.
    certify_sigma: standard deviation of the noise to certify the smoothed network with (see
        :mod:`unlearnable.training.smoothing`); None to leave that out. certify_samples: noisy copies of each picture;
        the paper takes 100,000, and fewer certify smaller radii.

    Raises InputError for whatever the caller can mend.
    """
    budget = budget or Linf.of_255(8)
    chosen = {name: attack_named(name, budget=budget) for name in attacks}
    network, about = load_network(Path(checkpoint))
    data = load(source, size=about.size, limit=limit)
    if data.class_names != about.class_names or data.images.shape[3] != about.channels:
        wanted = f"{about.channels}-channel pictures of the {len(about.class_names)} classes it was trained on"
        found = f"{data.images.shape[3]} channels and {len(data.class_names)} classes in {source}"
        raise expected(wanted, found, "name pictures of the same classes")
    place = local_device(device or default_device())
    network = network.to(place).to(memory_format=torch.channels_last)
    standing = evaluation.predictions(network, data.images, precision=precision) == data.labels
    clean = evaluation.Accuracy(int(standing.sum()), len(data))
    shares, worst = {}, standing.copy()
    for number, (name, attack) in enumerate(chosen.items()):

        def tell(done: int, number: int = number) -> None:
            if progress is not None:
                progress(number * len(data) + done, len(chosen) * len(data))

        right = standing & _withstood(network, attack, data, place, precision, seed, tell)
        shares[name] = float(right.mean())
        worst &= right
    certified = {}
    if certify_sigma is not None:
        certificate = certify(
            network, data.images, data.labels, sigma=certify_sigma, samples=certify_samples, seed=seed
        )
        radii = [step * certify_sigma / 2 for step in range(7)]
        certified = {f"{radius:g}": certificate.certified_accuracy(radius) for radius in radii}
    return EvaluateReport(clean.share, clean.interval(), shares, float(worst.mean()), str(budget), len(data), certified)


def check_alike(data: Dataset, tests: Dataset) -> None:
    """Raise InputError unless two sets have the same classes and kind of pictures."""
    if data.class_names != tests.class_names:
        other = sorted(set(data.class_names) ^ set(tests.class_names))
        found = f"{len(tests.class_names)} that differ in {', '.join(map(repr, other[:3]))}"
        raise expected(f"test pictures of the same {len(data.class_names)} classes", found, "check the folders' names")
    if data.images.shape[1:] != tests.images.shape[1:]:
        here, there = ("x".join(map(str, one.images.shape[1:])) for one in (data, tests))
        raise expected(f"test pictures of {here}", there, "bring both to one size with --size")


def _withstood(
    network: torch.nn.Module,
    attack: Attack,
    data: Dataset,
    place: torch.device,
    precision: Precision,
    seed: int,
    tell: Callable[[int], None],
) -> NDArray[np.bool_]:
    """Attack every picture and return, (count,), which ones are still named rightly."""
    kept = []
    for start in range(0, len(data), _BATCH):
        part = slice(start, start + _BATCH)
        labels = torch.from_numpy(data.labels[part]).to(place)
        images = torch.from_numpy(np.ascontiguousarray(data.images[part])).to(place).permute(0, 3, 1, 2) / 255
        with autocast(place, precision), noise_from(network, generator(place, seed, "noise", start)):
            changed = attack(network, images, labels, generator(place, seed, "attack", start))
            with torch.inference_mode():
                kept.append((network(changed).argmax(1) == labels).cpu().numpy())
        tell(min(start + _BATCH, len(data)))
    return np.concatenate(kept)
