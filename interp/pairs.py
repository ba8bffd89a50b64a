"""Reads a preference dataset: a file, a folder of Parquet files, or a hub id, in any form `forms` knows.

JSON Lines go through our own reader (see `lines`), Parquet and hub datasets through `tables`. A row that is not a pair
is quarantined with the reason, and reading goes on: one broken line must not cost the other 259,921. `row` is the
0-based line of the input everywhere, so that a person can find it with an editor.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from premortem.interp.columns import Mapped, check_mapping, find_columns, implied_prompt, listed, prompts_elsewhere
from premortem.interp.errors import DataError, NoPairs, PromptlessRow, RowError
from premortem.interp.forms import read_row
from premortem.interp.hygiene import collect_notes
from premortem.interp.lines import LineReader, shown
from premortem.interp.records import Dataset, Pair, Quarantined
from premortem.interp.tables import Unreadable, canonical, hash_files, parquet_files, read_hub, read_parquet

LINE_SUFFIXES = (".jsonl", ".json", ".ndjson", ".gz")
"""File names that the line reader takes."""

MOST_PROMPTLESS = 0.2
"""Share of rows without a prompt column whose responses may share no beginning where the others have one."""
FEW_PROMPTLESS = 2
"""As many of them are always taken for single bad rows."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def read_dataset(
    path_or_hub_id: str | Path,
    *,
    mapping: Mapped | None = None,
    split: str = "train",
    config: str | None = None,
    revision: str | None = None,
    limit: int | None = None,
) -> Dataset:
    """Return the dataset with its readable pairs, quarantined lines and notes.

    `mapping` gives other column names (see `forms`); `limit` reads only that many first lines; `split`, `config` and
    `revision` concern hub ids, `split` also a folder that holds several. Raises DataError when the input cannot be read
    at all, when a mapping names a column that no row has, and when the prompt stands in a column that only a mapping
    can tell: the first row says so, or too many rows have no prompt where others share their first words. NoPairs when
    no line of it is a pair.
    """
    check_mapping(mapping)
    if limit is not None and limit < 1:
        raise DataError(f"a limit of {limit} lines leaves nothing to read.")
    source = _open(str(path_or_hub_id), split, config, revision, limit)
    pairs: list[Pair] = []
    refused: list[Quarantined] = []
    promptless, implied, columns = list[str](), 0, set[str]()
    for row, raw, value in source:
        columns |= value.keys()
        try:
            pairs.append(read_row(value, row, mapping))
            implied += implied_prompt(value, find_columns(value, mapping))
        except RowError as error:
            promptless += [f"row {row}: {error}"] if isinstance(error, PromptlessRow) else []
            if not pairs and not refused and _lacks_mapping(value, mapping):
                raise DataError(f"{path_or_hub_id}: row {row}: {error}") from error
            line = shown(raw if raw is not None else canonical(value))
            refused.append(Quarantined(row=row, reason=str(error), line=line))
    _check_columns(str(path_or_hub_id), mapping, columns)
    if implied and len(promptless) > max(FEW_PROMPTLESS, MOST_PROMPTLESS * (implied + len(promptless))):
        raise DataError(
            f"{path_or_hub_id}: {len(promptless)} rows have no prompt, and {implied} only seem to, by words that both "
            f"of their responses begin with; {promptless[0]}"
        )
    quarantined = tuple(sorted([*source.quarantined, *refused], key=lambda bad: bad.row))
    if not pairs:
        raise _no_pairs(str(path_or_hub_id), quarantined)
    return Dataset(
        path=str(path_or_hub_id),
        sha256=source.sha256,
        form="conversational" if 2 * sum(pair.conversational for pair in pairs) > len(pairs) else "standard",
        pairs=tuple(pairs),
        quarantined=quarantined,
        notes=collect_notes(pairs),
    )


def _check_columns(name: str, mapping: Mapped | None, columns: set[str]) -> None:
    """Raise DataError where `mapping` names a column that stands in none of the rows, which have `columns`."""
    for ours, theirs in (mapping or {}).items():
        if ours not in ("prompt", "chosen", "rejected") and columns and theirs not in columns:
            raise DataError(
                f"{name}: no row has the column '{theirs}' (for {ours}); there are {listed(sorted(columns))}"
            )


