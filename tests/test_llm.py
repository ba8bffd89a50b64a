"""What becomes of an endpoint's misbehaviour: one of four errors, told in one line that holds no secret."""

from __future__ import annotations

import gzip
import json
import logging
import re
import socket
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from premortem.agent import llm
from premortem.agent.chat import ChatMessage, Dialect, Reply, Request, ToolSchema, ToolUse
from premortem.agent.journal import LlmCall
from premortem.agent.ledger import Budget, Inquiry, Ledger
from premortem.agent.llm import LOGGERS, Endpoint, price, strict_schema
from premortem.agent.redact import REDACTED, LogRedaction, Redactor
from premortem.agent.store import Store
from premortem.interp.errors import LlmError, LlmMisconfigured, LlmStopped, LlmUnavailable, LlmUnusable
from scripted_llm import (
    CANARY,
    JSON_TYPE,
    MOST_CHARACTERS,
    QuietTime,
    Response,
    ScriptedLlm,
    completion,
    fails,
    refused,
    said,
    whole,
)

REQUEST = Request(model="m", messages=(ChatMessage(role="user", content="Say hello."),))

pytestmark = pytest.mark.usefixtures("socket_enabled", "quiet")


def ask(response: Response | None, *, retries: int = 0, timeout: float = 1.0, request: Request = REQUEST) -> Reply:
    """Return the reply of a server that answers every request with `response`."""
    with ScriptedLlm(misbehave=lambda n, body: response) as server:
        return Endpoint(server.address, timeout=timeout, retries=retries).send(request)


# Answers that are no completion


@pytest.mark.parametrize(
    ("response", "told"),
    [
        (Response(b"<html>Sign in</html>", headers={"Content-Type": "text/html"}), "no JSON: '<html>Sign in</html>'"),
        (Response(b'{"choices": [{"mess'), "is no JSON"),
        (Response(b""), "is no JSON"),
        (Response(b"[]"), "is no completion"),
        (Response(b"{}"), "is no completion: '{}'"),
        (Response(b'{"error": {"message": "overloaded"}}'), "overloaded"),
        (whole(None), "without any choice"),
        (whole([]), "without any choice"),
        (whole([{"finish_reason": "stop"}]), "is no completion"),
        (whole("all of them"), "is no completion"),
        (Response(b"\xff\xfe\x00"), "is no JSON"),
        (Response(b"[" * 100_000), "is no JSON"),
        (Response(f'{{"error": "wrong key {CANARY}"}}'.encode()), REDACTED),
    ],
    ids=lambda value: str(value.body[:24] if isinstance(value, Response) else value)[:24],
)  # fmt: skip
def test_what_is_no_completion_is_asked_for_three_times_and_then_unavailable(response: Response, told: str) -> None:
    with ScriptedLlm(misbehave=lambda n, body: response) as server:
        endpoint = Endpoint(server.address, timeout=1.0, retries=0)
        assert told in fails(LlmUnavailable, lambda: endpoint.send(REQUEST))
        assert len(server.requests) == llm.BODY_TRIES
        assert {asked.key for asked in server.requests} == {REQUEST.request_id}


def test_a_key_at_the_cut_of_a_message_is_not_shown_in_part() -> None:
    for before in range(130, 162):
        page = Response((" " * before + CANARY + " is what you sent").encode())
        fails(LlmUnavailable, lambda page=page: ask(page))


def test_a_bad_body_followed_by_a_good_one_is_no_failure() -> None:
    with ScriptedLlm(misbehave=lambda n, body: Response(b"{}") if n < 2 else None) as server:
        assert Endpoint(server.address, retries=0).send(REQUEST).text == "I am ready."


def test_an_answer_broken_off_in_the_middle_is_unavailable() -> None:
    cut = Response(b'{"choices": [', missing=100)
    assert "broke off in the middle" in fails(LlmUnavailable, lambda: ask(cut))


def test_a_compressed_answer_is_read() -> None:
    packed = Response(gzip.compress(completion("hello").body), headers={**JSON_TYPE, "Content-Encoding": "gzip"})
    assert ask(packed).text == "hello"


def test_an_answer_of_the_wrong_encoding_is_unavailable() -> None:
    torn = Response(b"no gzip at all", headers={**JSON_TYPE, "Content-Encoding": "gzip"})
    fails(LlmUnavailable, lambda: ask(torn))


@pytest.mark.parametrize("packed", [False, True])
def test_more_bytes_than_the_cap_are_not_read(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm, "MOST_BYTES", 2**20)
    body = completion("x" * 2**21).body
    coding = {"Content-Encoding": "gzip"} if packed else {}
    response = Response(gzip.compress(body) if packed else body, headers={**JSON_TYPE, **coding})
    assert "more than 1 MiB" in fails(LlmUnavailable, lambda: ask(response))


