"""Parquet files: a picture a row, as Hugging Face stores them (bytes and path) or as plain binary values."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from unlearnable.errors import InputError, expected
from unlearnable.pictures.store import BLOCK, BLOCK_BYTES, Block, Container, Entry, Transform

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:
    raise expected(
        "pyarrow, which reads parquet files", "none installed", "pip install 'unlearnable[formats]'"
    ) from None

_IMAGE_NAMES: Final = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp", "bytes")
_LABEL_NAMES: Final = ("label", "labels", "class", "cls", "category", "target", "fine_label")
_GROUP_BYTES: Final = 1 << 27  # of a row group: a larger one is split, for all of it has to be in memory to be written
_BUFFER: Final = 1 << 20  # of a column that is read: without one, all of a row group's is read at once
_NOT_KEPT: Final = (b"ARROW:schema", b"content_defined_chunking")  # written anew; true of the source's pages only
_WRITTEN: Final = {"UNCOMPRESSED": "NONE"}  # as the writer calls what the reader calls otherwise
_ELSEWHERE: Final = "its row holds no picture (at most, the name of a file that lies elsewhere)"


@dataclass(frozen=True)
class _Columns:
    """Where pictures and labels are. label: None where nobody asks; class_names: None where the file has none."""

    image: str
    leaf: str  # the part of the image column that holds the bytes, as parquet names it
    label: str | None
    class_names: list[str] | None

    @property
    def wanted(self) -> list[str]:
        """The columns to be read, pictures first."""
        return [self.leaf] if self.label is None else [self.leaf, self.label]

    def entry(self, id: str, value: object, *, empty: bool) -> Entry:
        """Judge a row by the value of its label, and by whether it has a picture."""
        label, problem = "" if value is None else str(value), None
        if self.class_names is not None and isinstance(value, int):
            known = 0 <= value < len(self.class_names)
            label = self.class_names[value] if known else ""
            problem = None if known else f"its label {value} is none of the {len(self.class_names)} class names"
        elif self.label is not None and value is None:
            problem = "it has no label"
        return Entry(id, label, _ELSEWHERE if empty else problem)


class Parquet(Container):
    """A parquet file with one column of pictures. Row groups of over 128 MiB are split when it is rewritten."""

    def __init__(self, path: Path, name: str, *, labelled: bool = True) -> None:
        """Take the file, its name, and whether its labels matter; where they do not, every label is ""."""
        super().__init__(path, name)
        self._labelled = labelled

    @property
    def class_names(self) -> Sequence[str] | None:
        with self._open() as file:
            return self._columns(file.schema_arrow).class_names

    def scan(self) -> Iterator[Entry]:
        with self._open() as file:
            columns = self._columns(file.schema_arrow)
            # Pictures are read only where some may be missing: they are the bulk of the file.
            wanted = columns.wanted if _may_miss(file.metadata, columns.leaf) else columns.wanted[1:]
            for _, start, batch in self._batches(file, columns, wanted):
                yield from self._entries(batch, columns, start)

    def read(self) -> Iterator[Block]:
        with self._open() as file:
            columns = self._columns(file.schema_arrow)
            for _, start, batch in self._batches(file, columns, columns.wanted):
                yield self._block(batch, columns, start)

    def rewrite(self, target: Path, transform: Transform) -> None:
        with self._open() as file:
            schema = file.schema_arrow
            columns = self._columns(schema)
            place = schema.get_field_index(columns.image)
            # A picture that failed leaves a null, whatever the source thought of nulls.
            schema = schema.set(place, schema.field(place).with_nullable(True))
            batches = self._batches(file, columns, None)
            with target.open("wb") as out, pq.ParquetWriter(out, schema, **_settings(file.metadata)) as writer:
                writer.add_key_value_metadata(_extra_metadata(file))
                for _, rows in groupby(batches, key=itemgetter(0)):
                    held: list[Any] = []
                    for _, start, batch in rows:
                        block = transform(self._block(batch, columns, start))
                        arrays = batch.columns
                        arrays[place] = _with_bytes(arrays[place], block.payloads)
                        held.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
                        if sum(batch.nbytes for batch in held) > _GROUP_BYTES:
                            _write_group(writer, held)
                            held = []
                    if held:
                        _write_group(writer, held)

    @contextmanager
    def _open(self) -> Iterator[Any]:
        with self._speaking():
            # Reading ahead would start threads and hold whole row groups.
            file = pq.ParquetFile(self.path, pre_buffer=False, buffer_size=_BUFFER)
        with file:
            yield file

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        """Turn what Arrow says about a file into words for its owner."""
        try:
            yield
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = str(error).partition("\n")[0]
            raise expected("a whole parquet file", f"{self.path} ({reason})", "fetch or write it again") from None

    def _columns(self, schema: Any) -> _Columns:
        """Find the columns: by the features that Hugging Face writes down, else by type and name."""
        features = _features(schema)
        image = self._image_column(schema, features)
        holder = schema.field(image).type
        leaf = f"{image}.bytes" if pa.types.is_struct(holder) else image
        if not self._labelled:
            return _Columns(image, leaf, None, None)
        label = self._label_column(schema, features)
        return _Columns(image, leaf, label, _class_names(features.get(label)))

    def _image_column(self, schema: Any, features: dict[str, Any]) -> str:
        found = [name for name, feature in features.items() if _holds_image(feature)]
        if not found:
            fields = [field for field in schema if _bytes_type(field.type) is not None]
            found = [field.name for field in fields if pa.types.is_struct(field.type)]
            found = found or _preferred([field.name for field in fields], _IMAGE_NAMES)
        remedy = "keep one column of pictures, as binary values or as datasets.Image() stores them"
        if len(found) != 1:
            raise self._unclear("one column of pictures", found, schema, remedy)
        if schema.get_field_index(found[0]) < 0 or _bytes_type(schema.field(found[0]).type) is None:
            raise self._unclear("a picture, and nothing else, in each row", found, schema, remedy)
        return found[0]

    def _label_column(self, schema: Any, features: dict[str, Any]) -> str:
        found = _preferred([name for name in features if _class_names(features[name])], _LABEL_NAMES)
        if not found:
            plain = [field.name for field in schema if _is_label_type(field.type)]
            found = [name for name in _LABEL_NAMES if name in plain][:1]
        if len(found) != 1 or schema.get_field_index(found[0]) < 0:
            remedy = "name one 'label', or say --classes single or --classes FILE.csv"
            raise self._unclear("one column of labels", found, schema, remedy)
        return found[0]

    def _unclear(self, wanted: str, found: Sequence[str], schema: Any, remedy: str) -> InputError:
        columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
        which = " and ".join(map(repr, found)) or "none"
        return expected(f"{wanted} in {self.path}", f"{which} among {columns or 'no columns'}", remedy)

    def _batches(self, file: Any, columns: _Columns, wanted: Sequence[str] | None) -> Iterator[tuple[int, int, Any]]:
        """Read some columns (None: all) bit by bit: yield the number of the row group, of the first row, and rows."""
        start = 0
        for group in range(file.num_row_groups):
            about = file.metadata.row_group(group)
            size = sum(chunk.total_uncompressed_size for chunk in _chunks(about, columns.leaf))
            rows = max(1, min(BLOCK, BLOCK_BYTES * about.num_rows // max(1, size)))
            batches = file.iter_batches(rows, row_groups=[group], columns=wanted, use_threads=False)
            while True:
                with self._speaking():
                    batch = next(batches, None)
                if batch is None:
                    break
                yield group, start, batch
                start += len(batch)

    def _entries(self, batch: Any, columns: _Columns, start: int) -> list[Entry]:
        labels, empty = [None] * len(batch), [False] * len(batch)
        with self._speaking():
            if columns.label is not None:
                labels = batch.column(columns.label).to_pylist()
            if columns.image in batch.schema.names:
                empty = _bytes_of(batch.column(columns.image)).is_null().to_pylist()
        return [
            columns.entry(f"{self.name}/{number:06}", label, empty=gone)
            for number, (label, gone) in enumerate(zip(labels, empty, strict=True), start)
        ]

    def _block(self, batch: Any, columns: _Columns, start: int) -> Block:
        entries = self._entries(batch, columns, start)
        pictures = _bytes_of(batch.column(columns.image))
        payloads = [None if entry.error else picture.as_py() for entry, picture in zip(entries, pictures, strict=True)]
        return Block([entry.id for entry in entries], [entry.label for entry in entries], payloads)


def _features(schema: Any) -> dict[str, Any]:
    """Return the features that Hugging Face's libraries write into a file; without them, none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _holds_image(feature: object) -> bool:
    """Tell whether a feature is an image or has some further in, as a list of images has."""
    if isinstance(feature, dict):
        return feature.get("_type") == "Image" or any(map(_holds_image, feature.values()))
    return isinstance(feature, list) and any(map(_holds_image, feature))


