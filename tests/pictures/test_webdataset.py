import contextlib
import io
import json
import random
import tarfile
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from tests.pictures.containers import check_contract, dropping, identity, open_files, pictures
from unlearnable.errors import InputError
from unlearnable.pictures import webdataset as ours
from unlearnable.pictures.store import Block, Entry
from unlearnable.pictures.webdataset import WebDataset

LONG = "cat/" + "rather long folder/" * 8 + "naïve picture.jpg"
SHARD = {  # two samples a class, one picture each; the class before the picture and after it
    "cat/0001.cls": b"cat\n",
    "cat/0001.jpg": b"picture 1",
    "cat/0001.json": b'{"width": 5}',
    "cat/0002.big.PNG": b"picture 2" * 200,
    "cat/0002.cls": b"cat",
    "dog/0001.txt": b"",
    "dog/0001.webp": b"picture 3",
    LONG: b"picture 4",
}


def info_of(name: str, **about) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    settings = {"mtime": 1234567890, "mode": 0o640, "uid": 12, "gid": 34, "uname": "anna", "gname": "guests"} | about
    for field, value in settings.items():
        setattr(info, field, value)
    return info


def write(path: Path, members, format=tarfile.PAX_FORMAT) -> WebDataset:
    """Write a shard of (name or TarInfo, data)."""
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in members.items() if isinstance(members, dict) else members:
            info = info_of(name) if isinstance(name, str) else name
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return WebDataset(path, path.name)


def longer(block: Block) -> Block:
    return replace(block, payloads=[data and b"new " * 300 + data for data in block.payloads])


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_identity_keeps_every_bit(tmp_path, format):
    container = write(tmp_path / "a.tar", SHARD, format)
    check_contract(container, tmp_path)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "a.tar").read_bytes()


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_all_but_the_pictures_stays(tmp_path, format):
    members = [(info_of(name, mtime=1.5, pax_headers={"comment": name}), data) for name, data in SHARD.items()]
    members.insert(0, (info_of("cat", type=tarfile.DIRTYPE), b""))
    write(tmp_path / "a.tar", members, format).rewrite(tmp_path / "b.tar", longer)
    with tarfile.open(tmp_path / "a.tar") as old, tarfile.open(tmp_path / "b.tar") as new:
        assert old.getnames() == new.getnames() == ["cat", *SHARD]
        for before, after in zip(old, new, strict=True):
            a, b = before.get_info(), after.get_info()
            is_picture = before.name.endswith(("jpg", "PNG", "webp"))
            assert (a.pop("size") != b.pop("size")) == is_picture
            assert (a.pop("chksum") != b.pop("chksum")) == is_picture
            assert a == b
            assert before.pax_headers == after.pax_headers
            if before.isreg():
                data = new.extractfile(after).read()
                assert data == (b"new " * 300 if is_picture else b"") + SHARD[before.name]


@pytest.mark.filterwarnings("ignore:.*:pytest.PytestUnraisableExceptionWarning")  # the library leaves files open
def test_the_library_reads_the_copy(tmp_path):
    import webdataset  # with all of torch: not for the other tests

    with webdataset.TarWriter(str(tmp_path / "a.tar"), mtime=5.0) as writer:
        for n in range(400):
            writer.write({"__key__": f"{n:06}", "jpg": b"picture %d" % n, "cls": n % 10, "json": {"n": n}})
    container = WebDataset(tmp_path / "a.tar", "a.tar")
    assert list(container.scan()) == [Entry(f"a.tar/{n:06}.jpg", str(n % 10)) for n in range(400)]
    container.rewrite(tmp_path / "b.tar", longer)
    old, new = (list(webdataset.WebDataset(str(tmp_path / name), shardshuffle=False)) for name in ("a.tar", "b.tar"))
    assert [sample["__key__"] for sample in new] == [f"{n:06}" for n in range(400)]
    places = ("__url__", "__local_path__")
    for before, after in zip(old, new, strict=True):
        expected = before | {"jpg": b"new " * 300 + before["jpg"]} | {name: after[name] for name in places}
        assert after == expected


def test_a_picture_that_failed_is_left_out(tmp_path):
    container = write(tmp_path / "a.tar", SHARD)
    container.rewrite(tmp_path / "b.tar", dropping("a.tar/dog/0001.webp"))
    with tarfile.open(tmp_path / "b.tar") as tar:
        assert tar.getnames() == [name for name in SHARD if name != "dog/0001.webp"]


