import io
import json
import logging
import multiprocessing
import pickle
import tarfile
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.conftest import draw_picture
from unlearnable.errors import InputError
from unlearnable.pictures import cache, dataset
from unlearnable.pictures.dataset import Dataset, load, match

NAMES = ["ape", "bee", "cow"]


@pytest.fixture(autouse=True)
def cache_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "unlearnable" / "datasets"


@pytest.fixture
def images(rng):
    return np.stack([np.asarray(draw_picture(rng, 32, 32)) for _ in range(10)])


@pytest.fixture
def labels(rng):
    return np.arange(10) * 7 % 3


def encoded(pixels, format="PNG"):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format)
    return out.getvalue()


def as_folder(root, images, labels):
    for n, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        place = root / "set" / NAMES[label] / "deeper" / f"{n:02}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(encoded(pixels))
    return root / "set", "folder"


def as_table(root, images, labels):
    (root / "flat").mkdir()
    for n, pixels in enumerate(images):
        (root / "flat" / f"{n:02}.png").write_bytes(encoded(pixels))
    rows = [f"{n:02}.png,{NAMES[label]}\n" for n, label in enumerate(labels)]
    (root / "labels.csv").write_text("path,label\n" + "".join(rows))
    return root / "flat", str(root / "labels.csv")


def as_npz(root, images, labels):
    np.savez(root / "set.npz", images=images, labels=labels, class_names=np.array(NAMES))
    return root / "set.npz", "folder"


def as_parquet(root, images, labels):
    from datasets import ClassLabel, Features
    from datasets import Dataset as HuggingFace
    from datasets import Image as Pictures

    columns = {"image": [{"bytes": encoded(x), "path": None} for x in images], "label": labels.tolist()}
    table = HuggingFace.from_dict(columns, Features({"image": Pictures(), "label": ClassLabel(names=NAMES)}))
    table.to_parquet(root / "set.parquet")
    return root / "set.parquet", "folder"


