"""The pipeline over containers: arrays, parquet, tar shards, CIFAR batches."""

import io
import pickle
import shutil
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest

import unlearnable
from tests.conftest import contents, draw_picture
from unlearnable import InputError, Key
from unlearnable.pictures import codec
from unlearnable.pictures.manifest import Manifest
from unlearnable.protections.convolution import Convolution

NAMES = [f"class {i}" for i in range(3)]


def encoded(pixels):
    out = io.BytesIO()
    codec.Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def images(rng):
    return np.stack([np.asarray(draw_picture(rng, 32, 32)) for _ in range(300)])


@pytest.fixture
def labels(rng):
    return rng.integers(0, 3, 300)


def as_npz(root, images, labels):
    np.savez(root / "set.npz", images=images, labels=labels, class_names=np.array(NAMES))
    return root / "set.npz"


def as_cifar(root, images, labels):
    folder = root / "cifar"
    folder.mkdir()
    for n, part in enumerate((slice(0, 150), slice(150, 300)), 1):
        data = images[part].transpose(0, 3, 1, 2).reshape(150, -1).copy()
        names = [f"{part.start + i}.png".encode() for i in range(150)]
        batch = {b"data": data, b"labels": labels[part].tolist(), b"filenames": names, b"batch_label": b"x"}
        (folder / f"data_batch_{n}").write_bytes(pickle.dumps(batch, 2))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [name.encode() for name in NAMES]}, 2))
    return folder


def as_parquet(root, images, labels):
    from datasets import ClassLabel, Dataset, Features, Image

    (root / "parquet").mkdir()
    columns = {"image": [{"bytes": encoded(x), "path": None} for x in images], "label": labels.tolist()}
    table = Dataset.from_dict(columns, Features({"image": Image(), "label": ClassLabel(names=NAMES)}))
    for n, rows in enumerate((range(200), range(200, 300))):
        table.select(rows).to_parquet(root / "parquet" / f"train-{n}.parquet")
    return root / "parquet"


def as_tar(root, images, labels):
    (root / "tar").mkdir()
    with tarfile.open(root / "tar" / "shard.tar", "w") as tar:
        for n, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            for name, data in ((f"{n:04d}.png", encoded(pixels)), (f"{n:04d}.cls", NAMES[label].encode())):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return root / "tar"


def read_npz(place):
    return np.load(place)["images"]


