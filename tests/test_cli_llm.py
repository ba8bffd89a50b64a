"""`agent run --llm`, over HTTP and from a recording, as a user meets it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_bench import FakeBench
from scripted_llm import ScriptedLlm
from test_cli import Agent, agent, bench

__all__ = ["agent", "bench"]

RUN = ("run", "--spec", "spec.md", "--json")


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch, socket_enabled: None) -> Iterator[ScriptedLlm]:
    with ScriptedLlm() as llm:
        monkeypatch.setenv("OPENAI_BASE_URL", llm.address)
        monkeypatch.setenv("OPENAI_API_KEY", "canary-0123456789-SECRET")
        yield llm


def written(document: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(edit["edit_id"], edit["after"], edit["author"]) for edit in document["edits"]]


def test_the_user_is_told_where_the_text_goes(agent: Agent, bench: FakeBench, endpoint: ScriptedLlm) -> None:
    result = agent(*RUN, "--llm", "model-x")
    assert result.exit_code == 0
    assert f"go to model-x at {endpoint.address}" in result.stderr


@pytest.mark.parametrize(("model", "told"), [("model-x", True), ("gpt-4o-mini", False)])
def test_a_bound_in_dollars_that_bounds_nothing_is_told(
    model: str, told: bool, agent: Agent, bench: FakeBench, endpoint: ScriptedLlm
) -> None:
    note = f"nobody lists a price for {model} at {endpoint.address}, so --max-llm-usd bounds nothing"
    result = agent(*RUN, "--llm", model, "--max-llm-usd", "1")
    assert result.exit_code == 0
    assert (note in " ".join(result.stderr.split())) == told


def test_edits_tell_who_wrote_them_and_calls_what_they_cost(
    agent: Agent, bench: FakeBench, endpoint: ScriptedLlm
) -> None:
    document = json.loads(agent(*RUN, "--llm", "model-x").stdout)
    assert {edit["author"] for edit in document["edits"]} == {"model-x", "built-in"}
    assert document["cost"]["llm_calls"] == len(endpoint.requests)
    assert "The LLM wrote" in agent("show", "last").stdout


def test_a_recording_repeats_the_run_without_the_endpoint(
    agent: Agent, bench: FakeBench, endpoint: ScriptedLlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = json.loads(agent(*RUN, "--llm", "model-x").stdout)
    made = json.loads(agent("recording", "last", "-o", "run.llm.jsonl", "--json").stdout)
    assert made["calls"] == first["cost"]["llm_calls"]
    asked = len(endpoint.requests)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    bench.asleep, bench.author, bench.known = True, None, {}
    again = json.loads(agent(*RUN, "--replay", "run.llm.jsonl", "--runs-dir", "elsewhere").stdout)
    assert len(endpoint.requests) == asked
    assert again["run_id"] == first["run_id"]
    assert written(again) == written(first)


def test_a_recording_is_never_overwritten(agent: Agent, bench: FakeBench, endpoint: ScriptedLlm) -> None:
    agent(*RUN, "--llm", "model-x")
    assert agent("recording", "last", "-o", "run.llm.jsonl").exit_code == 0
    again = agent("recording", "last", "-o", "run.llm.jsonl")
    assert again.exit_code == 1
    assert "exists already" in again.stderr


@pytest.mark.parametrize(
    ("content", "told"), [("", "is empty"), ("{}\n", "line 1: this is no recorded call"), (None, "No such file")]
)
def test_what_is_no_recording_is_refused_in_one_line(
    agent: Agent, bench: FakeBench, content: str | None, told: str
) -> None:
    if content is not None:
        Path("bad.jsonl").write_text(content)
    result = agent(*RUN, "--replay", "bad.jsonl")
    assert result.exit_code == 1
    assert told in result.stderr
    assert result.stderr.count("\n") == 1


def test_without_a_key_nothing_starts(agent: Agent, bench: FakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    result = agent(*RUN, "--llm", "model-x")
    assert result.exit_code == 1
    assert "OPENAI_API_KEY is not set" in result.stderr


def test_the_spec_may_name_the_llm_and_built_in_takes_it_back(
    agent: Agent, bench: FakeBench, endpoint: ScriptedLlm
) -> None:
    Path("spec.md").write_text("---\ndata: pairs.jsonl\nllm: model-y\n---\n- Never say ahoy.\n")
    assert agent(*RUN, "--llm", "built-in").exit_code == 0
    assert endpoint.requests == []
    bench.asleep, bench.author, bench.known = True, None, {}
    document = json.loads(agent(*RUN).stdout)
    assert "model-y" in {edit["author"] for edit in document["edits"]}


def test_the_key_is_in_no_file_of_the_run(
    agent: Agent, bench: FakeBench, endpoint: ScriptedLlm, tmp_path: Path
) -> None:
    agent(*RUN, "--llm", "model-x")
    agent("recording", "last", "-o", "run.llm.jsonl")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"canary-0123456789-SECRET" in path.read_bytes()]