@pytest.mark.parametrize("status", [200, 400, 404, 500])
def test_a_body_without_end_ends(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm, "MOST_BYTES", 2**20)
    kind = {200: LlmUnavailable, 400: LlmStopped, 404: LlmMisconfigured, 500: LlmUnavailable}[status]
    endless = Response(f"{CANARY} ".encode() * 2000, status=status, endless=True)
    started = time.monotonic()
    fails(kind, lambda: ask(endless))
    assert time.monotonic() - started < 2.0


# Time


@pytest.mark.parametrize("status", [200, 400, 500])
def test_bytes_that_drip_are_not_waited_for_beyond_the_time(status: int) -> None:
    drip = Response(b" " * 500, status=status, pause=0.02)
    started = time.monotonic()
    told = fails(LlmStopped if status == 400 else LlmUnavailable, lambda: ask(drip, timeout=0.3))
    assert time.monotonic() - started < 1.5
    assert status != 200 or "no complete answer within 0.3 seconds" in told


def test_a_server_that_hangs_is_given_up() -> None:
    assert "no answer within 0.2 seconds" in fails(LlmUnavailable, lambda: ask(Response(b"", wait=5.0), timeout=0.2))


def test_a_server_that_hangs_is_asked_again_as_often_as_agreed() -> None:
    with ScriptedLlm(misbehave=lambda n, body: Response(b"", wait=5.0)) as server:
        endpoint = Endpoint(server.address, timeout=0.1, retries=2)
        fails(LlmUnavailable, lambda: endpoint.send(REQUEST))
        assert len(server.requests) == 3


def test_a_socket_that_accepts_and_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = Endpoint(f"http://127.0.0.1:{silent.getsockname()[1]}/v1", timeout=0.2, retries=0)
        assert "no answer within 0.2 seconds" in fails(LlmUnavailable, lambda: endpoint.send(REQUEST))


def test_a_refused_connection_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    endpoint = Endpoint(f"http://127.0.0.1:{port}/v1", timeout=1.0, retries=1)
    assert f"http://127.0.0.1:{port}/v1: no connection" in fails(LlmUnavailable, lambda: endpoint.send(REQUEST))


def test_a_connection_closed_without_a_word_is_unavailable() -> None:
    with ScriptedLlm() as server:
        server.respond = lambda body, headers: 1 / 0  # type: ignore[method-assign, assignment, return-value]
        endpoint = Endpoint(server.address, timeout=1.0, retries=0)
        assert "no connection" in fails(LlmUnavailable, lambda: endpoint.send(REQUEST))


def test_seconds_cover_all_tries() -> None:
    with ScriptedLlm(delay=0.05, misbehave=lambda n, body: Response(b"{}") if n == 0 else None) as server:
        assert 0.1 <= Endpoint(server.address, retries=0).send(REQUEST).seconds < 2.0


# Statuses


@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [
        (400, LlmStopped, "refuses the request"),
        (401, LlmMisconfigured, "check OPENAI_API_KEY"),
        (402, LlmMisconfigured, "paid first"),
        (403, LlmMisconfigured, "check OPENAI_API_KEY"),
        (404, LlmMisconfigured, "check OPENAI_BASE_URL and --llm"),
        (405, LlmMisconfigured, "check OPENAI_BASE_URL and --llm"),
        (413, LlmStopped, "refuses the request"),
        (422, LlmStopped, "refuses the request"),
        (408, LlmUnavailable, "cannot answer now"),
        (429, LlmUnavailable, "cannot answer now"),
        (500, LlmUnavailable, "cannot answer now"),
        (503, LlmUnavailable, "cannot answer now"),
    ],
)
def test_a_status_becomes_one_of_four_errors(status: int, kind: type[LlmError], told: str) -> None:
    line = fails(kind, lambda: ask(refused(status, f"You sent {CANARY}, says the server.")))
    assert told in line
    assert f"You sent {REDACTED}" in line
    assert line.startswith("the LLM at http://127.0.0.1:")


@pytest.mark.parametrize("status", [400, 401, 500])
@pytest.mark.parametrize("body", [b"", b"\xff\xff", b"<html>\n\n<p>no\n</html>", b"\x00", b"{", b"9" * 10**5])
def test_an_error_without_a_sensible_body_is_told_in_one_line(status: int, body: bytes) -> None:
    kind = {400: LlmStopped, 401: LlmMisconfigured, 500: LlmUnavailable}[status]
    fails(kind, lambda: ask(Response(body, status=status)))


