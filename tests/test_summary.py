"""Facts about what a reader is told of a run, in the terminal and in the report."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from premortem.agent.report import render_report
from premortem.agent.show import forecast_view, print_view, run_summary
from premortem.agent.summary import clause_state, finding_views, headline, newly_broken
from premortem.interp.records import ROWS_TOLD
from run_document import document, edit, pairs, verdict

BROKEN = "Always answer in whole sentences."


def terminal(run: dict[str, Any]) -> str:
    """Return what `agent show` prints of a run."""
    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    console.print(run_summary(run))
    return console.file.getvalue()  # type: ignore[attr-defined]


def broken_by_edits() -> dict[str, Any]:
    """Return a run whose edits break the rule that its data keeps, and mend the other one."""
    run = document()
    finding = {**run["findings"][0], "clause_id": "k000000000000002", "kind": "missing", "effect": 0.0}
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


def test_what_to_do_about_a_surprise_is_told_where_there_is_one_without_edits():
    run, told = document(), "a surprise that should not happen: write a rule against it"
    assert told in terminal(run)
    run["edits"].append(edit(4, 3) | {"finding_id": run["findings"][1]["finding_id"]})
    assert told not in terminal(run)
    run["findings"] = run["findings"][:1]
    assert told not in terminal(run)


def beyond_without_a_finding() -> dict[str, Any]:
    """Return a run in which a second rule is about the concept of the first one's finding, and has none of its own."""
    run = document()
    run["clauses"][1] = {**run["clauses"][0], "clause_id": "k000000000000002", "text": "No nautical words."}
    left = {**run["findings"][0], "clause_id": "k000000000000002", "effect": 0.03, "low": 0.01, "high": 0.05}
    run["forecast_after"] = {**run["forecast_after"], "findings": [left]}
    return run


def test_what_the_edits_lessen_is_not_told_as_broken_by_them():
    run = beyond_without_a_finding()
    assert newly_broken(run) == [] and "with these edits" not in terminal(run).lower()
    run["forecast_after"]["findings"][0]["effect"] = 0.6
    assert newly_broken(run) == ["No nautical words."]


def test_a_rule_beyond_its_limit_without_a_finding_is_not_told_as_kept():
    run = beyond_without_a_finding()
    states = [clause_state(run, clause) for clause in run["clauses"]]
    assert states == ["broken", "beyond"] and "an effect beyond its limit, not certain" in render_report(run, pairs())
    assert clause_state(run, {**run["clauses"][1], "limit": 0.6}) == "kept"
    assert clause_state(run, {**run["clauses"][1], "direction": "keep"}) == "kept"


def in_a_topic() -> dict[str, Any]:
    """Return a run whose broken rule is broken within a topic only."""
    run = document()
    run["findings"][0] |= {"topic": "gardens", "overall": 0.005}
    return run


def test_a_finding_of_one_topic_says_so_and_tells_its_effect_there_and_everywhere():
    run = in_a_topic()
    assert "Never talk like a sailor. · in gardens   +50.0" in terminal(run)
    page = " ".join(render_report(run, pairs()).split())
    assert "In answers to prompts of the topic “gardens” DPO would change" in page
    assert "Over all pairs it is +0.5 points." in page


@pytest.mark.parametrize("passed", [True, False])
def test_terminal_and_report_tell_the_same_effect_after_the_edits(passed: bool):
    run = document()
    first, last = (verdict(False, effect_after=after) for after in (0.25, 0.04))
    run["edits"] = [edit(1, 2, verdict=first), edit(2, 0, verdict=verdict(True, effect_after=0.01) if passed else last)]
    told = 0.01 if passed else 0.04
    (view, _) = finding_views(run)
    assert view.verdict is not None and view.verdict["effect_after"] == told
    assert f"+{100 * told:.1f}" in terminal(run) and "+25.0" not in terminal(run) + render_report(run, pairs())


def test_the_interval_of_another_forecaster_is_not_drawn_around_what_was_judged():
    run = document()
    assert render_report(run, pairs()).count('class="whisker"') == 6
    run["findings"][0]["effect"] = 0.4
    assert render_report(run, pairs()).count('class="whisker"') == 5


def test_a_name_that_failed_its_test_is_marked_however_long_it_is():
    run = document()
    run["forecast"]["concepts"][2]["name"] = "carrots and radishes " * 9
    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    console.print(forecast_view(run))
    assert "… ?" in console.file.getvalue()  # type: ignore[attr-defined]
    page = render_report(run, pairs())
    assert "… ?</text>" in page and ">sorry, cannot</text>" in page


PLACE = " --runs-dir '/home/ana/all my runs of this year' --db /home/ana/databases/premortem.db"


@pytest.mark.parametrize("place", ["", PLACE])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_command_that_comes_next_stands_whole_on_its_line(width: int, place: str):
    console = Console(file=(out := io.StringIO()), width=width, force_terminal=False)
    print_view(run_summary(document(), place), console)
    lines = out.getvalue().partition("Next:\n")[2].splitlines()
    run = document()["run_id"]
    steps = {
        f"  agent review {run}{place}": "decide on the edits, one by one",
        f"  agent report {run}{place}": "one HTML file to read and share",
        f"  agent export {run} -o FILE{place}": "the debugged dataset, for TRL",
    }
    room = max(map(len, steps)) + 3
    beside = [command.ljust(room) + why for command, why in steps.items()]
    below = [line for command, why in steps.items() for line in (command, f"    {why}")]
    assert lines == (beside if max(map(len, beside)) <= width else below)


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_a_run_that_is_not_done_is_offered_neither_for_review_nor_for_export(status: str):
    told = terminal(document() | {"status": status})
    assert "agent report" in told and "agent review" not in told and "agent export" not in told


