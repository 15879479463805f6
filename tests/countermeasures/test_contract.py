"""What holds for every countermeasure in the registry, those to come included."""

import contextlib
import copy
import json

import numpy as np
import pytest
import torch

from tests.countermeasures.conftest import as_batch, build_model, textured
from unlearnable.countermeasures import Countermeasure, compose, countermeasures, named
from unlearnable.errors import InputError

CASES = [  # a new countermeasure is one row: its name and options that make it fast
    ("autocontrast", {}),
    ("bilateral-filter", {}),
    ("bit-depth", {}),
    ("blur", {}),
    ("class-mean-removal", {}),
    ("coin", {}),
    ("color-jitter", {}),
    ("d-vae", {"epochs": 1}),
    ("deconvolution", {"steps": 2}),
    ("echo-removal", {}),
    ("equalize", {}),
    ("gaussian-filter", {}),
    ("gray-world", {}),
    ("grayscale", {}),
    ("jpeg", {}),
    ("local-normalization", {}),
    ("median-filter", {}),
    ("orthogonal-projection", {"epochs": 2}),
    ("paired-regression", {"size": 5}),
    ("pattern-removal", {}),
    ("resize", {}),
    ("resized-crop", {}),
    ("rsk", {}),
    ("shade-removal", {}),
    ("spectrum-equalization", {}),
    ("tone-matching", {}),
    ("ueraser", {}),
    ("ueraser-max", {"views": 2}),
    ("veil-removal", {}),
    ("whitening", {}),
]
AT_TEST = {"autocontrast", "equalize", "gray-world", "grayscale", "local-normalization", "whitening"}
OF_CLASSES = {  # what these move onto the mean of all is, of one picture, the mean of all
    *("class-mean-removal", "echo-removal", "orthogonal-projection", "pattern-removal"),
    *("shade-removal", "spectrum-equalization", "tone-matching"),
}
COLOUR_ALONE = {"gray-world", "grayscale"}  # these leave grey pictures as they are


def once(name):
    return countermeasures.builder(name).clean is not Countermeasure.clean


ONCE = [case for case in CASES if once(case[0])]
EVERY_BATCH = [case for case in CASES if not once(case[0])]


def test_every_countermeasure_has_a_row():
    assert {name for name, _ in CASES} == set(countermeasures) - {
        "none",
        "adversarial-transformation",  # needs a network: has tests of its own
        "relabelling",  # does nothing to pictures
    }


def cleaned(name, options, published, seed=0):
    return compose(countermeasures.create(name, **options)).clean(published, np.random.default_rng(seed))


def batched(name, options, published, seed=0, model=None):
    images, labels = as_batch(published)
    before = images.clone()
    change = compose(countermeasures.create(name, **options)).every_batch(published.classes)
    model = model or build_model(images.shape[1])
    out = change(model, images, labels, torch.Generator().manual_seed(seed))
    assert torch.equal(images, before)  # the batch given was left alone
    return before, out


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("name", "options"), ONCE)
def test_what_is_done_once(name, options, channels, rng):
    published = textured(rng, channels=channels)  # read-only: writing into it raises
    if channels == 1 and name in COLOUR_ALONE:
        with pytest.raises(InputError, match=f"{name} leaves every picture as it was"):
            cleaned(name, options, published)
        return
    out = cleaned(name, options, published)
    assert (out.shape, out.dtype) == (published.images.shape, np.uint8)
    assert (out != published.images).any((1, 2, 3)).all()  # every picture changed
    assert np.array_equal(out, cleaned(name, options, published))
    assert countermeasures.create(name, **options).every_batch(3) is None


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("name", "options"), EVERY_BATCH)
def test_what_is_done_to_every_batch(name, options, channels, rng):
    published = textured(rng, channels=channels)
    before, out = batched(name, options, published)
    assert (out.shape, out.dtype, out.requires_grad) == (before.shape, torch.float32, False)
    assert torch.isfinite(out).all()
    assert out.min() >= 0
    assert out.max() <= 1
    assert not torch.equal(out, before)
    assert torch.equal(out, batched(name, options, published)[1])
    assert not torch.equal(out, batched(name, options, published, seed=1)[1])


@pytest.mark.parametrize(("name", "options"), EVERY_BATCH)
def test_the_model_is_left_alone(name, options, published):
    model = build_model()
    model.layers[1].eval()  # a mode of its own, to be given back
    model.head.weight.requires_grad_(False)
    state, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    batched(name, options, published, model=model)
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert not model.head.weight.requires_grad
    assert model.head.bias.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(("name", "options"), EVERY_BATCH)
def test_the_global_generator_is_left_alone(name, options, published):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    batched(name, options, published)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(("name", "options"), CASES)
def test_one_picture(name, options, rng):
    published = textured(rng, count=1, classes=1)
    run = cleaned if once(name) else batched
    if name in OF_CLASSES:
        with pytest.raises(InputError, match="leaves every picture as it was"):
            run(name, options, published)
    else:
        run(name, options, published)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 1)])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_smallest_pictures(name, options, size, rng):
    published = textured(rng, height=size[0], width=size[1])
    with contextlib.suppress(InputError):
        (cleaned if once(name) else batched)(name, options, published)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_test_pictures(name, options, published):
    part = countermeasures.create(name, **options)
    shown = compose(part).at_test(published.images)
    if name in AT_TEST:
        assert np.array_equal(shown, cleaned(name, options, published))  # as the training pictures
        assert np.array_equal(shown[2:5], part.at_test(published.images[2:5]))  # each by itself
    else:
        assert np.array_equal(shown, published.images)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_names_and_specs(name, options):
    part = countermeasures.create(name, **options)
    assert part.name == name
    assert json.loads(json.dumps(part.spec())) == {"name": name} | part.spec()
    assert countermeasures.create(**part.spec()) == part
    assert named(name).parts == (countermeasures.create(name),)
    assert str(countermeasures.create(name)) == name
    again = named(str(part)).parts[0]
    assert part.main is None or getattr(again, part.main) == getattr(part, part.main)
