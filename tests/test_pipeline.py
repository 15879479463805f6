"""Protect, verify, unlock and preview, end to end, and all that can go wrong on the way."""

import io
import math
import os
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tarfile
import time
import zlib

import numpy as np
import pytest
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

import unlearnable
from tests.conftest import contents, draw_picture
from unlearnable import InputError, Key, ReferenceSeed, pipeline
from unlearnable.pictures import codec
from unlearnable.pictures.manifest import Manifest
from unlearnable.protections import tone
from unlearnable.protections.base import TraceError
from unlearnable.protections.convolution import Convolution


def protect(source, destination, key, **options):
    return unlearnable.protect(source, destination, key=key, **{"workers": 0} | options)


def median_difference(pictures, perturbation):
    """CIEDE2000 of the pictures of the source, which are few enough for all to be measured."""
    found = []
    for path in (path for path in pictures.rglob("*.*") if path.suffix != ".txt"):
        pixels = codec.decode(path.read_bytes()).pixels
        label = np.array([path.is_relative_to(pictures / "dog")]).astype(int)
        protected = perturbation.apply(pixels[None], label, [""])[0]
        found.append(deltaE_ciede2000(rgb2lab(pixels), rgb2lab(protected)).mean())
    return np.median(found)


def test_main_job(pictures, tmp_path, key):
    before = contents(pictures)
    report = protect(pictures, tmp_path / "out", key, workers=2)
    assert (report.pictures, report.protected, report.failed, report.skipped) == (10, 10, 0, 1)
    assert contents(pictures) == before  # the source is never written
    out = contents(tmp_path / "out")
    assert out.keys() == {name for name in before if name != "readme.txt"}
    assert all(out[name] != before[name] for name in out)
    perturbation = Convolution().fit(type("D", (), {"class_names": ["cat", "dog"]}), key)
    for name, data in out.items():
        source, published = codec.decode(before[name]), codec.decode(data)
        label = np.array([name.startswith("dog")]).astype(int)
        wanted = perturbation.apply(source.pixels[None], label, [name])[0]
        if name.endswith("png"):
            assert np.array_equal(published.pixels, wanted)
        else:
            encoded = io.BytesIO()
            Image.fromarray(wanted).save(encoded, "JPEG", quality=90, subsampling=2)
            assert data == encoded.getvalue()
    assert 10 < report.psnr < 40
    assert 0.2 < report.ssim < 1
    assert report.colour == pytest.approx(median_difference(pictures, perturbation), abs=0.001)
    assert unlearnable.verify(tmp_path / "out", key=key).ok


def test_workers_and_order_do_not_matter(pictures, tmp_path, key):
    for workers in (1, 3):
        protect(pictures, tmp_path / str(workers), key, workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "3")


def test_another_key_gives_other_pictures(pictures, tmp_path, key):
    protect(pictures, tmp_path / "a", key)
    protect(pictures, tmp_path / "b", Key(b"x" * 32))
    one, other = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert all(one[name] != other[name] for name in one)


def test_nothing_secret_is_written_down(pictures, tmp_path, key, capfd):
    report = protect(pictures, tmp_path / "out", key)
    recorded = b"".join(path.read_bytes() for path in tmp_path.glob("out.manifest*"))
    told = capfd.readouterr()
    for secret in (key.secret, key.derive("cuda-filter", "cat"), key.secret.hex().encode()):
        assert secret not in recorded
        assert secret.hex() not in f"{report}{told.out}{told.err}"
    assert (tmp_path / "out.manifest").stat().st_mode & 0o077 == 0


def test_the_same_command_again_does_nothing_anew(pictures, tmp_path, key):
    protect(pictures, tmp_path / "out", key)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.jpg")}
    report = protect(pictures, tmp_path / "out", key)
    assert report.protected == 10
    assert stamps == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.jpg")}


def test_new_changed_and_lost_pictures_are_done(pictures, tmp_path, key, rng):
    protect(pictures, tmp_path / "out", key)
    draw_picture(rng).save(pictures / "cat" / "new.png")
    draw_picture(rng).save(pictures / "cat" / "0.jpg")
    os.utime(pictures / "cat" / "0.jpg", ns=(1, 1))
    (tmp_path / "out" / "dog" / "1.jpg").unlink()
    assert protect(pictures, tmp_path / "out", key).protected == 11
    protect(pictures, tmp_path / "fresh", key)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


@pytest.mark.parametrize(
    "changed",
    [{"options": {"blur": 0.2}}, {"format": "png"}, {"fraction": 0.5}, {"classes": "single"}, {"key": Key(b"x" * 32)}],
)
def test_a_run_goes_on_only_as_it_began(pictures, tmp_path, key, changed):
    protect(pictures, tmp_path / "out", key)
    before = contents(tmp_path / "out")
    with pytest.raises(InputError, match="use the same options"):
        protect(pictures, tmp_path / "out", **{"key": key} | changed)
    assert contents(tmp_path / "out") == before