def test_what_an_llm_finds_wrong_with_the_spec_is_told_in_the_terminal_and_in_the_report():
    problem = "contradiction: one asks for [b]lists[/b] & the other forbids them (A / B) Suggestion: keep <one>"
    run = document() | {"spec_problems": [problem]}
    assert f"the spec, {problem}" in " ".join(terminal(run).split())
    page = render_report(run, pairs())
    assert "&amp; the other forbids them (A / B) Suggestion: keep &lt;one&gt;" in page
    for told in (terminal(document()), render_report(document(), pairs())):
        assert "the spec, " not in told and "cannot be checked as it stands" not in told


def test_nobody_is_told_to_start_a_run_that_is_at_work():
    early = {"status": "running", "forecast": {"n_pairs": None, "concepts": []}}
    assert headline(document() | early) == "No forecast yet, the run is at work; `agent show` tells how far it is."
    told = terminal(document() | {"status": "running"})
    assert "The run is at work; `agent show` tells how far it is." in told and "same command" not in told
    assert "(interrupted); the same command goes on" in terminal(document() | {"status": "interrupted"})


def test_a_long_path_and_a_narrow_terminal_hide_neither_counts_nor_rules():
    run = document()
    run["dataset"] |= {"path": "/data/" + "deep/" * 40 + "pairs.jsonl", "quarantined": 57}
    run["lens"]["model"] = "/models/" + "deep/" * 40
    told = terminal(run)
    assert "4 pairs, 57 quarantined" in told and "FVU 0.18, L0 47" in told
    console = Console(file=io.StringIO(), width=45, force_terminal=False)
    console.print(run_summary(run))
    assert "Never talk like a sailor." in console.file.getvalue()  # type: ignore[attr-defined]


def test_rows_that_are_not_all_told_are_marked():
    run = document()
    run["forecast"]["concepts"][0]["rows"] = list(range(ROWS_TOLD))
    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    console.print(forecast_view(run))
    assert f" {ROWS_TOLD}+ " in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_run_whose_edits_were_not_forecast_again_breaks_nothing_anew():
    run = broken_by_edits()
    run["forecast_after"] = {"forecaster": "calibrated", "n_pairs": None, "concepts": [], "findings": []}
    assert newly_broken(run) == []


def test_surprises_alone_are_told_as_what_the_spec_never_mentions():
    run = document()
    assert headline(run).endswith("1 thing that the spec forbids and 1 thing that it never mentions.")
    run["findings"] = [found for found in run["findings"] if found["kind"] == "surprise"]
    assert headline(run) == "DPO on these 4 pairs would teach 1 thing that the spec never mentions."


def test_the_headline_tells_what_is_lost_from_what_is_forbidden():
    run = document()
    run["clauses"][0]["direction"] = "keep"
    assert headline(run) == (
        "DPO on these 4 pairs would teach 1 thing that the spec never mentions, "
        "and would take away 1 thing that the spec wants to keep."
    )
    run["findings"] = [found for found in run["findings"] if found["kind"] == "forbidden"]
    assert headline(run) == "DPO on these 4 pairs would take away 1 thing that the spec wants to keep."


@pytest.mark.parametrize(
    ("direction", "told", "not_told"),
    [
        ("avoid", "the spec forbids it, the data teaches it", "the data takes it away"),
        ("keep", "the spec wants to keep it, the data takes it away", "the spec forbids it"),
        ("encourage", "the spec asks for it, the data takes it away", "the spec forbids it"),
    ],
)
def test_what_is_to_be_kept_and_is_lost_is_not_called_forbidden(direction: str, told: str, not_told: str):
    run = document()
    run["clauses"][0]["direction"] = direction
    page = render_report(run, pairs())
    assert told in page and not_told not in page


@pytest.mark.parametrize(("second", "told"), [(0.02, "a second lens that took no part"), (None, "no second lens")])
def test_the_report_speaks_of_a_second_lens_only_where_one_took_part(second: float | None, told: str):
    run = document()
    for one in run["edits"]:
        one["verdict"]["second_lens"] = second
    page = render_report(run, pairs())
    assert told in page and ("a second lens that took no part" in page) == (second is not None)


def test_the_report_tells_where_quarantined_lines_went():
    run = document()
    assert "1 line was quarantined" in render_report(run, pairs())
    assert "<code>quarantined.jsonl</code>" in render_report(run, pairs())
    run["dataset"]["quarantined"] = 0
    assert "quarantined.jsonl" not in render_report(run, pairs())


def test_the_report_says_where_its_runs_are_beside_the_command_to_review():
    run = document()
    run["edits"] = [edit(number, number % 4) for number in range(40)]
    page = render_report(run, pairs(), place=" --runs-dir 'my runs'")
    assert f"<code>agent review {run['run_id']} --runs-dir &#39;my runs&#39;</code>" in page
