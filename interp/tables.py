"""Reads rows of Parquet files and of datasets on the Hugging Face hub, within bounds.

A Parquet file of a kilobyte can hold sixty gigabytes of text, because a repeated cell is stored once. So files are
decoded in small batches whose size follows from what the largest stored column could repeat, single cells and the whole
are capped, and what goes beyond is refused. Rows come as plain dictionaries; nothing here knows what a pair is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from premortem.interp.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

MAX_ROWS = 50_000_000
"""Most rows of one dataset."""
MAX_DECODED_BYTES = 16 << 30
"""Most bytes that a table may decode to ..."""
MAX_DECODE_RATIO = 200
"""... and the most times its stored size, once it exceeds `FREE_DECODED_BYTES`."""
FREE_DECODED_BYTES = 256 << 20
MAX_VALUES_PER_ROW = 10_000
"""Most values that a nested column may hold per row, on average over a row group."""

_BATCH_BYTES = 256 << 20
_BATCH_ROWS = 512
_NUMBER_BYTES = 16
_CHUNK = 1 << 20


class Codec(NamedTuple):
    """How one row of a table is stored."""

    decode: Callable[[dict[str, Any]], dict[str, Any]]
    """From stored cells to values."""
    encode: Callable[[dict[str, Any]], dict[str, Any]]
    """And back."""


_OF_SPLIT = re.compile(r"(.+?)-\d{5}-of-\d{5}")
"""How the hub names the files of a split."""


def parquet_files(path: Path, split: str = "train") -> list[Path]:
    """Return the Parquet files that `path` names: itself, or those in the folder, by name.

    Of a folder that holds several splits, as the hub has them, those of one; raises DataError where it is not there.
    """
    if path.is_file():
        return [path] if path.suffix == ".parquet" else []
    files = sorted(file for file in path.rglob("*.parquet") if file.is_file())
    splits = {file: named[1] for file in files if (named := _OF_SPLIT.match(file.name))}
    if len(set(splits.values())) < 2:
        return files
    if split not in splits.values():
        there = ", ".join(sorted(set(splits.values())))
        raise DataError(f"{path}: there is no split {split!r}; --split takes one of {there}.")
    return [file for file in files if splits.get(file, split) == split]


def hash_files(files: list[Path]) -> str:
    """Return the sha256 of the files' bytes, one after the other."""
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


class Unreadable(NamedTuple):
    """A row of a table with a cell that holds no value."""

    reason: str
    """What is wrong with it."""


def read_parquet(files: list[Path]) -> Iterator[dict[str, Any] | Unreadable]:
    """Yield the rows of the files in order; raise DataError where one is damaged or unpacks out of proportion.

    A row with a cell that is no value, such as text that is not UTF-8 or a date beyond the calendar, is `Unreadable`.
    """
    import pyarrow as pa

    for file in files:
        try:
            for batch, codec in parquet_batches(file):
                yield from _values(batch, codec)
        except (pa.ArrowException, OSError, ValueError, RecursionError) as error:
            raise DataError(f"{file}: cannot be read as Parquet: {_brief(error)}") from error


def _values(batch: pa.RecordBatch, codec: Codec) -> Iterator[dict[str, Any] | Unreadable]:
    """Yield the rows of a batch, one by one where they cannot be had together."""
    import pyarrow as pa

    failures = (pa.ArrowException, ValueError, OverflowError, RecursionError)
    try:
        rows = list(map(codec.decode, batch.to_pylist()))
    except failures:
        for i in range(len(batch)):
            try:
                row = codec.decode(batch.slice(i, 1).to_pylist()[0])
            except failures as error:
                yield Unreadable(f"a cell cannot be read: {_brief(error)}")
            else:
                yield row
    else:
        yield from rows


def parquet_batches(file: Path) -> Iterator[tuple[pa.RecordBatch, Codec]]:
    """Yield the record batches of one Parquet file with their codec, within the bounds."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as table:
        codec = _codec(table.schema_arrow)
        left = _allowance(table, file)
        for group in range(table.metadata.num_row_groups):
            size = _batch_rows(table, group, file)
            for batch in table.iter_batches(batch_size=size, row_groups=[group], use_threads=False):
                left -= batch.nbytes
                if left < 0:
                    raise DataError(f"{file}: unpacks to more than {MAX_DECODE_RATIO} times its size; refused.")
                yield batch, codec


def read_hub(name: str, split: str, config: str | None, revision: str | None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a hub dataset, streamed; raise DataError where it cannot be had."""
    import datasets

    try:
        stream = datasets.load_dataset(name, name=config, split=split, revision=revision, streaming=True)
        left = MAX_DECODED_BYTES
        for row in stream:
            left -= len(repr(row))
            if left < 0:
                raise DataError(f"{name}: holds more than {MAX_DECODED_BYTES} bytes; download the part you need.")
            yield dict(row)
    except DataError:
        raise
    except Exception as error:  # the library raises errors of many families for one cause: it cannot be had
        raise DataError(
            f"{name}: no such file, and not to be had from the Hugging Face hub: "
            f"{type(error).__name__}: {_brief(error)}"
        ) from error