def test_classes_from_the_folder_one_class_or_a_table(pictures, tmp_path, key):
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in (pictures / "cat").glob("*.jpg"):
        shutil.copy(path, flat)
    protect(flat, tmp_path / "single", key, classes="single")
    protect(flat, tmp_path / "flat out", key)  # a folder without subfolders has one class
    assert contents(tmp_path / "single") == contents(tmp_path / "flat out")
    names = sorted(path.relative_to(pictures).as_posix() for path in pictures.rglob("*.*g"))
    table = tmp_path / "table.csv"
    table.write_text("path,label\n" + "".join(f'"{name}",{name.split("/")[0]}\n' for name in names))
    protect(pictures, tmp_path / "by folder", key)
    protect(pictures, tmp_path / "by table", key, classes=str(table))
    assert contents(tmp_path / "by folder") == contents(tmp_path / "by table")


@pytest.mark.parametrize(
    ("method", "options", "wanted"),
    [
        ("stack", {"layers": ["cuda"]}, "text or none for layers"),
        ("stack", {"min_ssim": "0.9"}, "a number or none for min_ssim"),
        ("stack", {"min_psnr": True}, "a number or none for min_psnr"),
        ("tone", {"strength": "0.5"}, "a number for strength"),
        ("cuda", {"kernel_size": 3.0}, "a whole number or none for kernel_size"),
    ],
)
def test_options_of_another_kind(method, options, wanted, pictures, tmp_path, key):
    with pytest.raises(InputError, match=f"expected {wanted}, found"):
        protect(pictures, tmp_path / "out", key, method=method, options=options)
    assert not list(tmp_path.glob("out*"))


def test_a_table_that_misses_pictures_or_names_others(pictures, tmp_path, key):
    table = tmp_path / "table.csv"
    table.write_text("cat/0.jpg,cat\nnowhere.jpg,cat\n")
    report = protect(pictures, tmp_path / "out", key, classes=str(table))
    assert (report.protected, report.failed) == (1, 10)
    reasons = dict(report.failures)
    assert "not in the table" in reasons["dog/0.jpg"]
    assert "not in the folder" in reasons["nowhere.jpg"]
    for content, message in (("", "empty"), ("a,b,c\n", "line 1"), ("a.jpg,x\na.jpg,y\n", "two for 'a.jpg'")):
        table.write_text(content)
        with pytest.raises(InputError, match=message):
            protect(pictures, tmp_path / "other", key, classes=str(table))
    with pytest.raises(InputError, match="nothing at"):
        protect(pictures, tmp_path / "other", key, classes="folders")


@pytest.mark.parametrize("fraction", [0.1, 0.34, 0.75])
def test_fraction_is_exact_keyed_and_independent_of_order(pictures, tmp_path, key, fraction):
    report = protect(pictures, tmp_path / "out", key, fraction=fraction, format="png")
    assert (report.protected, report.kept) == (round(10 * fraction), 10 - round(10 * fraction))

    def kept(folder):
        before, out = contents(pictures), contents(folder)
        originals = {name.rsplit(".", 1)[0]: data for name, data in before.items()}
        pixels = {name: codec.decode(data).pixels for name, data in out.items()}
        return {n for n, p in pixels.items() if np.array_equal(p, codec.decode(originals[n.rsplit(".", 1)[0]]).pixels)}

    first = kept(tmp_path / "out")
    assert len(first) == report.kept
    assert unlearnable.verify(tmp_path / "out").ok
    others = set()
    for n in range(4):
        protect(pictures, tmp_path / f"other {n}", Key(bytes([n]) * 32), fraction=fraction, format="png")
        others.add(frozenset(kept(tmp_path / f"other {n}")))
    assert len(others) > 1  # another key, another choice


def test_reference_seed_chooses_as_the_published_code_does(pictures, tmp_path):
    report = protect(pictures, tmp_path / "out", ReferenceSeed(0), fraction=0.5)
    generator = np.random.RandomState(0)
    for _ in range(2):
        generator.uniform(0, 0.3, (3, 1, 3, 3))
        generator.randint(3), generator.randint(3)
    with Manifest.open(tmp_path / "out.manifest") as book:
        flags = [picture.status == "protected" for picture in book.pictures()]
    assert flags == [generator.random_sample() < 0.5 for _ in range(10)]
    assert report.protected == sum(flags)
    assert unlearnable.verify(tmp_path / "out", key=ReferenceSeed(0)).ok
    assert not unlearnable.verify(tmp_path / "out", key=ReferenceSeed(1)).ok


def test_change_of_format(pictures, tmp_path, key):
    protect(pictures, tmp_path / "out", key, format="webp")
    assert {path.suffix for path in (tmp_path / "out").rglob("*.*")} == {".webp"}
    with Image.open(tmp_path / "out" / "cat" / "0.webp") as image:
        assert image.format == "WEBP"


def test_names_that_collide_in_the_new_format(pictures, tmp_path, key, rng):
    draw_picture(rng).save(pictures / "cat" / "0.png")
    with pytest.raises(InputError, match=r"'cat/0.jpg' and 'cat/0.png', which both become 'cat/0.webp'"):
        protect(pictures, tmp_path / "out", key, format="webp")
    assert not (tmp_path / "out").exists()
    protect(pictures, tmp_path / "out", key)


# --- bad pictures


