"""Review in the terminal: one edit at a time, what it changes, what it does to the forecast, and a person's decision.

Each decision is handed to `save` at once, so quitting (or a crash) loses nothing and the next `agent review` goes on
at the first edit without a decision. The screen, the keyboard and the editor come in as arguments; tests pass a list
of keys. Nothing here knows about the database.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.text import Text

from premortem.agent.diff import excerpt, visible, word_diff
from premortem.agent.summary import Document, FindingView, edit_decision, edit_passed, finding_views, points
from premortem.interp.errors import PremortemError
from premortem.interp.messages import holds_turn
from premortem.interp.records import Decision, Pair

Save = Callable[[str, Decision, str | None], None]
"""Called with edit id, decision and, for `modify`, the person's text."""

KEYS = "[a]ccept  [m]odify  [r]eject  [s]kip  [b]ack  [A]ccept the rest of this finding  [q]uit"
_STYLE = {"equal": "", "delete": "red strike", "insert": "green"}
_TEXTLESS = ("flip", "drop")


def accepted_by_row(edits: Iterable[Document], decisions: Mapping[str, str]) -> dict[int, list[str]]:
    """Return for each row of the data the edits (edit_id) that `decisions` accept or modify; new pairs have no row.

    More than one for a row cannot be exported: each was written for the row as it came.
    """
    rows: dict[int, list[str]] = {}
    for edit in edits:
        edit_id = str(edit["edit_id"])
        if edit["kind"] != "synthesise" and decisions.get(edit_id) in ("accept", "modify"):
            rows.setdefault(int(edit["row"]), []).append(edit_id)
    return rows


@dataclass(frozen=True)
class Item:
    """One edit in its finding."""

    finding: FindingView
    """The finding it answers."""
    edit: Document
    """The edit, as the run's document gives it."""

    @property
    def edit_id(self) -> str:
        """Id of the edit."""
        return str(self.edit["edit_id"])


class Session:
    """A person's way through the edits of one run."""

    def __init__(
        self,
        document: Document,
        pairs: Mapping[int, Pair],
        save: Save,
        *,
        console: Console,
        read_key: Callable[[], str],
        edit_text: Callable[[str], str | None],
    ) -> None:
        """Take the edits in the document's order; those that have a decision already are passed over."""
        self.items = [Item(finding, edit) for finding in finding_views(document) for edit in finding.edits]
        self.decided: dict[str, str] = {
            item.edit_id: decision for item in self.items if (decision := edit_decision(item.edit))
        }
        self.pairs, self._save = pairs, save
        self.console, self._read_key, self._edit_text = console, read_key, edit_text
        self.skipped: set[str] = set()
        self.position = self._next_open(-1)

    def run(self) -> dict[str, int]:
        """Ask until every edit has a decision or the person quits; return how many were accepted, and so on."""
        while self.position < len(self.items):
            self._show(self.items[self.position])
            if not self._ask(self.items[self.position]):
                break
        return self.counts()

    def counts(self) -> dict[str, int]:
        """Return the number of edits by decision, and of those still `open`."""
        made = list(self.decided.values())
        counts = {name: made.count(name) for name in ("accept", "modify", "reject")}
        return {**counts, "open": len(self.items) - len(made)}

    def _ask(self, item: Item) -> bool:
        self.console.print(Text(KEYS, style="dim"))
        while True:
            key = self._read_key()
            if key in ("q", "\x03", "\x04", ""):
                return False
            if self._act(key, item):
                return True

    def _act(self, key: str, item: Item) -> bool:
        """Carry out one key; return False when it meant nothing."""
        if key in ("a", "m") and (rival := self._rival(item)):
            self.console.print(Text(f"Nothing decided: {_taken(item, rival)}", style="yellow"))
        elif key in ("a", "r"):
            self._decide(item, "accept" if key == "a" else "reject")
        elif key == "m":
            self._modify(item)
        elif key == "s":
            self.skipped.add(item.edit_id)
            self.position = self._next_open(self.position)
        elif key == "b":
            self.position = max(self.position - 1, 0)
        elif key == "A":
            self._accept_rest(item.finding.finding_id)
        else:
            return False
        return True

    def _decide(self, item: Item, decision: Decision, text: str | None = None) -> None:
        self._record(item, decision, text)
        self.console.print(Text({"accept": "accepted", "modify": "modified", "reject": "rejected"}[decision]))
        self.position = self._next_open(self.position)

    def _record(self, item: Item, decision: Decision, text: str | None = None) -> None:
        self._save(item.edit_id, decision, text)
        self.decided[item.edit_id] = decision

    def _modify(self, item: Item) -> None:
        if item.edit["kind"] in _TEXTLESS:
            self.console.print(Text(f"A {item.edit['kind']} has no text to modify.", style="yellow"))
            return
        text = self._edit_text(str(item.edit["after"]))
        if text is None or text == item.edit["after"]:
            self.console.print(Text("Nothing changed, nothing decided.", style="yellow"))
            return
        if (unusable := _unusable(text, str(item.edit["after"]))) is not None:
            self.console.print(Text(f"Nothing decided: {unusable}", style="yellow"))
            return
        self._decide(item, "modify", text)

    def _rival(self, item: Item) -> str:
        """Return the other edit of the same row that is accepted already, or empty."""
        if item.edit["kind"] == "synthesise":
            return ""
        accepted = accepted_by_row((other.edit for other in self.items), self.decided).get(int(item.edit["row"]), [])
        return next((edit_id for edit_id in accepted if edit_id != item.edit_id), "")

    def _accept_rest(self, finding_id: str) -> None:
        """Accept what is open and passed in one finding; a failed edit wants a decision of its own."""
        rest = [i for i in self.items if i.finding.finding_id == finding_id and i.edit_id not in self.decided]
        passed = [item for item in rest if edit_passed(item.edit)]
        accepted = 0
        for item in passed:
            if not self._rival(item):
                self._record(item, "accept")
                accepted += 1
        left, taken = len(rest) - len(passed), len(passed) - accepted
        note = f"; {left} failed their verdict and stay open" if left else ""
        note += f"; {taken} stay open, for their row has an accepted edit already" if taken else ""
        self.console.print(Text(f"{accepted} accepted{note}"))
        self.skipped |= {item.edit_id for item in rest}
        self.position = self._next_open(self.position)

    def _next_open(self, position: int) -> int:
        """Return the position of the next edit to ask about, those after `position` first; not the skipped ones."""
        order = [*range(position + 1, len(self.items)), *range(0, position + 1)]
        passed_over = self.decided.keys() | self.skipped
        return next((i for i in order if self.items[i].edit_id not in passed_over), len(self.items))

    def _show(self, item: Item) -> None:
        done = len(self.decided)
        title = f"edit {self.position + 1} of {len(self.items)} · {done} decided"
        self.console.print(Rule(Text(title)))
        self.console.print(edit_view(item.finding, item.edit, self.pairs.get(int(item.edit["row"]))))
        if item.edit_id in self.decided:
            self.console.print(_line("decided", self.decided[item.edit_id]))
        if rival := self._rival(item):
            self.console.print(Text(_taken(item, rival), style="yellow"))