def as_tar(root, images, labels):
    (root / "shards").mkdir()
    for shard, numbers in enumerate((range(4), range(4, 10))):
        with tarfile.open(root / "shards" / f"{shard}.tar", "w") as tar:
            for n in numbers:
                for name, data in ((f"{n:04}.png", encoded(images[n])), (f"{n:04}.cls", NAMES[labels[n]].encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return root / "shards", "folder"


def as_cifar(root, images, labels):
    (root / "batches").mkdir()
    data = images.transpose(0, 3, 1, 2).reshape(len(images), -1).copy()
    (root / "batches" / "data_batch_1").write_bytes(pickle.dumps({b"data": data, b"labels": labels.tolist()}, 2))
    meta = {b"label_names": [name.encode() for name in NAMES]}
    (root / "batches" / "batches.meta").write_bytes(pickle.dumps(meta, 2))
    return root / "batches", "folder"


SOURCES = [as_folder, as_table, as_npz, as_parquet, as_tar, as_cifar]


@pytest.mark.parametrize("write", SOURCES)
def test_every_source_gives_the_same(tmp_path, images, labels, write):
    path, classes = write(tmp_path, images, labels)
    found = load(path, classes=classes)
    order = np.argsort(labels, kind="stable") if write is as_folder else np.arange(10)
    assert np.array_equal(found.images, images[order])
    assert np.array_equal(found.labels, labels[order])
    assert found.class_names == tuple(NAMES)
    assert len(set(found.ids)) == 10
    assert found.skipped == ()

    few = load(path, classes=classes, limit=4)
    assert few.fingerprint() == found.limit(4).fingerprint()
    assert few.ids == found.limit(4).ids
    assert load(path, classes=classes, size=8).images.shape == (10, 8, 8, 3)


def test_a_flat_folder_is_one_class(tmp_path, images, labels):
    path, _ = as_table(tmp_path, images, labels)
    found = load(path)
    assert (found.class_names, set(found.labels.tolist())) == (("all",), {0})
    assert found.ids[:2] == ("00.png", "01.png")


def test_numbered_classes_are_ordered_by_number(tmp_path, images):
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(10) + 5)
    found = load(tmp_path / "set.npz")
    assert found.class_names == tuple(str(n) for n in range(5, 15))
    assert found.labels.tolist() == list(range(10))


def test_with_workers_as_without(tmp_path, images, labels, monkeypatch):
    path, _ = as_folder(tmp_path, images, labels)
    alone = load(path)
    monkeypatch.setattr(dataset, "_FEW", 0)
    assert load(path).fingerprint() == alone.fingerprint()


def save(root, name, image, **options):
    (root / "set" / "ape").mkdir(parents=True, exist_ok=True)
    image.save(root / "set" / "ape" / name, **options)
    return root / "set"


def test_sixteen_bits_become_eight(tmp_path, rng):
    grey = rng.integers(0, 1 << 16, (6, 5), dtype=np.uint16)
    found = load(save(tmp_path, "a.png", Image.fromarray(grey)))
    assert np.array_equal(found.images, grey[None, :, :, None] // 256)


def test_grey_stays_grey_if_all_is(tmp_path, rng):
    grey, colour = rng.integers(0, 256, (7, 7), dtype=np.uint8), rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)
    path = save(tmp_path, "a.png", Image.fromarray(grey))
    save(tmp_path, "b.png", Image.fromarray(255 - grey))
    assert np.array_equal(load(path).images[..., 0], np.stack((grey, 255 - grey)))
    save(tmp_path, "c.png", Image.fromarray(colour))
    for in_memory in (None, 0):
        found = load(path, in_memory=in_memory)
        assert np.array_equal(found.images[2], colour)
        assert np.array_equal(found.images[0], np.dstack([grey] * 3))


def test_alpha_is_dropped(tmp_path, rng):
    samples = rng.integers(0, 256, (7, 7, 4), dtype=np.uint8)
    assert np.array_equal(load(save(tmp_path, "a.png", Image.fromarray(samples))).images[0], samples[..., :3])


def test_cmyk_becomes_rgb(tmp_path):
    path = save(tmp_path, "a.tif", Image.new("CMYK", (4, 4), (0, 51, 255, 102)))
    assert load(path).images[0, 0, 0].tolist() == [255 * 153 // 255, 204 * 153 // 255, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
def test_pictures_stand_upright(tmp_path, suffix, orientation):
    """As Pillow's own exif_transpose turns them."""
    from PIL import ImageOps

    image = draw_picture(np.random.default_rng(3), 24, 16)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path, f"a.{suffix}", image, exif=exif.tobytes())
    with Image.open(path / "ape" / f"a.{suffix}") as stored:
        turned = np.asarray(ImageOps.exif_transpose(stored))
    assert np.array_equal(load(path).images[0], turned)


def test_broken_exif_does_no_harm(tmp_path):
    image = draw_picture(np.random.default_rng(3), 24, 16)
    path = save(tmp_path, "a.png", image, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert np.array_equal(load(path).images[0], np.asarray(image))


@pytest.mark.parametrize("shape", [(120, 64), (64, 95), (12, 14), (33, 33)])
def test_size_scales_and_cuts(tmp_path, rng, shape):
    """As torch scales, antialiased; noise would show any difference."""
    from torch import from_numpy
    from torch.nn.functional import interpolate

    pixels = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    found = load(save(tmp_path, "a.png", Image.fromarray(pixels)), size=16).images[0]
    scaled = [16 * side // min(shape) for side in shape]
    tensor = from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]
    wanted = interpolate(tensor, size=scaled, mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    top, left = ((side - 16) // 2 for side in scaled)
    assert found.shape == (16, 16, 3)
    assert np.abs(found - wanted[top : top + 16, left : left + 16]).max() <= 1


@pytest.mark.parametrize("write", [as_folder, as_npz])
def test_the_right_size_is_left_alone(tmp_path, images, labels, write):
    path, _ = write(tmp_path, images, labels)
    assert load(path, size=32).fingerprint() == load(path).fingerprint()


def test_unequal_sizes_are_refused(pictures):
    with pytest.raises(InputError, match=r"one size, found e\.g\. 20x24 \('cat/0\.jpg'\) and 17x30 .*: say --size N"):
        load(pictures)


def test_what_cannot_be_read_is_told(tmp_path, images, labels, caplog):
    path, _ = as_folder(tmp_path, images, labels)
    whole = load(path)
    bad = [whole.ids[0], whole.ids[5]]
    (path / bad[0]).write_bytes(b"no picture")
    (path / bad[1]).write_bytes((path / bad[1]).read_bytes()[:200])
    with caplog.at_level(logging.WARNING):
        found = load(path)
    assert [id_ for id_, _ in found.skipped] == bad
    assert "2 of 10 pictures" in caplog.text
    assert bad[0] in caplog.text
    assert found.ids == tuple(id_ for id_ in whole.ids if id_ not in bad)
    assert np.array_equal(found.images, np.delete(whole.images, [0, 5], 0))
    assert np.array_equal(found.labels, np.delete(whole.labels, [0, 5]))

    few = load(path, limit=6)  # others take their places
    assert few.ids == found.limit(6).ids
    assert few.fingerprint() == found.limit(6).fingerprint()


def test_a_row_without_a_picture_is_told(tmp_path, images, labels):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"bytes": encoded(x), "path": None} for x in images[:3]] + [{"bytes": None, "path": "x.png"}]
    pq.write_table(pa.table({"image": rows, "label": ["ape", "bee", "ape", "bee"]}), tmp_path / "set.parquet")
    found = load(tmp_path / "set.parquet")
    assert len(found) == 3
    assert len(found.skipped) == 1


def test_arrays_with_alpha_are_refused(tmp_path, rng):
    np.savez(tmp_path / "set.npz", images=rng.integers(0, 256, (2, 8, 8, 4), dtype=np.uint8), labels=[0, 1])
    with pytest.raises(InputError, match="it has 4 channels, not 1 or 3"):
        load(tmp_path / "set.npz")


def test_none_readable(tmp_path):
    (tmp_path / "ape").mkdir()
    with pytest.raises(InputError, match=r"expected pictures that can be read in .*, found none"):
        load(tmp_path)
    (tmp_path / "ape" / "a.png").write_bytes(b"no picture")
    for limit in (None, 1):
        with pytest.raises(InputError, match=r"found none among 1: 'ape/a\.png' \(not a picture of a known format\)"):
            load(tmp_path, limit=limit)


@pytest.mark.parametrize("options", [{"limit": 0}, {"size": 0}, {"limit": -1}])
def test_numbers_below_one(tmp_path, images, labels, options):
    path, _ = as_folder(tmp_path, images, labels)
    with pytest.raises(InputError, match="1 p"):
        load(path, **options)


def test_limit_takes_classes_in_turn(rng):
    labels = np.array([2, 2, 2, 2, 0, 0, 0, 1, 2])
    whole = Dataset(rng.integers(0, 256, (9, 2, 2, 3), dtype=np.uint8), labels, tuple(NAMES), tuple("abcdefghi"))
    assert [("".join(whole.limit(n).ids)) for n in range(1, 10)] == [
        "e", "eh", "aeh", "aefh", "abefh", "abefgh", "abcefgh", "abcdefgh", "abcdefghi",
    ]  # fmt: skip
    assert whole.limit(100).fingerprint() == whole.fingerprint()
    assert Counter(whole.limit(5).labels.tolist()) == {0: 2, 1: 1, 2: 2}


def test_select(rng):
    whole = Dataset(
        rng.integers(0, 256, (4, 2, 2, 1), dtype=np.uint8), np.array([0, 1, 1, 0]), ("x", "y"), tuple("abcd")
    )
    for index in (np.array([3, 1]), np.array([False, True, False, True]), slice(1, 3)):
        part = whole.select(index)
        assert np.array_equal(part.images, whole.images[index])
        assert part.labels.tolist() == whole.labels[index].tolist()
        assert part.ids == tuple(np.array(list("abcd"))[index])


def test_fingerprints_tell_contents_apart(rng):
    images = rng.integers(0, 256, (4, 2, 3, 3), dtype=np.uint8)
    labels = np.array([0, 1, 1, 0])
    one = Dataset(images, labels, ("x", "y"), tuple("abcd"))
    other = images.copy()
    other[3, 1, 2, 2] ^= 1
    prints = [
        one.fingerprint(),
        replace(one, images=other).fingerprint(),
        replace(one, images=images.reshape(4, 3, 2, 3)).fingerprint(),
        replace(one, labels=1 - labels).fingerprint(),
        replace(one, class_names=("x", "z")).fingerprint(),
        one.select(slice(0, 3)).fingerprint(),
        one.select(slice(0, 0)).fingerprint(),
    ]
    assert len(set(prints)) == len(prints)
    assert all(len(print_) == 64 for print_ in prints)
    assert replace(one, ids=tuple("efgh")).fingerprint() == one.fingerprint()
    assert replace(one, images=np.asfortranarray(images)).fingerprint() == one.fingerprint()


def test_fingerprints_do_not_depend_on_chunks(rng, monkeypatch):
    one = Dataset(rng.integers(0, 256, (9, 2, 2, 3), dtype=np.uint8), np.zeros(9, np.int64), ("x",), tuple("abcdefghi"))
    monkeypatch.setattr(dataset, "_CHUNK", 30)
    assert replace(one).fingerprint() == one.fingerprint()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((2, 4, 4, 2), np.uint8)}, "1 or 3"),
        ({"images": np.zeros((2, 4, 4, 3), np.uint16)}, "uint16"),
        ({"labels": np.zeros(3, np.int64)}, "expected 2 int64 labels"),
        ({"labels": np.zeros(2, np.int32)}, "int32"),
        ({"labels": np.array([0, 1])}, "from 0 to 0, found 0 to 1"),
        ({"ids": ("a",)}, "2 ids, found 1"),
    ],
)
def test_parts_must_fit(change, message):
    fitting = Dataset(np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2, np.int64), ("x",), ("a", "b"))
    with pytest.raises(ValueError, match=message):
        replace(fitting, **change)


