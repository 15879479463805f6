"""The noise family end to end: made once beside the manifest, written within its radius, off again to the last bit."""

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import unlearnable
from tests.cli.test_cli import keyfile
from tests.conftest import contents, draw_picture
from tests.test_containers import KINDS, NAMES, as_npz, read_npz
from unlearnable import InputError, Key, ReferenceSeed
from unlearnable.cli import common, main
from unlearnable.models import build
from unlearnable.pictures import codec
from unlearnable.pictures.dataset import load
from unlearnable.pictures.manifest import Manifest
from unlearnable.pictures.samples import eight_bit, square
from unlearnable.protections import _bilevel
from unlearnable.protections.error_minimizing import AdditiveNoise
from unlearnable.protections.noise import Noise, added, carried
from unlearnable.training.checkpoint import Network, save_network

pytestmark = pytest.mark.usefixtures("one_thread")
__all__ = ["keyfile"]

TINY = {"model": "resnet9-w16", "steps": 3, "noise_steps": 2, "samples": 1, "batch_size": 6}


def protect(source, destination, key, **options):
    given = {"method": "sem", "workers": 0, "options": TINY} | options
    return unlearnable.protect(source, destination, key=key, **given)


def decoded(folder):
    return {
        name.rsplit(".", 1)[0]: codec.decode(data)
        for name, data in contents(folder).items()
        if not name.endswith("txt")
    }


@pytest.fixture
def album(tmp_path, rng):
    """Pictures of all kinds that are stored without loss: sizes, depths, alpha, palettes, ends of the range."""
    root = tmp_path / "album"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        draw_picture(rng, 33, 47).save(root / name / "plain.png")
        draw_picture(rng, 12, 12).save(root / name / "small.bmp")
        draw_picture(rng, 70, 20).convert("L").save(root / name / "grey.tif")
        see_through = draw_picture(rng)
        see_through.putalpha(draw_picture(rng).convert("L"))
        see_through.save(root / name / "through.webp", lossless=True, exact=True)
        draw_picture(rng, 40, 40).quantize(20).save(root / name / "palette.png")
        Image.fromarray(rng.integers(0, 65536, (21, 30), np.uint16)).save(root / name / "deep.png")
        Image.fromarray(rng.choice([0, 1, 254, 255], (25, 25, 3)).astype(np.uint8)).save(root / name / "ends.png")
    return root


@pytest.mark.parametrize("method", ["em", "rem", "sem", "tap", "decoy"])
def test_main_job(method, album, tmp_path, key):
    before = contents(album)
    report = protect(album, tmp_path / "out", key, method=method)
    assert (report.pictures, report.protected, report.failed, report.lossy) == (14, 14, 0, 0)
    assert contents(album) == before
    assert contents(tmp_path / "out").keys() == before.keys()
    assert unlearnable.verify(tmp_path / "out", key=key).ok
    originals, published = decoded(album), decoded(tmp_path / "out")
    for name, original in originals.items():
        change = published[name].pixels.astype(int) - original.pixels
        level = np.iinfo(original.pixels.dtype).max // 255
        assert 0 < abs(change).max() <= 8 * level
    unlocked = unlearnable.unlock(tmp_path / "out", tmp_path / "back", key=key, workers=0)
    assert (unlocked.unlocked, unlocked.failed, unlocked.psnr) == (14, 0, 99)
    for name, back in decoded(tmp_path / "back").items():
        assert np.array_equal(back.pixels, originals[name].pixels)
        if "through" in name:
            assert np.array_equal(back.alpha, originals[name].alpha)


def test_workers_and_order_do_not_matter(album, tmp_path, key):
    for workers in (0, 2):
        protect(album, tmp_path / str(workers), key, workers=workers)
    assert contents(tmp_path / "0") == contents(tmp_path / "2")
    unlearnable.unlock(tmp_path / "2", tmp_path / "back", key=key, workers=2)
    back = decoded(tmp_path / "back")
    assert all(np.array_equal(back[name].pixels, original.pixels) for name, original in decoded(album).items())


