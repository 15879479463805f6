"""The choice of pictures for partly protected sets."""

import hashlib
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearnable.audit.mix import choose

CLASSES = st.lists(st.sampled_from(["cat", "dog", "emu"]), min_size=1, max_size=60)
FRACTION = st.one_of(st.floats(0, 1), st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9]))


def ids(classes):
    return [f"{name}/{number}.png" for number, name in enumerate(classes)]


@given(CLASSES, FRACTION, st.integers(0, 3))
def test_the_share_is_exact_and_balanced(classes, fraction, seed):
    chosen = choose(ids(classes), classes, fraction, seed, "mix")
    assert chosen.sum() == round(fraction * len(classes))
    taken = Counter(name for name, flag in zip(classes, chosen, strict=True) if flag)
    for name, count in Counter(classes).items():
        assert abs(taken[name] - fraction * count) < 1


@given(CLASSES, FRACTION, st.randoms())
def test_the_order_does_not_matter(classes, fraction, shuffler):
    names = ids(classes)
    order = list(range(len(names)))
    shuffler.shuffle(order)
    first = choose(names, classes, fraction, 0, "mix")
    second = choose([names[i] for i in order], [classes[i] for i in order], fraction, 0, "mix")
    assert np.array_equal(first[order], second)


def test_it_is_the_lowest_hashes():
    names = [f"{number}" for number in range(50)]
    ranked = sorted(names, key=lambda name: hashlib.sha256(f"mix\0003\0{name}".encode()).hexdigest())
    chosen = choose(names, ["cat"] * 50, 0.3, 3, "mix")
    assert {name for name, flag in zip(names, chosen, strict=True) if flag} == set(ranked[:15])


def test_larger_shares_hold_smaller_ones():
    classes = ["cat", "dog"] * 50
    masks = [choose(ids(classes), classes, fraction, 0, "mix") for fraction in (0.2, 0.4, 0.6, 0.8, 1)]
    for small, large in pairwise(masks):
        assert (small <= large).all()


@pytest.mark.parametrize("other", [{"seed": 1}, {"purpose": "halves"}])
def test_seed_and_purpose_change_it(other):
    classes = ["cat", "dog"] * 50
    first, second = (choose(ids(classes), classes, 0.5, **({"seed": 0, "purpose": "mix"} | o)) for o in ({}, other))
    assert not np.array_equal(first, second)