CLASSES = [  # members, class of a.jpg or x/a.jpg, part of the error
    ({"a.cls": b" 3\n", "a.jpg": b""}, "3", None),
    ({"x/a.jpg": b"", "x/a.json": b'{"label": "no"}', "x/a.cls": "ä".encode()}, "ä", None),
    ({"x/a.jpg": b"", "x/a.json": b'{"label": "y"}'}, "y", None),
    ({"x/a.json": b'{"caption": 1, "cls": 0}', "x/a.jpg": b""}, "0", None),
    ({"x/a.jpg": b"", "x/a.json": b'{"caption": "z"}'}, "x", None),
    ({"x/a.jpg": b"", "x/a.json": b"[1]"}, "x", None),
    ({"x/a.jpg": b"", "x/b.cls": b"other"}, "x", None),
    ({"./x/a.jpg": b""}, "x", None),
    ({"a.jpg": b""}, "", "it has no class"),
    ({"./a.jpg": b"", "._a.cls": b"hidden"}, "", "it has no class"),
    ({"x/a.jpg": b"", "x/a.cls": b" "}, "", "it is empty"),
    ({"x/a.jpg": b"", "x/a.cls": b"\xff"}, "", "can't decode"),
    ({"x/a.jpg": b"", "x/a.json": b"{"}, "", "cannot be read"),
    ({"x/a.jpg": b"", "x/a.json": b"[" * 100_000}, "", "cannot be read"),
    ({"x/a.jpg": b"", "x/a.json": b'{"label": true}'}, "", "neither a name nor a number"),
    ({"x/a.jpg": b"", "x/a.json": b'{"label": null}'}, "", "neither a name nor a number"),
    ({"x/a.jpg": b"", "x/a.json": b'{"label": "\\ud800"}'}, "", "surrogates not allowed"),
]


@pytest.mark.parametrize(("members", "label", "error"), CLASSES, ids=[str(n) for n in range(len(CLASSES))])
def test_the_class_of_a_sample(tmp_path, members, label, error):
    container = write(tmp_path / "a.tar", members)
    (entry,) = container.scan()
    assert entry.label == label
    assert (entry.error is None) if error is None else (error in entry.error)
    assert pictures(container) == {entry.id: None if error else b""}
    (entry,) = WebDataset(tmp_path / "a.tar", "a", labelled=False).scan()
    assert entry[1:] == ("", None)


def test_what_could_escape_is_never_passed_on(tmp_path):
    link = {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}
    members = [
        ("x/0.jpg", b"good"),
        ("/x/1.jpg", b"bad"),
        ("x/../../2.jpg", b"bad"),
        ("x\\..\\3.jpg", b"bad"),
        ("../4.txt", b"bad"),
        (info_of("x/5.jpg", **link), b""),
        (info_of("x/6.txt", **link), b""),
        (info_of("x/7.jpg", type=tarfile.LNKTYPE, linkname="x/0.jpg"), b""),
        (info_of("x/8", type=tarfile.FIFOTYPE), b""),
        (info_of("x/9", type=tarfile.CHRTYPE), b""),
        ("x/0.jpg", b"second"),
        ("./x//0.jpg", b"third"),
        ("x/a.txt", b"good"),
        ("x/a.txt", b"second"),
        ("x/\udcff.jpg", b"bad"),
    ]
    container = write(tmp_path / "a.tar", members, tarfile.GNU_FORMAT)
    errors = {entry.id.removeprefix("a.tar/"): entry.error for entry in container.scan()}
    outside, linked, again = (
        "its name leads out of the archive",
        "it is a link, a device or a sparse file",
        "another member has its name",
    )
    assert list(errors.values()) == [
        *(None, outside, outside, outside, linked, linked, again, again),
        "its name is not valid Unicode",
    ]
    assert list(errors)[:2] == ["x/0.jpg", "/x/1.jpg"]
    check_contract(container, tmp_path)
    with tarfile.open(tmp_path / "first") as tar:
        assert [(info.name, tar.extractfile(info).read()) for info in tar] == [
            ("x/0.jpg", b"good"),
            ("x/a.txt", b"good"),
        ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "first", "second"]


