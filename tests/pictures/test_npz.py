import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.pictures.containers import check_contract, identity, inverted, open_files
from unlearnable.errors import InputError
from unlearnable.pictures import npz
from unlearnable.pictures.npz import Npz
from unlearnable.pictures.store import Block, Entry

RNG = np.random.default_rng(0)


def named(value):
    """Name a test's parameter the same in every process: functions otherwise carry an address."""
    return getattr(value, "__name__", str(value))


KINDS = [  # shape, type, how it is saved
    ((300, 4, 5, 3), "u1", np.savez),
    ((300, 4, 5, 3), "u1", np.savez_compressed),
    ((3, 4, 5, 1), "u1", np.savez),
    ((3, 4, 5), "u1", np.savez_compressed),
    ((3, 4, 5, 4), "<u2", np.savez),
    ((3, 4, 5), ">u2", np.savez),
]


def draw(shape, dtype="u1"):
    return RNG.integers(0, np.iinfo(dtype).max, shape, dtype=np.dtype(dtype).newbyteorder("=")).astype(dtype)


@pytest.mark.parametrize(("shape", "dtype", "save"), KINDS, ids=named)
def test_only_the_images_change(tmp_path, shape, dtype, save):
    images, labels = draw(shape, dtype), np.arange(shape[0]) % 3
    others = {"weights": RNG.random(5), "objects": np.array([{}, None], dtype=object)}
    save(tmp_path / "a.npz", images=images, labels=labels, **others)
    container = Npz(tmp_path / "a.npz", "a.npz")
    check_contract(container, tmp_path)

    container.rewrite(tmp_path / "b.npz", inverted)
    with zipfile.ZipFile(tmp_path / "a.npz") as old, zipfile.ZipFile(tmp_path / "b.npz") as new:
        assert new.testzip() is None
        about = [
            [(info.filename, info.compress_type, info.date_time, info.external_attr) for info in file.infolist()]
            for file in (old, new)
        ]
        assert about[0] == about[1]
        for name in old.namelist():
            assert (old.read(name) == new.read(name)) == (name != "images.npy")
    with np.load(tmp_path / "b.npz") as new:
        assert new["images"].dtype == np.dtype(dtype)
        assert np.array_equal(new["images"], ~images)


def test_blocks_are_native_and_four_dimensional(tmp_path):
    images = draw((3, 4, 5), ">u2")
    np.savez(tmp_path / "a.npz", images=images, labels=["b", "a", "b"])
    (block,) = Npz(tmp_path / "a.npz", "sub/a.npz").read()
    assert isinstance(block.payloads, np.ndarray)
    assert block.payloads.dtype == np.uint16
    assert block.payloads.dtype.isnative
    assert np.array_equal(block.payloads, images[..., None])
    assert block.ids == ["sub/a.npz/000000", "sub/a.npz/000001", "sub/a.npz/000002"]
    assert block.labels == ["b", "a", "b"]


LABELS = [  # labels, class_names, expected labels, expected class names
    ([2, 10, 2], None, ["2", "10", "2"], ["2", "10"]),
    (np.array([2, -1, 2], ">i2"), None, ["2", "-1", "2"], ["-1", "2"]),
    (["b", "ä", "b"], None, ["b", "ä", "b"], ["b", "ä"]),
    ([b"b", b"a", b"b"], None, ["b", "a", "b"], ["a", "b"]),
    ([1, 0, 1], ["z", "a", "unused"], ["a", "z", "a"], ["z", "a", "unused"]),
    (["a", "z", "a"], ["z", "a"], ["a", "z", "a"], ["z", "a"]),
]


@pytest.mark.parametrize(("labels", "names", "expected", "expected_names"), LABELS, ids=str)
def test_labels(tmp_path, labels, names, expected, expected_names):
    extra = {} if names is None else {"class_names": names}
    np.savez(tmp_path / "a.npz", images=draw((3, 2, 2)), labels=labels, **extra)
    container = Npz(tmp_path / "a.npz", "a")
    assert list(container.scan()) == [Entry(f"a/{n:06}", label) for n, label in enumerate(expected)]
    assert container.class_names == expected_names


