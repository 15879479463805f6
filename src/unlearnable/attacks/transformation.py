"""Adversarial transformation: a picture is replaced by an adversarial example of another network, then classified.

Xiao, Zheng, "One Man's Trash Is Another Man's Treasure: Resisting Adversarial Examples by Adversarial Examples", CVPR
2020 (arXiv 1911.11219). The classifier is trained on such pictures; the other network stays as it is. Which label,
which size and how many steps the abstract does not say; here they are parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

import torch
from torch import Tensor, nn

from unlearnable.attacks.base import cross_entropy, frozen
from unlearnable.attacks.pgd import PGD
from unlearnable.budgets import Budget, Linf
from unlearnable.errors import expected

Label = Literal["predicted", "least-likely", "random"]
"""Of the classes of the external network, which one a picture is moved away from, or towards: the one it names, the one
it finds least likely, or one drawn for each picture."""

Backward = Literal["none", "identity", "unrolled"]
"""What an attack is told of the transformation's gradient: nothing, that it is the identity (BPDA: Athalye, Carlini,
Wagner, ICML 2018), or the derivative of all its steps."""

_SOFTNESS: Final = 0.1  # of the surrogate of the sign, in mean sizes of a picture's gradient
_FLAT: Final = 1e-15  # mean size of a gradient below which its direction has no derivative that float32 can hold


@dataclass(frozen=True, kw_only=True)
class Transformation:
    """The change of a picture x, by steps of PGD on an external network e, and its parameters.

    budget: how far pictures are moved. steps, step_size: as of PGD; 0 steps
        leave the random start alone, the baseline of mere noise.
    label, targeted: see :data:`Label`; targeted descends e's cross-entropy, and otherwise it is climbed. The label is
        of the answer to where the steps begin.
    random_start: whether that is a random point of the ball, and not the picture.

    Raises InputError for values out of range, and where no picture would be changed.
    """

    budget: Budget = field(default_factory=lambda: Linf.of_255(8))
    steps: int = 10
    step_size: float | None = None
    label: Label = "predicted"
    targeted: bool = False
    random_start: bool = False

    def __post_init__(self) -> None:
        if self.label not in get_args(Label):
            raise expected(f"a label of {', '.join(get_args(Label))}", repr(self.label), "choose one of them")
        if self.steps < 0 or not (self.steps or self.random_start):
            raise expected("at least 1 step, or 0 with a random start", str(self.steps), "10 is the default")
        self._search(cross_entropy)

    @property
    def random(self) -> bool:
        """Whether the same picture is changed otherwise each time."""
        return self.random_start or self.label == "random"

    def __call__(self, external: nn.Module, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the changed pictures, detached, each by itself: (count, channels, height, width), 0 to 1.

        external: takes such pictures, returns logits (count, classes); used in evaluation mode, left as it was. Costs a
        forward and a backward pass of it a step, and no others.
        """
        if not self.steps:
            return self._start(images.detach(), generator)
        search = self._search(self._loss(generator))
        return search(external, images, images.new_zeros(len(images), dtype=torch.int64), generator)

    def unrolled(
        self,
        external: nn.Module,
        images: Tensor,
        generator: torch.Generator | None = None,
        *,
        direction: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Return the same pictures, differentiable in the ones given: through all steps, second derivatives included.

        direction: of a step, from the gradient; by default the budget's own, with the derivative of a smooth surrogate.
        external: frozen (:func:`unlearnable.attacks.frozen`).
        """
        moved = images + (self._start(images.detach(), generator) - images.detach())
        loss, turn = self._loss(generator), direction or self._direction
        stride = self._search(cross_entropy).stride if self.steps else 0.0
        for _ in range(self.steps):
            moved = moved if moved.requires_grad else moved.requires_grad_()
            (gradient,) = torch.autograd.grad(loss(external(moved), None).sum(), moved, create_graph=True)
            delta = moved + stride * turn(gradient) - images
            moved = (images + self.budget.project(delta)).clamp(0, 1)
        return moved

    def _search(self, loss: Callable[[Tensor, Tensor], Tensor]) -> PGD:
        steps = max(self.steps, 1)
        size, start = self.step_size, self.random_start
        return PGD(budget=self.budget, steps=steps, step_size=size, random_start=start, loss=loss)

    def _start(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        return self._search(cross_entropy).begin(images, generator)

    def _loss(self, generator: torch.Generator | None) -> Callable[[Tensor, Tensor | None], Tensor]:
        """Return the loss to climb; it takes its labels from the first logits that it is given."""
        labels: list[Tensor] = []

        def loss(logits: Tensor, _: Tensor | None) -> Tensor:
            if not labels:
                labels.append(self._labels(logits.detach(), generator))
            away = cross_entropy(logits, labels[0])
            return -away if self.targeted else away

        return loss

    def _labels(self, logits: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.label == "predicted":
            return logits.argmax(1)
        if self.label == "least-likely":
            return logits.argmin(1)
        place = generator.device if generator else logits.device
        drawn = torch.randint(logits.shape[1], (len(logits),), generator=generator, device=place)
        return drawn.to(logits.device)

    def _direction(self, gradient: Tensor) -> Tensor:
        """Return a step's direction, with the derivative of one that turns smoothly where the sign jumps.

        Where the external network is so sure that its gradient all but vanishes, the derivative is none.
        """
        size = gradient.detach().abs().flatten(1).mean(1)[:, None, None, None]
        gradient = torch.where(size > _FLAT, gradient, gradient.detach())
        if not isinstance(self.budget, Linf):
            return self.budget.step(gradient)
        soft = gradient / (gradient.abs() + _SOFTNESS * size + torch.finfo(gradient.dtype).tiny)
        return soft + (self.budget.step(gradient) - soft).detach()


class Transformed(nn.Module):
    """A classifier behind a transformation: what is attacked, and used, in place of the classifier alone.

    backward: what its gradient says of the transformation (see :data:`Backward`).
    """

    def __init__(
        self, classifier: nn.Module, external: nn.Module, transformation: Transformation, backward: Backward = "none"
    ) -> None:
        super().__init__()
        self.classifier, self.external = classifier, external
        self.transformation, self.backward = transformation, backward

    def forward(self, images: Tensor) -> Tensor:
        """Map pictures (count, channels, height, width), 0 to 1, to logits (count, classes)."""
        logits: Tensor = self.classifier(self.change(images))
        return logits

    def change(self, images: Tensor) -> Tensor:
        """Return the pictures that the classifier sees."""
        if self.backward == "unrolled" and torch.is_grad_enabled():
            with frozen(self.external):
                return self.transformation.unrolled(self.external, images)
        changed = self.transformation(self.external, images)
        if self.backward == "identity":
            return images + (changed - images).detach()
        return changed + 0 * images  # a gradient of zero, and not none at all
