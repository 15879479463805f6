"""What holds for every protection in the registry, those to come included."""

import numpy as np
import pytest

from unlearnable import Key
from unlearnable.pictures.dataset import Dataset
from unlearnable.pictures.samples import eight_bit, square
from unlearnable.protections import protections

SMALL = {"model": "resnet9-w16", "steps": 2, "noise_steps": 2, "batch_size": 4}

CASES = [  # a new protection is one row: its name and options that make it fast
    ("cuda", {}),
    ("cuda", {"kernel_size": 9, "blur": 0.06}),
    ("cuda", {"kernel_size": 5, "aligned": True}),
    ("em", SMALL),
    ("rem", {**SMALL, "samples": 1}),
    ("sem", SMALL),
    ("sem", {**SMALL, "per": "class", "radius": 16}),
    ("tap", SMALL),
    ("tap", {**SMALL, "targeted": False}),
    ("decoy", SMALL),
    ("decoy", {**SMALL, "per": "class", "against": "crops"}),
    ("tone", {}),
    ("tone", {"strength": 1, "grid": 4}),
    ("echo", {}),
    ("echo", {"strength": 0.4}),
    ("patches", {}),
    ("veil", {}),
    ("autoregressive", {"radius": 16}),
    ("stack", {}),
    ("stack", {"layers": "tone:strength=0.2,patches,cuda"}),
    ("stack", {"layers": "cuda,sem:model=resnet9-w16:steps=2:noise_steps=2:batch_size=4,tone"}),
]
IDS = [f"{n}.png" for n in range(6)]


def fit(name, options, images, labels, key=b"k", names=("ant", "bee", "cow")):
    canvas = np.stack([square(eight_bit(image), 16) for image in images])
    return protections.create(name, **options).fit(Dataset(canvas, labels, names, tuple(IDS)), Key(key * 32))


def test_every_protection_has_a_row():
    assert {name for name, _ in CASES} == set(protections)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_contract(name, options, dtype, rng):
    images = rng.integers(0, np.iinfo(dtype).max + 1, (6, 19, 23, 3), dtype)
    labels = np.array([0, 1, 2, 0, 1, 2])
    before = images.copy()
    fitted = fit(name, options, images, labels)
    out = fitted.apply(images, labels, IDS)
    assert out.shape == images.shape
    assert out.dtype == dtype
    assert np.array_equal(images, before)  # the input is left alone
    assert all((out[n] != images[n]).any() for n in range(6))  # it did something to every picture
    same, other = (fit(name, options, images, labels, key).apply(images, labels, IDS) for key in (b"k", b"j"))
    assert np.array_equal(out, same)  # the same key, the same bytes
    assert not np.array_equal(out, other)  # another key, others
    one = np.concatenate([fitted.apply(images[n : n + 1], labels[n : n + 1], IDS[n : n + 1]) for n in range(6)])
    assert np.array_equal(out, one)  # the batch size does not matter
    by_class = np.argsort(labels, kind="stable")
    in_turn = fitted.apply(images[by_class], labels[by_class], [IDS[n] for n in by_class])
    assert np.array_equal(out[by_class], in_turn)  # nor does the order of the pictures
    turned = (labels + 1) % 3
    renamed = fit(name, options, images, turned, names=("cow", "ant", "bee"))
    by_name = [renamed.class_names.index(("ant", "bee", "cow")[label]) for label in labels]
    assert np.array_equal(out, renamed.apply(images, np.array(by_name), IDS))  # nor does the order of the labels


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("name", "options"), CASES)
def test_saved_and_loaded_it_does_the_same(name, options, rng, tmp_path):
    images = rng.integers(0, 256, (6, 19, 23, 3), np.uint8)
    labels = np.array([0, 1, 2, 0, 1, 2])
    fitted = fit(name, options, images, labels)
    fitted.save(tmp_path / "fitted")
    assert (tmp_path / "fitted").stat().st_mode & 0o077 == 0  # as a key's file
    loaded = type(fitted).load(tmp_path / "fitted")
    assert loaded.digests() == fitted.digests()
    assert np.array_equal(loaded.apply(images, labels, IDS), fitted.apply(images, labels, IDS))
