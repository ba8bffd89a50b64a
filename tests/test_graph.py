"""The graph, driven by the built-in planner on a bench without a model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from fake_bench import (
    N_PAIRS,
    ROWS_PER_BUG,
    TOOLS,
    FakeBench,
    ForecastArgs,
    VerifyArgs,
    make_clause,
    make_finding,
    make_verdict,
)
from premortem.agent.graph import build_graph
from premortem.agent.nodes import MAX_SETTLES, Nodes
from premortem.agent.planner import Action, BuiltinPlanner, Case, Look, Propose, Stop, Synthesise
from premortem.agent.runs import RunInputs, RunSettings, identify, start_run
from premortem.agent.store import Store
from premortem.agent.toolbox import TOOL_NAMES, LazyTools, Meter, Toolbox
from premortem.interp.errors import StoreError, ToolError
from premortem.interp.records import Edit, Verdict

INPUTS = RunInputs(dataset_sha256="d1", model_digest="m1", lens_ids=("l1", "l2"))
Start = Callable[..., str]


def make_settings(**changes: Any) -> RunSettings:
    return RunSettings(spec_path="spec.md", spec_text="be kind", data="pairs.jsonl", **changes)


@pytest.fixture
def start(store: Store, tmp_path: Path) -> Start:
    """Start a run with changed settings, tools, bench or planner."""

    def run(bench: FakeBench | None = None, planner: Any = None, tools: Any = None, **changes: Any) -> str:
        settings, made = make_settings(**changes), bench or FakeBench()
        every = {**TOOLS, **(tools or {})}
        return start_run(settings, INPUTS, store, tmp_path / "runs", lambda _: made, planner=planner, tools=every)

    return run


def make_case(kind: str = "forbidden", **changes: Any) -> Case:
    values: dict[str, Any] = {"clause": make_clause(0), "n_pairs": 100, "attempt": 0, "refused": (), "verdicts": ()}
    return Case(finding=make_finding(0, kind, ()), **{**values, **changes})


def edits_of(store: Store, run_id: str, number: int) -> tuple[Edit, ...]:
    return store.load_edits(run_id, store.load_findings(run_id)[number].finding_id)


def test_a_run_ends_done_with_every_finding_closed(store: Store, start: Start) -> None:
    run_id = start()
    assert store.run(run_id).status == "done"
    outcomes = [store.load_outcomes(run_id)[found.finding_id].kind for found in store.load_findings(run_id)]
    assert outcomes == ["fixed", "fixed", "fixed", "reported"]


def test_refused_rewrites_are_proposed_again_as_flips(store: Store, start: Start) -> None:
    run_id = start()
    verdicts = store.load_verdicts(run_id)
    seen = [(edit.row, edit.kind, verdicts[edit.edit_id].passed) for edit in edits_of(store, run_id, 0)]
    assert seen == [
        (0, "rewrite", False), (1, "rewrite", True), (2, "rewrite", True), (3, "rewrite", True), (0, "flip", True),
    ]  # fmt: skip


def test_every_edit_gets_a_verdict(store: Store, start: Start) -> None:
    run_id = start()
    assert {edit.edit_id for edit in store.load_edits(run_id)} == set(store.load_verdicts(run_id))


def test_no_row_of_a_finding_is_mended_twice(store: Store, start: Start) -> None:
    run_id = start()
    for finding in store.load_findings(run_id):
        rows = [edit.row for edit in store.passed_edits(run_id) if edit.finding_id == finding.finding_id]
        assert len(rows) == len(set(rows))


def test_what_is_missing_gets_new_pairs(store: Store, start: Start) -> None:
    run_id = start()
    assert {edit.kind for edit in edits_of(store, run_id, 2)} == {"synthesise"}


def test_a_surprise_is_traced_and_left_alone(store: Store, start: Start) -> None:
    run_id = start()
    surprise = store.load_findings(run_id)[3]
    assert store.load_clusters(run_id, surprise.finding_id)
    assert edits_of(store, run_id, 3) == ()


def test_a_surprise_is_mended_on_request(store: Store, start: Start) -> None:
    run_id = start(fix_surprises=True)
    assert store.load_outcomes(run_id)[store.load_findings(run_id)[3].finding_id].kind == "fixed"


def test_the_last_forecast_has_the_passed_edits_applied(store: Store, start: Start) -> None:
    run_id = start()
    before = [effect.effect for effect in store.load_forecast(run_id, "before").concepts]
    after = [effect.effect for effect in store.load_forecast(run_id, "after").concepts]
    assert before == [ROWS_PER_BUG / N_PAIRS] * 4
    assert after[:2] == [0.0, 0.0]
    assert [found.kind for found in store.load_remaining(run_id)] == ["surprise"]


def test_findings_take_turns(store: Store, start: Start) -> None:
    """A finding that needs a second attempt waits until the others have had their first."""
    calls = store.load_tool_calls(start())
    proposed = [call.arguments["finding_id"] for call in calls if call.tool in ("propose_edits", "synthesise_pairs")]
    first, second, third = (finding.finding_id for finding in store.load_findings(calls_run(store))[:3])
    assert proposed == [first, second, third, first, second]


def calls_run(store: Store) -> str:
    return store.runs()[0].run_id


def test_tool_calls_are_numbered_in_order(store: Store, start: Start) -> None:
    calls = store.load_tool_calls(start(bench=FakeBench(bugs=1)))
    assert [call.tool for call in calls] == [
        "forecast_concepts",
        "fetch_clusters", "read_pairs", "propose_edits", "verify_edits",
        "fetch_clusters", "read_pairs", "synthesise_pairs", "verify_edits",
        "fetch_clusters", "read_pairs",
        "propose_edits", "verify_edits",
        "forecast_concepts",
    ]  # fmt: skip
    assert [call.step for call in calls] == sorted({call.step for call in calls})
    asked = {name: calls[3].arguments[name] for name in ("finding_id", "attempt", "refused")}
    assert asked == {"finding_id": calls[1].arguments["finding_id"], "attempt": 0, "refused": []}


def test_a_finished_run_is_shown_without_building_a_bench(store: Store, start: Start, tmp_path: Path) -> None:
    run_id = start()
    document = store.document(run_id)

    def never(_: RunSettings) -> FakeBench:
        raise AssertionError("a finished run needs no bench")

    assert start_run(make_settings(), INPUTS, store, tmp_path / "runs", never, tools=TOOLS) == run_id
    assert store.document(run_id) == document


def test_edits_that_never_pass_leave_the_finding_unfixed(store: Store, start: Start) -> None:
    run_id = start(tools={"verify_edits": refuse_all})
    assert store.run(run_id).status == "done"
    outcome = store.load_outcomes(run_id)[store.load_findings(run_id)[0].finding_id]
    assert (outcome.kind, outcome.reason) == ("unfixed", "3 attempts did not bring the forecast to the spec")
    assert [edit.kind for edit in edits_of(store, run_id, 0)[::ROWS_PER_BUG]] == ["rewrite", "flip", "drop"]
    assert store.passed_edits(run_id) == ()


def test_a_finding_that_the_edits_of_others_mend_is_fixed(store: Store, start: Start) -> None:
    def nothing_left(bench: FakeBench, args: ForecastArgs) -> Any:
        report = TOOLS["forecast_concepts"](bench, args)
        return report.model_copy(update={"findings": ()}) if args.edits or bench.known else report

    run_id = start(tools={"verify_edits": refuse_all, "forecast_concepts": nothing_left})
    outcome = store.load_outcomes(run_id)[store.load_findings(run_id)[0].finding_id]
    assert (outcome.kind, outcome.reason) == (
        "fixed",
        "with the edits of other findings the forecast no longer shows it",
    )


def refuse_all(bench: FakeBench, args: VerifyArgs) -> tuple[Verdict, ...]:
    return tuple(make_verdict(bench.known[edit_id], passed=False) for edit_id in args.edit_ids)


def refuse_first(bench: FakeBench, args: VerifyArgs) -> tuple[Verdict, ...]:
    """Refuse the first edit of every set, so that no set ever passes whole."""
    return tuple(make_verdict(bench.known[edit_id], passed=n > 0) for n, edit_id in enumerate(args.edit_ids))


def test_an_edit_counts_only_in_a_set_that_passed_whole(store: Store, start: Start) -> None:
    run_id = start(tools={"verify_edits": refuse_first}, max_attempts=1)
    assert store.passed_edits(run_id) == ()
    last = store.load_verdicts(run_id)[edits_of(store, run_id, 0)[-1].edit_id]
    assert not last.passed


def test_the_rest_of_a_set_is_verified_alone_before_it_counts(store: Store, start: Start) -> None:
    run_id = start(max_attempts=1)
    verified = [call.arguments["edit_ids"] for call in store.load_tool_calls(run_id) if call.tool == "verify_edits"]
    first = [edit.edit_id for edit in edits_of(store, run_id, 0)]
    assert [ids for ids in verified if set(ids) <= set(first)] == [first, first[1:]]
    assert [edit.row for edit in store.passed_edits(run_id)][:3] == [1, 2, 3]


def test_settling_ends(store: Store, start: Start) -> None:
    run_id = start(bench=FakeBench(bugs=1), tools={"verify_edits": refuse_first}, max_attempts=1)
    verified = [call for call in store.load_tool_calls(run_id) if call.tool == "verify_edits"]
    assert len(verified) <= 2 * (1 + MAX_SETTLES)


class Obstinate:
    """A planner that never stops."""

    def next_action(self, case: Case, look: Look) -> Action:
        return Propose()


def test_the_same_proposal_twice_ends_the_finding(store: Store, start: Start) -> None:
    def same(bench: FakeBench, args: Any) -> tuple[Edit, ...]:
        return TOOLS["propose_edits"](bench, args.model_copy(update={"attempt": 0}))

    same.__annotations__["args"] = TOOLS["propose_edits"].__globals__["ProposeArgs"]
    run_id = start(planner=Obstinate(), tools={"propose_edits": same, "verify_edits": refuse_all})
    outcome = store.load_outcomes(run_id)[store.load_findings(run_id)[0].finding_id]
    assert outcome.reason == "every edit that could be proposed has been refused"


def test_a_tool_that_cannot_serve_closes_the_finding_with_its_hint(store: Store, start: Start) -> None:
    def cannot(bench: FakeBench, args: Any) -> tuple[Edit, ...]:
        raise ToolError("no span of the concept can be cut here")

    cannot.__annotations__["args"] = TOOLS["propose_edits"].__globals__["ProposeArgs"]
    run_id = start(tools={"propose_edits": cannot})
    outcome = store.load_outcomes(run_id)[store.load_findings(run_id)[0].finding_id]
    assert (outcome.kind, outcome.reason) == ("unfixed", "no span of the concept can be cut here")
    refused = next(call for call in store.load_tool_calls(run_id) if call.tool == "propose_edits")
    assert refused.result == {"error": "no span of the concept can be cut here"}


def test_no_more_edits_are_asked_for_than_pairs_may_be_touched(store: Store, start: Start) -> None:
    """2 of 40 pairs: what is cut is never known to the bench, so that it keeps no pair from other findings."""
    bench = FakeBench()
    run_id = start(bench=bench, tools={"verify_edits": refuse_all}, max_touched=0.05)
    assert {edit.edit_id for edit in store.load_edits(run_id)} == set(bench.known)
    proposed = [call for call in store.load_tool_calls(run_id) if call.tool == "propose_edits"]
    assert [len(call.result) for call in proposed] == [2] * len(proposed)
    outcome = store.load_outcomes(run_id)[store.load_findings(run_id)[0].finding_id]
    assert outcome.reason == (
        "3 attempts did not bring the forecast to the spec; "
        "edits may touch 5% of the pairs at most (--max-touched), and they do"
    )


def test_where_no_pair_may_be_touched_any_more_nobody_is_asked(store: Store, start: Start) -> None:
    run_id = start(max_touched=4 / N_PAIRS)
    assert len({edit.row for edit in store.passed_edits(run_id)}) == 4
    asked = [call for call in store.load_tool_calls(run_id) if call.tool in ("propose_edits", "synthesise_pairs")]
    assert all(call.arguments["room"] for call in asked)
    reasons = [outcome.reason for outcome in store.load_outcomes(run_id).values() if outcome.kind == "unfixed"]
    assert "edits may touch 10% of the pairs at most (--max-touched), and they do" in reasons


def sets_of_pairs(store: Store, run_id: str) -> list[list[str]]:
    """Return what was verified for the finding that is missing, set by set."""
    missing = store.load_findings(run_id)[2].finding_id
    calls = [call for call in store.load_tool_calls(run_id) if call.tool == "verify_edits"]
    return [call.arguments["edit_ids"] for call in calls if call.arguments["finding_id"] == missing]


def test_new_pairs_that_were_too_few_stand_in_the_next_larger_set(store: Store, start: Start) -> None:
    def wants_more(bench: FakeBench, args: VerifyArgs) -> tuple[Verdict, ...]:
        small = bench.finding(args.finding_id).kind == "missing" and len(args.edit_ids) < 10
        return refuse_all(bench, args) if small else TOOLS["verify_edits"](bench, args)

    run_id = start(tools={"verify_edits": wants_more})
    first, second, third = sets_of_pairs(store, run_id)
    assert (len(second), len(third)) == (2 * len(first), min(4 * len(first), N_PAIRS // 4))
    assert set(first) < set(second) < set(third)
    missing = store.load_findings(run_id)[2].finding_id
    assert store.load_outcomes(run_id)[missing].kind == "fixed"
    assert {edit.edit_id for edit in store.passed_edits(run_id) if edit.finding_id == missing} == set(third)
    assert [call.arguments["earlier"] for call in syntheses(store, run_id)] == [
        [], [len(first)], [len(first), len(second)],
    ]  # fmt: skip


def syntheses(store: Store, run_id: str) -> list[Any]:
    return [call for call in store.load_tool_calls(run_id) if call.tool == "synthesise_pairs"]


@pytest.mark.parametrize("failures", [1, 9])
def test_an_attempt_that_brings_no_new_pair_is_followed_by_the_next(failures: int, store: Store, start: Start) -> None:
    calls: list[Any] = []

    def at_first_none(bench: FakeBench, args: Any) -> tuple[Edit, ...]:
        calls.append(args)
        if len(calls) <= failures:
            raise ToolError("nobody showed it")
        return TOOLS["synthesise_pairs"](bench, args)

    at_first_none.__annotations__["args"] = TOOLS["synthesise_pairs"].__globals__["SynthesiseArgs"]
    run_id = start(tools={"synthesise_pairs": at_first_none})
    outcome = store.load_outcomes(run_id)[store.load_findings(run_id)[2].finding_id]
    assert store.run(run_id).status == "done"
    if failures == 1:
        assert outcome.kind == "fixed"
        assert [args.earlier for args in calls] == [(), (calls[0].count,)]
    else:
        assert len(calls) == 3
        assert outcome.reason == "3 attempts did not bring the forecast to the spec; nobody showed it"


def test_findings_beyond_the_limit_are_listed_and_not_worked_on(store: Store, start: Start) -> None:
    run_id = start(max_findings=1)
    outcomes = store.load_outcomes(run_id)
    kinds = [outcomes[found.finding_id].kind for found in store.load_findings(run_id)]
    assert kinds == ["fixed", "unfixed", "unfixed", "unfixed"]


def test_a_failure_is_noted_and_the_same_command_goes_on(store: Store, start: Start) -> None:
    broken = {"now": True}

    def breaks(bench: FakeBench, args: VerifyArgs) -> tuple[Verdict, ...]:
        if broken["now"]:
            raise StoreError("the disk is full")
        return TOOLS["verify_edits"](bench, args)

    with pytest.raises(StoreError, match="disk is full"):
        start(tools={"verify_edits": breaks})
    run_id = identify(make_settings(), INPUTS)
    assert (store.run(run_id).status, store.run(run_id).error) == ("failed", "the disk is full")
    steps = len(store.load_tool_calls(run_id))
    broken["now"] = False
    assert start(tools={"verify_edits": breaks}) == run_id
    assert (store.run(run_id).status, store.run(run_id).error) == ("done", "")
    assert [call.tool for call in store.load_tool_calls(run_id)][:steps].count("forecast_concepts") == 1


def test_cost_counts_time_and_tokens(store: Store, start: Start) -> None:
    bench = FakeBench()
    cost = store.load_cost(start(bench=bench))
    assert cost.seconds > 0
    assert cost.tokens_encoded == bench.tokens


def test_run_id_depends_on_content_and_not_on_where_files_lie() -> None:
    first = identify(make_settings(), INPUTS)
    assert identify(make_settings().model_copy(update={"data": "elsewhere.jsonl", "offline": True}), INPUTS) == first
    assert identify(make_settings(seed=1), INPUTS) != first
    assert identify(make_settings(), INPUTS.model_copy(update={"lens_ids": ("l1",)})) != first


def test_state_holds_ids_and_counters_only() -> None:
    from premortem.agent.state import first_state

    assert all(isinstance(value, int | list | dict) for value in first_state().values())


def test_graph_has_the_nodes_its_picture_shows() -> None:
    from premortem.agent import graph

    nodes = Nodes.__new__(Nodes)
    drawn = set(build_graph(nodes).nodes)
    assert all(name in graph.__doc__ for name in drawn)


def test_nothing_is_traced_whatever_the_environment_says(
    start: Start, monkeypatch: pytest.MonkeyPatch, socket_enabled: None
) -> None:
    hits = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hits.append(self.path)

    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("LANGSMITH_TRACING", "true")
    monkeypatch.setenv("LANGSMITH_API_KEY", "key")
    monkeypatch.setenv("LANGSMITH_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    start()
    server.shutdown()
    server.server_close()
    assert hits == []


# The planner


def no_look(name: str, **arguments: Any) -> str:
    raise AssertionError("the built-in planner looks nothing up")


def test_planner_proposes_for_what_is_forbidden() -> None:
    assert BuiltinPlanner().next_action(make_case(), no_look) == Propose()


def test_planner_stops_after_its_attempts() -> None:
    stop = BuiltinPlanner(max_attempts=2).next_action(make_case(attempt=2), no_look)
    assert isinstance(stop, Stop)
    assert stop.outcome == "unfixed"


@pytest.mark.parametrize(("attempt", "count"), [(0, 6), (1, 12), (2, 24), (3, 25)])
def test_planner_asks_for_as_many_pairs_as_the_limit_needs(attempt: int, count: int) -> None:
    """100 pairs of effect 0 and a limit of 0.05 need 100 * 0.05 / 0.95 = 5.3 new pairs; a quarter at most."""
    asked = BuiltinPlanner(max_attempts=9).next_action(make_case("missing", attempt=attempt), no_look)
    assert asked == Synthesise(count=count)


def test_planner_reports_a_surprise_and_stops() -> None:
    stop = BuiltinPlanner().next_action(make_case("surprise", clause=None), no_look)
    assert isinstance(stop, Stop)
    assert stop.outcome == "reported"


# The toolbox


@pytest.fixture
def toolbox(store: Store) -> Toolbox:
    store.begin_run("r", spec="", settings={}, forecaster="disparity")
    return Toolbox(FakeBench(asleep=False), TOOLS, store, "r", Meter(store, "r"))


def test_an_unknown_tool_is_answered_with_the_names(toolbox: Toolbox) -> None:
    with pytest.raises(ToolError, match=r"no tool 'delete_all'; there are forecast_concepts"):
        toolbox.call(0, "delete_all")


def test_arguments_that_do_not_fit_are_answered_with_a_hint(toolbox: Toolbox) -> None:
    with pytest.raises(ToolError, match=r"synthesise_pairs: count: Input should be a valid integer"):
        toolbox.call(0, "synthesise_pairs", finding_id="f", count="many")


def test_lazy_tools_know_their_names() -> None:
    assert tuple(LazyTools()) == TOOL_NAMES == tuple(TOOLS)
    with pytest.raises(KeyError):
        LazyTools()["os"]
