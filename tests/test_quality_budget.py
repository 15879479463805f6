"""A stack under a quality budget: the search, the sample, and the whole way."""

import dataclasses
import json
import math
import shutil
import statistics

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binom
from typer.testing import CliRunner

import unlearnable
from tests.conftest import contents, draw_picture
from unlearnable import InputError, Key, pipeline, settling
from unlearnable.cli import app
from unlearnable.pictures import quality
from unlearnable.pictures.colour_difference import colour_difference
from unlearnable.pictures.manifest import Manifest
from unlearnable.pictures.source import open_source
from unlearnable.protections import protections
from unlearnable.protections.quality_budget import LIMITS, median_at_least, promised, strongest
from unlearnable.protections.stack import LAYERS, MADE, Stack, parse
from unlearnable.settling import qualities, sampled, settled

BUDGETED = {"method": "stack", "workers": 0}
BLANK = Image.new("RGB", (1, 1))


class Names:
    class_names = ("ant", "bee", "cow")


def strength(stack):
    return dict(parse(stack.parameters()["layers"]))["tone"]["strength"]


@pytest.mark.parametrize("least", [0.5, 0.7, 0.77777, 0.98])
def test_the_greatest_share_that_meets_the_budget(least):
    stack = Stack(layers="tone:strength=1")
    found = strongest(stack, {"min_ssim": least}, lambda some: {"min_ssim": 1 - strength(some) / 2})
    assert strength(found) == max(n / 64 for n in range(1, 65) if 1 - n / 128 >= least)


def test_what_meets_the_budget_stays_as_it_is():
    for name in LIMITS:
        assert strongest(Stack(layers="cuda"), {name: 0.8}, lambda _, name=name: {name: 0.8}) == Stack(layers="cuda")


@pytest.mark.parametrize(
    ("budget", "share"),
    [
        ({"min_psnr": 30}, 32),
        ({"max_ciede2000": 4}, 25),
        ({"min_psnr": 30, "max_ciede2000": 4}, 25),
        ({"min_ssim": 0.9, "min_psnr": 20, "max_ciede2000": 16}, 12),
        ({"min_psnr": 20, "max_ciede2000": 16}, 64),
    ],
)
def test_every_limit_is_met_and_no_more_than_that(budget, share):
    def measure(stack):
        share = strength(stack)
        return {"min_ssim": 1 - share / 2, "min_psnr": 40 - 20 * share, "max_ciede2000": 10 * share}

    assert strength(strongest(Stack(layers="tone:strength=1"), budget, measure)) == share / 64


@pytest.mark.parametrize("seed", range(5))
def test_what_is_found_meets_the_budget_however_unevenly_ssim_falls(seed):
    rng = np.random.default_rng(seed)
    ssim = {n / 64: 1 - n / 64 + rng.uniform(-0.1, 0.1) for n in range(2, 65)} | {1 / 64: 1}
    found = strongest(
        Stack(layers="tone:strength=1"), {"min_ssim": 0.6}, lambda some: {"min_ssim": ssim[strength(some)]}
    )
    assert ssim[strength(found)] >= 0.6


def test_a_budget_that_cannot_be_met_says_what_could():
    reached = {"patches": 0.9, "tone": 0.97, "cuda": 0.8}

    def measure(stack):
        worst = min(reached[name] for name, _ in stack.protections())
        return {"min_ssim": worst, "min_psnr": 50 * worst, "max_ciede2000": 1 / worst}

    with pytest.raises(InputError, match=r"SSIM of 0.85, found 0.800 at best: .* leave out cuda \(0.900 at best\)"):
        strongest(Stack(layers="cuda,tone,patches"), {"min_ssim": 0.85}, measure)
    with pytest.raises(InputError, match=r"found 0.800 at best: ask for less$"):
        strongest(Stack(layers="cuda"), {"min_ssim": 0.85}, measure)
    with pytest.raises(InputError, match=r"CIEDE2000 of 1, found 1.25 at best: ask for less \(1.12 at best without"):
        strongest(Stack(layers="cuda,tone,patches"), {"min_psnr": 30, "max_ciede2000": 1}, measure)
    with pytest.raises(InputError, match=r"PSNR in dB of 45, found 40.0 at best: ask for less$"):
        strongest(Stack(layers="cuda"), {"min_psnr": 45}, measure)