def test_labels_are_not_asked_for(tmp_path):
    np.savez(tmp_path / "a.npz", images=draw((3, 2, 2)))
    container = Npz(tmp_path / "a.npz", "a", labelled=False)
    assert [entry.label for entry in container.scan()] == ["", "", ""]
    assert container.class_names is None
    container.rewrite(tmp_path / "b.npz", identity)


PICTURES = draw((3, 4, 5, 3))
BAD = [  # arrays, what the message says
    ({"x": PICTURES, "y": [0, 1, 2]}, "arrays named images and labels .* found x, y"),
    ({"images": PICTURES}, "--classes single"),
    ({"images": PICTURES / 255, "labels": [0, 1, 2]}, "found float64 .* multiply by 255"),
    ({"images": PICTURES.astype(object), "labels": [0, 1, 2]}, "without objects"),
    ({"images": PICTURES.transpose(0, 3, 1, 2).copy(), "labels": [0, 1, 2]}, r"images.transpose\(0, 2, 3, 1\)"),
    ({"images": np.asfortranarray(PICTURES), "labels": [0, 1, 2]}, "numpy.ascontiguousarray"),
    ({"images": PICTURES[0, 0], "labels": [0, 1, 2, 3, 4]}, "count, height, width"),
    ({"images": PICTURES[..., :2], "labels": [0, 1, 2]}, "1, 3 or 4 channels"),
    ({"images": PICTURES[:, :0], "labels": [0, 1, 2]}, "count, height, width"),
    ({"images": PICTURES, "labels": [0, 1]}, "expected 3 labels"),
    ({"images": PICTURES, "labels": [[0], [1], [2]]}, "expected 3 labels"),
    ({"images": PICTURES, "labels": [0.0, 1.0, 2.0]}, "expected 3 labels"),
    ({"images": PICTURES, "labels": ["a" * 5000] * 3}, "short text"),
    ({"images": PICTURES, "labels": np.array(["a", "b", None])}, "without objects"),
    ({"images": PICTURES, "labels": np.array(["a", "\ud800", "b"])}, "surrogates not allowed"),
    ({"images": PICTURES, "labels": [0, 1, 2], "class_names": ["a", "b"]}, "the label '2'"),
    ({"images": PICTURES, "labels": [0, 1, 12], "class_names": ["a", "12"]}, "the label '12'"),
    ({"images": PICTURES, "labels": [0, -1, 1], "class_names": ["a", "b"]}, "the label '-1'"),
    ({"images": PICTURES, "labels": ["a", "c", "b"], "class_names": ["a", "b"]}, "the label 'c'"),
    ({"images": PICTURES, "labels": [0, 1, 2], "class_names": [1, 2, 3]}, "class names as one row of short text"),
]


