"""The records of an export: what went in, what was done to each row, what came out."""

from __future__ import annotations

from typing import Literal

from premortem.interp.records import Decision, Edit, EditKind, Record, Side

Layout = Literal["same", "explicit"]
"""`same`: every row keeps its form; `explicit`: every row is written in TRL's explicit form."""


class AppliedEdit(Record):
    """An edit that goes into the exported dataset."""

    edit: Edit
    """The edit with its final text."""
    decision: Decision | None = None
    """What the person decided; null: nobody was asked."""
    reviewer: str = ""
    """Who decided; empty: nobody."""


class Provenance(Record):
    """What was done to a row, as its column and the manifest tell it. All text, so that columns keep one type."""

    run_id: str
    """The run."""
    edit_id: str
    """The edit."""
    kind: EditKind
    """See `Edit.kind`."""
    side: Side | Literal[""]
    """The side whose text changed, or empty."""
    finding_id: str
    """The finding it answers."""
    author: str
    """See `Edit.author`."""
    reviewer: str
    """Who accepted or modified it; empty: nobody was asked."""


class ManifestEdit(Provenance):
    """One edit in the manifest."""

    row: int
    """0-based line of the input; for a new pair the row that the run gave it."""
    line: int | None
    """0-based row of the output; null: dropped."""


class Manifest(Record):
    """What an export wrote. It holds no time and no host: the same export has the same manifest."""

    run_id: str
    """The run."""
    input: str
    """The file or hub id, as the user gave it."""
    input_sha256: str
    """Its hash, see `Dataset.sha256`."""
    output: str
    """Name of the exported file."""
    output_sha256: str
    """Hash of its bytes."""
    layout: Layout
    """Whether rows kept their form or were all written explicit."""
    rows: int
    """Rows of the output: untouched, changed and added."""
    untouched: int
    """Rows without an edit."""
    changed: int
    """Rows with an edit."""
    added: int
    """New pairs."""
    dropped: int
    """Rows of the input that edits removed."""
    quarantined: int
    """Lines of the input that were unreadable and are left out."""
    not_read: int
    """Lines of the input beyond the limit of the run, left out."""
    otherwise_to_trl: int = 0
    """Rows that TRL takes in another way than they were read, or not at all; `agent export --explicit` leaves none."""
    as_forecast: bool = True
    """Whether these are the edits, with the texts, that the run's last forecast was made with."""
    provenance: Literal["column", "manifest"]
    """Where the edits are told: in their rows too, or here alone."""
    by_kind: dict[str, int]
    """Edits per kind."""
    edits: tuple[ManifestEdit, ...]
    """All edits, in the order of the input."""
