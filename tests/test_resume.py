"""A run may be killed at any moment; the same command then ends with the same rows.

Each trial is a process of its own that gets a real SIGKILL. A fork server that has imported everything keeps it quick.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from fake_bench import TOOLS, FakeBench
from premortem.agent.runs import RunInputs, RunSettings, identify, recover_runs, start_run
from premortem.agent.store import Store
from premortem.interp.errors import RunBusy

SETTINGS = RunSettings(spec_path="spec.md", spec_text="be kind", data="pairs.jsonl")
INPUTS = RunInputs(dataset_sha256="d1", model_digest="m1", lens_ids=("l1", "l2"))
RUN_ID = identify(SETTINGS, INPUTS)
TRIALS = 20
VARIES = {"runs": ("created_at", "updated_at", "settings"), "tool_calls": ("seconds",)}
"""Columns that hold times of day or durations."""

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "premortem.agent.runs",
        "premortem.tools.find_passages",
        "premortem.tools.link_surprises",
        "premortem.tools.score_rule",
        "fake_bench",
    ]
)


def command(folder: Path, delay: float = 0.0, tools: dict[str, Callable[..., Any]] | None = None) -> None:
    """Do what `agent run` does, in this process."""
    with Store(folder / "premortem.db", busy_seconds=60) as store:
        start_run(
            SETTINGS, INPUTS, store, folder / "runs", lambda _: FakeBench(bugs=1, delay=delay), tools=tools or TOOLS
        )


def spawn(folder: Path, delay: float = 0.0) -> BaseProcess:
    process = FORKS.Process(target=command, args=(folder, delay))
    process.start()
    return process


def rows(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return every row of every table that a user may look at, without the columns that hold times."""
    connection = sqlite3.connect(folder / "premortem.db")
    connection.row_factory = sqlite3.Row
    names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    tables = [name for name in sorted(names) if not name.startswith("_") and name != "spending"]
    found = {name: [dict(row) for row in connection.execute(f"SELECT * FROM {name} ORDER BY rowid")] for name in tables}
    connection.close()
    return {name: [without_times(name, row) for row in found[name]] for name in tables}


def without_times(table: str, row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in VARIES.get(table, ())}


def status(folder: Path) -> str:
    with Store(folder / "premortem.db") as store:
        return store.run(RUN_ID).status


