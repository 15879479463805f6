"""Classes renamed by a few known pictures."""

import numpy as np
import pytest

from unlearnable.countermeasures import named
from unlearnable.countermeasures.relabelling import Relabelling
from unlearnable.errors import InputError


def test_a_permutation_is_found_and_undone(rng):
    labels = np.arange(500) % 10
    order = rng.permutation(10)
    answers = np.where(rng.random(500) < 0.5, order[labels], rng.integers(0, 10, 500))
    renamed = Relabelling().renamed(answers, labels, 10)
    assert np.array_equal(renamed[order], np.arange(10))


def test_every_class_keeps_one_name_of_its_own():
    renamed = Relabelling().renamed(np.zeros(9, np.int64), np.arange(9) % 3, 3)  # a network that says one thing only
    assert renamed.tolist() == [0, 1, 2]
    renamed = Relabelling().renamed(np.array([0, 0, 0, 1]), np.array([1, 1, 1, 1]), 4)
    assert renamed.tolist() == [1, 0, 2, 3]


def test_pictures_stay_as_they_are(published):
    part = named("relabelling-3")
    assert part.parts == (Relabelling(known=3),)
    assert part.clean(published, np.random.default_rng(0)) is published.images
    assert part.at_test(published.images) is published.images
    assert part.every_batch(3) is None


def test_none_known_is_refused():
    with pytest.raises(InputError, match="expected one known picture a class or more, found 0: choose 10"):
        Relabelling(known=0)
