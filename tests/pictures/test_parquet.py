import contextlib
import datetime
import importlib
import io
import json
import sys
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.pictures.containers import check_contract, dropping, identity, open_files, pictures
from unlearnable.errors import InputError
from unlearnable.pictures import parquet
from unlearnable.pictures.parquet import Parquet
from unlearnable.pictures.store import Block, Entry

IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def images(count: int, type=IMAGE) -> pa.Array:
    return pa.array([{"bytes": b"picture %d" % n, "path": f"{n}.png"} for n in range(count)], type)


def plain(count: int, type=None) -> pa.Array:
    return pa.array([b"picture %d" % n for n in range(count)], type or pa.binary())


def features(**kinds: str | list) -> dict[str, str]:
    """Return the metadata that Hugging Face's library writes. A kind is a type's name, or names of classes."""
    written = {
        name: {"_type": "ClassLabel", "names": kind} if isinstance(kind, list) else {"_type": kind}
        for name, kind in kinds.items()
    }
    return {"huggingface": json.dumps({"info": {"features": written}})}


def write(tmp_path, columns: dict, metadata: dict | None = None, **options) -> Parquet:
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), tmp_path / "a.parquet", **options)
    return Parquet(tmp_path / "a.parquet", "a")


def longer(block: Block) -> Block:
    return replace(block, payloads=[data and b"new " * 9 + data for data in block.payloads])


@pytest.fixture(scope="module")
def datasets():
    import datasets

    datasets.disable_progress_bars()
    return datasets


def test_hugging_face_reads_the_copy(tmp_path, datasets):
    def png(level: int) -> bytes:
        file = io.BytesIO()
        Image.new("RGB", (4, 4), (level, 0, 0)).save(file, "PNG")
        return file.getvalue()

    kinds = datasets.Features(
        {"id": datasets.Value("int16"), "image": datasets.Image(), "label": datasets.ClassLabel(names=["dog", "cat"])}
    )
    rows = [{"id": n, "image": {"bytes": png(n), "path": f"{n}.png"}, "label": n % 2} for n in range(10)]
    source = datasets.Dataset.from_list(rows, kinds)
    source.to_parquet(tmp_path / "data" / "train.parquet", batch_size=4)
    container = Parquet(tmp_path / "data" / "train.parquet", "train.parquet")
    assert container.class_names == ["dog", "cat"]
    assert list(container.scan())[:2] == [Entry("train.parquet/000000", "dog"), Entry("train.parquet/000001", "cat")]
    check_contract(container, tmp_path)

    def brighter(block: Block) -> Block:
        levels = [Image.open(io.BytesIO(data)).getpixel((0, 0))[0] for data in block.payloads]
        return replace(block, payloads=[png(level + 100) for level in levels])

    (tmp_path / "copy").mkdir()
    container.rewrite(tmp_path / "copy" / "train.parquet", brighter)
    copy = datasets.load_dataset(str(tmp_path / "copy"), split="train", cache_dir=str(tmp_path / "cache"))
    assert copy.features == source.features
    for n, row in enumerate(copy):
        assert (row["id"], row["label"], row["image"].getpixel((0, 0))) == (n, n % 2, (n + 100, 0, 0))


def test_only_the_pictures_change(tmp_path):
    columns = {
        "label": pa.array(["a", "b", "c"] * 10),
        "image": images(30),
        "when": pa.array([datetime.datetime(2024, 1, 1)] * 30, pa.timestamp("ns")),
        "tags": pa.array([["x", None], None, []] * 10, pa.list_(pa.string())),
        "kind": pa.array(["p", "q"] * 15).dictionary_encode(),
        "about": pa.array([{"n": n, "s": {"t": str(n)}} for n in range(30)]),
        "small": pa.array(range(30), pa.uint32()),
    }
    compression = {"image.bytes": "NONE", "image.path": "GZIP", "label": "ZSTD", "when": "SNAPPY", "small": "BROTLI"}
    settings = {"use_dictionary": ["label", "kind"], "write_statistics": ["label", "small"]}
    container = write(
        tmp_path, columns, {"mine": "1"}, row_group_size=13, compression=compression, write_page_index=True, **settings
    )
    check_contract(container, tmp_path)
    container.rewrite(tmp_path / "b.parquet", longer)
    old, new = pq.ParquetFile(tmp_path / "a.parquet"), pq.ParquetFile(tmp_path / "b.parquet")
    with old, new:
        assert new.schema_arrow.equals(old.schema_arrow, check_metadata=True)
        before, after = old.read(), new.read()
        assert after.drop("image").equals(before.drop("image"))
        assert after["image"].to_pylist() == [
            {"bytes": b"new " * 9 + row["bytes"], "path": row["path"]} for row in before["image"].to_pylist()
        ]
        assert new.metadata.num_row_groups == old.metadata.num_row_groups == 3
        for group in range(3):
            one, other = old.metadata.row_group(group), new.metadata.row_group(group)
            assert one.num_rows == other.num_rows
            for n in range(one.num_columns):
                for field in ("compression", "has_dictionary_page", "is_stats_set", "has_offset_index"):
                    assert getattr(one.column(n), field) == getattr(other.column(n), field)


