"""The ledger alone: what counts as answered already, and what a budget lets out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from premortem.agent.chat import ChatMessage, Reply, Request
from premortem.agent.ledger import SIDE_BY_SIDE, Budget, Inquiry, Ledger, Recording, write_recording
from premortem.agent.store import Store
from premortem.interp.errors import LlmError, LlmMisconfigured, LlmStopped


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


@pytest.mark.parametrize(
    ("budget", "sent"),
    [
        (Budget(tokens=100), 2),
        (Budget(tokens=101), 3),
        (Budget(seconds=4.0), 2),
        (Budget(usd=0.5), 2),
        (Budget(calls=7, tokens=None), 7),
    ],
)
def test_what_is_on_its_way_counts_towards_every_bound(budget: Budget, sent: int, store: Store) -> None:
    reply = Reply(text="x", prompt_tokens=30, completion_tokens=20, seconds=2.0, usd=0.25)
    ledger = Ledger(store, "one", Carrier(lambda request: reply), budget)
    found = ledger.answers([asked(number) for number in range(10)])
    assert ledger.calls_made() == sent
    assert [isinstance(each, LlmStopped) for each in found] == [False] * sent + [True] * (10 - sent)


@pytest.mark.parametrize("budget", [Budget(), Budget(tokens=None), Budget(calls=None, tokens=10**6, usd=100.0)])
def test_requests_go_out_side_by_side_far_from_a_bound(budget: Budget, store: Store) -> None:
    together = threading.Barrier(SIDE_BY_SIDE)
    first = Ledger(store, "one", says("first"), budget).answer(asked(0))

    def waits(request: Request) -> Reply:
        together.wait(timeout=20)
        return first

    ledger = Ledger(store, "one", Carrier(waits), budget)
    assert ledger.answers([asked(number) for number in range(1, SIDE_BY_SIDE + 1)]) == [first] * SIDE_BY_SIDE


def told(found: list[Reply | LlmError]) -> list[str]:
    return [str(each) if isinstance(each, LlmError) else each.text for each in found]


@pytest.mark.parametrize("seed", range(4))
def test_a_replay_of_a_run_that_reached_a_bound_is_answered_as_the_run_was(
    seed: int, store: Store, tmp_path: Path
) -> None:
    inquiries = [asked(number) for number in range(12)]
    numbers = {inquiry.request.request_id: number for number, inquiry in enumerate(inquiries)}

    def grows(request: Request) -> Reply:
        number = numbers[request.request_id]
        time.sleep((number * 7 + seed * 3) % 5 / 100)
        return Reply(text=f"answer {number}", prompt_tokens=10, completion_tokens=number**2)

    live = told(Ledger(store, "one", Carrier(grows), Budget(tokens=120)).answers(inquiries))
    assert 0 < sum("budget of 120 tokens" in each for each in live) < len(live)
    write_recording(tmp_path / "calls.jsonl", store.load_llm_calls("one"))
    with Store(tmp_path / "replayed.db") as other:
        other.begin_run("one", spec="", settings={}, forecaster="excess")
        replayed = Ledger(other, "one", Recording(tmp_path / "calls.jsonl"), Budget(tokens=120))
        assert told(replayed.answers(inquiries)) == live
        assert other.load_cost("one").llm_tokens == store.load_cost("one").llm_tokens


def test_a_recording_answers_what_it_holds_whatever_bound_its_answers_reach(store: Store, tmp_path: Path) -> None:
    """In the run some were on their way when the bound was reached; in the replay they come one after the other."""
    inquiries = [asked(number) for number in range(7)]
    Ledger(store, "one", says("recorded")).answers(inquiries[:5])
    write_recording(tmp_path / "calls.jsonl", store.load_llm_calls("one"))
    recording = Recording(tmp_path / "calls.jsonl")
    with Store(tmp_path / "replayed.db") as other:
        for run_id in ("tokens", "none", "calls"):
            other.begin_run(run_id, spec="", settings={}, forecaster="excess")
        stopped = "the run's budget of 100 tokens for the LLM is used up"
        ledger = Ledger(other, "tokens", recording, Budget(tokens=100))
        assert told(ledger.answers(inquiries)) == ["recorded"] * 5 + [stopped] * 2
        ledger = Ledger(other, "calls", recording, Budget(calls=3))
        assert [isinstance(each, LlmStopped) for each in ledger.answers(inquiries)] == [False] * 3 + [True] * 4
        with pytest.raises(LlmMisconfigured, match="holds no answer"):
            Ledger(other, "none", recording).answers(inquiries)


def test_an_answer_without_a_word_is_an_answer_for_its_own_run_alone(store: Store) -> None:
    Ledger(store, "one", says("")).answer(asked(1))
    assert Ledger(store, "one", says("later")).answer(asked(1)).text == ""
    assert Ledger(store, "two", says("well again")).answer(asked(1)).text == "well again"


def test_a_request_that_a_recording_does_not_hold_was_no_call(store: Store, tmp_path: Path) -> None:
    Ledger(store, "one", says("recorded")).answer(asked(1))
    write_recording(tmp_path / "calls.jsonl", store.load_llm_calls("one"))
    replayed = Ledger(store, "two", Recording(tmp_path / "calls.jsonl"))
    with pytest.raises(LlmMisconfigured):
        replayed.answer(asked(2))
    assert replayed.calls_made() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_interruption_ends_the_wait_for_an_endpoint_that_hangs(number: int, tmp_path: Path) -> None:
    hanging = f"""
        import sys, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_ledger import Carrier, Store, Ledger, asked
        from premortem.agent.signals import interruptible

        def hang(request):
            print("asked", flush=True)
            time.sleep(60)

        with Store(Path({str(tmp_path / "run.db")!r})) as store, interruptible():
            store.begin_run("one", spec="", settings={{}}, forecaster="excess")
            Ledger(store, "one", Carrier(hang)).answer(asked(1))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(hanging)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "asked\n"
    os.kill(process.pid, number)
    assert "on their way and will be paid for: 1" in process.stderr.readline()
    assert "a second interruption leaves without them" in process.stderr.readline()
    assert process.poll() is None
    os.kill(process.pid, number)
    assert process.wait(timeout=20) == 128 + number
