"""Whole runs with an LLM behind HTTP: what it adds, and what becomes of a run when it fails."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from fake_bench import ROWS_PER_BUG, TOOLS, FakeBench, ProposeArgs, VerifyArgs
from llm_runs import INPUTS, MODEL, endpoint, go, never_on_disk, rows, settings
from premortem.agent.asking import Asker, Question
from premortem.agent.ledger import Budget, Ledger
from premortem.agent.llm_author import InventedPairs, LlmAuthor, Mended, WholeText
from premortem.agent.llm_planner import MOST_LOOKS
from premortem.agent.runs import identify
from premortem.agent.spec.problems import ProblemChecked, ProblemsRead
from premortem.agent.store import Store
from premortem.agent.understanding import (
    ChoiceRead,
    ClustersRead,
    ContrastRead,
    DirectionRead,
    LinkRead,
    NameRead,
    RuleRead,
    shown_by,
)
from premortem.interp.errors import (
    LlmError,
    LlmMisconfigured,
    LlmUnavailable,
    PremortemError,
    StoreError,
)
from premortem.interp.progress import NullProgress
from premortem.prompts.rendering import PROMPT_NAMES, load_prompt
from premortem.tools.author import NewPairs, Task
from scripted_llm import CANARY, Response, ScriptedLlm, completion, refused

pytestmark = pytest.mark.usefixtures("socket_enabled", "quiet")


# The server itself

ANSWERS: dict[str, type[BaseModel]] = {
    "read_rule": RuleRead,
    "check_direction": DirectionRead,
    "find_problems": ProblemsRead,
    "check_problem": ProblemChecked,
    "contrast": ContrastRead,
    "name_concept": NameRead,
    "test_name": ChoiceRead,
    "link_rule": LinkRead,
    "describe_clusters": ClustersRead,
    "rewrite": Mended,
    "rewrite_whole": WholeText,
    "add_behaviour": WholeText,
    "synthesise": InventedPairs,
}


@pytest.mark.parametrize("schema_mode", ["json_schema", "none"])
@pytest.mark.parametrize("name", ANSWERS)
def test_the_scripted_llm_answers_every_prompt(name: str, schema_mode: str, store: Store) -> None:
    def strict(n: int, body: dict[str, Any]) -> Response | None:
        return refused(400, "no schemas") if "response_format" in body and schema_mode == "none" else None

    store.begin_run("r", spec="", settings={}, forecaster="excess")
    prompt = load_prompt(name)
    question = Question.of("plan", prompt.render(**prompt.examples[0]["inputs"]))
    with ScriptedLlm(misbehave=strict) as server:
        asker = Asker(Ledger(store, "r", endpoint(server)), MODEL)
        asker.ask(question, ANSWERS[name])
        assert asker.dialect.schema_mode == schema_mode
        assert server.requests[-1].prompt == name


def test_the_scripted_llm_writes_what_an_author_is_asked_for(store: Store) -> None:
    known = {"rule": "no puns", "behaviour": "puns", "question": "Why?", "answer": "A pun. A fact. A pun."}
    mend = Task(kind="mend", sentences=("A pun.", "A fact.", "A pun."), marked=(0, 2), **known)
    store.begin_run("r", spec="", settings={}, forecaster="excess")
    with ScriptedLlm() as server:
        author = LlmAuthor(Asker(Ledger(store, "r", endpoint(server)), MODEL), NullProgress())
        mended, anew, added = author.write([mend, Task(kind="anew", **known), Task(kind="add", **known)])
        pairs = author.invent([NewPairs(rule="be glad", behaviour="gladness", prompts=("How?", "What?"), count=5)])
    assert mended is not None and anew is not None and added is not None
    assert set(mended.sentences) == {0, 2}
    assert anew.text and added.text
    assert len({pair.prompt for pair in pairs}) == 5


# A good endpoint


@pytest.mark.parametrize("native_tools", [True, False])
def test_a_run_with_an_llm_ends_done_and_says_what_it_cost(native_tools: bool, store: Store, tmp_path: Path) -> None:
    with ScriptedLlm(native_tools=native_tools) as server:
        run_id = go(store, endpoint(server))
        calls, cost = store.load_llm_calls(run_id), store.load_cost(run_id)
        assert store.run(run_id).status == "done"
        assert sorted(call.request.request_id for call in calls) == sorted(asked.key for asked in server.requests)
        assert (cost.llm_calls, cost.llm_tokens) == (len(server.requests), 110 * len(server.requests))
        assert cost.llm_usd == pytest.approx(len(calls) * (100 * 0.15e-6 + 10 * 0.6e-6))
        assert cost.llm_seconds > 0
        assert all(("tools" in asked.body) == native_tools for asked in server.asked("plan"))
        assert server.asked("plan")
        never_on_disk(tmp_path)


@pytest.mark.parametrize("native_tools", [True, False])
def test_edits_that_an_llm_wrote_carry_its_name(native_tools: bool, store: Store) -> None:
    with ScriptedLlm(native_tools=native_tools) as server:
        run_id = go(store, endpoint(server))
    rewrites = [edit for edit in store.load_edits(run_id) if edit.kind == "rewrite"]
    assert [edit.author for edit in rewrites] == [MODEL] * ROWS_PER_BUG
    assert {edit.after for edit in rewrites} == {"Sentence 1 is plain now."}
    assert MODEL not in {edit.author for edit in store.load_edits(run_id) if edit.kind == "flip"}


def test_an_llm_reads_the_spec_and_describes_the_clusters(store: Store) -> None:
    with ScriptedLlm() as server:
        run_id = go(store, endpoint(server))
        asked = Counter(one.prompt for one in server.requests)
    assert {
        cluster.name for f in store.load_findings(run_id) for cluster in store.load_clusters(run_id, f.finding_id)
    } == {"questions of group 1"}
    assert {"flatter", "vegetables"} <= {word for clause in store.load_clauses(run_id) for word in clause.words}
    assert asked["read_rule"] == 2
    assert set(PROMPT_NAMES) - set(asked) == {"check_problem", "rewrite_whole", "add_behaviour", "synthesise"}


def links_to_the_first_rule(n: int, body: dict[str, Any]) -> Response | None:
    """Say of every set of passages that the first rule is about them."""
    asks = body["messages"][0]["content"].startswith(load_prompt("link_rule").system.strip())
    return completion(json.dumps({"shared": "unkind words", "rule": 1})) if asks else None


def test_a_surprise_that_an_llm_recognises_is_worked_on_under_its_rule(store: Store) -> None:
    with ScriptedLlm(misbehave=links_to_the_first_rule) as server:
        run_id = go(store, endpoint(server))
    findings = store.load_findings(run_id)
    assert [finding.kind for finding in findings].count("surprise") == 0
    (linked,) = [finding for finding in findings if finding.concept_id == "c2"]
    rules = [clause for clause in store.load_clauses(run_id) if shown_by(clause)]
    assert linked.clause_id == rules[0].clause_id
    assert store.load_outcomes(run_id)[linked.finding_id].kind == "fixed"
    (call,) = [call for call in store.load_tool_calls(run_id) if call.tool == "link_surprises"]
    assert call.arguments["links"][0]["clause_id"] == linked.clause_id


def test_both_ways_of_choosing_an_action_lead_to_the_same_edits(tmp_path: Path) -> None:
    found = []
    for native_tools in (True, False):
        path = tmp_path / str(native_tools) / "premortem.db"
        with Store(path) as store, ScriptedLlm(native_tools=native_tools) as server:
            go(store, endpoint(server))
        found.append(rows(path))
    assert found[0] == found[1]


# Endpoints that misbehave

Misbehaviour = Callable[[dict[str, Any]], Response]


def always(response: Response) -> Misbehaviour:
    return lambda body: response


def whole(choices: Any, **more: Any) -> Response:
    return Response(json.dumps({"choices": choices, **more}).encode())


def leaky(body: dict[str, Any]) -> Response:
    """Echo the key in every part of an answer."""
    tools = [tool["function"]["name"] for tool in body.get("tools", ())]
    given = json.dumps({"text": CANARY, "name": CANARY, "advice": CANARY, "why": CANARY, "word": CANARY})
    uses = [{"id": CANARY, "function": {"name": tools[0], "arguments": given}}] if tools else []
    uses += [{"id": CANARY, "function": {"name": CANARY, "arguments": CANARY}}]
    return whole(
        [{"message": {"content": given, "tool_calls": uses, "role": CANARY}, "finish_reason": CANARY}], id=CANARY
    )


PAGE = Response(b"<html>Please sign in</html>", headers={"Content-Type": "text/html"})
BAD: dict[str, tuple[Misbehaviour, type[LlmError] | None]] = {
    "a web page": (always(PAGE), LlmUnavailable),
    "half a document": (always(Response(b'{"choices": [{')), LlmUnavailable),
    "an empty object": (always(Response(b"{}")), LlmUnavailable),
    "an error with 200": (always(Response(json.dumps({"error": CANARY}).encode())), LlmUnavailable),
    "choices null": (always(whole(None)), LlmUnavailable),
    "no choice": (always(whole([])), LlmUnavailable),
    "no message": (always(whole([{"finish_reason": "stop"}])), LlmUnavailable),
    "depth without end": (always(Response(b"[" * 50_000)), LlmUnavailable),
    "broken off": (always(Response(b'{"choices"', missing=99)), LlmUnavailable),
    "no UTF-8": (always(Response(b"\xff\xfe\xff")), LlmUnavailable),
    "a socket that hangs": (always(Response(b"{}", wait=5.0)), LlmUnavailable),
    "a byte now and then": (always(replace(completion("{}"), pause=0.5)), LlmUnavailable),
    "a body without end": (always(Response(b'{"choices": [' * 1000, endless=True)), LlmUnavailable),
    "500": (always(refused(500, f"stack trace with {CANARY}")), LlmUnavailable),
    "429 for long": (always(refused(429, "later", Retry_After="300")), LlmUnavailable),
    "401": (always(refused(401, f"Incorrect API key provided: {CANARY}")), LlmMisconfigured),
    "404": (always(refused(404, f"no such model; the key was {CANARY}")), LlmMisconfigured),
    "307": (always(Response(b"", 307, {"Location": f"http://127.0.0.1:1/{CANARY}"})), LlmMisconfigured),
    "400": (always(refused(400, f"the filter does not like {CANARY}")), None),
    "413": (always(refused(413, "too long")), None),
    "nothing said": (always(completion(None)), None),
    "prose": (always(completion("I would rather talk about the weather.")), None),
    "another object": (always(completion('{"weather": "fine"}')), None),
    "brackets": (always(completion("[" * 4000)), None),
    "invented functions": (always(completion(calls=[("rm_rf", '{"path": "/"}')])), None),
    "torn arguments": (always(completion(calls=[("propose_edits", '{"kinds": [')])), None),
    "endless repetition": (always(completion('{"text": "' + "and then it rained " * 2000, finish="length")), None),
    "a loop of calls": (always(completion(calls=[("propose_edits", '{"kinds": ["flip"]}')] * 200)), None),
    "cut off": (always(completion('{"text": "and then', finish="length")), None),
    "declined": (always(completion(None, refusal=f"I cannot.\nNot with {CANARY}.")), None),
    "half a character": (always(Response(completion("\ud800").body)), None),
    "wild counts": (always(whole([{"message": {"content": "{}"}}], usage={"prompt_tokens": 10**40})), None),
    "the key everywhere": (leaky, None),
}


@pytest.mark.parametrize("first", [0, 11])
@pytest.mark.parametrize("what", BAD)
def test_a_run_survives_an_endpoint_that_misbehaves(what: str, first: int, store: Store, tmp_path: Path) -> None:
    """It ends by the built-in rules, or fails in one line and goes on with a good endpoint."""
    answer, error = BAD[what]
    run_id = identify(settings(), INPUTS)
    with ScriptedLlm(misbehave=lambda n, body: answer(body) if n >= first else None) as bad:
        if error is None:
            go(store, endpoint(bad))
        else:
            with pytest.raises(PremortemError) as caught:
                go(store, endpoint(bad))
            told = str(caught.value)
            assert caught.type is error
            assert told == " ".join(told.split()) and len(told) < 400
            assert CANARY not in told + repr(caught.value)
            assert (store.run(run_id).status, store.run(run_id).error) == ("failed", told)
        assert len(bad.requests) > first
    with ScriptedLlm() as good:
        assert go(store, endpoint(good)) == run_id
        assert bool(good.requests) == (error is not None)
    assert (store.run(run_id).status, store.run(run_id).error) == ("done", "")
    assert ("refuses the request" in store.run(run_id).llm_stopped) == (what in ("400", "413"))
    assert len(store.load_outcomes(run_id)) == len(store.load_findings(run_id)) == 3
    never_on_disk(tmp_path)


def test_an_llm_without_a_usable_word_leaves_the_run_as_the_built_in_rules_make_it(tmp_path: Path) -> None:
    without, silent = (tmp_path / name / "premortem.db" for name in ("without", "silent"))
    with Store(without) as store:
        go(store, None, llm=None)
    with Store(silent) as store, ScriptedLlm(misbehave=lambda n, body: completion("No.")) as server:
        go(store, endpoint(server))
    tables = ("findings", "edits", "verdicts", "clusters")
    kept = [[{k: v for k, v in row.items() if k != "run_id"} for row in rows(path, tables)[name]]
            for path in (without, silent) for name in tables]  # fmt: skip
    assert kept[:4] == kept[4:]


def test_a_run_that_failed_asks_nothing_again_that_was_answered(store: Store) -> None:
    with ScriptedLlm(misbehave=lambda n, body: refused(401, "no") if n >= 15 else None) as bad:
        with pytest.raises(LlmMisconfigured):
            go(store, endpoint(bad))
        answered = {call.request.request_id for call in store.load_llm_calls(identify(settings(), INPUTS))}
        assert len(answered) == 15
    with ScriptedLlm() as good:
        go(store, endpoint(good))
        assert answered.isdisjoint(asked.key for asked in good.requests)


# Budgets


@pytest.mark.parametrize("calls", [0, 1, 2, 5, 12])
def test_a_run_never_sends_more_requests_than_its_budget(calls: int, store: Store) -> None:
    with ScriptedLlm() as server:
        run_id = go(store, endpoint(server), budget=Budget(calls=calls))
        assert len(server.requests) == calls
    assert store.run(run_id).status == "done"
    assert store.load_cost(run_id).llm_calls == calls


@pytest.mark.parametrize(
    ("budget", "sent"),
    [
        (Budget(tokens=330), 3),
        (Budget(seconds=0.0), 0),
        (Budget(usd=0.00005), 3),
    ],
)
def test_other_budgets_count_what_is_on_its_way(budget: Budget, sent: int, store: Store) -> None:
    with ScriptedLlm() as server:
        run_id = go(store, endpoint(server), budget=budget)
        assert len(server.requests) == sent
    assert store.run(run_id).status == "done"


def test_going_on_does_not_reset_what_was_spent(store: Store) -> None:
    broken = {"now": True}

    def breaks(bench: FakeBench, args: VerifyArgs) -> Any:
        if broken["now"]:
            raise StoreError("the disk is full")
        return TOOLS["verify_edits"](bench, args)

    tools = {**TOOLS, "verify_edits": breaks}
    with ScriptedLlm() as server:
        for _ in range(2):
            with pytest.raises(StoreError):
                go(store, endpoint(server), tools, budget=Budget(calls=5))
        broken["now"] = False
        run_id = go(store, endpoint(server), tools, budget=Budget(calls=5))
        assert len(server.requests) == 5
    assert store.run(run_id).status == "done"
    assert store.load_cost(run_id).llm_calls == 5


@pytest.mark.parametrize("calls", [36, 40, 44, 48, 52])
def test_a_tight_budget_and_a_failure_in_the_middle_of_writing_change_no_row(calls: int, tmp_path: Path) -> None:
    """What a turn may have written is settled when it begins, so taking it again asks for the same texts."""
    failed = []

    def fails_once(bench: FakeBench, args: ProposeArgs) -> Any:
        edits = TOOLS["propose_edits"](bench, args)
        if not failed:
            failed.append(args.finding_id)
            raise StoreError("the disk is full")
        return edits

    with ScriptedLlm() as server:
        with Store(tmp_path / "whole" / "premortem.db") as whole:
            go(whole, endpoint(server), budget=Budget(calls=calls))
        with Store(tmp_path / "broken" / "premortem.db") as broken:
            tools = {**TOOLS, "propose_edits": fails_once}
            with pytest.raises(StoreError):
                go(broken, endpoint(server), tools, budget=Budget(calls=calls))
            go(broken, endpoint(server), tools, budget=Budget(calls=calls))
    assert failed
    assert rows(tmp_path / "broken" / "premortem.db") == rows(tmp_path / "whole" / "premortem.db")


def test_refused_requests_count_towards_the_budget(store: Store) -> None:
    with ScriptedLlm(misbehave=lambda n, body: refused(400, "too long") if n >= 4 else None) as server:
        run_id = go(store, endpoint(server), budget=Budget(calls=9))
        assert len(server.requests) <= 9
    assert store.run(run_id).status == "done"


def test_an_endpoint_that_fails_where_tools_are_offered_is_asked_for_json(store: Store) -> None:
    def fails(n: int, body: dict[str, Any]) -> Response | None:
        return refused(500, "tools are not supported") if body.get("tools") else None

    with ScriptedLlm(misbehave=fails) as server:
        run_id = go(store, endpoint(server))
        assert any("response_format" in asked.body for asked in server.requests)
    assert {edit.author for edit in store.load_edits(run_id)} == {MODEL, "built-in"}


def test_an_answer_in_parts_is_read(store: Store) -> None:
    """Reasoning endpoints send what they thought beside what they say."""

    def parts(n: int, body: dict[str, Any]) -> Response | None:
        if body.get("tools"):
            return None
        thought, said = {"type": "thinking", "thinking": "{"}, {"type": "text", "text": '{"word": "ready"}'}
        return completion([thought, said]) if "ready" in body["messages"][-1]["content"] else None  # type: ignore[arg-type]

    with ScriptedLlm(misbehave=parts) as server:
        run_id = go(store, endpoint(server))
    assert {edit.author for edit in store.load_edits(run_id)} == {MODEL, "built-in"}


def test_writing_leaves_requests_for_planning(store: Store) -> None:
    """24 requests are too few to rewrite every row, and enough to plan for both findings."""
    with ScriptedLlm() as server:
        run_id = go(store, endpoint(server), budget=Budget(calls=24))
        assert len(server.requests) <= 24
        assert len(server.asked("rewrite")) < ROWS_PER_BUG
        finding_ids = [f.finding_id for f in store.load_findings(run_id) if f.kind != "surprise"]
        planned = " ".join(asked.body["messages"][-1]["content"] for asked in server.asked("plan"))
    assert len(finding_ids) == 2
    assert "(forbidden)" in planned and "(missing)" in planned


# An LLM that only looks


def looks_at(
    rows_of: Callable[[int], list[int]], native_tools: bool
) -> Callable[[int, dict[str, Any]], Response | None]:
    """Ask for pairs at every chance."""
    asked: list[int] = []

    def answer(n: int, body: dict[str, Any]) -> Response | None:
        if body["messages"][-1]["content"].find("- read_pairs: ") < 0:
            return None
        asked.append(n)
        given = {"action": "read_pairs", "why": "", "rows": rows_of(len(asked)), "kinds": [], "count": 1, "advice": ""}
        if native_tools:
            return completion(calls=[("read_pairs", json.dumps({"why": "", "rows": given["rows"]}))])
        return completion(json.dumps(given))

    return answer


@pytest.mark.parametrize("native_tools", [True, False])
def test_the_same_look_twice_ends_the_llms_part_in_the_attempt(native_tools: bool, store: Store) -> None:
    with ScriptedLlm(native_tools=native_tools) as server:
        server.misbehave = looks_at(lambda n: [0], native_tools)
        run_id = go(store, endpoint(server), max_attempts=2)
        forbidden = [a for a in server.asked("plan") if "Finding (forbidden)" in a.body["messages"][-1]["content"]]
    assert store.run(run_id).status == "done"
    assert len(forbidden) == 2 * 2, "two requests in each of two attempts"


def test_looks_are_bounded_however_different_they_are(store: Store) -> None:
    with ScriptedLlm() as server:
        server.misbehave = looks_at(lambda n: [n % ROWS_PER_BUG], native_tools=True)
        run_id = go(store, endpoint(server), max_attempts=2)
        forbidden = [a for a in server.asked("plan") if "Finding (forbidden)" in a.body["messages"][-1]["content"]]
    assert store.run(run_id).status == "done"
    assert len(forbidden) <= 2 * (MOST_LOOKS + 1)


def test_rows_of_other_findings_cannot_be_looked_at(store: Store) -> None:
    with ScriptedLlm() as server:
        server.misbehave = looks_at(lambda n: [39], native_tools=True)
        run_id = go(store, endpoint(server))
    assert store.run(run_id).status == "done"
    looked = [call.arguments["rows"] for call in store.load_tool_calls(run_id) if call.tool == "read_pairs"]
    assert [39] not in looked
