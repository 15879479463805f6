"""Adversarial transformation: pictures are replaced by adversarial examples of a network that the scraper has already.

Xiao, Zheng, CVPR 2020 (arXiv 1911.11219), made as a defence against adversarial examples (see
:mod:`unlearnable.attacks.transformation`). Against a protection it may wash out what the protection added; and it
brings in what the external network knows.
"""

from dataclasses import dataclass, field
from functools import cached_property
from hashlib import file_digest
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unlearnable.attacks.transformation import Label, Transformation, Transformed
from unlearnable.budgets import Budget, Linf
from unlearnable.countermeasures.base import BatchChange, Countermeasure, countermeasures
from unlearnable.errors import expected
from unlearnable.training.chance import generator
from unlearnable.training.checkpoint import Network, load_network
from unlearnable.training.precision import default_device

_BATCH: Final = 250  # test pictures transformed at a time


@countermeasures.register("adversarial-transformation")
@dataclass(frozen=True, kw_only=True)
class AdversarialTransformation(Countermeasure):
    """Transform every batch of training, and test pictures, by steps of PGD on an external network.

    external: its checkpoint, of ``unlearnable train``, with the same classes and the same size of pictures; frozen.
    budget, steps, step_size, label, targeted, random_start: see
        :class:`unlearnable.attacks.transformation.Transformation`.

    Raises InputError for values out of range, and when used without an external network, or with another's.
    """

    name: ClassVar[str] = "adversarial-transformation"
    main: ClassVar[str | None] = "steps"
    external: Path | None = None
    budget: Budget = field(default_factory=lambda: Linf.of_255(8))
    steps: int = 10
    step_size: float | None = None
    label: Label = "predicted"
    targeted: bool = False
    random_start: bool = False

    def __post_init__(self) -> None:
        self.transformation  # noqa: B018 - checks the values

    @cached_property
    def transformation(self) -> Transformation:
        """What is done to pictures."""
        return Transformation(
            budget=self.budget,
            steps=self.steps,
            step_size=self.step_size,
            label=self.label,
            targeted=self.targeted,
            random_start=self.random_start,
        )

    @cached_property
    def network(self) -> tuple[nn.Module, Network]:
        """The external network, and what it is. Raises InputError for none, and for one that answers at random."""
        network, about = load_network(self._file())
        if about.noise:
            found = f"noise on those of {self.external}"
            raise expected("an external network without noise on its weights", found, "name one trained without")
        return network, about

    def every_batch(self, classes: int) -> BatchChange:
        external, about = self.network
        if classes != len(about.class_names):
            wanted, found = f"an external network of {classes} classes", f"one of {len(about.class_names)}"
            raise expected(wanted, found, "name a checkpoint that was trained on the same classes")

        def change(model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
            self._check(images.shape[2:], images.shape[1])
            return self.transformation(external.to(images.device), images, generator)

        return change

    def at_test(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        self._check(images.shape[1:3], images.shape[3])
        place = torch.device(default_device())
        external = self.network[0].to(place)
        out = np.empty_like(images)
        for start in range(0, len(images), _BATCH):
            part = slice(start, start + _BATCH)
            batch = torch.from_numpy(images[part].copy()).to(place).permute(0, 3, 1, 2) / 255
            changed = self.transformation(external, batch, generator(place, 0, self.name, start))
            out[part] = (255 * changed).round().permute(0, 2, 3, 1).cpu().numpy()
        return out

    def before(self, classifier: nn.Module) -> Transformed:
        """Return a classifier, on its device, behind the transformation."""
        return Transformed(classifier, self.network[0].to(next(classifier.parameters()).device), self.transformation)

    def spec(self) -> dict[str, object]:
        """Return everything that decides what it does; the external network by what is in its file."""
        with self._file().open("rb") as file:
            external = file_digest(file, "sha256").hexdigest()
        return {**super().spec(), "budget": str(self.budget), "external": external}

    def _file(self) -> Path:
        if self.external is None:
            raise expected(f"an external network for {self.name}", "none", "name a checkpoint with --external")
        return self.external

    def _check(self, size: "tuple[int, ...] | torch.Size", channels: int) -> None:
        about = self.network[1]
        if (*size, channels) != (about.size, about.size, about.channels):
            wanted = f"an external network for pictures of {'x'.join(map(str, size))} pixels and {channels} channels"
            found = f"one for {about.size}x{about.size} and {about.channels}"
            raise expected(wanted, found, "name a checkpoint that was trained on pictures of the same size")
