"""One request at which an endpoint fails ends no run; an endpoint that fails at whatever is asked does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_runs import MODEL, endpoint, go, rows
from premortem.agent.asking import Asker, Question
from premortem.agent.chat import Dialect
from premortem.agent.ledger import Ledger, Recording, write_recording
from premortem.agent.llm import BODY_TRIES, Endpoint
from premortem.agent.pulse import SILENT_IN_A_ROW
from premortem.agent.store import Store
from premortem.interp.errors import LlmMisconfigured, LlmStopped, LlmUnavailable
from premortem.interp.records import Record
from scripted_llm import Response, ScriptedLlm, completion, fails, prompt_of, refused, whole

pytestmark = pytest.mark.usefixtures("socket_enabled", "quiet")

FAILURES: dict[str, Response] = {
    "forbidden": refused(403, "the filter forbids this text"),
    "unauthorised": refused(401, "the filter has no scope for this text"),
    "no route": refused(404, "no endpoint for this"),
    "choices null": whole(None),
    "no choice": whole([]),
    "no JSON": Response(b"<html>Blocked</html>"),
    "a crash": refused(500, "oh dear"),
    "broken off": Response(b'{"choices"', missing=99),
}


class Colour(Record):
    """A colour."""

    name: str
    """Its name."""


GOOD = completion('{"name": "blue"}')
Make = Callable[[ScriptedLlm], Asker]


def questions(count: int) -> list[Question]:
    return [Question(purpose="plan", system="You name colours.", user=f"{n}?", source="colour@1") for n in range(count)]


def on(user: str, response: Response) -> Callable[[int, dict[str, Any]], Response | None]:
    """Answer one question with `response` and the others well."""

    def answer(n: int, body: dict[str, Any]) -> Response | None:
        if "colours" not in body["messages"][0]["content"]:
            return None
        return response if body["messages"][-1]["content"] == user else GOOD

    return answer


@pytest.fixture
def make(store: Store) -> Iterator[Make]:
    """Make an asker in a run of its own, with an endpoint that is not patient."""
    store.begin_run("r", spec="", settings={}, forecaster="excess")

    def made(server: ScriptedLlm) -> Asker:
        return Asker(Ledger(store, "r", Endpoint(server.address, timeout=0.2, retries=0)), "m")

    yield made


# One request


@pytest.mark.parametrize("what", FAILURES)
def test_a_run_goes_on_where_the_endpoint_fails_at_one_text(what: str, tmp_path: Path) -> None:
    def one(n: int, body: dict[str, Any]) -> Response | None:
        asked = body["messages"][-1]["content"]
        return FAILURES[what] if prompt_of(body) == "read_rule" and "vegetables" in asked else None

    live, replayed = tmp_path / "live" / "premortem.db", tmp_path / "replayed" / "premortem.db"
    with Store(live) as store, ScriptedLlm(misbehave=one) as server:
        run_id = go(store, endpoint(server))
        assert store.run(run_id).status == "done"
        calls = store.load_llm_calls(run_id)
        assert [call.prompt.split("@")[0] for call in calls if call.reply.refused] == ["read_rule"]
        assert "it answers other requests" in store.run(run_id).llm_stopped
        assert {edit.author for edit in store.load_edits(run_id)} == {MODEL, "built-in"}
        write_recording(tmp_path / "calls.jsonl", calls)
    with Store(replayed) as store:
        assert go(store, Recording(tmp_path / "calls.jsonl")) == run_id
    assert rows(live) == rows(replayed)


@pytest.mark.parametrize("what", FAILURES)
def test_a_request_that_failed_alone_is_not_sent_again_by_the_run(what: str, make: Make) -> None:
    with ScriptedLlm(misbehave=on("1?", FAILURES[what])) as server:
        found = make(server).ask_all(questions(6), Colour)
        assert [type(each) for each in found] == [Colour, LlmStopped, *[Colour] * 4]
        sent = len(server.requests)
        again = make(server).ask_all(questions(6), Colour)
        assert [type(each) for each in again] == [type(each) for each in found]
        assert len(server.requests) == sent


def test_a_text_without_an_answer_in_time_is_refused_alone(make: Make) -> None:
    with ScriptedLlm(misbehave=on("1?", Response(b"", wait=5.0))) as server:
        found = make(server).ask_all(questions(3), Colour)
    assert [type(each) for each in found] == [Colour, LlmStopped, Colour]
    assert "no answer within 0.2 seconds" in str(found[1])


def test_many_texts_in_a_row_may_be_forbidden(make: Make) -> None:
    def forbids(n: int, body: dict[str, Any]) -> Response | None:
        return refused(403, "no") if "colours" in body["messages"][0]["content"] else None

    with ScriptedLlm(misbehave=forbids) as server:
        found = make(server).ask_all(questions(12), Colour)
    assert [type(each) for each in found] == [LlmStopped] * 12


def test_what_failed_for_a_moment_is_answered(make: Make) -> None:
    tries: list[int] = []

    def at_first(n: int, body: dict[str, Any]) -> Response | None:
        if "colours" not in body["messages"][0]["content"]:
            return None
        tries.append(n)
        return refused(500, "starting") if len(tries) == 1 else GOOD

    with ScriptedLlm(misbehave=at_first) as server:
        assert make(server).ask(questions(1)[0], Colour) == Colour(name="blue")


def test_what_it_cost_to_find_out_is_counted_with_the_refusal(make: Make, store: Store) -> None:
    with ScriptedLlm(misbehave=on("0?", refused(403, "no"))) as server:
        asker = make(server)
        assert asker.dialect
        before = store.load_cost("r")
        asker.ask_all(questions(1), Colour)
        after = store.load_cost("r")
    assert after.llm_calls - before.llm_calls == 1
    assert after.llm_tokens - before.llm_tokens == 110
    assert after.llm_seconds > before.llm_seconds


def test_answers_that_were_thrown_away_are_counted_whatever_becomes_of_the_request(make: Make, store: Store) -> None:
    used = {"prompt_tokens": 1000, "completion_tokens": 500}
    broken = whole([{"finish_reason": "error", "message": {"content": ""}}], usage=used)
    with ScriptedLlm(misbehave=on("0?", broken)) as server:
        asker = make(server)
        assert asker.dialect
        before = store.load_cost("r").llm_tokens
        assert [type(each) for each in asker.ask_all(questions(1), Colour)] == [LlmStopped]
    assert store.load_cost("r").llm_tokens - before == 2 * BODY_TRIES * 1500 + 110


# The first questions


@pytest.mark.parametrize("what", FAILURES)
def test_an_endpoint_that_fails_where_tools_are_offered_writes_json(what: str, make: Make) -> None:
    with ScriptedLlm(misbehave=lambda n, body: FAILURES[what] if "tools" in body else None) as server:
        assert make(server).dialect == Dialect(tools=False, schema_mode="json_schema")
        sent = len(server.requests)
        assert not make(server).dialect.tools
        assert len(server.requests) == sent


@pytest.mark.parametrize("what", FAILURES)
def test_an_endpoint_that_fails_where_a_schema_is_given_is_told_it_in_words(what: str, make: Make) -> None:
    with ScriptedLlm(misbehave=lambda n, body: FAILURES[what] if "response_format" in body else None) as server:
        asker = make(server)
        assert asker.dialect == Dialect(tools=True, schema_mode="none")
        assert asker.ask(questions(1)[0], Colour) == Colour(name="as usual")


# The endpoint


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused_from_the_start_is_told(status: int, make: Make) -> None:
    with ScriptedLlm(misbehave=lambda n, body: refused(status, "who?")) as server:
        asker = make(server)
        assert "OPENAI_API_KEY" in fails(LlmMisconfigured, lambda: asker.dialect)


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (refused(402, "top up"), LlmMisconfigured),
        (refused(429, "later", Retry_After="300"), LlmUnavailable),
        (refused(429, "slow down"), LlmUnavailable),
        (Response(b"", 307, {"Location": "http://127.0.0.1:1/v1"}), LlmMisconfigured),
    ],
)
def test_what_concerns_all_requests_ends_the_run_whatever_else_is_answered(
    response: Response, kind: type[LlmUnavailable | LlmMisconfigured], make: Make, store: Store
) -> None:
    with ScriptedLlm(misbehave=on("0?", response)) as server:
        fails(kind, lambda: make(server).ask_all(questions(1), Colour))
    assert not any(call.reply.refused for call in store.load_llm_calls("r"))


def test_an_endpoint_that_dies_ends_the_run_and_what_failed_is_asked_again(make: Make) -> None:
    with ScriptedLlm() as server:
        dying = make(server)
        assert dying.dialect
    assert "no connection" in fails(LlmUnavailable, lambda: dying.ask_all(questions(3), Colour))
    with ScriptedLlm(misbehave=on("", GOOD)) as server:
        assert make(server).ask_all(questions(3), Colour) == [Colour(name="blue")] * 3
        assert len(server.requests) == 3


def test_three_silences_in_a_row_end_the_run_though_short_questions_are_answered(make: Make) -> None:
    def silent(n: int, body: dict[str, Any]) -> Response | None:
        return Response(b"", wait=5.0) if "colours" in body["messages"][0]["content"] else None

    with ScriptedLlm(misbehave=silent) as server:
        asker = make(server)
        told = fails(LlmUnavailable, lambda: [asker.ask_all([each], Colour) for each in questions(9)])
        asked = [one for one in server.requests if "colours" in one.body["messages"][0]["content"]]
    assert told.endswith("no answer within 0.2 seconds, for 3 requests in a row")
    assert len(asked) == SILENT_IN_A_ROW


def test_silences_between_answers_end_nothing(make: Make) -> None:
    def now_and_then(n: int, body: dict[str, Any]) -> Response | None:
        if "colours" not in body["messages"][0]["content"]:
            return None
        return Response(b"", wait=5.0) if int(body["messages"][-1]["content"][:-1]) % 2 else GOOD

    with ScriptedLlm(misbehave=now_and_then) as server:
        asker = make(server)
        found = [asker.ask_all([each], Colour)[0] for each in questions(10)]
    assert [type(each) for each in found] == [Colour, LlmStopped] * 5