def _class_names(feature: object) -> list[str] | None:
    """Return the names of a ClassLabel feature; None of any other."""
    match feature:
        case {"_type": "ClassLabel", "names": [*names]} if all(isinstance(name, str) for name in names):
            return names
    return None


def _preferred(found: list[str], names: Sequence[str]) -> list[str]:
    """Of several columns choose one by the order of ``names``, if any of them is there."""
    return found if len(found) == 1 else [name for name in names if name in found][:1] or found


def _bytes_type(type: Any) -> Any:
    """Return the type of the bytes in a column that may hold pictures; None for any other column."""
    place = type.get_field_index("bytes") if pa.types.is_struct(type) else -1
    value = type.field(place).type if place >= 0 else type
    binary = pa.types.is_binary(value) or pa.types.is_large_binary(value) or pa.types.is_binary_view(value)
    return value if binary else None


def _is_label_type(type: Any) -> bool:
    kinds = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    value = type.value_type if pa.types.is_dictionary(type) else type
    return any(is_kind(value) for is_kind in kinds)


def _bytes_of(column: Any) -> Any:
    """Return the pictures of a column as an array of bytes, null where the row or its bytes are."""
    if not pa.types.is_struct(column.type):
        return column
    return column.flatten()[column.type.get_field_index("bytes")]


