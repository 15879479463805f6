"""How many pictures a network names rightly, and how sure that figure is."""

import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from unlearnable.attacks.base import Attack
from unlearnable.training.chance import derived, generator, seeded
from unlearnable.training.precision import Precision, autocast
from unlearnable.training.rsr.noise import noise_from

_ATTACKED: Final = 250  # pictures at a time
_NORMAL_95: Final = 1.959964  # quantile of the normal distribution for a two-sided 95 % interval


class Accuracy(NamedTuple):
    """Right answers out of all.

    >>> accuracy = Accuracy(right=30, total=100)
    >>> accuracy.share, [round(bound, 3) for bound in accuracy.interval()]
    (0.3, [0.219, 0.396])
    """

    right: int
    total: int

    @property
    def share(self) -> float:
        """The share of right answers, 0 to 1."""
        return self.right / self.total

    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the share by Wilson's score method (JASA 1927)."""
        z2 = _NORMAL_95**2
        centre = (self.right + z2 / 2) / (self.total + z2)
        wrong = self.total - self.right
        half = _NORMAL_95 * math.sqrt(self.right * wrong / self.total + z2 / 4) / (self.total + z2)
        return max(0.0, centre - half), min(1.0, centre + half)


def predictions(
    model: nn.Module, images: NDArray[np.uint8], *, precision: Precision = "auto", batch_size: int = 500, seed: int = 0
) -> NDArray[np.int64]:
    """Return the class, (count,) int64, that a network gives each picture, (count, height, width, channels) uint8.

    The network is put in evaluation mode and left there; it takes (count, channels, height, width) floats, 0 to 1.
    seed: of the noise on its weights, where it has any, and of whatever else in it is drawn.
    """
    device = next(model.parameters()).device
    model.eval()
    named = []
    with (
        torch.inference_mode(),
        autocast(device, precision),
        noise_from(model, generator(device, seed, "noise")),
        seeded(derived(seed, "network"), device),
    ):
        for start in range(0, len(images), batch_size):
            part = torch.from_numpy(np.array(images[start : start + batch_size])).to(device)
            named.append(model(part.permute(0, 3, 1, 2) / 255).argmax(1).cpu().numpy())
    return np.concatenate(named) if named else np.empty(0, np.int64)


def withstood(
    model: nn.Module,
    attack: Attack,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    *,
    precision: Precision = "auto",
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> NDArray[np.bool_]:
    """Attack pictures, (count, height, width, channels) uint8; return, (count,), which ones are still named rightly.

    seed: of the attack and of the noise on the weights. progress: told how many pictures are done, now and then.
    """
    device = next(model.parameters()).device
    model.eval()
    kept = []
    for start in range(0, len(images), _ATTACKED):
        part = slice(start, start + _ATTACKED)
        true = torch.from_numpy(labels[part]).to(device)
        shown = torch.from_numpy(np.array(images[part])).to(device).permute(0, 3, 1, 2) / 255
        with autocast(device, precision), noise_from(model, generator(device, seed, "noise", start)):
            changed = attack(model, shown, true, generator(device, seed, "attack", start))
            with torch.inference_mode():
                kept.append((model(changed).argmax(1) == true).cpu().numpy())
        if progress is not None:
            progress(start + len(true))
    return np.concatenate(kept)


def evaluate(
    model: nn.Module,
    images: NDArray[np.uint8],
    labels: NDArray[np.integer[Any]],
    *,
    precision: Precision = "auto",
    batch_size: int = 500,
    seed: int = 0,
) -> Accuracy:
    """Count the pictures that a network names rightly (see :func:`predictions`); as they are, not augmented."""
    named = predictions(model, images, precision=precision, batch_size=batch_size, seed=seed)
    return Accuracy(int((named == labels).sum()), len(labels))
