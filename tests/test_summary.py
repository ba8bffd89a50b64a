"""Facts about what a reader is told of a run, in the terminal and in the report."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from premortem.agent.report import render_report
from premortem.agent.show import run_summary
from premortem.agent.summary import newly_broken
from run_document import document, pairs

BROKEN = "Always answer in whole sentences."


def terminal(run: dict[str, Any]) -> str:
    """Return what `agent show` prints of a run."""
    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    console.print(run_summary(run))
    return console.file.getvalue()  # type: ignore[attr-defined]


def broken_by_edits() -> dict[str, Any]:
    """Return a run whose edits break the rule that its data keeps, and mend the other one."""
    run = document()
    finding = {**run["findings"][0], "clause_id": "k000000000000002", "kind": "missing"}
    run["forecast_after"] = {**run["forecast_after"], "findings": [finding]}
    return run


def test_what_the_edits_newly_break_is_told_in_the_terminal_and_in_the_report():
    run = broken_by_edits()
    assert newly_broken(run) == [BROKEN]
    assert f"with these edits the forecast breaks: {BROKEN}" in terminal(run)
    page = render_report(run, pairs())
    told = f"With these edits the forecast breaks: {BROKEN}"
    assert told in page and page.index(told) < page.index("<h2>Findings</h2>")


def test_a_rule_that_the_data_breaks_already_is_not_told_as_broken_by_the_edits():
    run = document()
    run["forecast_after"] = {**run["forecast_after"], "findings": run["findings"]}
    assert newly_broken(run) == []
    assert "with these edits" not in terminal(run).lower()
    assert "the forecast breaks: " not in render_report(run, pairs())


def test_a_run_whose_edits_were_not_forecast_again_breaks_nothing_anew():
    run = broken_by_edits()
    run["forecast_after"] = {"forecaster": "calibrated", "n_pairs": None, "concepts": [], "findings": []}
    assert newly_broken(run) == []