def _with_bytes(column: Any, payloads: Iterable[bytes | None]) -> Any:
    """Return a column with other pictures; all else of its rows stays, but for those that have no picture now."""
    payloads = list(payloads)
    new = pa.array(payloads, _bytes_type(column.type))
    if not pa.types.is_struct(column.type):
        return new
    parts = [new if field.name == "bytes" else column.field(n) for n, field in enumerate(column.type)]
    gone = pa.array([payload is None for payload in payloads], pa.bool_())
    return pa.StructArray.from_arrays(parts, fields=list(column.type), mask=gone)


def _chunks(group: Any, leaf: str | None = None) -> list[Any]:
    """List what a row group's metadata say of each column, or of one."""
    chunks = [group.column(n) for n in range(group.num_columns)]
    return [chunk for chunk in chunks if leaf in (None, chunk.path_in_schema)]


def _may_miss(metadata: Any, leaf: str) -> bool:
    """Tell whether some values of a column may be null, by its statistics."""
    groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
    found = [chunk.statistics for group in groups for chunk in _chunks(group, leaf)]
    return not all(statistics and statistics.has_null_count and not statistics.null_count for statistics in found)


def _settings(metadata: Any) -> dict[str, Any]:
    """Return the arguments of ParquetWriter that store columns the way they were."""
    if not metadata.num_row_groups:
        return {}
    chunks = _chunks(metadata.row_group(0))
    return {
        "compression": {chunk.path_in_schema: _WRITTEN.get(chunk.compression, chunk.compression) for chunk in chunks},
        "use_dictionary": [chunk.path_in_schema for chunk in chunks if chunk.has_dictionary_page],
        "write_statistics": [chunk.path_in_schema for chunk in chunks if chunk.is_stats_set],
        "write_page_index": any(chunk.has_offset_index for chunk in chunks),
    }


def _extra_metadata(file: Any) -> dict[bytes, bytes]:
    """Return what the file says of itself beside its schema."""
    known = (*_NOT_KEPT, *(file.schema_arrow.metadata or {}))
    return {key: value for key, value in (file.metadata.metadata or {}).items() if key not in known}


def _write_group(writer: Any, batches: list[Any]) -> None:
    table = pa.Table.from_batches(batches)
    writer.write_table(table, row_group_size=max(1, table.num_rows))