def canonical(row: Mapping[str, Any]) -> bytes:
    """Return one row as bytes that are the same for the same content."""
    return json.dumps(row, sort_keys=True, ensure_ascii=True, default=str).encode() + b"\n"


def _brief(error: Exception) -> str:
    """Return the beginning of an error's text on one line."""
    return " ".join(str(error).split())[:200]


def _allowance(table: pq.ParquetFile, file: Path) -> int:
    """Return how many bytes the file may decode to."""
    if table.metadata.num_rows > MAX_ROWS:
        raise DataError(f"{file}: claims {table.metadata.num_rows} rows, more than {MAX_ROWS}.")
    by_size = max(FREE_DECODED_BYTES, MAX_DECODE_RATIO * file.stat().st_size)
    return min(MAX_DECODED_BYTES, by_size)


def _batch_rows(table: pq.ParquetFile, group: int, file: Path) -> int:
    """Return how many rows of a row group to decode at once, so that repeated cells stay within memory.

    Where not even all of a column, repeated in every row, would be too much, nothing needs to be looked up. Otherwise
    the longest cell that the column may repeat says what a row may hold beyond the average.
    """
    metadata = table.metadata.row_group(group)
    columns = [metadata.column(i) for i in range(metadata.num_columns)]
    stored = max((column.total_uncompressed_size for column in columns), default=0)
    if stored > MAX_DECODED_BYTES or any(c.num_values > MAX_VALUES_PER_ROW * metadata.num_rows for c in columns):
        raise DataError(f"{file}: a row group holds too much for its number of rows; refused.")
    if stored * _BATCH_ROWS <= _BATCH_BYTES:
        return _BATCH_ROWS
    per_row = max(_row_bytes(file, group, column, max(1, metadata.num_rows)) for column in columns)
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, per_row)))


def _row_bytes(file: Path, group: int, column: pq.ColumnChunkMetaData, rows: int) -> int:
    """Return about how many bytes of a column a row may decode to: its share, and what it may repeat."""
    stored, values = int(column.total_uncompressed_size), int(column.num_values)
    if column.physical_type in ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"):
        longest = min(stored, _longest_repeated(file, group, column.path_in_schema, stored))
    else:
        longest = _NUMBER_BYTES
    return min(stored, stored // rows + longest * -(-values // rows))


def _longest_repeated(file: Path, group: int, path: str, otherwise: int) -> int:
    """Return the bytes of the longest cell that a column stores once for many rows; `otherwise` where nothing tells.

    Read as a dictionary, the first row of a column brings all such cells, each once.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file, read_dictionary=[path]) as table:
            batch = next(table.iter_batches(batch_size=1, row_groups=[group], columns=[path], use_threads=False))
        lengths = [pc.max(pc.binary_length(cells)).as_py() for cells in _dictionaries(batch.column(0))]
    except (pa.ArrowException, OSError, StopIteration):
        return otherwise
    return max((length or otherwise for length in lengths), default=otherwise)


def _dictionaries(array: Any) -> Iterator[Any]:
    """Yield the dictionaries in an array, however deep they lie."""
    import pyarrow as pa

    if pa.types.is_dictionary(array.type):
        yield array.dictionary
    elif pa.types.is_struct(array.type):
        for i in range(array.type.num_fields):
            yield from _dictionaries(array.field(i))
    elif pa.types.is_map(array.type):
        yield from _dictionaries(array.keys)
        yield from _dictionaries(array.items)
    elif pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        yield from _dictionaries(array.values)


def _codec(schema: Any) -> Codec:
    """Return how stored cells become values; `datasets` keeps objects of mixed kinds as JSON text."""
    if not schema.metadata or b"huggingface" not in schema.metadata or b'"Json"' not in schema.metadata[b"huggingface"]:
        return Codec(dict, dict)
    import datasets

    features = datasets.Features.from_arrow_schema(schema)
    return Codec(features.decode_example, features.encode_example)