@pytest.mark.parametrize(
    ("name", "perfect", "others", "bound", "remedy"),
    [
        ("min_psnr", math.inf, math.inf, 60, "ask for less$"),
        ("min_psnr", math.inf, 50, 60, r"ask for less \(50.0 at best without cuda\)$"),
        ("min_ssim", 1, 1, 0.9999, "ask for less$"),
        ("max_ciede2000", 0, 0.05, 0.01, r"ask for less \(0.05 at best without cuda\)$"),
    ],
)
def test_a_layer_is_not_left_out_where_nothing_would_change_without_it(name, perfect, others, bound, remedy):
    without = {"tone": perfect, "cuda": others}  # of what is left; black pictures stay black
    worst = {"min_psnr": 40, "min_ssim": 0.4, "max_ciede2000": 4}[name]

    def measure(stack):
        names = {name for name, _ in stack.protections()}
        return {name: next((without[layer] for layer in without if layer not in names), worst)}

    with pytest.raises(InputError, match=f" of {bound:g}, found {LIMITS[name].written(worst)} at best: .*{remedy}"):
        strongest(Stack(layers="cuda,tone"), {name: bound}, measure)


def test_pictures_that_stay_as_they_are_count_in_no_median_of_psnr():
    values = [math.inf] * 5 + [10.0, 11.0, 12.0]
    assert promised(values, 8, LIMITS["min_psnr"]) == 11
    assert promised(values, 800, LIMITS["min_psnr"]) == median_at_least(values[5:], 300)
    assert promised(values[:5], 5, LIMITS["min_psnr"]) == math.inf


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 11, 13, 40, 256])
def test_a_sample_promises_too_much_once_in_twenty_times(count):
    place = median_at_least(range(1, count + 1), 10**9)  # counted from below; how many lie below the median is binomial
    too_much = binom.cdf(place - 1, count, 0.5)
    assert too_much < 0.055 if count >= 5 else too_much == 0.5**count
    assert binom.cdf(place, count, 0.5) > 0.05


@pytest.mark.parametrize("count", range(1, 9))
def test_of_all_values_it_is_the_median(count, rng):
    values = rng.random(count).tolist()
    assert median_at_least(values, count) == statistics.median_low(values)


def test_what_is_limited_from_above_is_promised_from_above(rng):
    values = rng.random(40).tolist()
    assert promised(values, 40, LIMITS["max_ciede2000"]) == statistics.median_high(values)
    assert promised(values, 1000, LIMITS["max_ciede2000"]) > statistics.median(values)
    assert promised(values, 1000, LIMITS["min_psnr"]) == median_at_least(values, 1000) < statistics.median(values)


def test_what_is_left_out_of_a_sample_makes_it_less_certain():
    values = range(100)
    assert median_at_least(values, 100) == 49 > median_at_least(values, 120) > median_at_least(values, 10_000)


@pytest.mark.parametrize("name", [name for name in LAYERS if name not in MADE])
def test_a_layer_at_a_share_of_its_strength_changes_less(name, key, rng):
    images = np.stack([np.asarray(draw_picture(rng, 32, 32)) for _ in range(6)])
    labels, ids = np.arange(6) % 3, [str(n) for n in range(6)]
    full = protections.create(name, **{"radius": 32} if name in ("patches", "autoregressive") else {})
    change = [
        np.abs(layer.fit(Names, key).apply(images, labels, ids).astype(int) - images).mean()
        for layer in (full.scaled(0.02), full.scaled(0.3), full.scaled(1))
    ]
    assert 0 < change[0] < change[1] < change[2]
    assert protections.create(name, **full.scaled(0.02).parameters()) == full.scaled(0.02)
    if name != "cuda":
        assert full.scaled(1) == full
    else:
        assert full.scaled(1) == dataclasses.replace(full, blur=0.3, aligned=True)


def test_kernels_and_distances_are_scaled_too():
    given = protections.create("cuda", kernel_size=9, min_distance=0.04).scaled(0.5)
    assert (given.blur, given.min_distance, given.kernel_size) == (0.03, 0.02, 9)


@pytest.mark.parametrize(("share", "radius", "inner"), [(1, 8, 1), (0.5, 4, 1 / 2), (0.3, 2, 1 / 4), (0.01, 1, 1 / 8)])
def test_noise_is_scaled_by_whole_grey_levels_and_what_it_withstands_with_it(share, radius, inner):
    for name in MADE:
        full = protections.create(name)
        scaled = full.scaled(share)
        assert scaled.radius == radius
        assert getattr(scaled, "inner_radius", 0) == inner * getattr(full, "inner_radius", 0)


def test_a_stack_is_scaled_layer_by_layer():
    scaled = Stack(layers="tone:grid=4,patches:radius=9", min_ssim=0.8).scaled(0.5)
    assert scaled.parameters() == {"layers": "tone:strength=0.25:grid=4,patches:radius=4:grid=4", "min_ssim": 0.8}
    assert scaled.without("tone").layers == "patches:radius=4:grid=4"


