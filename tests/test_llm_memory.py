"""What a run with an LLM remembers: no answer is paid twice, whoever asks again and whatever kills it."""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from fake_bench import FakeBench
from llm_runs import INPUTS, MODEL, endpoint, go, rows, settings
from premortem.agent.chat import ChatMessage, Request
from premortem.agent.export import decided, export_dataset
from premortem.agent.ledger import SIDE_BY_SIDE, Recording, write_recording
from premortem.agent.llm import Endpoint
from premortem.agent.runs import identify
from premortem.agent.store import Store
from premortem.interp.errors import (
    ExportError,
    LlmMisconfigured,
)
from premortem.interp.pairs import read_dataset
from scripted_llm import CANARY, Response, ScriptedLlm, refused, said

pytestmark = pytest.mark.usefixtures("socket_enabled", "quiet")


def test_another_run_with_the_same_questions_sends_its_probes_alone(store: Store) -> None:
    with ScriptedLlm() as server:
        first = go(store, endpoint(server))
        sent = len(server.requests)
        second = go(store, endpoint(server), seed=1)
        assert first != second
        assert [asked.prompt for asked in server.requests[sent:]] == ["probe"] * 2
    assert store.run(second).status == "done"
    assert all(call.remembered == (call.purpose != "probe") for call in store.load_llm_calls(second))
    assert len(store.load_llm_calls(second)) == sent
    assert store.load_cost(second).llm_calls == 2


def test_another_endpoint_is_asked_what_it_understands(store: Store) -> None:
    with ScriptedLlm() as server:
        go(store, endpoint(server))
    with ScriptedLlm(native_tools=False) as server:
        other = go(store, endpoint(server), seed=1)
    dialects = [call.request.dialect for call in store.load_llm_calls(other) if call.purpose == "plan"]
    assert dialects and not any(dialect.tools for dialect in dialects)


def test_what_a_run_remembered_costs_its_repetition_nothing(tmp_path: Path) -> None:
    """The budgets of both count only what was sent."""
    with Store(tmp_path / "live.db") as store, ScriptedLlm() as server:
        go(store, endpoint(server))
        run_id = go(store, endpoint(server), seed=1)
        live = store.load_cost(run_id)
        write_recording(tmp_path / "calls.jsonl", store.load_llm_calls(run_id))
    with Store(tmp_path / "replayed.db") as store:
        assert go(store, Recording(tmp_path / "calls.jsonl"), seed=1) == run_id
        assert store.load_cost(run_id).llm_calls == live.llm_calls == 2
        assert store.load_cost(run_id).llm_tokens == live.llm_tokens


def test_a_recording_that_does_not_tell_what_was_remembered_is_read(tmp_path: Path) -> None:
    with Store(tmp_path / "live.db") as store, ScriptedLlm() as server:
        write_recording(tmp_path / "calls.jsonl", store.load_llm_calls(go(store, endpoint(server))))
    lines = [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text("utf-8").splitlines()]
    old = [{name: value for name, value in line.items() if name != "remembered"} for line in lines]
    (tmp_path / "old.jsonl").write_text("".join(json.dumps(line) + "\n" for line in old), "utf-8")
    assert Recording(tmp_path / "old.jsonl").remembered == set()
    assert all("remembered" in line for line in lines)


def test_a_done_run_needs_no_endpoint(store: Store) -> None:
    with ScriptedLlm() as server:
        run_id = go(store, endpoint(server))
        carrier = endpoint(server)
    assert go(store, carrier) == run_id


@pytest.mark.parametrize("native_tools", [True, False])
def test_a_recording_in_place_of_the_endpoint_gives_the_same_rows(native_tools: bool, tmp_path: Path) -> None:
    live, replayed = tmp_path / "live" / "premortem.db", tmp_path / "replayed" / "premortem.db"
    with Store(live) as store, ScriptedLlm(native_tools=native_tools) as server:
        run_id = go(store, endpoint(server))
        calls = store.load_llm_calls(run_id)
        assert write_recording(tmp_path / "calls.jsonl", calls) == len(server.requests)
    recording = Recording(tmp_path / "calls.jsonl")
    assert recording.model == MODEL
    with Store(replayed) as store:
        assert go(store, recording) == run_id
        assert {c.request.request_id: c for c in store.load_llm_calls(run_id)} == {
            c.request.request_id: c for c in calls
        }
    assert rows(live) == rows(replayed)
    with pytest.raises(ExportError):
        write_recording(tmp_path / "calls.jsonl", calls)


