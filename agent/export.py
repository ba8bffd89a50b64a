"""Writes the debugged dataset: the user's own file, with the edits in it and nothing else changed.

An untouched row leaves byte for byte as it came; a changed row keeps its form, its style and every column, and says in
`premortem_edit` what was done to it and by whom. Dropped rows and unreadable lines are left out, new pairs follow at
the end. A row keeps its form because TRL judges a whole file by its first row: explicit rows stay explicit, and a
prompt given to one row of an implicit file would break it. `layout="explicit"` writes every row in TRL's explicit form
instead, for input that TRL itself cannot read.

Beside the file stands a manifest with both hashes, all counts and every edit. Nothing is ever overwritten.

`datasets` fixes the columns of a JSON Lines file by its first ten megabytes and fails on a column that appears later.
Where the first changed row lies beyond, the column is left out and the manifest alone carries the provenance.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from pydantic_core import to_jsonable_python

from premortem.agent.export_rows import Row, RowEditor
from premortem.agent.export_table import write_table
from premortem.agent.manifest import AppliedEdit, Layout, Manifest
from premortem.agent.outfile import NewFile
from premortem.interp.columns import Mapped
from premortem.interp.edits import with_final_text
from premortem.interp.errors import DataError, ExportError
from premortem.interp.lines import LineReader
from premortem.interp.records import Dataset, Edit, Review
from premortem.interp.tables import Unreadable, hash_files, parquet_files, read_parquet

_Line = tuple[int, bytes, Callable[[], Row] | None]
"""A row of the source, its bytes and how to read it; None: its pair is all there is."""
_NO_LINE = b"\n"
"""The bytes of a row that is no line of a file."""
LINE_ENDINGS = (".jsonl", ".jsonl.gz")
"""How the name of a file of lines ends."""
COLUMN_WITHIN = 8 << 20
"""The first changed row must begin within so many bytes for `datasets` to learn of the provenance column."""


def decided(edits: Iterable[Edit], reviews: Mapping[str, Review], *, unreviewed: bool) -> list[AppliedEdit]:
    """Return the edits to export, given each edit's last review by edit id; at most one per row of the source.

    Every edit was written for the row as it came, so two of them must not be stacked: what a person accepted beats
    what nobody reviewed, and of two that nobody reviewed the first stands. `unreviewed` says whether edits that nobody
    has reviewed go in at all. Raises ExportError where a person accepted two edits of one row.
    """
    applied: dict[int | str, AppliedEdit] = {}
    for edit in edits:
        review = reviews.get(edit.edit_id)
        place = edit.edit_id if edit.kind == "synthesise" else edit.row
        earlier = applied.get(place)
        if review is None:
            if unreviewed and earlier is None:
                applied[place] = AppliedEdit(edit=edit)
        elif review.decision != "reject":
            if earlier is not None and earlier.decision is not None:
                raise ExportError(
                    f"row {edit.row} has two accepted edits, {earlier.edit.edit_id} and {edit.edit_id}, each written "
                    "for the row as it came; reject one: agent review --reject EDIT"
                )
            final = with_final_text(edit, review.text) if review.text is not None else edit
            applied[place] = AppliedEdit(edit=final, decision=review.decision, reviewer=review.reviewer)
    return list(applied.values())


def unlike_forecast(applied: Sequence[AppliedEdit], passed: Mapping[str, Edit]) -> tuple[int, int]:
    """Return how many edits that `passed`, by edit_id, are not among the `applied`, and how many of those did not.

    The forecast with edits was made with all that passed, each with its own text.
    """
    texts = {one.edit.edit_id: one.edit.after for one in applied}
    judged = {edit_id for edit_id, edit in passed.items() if texts.get(edit_id) == edit.after}
    return len(passed.keys() - texts.keys()), len(texts.keys() - judged)


def export_dataset(
    dataset: Dataset,
    edits: Sequence[AppliedEdit],
    source: Path | None,
    target: Path,
    run_id: str,
    *,
    mapping: Mapped | None = None,
    split: str = "train",
    layout: Layout = "same",
    as_forecast: bool = True,
) -> Manifest:
    """Write the edited dataset to `target` and its manifest to `target` + `.manifest.json`; return the manifest.

    `source` is the file or folder that `dataset` was read from (None: a hub dataset, which leaves as explicit JSON
    Lines), `mapping` and `split` those it was read with, `as_forecast` is what the manifest tells. Edits of one row
    apply in the order given. Raises ExportError where the target exists, its name does not fit the format, the source
    is not what the run read, or the disk refuses.
    """
    tables = parquet_files(source, split) if source is not None else []
    _check_name(target, bool(tables), layout)
    try:
        editor = RowEditor(dataset, edits, run_id, mapping, layout)
        with NewFile(target) as out:
            _check_source(dataset, source, tables)
            if target.suffix == ".parquet":
                write_table(out.file, tables, editor)
            else:
                with _packed(out.file, target) as stream:
                    _write_lines(stream, _source_lines(source, tables, editor), editor)
            manifest = editor.manifest(target.name, out.sha256()).model_copy(update={"as_forecast": as_forecast})
            _write_manifest(target, manifest)
            out.commit()
    except DataError as error:
        raise ExportError(f"{target}: cannot be written: {error}") from error
    except OSError as error:
        raise ExportError(f"{target}: cannot be written: {error.strerror or error}.") from error
    return manifest


class _LineWriter:
    """Writes lines and sees to it that each is ended before the next begins."""

    def __init__(self, out: BinaryIO) -> None:
        self.out, self.size, self.open = out, 0, False

    def write(self, line: bytes) -> None:
        if self.open:
            line = b"\n" + line
        self.out.write(line)
        self.size += len(line)
        self.open = not line.endswith(b"\n")


def _write_lines(out: BinaryIO, lines: Iterable[_Line], editor: RowEditor) -> None:
    """Write JSON Lines: what becomes of the source's rows, then the new ones."""
    writer = _LineWriter(out)
    settle = _column_rule(writer, editor)
    for row, raw, read in lines:
        settle(editor.changes(row))
        became = editor.decide(row, read)
        if became == "keep" and raw == _NO_LINE and read is not None:
            became = read()
        if became is not None:
            writer.write(raw if became == "keep" else _encoded(became, raw))
    settle(bool(editor.added))
    for new in editor.new_rows():
        writer.write(_encoded(new, b"\n"))


