"""What becomes of each row in an export, and the tally of it. Nothing here knows how rows are stored."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from premortem.agent.manifest import AppliedEdit, Layout, Manifest, ManifestEdit, Provenance
from premortem.interp.columns import Mapped, find_columns
from premortem.interp.edits import edit_pair, edits_by_row, new_pairs
from premortem.interp.errors import ExportError, RowError
from premortem.interp.forms import explicit_row, new_row, read_row, trl_form, write_row
from premortem.interp.messages import is_transcript, plain
from premortem.interp.records import Dataset, Edit, Pair

Row = dict[str, Any]

COLUMN = "premortem_edit"
"""The provenance column: one object per edit of the row."""


class RowEditor:
    """Applies a run's edits to raw rows, one by one and in order, and counts.

    `column` says whether changed rows tell their edits; the writer may clear it before the first one.
    """

    def __init__(
        self, dataset: Dataset, edits: Sequence[AppliedEdit], run_id: str, mapping: Mapped | None, layout: Layout
    ) -> None:
        self.dataset, self.run_id, self.mapping, self.layout = dataset, run_id, mapping, layout
        self.pairs = {pair.row: pair for pair in dataset.pairs}
        self.read_rows = self.pairs.keys() | {bad.row for bad in dataset.quarantined}
        self.applied = {item.edit.edit_id: item for item in edits}
        self.added = [item.edit for item in edits if item.edit.kind == "synthesise"]
        self.by_row = edits_by_row(item.edit for item in edits)
        if strange := sorted(self.by_row.keys() - self.pairs.keys()):
            raise ExportError(f"an edit is for row {strange[0]}, which the dataset does not have.")
        added = [edit.pair for edit in self.added if edit.pair is not None]
        self.with_kwargs = any(pair.template_kwargs for pair in (*dataset.pairs, *added))
        self.column = True
        self.tally: Counter[str] = Counter()
        self.forms: Counter[str] = Counter()
        self.lines: dict[str, int | None] = {}
        self.likes: dict[object, Row] = {}

    def changes(self, row: int) -> bool:
        """Whether the row stays and tells of an edit."""
        return row in self.by_row and not self.drops(row)

    def drops(self, row: int) -> bool:
        """Whether an edit takes the row out."""
        return any(edit.kind == "drop" for edit in self.by_row.get(row, ()))

    def decide(self, row: int, read: Callable[[], Row] | None) -> Row | Literal["keep"] | None:
        """Return what a row becomes: "keep" for exactly as it came, or another row; None: left out.

        `read` gives the raw row if it is needed; None: there is none, the row is written from its pair.
        """
        if row not in self.pairs:
            self.tally["not_read"] += row not in self.read_rows
            return None
        edits = self.by_row.get(row, ())
        as_read = "explicit messages" if self.pairs[row].conversational else "explicit text"
        raw = read() if read is not None else None
        form = self._form(raw) if raw is not None else as_read
        if raw is not None and self.added:
            self.likes.setdefault(self._shape(raw), raw)
        self.forms[form if self.layout == "same" else as_read] += not self.drops(row)
        if not edits and raw is not None and (self.layout == "same" or form.startswith("explicit")):
            self._count("untouched", edits)
            return "keep"
        pair = edit_pair(self.pairs[row], edits)
        self._count("dropped" if pair is None else "changed" if edits else "untouched", edits)
        return None if pair is None else self._told(self._written(pair, raw, edits), edits)

    def new_rows(self) -> Iterator[Row]:
        """Yield the rows of the new pairs, each in the form of the first row decided on that can hold it.

        Raises ExportError where no row has such a form.
        """
        for edit, pair in zip(self.added, new_pairs(self.added), strict=True):
            self._count("added", [edit])
            plain_form = not self.likes or self.layout == "explicit"
            yield self._told(self._explicit(pair) if plain_form else self._new_row(pair, edit), [edit])

    def manifest(self, output: str, sha256: str) -> Manifest:
        """Return the manifest of what was written."""
        items = sorted(self.applied.values(), key=lambda item: (item.edit.row, item.edit.edit_id))
        told = [(self._provenance(item), item.edit) for item in items]
        return Manifest(
            run_id=self.run_id,
            input=self.dataset.path,
            input_sha256=self.dataset.sha256,
            output=output,
            output_sha256=sha256,
            layout=self.layout,
            rows=self.tally["untouched"] + self.tally["changed"] + self.tally["added"],
            untouched=self.tally["untouched"],
            changed=self.tally["changed"],
            added=self.tally["added"],
            dropped=self.tally["dropped"],
            quarantined=len(self.dataset.quarantined),
            not_read=self.tally["not_read"],
            otherwise_to_trl=self._otherwise(),
            provenance="column" if self.column else "manifest",
            by_kind=dict(sorted(Counter(item.edit.kind for item in items).items())),
            edits=tuple(
                ManifestEdit(**origin.model_dump(), row=edit.row, line=self.lines.get(edit.edit_id))
                for origin, edit in told
            ),
        )

    def _otherwise(self) -> int:
        """Return how many rows TRL does not take as they were read; it judges all by the first."""
        first = next((form for form, rows in self.forms.items() if rows), "")
        return sum(self.forms.values()) - (self.forms[first] if first else 0)

    def _written(self, pair: Pair, raw: Row | None, edits: Sequence[Edit]) -> Row:
        if raw is not None and self.layout == "same":
            written = write_row(pair, raw, self.mapping)
            if edits and not self._reads_back(written, pair):
                raise ExportError(
                    f"row {pair.row}: with edit {edits[-1].edit_id} it would be read back as another conversation than "
                    'was judged, as where a transcript\'s text has "Human:" or "Assistant:" after an empty line; '
                    f"reject it (agent review --reject {edits[-1].edit_id}) or export with --explicit"
                )
            return written
        return self._explicit(pair, raw)

    def _new_row(self, pair: Pair, edit: Edit) -> Row:
        for like in self.likes.values():
            if self._reads_back(written := new_row(pair, like, self.mapping), pair):
                return written
        raise ExportError(
            f"no row of the data has a form that holds the new pair of edit {edit.edit_id} as it was judged; reject it "
            f"(agent review --reject {edit.edit_id}) or export with --explicit"
        )

    def _shape(self, raw: Row) -> object:
        """Return what rows of the same form have in common."""
        columns = find_columns(raw, self.mapping)
        kinds = [type(raw[name]) for name in columns[:3] if name is not None]
        return columns, *kinds, kinds[-1] is str and is_transcript(raw[columns.chosen])

    def _reads_back(self, written: Row, pair: Pair) -> bool:
        """Whether `written` is read as the conversations of `pair`, wherever its prompt is cut off."""
        try:
            return _talks(read_row(written, pair.row, self.mapping)) == _talks(pair)
        except RowError:
            return False

    def _explicit(self, pair: Pair, raw: Row | None = None) -> Row:
        return explicit_row(pair, raw, self.mapping, with_kwargs=self.with_kwargs)

    def _form(self, raw: Row) -> str:
        """Return how TRL takes a row: where others have template options, it stops at one that has none."""
        return "" if self.with_kwargs and "chat_template_kwargs" not in raw else trl_form(raw, self.mapping)

    def _count(self, what: str, edits: Sequence[Edit]) -> None:
        line = self.tally["untouched"] + self.tally["changed"] + self.tally["added"]
        self.lines.update((edit.edit_id, None if what == "dropped" else line) for edit in edits)
        self.tally[what] += 1

    def _told(self, row: Row, edits: Sequence[Edit]) -> Row:
        """Return the row with its provenance, after what an earlier export may have told of it."""
        if not edits or not self.column:
            return row
        told = [self._provenance(self.applied[edit.edit_id]).model_dump() for edit in edits]
        return {**row, COLUMN: [*_earlier(row.get(COLUMN)), *told]}

    def _provenance(self, item: AppliedEdit) -> Provenance:
        edit = item.edit
        return Provenance(
            run_id=self.run_id,
            edit_id=edit.edit_id,
            kind=edit.kind,
            side=edit.side or "",
            finding_id=edit.finding_id,
            author=edit.author,
            reviewer=item.reviewer,
        )


def _talks(pair: Pair) -> tuple[Any, Any]:
    """Return what each side says from its first word to its last, white space around a message aside."""
    if isinstance(pair.prompt, str):
        return pair.prompt_text() + pair.text("chosen"), pair.prompt_text() + pair.text("rejected")
    chosen, rejected = (
        [(message["role"], plain(message).strip(), message.get("tool_calls")) for message in (*pair.prompt, *side)]
        for side in (pair.chosen, pair.rejected)
    )
    return chosen, rejected


def _earlier(told: Any) -> list[Any]:
    """Return what a row tells already; tables keep it as JSON text."""
    if isinstance(told, str):
        try:
            told = json.loads(told)
        except ValueError:
            return []
    return told if isinstance(told, list) else []