def test_bad_pictures_are_reported_and_stop_nothing(pictures, tmp_path, key, rng):
    good = (pictures / "cat" / "0.jpg").read_bytes()
    bad = {
        "cut short.jpg": good[: len(good) // 2],
        "text.jpg": b"This is text.",
        "empty.png": b"",
        "Ünï cödé\nline.jpg": b"",
        "photo.heic": b"anything",
    }
    for name, data in bad.items():
        (pictures / "dog" / name).write_bytes(data)
    frames = [draw_picture(rng) for _ in range(2)]
    frames[0].save(pictures / "dog" / "moving.gif", save_all=True, append_images=frames[1:])
    report = protect(pictures, tmp_path / "out", key)
    assert (report.pictures, report.protected, report.failed) == (16, 10, 6)
    assert {name for name, _ in report.failures} == {f"dog/{name}" for name in [*bad, "moving.gif"]}
    assert unlearnable.verify(tmp_path / "out").ok
    (pictures / "dog" / "text.jpg").write_bytes(good)  # mended: the same command does the rest
    assert protect(pictures, tmp_path / "out", key).protected == 11
    with pytest.raises(InputError, match="--strict"):
        protect(pictures, tmp_path / "strict", key, strict=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_unreadable_permissions(pictures, tmp_path, key):
    (pictures / "cat" / "0.jpg").chmod(0)
    report = protect(pictures, tmp_path / "out", key)
    assert (report.protected, report.failed) == (9, 1)
    assert "cannot be read" in report.failures[0][1]


def test_a_picture_that_cannot_be_read_when_its_turn_comes(tmp_path, key, monkeypatch):
    """As root, too: what the worker says of a file that the system does not let it read."""
    from unlearnable import pipeline

    row = pipeline.Picture(1, "a.jpg", "a.jpg", "a", True, "pending", None, None, None)
    context = pipeline._Context(
        Convolution().fit(type("D", (), {"class_names": ["a"]}), key), "keep", None, str(tmp_path)
    )
    answer = pipeline._protect_one(context, pipeline._Job(row, 0, str(tmp_path), None))
    assert answer.outcome.status == "failed"
    assert "cannot be read (Is a directory)" in answer.outcome.error


def test_links(pictures, tmp_path, key):
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.copy(pictures / "cat" / "0.jpg", outside / "secret.jpg")
    (pictures / "cat" / "leaves.jpg").symlink_to(outside / "secret.jpg")
    (pictures / "cat" / "folder out").symlink_to(outside)
    (pictures / "cat" / "loop").symlink_to(pictures)
    (pictures / "cat" / "broken.jpg").symlink_to(tmp_path / "nowhere")
    (pictures / "cat" / "inside.jpg").symlink_to(pictures / "dog" / "0.jpg")
    report = protect(pictures, tmp_path / "out", key)
    assert (report.protected, report.failed) == (11, 3)
    assert {name for name, _ in report.failures} == {"cat/leaves.jpg", "cat/folder out", "cat/broken.jpg"}
    assert not (tmp_path / "out" / "cat" / "inside.jpg").is_symlink()


def test_names_that_are_no_unicode(pictures, tmp_path, key):
    shutil.copy(pictures / "cat" / "0.jpg", os.fsencode(pictures / "cat") + b"/\xff.jpg")
    report = protect(pictures, tmp_path / "out", key)
    assert (report.protected, report.failed) == (10, 1)
    assert "not valid Unicode" in report.failures[0][1]


# --- bad places


def test_places_that_cannot_be(pictures, tmp_path, key):
    with pytest.raises(InputError, match="apart from the source"):
        protect(pictures, pictures / "out", key)
    with pytest.raises(InputError, match="apart from the source"):
        protect(pictures, pictures, key)
    with pytest.raises(InputError, match="apart from the source"):
        protect(pictures, tmp_path, key)
    with pytest.raises(InputError, match="outside the pictures' folders"):
        protect(pictures, tmp_path / "out", key, manifest=tmp_path / "out" / "manifest")
    with pytest.raises(InputError, match="outside the pictures' folders"):
        protect(pictures, tmp_path / "out", key, manifest=pictures / "manifest")
    with pytest.raises(InputError, match="nothing at"):
        protect(tmp_path / "none", tmp_path / "out", key)
    (tmp_path / "empty" / "class without pictures").mkdir(parents=True)
    with pytest.raises(InputError, match="pictures to protect, found none"):
        protect(tmp_path / "empty", tmp_path / "out", key)
    assert not (tmp_path / "out").exists()
    shutil.copy(pictures / "cat" / "0.jpg", pictures)
    with pytest.raises(InputError, match="a subfolder for each class"):
        protect(pictures, tmp_path / "out", key)


def test_a_destination_that_holds_something_else(pictures, tmp_path, key):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        protect(pictures, tmp_path / "out", key)
    (tmp_path / "out" / "mine.txt").unlink()
    protect(pictures, tmp_path / "out", key)
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"'mine\.txt'"):
        protect(pictures, tmp_path / "out", key)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_a_manifest_that_is_something_else(pictures, tmp_path, key):
    (tmp_path / "out.manifest").write_text("my diary, long enough to be looked at by SQLite" * 9)
    with pytest.raises(InputError, match="something else"):
        protect(pictures, tmp_path / "out", key)
    sqlite3.connect(tmp_path / "other").execute("CREATE TABLE mine (x)").connection.commit()
    with pytest.raises(InputError, match="something else"):
        protect(pictures, tmp_path / "out2", key, manifest=tmp_path / "other")
    assert (tmp_path / "out.manifest").read_text().startswith("my diary")
    with pytest.raises(InputError, match="nothing at"):
        unlearnable.verify(tmp_path / "out", manifest=tmp_path / "none")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 0.0}, "fraction above 0"),
        ({"fraction": 1.1}, "fraction above 0"),
        ({"quality": 0}, "quality from 1"),
        ({"workers": -1}, "0 workers or more"),
        ({"format": "tiff"}, "one of the formats"),
        ({"method": "cudda"}, "did you mean 'cuda'"),
        ({"options": {"kernel_size": 2}}, "odd kernel size"),
    ],
)
def test_bad_options(pictures, tmp_path, key, options, message):
    with pytest.raises(InputError, match=message):
        protect(pictures, tmp_path / "out", key, **options)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.manifest").exists()


