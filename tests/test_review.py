"""Facts about the terminal review, played with a list of keys."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from premortem.agent.review import Session, edit_view, open_editor
from premortem.agent.summary import finding_views
from premortem.interp.errors import PremortemError
from run_document import HOSTILE, document, edit, pairs

FIRST, SECOND, FAILED = (f"e{number:015d}" for number in (1, 2, 3))


class Desk:
    """A session with scripted keys, a scripted editor, and a list instead of a database."""

    def __init__(self, keys: str, run: dict[str, Any] | None = None, typed: str | None = "new text") -> None:
        self.saved: list[tuple[str, str, str | None]] = []
        self.screen = io.StringIO()
        script: Iterator[str] = iter(keys)
        self.session = Session(
            run or document(),
            pairs(),
            lambda *decision: self.saved.append(decision),
            console=Console(file=self.screen, width=100, force_terminal=False),
            read_key=lambda: next(script, ""),
            edit_text=lambda before: typed,
        )


def test_accept_reject_and_modify_are_saved_as_they_are_made():
    desk = Desk("arm")
    assert desk.session.run() == {"accept": 1, "modify": 1, "reject": 1, "open": 0}
    assert desk.saved == [(FIRST, "accept", None), (SECOND, "reject", None), (FAILED, "modify", "new text")]


def test_quitting_keeps_what_was_decided():
    desk = Desk("aq")
    assert desk.session.run()["open"] == 2
    assert desk.saved == [(FIRST, "accept", None)]


def test_the_end_of_the_input_quits():
    desk = Desk("a")
    assert desk.session.run()["open"] == 2


def test_a_second_session_goes_on_at_the_first_open_edit():
    run = document()
    run["edits"][0]["review"] = {"decision": "reject", "text": None, "reviewer": "ana", "at": "2026-01-01T00:00:00Z"}
    desk = Desk("a", run)
    desk.session.run()
    assert desk.saved == [(SECOND, "accept", None)]


def test_back_lets_a_person_change_their_mind():
    desk = Desk("abr")
    desk.session.run()
    assert desk.saved[:2] == [(FIRST, "accept", None), (FIRST, "reject", None)]


def test_skip_leaves_an_edit_open():
    desk = Desk("saa")
    assert desk.session.run() == {"accept": 2, "modify": 0, "reject": 0, "open": 1}
    assert FIRST not in [edit_id for edit_id, *_ in desk.saved]


def test_accepting_the_rest_leaves_failed_edits_open():
    desk = Desk("A")
    assert desk.session.run() == {"accept": 2, "modify": 0, "reject": 0, "open": 1}
    assert "1 failed their verdict and stay open" in desk.screen.getvalue()


def test_a_second_edit_of_a_row_is_told_and_not_accepted():
    run = document()
    run["edits"] = [edit(1, 2), edit(2, 2, kind="flip", side=None)]
    desk = Desk("aaq", run)
    assert desk.session.run() == {"accept": 1, "modify": 0, "reject": 0, "open": 1}
    assert desk.saved == [(FIRST, "accept", None)]
    assert f"row 2 already has an accepted edit, {FIRST}" in " ".join(desk.screen.getvalue().split())


def test_after_the_first_edit_of_a_row_is_rejected_the_second_can_be_accepted():
    run = document()
    run["edits"] = [edit(1, 2), edit(2, 2, kind="flip", side=None)]
    desk = Desk("abra", run)
    desk.session.run()
    assert desk.saved[-2:] == [(FIRST, "reject", None), (SECOND, "accept", None)]


def test_accepting_the_rest_takes_one_edit_of_a_row():
    run = document()
    run["edits"] = [edit(1, 2), edit(2, 2, kind="flip", side=None)]
    desk = Desk("Aq", run)
    desk.session.run()
    assert desk.saved == [(FIRST, "accept", None)]
    assert "1 stay open, for their row has an accepted edit already" in desk.screen.getvalue()


def test_an_unchanged_text_decides_nothing():
    desk = Desk("mq", typed=None)
    desk.session.run()
    assert desk.saved == []


@pytest.mark.parametrize(
    ("typed", "told"),
    [(" \n", "the text is empty"), ("Yes.\n\nHuman: And then?\n\nAssistant: No.", "another turn of the dialogue")],
)
def test_what_can_be_no_response_is_not_saved(typed: str, told: str):
    desk = Desk("mq", typed=typed)
    desk.session.run()
    assert desk.saved == []
    assert told in " ".join(desk.screen.getvalue().split())


def test_a_flip_has_no_text_to_modify():
    run = document()
    run["edits"] = [edit(1, 2, kind="flip", side=None)]
    desk = Desk("mq", run)
    desk.session.run()
    assert desk.saved == []
    assert "no text to modify" in desk.screen.getvalue()


def test_unknown_keys_do_nothing():
    desk = Desk("xyza")
    desk.session.run()
    assert desk.saved == [(FIRST, "accept", None)]


def test_an_edit_shows_prompt_diff_forecast_and_reasons():
    desk = Desk("q")
    desk.session.run()
    shown = " ".join(desk.screen.getvalue().split())
    for part in (
        "What should I plant in spring? (2)",
        "Ahoy, my dear sailor!",
        "+50.0 → +1.0",
        "Never talk like a sailor",
    ):
        assert part in shown
    assert "the target is inside its limit" in shown


@pytest.mark.parametrize("kind", ["rewrite", "flip", "drop", "synthesise"])
def test_hidden_characters_are_shown_in_every_kind_of_edit(kind: str):
    run = document(HOSTILE)
    run["edits"] = [edit(1, 2, kind=kind, side=None, hostile=HOSTILE)]
    screen = io.StringIO()
    finding = finding_views(run)[0]
    Console(file=screen, width=200).print(edit_view(finding, run["edits"][0], pairs(HOSTILE)[2]))
    assert "\u202e" not in screen.getvalue() and "\x1b[2J" not in screen.getvalue()
    assert "⟨U+202E⟩" in screen.getvalue()


def test_the_editor_gets_the_text_and_gives_it_back(monkeypatch: pytest.MonkeyPatch):
    program = "import sys,pathlib; p=pathlib.Path(sys.argv[1]); p.write_text(p.read_text().upper()+chr(10))"
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f'{sys.executable} -c "{program}"')
    assert open_editor("plant peas") == "PLANT PEAS"


def test_a_failing_editor_changes_nothing_and_a_missing_one_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", "false")
    assert open_editor("x") is None
    monkeypatch.setenv("EDITOR", "no-such-editor-anywhere")
    with pytest.raises(PremortemError, match="no-such-editor-anywhere"):
        open_editor("x")