def _column_rule(writer: _LineWriter, editor: RowEditor) -> Callable[[bool], None]:
    """Return the function that decides about the provenance column when the first changed row comes."""
    settled = False

    def settle(changed: bool) -> None:
        nonlocal settled
        if changed and not settled:
            settled, editor.column = True, writer.size < COLUMN_WITHIN

    return settle


def _source_lines(source: Path | None, tables: Sequence[Path], editor: RowEditor) -> Iterator[_Line]:
    """Yield the rows of the source; check at the end that it was the source of the run."""
    if source is None:
        yield from ((row, _NO_LINE, None) for row in editor.pairs)
        return
    if tables:
        for row, value in enumerate(read_parquet(list(tables))):
            yield row, _NO_LINE, None if isinstance(value, Unreadable) else lambda value=value: value  # type: ignore[misc]
        return
    reader = LineReader(source)
    for line in reader:
        yield line.row, line.raw, lambda value=line.value: value  # type: ignore[misc]
    for bad in reader.quarantined:
        editor.decide(bad.row, None)
    if reader.sha256 != editor.dataset.sha256:
        raise _changed(source)


def _encoded(row: Row, like: bytes) -> bytes:
    """Return a row as one line, escaped and ended as the line `like` is."""
    escaped = like.isascii() and b"\\u" in like
    ending = like[len(like.rstrip(b"\r\n")) :]
    try:
        plain = to_jsonable_python(row, inf_nan_mode="null", bytes_mode="base64")  # tables hold dates, bytes and NaN
        return json.dumps(plain, ensure_ascii=escaped, allow_nan=False).encode() + ending
    except (ValueError, TypeError) as error:
        raise ExportError(f"an edited row cannot be written as JSON: {error}") from error


@contextmanager
def _packed(file: BinaryIO, target: Path) -> Iterator[BinaryIO]:
    """Yield the stream to write lines to: the file, or gzip into it where the name says so."""
    if target.suffix != ".gz":
        yield file
        return
    with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
        yield cast(BinaryIO, packed)


def _check_name(target: Path, table: bool, layout: Layout) -> None:
    endings = (".parquet",) if table else LINE_ENDINGS
    wanted = ".parquet, as the input is" if table else ".jsonl or .jsonl.gz, as the input is JSON Lines"
    if table and layout == "explicit":
        endings, wanted = (*endings, *LINE_ENDINGS), f"{wanted}, or in .jsonl or .jsonl.gz"
    if not target.name.endswith(endings):
        raise ExportError(f"{target}: give it a name that ends in {wanted}.")


def _check_source(dataset: Dataset, source: Path | None, tables: Sequence[Path]) -> None:
    if source is None:
        return
    if not source.exists():
        raise ExportError(f"{source}: is no longer there; the export needs the file that the run read.")
    if hash_files(list(tables) or [source]) != dataset.sha256:
        raise _changed(source)


def _changed(source: Path) -> ExportError:
    return ExportError(f"{source}: has changed since the run read it; run again on the file as it is now.")


def _write_manifest(target: Path, manifest: Manifest) -> None:
    """Write the manifest before the file itself appears; one that an interrupted export left behind may stand."""
    path = target.with_name(target.name + ".manifest.json")
    body = json.dumps(manifest.model_dump(), ensure_ascii=False, indent=2).encode() + b"\n"
    if os.path.lexists(path) and not path.is_symlink() and path.is_file() and path.read_bytes() == body:
        return
    with NewFile(path) as out:
        out.file.write(body)
        out.commit()