@pytest.mark.parametrize("status", [400, 500])
def test_an_error_broken_off_in_the_middle_keeps_its_class(status: int) -> None:
    kind = LlmStopped if status == 400 else LlmUnavailable
    fails(kind, lambda: ask(Response(b'{"error', status=status, missing=50)))


def test_a_compressed_error_is_read() -> None:
    packed = gzip.compress(b'{"error": {"message": "no temperature, please"}}')
    response = Response(packed, status=400, headers={**JSON_TYPE, "Content-Encoding": "gzip"})
    assert "no temperature, please" in fails(LlmStopped, lambda: ask(response))


def test_three_errors_and_then_an_answer_are_no_failure(quiet: QuietTime) -> None:
    with ScriptedLlm(misbehave=lambda n, body: refused(500, "oh dear") if n < 3 else None) as server:
        assert Endpoint(server.address, retries=3).send(REQUEST).text == "I am ready."
        assert len(server.requests) == 4
        assert {asked.key for asked in server.requests} == {REQUEST.request_id}
    assert len(quiet.slept) == 3


def test_a_short_wait_that_the_server_asks_for_is_obeyed(quiet: QuietTime) -> None:
    with ScriptedLlm(misbehave=lambda n, body: refused(429, "slow", Retry_After="7") if n == 0 else None) as server:
        assert Endpoint(server.address, retries=1).send(REQUEST).text == "I am ready."
    assert quiet.slept == [7.0]


def test_an_endpoint_that_is_asked_too_often_is_left_alone_longer_each_time(quiet: QuietTime) -> None:
    with ScriptedLlm(misbehave=lambda n, body: refused(429, "slow down") if n < 5 else None) as server:
        assert Endpoint(server.address).send(REQUEST).text == "I am ready."
        assert {asked.key for asked in server.requests} == {REQUEST.request_id}
    assert len(quiet.slept) == 5
    assert quiet.slept == sorted(quiet.slept)
    assert sum(quiet.slept) > 25


@pytest.mark.parametrize("more", [{}, {"Retry_After": "nonsense"}, {"Retry_After": "20"}, {"x_should_retry": "true"}])
def test_an_endpoint_that_stays_busy_is_given_up_after_a_minute(more: dict[str, str], quiet: QuietTime) -> None:
    with ScriptedLlm(misbehave=lambda n, body: refused(429, "slow down", **more)) as server:
        endpoint = Endpoint(server.address)
        assert "cannot answer now" in fails(LlmUnavailable, lambda: endpoint.send(REQUEST))
        assert len(server.requests) == len(quiet.slept) + 1
    assert 40 < sum(quiet.slept) <= llm.BUSY_SECONDS == 60


def test_an_account_without_money_is_told_at_once(quiet: QuietTime) -> None:
    body = json.dumps({"error": {"message": "quota", "code": "insufficient_quota"}}).encode()
    assert "paid first" in fails(LlmMisconfigured, lambda: ask(Response(body, 429)))


def test_a_request_that_is_too_large_for_the_limit_is_refused_and_not_waited_for(quiet: QuietTime) -> None:
    said = "Request too large for some-model on tokens per min (TPM): Limit 6000, Requested 9100."
    assert "too large" in fails(LlmStopped, lambda: ask(refused(429, said, Retry_After="300")))
    assert quiet.slept == []
    assert quiet.slept == []


def test_a_long_wait_fails_at_once_and_says_how_long(quiet: QuietTime) -> None:
    with ScriptedLlm(misbehave=lambda n, body: refused(429, "slow", Retry_After="300")) as server:
        endpoint = Endpoint(server.address, retries=3)
        assert "try again after 300 seconds" in fails(LlmUnavailable, lambda: endpoint.send(REQUEST))
        assert len(server.requests) == 1
    assert quiet.slept == []


def test_a_wait_until_a_date_is_told_as_a_date() -> None:
    date = "Wed, 21 Oct 2099 07:28:00 GMT"
    told = fails(LlmUnavailable, lambda: ask(refused(503, "closed", Retry_After=date), retries=1))
    assert told.endswith(f"try again after {date}")


def test_a_redirect_is_not_followed() -> None:
    with ScriptedLlm() as other:
        there = {"Location": f"{other.address}/chat/completions?key={CANARY}"}
        told = fails(LlmMisconfigured, lambda: ask(Response(b"", status=307, headers=there), retries=2))
        assert other.requests == []
        assert other.address in told


def test_a_long_redirect_is_told_in_short() -> None:
    fails(LlmMisconfigured, lambda: ask(Response(b"", status=302, headers={"Location": "http://x/" + "y" * 5000})))