def test_links_in_a_destination_are_not_written_through(pictures, tmp_path, key):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cat").symlink_to(pictures / "cat")
    before = contents(pictures)
    with pytest.raises(InputError, match="holds something else"):
        protect(pictures, tmp_path / "out", key)
    (tmp_path / "out" / "cat").unlink()
    protect(pictures, tmp_path / "out", key)
    (tmp_path / "out" / "originals").symlink_to(pictures)
    assert unlearnable.verify(tmp_path / "out").extra == ["originals"]
    assert contents(pictures) == before


def test_a_preview_overwrites_nothing_but_a_preview(pictures, tmp_path, key):
    key.save(tmp_path / "key")
    for place in (pictures / "cat" / "0.jpg", tmp_path / "key"):
        before = place.read_bytes()
        with pytest.raises(InputError):
            unlearnable.preview(pictures, key=key, out=place)
        assert place.read_bytes() == before
    for _ in range(2):
        unlearnable.preview(pictures, key=key, out=tmp_path / "new" / "sheet.png")


def test_a_fraction_that_chooses_nothing_writes_nothing(pictures, tmp_path, key):
    with pytest.raises(InputError, match="raise it"):
        protect(pictures, tmp_path / "out", key, fraction=0.01)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.manifest").exists()


def test_strict_sees_what_is_known_from_the_start(pictures, tmp_path, key):
    (pictures / "cat" / "broken.jpg").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="--strict"):
        protect(pictures, tmp_path / "out", key, strict=True)
    assert not (tmp_path / "out").exists()


def test_the_place_one_stands_in(pictures, tmp_path, key, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    protect(pictures, ".", key)
    assert (tmp_path / "out.manifest").exists()
    assert unlearnable.verify(".").ok


def test_pictures_beside_containers(pictures, tmp_path, key):
    np.savez(pictures / "cat" / "more.npz", images=np.zeros((1, 2, 2, 3), np.uint8), labels=np.zeros(1, int))
    with pytest.raises(InputError, match="or one of container files"):
        protect(pictures, tmp_path / "out", key)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="a file to write"):
        protect(pictures / "cat" / "more.npz", tmp_path / "folder", key)


def test_a_picture_that_went_bad_is_taken_back(pictures, tmp_path, key):
    protect(pictures, tmp_path / "out", key)
    (pictures / "cat" / "0.jpg").write_bytes(b"bad")
    assert protect(pictures, tmp_path / "out", key).failed == 1
    assert not (tmp_path / "out" / "cat" / "0.jpg").exists()
    report = unlearnable.verify(tmp_path / "out")
    assert (report.ok, report.failed) == (True, 1)


def test_only_black_pictures_cannot_be_protected(tmp_path, key):
    (tmp_path / "in" / "a").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(tmp_path / "in" / "a" / "black.png")
    with pytest.raises(InputError, match="all-black"):
        protect(tmp_path / "in", tmp_path / "out", key)


@pytest.mark.parametrize("path", ["../precious.png", "a/../../precious.png", "{tmp}/precious.png"])
def test_a_table_cannot_name_what_lies_outside(path, pictures, tmp_path, key):
    (tmp_path / "precious.png").write_bytes(b"mine")
    (tmp_path / "t.csv").write_text(f"cat/0.jpg,x\n{path.format(tmp=tmp_path)},y\n")
    with pytest.raises(InputError, match="paths inside the source folder"):
        protect(pictures, tmp_path / "out", key, classes=str(tmp_path / "t.csv"))
    assert (tmp_path / "precious.png").read_bytes() == b"mine"


def test_nothing_but_the_own_output_of_a_picture_that_went_bad_is_removed(pictures, tmp_path, key):
    table = tmp_path / "t.csv"
    table.write_text("cat/0.jpg,x\ncat/1.jpg,x\ncat,x\ndog,y\ndog/0.jpg,y\n")  # cat and dog are folders
    options = {"classes": str(table)}
    before = contents(pictures)
    assert protect(pictures, tmp_path / "out", key, **options).protected == 3
    (pictures / "cat" / "0.jpg").write_bytes(b"broken")
    for _ in range(2):
        report = protect(pictures, tmp_path / "out", key, **options)
        assert contents(tmp_path / "out").keys() == {"cat/1.jpg", "dog/0.jpg"}
        assert report.protected == 2
    assert contents(pictures) == before | {"cat/0.jpg": b"broken"}
    assert unlearnable.verify(tmp_path / "out").ok