def read_cifar(place):
    batches = [pickle.loads((place / f"data_batch_{n}").read_bytes(), encoding="bytes") for n in (1, 2)]
    return np.concatenate([batch[b"data"] for batch in batches]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def read_parquet(place):
    tables = [pq.read_table(path) for path in sorted(place.glob("*.parquet"))]
    return np.stack([codec.decode(row["bytes"]).pixels for table in tables for row in table["image"].to_pylist()])


def read_tar(place):
    with tarfile.open(place / "shard.tar") as tar:
        return np.stack([codec.decode(tar.extractfile(m).read()).pixels for m in tar if m.name.endswith("png")])


KINDS = {
    "npz": (as_npz, read_npz),
    "cifar": (as_cifar, read_cifar),
    "parquet": (as_parquet, read_parquet),
    "tar": (as_tar, read_tar),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def test_every_picture_is_protected_as_its_class_is(kind, images, labels, tmp_path, key):
    write, read = kind
    source = write(tmp_path, images, labels)
    out = tmp_path / f"out{source.suffix}"
    report = unlearnable.protect(source, out, key=key, workers=0)
    assert (report.pictures, report.protected, report.failed) == (300, 300, 0)
    names = type("D", (), {"class_names": NAMES})
    assert np.array_equal(read(out), Convolution().fit(names, key).apply(images, labels, [""] * 300))
    assert unlearnable.verify(out, key=key).ok
    assert np.array_equal(read(source), images)


def test_workers_do_not_matter_and_a_second_run_does_nothing(kind, images, labels, tmp_path, key):
    source = kind[0](tmp_path, images, labels)
    results = []
    for workers in (0, 2):
        out = tmp_path / f"out{workers}{source.suffix}"
        unlearnable.protect(source, out, key=key, workers=workers)
        results.append(out.read_bytes() if out.is_file() else contents(out))
        unlearnable.protect(source, out, key=key, workers=workers)
        assert results[-1] == (out.read_bytes() if out.is_file() else contents(out))
    assert results[0] == results[1]


def test_a_lost_container_is_made_again(kind, images, labels, tmp_path, key):
    source = kind[0](tmp_path, images, labels)
    out = tmp_path / f"out{source.suffix}"
    unlearnable.protect(source, out, key=key, workers=0)
    before = out.read_bytes() if out.is_file() else contents(out)
    (out if out.is_file() else min(path for path in out.iterdir() if "meta" not in path.name)).unlink()
    assert not unlearnable.verify(out).ok
    unlearnable.protect(source, out, key=key, workers=0)
    assert before == (out.read_bytes() if out.is_file() else contents(out))


def test_fraction_and_unlock(kind, images, labels, tmp_path, key):
    write, read = kind
    source = write(tmp_path, images, labels)
    out, back = tmp_path / f"out{source.suffix}", tmp_path / f"back{source.suffix}"
    report = unlearnable.protect(source, out, key=key, workers=0, fraction=0.5)
    assert (report.protected, report.kept) == (150, 150)
    same = (read(out) == images).all((1, 2, 3))
    assert same.sum() == 150
    unlocked = unlearnable.unlock(out, back, key=key, workers=0)
    assert unlocked.unlocked == 300
    assert np.array_equal(read(back)[same], images[same])
    error = ((read(back)[~same].astype(float) - images[~same]) ** 2).mean((1, 2, 3))
    assert np.median(10 * np.log10(255**2 / error)) > 35


def test_verify_finds_a_changed_picture(images, labels, tmp_path, key):
    source = as_npz(tmp_path, images, labels)
    unlearnable.protect(source, tmp_path / "out.npz", key=key, workers=0)
    arrays = dict(np.load(tmp_path / "out.npz"))
    arrays["images"][7, 3, 3, 0] ^= 1
    np.savez(tmp_path / "out.npz", **arrays)
    assert unlearnable.verify(tmp_path / "out.npz").changed == ["set.npz/000007"]


def test_verify_finds_changed_labels(images, labels, tmp_path, key):
    source = as_npz(tmp_path, images[:9], labels[:9])
    unlearnable.protect(source, tmp_path / "out.npz", key=key, workers=0)
    arrays = dict(np.load(tmp_path / "out.npz"))
    arrays["labels"] = (arrays["labels"] + (np.arange(9) == 4)) % 3
    np.savez(tmp_path / "out.npz", **arrays)
    assert unlearnable.verify(tmp_path / "out.npz").changed == ["set.npz/000004"]


def test_verify_finds_changed_class_names(images, labels, tmp_path, key):
    source = as_cifar(tmp_path, images, labels)
    unlearnable.protect(source, tmp_path / "out", key=key, workers=0)
    meta = tmp_path / "out" / "batches.meta"
    meta.write_bytes(meta.read_bytes().replace(b"class 1", b"class 7"))
    assert unlearnable.verify(tmp_path / "out").changed == ["batches.meta"]
    meta.unlink()
    assert unlearnable.verify(tmp_path / "out").missing == ["batches.meta"]


def test_verify_finds_damage_and_strangers(kind, images, labels, tmp_path, key):
    source = kind[0](tmp_path, images, labels)
    out = tmp_path / f"out{source.suffix}"
    unlearnable.protect(source, out, key=key, workers=0)
    container = out if out.is_file() else min(path for path in out.iterdir() if "meta" not in path.name)
    container.write_bytes(container.read_bytes()[: container.stat().st_size // 2])
    if out.is_dir():
        (out / "stranger.jpg").write_bytes(b"x")
    report = unlearnable.verify(out)
    assert not report.ok
    assert report.changed or report.missing
    assert report.extra == (["stranger.jpg"] if out.is_dir() else [])


def test_unlock_tells_of_a_container_that_is_gone(images, labels, tmp_path, key):
    source = as_parquet(tmp_path, images, labels)
    unlearnable.protect(source, tmp_path / "out", key=key, workers=0)
    (tmp_path / "out" / "train-1.parquet").unlink()
    report = unlearnable.unlock(tmp_path / "out", tmp_path / "back", key=key, workers=0)
    assert (report.unlocked, report.failures) == (200, [("train-1.parquet", "it is not there")])


def test_other_files_are_counted_and_links_stay_inside(images, labels, tmp_path, key):
    source = as_parquet(tmp_path, images, labels)
    (source / "README.md").write_text("hello")
    assert unlearnable.protect(source, tmp_path / "out", key=key, workers=0).skipped == 1
    (source / "train-1.parquet").rename(tmp_path / "elsewhere.parquet")
    (source / "train-1.parquet").symlink_to(tmp_path / "elsewhere.parquet")
    with pytest.raises(InputError, match="which leaves it"):
        unlearnable.protect(source, tmp_path / "other", key=key, workers=0)


def test_a_broken_picture_inside_a_container(images, labels, tmp_path, key):
    folder = as_tar(tmp_path, images[:5], labels[:5])
    with tarfile.open(folder / "shard.tar", "a") as tar:
        for name, data in (("0009.jpg", b"broken"), ("0009.cls", b"class 1"), ("../evil.jpg", b"x")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    report = unlearnable.protect(folder, tmp_path / "out", key=key, workers=0)
    assert (report.protected, report.failed) == (5, 2)
    with tarfile.open(tmp_path / "out" / "shard.tar") as tar:
        assert {"0009.jpg", "../evil.jpg"}.isdisjoint(tar.getnames())
    assert unlearnable.verify(tmp_path / "out").ok


def test_one_class_or_a_table(images, labels, tmp_path, key):
    source = as_npz(tmp_path, images[:20], labels[:20])
    unlearnable.protect(source, tmp_path / "single.npz", key=key, workers=0, classes="single")
    names = type("D", (), {"class_names": ["all"]})
    wanted = Convolution().fit(names, key).apply(images[:20], np.zeros(20, int), [""] * 20)
    assert np.array_equal(read_npz(tmp_path / "single.npz"), wanted)
    table = tmp_path / "table.csv"
    table.write_text("".join(f"set.npz/{n:06d},{'ab'[n % 2]}\n" for n in range(20)))
    unlearnable.protect(source, tmp_path / "table.npz", key=key, workers=0, classes=str(table))
    with Manifest.open(tmp_path / "table.npz.manifest") as book:
        assert {picture.label for picture in book.pictures()} == {"a", "b"}
    table.write_text("set.npz/000000,a\n")
    with pytest.raises(InputError, match="a class for every picture"):
        unlearnable.protect(source, tmp_path / "short.npz", key=key, workers=0, classes=str(table))


def test_preview_and_formats(kind, images, labels, tmp_path, key):
    source = kind[0](tmp_path, images[:150].repeat(2, 0), labels[:150].repeat(2))
    unlearnable.preview(source, key=key, out=tmp_path / "sheet.png")
    with pytest.raises(InputError, match="--format keep"):
        unlearnable.protect(source, tmp_path / "out", key=key, format="png")


def test_a_wrong_key_and_a_damaged_container(images, labels, tmp_path, key):
    source = as_npz(tmp_path, images, labels)
    unlearnable.protect(source, tmp_path / "out.npz", key=key, workers=0)
    with pytest.raises(InputError, match="name the right key"):
        unlearnable.unlock(tmp_path / "out.npz", tmp_path / "back.npz", key=Key(b"x" * 32))
    shutil.copy(source, tmp_path / "cut.npz")
    with (tmp_path / "cut.npz").open("r+b") as file:
        file.truncate(2000)
    with pytest.raises(InputError):
        unlearnable.protect(tmp_path / "cut.npz", tmp_path / "out2.npz", key=key)
    assert not (tmp_path / "out2.npz").exists()