def test_sparse_members_are_not_passed_on(tmp_path):
    container = write(tmp_path / "a.tar", [(info_of("x/1.jpg", type=tarfile.GNUTYPE_SPARSE), b"data"), ("b.txt", b"")])
    assert [entry.error for entry in container.scan()] == ["it is a link, a device or a sparse file"]
    container.rewrite(tmp_path / "b.tar", identity)
    with tarfile.open(tmp_path / "b.tar") as tar:
        assert tar.getnames() == ["b.txt"]


def test_a_size_in_an_extended_header_is_not_changed(tmp_path):
    info = info_of("x/1.jpg", pax_headers={"size": "4"})
    (entry,) = write(tmp_path / "a.tar", [(info, b"data")]).scan()
    assert entry.error == "it is too large"


def test_cut_off_anywhere(tmp_path):
    write(tmp_path / "a.tar", SHARD)
    data = (tmp_path / "a.tar").read_bytes()
    for end in range(0, len(data.rstrip(b"\0")) + 1, 128):
        (tmp_path / "a.tar").write_bytes(data[:end])
        with pytest.raises(InputError, match="expected a whole tar file"):
            list(WebDataset(tmp_path / "a.tar", "a").scan())


def with_size(data: bytes, place: int, size: bytes) -> bytes:
    """Write another size, 12 bytes, into the header at a place."""
    header = bytearray(data[place : place + 512])
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:place] + header + data[place + 512 :]


SIZES = [b"77777777777\0", b"\x80" + b"\x7f" * 11, b"\xff" * 12, b"\xff" * 10 + b"\0\0", b"00000177777\0"]


@pytest.mark.parametrize("size", SIZES, ids=[size.hex() for size in SIZES])
@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
@pytest.mark.parametrize("place", [0, 512], ids=["header", "long name"])
def test_sizes_are_checked_before_memory_is_taken(tmp_path, format, size, place):
    first = "x" if place else LONG  # a member before, or the first header is one of a long name
    write(tmp_path / "a.tar", {first: b"", LONG.replace("jpg", "png"): b"picture"}, format)
    (tmp_path / "a.tar").write_bytes(with_size((tmp_path / "a.tar").read_bytes(), place, size))
    tracemalloc.start()
    with pytest.raises(InputError, match="expected a whole tar file"):
        list(WebDataset(tmp_path / "a.tar", "a").scan())
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_damage_raises_nothing_but_input_errors(tmp_path):
    write(tmp_path / "a.tar", SHARD)
    data = (tmp_path / "a.tar").read_bytes()
    rng = random.Random(0)
    before = open_files()
    for _ in range(400):
        damaged = bytearray(data)
        for _ in range(rng.choice([1, 1, 5, 50])):
            damaged[rng.randrange(len(data) - 1024)] = rng.randrange(256)
        (tmp_path / "a.tar").write_bytes(damaged)
        with contextlib.suppress(InputError):
            WebDataset(tmp_path / "a.tar", "a").rewrite(tmp_path / "b.tar", identity)
    assert open_files() == before


NOT_SHARDS = [b"text", bytes(100), b"x" * 2000, b"\x1f\x8b\x08" + bytes(2000), b""]


@pytest.mark.parametrize("content", NOT_SHARDS, ids=[str(n) for n in range(len(NOT_SHARDS))])
def test_what_is_no_tar_file(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(InputError, match="expected a whole tar file, not compressed"):
        list(WebDataset(tmp_path / "a.tar", "a").scan())


def test_something_after_the_end(tmp_path):
    write(tmp_path / "a.tar", SHARD)
    data = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(data + data)
    with pytest.raises(InputError, match="something after it"):
        list(WebDataset(tmp_path / "a.tar", "a").scan())


def test_a_shard_without_members_is_empty(tmp_path):
    container = write(tmp_path / "a.tar", {})
    assert list(container.scan()) == list(container.read()) == []
    container.rewrite(tmp_path / "b.tar", identity)
    assert (tmp_path / "b.tar").read_bytes() == (tmp_path / "a.tar").read_bytes()


def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(ours, "BLOCK_BYTES", 1 << 20)
    picture = bytes(100_000)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for n in range(400):
            for name, data in (f"x/{n}.jpg", picture), (f"x/{n}.json", json.dumps({"label": n % 3}).encode()):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    container = WebDataset(tmp_path / "a.tar", "a")
    tracemalloc.start()
    container.rewrite(tmp_path / "b.tar", identity)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6  # of 40
    assert (tmp_path / "b.tar").read_bytes() == (tmp_path / "a.tar").read_bytes()
    assert all(len(block.ids) <= 10 for block in container.read())
