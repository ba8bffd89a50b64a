"""The ledger alone: what counts as answered already, and what a budget lets out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from premortem.agent.chat import ChatMessage, Reply, Request
from premortem.agent.ledger import Inquiry, Ledger, Recording, write_recording
from premortem.agent.store import Store


class Carrier:
    """Answers each request with what a function makes of it."""

    address = "stub"

    def __init__(self, reply: Callable[[Request], Reply]) -> None:
        self.send = reply


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "premortem.db") as opened:
        for run_id in ("one", "two"):
            opened.begin_run(run_id, spec="", settings={}, forecaster="excess")
        yield opened


def asked(number: int) -> Inquiry:
    request = Request(model="m", messages=(ChatMessage(role="user", content=f"Question {number}?"),))
    return Inquiry(purpose="plan", prompt="", request=request)


def says(text: str) -> Carrier:
    return Carrier(lambda request: Reply(text=text, prompt_tokens=30, completion_tokens=20))


def test_a_recording_answers_before_what_other_runs_were_answered(store: Store, tmp_path: Path) -> None:
    Ledger(store, "one", says("recorded")).answer(asked(1))
    write_recording(tmp_path / "calls.jsonl", store.load_llm_calls("one"))
    with Store(tmp_path / "other.db") as other:
        other.begin_run("one", spec="", settings={}, forecaster="excess")
        other.begin_run("two", spec="", settings={}, forecaster="excess")
        Ledger(other, "two", says("of another run")).answer(asked(1))
        replayed = Ledger(other, "one", Recording(tmp_path / "calls.jsonl"))
        assert replayed.answer(asked(1)).text == "recorded"
        assert replayed.calls_made() == 1
        assert replayed.answer(asked(1)).text == "recorded"
        assert replayed.calls_made() == 1