@pytest.mark.parametrize(("arrays", "message"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_bad_arrays(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    before = open_files()
    for use in (Npz.scan, Npz.read):
        with pytest.raises(InputError, match=message):
            list(use(Npz(tmp_path / "a.npz", "a")))
    with pytest.raises(InputError, match=message):
        Npz(tmp_path / "a.npz", "a").rewrite(tmp_path / "b.npz", identity)
    assert open_files() == before


def header(shape: tuple[int, ...], dtype: str = "|u1") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def write_zip(path: Path, images: bytes, method: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("images.npy", images)
        file.writestr("labels.npy", header((10**12,)) + bytes(1000))


LIES = [
    (header((10**12, 32, 32, 3)) + bytes(1000), "array images of 1,1.. bytes"),
    (header((-1, -1000, 1)) + bytes(1000), "array images of 1,1.. bytes"),
    (header((0, 32, 32, 3)) + bytes(1000), "array images of 1,1.. bytes"),
    (header((1, 100_000, 100_000))[:50], "whole .npz file"),
    (header((1,) * 3).replace(b"(1, 1, 1)", b"(1, 1, 1*"), "whole .npz file"),
    (header((1,) * 3).replace(b"(1, 1, 1)", b"'" + b"(" * 8), "whole .npz file"),
    (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(1000), "whole .npz file"),
    (b"", "whole .npz file"),
]


@pytest.mark.parametrize(("images", "message"), LIES, ids=[str(n) for n in range(len(LIES))])
def test_sizes_are_checked_before_memory_is_taken(tmp_path, images, message):
    write_zip(tmp_path / "a.npz", images)
    tracemalloc.start()
    with pytest.raises(InputError, match=message):
        next(Npz(tmp_path / "a.npz", "a").scan())
    assert tracemalloc.get_traced_memory()[1] < 2e6
    tracemalloc.stop()


def test_a_picture_too_large_to_be_one(tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "MAX_PIXELS", 19)
    np.savez(tmp_path / "a.npz", images=PICTURES, labels=[0, 1, 2])
    with pytest.raises(InputError, match="at most 19 pixels"):
        list(Npz(tmp_path / "a.npz", "a").scan())


def test_members_that_declare_more_than_there_can_be(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", images=PICTURES, labels=[0, 1, 2])
    data = (tmp_path / "a.npz").read_bytes()
    place = data.index(b"PK\x01\x02")  # the first entry of the directory: its sizes are at 20 and 24
    for offset in (20, 24):
        (tmp_path / "a.npz").write_bytes(data[: place + offset] + b"\xff\xff\xff\x7f" + data[place + offset + 4 :])
        with pytest.raises(InputError, match="sizes that they declare"):
            list(Npz(tmp_path / "a.npz", "a").scan())


def test_members_that_are_not_numpys(tmp_path):
    write_zip(tmp_path / "a.npz", header((1, 1, 1)) + b"1", zipfile.ZIP_BZIP2)
    with pytest.raises(InputError, match="save it again with either"):
        list(Npz(tmp_path / "a.npz", "a").scan())
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("images.npy", header((1, 1, 1)) + b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("images.npy", header((1, 1, 1)) + b"2")
    with pytest.raises(InputError, match="two of one name"):
        list(Npz(tmp_path / "a.npz", "a").scan())


def test_damage_is_an_input_error_or_does_not_matter(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", images=PICTURES, labels=[0, 1, 2], other=[1])
    data = (tmp_path / "a.npz").read_bytes()
    before = open_files()
    for cut in range(0, len(data), 41):
        (tmp_path / "a.npz").write_bytes(data[:cut])
        with pytest.raises(InputError, match=r"whole \.npz file"):
            Npz(tmp_path / "a.npz", "a").rewrite(tmp_path / "b.npz", identity)
    for place in range(0, len(data), 5):
        (tmp_path / "a.npz").write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        try:
            Npz(tmp_path / "a.npz", "a").rewrite(tmp_path / "b.npz", identity)
        except InputError:
            continue
        with np.load(tmp_path / "b.npz") as copy:
            assert np.array_equal(copy["images"], PICTURES)
            assert np.array_equal(copy["labels"], [0, 1, 2])
    assert open_files() == before


def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path):
    count = 30_000  # 92 MB
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        with file.open("images.npy", "w") as member:
            member.write(header((count, 32, 32, 3)))
            for _ in range(count // 1000):
                member.write(bytes(3072 * 1000))
        with file.open("labels.npy", "w") as member:
            member.write(header((count,)) + bytes(count))
    container = Npz(tmp_path / "a.npz", "a")
    tracemalloc.start()
    assert sum(1 for _ in container.scan()) == count
    container.rewrite(tmp_path / "b.npz", identity)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6


def test_a_transform_that_answers_with_another_shape(tmp_path):
    np.savez(tmp_path / "a.npz", images=PICTURES, labels=[0, 1, 2])
    with pytest.raises(ValueError, match="expected a transform that returns"):
        Npz(tmp_path / "a.npz", "a").rewrite(
            tmp_path / "b.npz", lambda block: Block(block.ids, block.labels, PICTURES[:2])
        )
