"""Facts about runs that broke off: which of them a look recovers, and what becomes of one that starts again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fake_bench import TOOLS, FakeBench, ForecastArgs, make_edit
from premortem.agent.ledger import Budget
from premortem.agent.runs import (
    CHECKPOINTS,
    RunInputs,
    RunSettings,
    hold,
    identify,
    recover_runs,
    start_run,
    unfinished_like,
)
from premortem.agent.store import Store
from premortem.interp.errors import RunBusy, StoreError
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


SETTINGS = RunSettings(spec_path="spec.md", spec_text="be kind", data="pairs.jsonl")
INPUTS = RunInputs(dataset_sha256="d1", model_digest="m1", lens_ids=("l1",))


def go(
    store: Store, share: float, tools: Mapping[str, Any] = TOOLS, runs_dir: Path | None = None, bugs: int = 2
) -> str:
    settings = SETTINGS.model_copy(update={"max_touched": share})
    folder = runs_dir or store.path.parent / "runs"
    return start_run(settings, INPUTS, store, folder, lambda _: FakeBench(bugs=bugs), tools=tools)


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


def power_fails(bench: FakeBench, args: Any) -> Any:
    """Interrupt the run in its second verification."""
    bench.verified = getattr(bench, "verified", 0) + 1  # type: ignore[attr-defined]
    if bench.verified == 2:  # type: ignore[attr-defined]
        raise KeyboardInterrupt
    return TOOLS["verify_edits"](bench, args)


power_fails.__annotations__["args"] = TOOLS["verify_edits"].__globals__["VerifyArgs"]


def interrupted(store: Store, runs_dir: Path | None = None) -> str:
    run_id = go(store, 0.5, {**TOOLS, "verify_edits": power_fails}, runs_dir)
    assert store.run(run_id).status == "interrupted"
    return run_id


def test_a_run_goes_on_where_it_was_left_though_it_is_called_elsewhere(store: Store, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    run_id = interrupted(store, here)
    before = [(call.step, call.tool) for call in store.load_tool_calls(run_id)]
    with hold(here / run_id), pytest.raises(RunBusy):
        go(store, 0.5, runs_dir=there)
    assert go(store, 0.5, runs_dir=there) == run_id
    after = [(call.step, call.tool) for call in store.load_tool_calls(run_id)]
    assert (store.run(run_id).status, after[: len(before)]) == ("done", before)
    assert not there.exists()


def test_a_run_whose_data_is_read_otherwise_now_starts_again(
    store: Store, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """As on another device, whose rounding gives concepts, and so findings, other ids."""
    run_id = interrupted(store)
    known = {finding.finding_id for finding in store.load_findings(run_id)}
    reviewed = store.load_edits(run_id)[0]
    store.save_review(run_id, Review(edit_id=reviewed.edit_id, decision="accept", text=None, reviewer="ada", at="now"))
    benches: list[FakeBench] = []

    def other(_: RunSettings) -> FakeBench:
        bench = FakeBench(bugs=2)
        bench.findings = tuple(
            one.model_copy(update={"finding_id": f"other-{one.finding_id}", "concept_id": f"other-{one.concept_id}"})
            for one in bench.findings
        )
        benches.append(bench)
        return bench

    settings = SETTINGS.model_copy(update={"max_touched": 0.5})
    start_run(settings, INPUTS, store, store.path.parent / "runs", other, tools=TOOLS)
    document = store.document(run_id)
    assert document["status"] == "done"
    assert len(benches) == 2, "what the first bench was told of the data must not be told to the second run"
    assert {finding["finding_id"] for finding in document["findings"]} == {
        one.finding_id for one in benches[1].findings
    }
    assert {one.finding_id for one in store.load_findings(run_id)} & known == {reviewed.finding_id}
    assert reviewed.edit_id in {edit["edit_id"] for edit in document["edits"]}
    assert "it starts again" in capsys.readouterr().err


def test_a_run_that_has_ended_meanwhile_is_not_recovered(store: Store, tmp_path: Path) -> None:
    begun(store, tmp_path / "runs" / "r")
    store.set_status("r", "done")
    store.mark_killed("r")
    assert store.run("r").status == "done"


def test_a_run_without_an_llm_is_the_same_whatever_an_llm_might_use() -> None:
    more = {"budget": Budget(calls=7)}
    assert identify(SETTINGS.model_copy(update=more), INPUTS) == identify(SETTINGS, INPUTS)
    asked = SETTINGS.model_copy(update={"llm": "m"})
    assert identify(asked.model_copy(update=more), INPUTS) != identify(asked, INPUTS)


def test_another_unfinished_run_of_the_same_rules_is_told_with_what_differs(store: Store) -> None:
    run_id = interrupted(store)
    other = SETTINGS.model_copy(update={"max_touched": 0.3})
    found = unfinished_like(store, other, INPUTS)
    assert found is not None
    assert (found.run_id, found.differs) == (run_id, ("max_touched",))
    elsewhere = unfinished_like(store, other.model_copy(update={"model": "org/name", "data": "there.jsonl"}), INPUTS)
    assert elsewhere is not None and elsewhere.differs == ("model", "max_touched")
    assert unfinished_like(store, SETTINGS.model_copy(update={"max_touched": 0.5}), INPUTS) is None  # it goes on
    assert unfinished_like(store, other, INPUTS.model_copy(update={"dataset_sha256": "d2"})) is None
