"""Which epoch is best: told by a part of the training pictures that is never trained on, and never by test pictures."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import nn

from unlearnable.attacks.base import Attack
from unlearnable.attacks.pgd import PGD
from unlearnable.errors import expected
from unlearnable.pictures.dataset import Dataset
from unlearnable.training import evaluation
from unlearnable.training.chance import derived
from unlearnable.training.checkpoint import Epoch
from unlearnable.training.objectives import Robust
from unlearnable.training.precision import Precision
from unlearnable.training.recipes import Recipe

_STEPS: Final = 10  # of the attack that robust recipes are judged by


def held_out(dataset: Dataset, fraction: float, seed: int) -> NDArray[np.int64]:
    """Choose the pictures to hold out, the same fraction of each class: their places, (count,), ascending.

    Whether a picture is chosen goes by its id and the seed: neither the order of the pictures matters nor, but for
    rounding, which others there are.

    Raises InputError for a fraction that leaves a class without pictures on either side.
    """
    if not 0 < fraction < 1:
        raise expected("a share to hold out between 0 and 1", f"{fraction:g}", "0.1 is usual")
    chosen = []
    for label in np.unique(dataset.labels):
        places = np.flatnonzero(dataset.labels == label)
        count = round(fraction * len(places))
        if not 0 < count < len(places):
            wanted = f"enough pictures of each class to hold {fraction:g} of them out and train on the rest"
            found = f"{len(places)} of {dataset.class_names[label]!r}"
            raise expected(wanted, found, "hold out another share, or add pictures")
        ranks = [derived(seed, "hold out", dataset.ids[place]) for place in places]
        chosen.append(places[np.argsort(ranks)[:count]])
    return np.sort(np.concatenate(chosen))


def judged_by(recipe: Recipe) -> PGD | None:
    """Return what the held-out pictures are attacked with: PGD within a robust recipe's budget, else nothing."""
    objective = recipe.objective
    return PGD(budget=objective.attack.budget, steps=_STEPS) if isinstance(objective, Robust) else None


def best(history: Sequence[Epoch]) -> Epoch | None:
    """Return the epoch of the highest held-out accuracy, the first if several; None where nothing was held out.

    >>> best([Epoch(1, 2.0, 0.3, 1.0, held_out=0.3), Epoch(2, 1.0, 0.5, 1.0, held_out=0.3)]).number
    1
    """
    judged = [epoch for epoch in history if epoch.held_out is not None]
    return max(judged, key=lambda epoch: (epoch.held_out, -epoch.number), default=None)


@dataclass(frozen=True)
class Judge:
    """Judges the network after each epoch, and keeps the best one.

    dataset: all pictures; places: those held out. best: the network as it was after the best epoch so far.
    """

    dataset: Dataset
    places: NDArray[np.int64]
    attack: Attack | None
    precision: Precision
    seed: int
    best: nn.Module

    @classmethod
    def of(
        cls,
        network: nn.Module,
        dataset: Dataset,
        places: NDArray[np.int64],
        *,
        recipe: Recipe,
        precision: Precision,
        seed: int,
    ) -> "Judge":
        """Begin with a network that is not trained yet."""
        return cls(dataset, places, judged_by(recipe), precision, seed, copy.deepcopy(network))

    def __call__(self, network: nn.Module, history: list[Epoch]) -> None:
        """Note the last epoch's share of held-out pictures that are named rightly, under attack if there is one.

        The network is left in evaluation mode. The attack begins at the same points after every epoch.
        """
        images, labels = self.dataset.images[self.places], self.dataset.labels[self.places]
        if self.attack is None:
            right = evaluation.predictions(network, images, precision=self.precision, seed=self.seed) == labels
        else:
            right = evaluation.withstood(network, self.attack, images, labels, precision=self.precision, seed=self.seed)
        history[-1] = history[-1]._replace(held_out=float(right.mean()))
        if best(history) is history[-1]:
            self.best.load_state_dict(network.state_dict())