def test_a_redirect_to_nowhere_is_told() -> None:
    assert "another address" in fails(LlmMisconfigured, lambda: ask(Response(b"", status=307, headers={})))


# Completions that are not what they should be


def test_an_answer_is_read_with_what_it_cost() -> None:
    reply = ask(completion("hello", finish="length"))
    assert (reply.text, reply.finish, reply.prompt_tokens, reply.completion_tokens) == ("hello", "length", 100, 10)
    assert reply.usd is None, "nobody lists a price for the model m"


def test_a_model_with_a_listed_price_has_one() -> None:
    reply = ask(completion("hello"), request=REQUEST.model_copy(update={"model": "gpt-4o-mini"}))
    assert reply.usd == pytest.approx(100 * 0.15e-6 + 10 * 0.6e-6)


@pytest.mark.parametrize(
    ("model", "address", "usd"),
    [
        ("openai/gpt-4o", "https://openrouter.ai/api/v1", 0.0125),
        ("gpt-4o", "http://127.0.0.1:8000/v1", 0.0125),
        ("gpt-4o", None, 0.0125),
        ("openai/gpt-4o", "http://127.0.0.1:8000/v1", None),
    ],
)
def test_a_model_is_priced_by_the_name_that_its_endpoint_gives_it(
    model: str, address: str | None, usd: float | None
) -> None:
    assert price(model, 1000, 1000, address) == (None if usd is None else pytest.approx(usd))


def test_an_endpoint_prices_by_its_own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(llm, "price", lambda *asked: seen.append(asked))
    with ScriptedLlm() as server:
        Endpoint(server.address, retries=0).send(REQUEST)
        assert seen == [("m", 100, 10, server.address)]


def test_an_empty_message_is_an_empty_answer() -> None:
    assert ask(said({"role": "assistant", "content": None})) == ask(said({})).model_copy(
        update={"seconds": pytest.approx(0, abs=2)}
    )
    assert ask(said({"content": None})).text == ""


def test_invented_functions_come_back_as_they_are() -> None:
    reply = ask(completion(calls=[("delete_everything", '{"path": "/"}'), ("read_pairs", "{rows: ")]))
    assert reply.tool_uses == (
        ToolUse(name="delete_everything", arguments='{"path": "/"}'),
        ToolUse(name="read_pairs", arguments="{rows: "),
    )


@pytest.mark.parametrize(
    ("function", "seen"),
    [
        ({"name": "f", "arguments": {"word": "ready"}}, ("f", '{"word": "ready"}')),
        ({"name": "f", "arguments": None}, ("f", "{}")),
        ({"name": "f"}, ("f", "{}")),
        ({"name": None, "arguments": "{}"}, ("", "{}")),
    ],
)
def test_function_calls_in_other_shapes_are_read(function: dict[str, Any], seen: tuple[str, str]) -> None:
    (use,) = ask(said({"content": None, "tool_calls": [{"function": function}]})).tool_uses
    assert (use.name, use.arguments) == seen


@pytest.mark.parametrize("count", [None, -5, 10**30, "many", 1.5, [], True])
def test_a_senseless_token_count_spoils_no_answer(count: Any, tmp_path: Path) -> None:
    usage = {"prompt_tokens": count, "completion_tokens": count}
    reply = ask(said({"content": "hello"}, usage=usage))
    assert reply.text == "hello"
    with Store(tmp_path / "premortem.db") as store:
        store.begin_run("r", spec="", settings={}, forecaster="excess")
        store.save_llm_call("r", LlmCall(purpose="plan", prompt="", request=REQUEST, reply=reply))
        assert store.load_cost("r").llm_tokens >= 0


@pytest.mark.parametrize("usage", [None, [], "none", {}])
def test_where_tokens_are_not_counted_they_are_guessed_so_that_bounds_hold(usage: Any) -> None:
    priced = REQUEST.model_copy(update={"model": "gpt-4o-mini"})
    short, long = (ask(said({"content": text}, usage=usage), request=priced) for text in ("hello", "hello " * 500))
    assert short.prompt_tokens == long.prompt_tokens == len("Say hello.") // 3 + 1
    assert 0 < short.completion_tokens < long.completion_tokens == 1001
    assert 0 < (short.usd or 0) < (long.usd or 0)


# Errors in places of their own


def test_an_answer_that_broke_off_with_an_error_is_asked_for_again() -> None:
    broken = whole([{"finish_reason": "error", "error": {"code": 502}, "message": {"content": ""}}])
    with ScriptedLlm(misbehave=lambda n, body: broken if n == 0 else None) as server:
        assert Endpoint(server.address, timeout=1.0, retries=0).send(REQUEST).finish != "error"
        assert len(server.requests) == 2
    assert "broke off an answer" in fails(LlmUnavailable, lambda: ask(broken))