def test_a_folder_that_could_not_be_read_can_be_later(pictures, tmp_path, key, monkeypatch):
    listdir = os.listdir

    def refused(path):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refused)
    report = protect(pictures, tmp_path / "out", key)
    assert (report.protected, report.failures) == (5, [("dog", "the folder cannot be read (Permission denied)")])
    monkeypatch.undo()
    report = protect(pictures, tmp_path / "out", key)
    assert (report.pictures, report.protected, report.failed) == (10, 10, 0)


def test_a_bad_picture_that_is_taken_away_is_forgotten(pictures, tmp_path, key):
    (pictures / "cat" / "bad.jpg").write_bytes(b"bad")
    assert protect(pictures, tmp_path / "out", key).failed == 1
    (pictures / "cat" / "bad.jpg").unlink()
    report = protect(pictures, tmp_path / "out", key)
    assert (report.pictures, report.protected, report.failed) == (10, 10, 0)


def test_an_output_that_lost_its_content_is_made_again(pictures, tmp_path, key):
    protect(pictures, tmp_path / "out", key)
    whole = contents(tmp_path / "out")
    (tmp_path / "out" / "cat" / "0.jpg").write_bytes(b"")
    protect(pictures, tmp_path / "out", key)
    assert contents(tmp_path / "out") == whole


# --- verify and unlock


def test_verify_finds_what_changed_is_missing_or_extra(pictures, tmp_path, key, rng):
    out = tmp_path / "out"
    protect(pictures, out, key)
    with (out / "cat" / "0.jpg").open("ab") as file:
        file.write(b"x")
    (out / "dog" / "1.jpg").unlink()
    draw_picture(rng).save(out / "dog" / "more.png")
    report = unlearnable.verify(out)
    assert (report.ok, report.changed, report.missing, report.extra) == (
        False,
        ["cat/0.jpg"],
        ["dog/1.jpg"],
        ["dog/more.png"],
    )


def test_verify_tells_a_wrong_key(pictures, tmp_path, key):
    protect(pictures, tmp_path / "out", key)
    report = unlearnable.verify(tmp_path / "out", key=Key(b"x" * 32))
    assert (report.ok, report.key, report.changed) == (False, False, [])


def test_unlock_gives_the_pictures_back(pictures, tmp_path, key):
    report = protect(pictures, tmp_path / "out", key, format="png")
    unlocked = unlearnable.unlock(tmp_path / "out", tmp_path / "back", key=key, workers=0)
    assert (unlocked.pictures, unlocked.unlocked, unlocked.failed) == (10, 10, 0)
    before, after = contents(pictures), contents(tmp_path / "back")
    errors = []
    for name, data in before.items():
        if name != "readme.txt":
            original = codec.decode(data).pixels.astype(float)
            back = codec.decode(after[name.rsplit(".", 1)[0] + ".png"]).pixels.astype(float)
            errors.append(10 * np.log10(255**2 / max(((original - back) ** 2).mean(), 1e-4)))
            told = unlocked.pictures_psnr[name]
            assert told == pytest.approx(errors[-1], abs=3) or min(told, errors[-1]) > 45  # from a sample
    assert np.median(errors) > 35
    assert np.median(errors) > report.psnr + 10
    assert unlocked.psnr == pytest.approx(np.median(errors), abs=2)


def test_unlock_tells_nothing_of_pictures_that_have_another_shape_now(pictures, tmp_path, key):
    protect(pictures, tmp_path / "out", key, format="png")
    smaller, grey = tmp_path / "out" / "cat" / "0.png", tmp_path / "out" / "dog" / "1.png"
    with Image.open(smaller) as image:
        image.reduce(2).save(smaller)
    with Image.open(grey) as image:
        image.convert("L").save(grey)
    told = unlearnable.unlock(tmp_path / "out", tmp_path / "back", key=key, workers=0)
    assert told.unlocked == 10
    assert len(told.pictures_psnr) == 8
    assert {"cat/0.png", "dog/1.png"}.isdisjoint(name.rsplit(".", 1)[0] + ".png" for name in told.pictures_psnr)


def test_unlock_measures_by_manifests_that_do_not_hold_the_shape(pictures, tmp_path, key):
    protect(pictures, tmp_path / "out", key, format="png")
    before = unlearnable.unlock(tmp_path / "out", tmp_path / "back", key=key, workers=0).pictures_psnr
    with sqlite3.connect(tmp_path / "out.manifest") as book:
        book.execute("UPDATE pictures SET sample = substr(sample, 1, length(sample) - 12)")
    assert unlearnable.unlock(tmp_path / "out", tmp_path / "again", key=key, workers=0).pictures_psnr == before
    assert len(before) == 10


def test_unlock_passes_kept_pictures_through_and_goes_on(pictures, tmp_path, key):
    protect(pictures, tmp_path / "out", key, format="png", fraction=0.5)
    unlearnable.unlock(tmp_path / "out", tmp_path / "back", key=key, workers=0)
    before = contents(tmp_path / "back")
    (tmp_path / "back" / "cat" / "0.png").unlink()
    assert unlearnable.unlock(tmp_path / "out", tmp_path / "back", key=key, workers=0).unlocked == 1
    assert contents(tmp_path / "back") == before