def _unusable(text: str, before: str) -> str | None:
    """Return why a person's text can be no response in place of `before`; None where it can."""
    if not text.strip():
        return "the text is empty. To keep the pair as it was, reject the edit."
    if holds_turn(text) and not holds_turn(before):
        return 'a paragraph begins with "Human:" or "Assistant:", which would be read as another turn of the dialogue.'
    return None


def _taken(item: Item, rival: str) -> str:
    return f"row {item.edit['row']} already has an accepted edit, {rival}, and a row can have one; reject either."


def edit_view(finding: FindingView, edit: Document, pair: Pair | None) -> RenderableType:
    """Return one edit as a reviewer sees it: finding, prompt, diff, rationale, forecast, verdict."""
    side = f" of the {edit['side']} side" if edit.get("side") else ""
    parts: list[RenderableType] = [
        _line(finding.kind, f"{finding.title} ({points(finding.effect)} points)"),
        _line("rule", finding.rule) if finding.rule else Text(""),
        _line("edit", f"{edit['kind']}{side}, row {edit['row']}, {edit['edit_id']}, by {edit['author']}"),
        _line("prompt", excerpt(_prompt(edit, pair), 400)),
        Panel(_change(edit), border_style="dim"),
        _line("why", str(edit["rationale"])),
        _forecast_line(edit),
    ]
    return Group(*parts, *_reasons(edit))


def _prompt(edit: Document, pair: Pair | None) -> str:
    if pair is not None:
        return pair.prompt_text()
    own = edit.get("pair") or {}
    prompt = own.get("prompt", "")
    return prompt if isinstance(prompt, str) else str(prompt[-1].get("content", "")) if prompt else ""


def _line(label: str, text: str) -> Text:
    return Text.assemble((f"{label:<10}", "dim"), visible(text))


def _change(edit: Document) -> Text:
    if edit["kind"] == "drop":
        return Text.assemble(("the pair leaves; its chosen response was:\n", "dim"), (visible(edit["before"]), "red"))
    if edit["kind"] == "flip":
        was, now = visible(edit["before"]), visible(edit["after"])
        return Text.assemble(("chosen was:\n", "dim"), (was, "red"), ("\n\nchosen becomes:\n", "dim"), (now, "green"))
    pieces = word_diff(str(edit["before"]), str(edit["after"]))
    return Text.assemble(*((visible(piece.text), _STYLE[piece.op]) for piece in pieces))


def _forecast_line(edit: Document) -> Text:
    verdict = edit.get("verdict")
    if not verdict:
        return _line("forecast", "not verified yet")
    second = verdict.get("second_lens")
    parts = [
        f"{points(verdict['effect_before'])} → {points(verdict['effect_after'])} points with this finding's edits",
        *([f"{points(verdict['control_after'])} with random ones"] if edit["kind"] != "synthesise" else []),
        *([f"{points(second)} through the second lens"] if second is not None else []),
    ]
    mark = ("passed ", "green") if verdict["passed"] else ("failed ", "red")
    return Text.assemble(("forecast  ", "dim"), mark, ", ".join(parts))


def _reasons(edit: Document) -> list[RenderableType]:
    reasons = (edit.get("verdict") or {}).get("reasons", ())
    return [Padding(Text("· " + visible(str(reason)), style="dim"), (0, 0, 0, 10)) for reason in reasons]


def open_editor(text: str) -> str | None:
    """Return `text` as the person left it in $VISUAL or $EDITOR; None when the editor failed."""
    command = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    with tempfile.TemporaryDirectory(prefix="premortem-") as folder:
        path = Path(folder) / "edit.txt"
        path.write_text(text, encoding="utf-8", newline="")
        try:
            done = subprocess.run([*command, str(path)], check=False)
        except OSError as error:
            raise PremortemError(f"cannot start the editor {command[0]!r}: {error.strerror}; set EDITOR") from error
        if done.returncode:
            return None
        changed = path.read_bytes().decode("utf-8", "replace")
    return changed if text.endswith("\n") else changed.removesuffix("\n")
