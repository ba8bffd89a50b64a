"""Writes an export as Parquet: untouched stretches of rows are copied as stored, changed rows are written anew.

The provenance column holds JSON text here, so that any reader of Parquet can load it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from premortem.agent.export_rows import COLUMN, Row, RowEditor
from premortem.interp.errors import ExportError
from premortem.interp.tables import Codec, parquet_batches

if TYPE_CHECKING:
    import pyarrow as pa

_FLUSH_ROWS = 10_000
_FLUSH_BYTES = 64 << 20


def write_table(out: BinaryIO, files: Sequence[Path], editor: RowEditor) -> None:
    """Write the edited rows of the source files, one after the other, as one Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(pq.read_schema(files[0]))
    if editor.layout == "explicit" and (kept := {"image", "images"}.intersection(schema.names)):
        raise ExportError(f"the Parquet file has a column '{min(kept)}', at which TRL stops; name a .jsonl file.")
    try:
        with pq.ParquetWriter(out, schema) as writer:
            for tables in _row_groups(_pieces(files, schema, editor)):
                writer.write_table(pa.concat_tables(tables))
    except pa.ArrowException as error:
        raise ExportError(f"the edited rows do not fit the columns of the Parquet file: {_one_line(error)}") from error


def _row_groups(pieces: Iterable[pa.Table]) -> Iterator[list[pa.Table]]:
    """Yield the pieces in order, as many at once as one row group shall hold; each is measured once."""
    waiting: list[pa.Table] = []
    rows, size = 0, 0
    for table in pieces:
        if not len(table):
            continue
        waiting.append(table)
        rows, size = rows + len(table), size + table.nbytes
        if rows >= _FLUSH_ROWS or size >= _FLUSH_BYTES:
            yield waiting
            waiting, rows, size = [], 0, 0
    if waiting:
        yield waiting


def _pieces(files: Sequence[Path], schema: pa.Schema, editor: RowEditor) -> Iterator[pa.Table]:
    """Yield the output in order, as tables of any length."""
    first, codec = 0, None
    for file in files:
        for batch, codec in parquet_batches(file):
            yield from _edited(batch, first, codec, schema, editor)
            first += len(batch)
    if codec is not None:
        yield from (_table(row, codec, schema) for row in editor.new_rows())


def _edited(
    batch: pa.RecordBatch, first: int, codec: Codec, schema: pa.Schema, editor: RowEditor
) -> Iterator[pa.Table]:
    """Yield the batch's rows after the edits; `first` is the row number of its first row."""
    start = 0
    for i in range(len(batch)):
        row = editor.decide(first + i, partial(_read, batch, i, codec))
        if row == "keep":
            continue
        yield _stored(batch.slice(start, i - start), schema)
        start = i + 1
        if row is not None:
            yield _table(row, codec, schema)
    yield _stored(batch.slice(start), schema)


def _read(batch: pa.RecordBatch, i: int, codec: Codec) -> Row:
    return codec.decode(batch.slice(i, 1).to_pylist()[0])


def _stored(batch: pa.RecordBatch, schema: pa.Schema) -> pa.Table:
    """Return stored rows with the provenance column, empty where the input had none."""
    import pyarrow as pa

    table = pa.Table.from_batches([batch])
    if COLUMN not in table.column_names:
        table = table.append_column(COLUMN, pa.nulls(len(table), schema.field(COLUMN).type))
    if set(table.column_names) != set(schema.names):
        odd = min(set(table.column_names) ^ set(schema.names))
        raise ExportError(f"the Parquet files differ in their columns (one has '{odd}', another not).")
    return table.select(schema.names).cast(schema)


def _table(row: Row, codec: Codec, schema: pa.Schema) -> pa.Table:
    """Return one written row as a table."""
    import pyarrow as pa

    told = row.pop(COLUMN, None)
    if strange := row.keys() - set(schema.names):
        raise ExportError(
            f"the Parquet file has no column '{min(strange)}', which an explicit row needs; name a .jsonl file."
        )
    stored = {name: row.get(name) for name in schema.names if name != COLUMN}
    if codec.encode is not dict:
        stored = codec.encode(stored)
    as_text = pa.types.is_string(schema.field(COLUMN).type) and not isinstance(told, str | None)
    provenance = json.dumps(told, ensure_ascii=False) if as_text else told
    return pa.Table.from_pylist([{**stored, COLUMN: provenance}], schema=schema)


def _schema(stored: pa.Schema) -> pa.Schema:
    """Return the schema with the provenance column, also in what `datasets` notes about columns."""
    import pyarrow as pa

    schema = stored if COLUMN in stored.names else stored.append(pa.field(COLUMN, pa.string()))
    notes = dict(stored.metadata or {})
    if b"huggingface" in notes:
        info = json.loads(notes[b"huggingface"])
        info.get("info", {}).get("features", {})[COLUMN] = {"dtype": "string", "_type": "Value"}
        notes[b"huggingface"] = json.dumps(info).encode()
    return schema.with_metadata(notes)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