def test_what_lies_where(pictures, tmp_path, key):
    report = protect(pictures, tmp_path / "out", key)
    noise = tmp_path / "out.manifest.noise.safetensors"
    assert report.noise == str(noise)
    assert noise.stat().st_mode & 0o077 == 0
    assert {name: (t.shape, t.dtype) for name, t in load_file(noise).items() if name != "ids"} == {
        "noise": ((10, 20, 20, 3), np.int8),
        "classes": ((2, 20, 20, 3), np.int8),
    }
    assert {path.name for path in tmp_path.iterdir()} == {"pictures", "out", "out.manifest", noise.name}
    assert not [name for name in contents(tmp_path / "out") if "noise" in name or "manifest" in name]
    secrets = noise.read_bytes() + (tmp_path / "out.manifest").read_bytes()
    assert key.secret not in secrets


def test_canvases_are_cut_from_pictures_as_they_are_stored(tmp_path, rng, key, monkeypatch):
    """A picture that EXIF turns on its side is neither turned for the canvas nor when the noise is added."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("cat", "dog"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for n in range(2):
            draw_picture(rng, 20, 36).save(tmp_path / "in" / name / f"{n}.png", exif=exif)
    seen = []
    fit = AdditiveNoise.fit

    def spy(self, dataset, *arguments, **options):
        seen.append(dataset)
        return fit(self, dataset, *arguments, **options)

    monkeypatch.setattr(AdditiveNoise, "fit", spy)
    report = protect(tmp_path / "in", tmp_path / "out", key)
    (data,) = seen
    originals, published = decoded(tmp_path / "in"), decoded(tmp_path / "out")
    noise = Noise.load(report.noise)
    assert set(data.ids) == set(noise.ids) == {f"{name}.png" for name in originals}
    for image, label, id_ in zip(data.images, data.labels, data.ids, strict=True):
        pixels = originals[id_[:-4]].pixels
        assert pixels.shape == (20, 36, 3)
        assert np.array_equal(image, square(eight_bit(pixels), 20))
        wanted = added(pixels, carried(noise.pattern(label, id_), pixels.shape))
        assert np.array_equal(published[id_[:-4]].pixels, wanted)
    assert not np.array_equal(load(tmp_path / "in", size=20).images, data.images)  # the audit sees them upright


@pytest.mark.parametrize(("options", "side"), [({}, 20), ({"size": 12}, 12)])
def test_side_of_the_canvas(pictures, tmp_path, key, options, side):
    report = protect(pictures, tmp_path / "out", key, options=TINY | options)
    assert Noise.load(report.noise).patterns.shape == (10, side, side, 3)


def test_side_of_the_canvas_by_default_is_between_bounds(tmp_path, rng, key):
    for side, canvas in ((200, 64), (5, 8)):
        for name in ("cat", "dog"):
            (tmp_path / str(side) / name).mkdir(parents=True)
            for n in range(2):
                draw_picture(rng, side, side + 9).save(tmp_path / str(side) / name / f"{n}.png")
        (tmp_path / str(side) / "cat" / "0.png").write_bytes(b"broken")
        draw_picture(rng, side, side).save(tmp_path / str(side) / "cat" / "2.png")
        report = protect(tmp_path / str(side), tmp_path / f"out{side}", key, options=TINY | {"steps": 1})
        assert Noise.load(report.noise).by_class.shape == (2, canvas, canvas, 3)
        assert (report.protected, report.failed) == (4, 1)


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def test_containers(kind, tmp_path, rng, key):
    write, read = kind
    images = np.stack([np.asarray(draw_picture(rng, 32, 32)) for _ in range(300)])
    images[:, :4] = rng.choice([0, 255], (300, 4, 32, 3))
    source = write(tmp_path, images, np.arange(300) % 3)
    out, back = (tmp_path / f"{name}{source.suffix}" for name in ("out", "back"))
    report = protect(source, out, key, options=TINY | {"steps": 1, "noise_steps": 1, "batch_size": 100})
    assert (report.pictures, report.protected, report.lossy) == (300, 300, 0)
    change = read(out).astype(int) - images
    assert abs(change).max() == 8
    assert (abs(change).reshape(300, -1).max(1) > 0).all()
    assert unlearnable.verify(out, key=key).ok
    unlearnable.unlock(out, back, key=key, workers=0)
    assert np.array_equal(read(back), images)


def test_fraction_leaves_the_others_as_they_are(album, tmp_path, key):
    report = protect(album, tmp_path / "out", key, fraction=0.5)
    assert (report.protected, report.kept) == (7, 7)
    originals, published = decoded(album), decoded(tmp_path / "out")
    same = sum(np.array_equal(published[name].pixels, original.pixels) for name, original in originals.items())
    assert same == 7


def test_loss_is_measured_and_taken_into_account(pictures, tmp_path, key):
    report = protect(pictures, tmp_path / "out", key)
    assert (report.protected, report.lossy) == (10, 6)
    unlocked = unlearnable.unlock(tmp_path / "out", tmp_path / "back", key=key, workers=0)
    assert {name for name, psnr in unlocked.pictures_psnr.items() if psnr == 99} == {
        name for name in contents(tmp_path / "out") if name.endswith("png")
    }
    originals, published = decoded(pictures), decoded(tmp_path / "out")
    noise = Noise.load(report.noise)
    shares = []
    for name in (f"{animal}/{n}" for animal in ("cat", "dog") for n in range(3)):
        original, stored = (these[name].pixels.astype(float) for these in (originals, published))
        pattern = carried(noise.pattern(0, f"{name}.jpg"), original.shape)
        wanted = added(originals[name].pixels, pattern) - original
        shares.append(np.vdot(wanted, stored - original) / np.vdot(wanted, wanted))
        taken_off = (stored - shares[-1] * pattern - original).std()
        assert taken_off < (stored - original).std() < (stored - pattern - original).std()
    assert report.noise_kept == pytest.approx(np.median(shares))
    assert 0.1 < report.noise_kept < 0.9


def test_sixteen_bits_in_eight_keep_nearly_all(album, tmp_path, key):
    report = protect(album, tmp_path / "out", key, format="webp")
    assert report.lossy == 2
    assert report.noise_kept == pytest.approx(1, abs=0.05)
    unlearnable.unlock(tmp_path / "out", tmp_path / "back", key=key, workers=0)
    for name, back in decoded(tmp_path / "back").items():  # grey ones as colours, which is all that WebP knows
        original = decoded(album)[name].pixels
        assert abs(back.pixels.astype(int) - eight_bit(original)).max() <= 8 * (original.dtype == np.uint16)


# --- pictures that come later


def same_as_class_noise(noise, folder, out, name, label):
    original, published = (decoded(place)[name].pixels for place in (folder, out))
    return np.array_equal(published, added(original, carried(noise.by_class[label], original.shape)))


def test_new_pictures_get_the_noise_of_their_class(album, tmp_path, key, rng, monkeypatch):
    report = protect(album, tmp_path / "out", key)
    before = contents(tmp_path / "out")
    draw_picture(rng).save(album / "dog" / "new.png")
    monkeypatch.setattr(AdditiveNoise, "fit", None)  # nothing is made again
    assert protect(album, tmp_path / "out", key).protected == 15
    noise = Noise.load(report.noise)
    assert same_as_class_noise(noise, album, tmp_path / "out", "dog/new", 1)
    assert contents(tmp_path / "out").items() > before.items()
    unlearnable.unlock(tmp_path / "out", tmp_path / "back", key=key, workers=0)
    assert np.array_equal(decoded(tmp_path / "back")["dog/new"].pixels, decoded(album)["dog/new"].pixels)
    (album / "emu").mkdir()
    draw_picture(rng).save(album / "emu" / "new.png")
    with pytest.raises(InputError, match=r"expected pictures of the 2 classes .* found others too \('emu'\)"):
        protect(album, tmp_path / "out", key)


def test_a_class_that_had_no_readable_picture_is_refused_later(album, tmp_path, key):
    """Its noise would be chance, which protects nothing."""
    (album / "emu").mkdir()
    (album / "emu" / "broken.png").write_bytes(b"no picture")
    assert protect(album, tmp_path / "out", key).failed == 1
    shutil.copy(album / "dog" / "plain.png", album / "emu" / "broken.png")
    for workers in (0, 2):
        with pytest.raises(InputError, match=r"expected noise for 'emu/broken\.png' of the class 'emu', found none"):
            protect(album, tmp_path / "out", key, workers=workers)


def test_saved_noise_serves_another_source(album, tmp_path, key, rng, monkeypatch):
    report = protect(album, tmp_path / "out", key)
    (tmp_path / "later" / "dog").mkdir(parents=True)
    draw_picture(rng).save(tmp_path / "later" / "dog" / "new.png")
    shutil.copy(album / "dog" / "plain.png", tmp_path / "later" / "dog")
    monkeypatch.setattr(AdditiveNoise, "fit", None)
    later = protect(tmp_path / "later", tmp_path / "out 2", key, noise=report.noise)
    noise = Noise.load(later.noise)
    assert noise.digests() == Noise.load(report.noise).digests()
    assert same_as_class_noise(noise, tmp_path / "later", tmp_path / "out 2", "dog/new", 1)
    assert (tmp_path / "out" / "dog" / "plain.png").read_bytes() == (tmp_path / "out 2/dog/plain.png").read_bytes()
    shutil.rmtree(tmp_path / "out 2" / "dog")
    protect(tmp_path / "later", tmp_path / "out 2", key, noise=report.noise)  # and goes on
    unlearnable.unlock(tmp_path / "out 2", tmp_path / "back", key=key, workers=0)
    assert np.array_equal(decoded(tmp_path / "back")["dog/new"].pixels, decoded(tmp_path / "later")["dog/new"].pixels)


def test_noise_that_does_not_fit_is_refused(album, tmp_path, key):
    report = protect(album, tmp_path / "out", key)
    other = {"noise": report.noise}
    with pytest.raises(InputError, match="expected noise of REM of radius 8, found SEM of radius 8"):
        protect(album, tmp_path / "x", key, method="rem", **other)
    with pytest.raises(
        InputError,
        match=r"noise of SEM of radius 4, found SEM of radius 8 in .*: write sem:radius=8 in",
    ):
        protect(album, tmp_path / "x", key, options=TINY | {"radius": 4}, **other)
    with pytest.raises(InputError, match="expected noise of SEM of radius 8 and masking 1, found SEM of radius 8 in"):
        protect(album, tmp_path / "x", key, options=TINY | {"masking": 1}, **other)
    with pytest.raises(InputError, match="a method that makes noise, with a noise file, found cuda"):
        protect(album, tmp_path / "x", key, method="cuda", options={}, **other)
    with pytest.raises(InputError, match="secret files outside the pictures' folders"):
        protect(album, tmp_path / "x", key, noise=album / "noise")
    with pytest.raises(InputError, match="expected noise written by this package"):
        protect(album, tmp_path / "x", key, noise=tmp_path / "out.manifest")
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out.manifest").unlink()
    with pytest.raises(InputError, match="expected no noise of an earlier run beside a new manifest"):
        protect(album, tmp_path / "out", key)
    assert protect(album, tmp_path / "out", key, **other).protected == 14
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "x.manifest").exists()


def test_noise_of_other_contents_is_noticed(album, tmp_path, key):
    report = protect(album, tmp_path / "out", key)
    noise = Noise.load(report.noise)
    patterns = noise.patterns.copy()
    patterns[0, 0, 0, 0] ^= 1
    Noise(noise.class_names, noise.ids, patterns, noise.by_class, radius=8, method="SEM").save(report.noise)
    for again in (
        lambda: protect(album, tmp_path / "out", key),
        lambda: unlearnable.unlock(tmp_path / "out", tmp_path / "back", key=key),
    ):
        with pytest.raises(InputError, match="protected 'cat' with, found something else, of another noise file"):
            again()
    os.remove(report.noise)
    with pytest.raises(InputError, match=r"expected the noise of this run, found nothing at .*: put it back beside"):
        unlearnable.unlock(tmp_path / "out", tmp_path / "back", key=key)


def test_preview(album, tmp_path, key):
    unlearnable.preview(album, key=key, out=tmp_path / "sheet.png", method="sem", options=TINY)
    report = protect(album, tmp_path / "out", key)
    unlearnable.preview(album, key=key, out=tmp_path / "made.png", method="sem", noise=report.noise)
    for name in ("sheet.png", "made.png"):
        with Image.open(tmp_path / name) as sheet:
            assert sheet.width > 400
    assert not list(tmp_path.glob("*noise-run"))


# --- interruptions

SCRIPT = """
import json, sys, torch, unlearnable
from unlearnable.protections import _bilevel
torch.set_num_threads(1)
_bilevel._SAVE_SECONDS = 0
unlearnable.protect(sys.argv[1], sys.argv[2], key=unlearnable.Key(bytes(range(32))), method="sem", workers=0,
                    options=json.loads(sys.argv[3]), noise_progress=lambda status: print(status.done, flush=True))