def _refuses(n: int, body: dict[str, Any]) -> Response | None:
    """Fail where tools are offered, take no schema, and answer a third of the rest with a refusal or none."""
    if body.get("tools"):
        return refused(500, "tools are not supported")
    if body.get("response_format", {}).get("type") == "json_schema":
        return refused(400, "no schemas")
    asked = sum(map(ord, body["messages"][-1]["content"])) % 6
    return refused(400, "too long") if asked == 1 else said({"refusal": "I had rather not."}) if asked == 2 else None


def test_a_recording_holds_the_refusals_too(tmp_path: Path) -> None:
    live, replayed = tmp_path / "live" / "premortem.db", tmp_path / "replayed" / "premortem.db"
    with Store(live) as store, ScriptedLlm(misbehave=_refuses) as server:
        run_id = go(store, endpoint(server))
        write_recording(tmp_path / "calls.jsonl", store.load_llm_calls(run_id))
        first = store.run(run_id)
        assert {call.reply.refused for call in store.load_llm_calls(run_id)} == {
            "", "declined", "stopped", "unavailable",
        }  # fmt: skip
    with Store(replayed) as store:
        assert go(store, Recording(tmp_path / "calls.jsonl")) == run_id
        assert store.run(run_id).llm_stopped == first.llm_stopped != ""
    assert rows(live) == rows(replayed)


def test_a_refusal_is_an_answer_for_its_own_run_alone(store: Store) -> None:
    with ScriptedLlm(misbehave=lambda n, body: refused(400, "no") if n else None) as server:
        refused_run = go(store, endpoint(server))
    assert {call.reply.refused for call in store.load_llm_calls(refused_run)} == {"", "stopped"}
    with ScriptedLlm() as server:
        other = go(store, endpoint(server), seed=1)
        assert server.requests
    assert {call.reply.refused for call in store.load_llm_calls(other)} == {""}


def test_a_probe_that_failed_once_is_not_tried_again_by_the_resumed_run(store: Store) -> None:
    """Otherwise everything that was paid in one dialect would be paid again in another."""

    def fails(n: int, body: dict[str, Any]) -> Response | None:
        if body.get("tools"):
            return refused(500, "tools are not supported")
        return refused(401, "no") if n > 12 else None

    with ScriptedLlm(misbehave=fails) as server, pytest.raises(LlmMisconfigured):
        go(store, endpoint(server))
    with ScriptedLlm() as server:
        run_id = go(store, endpoint(server))
        assert not any("tools" in asked.body for asked in server.requests)
        answered = [call.request.request_id for call in store.load_llm_calls(run_id)]
    assert store.run(run_id).status == "done"
    assert len(set(answered)) == len(answered)


def test_a_request_that_was_never_recorded_is_told(tmp_path: Path) -> None:
    with Store(tmp_path / "live.db") as store, ScriptedLlm() as server:
        run_id = go(store, endpoint(server))
        write_recording(tmp_path / "calls.jsonl", store.load_llm_calls(run_id))
    recording = Recording(tmp_path / "calls.jsonl")
    other = Request(model=MODEL, messages=(ChatMessage(role="user", content="Something else?"),))
    with pytest.raises(
        LlmMisconfigured, match=rf"recording calls\.jsonl holds no answer to request {other.request_id}"
    ):
        recording.send(other)
    with Store(tmp_path / "replayed.db") as store:
        with pytest.raises(LlmMisconfigured, match="record it again"):
            go(store, recording, spec_text="Never mention the weather.")
        assert store.runs()[0].status == "failed"


@pytest.mark.parametrize("line", [b"", b"{}", b"[1", b"\xff", b"[" * 5000, b'{"purpose": "plan"}'])
def test_what_is_no_recording_is_told_with_the_line(line: bytes, tmp_path: Path) -> None:
    with Store(tmp_path / "live.db") as store, ScriptedLlm() as server:
        run_id = go(store, endpoint(server))
        write_recording(tmp_path / "calls.jsonl", store.load_llm_calls(run_id)[:2])
    held = (tmp_path / "calls.jsonl").read_bytes()
    (tmp_path / "calls.jsonl").write_bytes(held + line + b"\n")
    with pytest.raises(LlmMisconfigured, match="this is no recorded call" if line == b"\xff" else "line 3"):
        Recording(tmp_path / "calls.jsonl")
    with pytest.raises(LlmMisconfigured, match="No such file"):
        Recording(tmp_path / "other.jsonl")


