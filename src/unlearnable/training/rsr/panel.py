"""How robust a network with noise on its weights is, asked in ways that randomness does not mislead.

An attack that sees one draw of the noise climbs mostly noise, and the accuracy it leaves looks like robustness. So the
network is also attacked along mean gradients (EOT), by AutoAttack's version for random networks, by what was made on
another network, and with its noise switched off; and every accuracy is the mean over several draws.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from unlearnable.attacks import PGD, Attack, AutoAttack, fgsm
from unlearnable.attacks.eot import EOTPGD
from unlearnable.budgets import Budget
from unlearnable.errors import expected
from unlearnable.training.precision import Precision
from unlearnable.training.rsr.noise import noise_off, strengths
from unlearnable.training.withstanding import Spread, withstood

_LEAST_SEEDS: Final = 5
_LEAST_CLASSES: Final = 3  # that AutoAttack's version for random networks needs


@dataclass(frozen=True)
class NoisePanel:
    """What a network with noise withstands. Accuracies are shares of pictures named rightly.

    accuracies: by name of what the network was asked under: ``clean`` as the pictures are; ``fgsm``, ``pgd7`` and
        ``pgd20`` with new noise in every pass; ``eot-pgd20`` along mean gradients; ``autoattack-rand``; ``transfer``,
        PGD-20 on the baseline; ``transfer-noise-off``, PGD-20 on the network itself without its noise.
        ``clean, noise off`` and ``pgd20, noise off``: the network without noise, attacked as that. ``worst``: what
        withstands all attacks on the noisy network, picture by picture, in each draw.
    baseline: a network without noise trained otherwise alike, ``clean`` and under the same attacks; empty without one.
    gain: what the noise seems to add to the baseline under PGD-20, and under EOT; None without one.
    gain_left: what share of the one the other is; None without a baseline, or without a gain.
    """

    accuracies: dict[str, Spread]
    baseline: dict[str, float]
    gain: tuple[float, float] | None = None
    gain_left: float | None = None


class Quiet(nn.Module):
    """A network without the noise on its weights, beside the same network with it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Map pictures (count, channels, height, width), 0 to 1, to logits (count, classes)."""
        with noise_off(self.network):
            logits: Tensor = self.network(images)
        return logits


def noise_panel(
    network: nn.Module,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    *,
    budget: Budget,
    baseline: nn.Module | None = None,
    seeds: int = 5,
    samples: int = 20,
    autoattack: bool = True,
    seed: int = 0,
    precision: Precision = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> NoisePanel:
    """Ask a network with noise on its weights in all these ways.

    images: (count, height, width, channels) uint8. labels: (count,). baseline: trained alike, but without noise.
    seeds: draws of the noise that each changed picture is tested under; it is made once. samples: gradients to a step
    of EOT. autoattack: left out where it would take too long; it is left out for fewer than three classes, too.

    Raises InputError for a network without noise, and for fewer than five seeds.
    """
    if not strengths(network):
        raise expected("a network with noise on its weights", "one without", "train it with --noise")
    if seeds < _LEAST_SEEDS:
        raise expected("at least 5 seeds", str(seeds), "fewer do not tell how far the noise goes")
    pgd = PGD(budget=budget, steps=20)
    on: dict[str, Attack] = {
        "fgsm": fgsm(budget=budget),
        "pgd7": PGD(budget=budget, steps=7),
        "pgd20": pgd,
        "eot-pgd20": EOTPGD(budget=budget, steps=20, samples=samples),
    }
    if autoattack and labels.max() + 1 >= _LEAST_CLASSES:
        on["autoattack-rand"] = AutoAttack(budget=budget, version="rand")
    options: dict[str, Any] = {"images": images, "labels": labels, "seed": seed, "precision": precision}
    known_under = ("fgsm", "pgd7", "pgd20")
    total, done = len(on) + 2 + (0 if baseline is None else len(known_under) + 1), 0

    def tell() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done * len(images), total * len(images))

    clean = withstood(network, None, seeds=seeds, **options)
    found, worst = {"clean": clean}, clean
    for name, attack in on.items():
        found[name] = withstood(network, attack, seeds=seeds, **options)
        worst = worst & found[name]
        tell()
    known: dict[str, float] = {}
    if baseline is not None:
        known["clean"] = float(withstood(baseline, None, **options).mean())
        for name in known_under:
            known[name] = float(withstood(baseline, on[name], **options).mean())
            tell()
        found["transfer"] = withstood(network, pgd, made_on=baseline, seeds=seeds, **options)
        worst = worst & found["transfer"]
        tell()
    found["transfer-noise-off"] = withstood(network, pgd, made_on=Quiet(network), seeds=seeds, **options)
    worst = worst & found["transfer-noise-off"]
    tell()
    with noise_off(network):
        found["clean, noise off"] = withstood(network, None, **options)
        found["pgd20, noise off"] = withstood(network, pgd, **options)
        tell()
    accuracies = {name: Spread.of(right.mean(1).tolist()) for name, right in (found | {"worst": worst}).items()}
    if baseline is None:
        return NoisePanel(accuracies, known)
    gain = accuracies["pgd20"].mean - known["pgd20"], accuracies["eot-pgd20"].mean - known["pgd20"]
    return NoisePanel(accuracies, known, gain, gain[1] / gain[0] if gain[0] > 0 else None)
