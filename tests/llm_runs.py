"""Whole runs with an LLM behind HTTP, on a bench without a model: what the tests of them share."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fake_bench import TOOLS, FakeBench
from premortem.agent.chat import Carrier
from premortem.agent.llm import Endpoint
from premortem.agent.runs import RunInputs, RunSettings, start_run
from premortem.agent.store import Store
from premortem.interp.records import Clause
from scripted_llm import CANARY, ScriptedLlm

MODEL = "gpt-4o-mini"
"""A name that price lists know."""
SPEC = "# Rules\n\nNever flatter the reader with sweet praise.\n\nAnswers should mention fresh vegetables.\n"
INPUTS = RunInputs(dataset_sha256="d1", model_digest="m1", lens_ids=("l1", "l2"))
KEPT = ("clauses", "findings", "clusters", "edits", "verdicts")
"""Tables that must not depend on what happened to a run on its way."""


class ReadingBench(FakeBench):
    """Keeps the rules that its findings break beside those that were read."""

    def set_clauses(self, clauses: Sequence[Clause]) -> None:
        self.clauses = (*FakeBench(bugs=self.bugs).clauses, *clauses)


def settings(**changes: Any) -> RunSettings:
    return RunSettings(spec_path="spec.md", data="pairs.jsonl", **{"spec_text": SPEC, "llm": MODEL, **changes})


def endpoint(server: ScriptedLlm) -> Endpoint:
    return Endpoint(server.address, timeout=2.0, retries=1)


def go(store: Store, carrier: Carrier | None, tools: Mapping[str, Any] = TOOLS, **changes: Any) -> str:
    """Do what `agent run` does, in this process."""
    runs = store.path.parent / "runs"
    return start_run(
        settings(**changes), INPUTS, store, runs, lambda _: ReadingBench(bugs=1), tools=tools, carrier=carrier
    )


def rows(path: Path, tables: tuple[str, ...] = KEPT) -> dict[str, list[dict[str, Any]]]:
    """Return every row of the tables of a run database."""
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    found = {name: [dict(row) for row in connection.execute(f"SELECT * FROM {name} ORDER BY seq")] for name in tables
             if name != "clusters"}  # fmt: skip
    found["clusters"] = [
        dict(row) for row in connection.execute("SELECT * FROM clusters ORDER BY finding_id, position")
    ]
    connection.close()
    return found


def never_on_disk(folder: Path) -> None:
    """Assert that the key is in no file of the run, the logs of open databases included."""
    assert any(folder.rglob("premortem.db-wal"))
    assert holding_the_key(folder) == []


def holding_the_key(folder: Path) -> list[Path]:
    """Return the files under `folder` that hold the key."""
    return [path for path in folder.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