def test_what_the_file_says_of_itself_stays(tmp_path):
    table = pa.table({"image": plain(2), "label": [0, 1]})
    with pq.ParquetWriter(tmp_path / "a.parquet", table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"licence": "CC0"})
    Parquet(tmp_path / "a.parquet", "a").rewrite(tmp_path / "b.parquet", identity)
    metadata = pq.read_metadata(tmp_path / "b.parquet").metadata
    assert metadata[b"licence"] == b"CC0"
    assert set(metadata) == {b"ARROW:schema", b"licence"}


@pytest.mark.parametrize("type", [pa.binary(), pa.large_binary(), pa.binary_view(), IMAGE], ids=str)
def test_a_picture_that_failed_leaves_a_null(tmp_path, type):
    column = images(3) if type == IMAGE else plain(3, type)
    schema = pa.schema([pa.field("image", type, nullable=False), pa.field("label", pa.int8())])
    pq.write_table(pa.table([column, [0, 1, 2]], schema), tmp_path / "a.parquet")
    container = Parquet(tmp_path / "a.parquet", "a")
    container.rewrite(tmp_path / "b.parquet", dropping("a/000001"))
    copy = pq.read_table(tmp_path / "b.parquet")
    assert copy["image"].to_pylist() == [column[0].as_py(), None, column[2].as_py()]
    assert copy["label"].to_pylist() == [0, 1, 2]
    assert copy.schema.field("image").type == type


def test_rows_without_picture_or_label(tmp_path):
    rows = [
        {"bytes": b"0", "path": None},
        {"bytes": None, "path": "elsewhere.png"},
        None,
        {"bytes": b"3", "path": "3.png"},
        {"bytes": b"4", "path": "4.png"},
        {"bytes": b"5", "path": "5.png"},
    ]
    columns = {"image": pa.array(rows, IMAGE), "label": pa.array([0, 0, 0, None, -1, 2])}
    container = write(tmp_path, columns, features(image="Image", label=["a", "b"]))
    lost = "its row holds no picture (at most, the name of a file that lies elsewhere)"
    errors = [
        *(None, lost, lost, "it has no label"),
        "its label -1 is none of the 2 class names",
        "its label 2 is none of the 2 class names",
    ]
    assert [entry.error for entry in container.scan()] == errors
    assert list(pictures(container).values()) == [b"0", None, None, None, None, None]
    check_contract(container, tmp_path)
    assert pq.read_table(tmp_path / "first")["image"].to_pylist() == [rows[0], None, None, None, None, None]
    unlabelled = Parquet(tmp_path / "a.parquet", "a", labelled=False)
    assert [(entry.label, entry.error) for entry in unlabelled.scan()] == [("", error) for error in errors[:3]] + [
        ("", None)
    ] * 3


COLUMNS = [  # columns, metadata, image column, labels, class names
    ({"picture": plain(2), "label": [7, 8]}, None, ["7", "8"], None),
    ({"whatever": plain(2), "cls": ["x", "y"]}, None, ["x", "y"], None),
    ({"image": plain(2), "mask": pa.array([b"m", b"m"]), "label": [7, 8]}, None, ["7", "8"], None),
    ({"extra": pa.array([b"e", b"e"]), "pic": images(2), "class": [0, 1]}, None, ["0", "1"], None),
    ({"image": images(2), "label": pa.array(["x", "y"]).dictionary_encode()}, None, ["x", "y"], None),
    ({"image": images(2), "label": [1, 0]}, features(image="Image", label=["a", "b"]), ["b", "a"], ["a", "b"]),
    ({"img": images(2), "kind": [1, 0]}, features(img="Image", kind=["a", "b"]), ["b", "a"], ["a", "b"]),
    (
        {"img": images(2), "fine_label": [1, 0], "coarse_label": [0, 0]},
        features(img="Image", fine_label=["a", "b"], coarse_label=["c"]),
        ["b", "a"],
        ["a", "b"],
    ),
    (
        {"image": images(2), "sound": pa.array([{"bytes": b"s", "path": ""}] * 2, IMAGE), "label": [1, 0]},
        features(image="Image", sound="Audio"),
        ["1", "0"],
        None,
    ),
    ({"image": images(2), "label": [1, 0]}, {"huggingface": "{"}, ["1", "0"], None),
    ({"image": images(2), "label": [1, 0]}, {"huggingface": '{"info": {"features": 1}}'}, ["1", "0"], None),
]


@pytest.mark.parametrize(
    ("columns", "metadata", "labels", "names"),
    COLUMNS,
    ids=[", ".join(row[0]) + str(n) for n, row in enumerate(COLUMNS)],
)
def test_which_column_is_what(tmp_path, columns, metadata, labels, names):
    container = write(tmp_path, columns, metadata)
    assert [entry.label for entry in container.scan()] == labels
    assert pictures(container) == {"a/000000": b"picture 0", "a/000001": b"picture 1"}
    assert container.class_names == names


