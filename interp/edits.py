"""Applies edits to pairs, in memory: what `verify` forecasts again and what `export` writes are the same pairs.

Edits of one row apply in the order given; a dropped row stays dropped. Nothing here decides whether an edit is good.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from premortem.interp.errors import DataError
from premortem.interp.records import Edit, Pair


def apply_edits(pairs: Sequence[Pair], edits: Sequence[Edit]) -> list[Pair]:
    """Return the pairs after the edits: changed ones in place, dropped ones gone, new ones appended in order.

    Raises DataError where an edit names a row that is not there, or a `synthesise` edit brings no pair.
    """
    by_row = edits_by_row(edits)
    known = {pair.row for pair in pairs}
    for row, row_edits in by_row.items():
        if row not in known:
            raise DataError(f"edit {row_edits[0].edit_id} is for row {row}, which the dataset does not have.")
    edited = (edit_pair(pair, by_row.get(pair.row, ())) for pair in pairs)
    return [pair for pair in edited if pair is not None] + new_pairs(edits)


def edits_by_row(edits: Iterable[Edit]) -> Mapping[int, Sequence[Edit]]:
    """Return the edits of each existing row in the order given; `synthesise` edits belong to no existing row."""
    by_row: dict[int, list[Edit]] = defaultdict(list)
    for edit in edits:
        if edit.kind != "synthesise":
            by_row[edit.row].append(edit)
    return by_row


def edit_pair(pair: Pair, edits: Sequence[Edit]) -> Pair | None:
    """Return the pair after its own edits; None when one of them drops it."""
    for edit in edits:
        if edit.kind == "drop":
            return None
        if edit.kind == "flip":
            pair = pair.swapped()
        elif edit.side is None:
            raise DataError(f"edit {edit.edit_id} is a {edit.kind} and names no side.")
        else:
            pair = pair.with_text(edit.side, edit.after)
    return pair


def new_pairs(edits: Iterable[Edit]) -> list[Pair]:
    """Return the pairs that `synthesise` edits add, in the order given."""
    added = []
    for edit in edits:
        if edit.kind == "synthesise":
            if edit.pair is None:
                raise DataError(f"edit {edit.edit_id} adds a pair and carries none.")
            added.append(edit.pair)
    return added


def with_final_text(edit: Edit, text: str) -> Edit:
    """Return the edit saying `text` instead of its own words, as a person who modified it decided."""
    pair = edit.pair.with_text("chosen", text) if edit.pair is not None else None
    return edit.model_copy(update={"after": text, "pair": pair})
