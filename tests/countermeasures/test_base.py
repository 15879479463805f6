"""Composition, names, and the check that a countermeasure changes something."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from tests.countermeasures.conftest import as_batch, build_model
from unlearnable.countermeasures import Countermeasure, Leak, Published, compose, named
from unlearnable.countermeasures.base import by_pieces, pieces
from unlearnable.countermeasures.coin import Coin
from unlearnable.countermeasures.grayscale import Grayscale
from unlearnable.countermeasures.jpeg import Jpeg
from unlearnable.countermeasures.ueraser import UEraserMax
from unlearnable.errors import InputError


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("jpeg", (Jpeg(quality=10),)),
        ("jpeg-75", (Jpeg(quality=75),)),
        ("coin+jpeg", (Coin(), Jpeg())),
        ("grayscale+coin-1.6+jpeg-10", (Grayscale(), Coin(alpha=1.6), Jpeg(quality=10))),
        ("ueraser-max-3", (UEraserMax(views=3),)),
    ],
)
def test_named(text, parts):
    assert named(text).parts == parts
    assert named(str(named(text))) == named(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jepg", "did you mean 'jpeg'"),
        ("coin+", "found ''"),
        ("jepg-10", "found 'jepg', did|found 'jepg': did you mean 'jpeg'"),
        ("grayscale-3", "expected grayscale without a number, found 'grayscale-3'"),
        ("jpeg-10.5", "expected a whole number behind jpeg, found 'jpeg-10.5'"),
        ("jpeg-0", "quality from 1 to 95, found 0"),
        ("coin+jpeg+coin-1", "expected each countermeasure once, found 'coin' twice in 'coin\\+jpeg\\+coin-1'"),
        ("none+coin", "expected none by itself, found 'none\\+coin': leave none out"),
        ("none+none", "'none' twice"),
    ],
)
def test_bad_names(text, message):
    with pytest.raises(InputError, match=message):
        named(text)


def test_nothing_to_compose():
    with pytest.raises(InputError, match="write: none"):
        compose()


def test_none_is_the_identity(published, rng):
    nothing = named("none")
    assert nothing.clean(published, rng) is published.images
    assert nothing.at_test(published.images) is published.images
    assert nothing.every_batch(3) is None


def test_once_first_then_every_batch(published):
    whole = named("coin+grayscale+rsk+jpeg")
    rng = np.random.default_rng(0)
    gray = Grayscale().clean(published, rng)
    squeezed = Jpeg().clean(Published(gray, published.labels, 3), rng)
    assert np.array_equal(whole.clean(published, rng), squeezed)
    assert np.array_equal(whole.at_test(published.images), gray)
    images, labels = as_batch(published)
    draws, model = (torch.Generator().manual_seed(5) for _ in range(2)), build_model()
    coin, rsk = named("coin").every_batch(3), named("rsk").every_batch(3)
    generator = next(draws)
    expected = rsk(model, coin(model, images, labels, generator), labels, generator)
    assert torch.equal(whole.every_batch(3)(model, images, labels, next(draws)), expected)


def test_the_parts_states_are_the_compositions_state():
    change = named("coin+deconvolution-3").every_batch(4)
    state = change.state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == {
        "deconvolution.weights": (4, 3, 3),
        "deconvolution.drawn": (),
    }
    named("deconvolution-3").every_batch(4).load_state_dict(state)


def test_a_part_that_does_nothing_once_is_an_error(published, rng):
    with pytest.raises(InputError, match="expected a countermeasure that changes pictures, found that grayscale"):
        named("grayscale").clean(Published(np.full((3, 8, 8, 3), 7, np.uint8), np.arange(3), 3), rng)
    with pytest.raises(InputError, match="found that gray-world leaves every picture as it was"):
        named("grayscale+gray-world").clean(published, rng)


@dataclass(frozen=True, kw_only=True)
class Late(Countermeasure):
    """Changes something in one batch of so many."""

    name: ClassVar[str] = "late"
    when: int

    def every_batch(self, classes):
        count = 0

        def change(model, images, labels, generator):
            nonlocal count
            count += 1
            return images * 0.5 if count == self.when else images

        return change


@pytest.mark.parametrize(("when", "fails"), [(1, False), (10, False), (11, True)])
def test_a_part_that_does_nothing_to_batches_is_an_error(when, fails, published):
    change = compose(Coin(), Late(when=when)).every_batch(3)
    images, labels = as_batch(published)
    generator = torch.Generator().manual_seed(0)
    for batch in range(1, 13):
        if fails and batch == 10:
            with pytest.raises(InputError, match="found that late leaves every picture as it was"):
                change(nn.Identity(), images, labels, generator)
            return
        change(nn.Identity(), images, labels, generator)
    assert not fails


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": np.zeros((2, 3, 8, 8), np.uint8)}, "pictures as \\(count, height, width, 1 or 3\\)"),
        ({"images": np.zeros((2, 8, 8, 3))}, "in uint8, found float64"),
        ({"labels": np.zeros(3, int)}, "2 integer labels, one a picture"),
        ({"labels": np.zeros(2)}, "found float64"),
        ({"labels": np.array([0, 2])}, "labels from 0 to 1, found 0 to 2"),
        ({"leaked": Leak(np.array([0]), np.zeros((1, 8, 9, 3), np.uint8))}, "1 leaked originals"),
        ({"leaked": Leak(np.array([2]), np.zeros((1, 8, 8, 3), np.uint8))}, "leaked pictures from 0 to 1, found 2"),
    ],
)
def test_what_was_published_is_checked(changed, message):
    good = {"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": np.array([0, 1]), "classes": 2}
    Published(**good)
    with pytest.raises(InputError, match=message):
        Published(**good | changed)


def test_pieces_cover_everything_once(monkeypatch, rng):
    monkeypatch.setattr("unlearnable.countermeasures.base._PIECE", 100)
    images, beside = rng.integers(0, 256, (7, 5, 4, 3), dtype=np.uint8), np.arange(7)
    assert len(pieces(images)) == 7
    out = by_pieces(lambda some, its: some.astype(float) + its[:, None, None, None] - 0.4, images, beside)
    assert np.array_equal(out, np.clip(np.rint(images + np.arange(7)[:, None, None, None] - 0.4), 0, 255))