def test_unlock_tells_how_far_it_is(pictures, tmp_path, key, monkeypatch):
    monkeypatch.setattr(pipeline, "_COMMIT_SECONDS", -1)
    protect(pictures, tmp_path / "out", key)
    told = []

    def unlock():
        unlearnable.unlock(
            tmp_path / "out", tmp_path / "back", key=key, workers=0, progress=lambda *some: told.append(some)
        )

    unlock()
    assert told == [(done, 10) for done in range(1, 11)]
    (tmp_path / "back" / "cat" / "0.jpg").unlink()
    told.clear()
    unlock()
    assert len(told) == 1
    assert told[0][1] == 10


def test_unlock_of_arrays_tells_how_far_it_is(tmp_path, key, rng, monkeypatch):
    monkeypatch.setattr(pipeline, "_COMMIT_SECONDS", -1)
    (tmp_path / "in").mkdir()
    for name in "ab":
        np.savez(
            tmp_path / "in" / f"{name}.npz", images=rng.integers(0, 256, (4, 8, 8, 3), np.uint8), labels=[0, 1] * 2
        )
    protect(tmp_path / "in", tmp_path / "out", key)
    told = []
    for _ in range(2):  # the second time one file is there already
        unlearnable.unlock(tmp_path / "out", tmp_path / "back", key=key, progress=lambda *some: told.append(some))
        assert told[-1] == (8, 8)
        (tmp_path / "back" / "b.npz").unlink()


def test_unlock_wants_the_right_key_and_an_empty_place(pictures, tmp_path, key):
    protect(pictures, tmp_path / "out", key)
    with pytest.raises(InputError, match="name the right key"):
        unlearnable.unlock(tmp_path / "out", tmp_path / "back", key=Key(b"x" * 32))
    assert not (tmp_path / "back").exists()
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "mine").write_text("mine")
    with pytest.raises(InputError, match="'mine'"):
        unlearnable.unlock(tmp_path / "out", tmp_path / "back", key=key)
    with pytest.raises(InputError, match="nothing at"):
        unlearnable.unlock(tmp_path / "none", tmp_path / "back", key=key, manifest=tmp_path / "out.manifest")


def test_unlock_tells_what_was_changed_since(pictures, tmp_path, key):
    protect(pictures, tmp_path / "out", key, format="png")
    one, other = tmp_path / "out" / "cat" / "0.png", tmp_path / "out" / "cat" / "1.png"
    other.write_bytes(one.read_bytes())
    report = unlearnable.unlock(tmp_path / "out", tmp_path / "back", key=key, workers=0)
    assert (report.unlocked, report.failed, report.changed) == (10, 0, ["cat/1.jpg"])


def test_unlock_tells_what_was_changed_in_an_array(tmp_path, key, rng):
    images = rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "in.npz", images=images, labels=np.arange(6) % 2)
    protect(tmp_path / "in.npz", tmp_path / "out.npz", key)
    published = dict(np.load(tmp_path / "out.npz"))
    published["images"][4] = 0
    np.savez(tmp_path / "out.npz", **published)
    report = unlearnable.unlock(tmp_path / "out.npz", tmp_path / "back.npz", key=key, workers=0)
    assert (report.unlocked, report.changed) == (6, ["in.npz/000004"])


@pytest.mark.parametrize("kind", ["folder", "array"])
@pytest.mark.parametrize(
    ("method", "options", "trace"),
    [
        ("cuda", {}, None),
        ("cuda", {}, b"x"),
        ("cuda", {}, -1.0),
        ("patches", {}, b"x"),
        ("patches", {}, zlib.compress(b"x")),
        ("patches", {}, zlib.compress(bytes(90))[:-4]),
        ("patches", {}, 256.0),
        ("stack", {"layers": "cuda,patches"}, None),
        ("stack", {"layers": "cuda,patches"}, b"f"),
        ("stack", {"layers": "tone,patches"}, b"nnn"),
        ("stack", {"layers": "tone,patches"}, b"nx"),
        ("stack", {"layers": "tone,patches"}, b"nf" + struct.pack("<d", math.nan)),
        ("stack", {"layers": "cuda,patches"}, b"nb\x04\x00\x00\x00x"),
    ],
)
def test_a_damaged_trace_costs_its_picture_alone(kind, method, options, trace, pictures, tmp_path, key, rng):
    source, out, back = pictures, tmp_path / "out", tmp_path / "back"
    if kind == "array":
        source, out, back = (tmp_path / f"{name}.npz" for name in ("in", "out", "back"))
        images = rng.integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
        np.savez(source, images=images, labels=np.arange(10) % 2)
    protect(source, out, key, method=method, options=options)
    with Manifest.open(tmp_path / f"{out.name}.manifest") as book:
        row = next(row for row in book.pictures() if row.status == "protected")
        book._database.execute("UPDATE pictures SET scale = ? WHERE number = ?", (trace, row.number))
    report = unlearnable.unlock(out, back, key=key, workers=0)
    assert (report.unlocked, report.failed) == (9, 1)
    assert report.failures == [(row.id, str(TraceError()))]
    assert len(report.pictures_psnr) == 9
    if kind == "array":
        left = [n for n in range(10) if np.array_equal(np.load(back)["images"][n], np.load(out)["images"][n])]
        assert left == [0]


