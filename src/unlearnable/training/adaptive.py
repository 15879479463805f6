"""How robust a network behind an adversarial transformation is, asked by those who know that it is there.

The transformation has no useful gradient of its own, so an attack that does not know of it finds nothing: that is no
robustness. The panel is what Athalye, Carlini, Wagner (ICML 2018), Tramèr, Carlini, Brendel, Mądry (NeurIPS 2020) and
Croce and others (ICML 2022, arXiv 2202.13711) ask of defences of this kind. What counts is the worst case, picture by
picture.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from unlearnable.attacks import NES, PGD, Attack, Square
from unlearnable.attacks.eot import EOTPGD
from unlearnable.attacks.reparameterised import Reparameterised
from unlearnable.attacks.transformation import Transformation, Transformed
from unlearnable.budgets import Budget, Linf
from unlearnable.training.precision import Precision
from unlearnable.training.rsr.noise import strengths
from unlearnable.training.withstanding import Spread, withstood

_DRAWS: Final = 5  # of a random transformation
_STEPS: Final = 20
_RADII: Final = (0.5, 1, 2, 4, 8, 16, 32)  # of the sweep, in radii of the budget; it ends where nothing is left


class Both(nn.Module):
    """Two networks asked together: the sum of their log-probabilities, whose loss is that of both."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, images: Tensor) -> Tensor:
        """Map pictures (count, channels, height, width), 0 to 1, to (count, classes)."""
        together: Tensor = self.first(images).log_softmax(1) + self.second(images).log_softmax(1)
        return together


@dataclass(frozen=True)
class AdaptivePanel:
    """What a transformed network withstands. Accuracies are shares of pictures named rightly.

    accuracies: by name of what the network was asked under. ``clean``: pictures as they are. ``pgd20``: PGD that knows
        nothing of the transformation and sees no gradient, a control. ``bpda``: PGD that takes the transformation for
        the identity. ``unrolled``: PGD through all its steps. ``transfer-classifier``, ``transfer-external``,
        ``transfer-both``: PGD on those alone. ``reparameterised``: from behind the transformation. ``square``, ``nes``:
        from answers alone. ``worst``: what withstands them all, picture by picture.
    baselines: ``fed plain``: the same classifier without the transformation, and ``noise``: with random noise of the
        transformation's size in its place, each clean and under PGD-20; ``baseline``: another network, where given.
    sweep: the share that withstands BPDA at each radius of the attack, on the 0 to 1 scale, until none is left.
    external_passes: forward and backward passes of the external network that one answer takes, beside one forward pass
        of the classifier.
    """

    accuracies: dict[str, Spread]
    baselines: dict[str, Spread] = field(default_factory=dict)
    sweep: dict[float, float] = field(default_factory=dict)
    external_passes: int = 0


def adaptive_panel(
    classifier: nn.Module,
    external: nn.Module,
    transformation: Transformation,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    *,
    budget: Budget,
    baseline: nn.Module | None = None,
    queries: int = 5000,
    samples: int = 20,
    sweep: bool = True,
    seed: int = 0,
    precision: Precision = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> AdaptivePanel:
    """Attack a classifier behind a transformation in all these ways.

    images: (count, height, width, channels) uint8. labels: (count,). baseline: a network to compare with, such as one
    adversarially trained at the same cost. queries: of Square; NES takes as many. samples: gradients to a step where
    the transformation is random or the classifier has noise on its weights, and under mere noise. sweep: whether to
    attack at other radii, too.
    """
    composed, known, unrolled = (
        Transformed(classifier, external, transformation, backward) for backward in ("none", "identity", "unrolled")
    )
    noisy = bool(strengths(classifier))
    random = noisy or transformation.random
    draws = _DRAWS if random else 1
    pgd = PGD(budget=budget, steps=_STEPS)
    mean = EOTPGD(budget=budget, steps=_STEPS, samples=samples)
    climb, alone = mean if random else pgd, mean if noisy else pgd
    nes = NES(budget=budget, steps=max(1, queries // 50), pairs=25, deviation=0.01)
    asked: dict[str, tuple[Attack, nn.Module]] = {
        "pgd20": (pgd, composed),
        "bpda": (climb, known),
        "unrolled": (climb, unrolled),
        "transfer-classifier": (alone, classifier),
        "transfer-external": (pgd, external),
        "transfer-both": (alone, Both(classifier, external)),
        "reparameterised": (Reparameterised(budget=budget), composed),
        "square": (Square(budget=budget, queries=queries), composed),
        "nes": (nes, composed),
    }
    noise = Transformed(classifier, external, Transformation(budget=transformation.budget, steps=0, random_start=True))
    noise.backward = "identity"
    others: dict[str, tuple[nn.Module, Attack, int]] = {
        "fed plain": (classifier, alone, _DRAWS if noisy else 1),
        "noise": (noise, mean, _DRAWS),
    }
    if baseline is not None:
        others["baseline"] = (baseline, pgd, 1)
    options: dict[str, Any] = {"images": images, "labels": labels, "seed": seed, "precision": precision}
    radii = _radii(budget) if sweep else []
    total, done = len(asked) + len(others) + len(radii), 0

    def tell() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done * len(images), total * len(images))

    worst = withstood(composed, None, seeds=draws, **options)
    found = {"clean": worst}
    for name, (attack, made_on) in asked.items():
        found[name] = withstood(composed, attack, made_on=made_on, seeds=draws, **options)
        worst = worst & found[name]
        tell()
    baselines = {}
    for name, (network, attack, count) in others.items():
        baselines[f"{name}, clean"] = withstood(network, None, seeds=count, **options)
        baselines[f"{name}, pgd20"] = withstood(network, attack, seeds=count, **options)
        tell()
    swept: dict[float, float] = {}
    for radius in radii:
        if 0 not in swept.values():
            attack = replace(climb, budget=type(budget)(radius))
            swept[radius] = float(withstood(composed, attack, made_on=known, seeds=draws, **options).mean())
        tell()
    return AdaptivePanel(_spreads(found | {"worst": worst}), _spreads(baselines), swept, transformation.steps)


def _spreads(found: dict[str, NDArray[np.bool_]]) -> dict[str, Spread]:
    return {name: Spread.of(right.mean(1).tolist()) for name, right in found.items()}


def _radii(budget: Budget) -> list[float]:
    """Return the radii of the sweep, ascending; Linf ends at 1, where every picture can be made of every other."""
    most = 1.0 if isinstance(budget, Linf) else math.inf
    return sorted({min(times * budget.radius, most) for times in _RADII})
