"""What holds for every protection in the registry, those to come included."""

import numpy as np
import pytest

from unlearnable import Key
from unlearnable.protections import protections

CASES = [  # a new protection is one row: its name and options that make it fast
    ("cuda", {}),
    ("cuda", {"kernel_size": 9, "blur": 0.06}),
]


class Dataset:
    class_names = ("ant", "bee", "cow")


def apply(name, options, images, labels, key=b"k", names=Dataset.class_names):
    dataset = Dataset()
    dataset.class_names = names
    ids = [f"{label}/{n}" for n, label in enumerate(labels)]
    return protections.create(name, **options).fit(dataset, Key(key * 32)).apply(images, np.asarray(labels), ids)


def test_every_protection_has_a_row():
    assert {name for name, _ in CASES} == set(protections)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_contract(name, options, dtype, rng):
    images = rng.integers(0, np.iinfo(dtype).max + 1, (6, 19, 23, 3), dtype)
    labels = np.array([0, 1, 2, 0, 1, 2])
    before = images.copy()
    out = apply(name, options, images, labels)
    assert out.shape == images.shape
    assert out.dtype == dtype
    assert np.array_equal(images, before)  # the input is left alone
    assert all((out[n] != images[n]).any() for n in range(6))  # it did something to every picture
    assert np.array_equal(out, apply(name, options, images, labels))  # the same key, the same bytes
    assert not np.array_equal(out, apply(name, options, images, labels, key=b"j"))  # another key, others
    one = np.concatenate([apply(name, options, images[n : n + 1], labels[n : n + 1]) for n in range(6)])
    assert np.array_equal(out, one)  # the batch size does not matter
    renamed = apply(name, options, images, (labels + 1) % 3, names=("cow", "ant", "bee"))
    assert np.array_equal(out, renamed)  # nor does the order of the labels