"""
LONGER = TINY | {"steps": 12}


def killed_after(source, out, lines):
    command = [sys.executable, "-c", SCRIPT, source, out, json.dumps(LONGER)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for _ in range(lines):
            process.stdout.readline()
        time.sleep(random.Random(lines).uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        return process.stdout.read().split()


def test_killed_at_any_instant_the_same_command_ends_with_the_same_bits(album, tmp_path, key):
    whole = protect(album, tmp_path / "whole", key, options=LONGER)
    out = tmp_path / "out"
    for lines in (2, 9):  # in the first half of the training, and in the last passes of what is left
        killed_after(album, out, lines)
        assert (tmp_path / "out.manifest.noise-run" / "run.safetensors").exists()
        assert not contents(out)  # nothing of the noise is ever inside
    told = []
    report = protect(album, out, key, options=LONGER, noise_progress=told.append)
    assert 5 < told[0].done <= told[-1].total == 12 + 3 + 2  # it went on
    assert contents(out) == contents(tmp_path / "whole")
    with open(report.noise, "rb") as made, open(whole.noise, "rb") as wanted:
        assert made.read() == wanted.read()
    assert not (tmp_path / "out.manifest.noise-run").exists()
    assert unlearnable.verify(out, key=key).ok


def interrupted(album, out, key, at=2, **options):
    def press(status):
        if status.done == at:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        protect(album, out, key, noise_progress=press, **options)


def test_ctrl_c_keeps_the_noise_in_the_making(album, tmp_path, key):
    interrupted(album, tmp_path / "out", key)
    assert not (tmp_path / "out").exists()
    told = []
    protect(album, tmp_path / "out", key, noise_progress=told.append)
    assert told[0].done > 2
    protect(album, tmp_path / "whole", key)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"options": TINY | {"steps": 4}}, r"\(steps 3\), found steps 4"),
        ({"options": TINY | {"size": 16}}, r"\(size 21\), found size 16"),
        ({"method": "rem"}, r"\(method SEM\), found method REM"),
        ({"key": Key(b"x" * 32)}, r"\(key .*\), found key"),
        ({"classes": "table"}, r"\(pictures 14 with digest .*\), found pictures 13"),
    ],
)
def test_noise_in_the_making_goes_on_only_as_it_began(album, tmp_path, key, changed, message):
    interrupted(album, tmp_path / "out", key)
    if changed.pop("classes", None):
        (album / "cat" / "small.bmp").unlink()
    with pytest.raises(InputError, match=message):
        protect(album, tmp_path / "out", **{"key": key} | changed)
    assert (tmp_path / "out.manifest.noise-run" / "run.safetensors").exists()


def test_a_run_goes_on_only_as_it_began_and_says_what_differs(album, tmp_path, key):
    protect(album, tmp_path / "out", key)
    with pytest.raises(InputError, match=r"records \(steps: 3\), found steps: 4"):
        protect(album, tmp_path / "out", key, options=TINY | {"steps": 4})


def test_what_cannot_go_on_leaves_nothing(album, tmp_path, key, monkeypatch):
    monkeypatch.setattr(_bilevel, "_ENOUGH", 1)
    monkeypatch.setattr(_bilevel, "_CHANCE", 0.0)
    with pytest.raises(InputError, match="expected a surrogate that learns the protected pictures"):
        protect(album, tmp_path / "out", key)
    assert [path.name for path in tmp_path.iterdir()] == ["album"]


def test_too_small_a_disk_is_said_before_work_starts_and_other_options_may_follow(album, tmp_path, key, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    begun = []
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=5_000))
        with pytest.raises(InputError, match="MB of room on the disk for the noise"):
            protect(album, tmp_path / "out", key, noise_progress=begun.append)
    assert not begun
    assert not (tmp_path / "out").exists()
    assert protect(album, tmp_path / "out", key, options=TINY | {"size": 16}).protected == 14


# --- the command line


@pytest.fixture
def say(monkeypatch, capsys):
    """Run a command in this process, which has loaded all that is slow to load."""

    monkeypatch.setattr(common, "_LINE_SECONDS", math.inf)  # however busy the machine

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["unlearnable", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, end.value.code or 0, said.out, said.err)

    return run


FEW = ["--method", "sem", "--steps", 1, "--workers", 0]


def test_the_whole_way_from_the_command_line(pictures, tmp_path, keyfile, say):
    out, key = tmp_path / "out", ["--key", keyfile]
    preset = ["--preset", "fast", "--model", "resnet9-w16", "--seed", 3, "--radius", 6, "--size", 8, "--per", "picture"]
    made = say("protect", pictures, out, *key, *FEW, *preset, "--json")
    assert made.returncode == 0, made.stderr
    report = json.loads(made.stdout)
    assert (report["protected"], report["lossy"], report["noise"]) == (10, 6, f"{out}.manifest.noise.safetensors")
    assert made.stderr.startswith("made noise: 4 steps, ")  # one, the last pass, two classes
    with Manifest.open(tmp_path / "out.manifest") as book:
        parameters = book.about("parameters")
    assert {name: parameters[name] for name in ("preset", "model", "steps", "seed", "radius", "size", "per")} == {
        "preset": "fast",
        "model": "resnet9-w16",
        "steps": 1,
        "seed": 3,
        "radius": 6,
        "size": 8,
        "per": "picture",
    }
    assert say("verify", out, *key).returncode == 0
    saved = ["--noise", report["noise"], "--radius", 6]
    told = say("protect", pictures, tmp_path / "again", *key, *FEW, *saved)
    (warning,) = told.stderr.splitlines()
    assert "% of the noise is left in 6 pictures" in warning
    assert f"--format png --noise {tmp_path / 'again'}.manifest.noise.safetensors" in warning
    png = say("protect", pictures, tmp_path / "png", *key, *FEW, *saved, "--format", "png")
    assert (png.returncode, png.stderr) == (0, "")
    assert f"and {tmp_path / 'png'}.manifest.noise.safetensors to yourself" in png.stdout
    back = say("unlock", tmp_path / "png", tmp_path / "back", *key, "--workers", 0)
    assert "Median PSNR against the originals 99.0 dB" in back.stdout
    sheet = ["--method", "sem", *saved, "--out", tmp_path / "sheet.png"]
    assert say("preview", pictures, *key, *sheet).returncode == 0


BAD = {
    "no radius": (["--radius", "0"], "a radius from 1 to 127 grey levels (of 255), found 0"),
    "too large a radius": (["--radius", "256"], "a radius from 1 to 127 grey levels (of 255), found 256"),
    "unknown preset": (["--preset", "fsat"], "one of the presets fast, paper, strong"),
    "unknown network": (["--model", "resnet0"], "a known model"),
    "no steps": (["--steps", "0"], "steps of 1 or more"),
    "one class": (["--classes", "single"], "pictures of two classes at least, found 10 of 1"),
    "missing noise": (["--noise", "nowhere"], "noise written by this package"),
    "no canvas": (["--size", "4"], "a canvas of 8 to 512 pixels"),
    "of another method": (
        ["--method", "cuda"],
        "options of cuda (kernel_size, blur, min_distance, aligned), found steps",
    ),
    "another's option": (["--blur", "0.1"], "found blur: leave it out"),
    "one picture": (["--classes", "{table}"], "two pictures of each class at least, found one of 'emu'"),
    "network of another size": (["--method", "tap", "--model", "{network}"], "surrogate for pictures of 20 pixels"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_two(name, pictures, tmp_path, keyfile, say):
    table, network = tmp_path / "table.csv", tmp_path / "network.safetensors"
    names = sorted(path.relative_to(pictures).as_posix() for path in pictures.rglob("*.*g"))
    table.write_text("".join(f'"{name}",{("emu", *"abababababa")[n]}\n' for n, name in enumerate(names)))
    about = Network(model="resnet9-w16", class_names=("cat", "dog"), channels=3, size=32, training={})
    save_network(network, build("resnet9-w16", classes=2), about)
    arguments, message = BAD[name]
    given = [argument.format(table=table, network=network) for argument in arguments]
    said = say("protect", pictures, tmp_path / "out", "--key", keyfile, *FEW, *given)
    assert (said.returncode, said.stdout) == (2, "")
    assert len(said.stderr.splitlines()) == 1, said.stderr
    assert message in said.stderr
    assert not list(tmp_path.glob("out*"))


def test_progress_is_told(pictures, tmp_path, keyfile, say, monkeypatch):
    monkeypatch.setattr(common, "_LINE_SECONDS", 0)
    for method, words in (("sem", "loss "), ("tap", "surrogate, ")):
        told = say("protect", pictures, tmp_path / method, "--key", keyfile, *FEW, "--method", method, "--size", 8)
        first, *_ = told.stderr.splitlines()
        assert first.startswith(("making noise: 1 of 4 (", "making noise: 1 of 1 ("))
        assert words in first
        assert ("PSNR " in first) == (method == "sem")
        assert first.endswith(" s left)")


def test_reference_seeds_are_for_cuda(pictures, tmp_path):
    for job in (
        lambda: protect(pictures, tmp_path / "out", ReferenceSeed(0)),
        lambda: unlearnable.preview(pictures, key=ReferenceSeed(0), out=tmp_path / "sheet.png", method="sem"),
    ):
        with pytest.raises(InputError, match="the method cuda with a reference seed, found sem"):
            job()


def test_without_torch_it_says_what_to_install(pictures, tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv[0] = 'unlearnable'; from unlearnable.cli import main; main()"
    )
    Key(bytes(32)).save(tmp_path / "key")
    for verb in (["protect", pictures, tmp_path / "out"], ["preview", pictures, "--out", tmp_path / "sheet.png"]):
        command = [sys.executable, "-c", code, *verb, "--method", "sem", "--key", tmp_path / "key"]
        said = subprocess.run(command, capture_output=True, text=True)
        assert said.returncode == 2
        assert said.stderr == (
            "unlearnable: expected the train extra, found no torch: pip install 'unlearnable[train]'\n"
        )
    assert not list(tmp_path.glob("out*"))


def test_unlocking_needs_no_torch(album, tmp_path, key):
    protect(album, tmp_path / "out", key)
    code = (
        "import sys, unlearnable; key = unlearnable.Key(bytes(range(32)));"
        "unlearnable.unlock(*sys.argv[1:], key=key, workers=0); unlearnable.verify(sys.argv[1], key=key);"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "out", tmp_path / "back"], check=True)


def test_an_array_of_pictures_is_a_source_too(tmp_path, rng, key):
    images = rng.integers(0, 256, (12, 16, 16, 1)).astype(np.uint8)
    source = as_npz(tmp_path, images, np.arange(12) % len(NAMES))
    protect(source, tmp_path / "out.npz", key)
    unlearnable.unlock(tmp_path / "out.npz", tmp_path / "back.npz", key=key, workers=0)
    assert np.array_equal(read_npz(tmp_path / "back.npz"), images)