def test_a_manifest_with_damaged_parameters_is_one_line(pictures, tmp_path, key):
    protect(pictures, tmp_path / "out", key)
    with Manifest.open(tmp_path / "out.manifest") as book:
        book._database.execute("UPDATE about SET value = '{bad' WHERE name = 'parameters'")
    with pytest.raises(InputError, match=r"manifest as it was written, found parameters '\{bad': restore a copy"):
        unlearnable.unlock(tmp_path / "out", tmp_path / "back", key=key, workers=0)
    with pytest.raises(InputError, match=r"records \(parameters: \{bad\), found parameters: "):
        protect(pictures, tmp_path / "out", key)


def test_what_another_version_drew_is_said_to_be_of_that_version(pictures, tmp_path, key, monkeypatch):
    protect(pictures, tmp_path / "out", key, method="tone")
    monkeypatch.setattr(tone, "_MOST_SHADE", 0.5)
    with pytest.raises(InputError, match=rf"draws .* made with \({unlearnable.__version__}\)$"):
        unlearnable.unlock(tmp_path / "out", tmp_path / "back", key=key, workers=0)
    shutil.copytree(pictures / "cat", pictures / "eel")
    with pytest.raises(InputError, match="found other classes, which change what"):
        protect(pictures, tmp_path / "out", key, method="tone")


def test_classes_that_look_the_same_are_refused(tmp_path, key, rng):
    for name in ("caf\u00e9", "cafe\u0301"):
        (tmp_path / "in" / name).mkdir(parents=True)
        draw_picture(rng).save(tmp_path / "in" / name / "0.png")
    with pytest.raises(InputError, match=r"'cafe\\u0301' and 'caf\\xe9', which look the same: merge"):
        protect(tmp_path / "in", tmp_path / "out", key)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.manifest").exists()


