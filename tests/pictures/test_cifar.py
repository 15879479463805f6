import contextlib
import io
import os
import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tests.pictures.containers import check_contract, identity, inverted, open_files
from unlearnable.errors import InputError
from unlearnable.pictures.cifar import CifarBatch, cifar_batches, is_cifar_folder
from unlearnable.pictures.store import Entry

RNG = np.random.default_rng(0)
NAMES = [b"airplane", b"cat", b"dog"]


class Python2Pickler(pickle._Pickler):
    """Pickles bytes as Python 2 pickles its strings, which is how the published files came about."""

    def save_bytes(self, data: bytes) -> None:
        short = len(data) < 256
        size = bytes([len(data)]) if short else struct.pack("<i", len(data))
        self.write((pickle.SHORT_BINSTRING if short else pickle.BINSTRING) + size + data)
        self.memoize(data)

    dispatch = pickle._Pickler.dispatch | {bytes: save_bytes}


def dump(value: object, protocol: str) -> bytes:
    """Pickle with "2.7", as the published files are, or with a protocol of Python 3."""
    if protocol != "2.7":
        return pickle.dumps(value, int(protocol))
    out = io.BytesIO()
    Python2Pickler(out, 2).dump(value)
    return out.getvalue().replace(b"numpy._core", b"numpy.core")


def batch(count: int = 300, *, order: str = "C", **changes) -> dict[bytes, object]:
    fields = {
        "data": RNG.integers(0, 256, (count, 3072), dtype=np.uint8).copy(order),
        "labels": [n % 3 for n in range(count)],
        "batch_label": b"testing batch 1 of 1",
        "filenames": [b"picture_s_%06d.png" % (count - n) for n in range(count)],
    }
    return {name.encode(): value for name, value in (fields | changes).items() if value is not None}


def write(folder: Path, fields: object, protocol: str = "2.7", *, hundred: bool = False) -> CifarBatch:
    meta = {b"fine_label_names" if hundred else b"label_names": NAMES, b"num_vis": 3072}
    (folder / ("meta" if hundred else "batches.meta")).write_bytes(dump(meta, protocol))
    path = folder / ("train" if hundred else "data_batch_1")
    path.write_bytes(fields if isinstance(fields, bytes) else dump(fields, protocol))
    return CifarBatch(path, path.name)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("protocol", ["2.7", "2", "3", "4", "5"])
def test_only_the_pixels_change(tmp_path, protocol, order):
    fields = batch(order=order)
    container = write(tmp_path, fields, protocol)
    check_contract(container, tmp_path)
    assert (tmp_path / "first").read_bytes() == container.path.read_bytes()

    container.rewrite(tmp_path / "test_batch", inverted)
    copy = pickle.loads((tmp_path / "test_batch").read_bytes(), encoding="bytes")
    assert np.array_equal(copy.pop(b"data"), ~fields.pop(b"data"))
    assert copy == fields


@pytest.mark.parametrize("encoding", ["latin1", "bytes"])
def test_other_readers_read_the_copy(tmp_path, encoding):
    """The way of torchvision, and the way of Keras."""
    fields = batch()
    write(tmp_path, fields).rewrite(tmp_path / "test_batch", identity)
    with open(tmp_path / "test_batch", "rb") as file:
        entry = pickle.load(file, encoding=encoding)
    key = (lambda name: name) if encoding == "latin1" else str.encode
    data = np.vstack([entry[key("data")]]).reshape(-1, 3, 32, 32).transpose((0, 2, 3, 1))
    (first, second) = CifarBatch(tmp_path / "test_batch", "b").read()
    assert np.array_equal(data, np.concatenate([first.payloads, second.payloads]))
    assert entry[key("labels")] == fields[b"labels"]
    assert data[5, 4, 3, 2] == fields[b"data"][5, 2 * 1024 + 4 * 32 + 3]


def test_entries_of_cifar_10(tmp_path):
    container = write(tmp_path, batch(5))
    names = ["airplane", "cat", "dog", "airplane", "cat"]
    assert list(container.scan()) == [
        Entry(f"data_batch_1/picture_s_{5 - n:06}.png", name) for n, name in enumerate(names)
    ]
    assert container.class_names == ["airplane", "cat", "dog"]


def test_entries_of_cifar_100(tmp_path):
    container = write(tmp_path, batch(3, labels=None, fine_labels=[0, 1, 2], coarse_labels=[9, 9, 9]), hundred=True)
    assert [entry.label for entry in container.scan()] == ["airplane", "cat", "dog"]


FILENAMES = [None, [b"a.png"] * 3, [b"a.png"], ["a.png", "b.png", 3]]


@pytest.mark.parametrize("names", FILENAMES, ids=str)
def test_pictures_without_a_name_of_their_own_are_numbered(tmp_path, names):
    container = write(tmp_path, batch(3, filenames=names))
    assert [entry.id for entry in container.scan()] == [f"data_batch_1/00000{n}" for n in range(3)]