def wait_for_calls(folder: Path, count: int) -> None:
    """Wait until the run in another process has made `count` tool calls."""
    for _ in range(6000):
        if (folder / "premortem.db").exists():
            with Store(folder / "premortem.db", busy_seconds=60) as store:
                if len(store.load_tool_calls(RUN_ID)) >= count:
                    return
        time.sleep(0.01)
    raise AssertionError(f"the run never made {count} calls")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """The rows of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    command(folder)
    return rows(folder)


@pytest.fixture(scope="module")
def usual_seconds(tmp_path_factory: pytest.TempPathFactory) -> float:
    """How long an undisturbed process takes on this machine, once the fork server is awake."""
    spawn(tmp_path_factory.mktemp("first")).join()
    started = time.monotonic()
    process = spawn(tmp_path_factory.mktemp("usual"))
    process.join()
    return time.monotonic() - started


@pytest.mark.parametrize("trial", range(TRIALS))
def test_sigkill_at_a_random_moment_changes_no_row(
    trial: int, tmp_path: Path, whole: dict[str, list[dict[str, Any]]], usual_seconds: float
) -> None:
    process = spawn(tmp_path)
    process.join(random.Random(trial).uniform(0.0, usual_seconds))
    process.kill()
    process.join()
    command(tmp_path)
    assert rows(tmp_path) == whole


def test_dying_after_any_write_changes_no_row(tmp_path: Path, whole: dict[str, list[dict[str, Any]]]) -> None:
    """One process after the other dies after a few commits, a different number each time, until one comes through."""
    for commits in itertools.cycle((5, 9, 6, 8, 7)):
        process = FORKS.Process(target=die_after_commit, args=(tmp_path, commits))
        process.start()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    assert rows(tmp_path) == whole


def die_after_commit(folder: Path, commits: int) -> None:
    """Run, and die right after the commit of that number to the run database."""
    left = itertools.count(commits - 1, -1)
    commit = Database.commit

    def last_commit(database: Database) -> None:
        commit(database)
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    Database.commit = last_commit  # type: ignore[method-assign]
    command(folder)


def test_finished_steps_are_not_done_again(tmp_path: Path) -> None:
    process = spawn(tmp_path, delay=0.05)
    wait_for_calls(tmp_path, 5)
    process.kill()
    process.join()
    names: list[str] = []

    def noted(name: str) -> Callable[..., Any]:
        def wrapped(bench: FakeBench, args: Any) -> Any:
            names.append(name)
            return TOOLS[name](bench, args)

        wrapped.__annotations__["args"] = TOOLS[name].__globals__[TOOLS[name].__annotations__["args"]]
        return wrapped

    command(tmp_path, tools={name: noted(name) for name in TOOLS})
    assert names.count("fetch_clusters") <= 3
    assert names.count("forecast_concepts") == 2, "once to wake the new bench, once to conclude"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_polite_signal_leaves_the_run_interrupted(
    number: signal.Signals, tmp_path: Path, whole: dict[str, list[dict[str, Any]]]
) -> None:
    process = spawn(tmp_path, delay=0.2)
    wait_for_calls(tmp_path, 2)
    os.kill(process.pid or 0, number)
    process.join()
    assert process.exitcode == 0
    assert status(tmp_path) == "interrupted"
    command(tmp_path)
    assert rows(tmp_path) == whole


def test_two_processes_do_not_work_on_one_run(tmp_path: Path) -> None:
    process = spawn(tmp_path, delay=0.2)
    wait_for_calls(tmp_path, 1)
    with pytest.raises(RunBusy, match=f"process {process.pid} on "):
        command(tmp_path)
    process.kill()
    process.join()


def test_a_killed_run_is_recovered_as_interrupted(tmp_path: Path) -> None:
    process = spawn(tmp_path, delay=0.2)
    wait_for_calls(tmp_path, 1)
    with Store(tmp_path / "premortem.db") as store:
        recover_runs(store, tmp_path / "runs")
        assert store.run(RUN_ID).status == "running"
        process.kill()
        process.join()
        recover_runs(store, tmp_path / "runs")
        assert store.run(RUN_ID).status == "interrupted"


def test_spending_is_summed_over_attempts(tmp_path: Path) -> None:
    process = spawn(tmp_path, delay=0.1)
    wait_for_calls(tmp_path, 3)
    process.kill()
    process.join()
    with Store(tmp_path / "premortem.db") as store:
        before = store.load_cost(RUN_ID)
        command(tmp_path)
        after = store.load_cost(RUN_ID)
    assert before.seconds > 0.2
    assert after.seconds > before.seconds
    assert after.tokens_encoded > before.tokens_encoded >= 30


def test_checkpoints_without_records_are_not_believed(tmp_path: Path, whole: dict[str, list[dict[str, Any]]]) -> None:
    command(tmp_path)
    for path in tmp_path.glob("premortem.db*"):
        path.unlink()
    command(tmp_path)
    assert rows(tmp_path) == whole


def test_a_run_whose_checkpoints_are_lost_starts_again(tmp_path: Path, whole: dict[str, list[dict[str, Any]]]) -> None:
    process = spawn(tmp_path, delay=0.1)
    wait_for_calls(tmp_path, 4)
    process.kill()
    process.join()
    for path in (tmp_path / "runs" / RUN_ID).glob("checkpoints.db*"):
        path.unlink()
    command(tmp_path)
    assert rows(tmp_path) == whole
