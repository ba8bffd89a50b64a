"""Facts about runs that broke off: which of them a look recovers, and what becomes of one that starts again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fake_bench import TOOLS, FakeBench, ForecastArgs, make_edit
from premortem.agent.runs import CHECKPOINTS, RunInputs, RunSettings, hold, recover_runs, start_run
from premortem.agent.store import Store
from premortem.interp.errors import StoreError
from premortem.interp.records import Review


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


def disk_is_full(bench: FakeBench, args: ForecastArgs) -> Any:
    """Fail where the run concludes."""
    if args.edits:
        raise StoreError("the disk is full")
    return TOOLS["forecast_concepts"](bench, args)


def go(store: Store, share: float, tools: Mapping[str, Any] = TOOLS) -> str:
    settings = RunSettings(spec_path="spec.md", spec_text="be kind", data="pairs.jsonl", max_touched=share)
    inputs = RunInputs(dataset_sha256="d1", model_digest="m1", lens_ids=("l1",))
    return start_run(settings, inputs, store, store.path.parent / "runs", lambda _: FakeBench(bugs=2), tools=tools)


def work(store: Store, run_id: str) -> tuple[Any, ...]:
    calls = [(call.step, call.tool, call.arguments) for call in store.load_tool_calls(run_id)]
    return store.load_edits(run_id), store.load_verdicts(run_id), store.load_outcomes(run_id), calls


@pytest.mark.parametrize("share", [0.2, 0.25, 0.5])
def test_a_run_whose_checkpoints_are_lost_at_its_end_does_the_same_again(share: float, tmp_path: Path) -> None:
    with Store(tmp_path / "whole" / "premortem.db") as store:
        usual = work(store, go(store, share))
    with Store(tmp_path / "broken" / "premortem.db") as store:
        with pytest.raises(StoreError, match="the disk is full"):
            go(store, share, {**TOOLS, "forecast_concepts": disk_is_full})
        run_id = store.runs()[0].run_id
        (tmp_path / "broken" / "runs" / run_id / CHECKPOINTS).unlink()
        assert go(store, share) == run_id
        assert store.run(run_id).status == "done"
        assert work(store, run_id) == usual


def test_a_run_that_starts_again_keeps_what_a_person_decided(store: Store) -> None:
    with pytest.raises(StoreError, match="the disk is full"):
        go(store, 0.5, {**TOOLS, "forecast_concepts": disk_is_full})
    run_id = store.runs()[0].run_id
    again = store.passed_edits(run_id)[0]
    never_again = make_edit(again.finding_id, 3, "neutralise")
    store.save_edits(run_id, [never_again])
    for edit in (again, never_again):
        store.save_review(run_id, Review(edit_id=edit.edit_id, decision="accept", text=None, reviewer="ada", at="now"))
    (store.path.parent / "runs" / run_id / CHECKPOINTS).unlink()
    go(store, 0.5)
    assert store.run(run_id).status == "done"
    assert store.load_reviews(run_id).keys() == {again.edit_id, never_again.edit_id}
    assert {again.edit_id, never_again.edit_id} <= {edit.edit_id for edit in store.load_edits(run_id)}
    assert again.edit_id in store.load_verdicts(run_id)