PAID = {"prompt_tokens": 1000, "completion_tokens": 500}
THROWN_AWAY: dict[str, Response] = {
    "broken off": whole([{"finish_reason": "error", "message": {"content": ""}}], usage=PAID),
    "no choice": whole([], usage=PAID),
    "no completion": whole("all of them", usage=PAID),
}


def at_first(count: int, response: Response) -> ScriptedLlm:
    """Return a server that answers well after `count` bad answers."""
    return ScriptedLlm(misbehave=lambda n, body: response if n < count else None)


@pytest.mark.parametrize("what", THROWN_AWAY)
def test_answers_that_were_thrown_away_are_part_of_what_the_reply_cost(what: str) -> None:
    request = REQUEST.model_copy(update={"model": "gpt-4o-mini"})
    with at_first(2, THROWN_AWAY[what]) as server:
        reply = Endpoint(server.address, retries=0).send(request)
        assert len(server.requests) == 3
    assert (reply.prompt_tokens, reply.completion_tokens) == (2 * 1000 + 100, 2 * 500 + 10)
    alone = [price("gpt-4o-mini", *used) or 0 for used in ((1000, 500), (1000, 500), (100, 10))]
    assert reply.usd == pytest.approx(sum(alone))


def inquiry(number: int) -> Inquiry:
    message = ChatMessage(role="user", content=f"Question {number}?")
    return Inquiry(purpose="plan", prompt="", request=Request(model="m", messages=(message,)))


def test_answers_that_were_thrown_away_reach_the_bound_of_tokens(store: Store) -> None:
    store.begin_run("r", spec="", settings={}, forecaster="excess")
    with at_first(2, THROWN_AWAY["broken off"]) as server:
        ledger = Ledger(store, "r", Endpoint(server.address, retries=0), Budget(tokens=2000))
        ledger.answer(inquiry(0))
        assert store.load_cost("r").llm_tokens == 3110
        assert "budget of 2000 tokens" in fails(LlmStopped, lambda: ledger.answer(inquiry(1)))
        assert len(server.requests) == 3


def test_answers_that_were_thrown_away_before_a_refusal_are_counted_with_it(store: Store) -> None:
    store.begin_run("r", spec="", settings={}, forecaster="excess")
    bad = [THROWN_AWAY["broken off"], refused(400, "too rude")]
    with ScriptedLlm(misbehave=lambda n, body: bad[n]) as server:
        ledger = Ledger(store, "r", Endpoint(server.address, retries=0))
        fails(LlmStopped, lambda: ledger.answer(inquiry(0)))
    (call,) = store.load_llm_calls("r")
    assert (call.reply.refused, call.reply.prompt_tokens, call.reply.completion_tokens) == ("stopped", 1000, 500)


def test_what_an_endpoint_that_fails_at_everything_has_cost_is_spent_and_answers_nothing(store: Store) -> None:
    store.begin_run("r", spec="", settings={}, forecaster="excess")
    request = inquiry(0).request.model_copy(update={"model": "gpt-4o-mini"})
    asked = Inquiry(purpose="plan", prompt="", request=request)
    with ScriptedLlm(misbehave=lambda n, body: THROWN_AWAY["broken off"]) as server:
        ledger = Ledger(store, "r", Endpoint(server.address, retries=0))
        assert "broke off an answer" in fails(LlmUnavailable, lambda: ledger.answer(asked))
        sent = len(server.requests)
    cost = store.load_cost("r")
    assert sent == 2 * llm.BODY_TRIES, "the question, and whether another one is answered"
    assert (cost.llm_calls, cost.llm_tokens) == (1, sent * 1500)
    assert cost.llm_usd == pytest.approx(sent * (price("gpt-4o-mini", 1000, 500) or 0))
    assert store.load_llm_calls("r") == ()


def test_a_request_that_failed_is_a_call_like_any_other(store: Store) -> None:
    store.begin_run("r", spec="", settings={}, forecaster="excess")
    with ScriptedLlm(misbehave=lambda n, body: refused(500, "down")) as server:
        ledger = Ledger(store, "r", Endpoint(server.address, retries=0), Budget(calls=1))
        fails(LlmUnavailable, lambda: ledger.answer(inquiry(0)))
        sent = len(server.requests)
        assert "budget of 1 calls" in fails(LlmStopped, lambda: ledger.answer(inquiry(1)))
        assert "budget of 1 calls" in fails(LlmStopped, lambda: ledger.answer(inquiry(2)))
        assert len(server.requests) == sent
    assert ledger.calls_made() == 1


