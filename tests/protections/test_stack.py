"""Stacks: layers one over the other, and off again."""

import dataclasses
import pickle

import numpy as np
import pytest

from unlearnable import InputError
from unlearnable.pictures import quality
from unlearnable.pictures.dataset import Dataset
from unlearnable.protections import protections
from unlearnable.protections.error_minimizing import AdditiveNoise
from unlearnable.protections.noise import Noise, share_left
from unlearnable.protections.patches import Patches
from unlearnable.protections.stack import LAYERS, MADE, PRESETS, Stack, Stacked, described, parse

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
def test_all_layers_come_off(layers, images, key, rng):
    patterns = rng.choice(np.array([-14, 14], np.int8), images.shape)
    noise = Noise(Names.class_names, IDS, patterns, patterns, radius=14, method="SEM") if "sem" in layers else None
    stacked = Stack(layers=layers).fit(Names, key, noise=noise)
    out, traces = stacked.apply_traced(images, np.arange(3), IDS)
    back = stacked.restore(out, np.arange(3), IDS, traces)
    for n in range(3):
        assert quality.psnr(images[n], back[n]) > (35 if "aligned" in layers or "cuda" not in layers else 28)


def test_noise_alone_comes_off_exactly(images, key):
    stacked = Stack(layers="patches:radius=40,autoregressive:radius=30").fit(Names, key)
    out, traces = stacked.apply_traced(images, np.arange(3), IDS)
    assert np.array_equal(stacked.restore(out, np.arange(3), IDS, traces), images)


@pytest.mark.parametrize("name", [name for name in LAYERS if name not in MADE])
def test_every_other_layer_is_drawn_from_key_and_class_names(name, key):
    assert type(protections.create(name).fit(Names, key)) is LAYERS[name]


@pytest.mark.parametrize("names", [(), ("ant", "ant"), ("caf\u00e9", "cafe\u0301")])
@pytest.mark.parametrize("name", [name for name in LAYERS if name not in MADE])
def test_classes_that_a_key_cannot_tell_apart(name, names, key):
    with pytest.raises(ValueError, match="class names that differ, at least one"):
        protections.create(name).fit(type("D", (), {"class_names": names}), key)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 150)])
def test_pictures_of_any_size_and_channels(size, channels, dtype, key, rng):
    images = rng.integers(0, np.iinfo(dtype).max + 1, (3, *size, channels), dtype)
    each = ("cuda", "echo", "tone:strength=1:grid=8", "patches", "autoregressive", "veil")
    for layers in (*each, "cuda,echo,tone,patches,autoregressive,veil"):
        stacked = Stack(layers=layers).fit(Names, key)
        out, traces = stacked.apply_traced(images, np.arange(3), IDS)
        back = stacked.restore(out, np.arange(3), IDS, traces)
        assert (out.shape, out.dtype, back.shape, back.dtype) == (images.shape, dtype) * 2
        if layers in ("patches", "autoregressive"):
            assert np.array_equal(back, images)


@pytest.mark.parametrize("channels", [2, 5])
@pytest.mark.parametrize("name", [name for name in LAYERS if name not in MADE])
def test_pictures_of_other_channels_are_refused(name, channels, key):
    fitted = protections.create(name).fit(Names, key)
    with pytest.raises(ValueError, match="width, 1, 3 or 4"):
        fitted.apply(np.zeros((1, 9, 9, channels), np.uint8), np.array([0]), ["a"])


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


def test_the_strongest_preset_alone_needs_a_network():
    assert [name for name in PRESETS if Stack(preset=name).made] == ["strongest"]


def test_options_are_written_as_they_are_read():
    words = "tap:preset=paper:model=some where/net.safetensors:steps=9:seed=0:radius=6.5:per=class:targeted=0"
    (layer,) = Stack(layers=words).protections()
    assert (layer[1].model, layer[1].per, bool(layer[1].targeted)) == ("some where/net.safetensors", "class", False)
    assert described([layer]) == words
    assert "targeted=1" in Stack(layers="tap").parameters()["layers"]
    assert parse("sem:model=5:radius=6") == [("sem", {"model": "5", "radius": 6})]