def _lacks_mapping(value: Mapping[str, Any], mapping: Mapped | None) -> bool:
    """Whether a row is no pair only because its prompt stands in a column of another name."""
    try:
        return bool(prompts_elsewhere(value, find_columns(value, mapping)))
    except RowError:
        return False


class _Table:
    """Rows that are not lines: of Parquet files (hashed by their bytes) or of the hub (hashed by their content)."""

    def __init__(self, rows: Iterator[dict[str, Any] | Unreadable], stop: int | None, files: Sequence[Path]) -> None:
        self.rows, self.stop, self.files = rows, stop, list(files)
        self.sha256 = ""
        self.quarantined: list[Quarantined] = []

    def __iter__(self) -> Iterator[tuple[int, None, dict[str, Any]]]:
        digest = hashlib.sha256()
        for row, value in enumerate(islice(self.rows, self.stop)):
            if isinstance(value, Unreadable):
                self.quarantined.append(Quarantined(row=row, reason=value.reason, line=""))
                continue
            digest.update(b"" if self.files else canonical(value))
            yield row, None, value
        self.sha256 = hash_files(self.files) if self.files else digest.hexdigest()


def _open(name: str, split: str, config: str | None, revision: str | None, limit: int | None) -> LineReader | _Table:
    path = _local(name)
    if path is None:
        return _Table(read_hub(name, split, config, revision), limit, ())
    if path.is_file() and path.suffix in LINE_SUFFIXES:
        return LineReader(path, stop=limit)
    files = parquet_files(path, split)
    if files:
        return _Table(read_parquet(files), limit, files)
    if path.is_dir():
        raise DataError(f"{name}: a folder without Parquet files; name the file to read.")
    if not path.is_file():
        raise DataError(f"{name}: not a regular file.")
    raise DataError(f"{name}: unknown kind of file; give JSON Lines (.jsonl, .jsonl.gz) or Parquet (.parquet).")


def _local(name: str) -> Path | None:
    """Return the path that `name` is, or None where it can only be a hub id; raise DataError where it is neither."""
    path = Path(name)
    try:
        if path.exists():
            return path
        looks_local = path.suffix in (*LINE_SUFFIXES, ".parquet") or (path.parent.is_dir() and path.parent != Path())
    except (OSError, ValueError) as error:
        raise DataError(f"{name!a:.200}: not a usable path: {error}") from error
    if _HUB_ID.fullmatch(name) and not looks_local and not name.startswith("."):
        return None
    raise DataError(f"{name}: no such file.{_suggestion(path)}")


def _suggestion(path: Path) -> str:
    try:
        names = [file.name for file in path.parent.iterdir()]
    except OSError:
        return f" There is no folder {path.parent} either."
    close = difflib.get_close_matches(path.name, names, n=1)
    return f" Did you mean {path.parent / close[0]}?" if close else ""


def _no_pairs(name: str, quarantined: Sequence[Quarantined]) -> NoPairs:
    if not quarantined:
        return NoPairs(f"{name}: holds no lines.")
    first = quarantined[0]
    return NoPairs(f"{name}: none of {len(quarantined)} lines is a pair; row {first.row}: {first.reason}.")


def left_out(dataset: Dataset, file: Path | None = None) -> str:
    """Return in one line how many rows could not be read, and why the first; empty: all were.

    `file` is where all of them are written, each with its reason; None: nowhere.
    """
    if not dataset.quarantined:
        return ""
    first, count = dataset.quarantined[0], len(dataset.quarantined)
    where = f"; all of them, with reasons: {file}" if file is not None else ""
    total = count + len(dataset.pairs)
    return f"{count} of {total} rows could not be read and are left out; row {first.row}: {first.reason}{where}"


def write_quarantine(target: Path, quarantined: Sequence[Quarantined]) -> None:
    """Write the refused lines as JSON Lines, whole or not at all."""
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with open(part, "x", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            for bad in quarantined:
                file.write(json.dumps(bad.model_dump(), ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DataError(f"{target}: the quarantined lines cannot be written: {error.strerror or error}.") from error
