"""A stack with noise that is made from the pictures, end to end: one manifest, one key, one noise file, one unlock."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import unlearnable
import unlearnable.training.loop
from tests.conftest import contents, draw_picture
from unlearnable import InputError
from unlearnable.cli import app
from unlearnable.fitting import Names
from unlearnable.pictures import cache, codec, dataset, quality
from unlearnable.pictures.manifest import Manifest
from unlearnable.pictures.samples import eight_bit, square
from unlearnable.pictures.source import open_source
from unlearnable.protections import _bilevel, protections
from unlearnable.protections.error_minimizing import AdditiveNoise
from unlearnable.protections.masking import masked
from unlearnable.protections.noise import Noise
from unlearnable.protections.stack import Stack
from unlearnable.settling import Sampled, qualities, sampled

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = ":model=resnet9-w16:steps=3:noise_steps=2:samples=1:batch_size=6"
LAYERS = f"cuda,tone:strength=0.3,sem{TINY}"


def protect(source, destination, key, layers=LAYERS, **options):
    given = {"method": "stack", "workers": 0, "options": {"layers": layers}} | options
    return unlearnable.protect(source, destination, key=key, **given)


def pixels(folder):
    return {name: codec.decode(data).pixels for name, data in contents(folder).items()}


@pytest.fixture
def album(tmp_path, rng):
    """Sixteen pictures without loss, of several sizes, of which some are grey, or of 16 bits, or of one colour."""
    root = tmp_path / "album"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for n in range(5):
            draw_picture(rng, 16 + n, 20).save(root / name / f"{n}.png")
        draw_picture(rng, 40, 18).convert("L").save(root / name / "grey.png")
        Image.fromarray(rng.integers(0, 65536, (17, 19), np.uint16)).save(root / name / "deep.png")
        Image.new("RGB", (16, 16), "white").save(root / name / "white.png")
    return root


def test_the_surrogate_of_decoys_learns_from_pictures_without_the_layers(album, tmp_path, key, monkeypatch):
    learned, train = [], unlearnable.training.loop.train

    def seen(data, **options):
        learned.append(data.images)
        return train(data, **options)

    monkeypatch.setattr(unlearnable.training.loop, "train", seen)
    report = protect(album, tmp_path / "out", key, f"tone:strength=1,decoy{TINY},veil")
    assert report.failed == 0
    clean = dataset.load(album, size=16, turned=False)
    assert np.array_equal(learned[0], clean.images)
    back = unlearnable.unlock(tmp_path / "out", tmp_path / "back", key=key, workers=0)
    assert (back.failed, back.psnr > 30) == (0, True)


def test_a_surrogate_that_does_not_learn_is_told_of_with_what_to_write(album, tmp_path, key, monkeypatch):
    monkeypatch.setattr(_bilevel, "_ENOUGH", 1)
    monkeypatch.setattr(_bilevel, "guessing", lambda labels: 0.0)
    with pytest.raises(InputError, match="raise the steps") as caught:
        protect(album, tmp_path / "out", key)
    remedy = re.search(r"--layers '(\S+)' takes 6 in place of 3; name another destination$", str(caught.value))
    assert Stack(layers=remedy[1]).made == replace(Stack(layers=LAYERS).made, steps=6)
    assert Stack(layers=remedy[1]).without("sem") == Stack(layers=LAYERS).without("sem")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_main_job(place, album, tmp_path, key, monkeypatch):
    layers = ["cuda", "tone:strength=0.3"]
    layers.insert(place, f"sem:radius=6{TINY}")
    seen = []
    fit = AdditiveNoise.fit

    def spy(self, data, *arguments, **options):
        seen.append(data)
        return fit(self, data, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(AdditiveNoise, "fit", spy)
        report = protect(album, tmp_path / "out", key, ",".join(layers))
    assert (report.pictures, report.protected, report.failed, report.lossy) == (16, 16, 0, 0)
    assert report.noise == f"{tmp_path / 'out'}.manifest.noise.safetensors"
    assert {path.name for path in tmp_path.iterdir()} == {
        "album",
        "out",
        "out.manifest",
        os.path.basename(report.noise),
    }
    noise, names = Noise.load(report.noise), ("cat", "dog")
    (data,) = seen
    under, over = (
        [protections.create(name, **options).fit(Names(names), key) for name, options in some]
        for some in ([("cuda", {}), ("tone", {"strength": 0.3})][part] for part in (slice(place), slice(place, None)))
    )
    originals, published = pixels(album), pixels(tmp_path / "out")
    assert set(data.ids) == originals.keys()
    for id_, canvas in zip(data.ids, data.images, strict=True):
        picture, label = originals[id_][None], np.array([names.index(id_[:3])])
        for layer in under:
            picture = layer.apply(picture, label, [id_])
        colours = np.broadcast_to(square(eight_bit(picture[0]), 16), (16, 16, 3))
        assert np.array_equal(canvas, colours)  # made for the whole picture as the layers before leave it
        for layer in (noise, *over):
            picture = layer.apply(picture, label, [id_])
        assert np.array_equal(published[id_], picture[0])
    assert unlearnable.verify(tmp_path / "out", key=key).ok
    back = unlearnable.unlock(tmp_path / "out", tmp_path / "back", key=key, workers=0)
    assert (back.unlocked, back.failed) == (16, 0)
    assert back.psnr > report.psnr + 5


def test_noise_alone_comes_off_exactly_and_above_cuda_leaves_what_cuda_leaves(album, tmp_path, key):
    protect(album, tmp_path / "alone", key, f"em{TINY},patches")
    unlearnable.unlock(tmp_path / "alone", tmp_path / "back", key=key, workers=0)
    originals, back = pixels(album), pixels(tmp_path / "back")
    assert all(np.array_equal(back[name], original) for name, original in originals.items())
    protect(album, tmp_path / "both", key, f"cuda,em{TINY}")
    unlearnable.protect(album, tmp_path / "cuda", key=key, workers=0)
    for name in ("both", "cuda"):
        unlearnable.unlock(tmp_path / name, tmp_path / f"{name} back", key=key, workers=0)
    assert contents(tmp_path / "both back") == contents(tmp_path / "cuda back")


def test_interrupted_and_with_other_workers_it_ends_with_the_same_bytes(album, tmp_path, key):
    def press(status):
        if status.done == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        protect(album, tmp_path / "out", key, noise_progress=press)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.manifest.noise-run").exists()
    with pytest.raises(InputError, match=r"pictures 16 with digest .*, found pictures 16 with digest"):
        protect(album, tmp_path / "out", key, LAYERS.replace("0.3", "0.4"))  # other canvases
    told = []
    protect(album, tmp_path / "out", key, noise_progress=told.append, workers=2)
    assert told[0].done == 3
    protect(album, tmp_path / "whole", key)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    for name in ("cat/1.png", "dog/grey.png"):  # and pictures that are gone are made again
        (tmp_path / "out" / name).unlink()
    protect(album, tmp_path / "out", key)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_noise_of_an_earlier_run_and_pictures_that_come_later(album, tmp_path, key, rng, monkeypatch):
    report = protect(album, tmp_path / "out", key)
    before = contents(tmp_path / "out")
    monkeypatch.setattr(AdditiveNoise, "fit", None)  # nothing is made again
    draw_picture(rng).save(album / "dog" / "new.png")
    assert protect(album, tmp_path / "out", key).protected == 17
    assert contents(tmp_path / "out").items() > before.items()
    (tmp_path / "later" / "dog").mkdir(parents=True)
    for name in ("new.png", "1.png"):
        shutil.copy(album / "dog" / name, tmp_path / "later" / "dog")
    protect(tmp_path / "later", tmp_path / "again", key, noise=report.noise)
    for name in ("dog/new.png", "dog/1.png"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    unlearnable.unlock(tmp_path / "again", tmp_path / "back", key=key, workers=0)
    with pytest.raises(InputError, match="expected noise of SEM of radius 5, found SEM of radius 8"):
        protect(album, tmp_path / "x", key, LAYERS + ":radius=5", noise=report.noise)
    with pytest.raises(InputError, match="expected strengths that fit a noise file, as it is, found a quality budget"):
        protect(album, tmp_path / "x", key, noise=report.noise, options={"layers": LAYERS, "min_ssim": 0.9})
    with pytest.raises(InputError, match="expected a method that makes noise, with a noise file, found stack without"):
        protect(album, tmp_path / "x", key, "cuda,tone", noise=report.noise)
    with pytest.raises(InputError, match=r"the options of the run that .* found layers"):
        protect(album, tmp_path / "out", key, LAYERS + ":radius=5")
    with pytest.raises(
        InputError,
        match=r"options of stack \(layers, preset, min_ssim, min_psnr, max_ciede2000\), found radius: .* with its name",
    ):
        protect(album, tmp_path / "x", key, options={"radius": 5})
    (album / "emu").mkdir()
    draw_picture(rng).save(album / "emu" / "new.png")
    with pytest.raises(InputError, match=r"expected pictures of the 2 classes .* found others too \('emu'\)"):
        protect(album, tmp_path / "out", key)
    os.remove(report.noise)
    with pytest.raises(InputError, match="expected the noise of this run"):
        unlearnable.unlock(tmp_path / "out", tmp_path / "gone", key=key)
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "x.manifest").exists()


@pytest.mark.parametrize("layers", [LAYERS, f"sem{TINY},cuda,patches"])
def test_what_a_lossy_format_leaves_is_told_and_taken_off(layers, album, tmp_path, key):
    report = protect(album, tmp_path / "out", key, layers, format="jpeg", quality=75)
    assert report.lossy == report.protected == 16
    assert 0.1 < report.noise_kept < 0.95
    back = unlearnable.unlock(tmp_path / "out", tmp_path / "back", key=key, workers=0)
    with Manifest.open(tmp_path / "out.manifest") as book:  # as if nothing were known of the loss
        rows = [(row.number, row.trace, row.label, row.id) for row in book.pictures()]
    stacked = Stack(layers=layers).fit(Noise.load(report.noise), key, noise=Noise.load(report.noise))
    originals = pixels(album)
    for number, _, label, id_ in rows:
        place = np.array([("cat", "dog").index(label)])
        trace = stacked.apply_traced(originals[id_][None], place, [id_])[1].item()
        with Manifest.open(tmp_path / "out.manifest") as book:
            book._database.execute("UPDATE pictures SET scale = ? WHERE number = ?", (trace, number))
    unaware = unlearnable.unlock(tmp_path / "out", tmp_path / "unaware", key=key, workers=0)
    better = [back.pictures_psnr[name] - unaware.pictures_psnr[name] for name in back.pictures_psnr]
    assert np.median(better) > 0
    assert np.mean(better) > 0.1
    assert min(better) > -0.5  # the noise is not the same on every machine, and luck plays its part in one picture


def test_a_budget_is_met_with_random_signs_in_the_place_of_noise(album, tmp_path, key):
    told = []
    options = {"layers": f"tone:strength=1,sem{TINY}:radius=24", "min_ssim": 0.8}
    report = protect(album, tmp_path / "out", key, options=options, budget_progress=lambda *some: told.append(some))
    assert told[-1] == (8 * 16, 8 * 16)
    assert [done for done, _ in told[:-1]] == list(range(1, len(told)))
    found = Stack(**report.parameters)
    assert 1 <= found.made.radius == int(found.made.radius) < 24
    assert found.made.inner_radius == pytest.approx(4 * found.made.radius / 24, abs=1e-6)
    assert Noise.load(report.noise).radius == found.made.radius
    sample = sampled(open_source(album), key)
    assert np.median(list(qualities(found, ["min_ssim"], ["cat", "dog"], key, sample, 16))) >= 0.8
    again = protect(album, tmp_path / "out", key, options=options, budget_progress=pytest.fail)
    assert again.parameters == report.parameters
    with pytest.raises(InputError, match=r"found 0.\d+ at best: ask for less .*without sem"):
        protect(album, tmp_path / "x", key, options={"layers": f"tone:strength=0.01,sem{TINY}", "min_ssim": 0.99999})


def test_what_stands_in_for_noise_is_as_loud_as_noise_can_be(key, rng):
    flat = [Sampled(b"", "a", "cat", np.full((16, 16, 3), 128, np.uint8))]
    applied = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "ssim", lambda _, protected: applied.append(protected.astype(int) - 128) or 1.0)
        for sample in (flat, flat, [replace(flat[0], label="dog")], [replace(flat[0], pixels=flat[0].pixels[..., :1])]):
            list(qualities(Stack(layers="sem:radius=6"), ["min_ssim"], ["cat", "dog"], key, sample, 16))
    assert all((abs(change) == 6).all() and abs(change.mean()) < 1 for change in applied)
    assert np.array_equal(applied[0], applied[1])
    assert not np.array_equal(applied[0], applied[2])


def test_what_stands_in_for_masked_noise_is_as_loud_as_each_place_allows(key, rng):
    pixels = np.full((24, 16, 3), 128, np.uint8)
    pixels[12:] = rng.integers(64, 192, (12, 16, 3))
    sample = [Sampled(b"", "a", "cat", pixels)]
    below, layers = "tone:strength=0.3:grid=2", "sem:radius=6:masking=1"
    applied = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "ssim", lambda _, protected: applied.append(protected.astype(int)) or 1.0)
        list(qualities(Stack(layers=f"{below},{layers}"), ["min_ssim"], ["cat", "dog"], key, sample, 16))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "ssim", lambda _, protected: applied.append(protected.astype(int)) or 1.0)
        rough = Stack(layers=f"{below},{layers}".replace("6", "6.5"))
        list(qualities(rough, ["min_ssim"], ["cat", "dog"], key, sample, 16))
    assert abs(applied[1] - applied[0]).max() > 0  # a radius of masked noise need not be whole
    before = Stack(layers=below).fit(Names(["cat", "dog"]), key).apply(pixels[None], np.array([0]), ["a"])[0]
    change = abs(applied[0] - before)[4:20]  # the middle square, on a canvas of its size
    inside = (before[4:20] >= 24) & (before[4:20] <= 231)
    most = np.broadcast_to(masked(before[4:20][None], 6, 1)[0, ..., None], change.shape)
    assert np.array_equal(change[inside], most[inside])
    assert most.min() == 3
    assert most.max() > 6


def test_canvases_of_containers_and_in_files(album, tmp_path, rng, key, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_half_of_memory", lambda: 0)  # all sets are kept in files
    images = rng.integers(0, 256, (12, 16, 16, 3)).astype(np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(12) % 2)
    for layers in (f"sem{TINY}", f"cuda,sem{TINY}", f"tone,sem{TINY}"):
        protect(tmp_path / "set.npz", tmp_path / f"{layers[:3]}.npz", key, layers)
    assert len(list((tmp_path / "cache/unlearnable/datasets").iterdir())) == 3
    same = np.load(tmp_path / "cud.npz")["images"]
    monkeypatch.setattr(dataset, "_decoded", lambda *_: pytest.fail("decoded again"))
    protect(tmp_path / "set.npz", tmp_path / "again.npz", key, f"cuda,sem{TINY}")
    assert np.array_equal(np.load(tmp_path / "again.npz")["images"], same)
    unlearnable.unlock(tmp_path / "sem.npz", tmp_path / "back.npz", key=key, workers=0)
    assert np.array_equal(np.load(tmp_path / "back.npz")["images"], images)


def test_one_class_and_no_torch_are_said_on_one_line(album, tmp_path, key):
    with pytest.raises(InputError, match="pictures of two classes at least"):
        protect(album, tmp_path / "out", key, classes="single")
    budget = {"layers": LAYERS, "min_ssim": 0.8}
    with pytest.raises(InputError, match="pictures of two classes at least"):  # before anything is measured
        protect(album, tmp_path / "out", key, classes="single", options=budget, budget_progress=pytest.fail)
    assert [path.name for path in tmp_path.iterdir()] == ["album"]
    code = (
        "import sys; sys.modules['torch'] = None; import unlearnable\n"
        "key = unlearnable.Key(bytes(range(32)))\n"
        "job = lambda out, layers: unlearnable.protect(sys.argv[1], sys.argv[2] + out, key=key, method='stack',"
        " options={'layers': layers}, workers=0)\n"
        "job('1', 'cuda,tone,patches')\n"
        "try:\n    job('2', 'cuda,sem')\nexcept unlearnable.InputError as error:\n    print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code, album, tmp_path / "out"], capture_output=True, text=True)
    assert said.stdout == "expected the train extra, found no torch: pip install 'unlearnable[train]'\n", said.stderr
    assert (tmp_path / "out1").exists()


def test_from_the_command_line(album, tmp_path, key):
    key.save(tmp_path / "key")

    def say(*words):
        return CliRunner().invoke(app, [str(word) for word in words])

    stack = ["--key", tmp_path / "key", "--method", "stack", "--layers", LAYERS]
    told = say("protect", album, tmp_path / "out", *stack, "--workers", 0, "--format", "jpeg")
    assert told.exit_code == 0, told.output
    noise = f"{tmp_path / 'out'}.manifest.noise.safetensors"
    assert f"Keep the key and {tmp_path / 'out'}.manifest and {noise} to yourself." in told.stdout
    assert "% of the noise is left in 16 pictures" in told.stderr
    assert f"--format png --noise {noise} keeps all of it" in told.stderr
    png = ["--workers", 0, "--format", "png", "--noise", noise, "--json"]
    report = json.loads(say("protect", album, tmp_path / "png", *stack, *png).stdout)
    assert (report["lossy"], report["noise"]) == (0, f"{tmp_path / 'png'}.manifest.noise.safetensors")
    for given in ([], ["--noise", noise]):
        assert say("preview", album, *stack, *given, "--out", tmp_path / "sheet.png").exit_code == 0
    drawn = ["--key", tmp_path / "key", "--method", "patches", "--workers", 0, "--format", "jpeg", "--quality", 10]
    told = say("protect", album, tmp_path / "patches", *drawn)
    assert "--format png keeps all of it" in told.stderr  # there is no noise file to name


def test_noise_that_a_lossy_format_keeps_is_not_warned_of(tmp_path, key, rng):
    key.save(tmp_path / "key")
    for name in ("cat", "dog"):
        (tmp_path / "large" / name).mkdir(parents=True)
        draw_picture(rng, 300, 400).save(tmp_path / "large" / name / "1.png")
    words = ["--key", tmp_path / "key", "--method", "patches", "--format", "jpeg", "--workers", 0]
    told = CliRunner().invoke(app, list(map(str, ["protect", tmp_path / "large", tmp_path / "out", *words])))
    assert told.exit_code == 0, told.output
    assert told.stderr == ""
    report = json.loads(
        CliRunner()
        .invoke(app, list(map(str, ["protect", tmp_path / "large", tmp_path / "2", *words, "--json"])))
        .stdout
    )
    assert report["lossy"] == 2
    assert report["noise_kept"] > 0.95
