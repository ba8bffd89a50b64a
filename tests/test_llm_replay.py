"""A real LLM's run on the demo, repeated from its recording: the same edits, the same export, whatever kills it.

The recording was made with Qwen2.5-Coder-1.5B-Instruct over HTTP; `tests/demo/llm.json` says with which options, and
what came of it. A run's id holds the version of this program, and an export tells the run's id in each changed row: so
the hash is of the export with `RUN` in its place.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llm_runs import holding_the_key
from premortem.agent.ledger import SIDE_BY_SIDE
from premortem.agent.store import Store
from replayed_llm import ReplayedLlm
from scripted_llm import CANARY

ROOT = Path(__file__).parent.parent
RECORDING = Path(__file__).parent / "demo" / "llm.jsonl"
RECORDED = json.loads((Path(__file__).parent / "demo" / "llm.json").read_text("utf-8"))

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(900)]


def agent(*arguments: object, folder: Path) -> dict[str, Any]:
    """Run a command with --json, without a key or an endpoint, and return its document."""
    command = [sys.executable, "-m", "premortem.agent", *map(str, arguments), "--json", "--runs-dir", str(folder)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    done = subprocess.run(
        command, capture_output=True, text=True, env=env | {"HF_HUB_OFFLINE": "1"}, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    return tmp_path_factory.mktemp("replay")


@pytest.fixture(scope="module")
def run(folder: Path) -> dict[str, Any]:
    options = RECORDED["options"]
    return agent("run", "--spec", "runs/demo/spec.md", "--replay", RECORDING, *options, folder=folder)


def test_the_replayed_run_is_the_recorded_one(run: dict[str, Any]) -> None:
    assert run["status"] == "done"
    assert run["cost"]["llm_calls"] == RECORDED["llm_calls"]


def test_every_fixable_finding_has_an_accepted_edit_by_the_llm(run: dict[str, Any]) -> None:
    fixed = {finding["finding_id"] for finding in run["findings"] if finding["outcome"] == "fixed"}
    by_llm = {
        edit["finding_id"] for edit in run["edits"] if edit["author"] == RECORDED["llm"] and edit["verdict"]["passed"]
    }
    assert len(fixed) == 4
    assert fixed <= by_llm


def test_the_export_is_the_same_byte_for_byte(run: dict[str, Any], folder: Path) -> None:
    assert exported(run["run_id"], folder) == RECORDED["export_sha256"]


def exported(run_id: str, folder: Path) -> str:
    """Return the hash of a run's export, whatever the run is called."""
    agent("export", run_id, "-o", folder / "out.jsonl", folder=folder)
    return hashlib.sha256((folder / "out.jsonl").read_bytes().replace(run_id.encode(), b"RUN")).hexdigest()


@pytest.mark.usefixtures("socket_enabled")
def test_a_run_over_http_that_is_killed_pays_nothing_twice_and_exports_the_same(
    tmp_path: Path, model_dir: Path
) -> None:
    """Killed while the spec is read, while edits are written, and near the end."""
    with ReplayedLlm(RECORDING, delay=0.05) as server:
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "OPENAI_BASE_URL": server.address, "OPENAI_API_KEY": CANARY}
        command = ["run", "--spec", "runs/demo/spec.md", "--llm", server.model, *RECORDED["options"]]
        settled: dict[str, int] = {}
        for requests in (5, 60, 150, None):
            process = subprocess.Popen(
                [sys.executable, "-m", "premortem.agent", *command, "--json", "--runs-dir", str(tmp_path)],
                env=env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            while requests is not None and len(server.requests) < requests and process.poll() is None:
                time.sleep(0.01)
            if requests is not None:
                process.kill()
            code = process.wait()
            assert code == (0 if requests is None else -signal.SIGKILL)
            asked = server.counts()
            assert {key: asked[key] for key in settled} == settled, "what was answered before is asked no more"
            with Store(tmp_path / "premortem.db") as store:
                run_id = store.runs()[0].run_id
                held = {call.request.request_id for call in store.load_llm_calls(run_id)}
            settled = {key: asked[key] for key in held}
        assert len(asked) == RECORDED["llm_calls"]
        assert sum(asked.values()) - len(asked) <= 3 * SIDE_BY_SIDE
    assert exported(run_id, tmp_path) == RECORDED["export_sha256"]
    assert holding_the_key(tmp_path) == []