# ---- larger than memory


def test_a_large_set_is_mapped(tmp_path, images, labels, cache_home, monkeypatch):
    path, _ = as_folder(tmp_path, images, labels)
    (path / "ape" / "broken.png").write_bytes(b"no picture")
    within = load(path)
    first = load(path, in_memory=1000)
    assert isinstance(first.images, np.memmap)
    assert not first.images.flags.writeable
    assert first.fingerprint() == within.fingerprint()
    assert (first.ids, first.skipped) == (within.ids, within.skipped)
    assert len(list(cache_home.iterdir())) == 1

    monkeypatch.setattr(dataset, "_decoded", None)  # it is not decoded again
    again = load(path, in_memory=1000)
    assert again.fingerprint() == within.fingerprint()
    assert (again.ids, again.skipped) == (within.ids, within.skipped)


def test_changed_files_are_decoded_again(tmp_path, images, labels, cache_home):
    path, _ = as_folder(tmp_path, images, labels)
    before = load(path, in_memory=0)
    (path / before.ids[0]).write_bytes(encoded(255 - before.images[0]))
    after = load(path, in_memory=0)
    assert np.array_equal(after.images[0], 255 - before.images[0])
    assert load(path, size=8, in_memory=0).images.shape[1] == 8
    assert len(list(cache_home.iterdir())) == 3