def test_preview_draws_one_picture_a_class(pictures, tmp_path, key):
    (pictures / "cat" / "0.jpg").write_bytes(b"broken")
    unlearnable.preview(pictures, key=key, out=tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"
        assert sheet.width > 400


# --- interruptions


SCRIPT = """
import signal, sys, unlearnable
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
unlearnable.protect(sys.argv[1], sys.argv[2], key=unlearnable.Key(bytes(range(32))), workers=2)
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Enough pictures that a run takes a moment, and what an uninterrupted run makes of them."""
    root = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    for i in range(400):
        (root / "in" / f"class {i % 4}").mkdir(parents=True, exist_ok=True)
        draw_picture(rng, 96, 128).save(root / "in" / f"class {i % 4}" / f"{i}.png")
    unlearnable.protect(root / "in", root / "whole", key=Key(bytes(range(32))))
    return root / "in", contents(root / "whole")


def descendants(pid):
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = [tuple(map(int, line.split())) for line in listed.splitlines()]
    return [child for child, parent in parents if parent == pid]


def started(source, out):
    return subprocess.Popen([sys.executable, "-c", SCRIPT, source, out], stderr=subprocess.PIPE, text=True)


def wait_for_some(out, process, count):
    deadline = time.monotonic() + 300  # far more than it takes where other work is on the cores
    while time.monotonic() < deadline:
        if sum(1 for _ in out.rglob("*.png")) >= count or process.poll() is not None:
            return
        time.sleep(0.005)
    process.kill()
    process.communicate()
    raise AssertionError("nothing is written")


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_instant_the_same_command_finishes_the_rest(many, tmp_path, seed):
    source, whole = many
    out, chance = tmp_path / "out", random.Random(seed)
    for _ in range(2):
        process = started(source, out)
        wait_for_some(out, process, chance.randrange(1, 300))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    done = {name: data for name, data in contents(out).items() if not name.startswith(".")}
    assert all(whole[name] == data for name, data in done.items())  # whatever is there is whole
    unlearnable.protect(source, out, key=Key(bytes(range(32))), workers=2)
    assert contents(out) == whole
    assert unlearnable.verify(out).ok


def test_workers_end_with_their_parent(many, tmp_path):
    process = started(many[0], tmp_path / "out")
    wait_for_some(tmp_path / "out", process, 5)
    workers = descendants(process.pid)
    assert len(workers) == 2
    process.kill()
    process.communicate()
    for _ in range(200):
        if not any(os.path.exists(f"/proc/{worker}") for worker in workers):
            return
        time.sleep(0.02)
    raise AssertionError("a worker outlived its parent")


def test_a_killed_worker_costs_nothing(many, tmp_path):
    process = started(many[0], tmp_path / "out")
    for count in (5, 60):
        wait_for_some(tmp_path / "out", process, count)
        for worker in descendants(process.pid)[:1]:
            os.kill(worker, signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert contents(tmp_path / "out") == many[1]


def test_ctrl_c_keeps_what_is_done(many, tmp_path):
    process = started(many[0], tmp_path / "out")
    wait_for_some(tmp_path / "out", process, 20)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert "KeyboardInterrupt" in said
    done = contents(tmp_path / "out")
    assert done
    assert all(many[1][name] == data for name, data in done.items())
    unlearnable.protect(many[0], tmp_path / "out", key=Key(bytes(range(32))))
    assert contents(tmp_path / "out") == many[1]


def test_two_runs_at_once_on_one_destination(many, tmp_path):
    process = started(many[0], tmp_path / "out")
    wait_for_some(tmp_path / "out", process, 5)
    for manifest in (None, tmp_path / "another"):
        with pytest.raises(InputError, match=r"another run|holds something else"):
            unlearnable.protect(many[0], tmp_path / "out", key=Key(bytes(range(32))), manifest=manifest)
    assert process.wait() == 0
    process.communicate()
    assert contents(tmp_path / "out") == many[1]


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("no right to mount a small disk")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("manifest_too", [False, True])
def test_a_full_disk_loses_nothing(many, tmp_path, small_disk, manifest_too):
    manifest = (small_disk if manifest_too else tmp_path) / "manifest"
    with pytest.raises(InputError, match="room on the disk"):
        unlearnable.protect(many[0], small_disk / "out", key=Key(bytes(range(32))), manifest=manifest)
    done = contents(small_disk / "out")
    assert done
    assert all(many[1][name] == data for name, data in done.items())
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    unlearnable.protect(many[0], small_disk / "out", key=Key(bytes(range(32))), manifest=manifest)
    assert contents(small_disk / "out") == many[1]


def test_a_destination_that_cannot_be_written(pictures, key):
    with pytest.raises(InputError, match="a destination that can be written"):
        protect(pictures, "/proc/out", key, manifest="/proc/manifest")


# --- layers


@pytest.mark.parametrize(
    ("method", "options", "least"),
    [
        ("tone", {"strength": 0.3}, 45),
        ("echo", {}, 45),
        ("patches", {"radius": 12.0}, 90),
        ("autoregressive", {}, 90),
        ("veil", {"radius": 60.0}, 45),
        ("stack", {"preset": "strong"}, 26),
        ("stack", {"layers": "cuda,tone:strength=0.25,patches"}, 26),
    ],
)
def test_layers_go_on_and_come_off(method, options, least, pictures, tmp_path, key):
    report = protect(pictures, tmp_path / "out", key, method=method, options=options, format="png")
    assert (report.protected, report.failed, report.noise) == (10, 0, None)
    assert unlearnable.verify(tmp_path / "out", key=key).ok
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.manifest", "pictures"]
    unlocked = unlearnable.unlock(tmp_path / "out", tmp_path / "back", key=key, workers=0)
    assert unlocked.failed == 0
    assert unlocked.psnr > max(least, report.psnr)


def test_a_stack_stored_as_jpeg_comes_back_as_well_as_that_goes(pictures, tmp_path, key):
    report = protect(pictures, tmp_path / "out", key, method="stack", options={"preset": "light"}, format="jpeg")
    unlocked = unlearnable.unlock(tmp_path / "out", tmp_path / "back", key=key, workers=0)
    assert unlocked.psnr > report.psnr + 3


# --- real pictures


def test_cifar10_comes_back_from_its_arrays(shared_data, tmp_path, key):
    """400 real pictures as lossless files: visible, changed, and given back at 35 dB and more."""
    with tarfile.open(shared_data / "cifar10.tar.xz") as tar:
        wanted = [member for member in tar if member.isfile() and "/train/" in member.name][::125]
        tar.extractall(tmp_path, wanted, filter="data")
    source = tmp_path / "cifar10" / "train"
    report = protect(source, tmp_path / "out", key, format="png", workers=2)
    assert (report.protected, report.failed) == (400, 0)
    assert 15 < report.psnr < 30
    assert 0.6 < report.ssim < 1
    unlocked = unlearnable.unlock(tmp_path / "out", tmp_path / "back", key=key)
    assert (unlocked.unlocked, unlocked.failed, unlocked.changed) == (400, 0, [])
    assert unlocked.psnr > 35


def test_photographs_keep_their_names_sizes_and_format(shared_data, tmp_path, key):
    with tarfile.open(shared_data / "photos.tar") as tar:
        wanted = sorted((member for member in tar if member.isfile()), key=lambda member: member.size)[:12]
        tar.extractall(tmp_path, wanted, filter="data")
    report = protect(tmp_path / "photos", tmp_path / "out", key, classes="single", workers=2)
    assert (report.protected, report.failed) == (12, 0)
    for path in (tmp_path / "photos").iterdir():
        with Image.open(path) as before, Image.open(tmp_path / "out" / path.name) as after:
            assert (after.format, after.size, after.mode) == (before.format, before.size, before.mode)


def test_a_manifest_from_before_colours_were_compared_goes_on(pictures, tmp_path, key):
    protect(pictures, tmp_path / "out", key)
    with sqlite3.connect(tmp_path / "out.manifest") as database:
        database.execute("ALTER TABLE pictures DROP COLUMN colour")
    database.close()
    (tmp_path / "out" / "cat" / "0.jpg").unlink()
    assert protect(pictures, tmp_path / "out", key).protected == 10
    assert unlearnable.verify(tmp_path / "out", key=key).ok