def test_a_stack_with_a_budget_is_settled_before_it_is_fitted(key):
    with pytest.raises(ValueError, match="find them first"):
        Stack(min_ssim=0.9).fit(Names, key)
    for least in (0, 1, -0.5):
        with pytest.raises(InputError, match="a median SSIM above 0 and below 1"):
            Stack(min_ssim=least)
    for bound in (0, -1, math.inf, math.nan):
        with pytest.raises(InputError, match="a finite median PSNR above 0 dB"):
            Stack(min_psnr=bound)
        with pytest.raises(InputError, match="a finite median CIEDE2000 above 0"):
            Stack(max_ciede2000=bound)


def test_the_sample_is_the_keys_whatever_lies_in_memory(pictures, key, monkeypatch):
    source = open_source(pictures)
    everything = sampled(source, key)
    assert len(everything) == 10
    assert [one.rank for one in everything] == sorted(key.rank("quality", one.id) for one in everything)
    monkeypatch.setattr(settling, "_PICTURES", 4)
    assert [one.id for one in sampled(source, key)] == [one.id for one in everything[:4]]
    monkeypatch.setattr(settling, "_SAMPLES", everything[0].pixels.size + everything[1].pixels.size)
    assert [one.id for one in sampled(source, key)][:2] == [one.id for one in everything[:2]]
    assert [one.id for one in sampled(source, Key(bytes(32)))] != [one.id for one in everything[:4]]
    monkeypatch.setattr(settling, "_SAMPLES", 1)
    assert [one.id for one in sampled(source, key)] == [everything[0].id]


def test_qualities_are_those_of_the_published_pictures(pictures, tmp_path, key):
    stack = Stack(layers="tone,patches")
    sample = sampled(open_source(pictures), key)
    found = qualities(stack, ["max_ciede2000", "min_ssim", "min_psnr"], ["cat", "dog"], key, sample)
    for one, values in zip(sample, found, strict=True):
        label = np.array([["cat", "dog"].index(one.label)])
        fitted = stack.fit(type("D", (), {"class_names": ("cat", "dog")}), key)
        protected = fitted.apply(one.pixels[None], label, [one.id])[0]
        measures = (colour_difference, quality.ssim, quality.psnr)
        assert values == [measure(one.pixels, protected) for measure in measures]


@pytest.mark.parametrize(
    ("layers", "least"), [(None, 0.95), ("tone:strength=1:grid=4", 0.9), ("cuda,tone,patches:radius=30", 0.9)]
)
def test_the_whole_way(layers, least, pictures, tmp_path, key):
    options = {"min_ssim": least} | ({} if layers is None else {"layers": layers})
    free = unlearnable.protect(
        pictures, tmp_path / "free", key=key, options={"layers": layers} if layers else {}, **BUDGETED
    )
    report = unlearnable.protect(pictures, tmp_path / "out", key=key, options=options, **BUDGETED)
    assert free.ssim < least <= report.ssim < 0.97
    assert Stack(**report.parameters).min_ssim is None
    found = parse(report.parameters["layers"])
    again = unlearnable.protect(
        pictures, tmp_path / "again", key=key, options={"layers": report.parameters["layers"]}, **BUDGETED
    )
    assert contents(tmp_path / "again") == contents(tmp_path / "out")
    assert again.ssim == report.ssim
    assert [name for name, _ in found] == [name for name, _ in parse(layers or "cuda,tone,patches")]
    assert unlearnable.verify(tmp_path / "out", key=key).ok
    back = unlearnable.unlock(tmp_path / "out", tmp_path / "back", key=key, workers=0)
    assert back.psnr > report.psnr + 3


def test_the_whole_way_to_a_psnr_and_a_colour_difference(tmp_path, key, rng):
    images = np.stack([np.asarray(draw_picture(rng, 32, 32)) for _ in range(20)])
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(20) % 2)
    options = {"layers": "tone:strength=1", "min_psnr": 25, "max_ciede2000": 5}
    common = {"key": key, **BUDGETED}
    report = unlearnable.protect(tmp_path / "set.npz", tmp_path / "out.npz", options=options, **common)
    colours = map(colour_difference, images, np.load(tmp_path / "out.npz")["images"])
    assert report.psnr >= 25
    assert 4 < statistics.median(colours) <= 5
    with Manifest.open(tmp_path / "out.npz.manifest") as book:
        assert book.about("asked")["max_ciede2000"] == 5
    with pytest.raises(InputError, match=r"\(min_psnr: 25\), found min_psnr: 30"):
        unlearnable.protect(tmp_path / "set.npz", tmp_path / "out.npz", options=options | {"min_psnr": 30}, **common)


