"""Relabelling: a trained model's classes are renamed by a few pictures that the scraper has labelled himself."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from unlearnable.countermeasures.base import Countermeasure, countermeasures
from unlearnable.errors import expected


@countermeasures.register("relabelling")
@dataclass(frozen=True, kw_only=True)
class Relabelling(Countermeasure):
    """Take each class of a trained model for another, one for one, as brings most of a few known pictures out right.

    Written against noise that gives each class the features of another one (TAP, decoys): a model that has learned
    these well is nearly always wrong, and right again once its classes are renamed. Nothing is done to pictures.

    known: clean pictures of each class that the scraper has labelled himself, at least 1; all, where there are fewer.

    Raises InputError for a value out of range.
    """

    name: ClassVar[str] = "relabelling"
    main: ClassVar[str | None] = "known"
    known: int = 10

    def __post_init__(self) -> None:
        if self.known < 1:
            raise expected("one known picture a class or more", str(self.known), "choose 10")

    def renamed(self, answers: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
        """Return what each class of the model is to be taken for, (classes,).

        answers, labels: of the known pictures, (count,), 0 to ``classes`` - 1, what the model says and what they are.
        Among renamings that are right as often, those of fewer classes are preferred; with nothing known, none.

        >>> Relabelling().renamed(np.array([1, 1, 0, 2]), np.array([0, 0, 1, 2]), 3)
        array([1, 0, 2])
        """
        right = np.zeros((classes, classes), np.int64)
        np.add.at(right, (answers, labels), classes + 1)
        renamed: NDArray[np.int64] = linear_sum_assignment(right + np.eye(classes, dtype=np.int64), maximize=True)[1]
        return renamed
