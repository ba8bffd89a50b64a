"""Facts about runs that broke off: which of them a look recovers."""

from __future__ import annotations

from pathlib import Path

import pytest

from premortem.agent.runs import hold, recover_runs
from premortem.agent.store import Store


def begun(store: Store, folder: Path) -> None:
    store.begin_run("r", spec="", settings={"folder": str(folder)}, forecaster="excess")


@pytest.mark.parametrize("there", ["/proc/nowhere/runs/r", "elsewhere/runs/r"])
def test_a_run_whose_folder_is_nowhere_is_held_by_nobody(there: str, store: Store, tmp_path: Path) -> None:
    begun(store, tmp_path / there)
    recover_runs(store, tmp_path / "runs")
    assert store.run("r").status == "interrupted"
    assert not (tmp_path / "elsewhere").exists()
    assert not (tmp_path / "runs").exists()


def test_a_run_that_was_moved_while_a_process_holds_it_is_left_alone(store: Store, tmp_path: Path) -> None:
    begun(store, tmp_path / "elsewhere" / "r")
    with hold(tmp_path / "runs" / "r"):
        recover_runs(store, tmp_path / "runs")
        assert store.run("r").status == "running"
    recover_runs(store, tmp_path / "runs")
    assert store.run("r").status == "interrupted"


def test_a_run_whose_folder_cannot_be_held_locks_nothing(store: Store, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "r").write_text("no folder")
    begun(store, tmp_path / "runs" / "r")
    recover_runs(store, tmp_path / "runs")
    assert store.run("r").status == "running"