def test_the_noise_family_is_known():
    made = {name for name in protections if issubclass(protections.builder(name), AdditiveNoise)}
    assert made == set(MADE) == {name for name in LAYERS if LAYERS[name] is Noise} - {"patches"}


def test_noise_is_made_from_what_the_layers_before_it_leave(key, rng):
    images = rng.integers(0, 256, (12, 16, 16, 3)).astype(np.uint8)
    data = Dataset(images, np.arange(12) % 3, ("cow", "ant", "bee"), tuple(f"{n}" for n in range(12)))
    options = {"model": "resnet9-w16", "steps": 2, "noise_steps": 2, "samples": 1, "batch_size": 6, "radius": 6}
    words = "".join(f":{name}={value}" for name, value in options.items())
    stacked = Stack(layers=f"cuda,tone,sem{words},patches").fit(data, key)
    below = Stack(layers="cuda,tone")
    assert Stack(layers=f"cuda,tone,sem{words},patches").below().layers == described(below.protections())
    assert Stack(layers=f"sem{words},patches").below() is None
    seen = below.fit(data, key).apply(images, data.labels, data.ids)
    noise = protections.create("sem", **options).fit(dataclasses.replace(data, images=seen), key)
    assert stacked.noise.digests() == noise.digests()
    assert stacked.class_names == ("ant", "bee", "cow")
    labels = (data.labels + 2) % 3  # the same classes in the order of their names
    wanted = noise.apply(seen, labels, data.ids)
    wanted = protections.create("patches").fit(noise, key).apply(wanted, labels, data.ids)
    assert np.array_equal(stacked.apply(images, labels, data.ids), wanted)
    with pytest.raises(InputError, match="pictures to make noise for, found class names alone"):
        Stack(layers="cuda,sem").fit(Names, key)


def test_layers_are_of_the_same_classes(key):
    others = Patches().fit(type("D", (), {"class_names": ("bee", "ant", "cow")}), key)
    with pytest.raises(ValueError, match="layers of the same classes"):
        Stacked([("tone", protections.create("tone").fit(Names, key)), ("patches", others)])


def test_noise_on_top_takes_nothing_from_what_comes_off_below(images, key):
    plain = protections.create("cuda").fit(Names, key)
    stacked = Stack(layers="cuda,patches").fit(Names, key)
    out, traces = stacked.apply_traced(images, np.arange(3), IDS)
    filtered, scales = plain.apply_traced(images, np.arange(3), IDS)
    assert np.array_equal(
        stacked.restore(out, np.arange(3), IDS, traces), plain.restore(filtered, np.arange(3), IDS, scales)
    )


@pytest.mark.parametrize(
    ("layers", "on_top"),
    [("tone,patches:radius=6", True), ("patches:radius=6,tone", False), ("cuda,patches:radius=60", True)],
)
def test_what_a_lossy_format_leaves_of_noise_is_told(layers, on_top, images, key):
    images[0] //= 3  # so that some of it is cut off
    stacked = Stack(layers=layers).fit(Names, key)
    out, traces = stacked.apply_traced(images, np.arange(3), IDS)
    others = [(name, layer) for name, layer in stacked.layers if name != "patches"]
    without = Stacked(others).apply(images, np.arange(3), IDS)
    part = slice(3, 27), slice(8, 32)
    for n, name in enumerate(IDS):
        cut = on_top & ((out[n] == 0) | (out[n] == 255))  # samples that then count for nothing
        before = np.where(cut, out[n], without[n])
        left = share_left(before[part], out[n][part], images[n][part])
        for stored, share in ((out, 1), (before[None].repeat(3, 0), 0), (images, left)):
            trace = stacked.traced_in_loss(traces[n], images[n], out[n], stored[n][part], part, n, name)
            assert stacked.noise_left(trace) == pytest.approx(share)