@pytest.mark.parametrize(
    ("code", "kind", "told"),
    [(429, LlmUnavailable, "cannot answer now (slow down"), (402, LlmMisconfigured, "paid first")],
)
def test_an_error_that_comes_late_is_as_good_as_its_status(
    code: int, kind: type[LlmError], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm, "BUSY_SECONDS", 0.0)
    late = Response(json.dumps({"error": {"code": code, "message": f"slow down {CANARY}"}}).encode())
    with ScriptedLlm(misbehave=lambda n, body: late) as server:
        endpoint = Endpoint(server.address, timeout=1.0, retries=0)
        assert told in fails(kind, lambda: endpoint.send(REQUEST))
        assert len(server.requests) == 1


def test_a_model_that_thought_until_its_room_was_gone_has_been_cut_off() -> None:
    told = "Could not finish the message because max_tokens or model output limit was reached. Please try again."
    reply = ask(refused(400, told))
    assert (reply.text, reply.finish, reply.thinks) == ("", "length", True)
    assert reply.completion_tokens == REQUEST.max_tokens


@pytest.mark.parametrize(
    "body",
    [
        {"detail": "Unsupported parameter temperature"},
        [{"error": {"message": "Unsupported parameter temperature"}}],
        {"error": "Unsupported parameter temperature"},
        {"error": {"message": "Provider returned error", "metadata": {"raw": "Unsupported parameter temperature"}}},
    ],
)
def test_an_error_says_what_its_body_says(body: Any) -> None:
    response = Response(json.dumps(body).encode(), status=400, headers=JSON_TYPE)
    assert "Unsupported parameter temperature" in fails(LlmStopped, lambda: ask(response))


def test_a_key_in_the_path_of_an_address_is_hidden() -> None:
    endpoint = Endpoint("http://127.0.0.1:9/proxy/sk-abcdefghijklmnopqrstuvwx/v1", "none", timeout=0.2, retries=0)
    assert "sk-abc" not in endpoint.address
    assert "sk-abc" not in fails(LlmUnavailable, lambda: endpoint.send(REQUEST))


@pytest.mark.parametrize("key", ["anything", "Password", "not-needed"])
def test_a_word_given_in_the_place_of_a_key_stays_a_word(key: str) -> None:
    assert Redactor([key])(f"Ask me {key} about it.") == f"Ask me {key} about it."


def test_lone_surrogates_come_back_as_they_are_remembered(tmp_path: Path) -> None:
    body = rb'{"choices": [{"message": {"content": "a\ud800b", "tool_calls": [{"function": {"name": "\udfff"}}]}}]}'
    reply = ask(Response(body))
    assert reply.text == "a\ufffdb"
    with Store(tmp_path / "premortem.db") as store:
        store.begin_run("r", spec="", settings={}, forecaster="excess")
        store.save_llm_call("r", LlmCall(purpose="plan", prompt="", request=REQUEST, reply=reply))
        assert store.find_reply(REQUEST.request_id, "r") == reply


def test_bytes_that_are_no_utf_8_are_replaced() -> None:
    assert ask(Response(b'{"choices": [{"message": {"content": "a\xffb"}}]}')).text == "a\ufffdb"


def test_a_refusal_is_told_in_one_line_with_what_it_cost() -> None:
    refusal = {"content": None, "refusal": f"No.\n\nNot with {CANARY}. " + "x" * 999}
    usage = {"prompt_tokens": 1000, "completion_tokens": 7}
    reply = ask(said(refusal, usage=usage), request=REQUEST.model_copy(update={"model": "gpt-4o-mini"}))
    assert reply.refused == "declined"
    assert "the LLM declined: No. Not with [redacted]" in reply.text
    assert len(reply.text) <= MOST_CHARACTERS and "\n" not in reply.text and CANARY not in reply.text
    assert (reply.prompt_tokens, reply.completion_tokens) == (1000, 7)
    assert reply.usd


def test_the_tokens_of_a_refusal_are_counted(tmp_path: Path) -> None:
    response = said({"content": None, "refusal": "No."}, usage={"prompt_tokens": 1000, "completion_tokens": 7})
    with Store(tmp_path / "premortem.db") as store, ScriptedLlm(misbehave=lambda n, body: response) as server:
        store.begin_run("r", spec="", settings={}, forecaster="excess")
        ledger = Ledger(store, "r", Endpoint(server.address, retries=0))
        fails(LlmUnusable, lambda: ledger.answer(Inquiry(purpose="plan", prompt="", request=REQUEST)))
        assert (store.load_cost("r").llm_calls, store.load_cost("r").llm_tokens) == (1, 1007)