NO_COLUMNS = [  # columns, metadata, what the message says
    ({"label": [0]}, None, "expected one column of pictures .* found none among label "),
    ({"image": pa.array([{"bytes": {"bytes": b""}}]), "label": [0]}, None, "found none among image .struct"),
    ({"a": plain(1), "b": plain(1), "label": [0]}, None, "found 'a' and 'b' among a .binary., b .binary., label"),
    ({"a": images(1), "b": images(1), "label": [0]}, features(a="Image", b="Image"), "found 'a' and 'b'"),
    ({"a": images(1), "image": images(1), "label": [0]}, None, "found 'a' and 'image'"),
    ({"image": images(1), "more": pa.array([[b""]])}, features(image="Image"), "expected one column of labels"),
    (
        {"image": images(1), "more": pa.array([[{"bytes": b""}]]), "label": [0]},
        {
            "huggingface": json.dumps(
                {"info": {"features": {"image": {"_type": "Image"}, "more": {"feature": {"_type": "Image"}}}}}
            )
        },
        "found 'image' and 'more'",
    ),
    ({"image": pa.array(["0.png"]), "label": [0]}, features(image="Image"), "a picture, and nothing else, in each row"),
    ({"label": [0]}, features(image="Image"), "a picture, and nothing else, in each row"),
    ({"image": images(1), "caption": ["a cat"]}, None, "found none among image .* --classes single"),
    ({"image": images(1), "x": [0], "y": [0]}, features(image="Image", x=["a"], y=["b"]), "found 'x' and 'y'"),
    ({"image": images(1), "label": [0.5]}, None, "one column of labels"),
]


@pytest.mark.parametrize(("columns", "metadata", "message"), NO_COLUMNS, ids=[row[2] for row in NO_COLUMNS])
def test_columns_that_are_not_clear(tmp_path, columns, metadata, message):
    container = write(tmp_path, columns, metadata)
    before = open_files()
    for use in (container.scan, container.read, lambda: container.class_names or ()):
        with pytest.raises(InputError, match=message):
            list(use())
    with pytest.raises(InputError, match=message):
        container.rewrite(tmp_path / "b.parquet", identity)
    assert open_files() == before


def test_two_columns_of_one_name(tmp_path):
    table = pa.Table.from_arrays([plain(1), plain(1), pa.array([0])], ["image", "image", "label"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match="found 'image'"):
        list(Parquet(tmp_path / "a.parquet", "a").scan())


def test_damaged_files(tmp_path):
    container = write(tmp_path, {"image": images(50), "label": ["a"] * 50}, compression="ZSTD")
    data = container.path.read_bytes()
    before = open_files()
    for cut in range(0, len(data), 97):
        container.path.write_bytes(data[:cut])
        with pytest.raises(InputError, match=r"^expected a whole parquet file, found .*$"):
            list(container.scan())
    for place in range(4, len(data) - 1000, 7):  # Arrow may crash, and not only raise, at a footer made to deceive
        container.path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        with contextlib.suppress(InputError):
            container.rewrite(tmp_path / "b.parquet", identity)
    assert open_files() == before


def test_large_row_groups_are_split(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "BLOCK_BYTES", 5_000)
    monkeypatch.setattr(parquet, "_GROUP_BYTES", 20_000)
    rows = [{"bytes": bytes([n]) * 1_000, "path": str(n)} for n in range(100)]
    columns = {"image": pa.array(rows, IMAGE), "label": list(range(100))}
    container = write(tmp_path, columns, row_group_size=70, use_dictionary=False)
    assert max(len(block.ids) for block in container.read()) == 4
    container.rewrite(tmp_path / "b.parquet", identity)
    with pq.ParquetFile(tmp_path / "b.parquet") as copy:
        assert [copy.metadata.row_group(n).num_rows for n in range(copy.metadata.num_row_groups)] == [
            20,
            20,
            20,
            10,
            20,
            10,
        ]
    assert pq.read_table(tmp_path / "b.parquet").equals(pq.read_table(tmp_path / "a.parquet"))


def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "BLOCK_BYTES", 1 << 20)
    monkeypatch.setattr(parquet, "_GROUP_BYTES", 1 << 21)
    columns = {"image": pa.array([bytes(100_000)] * 400), "label": [0] * 400}
    container = write(tmp_path, columns, row_group_size=50, use_dictionary=False, write_batch_size=8)
    del columns
    pool = pa.default_memory_pool()
    peaks = []

    def watching(block: Block) -> Block:
        peaks.append(pool.bytes_allocated())
        return block

    container.rewrite(tmp_path / "b.parquet", watching)
    assert max(peaks) < 12e6  # of 40


def test_an_empty_file(tmp_path):
    container = write(tmp_path, {"image": plain(0), "label": pa.array([], pa.int64())})
    assert list(container.scan()) == list(container.read()) == []
    container.rewrite(tmp_path / "b.parquet", identity)
    assert pq.read_table(tmp_path / "b.parquet").equals(pq.read_table(tmp_path / "a.parquet"))


def test_without_pyarrow(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "unlearnable.pictures.parquet")
    with pytest.raises(InputError, match=r"pip install 'unlearnable\[formats\]'"):
        importlib.import_module("unlearnable.pictures.parquet")
