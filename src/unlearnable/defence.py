"""Networks defended by randomness or by a transformation, and the panels of attacks that tell what is left of it."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import nn

from unlearnable.audit.grid import recipe_options
from unlearnable.budgets import Budget, Linf, parse
from unlearnable.countermeasures.adversarial_transformation import AdversarialTransformation
from unlearnable.errors import expected
from unlearnable.options import check
from unlearnable.pictures.dataset import Dataset, load
from unlearnable.training.adaptive import adaptive_panel
from unlearnable.training.checkpoint import Epoch, Network, load_network
from unlearnable.training.distributed import local_device
from unlearnable.training.precision import Precision, default_device, for_testing
from unlearnable.training.rsr.panel import noise_panel
from unlearnable.training.withstanding import Spread

Progress = Callable[[int, int], None]
"""Told, now and then, how much is done and how much there is."""


def transformation_named(
    text: str, external: str | os.PathLike[str] | None, class_names: Sequence[str]
) -> AdversarialTransformation:
    """Build a transformation from its text, with its external network, for these classes.

    text: ``adversarial``, or ``adversarial:option=value,...`` with the fields of
        :class:`unlearnable.countermeasures.adversarial_transformation.AdversarialTransformation`.

    Raises InputError for another text, and for an external network that there is not, or of other classes.
    """
    name, options = recipe_options(text, "transformation", "adversarial:steps=10")
    takes = [one.name for one in fields(AdversarialTransformation) if one.name != "external"]
    wrong = repr(name) if name != "adversarial" else next((repr(one) for one in options if one not in takes), None)
    if wrong is not None:
        raise expected(
            f"adversarial, with options {', '.join(takes)}", wrong, "write for example: adversarial:steps=10"
        )
    check(options, get_type_hints(AdversarialTransformation))
    made = AdversarialTransformation(external=None if external is None else Path(external), **options)
    about = made.network[1]
    if about.class_names != tuple(class_names):
        wanted = f"an external network of the same {len(class_names)} classes"
        raise expected(wanted, f"one of {len(about.class_names)} others", "train it on pictures of the same classes")
    return made


@dataclass(frozen=True)
class TrainingCost:
    """What training a network took: pictures forward and backward, its own and the external network's; seconds."""

    gradients: int
    external_gradients: int
    seconds: float

    @classmethod
    def of(cls, about: Network) -> "TrainingCost":
        """Read it off what a checkpoint of ``unlearnable train`` tells."""
        told = about.training
        seconds = sum(Epoch(*epoch).seconds for epoch in told["history"])
        return cls(told["gradients"], told["external_gradients"], seconds)


@dataclass(frozen=True)
class PanelReport:
    """What a defended network withstands: shares of pictures named rightly, with deviation and number of draws.

    defence: "noise" or "transformation". accuracies, baselines: by name (see
        :class:`unlearnable.training.rsr.panel.NoisePanel` and :class:`unlearnable.training.adaptive.AdaptivePanel`).
    gain: what noise seems to add to the baseline under PGD-20, and what under EOT; gain_left: the share of it left.
    sweep: the share that withstands BPDA, by radius. external_passes: that one answer takes of the external network.
    training: what it took, of the ``network`` and of the ``baseline``; of those whose checkpoint tells.
    """

    defence: str
    budget: str
    pictures: int
    accuracies: dict[str, Spread]
    baselines: dict[str, Spread] = field(default_factory=dict)
    gain: tuple[float, float] | None = None
    gain_left: float | None = None
    sweep: dict[str, float] = field(default_factory=dict)
    external_passes: int = 0
    training: dict[str, TrainingCost] = field(default_factory=dict)