def test_the_key_is_in_no_part_of_a_reply() -> None:
    reply = ask(completion(f"It is {CANARY}.", calls=[(CANARY, json.dumps({"key": CANARY}))]))
    assert CANARY not in reply.model_dump_json()
    assert reply.text == f"It is {REDACTED}."
    assert CANARY not in ask(completion("x", finish=CANARY)).model_dump_json()


# What is sent


def test_a_request_is_sent_under_its_own_name_and_with_the_key() -> None:
    with ScriptedLlm() as server:
        Endpoint(server.address, retries=0).send(REQUEST)
        (asked,) = server.requests
    assert asked.key == REQUEST.request_id
    assert asked.headers["authorization"] == f"Bearer {CANARY}"
    assert asked.body == {
        "model": "m", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 1024, "temperature": 0,
    }  # fmt: skip


def test_the_dialect_decides_how_a_request_is_put() -> None:
    tool = ToolSchema(name="f", description="d", parameters={"type": "object"})
    dialect = Dialect(schema_mode="json_object", temperature=False, limit_name="max_completion_tokens")
    change = {"dialect": dialect, "tools": (tool,), "answer_schema": {"type": "object"}, "max_tokens": 7}
    with ScriptedLlm() as server:
        Endpoint(server.address, retries=0).send(REQUEST.model_copy(update=change))
        body = server.requests[0].body
    assert "temperature" not in body and "max_tokens" not in body
    assert body["max_completion_tokens"] == 7
    assert body["response_format"] == {"type": "json_object"}
    assert body["tools"][0]["function"]["name"] == "f"


class Bounded(BaseModel):
    """Fields with bounds, some of them called like a bound."""

    text: str = Field(min_length=2, max_length=9, pattern="^a")
    parts: list[Annotated[int, Field(ge=1, le=4)]] = Field(min_length=1, max_length=3)
    inner: list[Inner]
    minimum: Literal["default", "pattern"]
    default: int | None
    format: str


class Inner(BaseModel):
    """A part."""

    share: float = Field(gt=0, lt=1, multiple_of=0.1)
    pattern: str = Field(max_length=5)


REFUSED = re.compile(r'"((min|max)(Length|Items|imum)|exclusiveM\w+|multipleOf|pattern|format|default)": [^{"]')
"""A keyword that strict modes refuse, with a value of its own; properties of that name hold a schema."""


def test_bounds_are_not_sent_to_an_endpoint_that_refuses_them() -> None:
    schema = strict_schema(Bounded)
    whole_request = REQUEST.model_copy(
        update={
            "tools": (ToolSchema(name="f", description="d", parameters=schema),),
            "answer_schema": schema,
            "dialect": Dialect(tools=True, schema_mode="json_schema", bounds=False),
        }
    )
    assert REFUSED.search(json.dumps(schema))
    with ScriptedLlm() as server:
        Endpoint(server.address, retries=0).send(whole_request)
        (asked,) = server.requests
    assert asked.key == whole_request.request_id
    tool, answer = asked.body["tools"][0]["function"], asked.body["response_format"]["json_schema"]
    assert tool["parameters"] == answer["schema"]
    assert tool["strict"] is answer["strict"] is True
    assert not REFUSED.search(json.dumps(answer["schema"]))
    names = {"text", "parts", "inner", "minimum", "default", "format"}
    assert set(answer["schema"]["properties"]) == set(answer["schema"]["required"]) == names
    assert set(answer["schema"]["$defs"]["Inner"]["properties"]) == {"share", "pattern"}
    assert answer["schema"]["properties"]["minimum"]["enum"] == ["default", "pattern"]


# Addresses and keys


def test_without_a_key_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, "", "   \n"):
        monkeypatch.delenv("OPENAI_API_KEY") if value is None else monkeypatch.setenv("OPENAI_API_KEY", value)
        assert "OPENAI_API_KEY is not set" in fails(LlmMisconfigured, lambda: Endpoint("http://127.0.0.1:1/v1"))
        monkeypatch.setenv("OPENAI_API_KEY", "x")