def test_of_several_layers_of_noise_the_least_share_is_told(images, key):
    stacked = Stack(layers="patches:radius=20,autoregressive:radius=20").fit(Names, key)
    out, traces = stacked.apply_traced(images, np.arange(3), IDS)
    whole, part = (slice(None), slice(None)), Stack(layers="patches:radius=20").fit(Names, key)
    half = part.apply(images, np.arange(3), IDS)  # the second layer is gone
    for n, name in enumerate(IDS):
        left = stacked.noise_left(stacked.traced_in_loss(traces[n], images[n], out[n], half[n], whole, n, name))
        assert left == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(
    "layers",
    [
        "cuda:blur=0.2,tone:strength=0.5,patches:radius=5",
        "cuda,tone:strength=0.4,patches:radius=5",
        "cuda,tone:strength=0.5,patches:radius=6",
        "cuda,tone:strength=0.5",
        "patches:radius=5,cuda,tone:strength=0.5",
    ],
)
def test_every_layer_and_their_order_count_for_the_digests(layers, key):
    before = Stack(layers="cuda,tone:strength=0.5,patches:radius=5").fit(Names, key).digests()
    after = Stack(layers=layers).fit(Names, key).digests()
    assert before.keys() == after.keys()
    assert not set(before.values()) & set(after.values())


def test_values_out_of_range_name_their_layer():
    with pytest.raises(InputError, match=r"^tone: expected a strength from 0.01 to 1, found 2: "):
        Stack(layers="cuda,tone:strength=2")


def test_to_another_process_noise_goes_as_the_name_of_its_file(images, key, tmp_path):
    patterns = np.random.default_rng(0).integers(-8, 9, (3, 200, 200, 3)).astype(np.int8)
    noise = Noise(Names.class_names, IDS, patterns, patterns, radius=8, method="SEM")
    noise.save(tmp_path / "noise")
    tone = protections.create("tone").fit(Names, key)
    stacked = Stacked([("tone", tone), ("sem", Noise.load(tmp_path / "noise"))])
    stacked.save(tmp_path / "stack")
    assert (tmp_path / "stack").stat().st_mode & 0o077 == 0
    wanted = stacked.apply(images, np.arange(3), IDS)
    for one in (stacked, Stacked.load(tmp_path / "stack")):
        sent = pickle.dumps(one)
        assert len(sent) < 10_000 < noise.patterns.nbytes
        assert np.array_equal(pickle.loads(sent).apply(images, np.arange(3), IDS), wanted)
    by_hand = pickle.loads(pickle.dumps(Stacked([("tone", tone), ("sem", noise)])))
    assert np.array_equal(by_hand.apply(images, np.arange(3), IDS), wanted)
    assert {path.name for path in tmp_path.iterdir()} == {"noise", "stack"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"layers": "sem,cuda,em"},
            r"one layer at most among em, rem, sem, tap, decoy, found 'sem' and 'em': leave one out",
        ),
        ({"layers": "cuda,tome"}, "layers among"),
        ({"layers": "stack"}, "layers among"),
        ({"layers": "tone,tone"}, "each layer once"),
        ({"layers": "tone:grid=2:grid=4"}, "each option of tone once, found 'tone:grid=2:grid=4'"),
        ({"layers": "tone:strength"}, "expected tone:strength=NUMBER, found 'tone:strength'"),
        ({"layers": "tone:strength=x"}, "expected tone:strength=NUMBER, found 'tone:strength=x'"),
        ({"layers": "tone:grid=2.5"}, "expected tone:grid=WHOLE NUMBER, found 'tone:grid=2.5'"),
        ({"layers": "cuda:aligned=yes"}, "expected cuda:aligned=0 or 1, found 'cuda:aligned=yes'"),
        ({"layers": "tap:targeted=2"}, "expected tap:targeted=0 or 1, found 'tap:targeted=2'"),
        ({"layers": "sem:steps=many"}, "expected sem:steps=WHOLE NUMBER, found 'sem:steps=many'"),
        ({"layers": "sem:model="}, "expected sem:model=WORD, found 'sem:model='"),
        ({"layers": "sem:preset=fsat"}, "one of the presets fast, paper, strong"),
        ({"layers": "sem:per=pixel"}, "noise per picture or per class"),
        ({"layers": "tone:force=1"}, r"options of the layer tone \(strength, grid, mix, gamma\), found 'force'"),
        ({"layers": "tone:strength=2"}, "a strength"),
        ({"preset": "hard"}, "a preset among"),
        ({"preset": "light", "layers": "cuda"}, "found both"),
    ],
)
def test_stacks_that_cannot_be(options, message):
    with pytest.raises(InputError, match=message):
        Stack(**options)
