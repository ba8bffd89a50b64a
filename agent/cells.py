"""Turns a frozen record into one row of SQLite cells, and back.

Strings, numbers and booleans become columns of their own, so that a person can query them with plain SQL; everything
else (tuples, messages, nested records) becomes JSON text. SQLite keeps no checksums inside a page: a flipped letter in
a text cell passes its own integrity check. So each row carries a `digest` of its cells, which `from_cells` compares.

Lone surrogates cannot be stored as UTF-8; they become U+FFFD. Numbers that are not finite are refused, because JSON has
no word for them. Nothing here knows about tables or connections.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from premortem.interp.errors import StoreError
from premortem.interp.records import Record, content_id

Cell = str | int | float | None
R = TypeVar("R", bound=Record)


def to_cells(record: Record) -> dict[str, Cell]:
    """Return one cell per field of `record`, and their `digest`; raise StoreError for a number that is not finite."""
    nested = nested_fields(type(record))
    cells: dict[str, Cell] = {}
    for name, value in record.model_dump().items():
        try:
            cells[name] = to_json(value) if name in nested and value is not None else _scalar(value)
        except ValueError:
            raise StoreError(f"{type(record).__name__}.{name} holds a number that is not finite") from None
    return {**cells, "digest": content_id(cells)}


def from_cells(kind: type[R], row: Mapping[str, Any]) -> R:
    """Return the record of `kind` that `row` holds; raise StoreError when the row is not what was written."""
    cells = {name: row[name] for name in kind.model_fields}
    if row["digest"] != content_id(cells):
        raise StoreError(f"a stored {kind.__name__.lower()} was damaged or changed by hand: {_first_cell(cells)}")
    nested = nested_fields(kind)
    values = {name: json.loads(cell) if name in nested and cell is not None else cell for name, cell in cells.items()}
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise StoreError(f"a stored {kind.__name__.lower()} cannot be read: {_first_cell(cells)}") from error


def to_json(value: object) -> str:
    """Return `value` as strict JSON text; raise ValueError for a number that is not finite."""
    return json.dumps(clean(value), ensure_ascii=False, allow_nan=False, default=_plain)


def clean(value: Any) -> Any:
    """Return `value` with every lone surrogate, at any depth, replaced by U+FFFD."""
    if isinstance(value, str):
        return _clean_text(value)
    if isinstance(value, Mapping):
        return {clean(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value


@cache
def nested_fields(kind: type[Record]) -> frozenset[str]:
    """Return the names of the fields of `kind` that are stored as JSON text."""
    return frozenset(name for name, field in kind.model_fields.items() if not _is_scalar(field.annotation))


def _is_scalar(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, UnionType):
        return all(_is_scalar(part) for part in get_args(annotation))
    return get_origin(annotation) is Literal or annotation in (str, int, float, bool, NoneType)


def _scalar(value: Any) -> Cell:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(value)
        return value + 0.0  # SQLite reads -0.0 back as 0.0, and the digest must not change
    cleaned: Cell = clean(value)
    return cleaned


def _plain(value: object) -> Any:
    """Return a JSON form of what a Parquet column may hold beside JSON's own types: dates, bytes, sets."""
    try:
        return to_jsonable_python(value)
    except (ValueError, TypeError):
        return str(value)


def _clean_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _first_cell(cells: Mapping[str, Any]) -> str:
    name, value = next(iter(cells.items()))
    return f"{name} {value}"
