"""What a network withstands, one that answers at random included: told apart by draws of its randomness."""

import statistics
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from unlearnable.attacks import Attack
from unlearnable.training.chance import derived, generator, seeded
from unlearnable.training.precision import Precision, autocast

_BATCH: Final = 250  # pictures attacked at a time


@dataclass(frozen=True)
class Spread:
    """An accuracy, 0 to 1, over draws of a network's randomness: its mean, its deviation, how many draws.

    >>> Spread.of([0.5, 0.75])
    Spread(mean=0.625, deviation=0.1767766952966369, draws=2)
    """

    mean: float
    deviation: float
    draws: int

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """Sum up accuracies, one a draw."""
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0, len(values))


def withstood(
    network: nn.Module,
    attack: Attack | None,
    *,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    made_on: nn.Module | None = None,
    seeds: int = 1,
    seed: int = 0,
    precision: Precision = "auto",
) -> NDArray[np.bool_]:
    """Attack every picture, and return which are named rightly all the same: (seeds, count), a row a draw.

    attack: None leaves the pictures as they are. made_on: the network that is attacked, if not the one that is tested.
    Each changed picture is made once, and tested ``seeds`` times.
    """
    source = network if made_on is None else made_on
    place = next(network.parameters()).device
    right = np.empty((seeds, len(images)), np.bool_)
    network.eval()
    for start in range(0, len(images), _BATCH):
        part = slice(start, start + _BATCH)
        truth = torch.from_numpy(labels[part]).to(place)
        changed = torch.from_numpy(np.ascontiguousarray(images[part])).to(place).permute(0, 3, 1, 2) / 255
        with autocast(place, precision):
            if attack is not None:
                with seeded(derived(seed, "network under attack", start), place):
                    changed = attack(source, changed, truth, generator(place, seed, "attack", start))
            for draw in range(seeds):
                with torch.inference_mode(), seeded(derived(seed, "network", start, draw), place):
                    right[draw, part] = (network(changed).argmax(1) == truth).cpu().numpy()
    return right