# Kills

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "premortem.agent.runs",
        "premortem.agent.llm",
        "premortem.tools.find_passages",
        "premortem.tools.link_surprises",
        "premortem.tools.score_rule",
        "pytest",
    ]
)
TRIALS = 20
DELAY = 0.02
"""Seconds that the server takes for an answer."""
RUN_ID = identify(settings(), INPUTS)


def command(folder: Path, address: str) -> None:
    with Store(folder / "premortem.db", busy_seconds=60) as store:
        go(store, Endpoint(address, CANARY))


def spawn(folder: Path, address: str) -> BaseProcess:
    process = FORKS.Process(target=command, args=(folder, address))
    process.start()
    return process


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run that nothing disturbs, made by the first test that compares with it."""
    return tmp_path_factory.mktemp("undisturbed")


@pytest.fixture
def usual(undisturbed: Path) -> dict[str, Any]:
    """Rows and export of a run that nothing disturbs, and how many requests it sends."""
    if not (undisturbed / "premortem.db").exists():
        with ScriptedLlm() as server:
            command(undisturbed, server.address)
        usual_export = exported(undisturbed)
    else:
        usual_export = (undisturbed / "debugged.jsonl").read_bytes()
    found = rows(undisturbed / "premortem.db")
    return {"rows": found, "requests": len(stored(undisturbed)), "export": usual_export}


def stored(folder: Path) -> set[str]:
    """Return the requests whose answers are in the run database."""
    if not (folder / "premortem.db").exists():
        return set()
    with Store(folder / "premortem.db", busy_seconds=60) as store:
        return {call.request.request_id for call in store.load_llm_calls(RUN_ID)}


def exported(folder: Path) -> bytes:
    """Return the dataset that the run in `folder` exports, with every edit that passed."""
    source, target = folder / "pairs.jsonl", folder / "debugged.jsonl"
    pairs = [pair.model_dump(include={"prompt", "chosen", "rejected"}) for pair in FakeBench().dataset.pairs]
    source.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    with Store(folder / "premortem.db", busy_seconds=60) as store:
        edits = decided(store.passed_edits(RUN_ID), {}, unreviewed=True)
    manifest = export_dataset(read_dataset(str(source)), edits, source, target, RUN_ID)
    assert manifest.edits
    return target.read_bytes()


def kill_at(server: ScriptedLlm, process: BaseProcess, request: int, seconds: float) -> None:
    """Send SIGKILL some seconds after the server has got so many requests."""
    while len(server.requests) < request and process.is_alive():
        time.sleep(0.001)
    process.join(seconds)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)


@pytest.mark.parametrize("trial", range(TRIALS))
def test_sigkill_pays_nothing_twice_and_changes_nothing(trial: int, tmp_path: Path, usual: dict[str, Any]) -> None:
    with ScriptedLlm(delay=DELAY) as server:
        chance = random.Random(trial)
        kill_at(
            server, spawn(tmp_path, server.address), trial * usual["requests"] // (TRIALS - 1), chance.uniform(0, 0.1)
        )
        paid = stored(tmp_path)
        command(tmp_path, server.address)
        asked = server.counts()
    assert {key: asked[key] for key in paid} == dict.fromkeys(paid, 1)
    assert sum(asked.values()) - len(asked) <= SIDE_BY_SIDE
    assert len(asked) == usual["requests"]
    assert rows(tmp_path / "premortem.db") == usual["rows"]
    assert exported(tmp_path) == usual["export"]


@pytest.mark.slow
def test_a_run_killed_again_and_again_pays_nothing_twice_and_changes_nothing(
    tmp_path: Path, usual: dict[str, Any]
) -> None:
    kills, chance = 6, random.Random(7)
    settled: dict[str, int] = {}
    with ScriptedLlm(delay=DELAY) as server:
        for _ in range(kills):
            request = len(server.requests) + chance.randint(1, usual["requests"] // kills)
            kill_at(server, spawn(tmp_path, server.address), request, chance.uniform(0, 0.1))
            asked = server.counts()
            assert {key: asked[key] for key in settled} == settled, "what was answered before is asked no more"
            settled = {key: asked[key] for key in stored(tmp_path)}
        command(tmp_path, server.address)
        asked = server.counts()
    assert {key: asked[key] for key in settled} == settled
    assert sum(asked.values()) - len(asked) <= SIDE_BY_SIDE * kills
    assert len(asked) == usual["requests"]
    assert rows(tmp_path / "premortem.db") == usual["rows"]
    assert exported(tmp_path) == usual["export"]
    with Store(tmp_path / "premortem.db") as store:
        assert store.load_cost(RUN_ID).llm_calls == len(asked)