@pytest.mark.parametrize(
    "address",
    [
        "localhost:8080", "file:///etc/passwd", "http://", "http://:80/v1", "ftp://host/v1", "nonsense",
        "http://host:port/v1", "http://host:99999/v1", "http://host:-1/v1", "http://[::1", "http://a b/v1",
        f"http://me:{CANARY}@host:bad/v1", "http://ho\nst/v1",
    ],
)  # fmt: skip
def test_what_is_no_web_address_is_told(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    assert "OPENAI_BASE_URL" in fails(LlmMisconfigured, Endpoint)


def test_the_address_is_shown_without_what_is_secret_in_it() -> None:
    secret = "http://me:pass-canary@127.0.0.1:8080/v1?key=canary#canary"
    assert Endpoint(secret).address == "http://127.0.0.1:8080/v1"
    assert Endpoint("http://[::1]:8080/v1").address == "http://[::1]:8080/v1"
    assert Endpoint("https://example.org").address == "https://example.org"


@pytest.mark.parametrize("userinfo", ["me:pass-canary-word", "canary-me", "canary-me:", ":canary-word"])
def test_a_secret_in_the_address_is_not_shown_when_the_server_echoes_it(userinfo: str) -> None:
    secret = max(userinfo.split(":"), key=len)
    with ScriptedLlm(misbehave=lambda n, body: refused(401, f"wrong: {secret}")) as server:
        endpoint = Endpoint(server.address.replace("://", f"://{userinfo}@"), retries=0)
        assert f"wrong: {REDACTED}" in fails(LlmMisconfigured, lambda: endpoint.send(REQUEST))
        assert "canary" not in repr(endpoint)


@pytest.mark.parametrize("key", [f"{CANARY}\n", f" {CANARY}\r\n", f"\ufeff{CANARY}"])
def test_space_around_a_key_does_not_matter(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with ScriptedLlm() as server:
        Endpoint(server.address, retries=0).send(REQUEST)
        assert server.requests[0].headers["authorization"] == f"Bearer {CANARY}"


@pytest.mark.parametrize("key", [f"{CANARY}\nX-Other: 1", f"{CANARY}é", f"{CANARY} twice", f"{CANARY}\x00", "“canary”"])
def test_a_key_that_no_header_can_hold_is_told_and_not_shown(key: str) -> None:
    assert "OPENAI_API_KEY" in fails(LlmMisconfigured, lambda: Endpoint("http://127.0.0.1:1/v1", key))


def test_a_bad_proxy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", f"nonsense://me:{CANARY}@host")
    fails(LlmMisconfigured, lambda: Endpoint("http://127.0.0.1:1/v1"))


@pytest.mark.parametrize("status", [200, 401, 500])
def test_the_key_is_in_no_log_whatever_level_and_wherever_the_endpoint_echoes_it(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in LOGGERS:
        caplog.set_level(logging.DEBUG, logger=name)
    echo = {**JSON_TYPE, "X-Echo": f"Bearer {CANARY}", "Set-Cookie": f"key={CANARY}"}
    response = Response(json.dumps({"error": {"message": f"not {CANARY}"}}).encode(), status, echo)
    with pytest.raises(LlmError):
        ask(response, retries=1)
    logged = {record.name.replace("2", "") for record in caplog.records}
    assert {"httpx", "httpcore.http11", "openai._base_client"} <= logged
    assert "'X-Echo', b'Bearer [redacted]'" in caplog.text
    assert "canary-" not in caplog.text + repr([vars(record) for record in caplog.records])


def test_a_traceback_in_the_log_holds_no_key(caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedLlm() as server:
        Endpoint(server.address)
    try:
        raise ValueError(f"wrong key {CANARY}")
    except ValueError:
        logging.getLogger("openai._base_client").exception("it failed")
    assert "Traceback" in caplog.text and "wrong key [redacted]" in caplog.text
    assert "canary-" not in caplog.text


def test_every_logger_that_the_client_library_has_made_is_redacted() -> None:
    endpoint = Endpoint("http://127.0.0.1:9/v1")
    endpoint._client.chat.completions  # noqa: B018
    made = {name for name, one in logging.root.manager.loggerDict.items() if isinstance(one, logging.Logger)}
    ours = {name for name in made if name.startswith(("openai", "httpx", "httpcore"))}
    for name in LOGGERS:
        assert logging.getLogger(name).filters.count(LogRedaction(endpoint._redact)) == 1
    assert ours - set(LOGGERS) <= {"openai.lib", "openai.lib.parsing", "openai.audio", "openai.audio.transcriptions"}


@pytest.mark.parametrize("shape", ["sk-" + "a1" * 12, "hf_" + "b2" * 15, "ghp_" + "c3" * 15, "AKIA" + "D4" * 8])
def test_what_has_the_shape_of_a_key_is_redacted(shape: str) -> None:
    assert Redactor()(f"see {shape}, it says") == f"see {REDACTED}, it says"


def test_secrets_of_the_environment_are_redacted_and_short_values_are_none() -> None:
    redact = Redactor.of_environment({"HF_TOKEN": "abcdefgh", "MY_KEY": "none", "HOME": "/home/someone"}, "long-enough")
    assert redact("abcdefgh none /home/someone long-enough") == f"{REDACTED} none /home/someone {REDACTED}"