def test_a_run_goes_on_with_the_strengths_that_it_has(pictures, tmp_path, key, rng, monkeypatch):
    options = {"min_ssim": 0.95}
    first = unlearnable.protect(pictures, tmp_path / "out", key=key, options=options, **BUDGETED)
    before = contents(tmp_path / "out")
    for n in range(3):
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(pictures / "cat" / f"new {n}.png")
    monkeypatch.setattr(settling, "sampled", lambda *_: pytest.fail("searched again"))
    second = unlearnable.protect(pictures, tmp_path / "out", key=key, options=options, **BUDGETED)
    assert second.pictures == 13
    assert second.parameters == first.parameters
    after = contents(tmp_path / "out")
    assert {name: after[name] for name in before} == before
    with pytest.raises(InputError, match=r"min_ssim: 0.95\), found min_ssim: 0.8"):
        unlearnable.protect(pictures, tmp_path / "out", key=key, options={"min_ssim": 0.8}, **BUDGETED)
    with pytest.raises(InputError, match=r"min_ssim: 0.95\), found min_ssim: null"):
        unlearnable.protect(pictures, tmp_path / "out", key=key, **BUDGETED)
    with pytest.raises(InputError, match="the options of the run"):
        unlearnable.protect(pictures, tmp_path / "out", key=key, options={}, **BUDGETED)
    with Manifest.open(tmp_path / "out.manifest") as book:
        assert book.about("asked")["min_ssim"] == 0.95
        assert book.about("parameters") == first.parameters


def test_a_run_that_was_killed_before_it_recorded_anything_begins_anew(pictures, tmp_path, key):
    (tmp_path / "out.manifest").touch()
    report = unlearnable.protect(pictures, tmp_path / "out", key=key, options={"min_ssim": 0.95}, **BUDGETED)
    assert report.ssim >= 0.95
    (tmp_path / "new.manifest").write_bytes(b"no database")
    with pytest.raises(InputError, match="a manifest, found something else at"):
        unlearnable.protect(pictures, tmp_path / "new", key=key, options={"min_ssim": 0.95}, **BUDGETED)


def test_containers_and_one_class(tmp_path, key, rng):
    images = np.stack([np.asarray(draw_picture(rng, 32, 32)) for _ in range(20)])
    np.savez(tmp_path / "set.npz", images=images, labels=np.zeros(20, int))
    report = unlearnable.protect(
        tmp_path / "set.npz", tmp_path / "out.npz", key=key, options={"min_ssim": 0.9}, **BUDGETED
    )
    assert 0.9 <= report.ssim < 1
    settled_again = settled(Stack(min_ssim=0.9), open_source(tmp_path / "set.npz"), key)
    assert settled_again.parameters() == report.parameters


def test_what_cannot_be_met_leaves_nothing(pictures, tmp_path, key):
    options = {"layers": "cuda,patches:radius=64:grid=16", "min_ssim": 0.9999}
    with pytest.raises(InputError, match=r"SSIM of 0.9999, found 0.9\d\d at best: ask for less \(0.9\d\d at best w"):
        unlearnable.protect(pictures, tmp_path / "out", key=key, options=options, **BUDGETED)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.manifest").exists()


def test_a_promise_that_was_not_kept_is_told_beside_json_too(pictures, tmp_path, key, monkeypatch):
    key.save(tmp_path / "key")
    monkeypatch.setattr(pipeline, "settled", lambda *_: Stack(layers="tone:strength=1"))
    words = ["protect", pictures, tmp_path / "out", "--key", tmp_path / "key", "--method", "stack", "--json"]
    told = CliRunner().invoke(app, list(map(str, [*words, "--min-ssim", 0.999, "--workers", 0])))
    reached = LIMITS["min_ssim"].written(json.loads(told.stdout)["ssim"])
    assert f"promised a median SSIM of 0.999, and it is {reached}: with" in told.stderr


def test_from_the_command_line(pictures, tmp_path, key, monkeypatch):
    key.save(tmp_path / "key")
    common = ["--key", tmp_path / "key", "--min-ssim", 0.9]
    words = ["protect", pictures, tmp_path / "out", *common, "--method", "stack", "--workers", 0]
    told = CliRunner().invoke(app, list(map(str, words)))
    assert told.exit_code == 0, told.output
    assert "\nLayers: cuda:blur=0." in told.stdout
    assert "promised" not in told.stderr
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out.manifest").unlink()
    told = json.loads(CliRunner().invoke(app, list(map(str, [*words, "--json"]))).stdout)
    assert 0.9 <= told["ssim"] < 0.97
    assert told["parameters"]["layers"].startswith("cuda:blur=0.")
    sheet = ["preview", pictures, "--out", tmp_path / "sheet.png", *common, "--method", "stack"]
    drawn = {}
    monkeypatch.setattr("unlearnable.pictures.sheet.contact_sheet", lambda _, **texts: drawn.update(texts) or BLANK)
    assert CliRunner().invoke(app, list(map(str, sheet))).exit_code == 0
    assert drawn == {"title": "stack: pictures", "subtitle": told["parameters"]["layers"]}
    with pytest.raises(InputError, match=r"options of cuda .* found min_ssim"):
        CliRunner().invoke(app, list(map(str, ["protect", pictures, tmp_path / "2", *common])), catch_exceptions=False)