def panel(
    checkpoint: str | os.PathLike[str],
    source: str | os.PathLike[str],
    *,
    budget: Budget | None = None,
    external: str | os.PathLike[str] | None = None,
    baseline: str | os.PathLike[str] | None = None,
    queries: int = 5000,
    samples: int = 20,
    limit: int | None = None,
    seed: int = 0,
    device: str | None = None,
    precision: Precision = "auto",
    progress: Progress | None = None,
) -> PanelReport:
    """Attack a defended network of :func:`unlearnable.train` in all the ways that its kind of defence calls for.

    external: the checkpoint that it was trained with, for one behind a transformation. baseline: that of a network to
    compare with, which is not defended. budget: of the attacks; L∞ 8/255 if not given. queries: answers to each
    picture, of the attacks that see nothing else. samples: gradients to a step where answers are random.

    Raises InputError for whatever the caller can mend; a network that is not defended among it.
    """
    budget = budget or Linf.of_255(8)
    network, about = load_network(Path(checkpoint))
    made = transformation_of(about, external)
    if made is None and not about.noise:
        found = "one with neither"
        raise expected("a network with noise or a transformation", found, "attack plain ones by --attack autoattack")
    data = load(source, size=about.size, limit=limit)
    check_pictures(data, about, source)
    place = local_device(device or default_device())
    network = _ready(network, place)
    other, about_both = None, {"network": about}
    if baseline is not None:
        other, beside = load_network(Path(baseline))
        check_pictures(data, beside, source)
        if beside.noise or "transform" in beside.training:
            found = "one with noise on its weights" if beside.noise else "one behind a transformation"
            raise expected("a baseline that is not defended", found, "train one without: --recipe adversarial")
        other = _ready(other, place)
        about_both["baseline"] = beside
    options: dict[str, Any] = {"budget": budget, "baseline": other, "samples": samples, "seed": seed}
    options |= {"precision": for_testing(precision), "progress": progress}
    costs = {name: TrainingCost.of(one) for name, one in about_both.items() if "external_gradients" in one.training}
    if made is None:
        noisy = noise_panel(network, data.images, data.labels, **options)
        known = {f"baseline, {name}": Spread.of([share]) for name, share in noisy.baseline.items()}
        return PanelReport(
            "noise",
            str(budget),
            len(data),
            noisy.accuracies,
            known,
            gain=noisy.gain,
            gain_left=noisy.gain_left,
            training=costs,
        )
    asked = adaptive_panel(
        *(network, _ready(made.network[0], place), made.transformation, data.images, data.labels),
        queries=queries,
        **options,
    )
    return PanelReport(
        "transformation",
        str(budget),
        len(data),
        asked.accuracies,
        asked.baselines,
        sweep={f"{radius:g}": share for radius, share in asked.sweep.items()},
        external_passes=asked.external_passes,
        training=costs,
    )


def transformation_of(about: Network, external: str | os.PathLike[str] | None) -> AdversarialTransformation | None:
    """Build the transformation that a network was trained behind; None where it was trained behind none.

    Raises InputError for another external network than in training, and for one where there was none.
    """
    spec = about.training.get("transform")
    if spec is None:
        if external is not None:
            found = "one that was trained behind none"
            raise expected("a network behind a transformation, with --external", found, "leave --external out")
        return None
    options = {name: value for name, value in spec.items() if name not in ("name", "external", "budget")}
    file = None if external is None else Path(external)
    made = AdversarialTransformation(external=file, budget=parse(spec["budget"]), **options)
    if made.spec()["external"] != spec["external"]:
        wanted = "the external network that it was trained with"
        raise expected(wanted, f"another in {external}", "name that checkpoint with --external")
    return made


def check_pictures(data: Dataset, about: Network, source: str | os.PathLike[str]) -> None:
    """Raise InputError for pictures of other channels or classes than a network was trained on."""
    if data.class_names != about.class_names or data.images.shape[3] != about.channels:
        wanted = f"{about.channels}-channel pictures of the {len(about.class_names)} classes it was trained on"
        found = f"{data.images.shape[3]} channels and {len(data.class_names)} classes in {source}"
        raise expected(wanted, found, "name pictures of the same classes")


def _ready(network: nn.Module, place: torch.device) -> nn.Module:
    return network.to(place).to(memory_format=torch.channels_last)