def test_folders(tmp_path):
    assert not is_cifar_folder(tmp_path)
    write(tmp_path, batch(1))
    assert is_cifar_folder(tmp_path)
    (tmp_path / "test_batch").write_bytes(b"")
    (tmp_path / "train").mkdir()
    assert cifar_batches(tmp_path) == [tmp_path / "data_batch_1", tmp_path / "test_batch"]
    (tmp_path / "batches.meta").unlink()
    assert not is_cifar_folder(tmp_path)
    with pytest.raises(InputError, match="it names the classes"):
        _ = CifarBatch(tmp_path / "data_batch_1", "").class_names


class Command:
    """What is run when it is unpickled."""

    def __init__(self, function, *arguments) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def assembled(*opcodes: bytes) -> bytes:
    return b"\x80\x02" + b"".join(opcodes) + b"."


DTYPE = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
HOSTILE = {
    "a command": dump({b"data": Command(os.system, "touch owned")}, "2"),
    "a command, by another name": dump(Command(exec, "open('owned', 'w')"), "4"),
    "any function of numpy": assembled(b"cnumpy\nzeros\nJ\xff\xff\xff\x7f\x85R"),
    "an attribute of what is allowed": assembled(b"\x8c\x05numpy\x8c\x10ndarray.__init__\x93)R"),
    "an extension": assembled(b"\x82\x01"),
    "a persistent id": assembled(b"Pid\n"),
    "a dtype of objects": assembled(b"cnumpy\ndtype\nU\x01OK\x00K\x01\x87R"),
    "an array that was never filled": assembled(b"}U\x04data", ARRAY, b"sU\x06labels]s"),
    "an array larger than its string": assembled(ARRAY, b"(K\x01J\xff\xff\xff\x7fM\x00\x0c\x86", DTYPE, b"\x89U\x00tb"),
    "an array of a list": assembled(ARRAY, b"(K\x01K\x00M\x00\x0c\x86", DTYPE, b"\x89]tb"),
    "a string larger than the file": assembled(b"T\xff\xff\xff\x7f"),
    "bytes larger than the file": assembled(b"\x8e" + struct.pack("<Q", 1 << 40)),
    "a memo of gigabytes": assembled(b"}r\xff\xff\xff\x0f"),
    "one text encoded many times": assembled(
        b"c_codecs\nencode\nq\x00X" + struct.pack("<I", 1 << 16) + b"x" * (1 << 16) + b"q\x01U\x06latin1\x86q\x02R",
        b"h\x00h\x02R" * 10_000,
    ),
    "a function that is changed": assembled(b"c_codecs\nencode\nN}X\x08\x00\x00\x00__code__Ns\x86b"),
    "no dictionary": dump([1, 2], "2"),
    "no labels": dump({b"data": 1}, "2"),
    "no picture": dump(batch(0), "2.7"),
    "too few labels": dump(batch(3, labels=[0, 1]), "2.7"),
    "a label without a name": dump(batch(3, labels=[0, 1, 3]), "2.7"),
    "a label below nought": dump(batch(3, labels=[0, 1, -1]), "2.7"),
    "floats": dump(batch(3, data=np.zeros((3, 3072))), "2.7"),
    "another shape": dump(batch(3, data=np.zeros((3, 32, 32, 3), np.uint8)), "2.7"),
    "nothing": b"",
    "text": b"what is this?",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=list(HOSTILE))
def test_nothing_is_run_and_no_size_believed(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    container = write(tmp_path, content)
    before = open_files()
    tracemalloc.start()
    with pytest.raises(InputError, match=r"^expected a (pickle of a )?CIFAR batch.*$"):
        list(container.scan())
    assert tracemalloc.get_traced_memory()[1] < 3e6
    tracemalloc.stop()
    assert open_files() == before
    assert not (tmp_path / "owned").exists()


def test_a_hostile_meta_file(tmp_path):
    container = write(tmp_path, batch(3))
    (tmp_path / "batches.meta").write_bytes(HOSTILE["a command"])
    with pytest.raises(InputError, match=r"batches.meta \(it asks for posix.system\)"):
        list(container.scan())
    (tmp_path / "batches.meta").write_bytes(dump({b"label_names": [1]}, "2"))
    with pytest.raises(InputError, match="a list of label_names"):
        list(container.scan())


def test_a_pickle_in_text_cannot_be_rewritten(tmp_path):
    container = write(tmp_path, batch(3), "0")
    assert len(list(container.scan())) == 3
    with pytest.raises(InputError, match="pickle it again with protocol 2 to 5"):
        container.rewrite(tmp_path / "copy", identity)
    assert not (tmp_path / "copy").exists()


def test_damage_raises_nothing_but_input_errors(tmp_path):
    container = write(tmp_path, batch(2))
    data = container.path.read_bytes()
    for place in [*range(0, 300, 5), *range(len(data) - 300, len(data), 5)]:
        container.path.write_bytes(data[:place])
        with pytest.raises(InputError):
            list(container.scan())
        container.path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        with contextlib.suppress(InputError):
            container.rewrite(tmp_path / "copy", identity)


def test_pixels_that_look_like_the_pickle_around_them(tmp_path):
    """All black: the zeros of the pixels begin right behind zeros of their length."""
    fields = batch(1, data=np.zeros((1, 3072), np.uint8))
    write(tmp_path, fields).rewrite(tmp_path / "copy", inverted)
    copy = pickle.loads((tmp_path / "copy").read_bytes(), encoding="bytes")
    assert (copy[b"data"] == 255).all()