@pytest.mark.parametrize("damage", ["", "{}", '{"shape": [99, 32, 32, 3], "failures": {}}'])
def test_a_damaged_cache_is_made_again(tmp_path, images, labels, cache_home, damage):
    path, _ = as_folder(tmp_path, images, labels)
    before = load(path, in_memory=0).fingerprint()
    (kept,) = cache_home.iterdir()
    (kept / "about.json").write_text(damage)
    assert load(path, in_memory=0).fingerprint() == before
    assert json.loads((kept / "about.json").read_text())["shape"] == [10, 32, 32, 3]


def test_nothing_half_done_is_left(tmp_path, images, labels, cache_home):
    path, _ = as_folder(tmp_path, images, labels)
    Image.new("RGB", (5, 5)).save(path / "cow" / "z.png")
    with pytest.raises(InputError, match="one size"):
        load(path, in_memory=0)
    assert list(cache_home.iterdir()) == []


def test_a_full_disk_is_told(tmp_path, images, labels, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    path, _ = as_folder(tmp_path, images, labels)
    monkeypatch.setattr(cache.os, "posix_fallocate", full, raising=False)
    with pytest.raises(InputError, match="expected room on the disk"):
        load(path, in_memory=0)


def test_whoever_comes_second_takes_what_is_there(cache_home):
    with cache.Making("key", 0) as one, cache.Making("key", 0) as other:
        for making, value in ((one, 1), (other, 2)):
            images = making.allocate((2, 3, 3, 1))
            images[:] = value
            kept = making.keep(images, {})
            assert (kept == 1).all()
    assert [place.name for place in cache_home.iterdir()] == ["key"]


def race(path, queue):
    queue.put(load(path, in_memory=0).fingerprint())


def test_two_processes_at_once(tmp_path, images, labels, cache_home):
    path, _ = as_folder(tmp_path, images, labels)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=race, args=(path, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    prints = {queue.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert prints == {load(path).fingerprint()}
    assert len(list(cache_home.iterdir())) == 1


# ---- pairs


@pytest.fixture
def clean(images, labels):
    ids = tuple(f"{NAMES[label]}/{n}.jpg" for n, label in enumerate(labels))
    return Dataset(images, labels, tuple(NAMES), ids)


def test_pairs_by_id(clean, rng):
    order = rng.permutation(10)
    mixed = clean.select(order)
    published = replace(mixed, images=255 - mixed.images, ids=tuple(id_.replace(".jpg", ".png") for id_ in mixed.ids))
    paired = published.select(match(clean, published))
    assert np.array_equal(paired.images, 255 - clean.images)
    assert np.array_equal(paired.labels, clean.labels)


def test_pairs_whatever_the_file_is_called(clean):
    one = replace(clean, ids=tuple(f"photos.npz/{n:06}" for n in range(10)))
    other = replace(clean, ids=tuple(f"protected.npz/{n:06}" for n in range(10)))
    assert match(one, other).tolist() == list(range(10))


def test_pairs_that_differ_by_suffix_only(clean):
    ids = tuple(f"{n // 2}.{'png' if n % 2 else 'jpg'}" for n in range(10))
    one = replace(clean, ids=ids)
    assert match(one, one.select(np.arange(10)[::-1])).tolist() == list(range(10))[::-1]


def other_names(clean):
    return replace(clean, class_names=("ape", "bee", "dog"))


def other_order(clean):
    return replace(clean, class_names=("bee", "ape", "cow"))


def one_missing(clean):
    return replace(clean.select(np.delete(np.arange(10), 3)), skipped=((clean.ids[3], "not a picture"),))


def one_more(clean):
    more = clean.select(np.array([*range(10), 0]))
    return replace(more, ids=(*clean.ids, "ape/extra.jpg"))


def one_renamed(clean):
    return replace(clean, ids=("ape/other.jpg", *clean.ids[1:]))


def smaller(clean):
    return replace(clean, images=clean.images[:, :16, :16])


def grey(clean):
    return replace(clean, images=clean.images[..., :1])


def relabelled(clean):
    labels = clean.labels.copy()
    labels[4] = (labels[4] + 1) % 3
    return replace(clean, labels=labels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_names, "'cow' in the clean set only, 'dog' in the published set only"),
        (other_order, "same classes .* found another order"),
        (one_missing, r"same 10 pictures .* 1 missing \('ape/3\.jpg'\); 1 cannot be read"),
        (one_more, r"1 more \('ape/extra\.jpg'\)"),
        (one_renamed, r"1 missing \('ape/0\.jpg'\) and 1 more \('ape/other\.jpg'\)"),
        (smaller, "of 32x32 and 3 channels, .* found 16x16 and 3 channels: say --size N"),
        (grey, "found 32x32 and 1 channel:"),
        (relabelled, "class 'bee' .* found 'cow' for 'bee/4.jpg', one of 1 that differ"),
    ],
)
def test_sets_that_do_not_belong_together(clean, change, message):
    with pytest.raises(InputError, match=message):
        match(clean, change(clean))
