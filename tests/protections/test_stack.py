"""Stacks: layers one over the other, and off again."""

import numpy as np
import pytest

from unlearnable import InputError
from unlearnable.pictures import quality
from unlearnable.protections import protections
from unlearnable.protections.stack import LAYERS, PRESETS, Stack, Stacked

IDS = ["a", "b", "c"]


class Names:
    class_names = ("ant", "bee", "cow")


@pytest.fixture
def images(rng):
    coarse = rng.integers(30, 226, (3, 6, 6, 3)).astype(np.float64)
    smooth = np.stack([np.kron(picture, np.ones((6, 6, 1))) for picture in coarse])
    return (smooth + rng.normal(0, 3, smooth.shape)).clip(0, 255).astype(np.uint8)


def test_layers_follow_one_another(images, key):
    stacked = Stack(layers="cuda,tone:strength=0.3,patches:radius=4").fit(Names, key)
    one_by_one = images
    for name, options in (("cuda", {}), ("tone", {"strength": 0.3}), ("patches", {"radius": 4})):
        one_by_one = protections.create(name, **options).fit(Names, key).apply(one_by_one, np.arange(3), IDS)
    assert np.array_equal(stacked.apply(images, np.arange(3), IDS), one_by_one)


@pytest.mark.parametrize("layers", [*PRESETS.values(), "patches,autoregressive,cuda,tone"])
def test_all_layers_come_off(layers, images, key):
    stacked = Stack(layers=layers).fit(Names, key)
    out, traces = stacked.apply_traced(images, np.arange(3), IDS)
    back = stacked.restore(out, np.arange(3), IDS, traces)
    for n in range(3):
        assert quality.psnr(images[n], back[n]) > max(28, quality.psnr(images[n], out[n]) + 8)


def test_noise_alone_comes_off_exactly(images, key):
    stacked = Stack(layers="patches:radius=40,autoregressive:radius=30").fit(Names, key)
    out, traces = stacked.apply_traced(images, np.arange(3), IDS)
    assert np.array_equal(stacked.restore(out, np.arange(3), IDS, traces), images)


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_is_drawn_from_key_and_class_names(name, key):
    assert type(protections.create(name).fit(Names, key)) is LAYERS[name]


def test_a_stack_is_saved_and_loaded(images, key, tmp_path):
    stacked = Stack(layers="patches,autoregressive,cuda,tone").fit(Names, key)
    stacked.save(tmp_path / "stack")
    loaded = Stacked.load(tmp_path / "stack")
    wanted, traces = stacked.apply_traced(images, np.arange(3), IDS)
    found, others = loaded.apply_traced(images, np.arange(3), IDS)
    assert np.array_equal(found, wanted)
    assert list(others) == list(traces)
    (tmp_path / "stack").write_bytes(b"no")
    with pytest.raises(InputError, match="fit it again"):
        Stacked.load(tmp_path / "stack")


def test_parameters_name_the_layers_with_all_their_options():
    for preset in PRESETS:
        described = Stack(preset=preset).parameters()
        assert Stack(**described).parameters() == described
        assert described["layers"].count("strength=") == described["layers"].count("tone")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "cuda,sem"}, "protect twice"),
        ({"layers": "cuda,tome"}, "layers among"),
        ({"layers": "stack"}, "layers among"),
        ({"layers": "tone,tone"}, "each layer once"),
        ({"layers": "tone:strength"}, "NAME:OPTION=NUMBER"),
        ({"layers": "tone:strength=x"}, "NAME:OPTION=NUMBER"),
        ({"layers": "tone:force=1"}, "options of tone"),
        ({"layers": "tone:strength=2"}, "a strength"),
        ({"preset": "strongest"}, "a preset among"),
        ({"preset": "light", "layers": "cuda"}, "found both"),
    ],
)
def test_stacks_that_cannot_be(options, message):
    with pytest.raises(InputError, match=message):
        Stack(**options)
