"""What each node of the graph does: call a tool, write what it says, and pass on ids.

A finding is worked on until a set of edits has passed *together*. The loop keeps three lists of edit ids: `testing`
goes to the verifier, `kept` passed the last time, `refused` did not. Verdicts are about a set, so as soon as one edit
is refused, the rest must be verified again, with new proposals or alone. When that never settles, the rest is refused
as well: an edit never counts as passed because of company that has left.

Findings take turns, one attempt each, so that one that will not be mended holds up no other and all get their share of
the budget. The lists are those of the finding whose turn it is; what the others have reached is parked.

Every node may run twice (see `graph`), on a workbench that was built anew; `_wake` brings such a bench to where the run
stands. Nothing here judges an edit or reads a number of a forecast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypedDict

from premortem.agent.desk import Desk
from premortem.agent.engineer import Engineer
from premortem.agent.journal import Outcome
from premortem.agent.planner import Action, Case, Planner, Propose, Stop, Synthesise
from premortem.agent.store import Store
from premortem.agent.toolbox import Toolbox, Workbench
from premortem.interp.errors import ToolError
from premortem.interp.progress import Progress
from premortem.interp.records import Edit, Finding, Verdict

KIND_ORDER = ("forbidden", "missing", "surprise")
EXCERPTS = 3
MAX_SETTLES = 3
"""How often the rest of a set is verified alone before all of it is refused."""


class RunState(TypedDict):
    """Where a run stands: ids and counters."""

    step: int
    """Number of the next tool call."""
    findings: list[str]
    """Findings (finding_id) to work on, in order."""
    turn: list[str]
    """Findings that still want work, the one whose turn it is first."""
    calls: int
    """Requests that had been sent to the LLM when this turn began."""
    parked: dict[str, dict[str, Any]]
    """What findings have reached that were worked on before, by finding_id: the fields below."""
    attempt: int
    """Attempts made for the current finding."""
    settles: int
    """Times that kept edits of the current finding were sent to the verifier alone."""
    testing: list[str]
    """Edits (edit_id) for the next verification."""
    kept: list[str]
    """Edits that passed the last verification."""
    refused: list[str]
    """Edits of the current finding that failed one."""


Update = dict[str, Any]
FRESH: Update = {"attempt": 0, "settles": 0, "testing": [], "kept": [], "refused": []}


def first_state() -> RunState:
    """Return the state of a run that has done nothing."""
    return RunState(
        step=0, findings=[], turn=[], calls=0, parked={}, attempt=0, settles=0, testing=[], kept=[], refused=[]
    )


def recursion_limit(max_findings: int, max_attempts: int) -> int:
    """Return how many nodes a run may visit: a loop of four per attempt and settling, two more per finding."""
    return 10 + max_findings * (2 + 4 * (max_attempts + MAX_SETTLES + 1))


@dataclass
class Nodes:
    """The nodes of one run, as methods that take the state and return what changes in it."""

    run_id: str
    """The run."""
    bench: Workbench
    """What the tools work on."""
    toolbox: Toolbox
    """The tools."""
    store: Store
    """Where everything is written."""
    planner: Planner
    """What chooses the next action."""
    progress: Progress
    """Who hears how far it is."""
    forecaster: str
    """The forecaster in use."""
    max_findings: int
    """Findings to work on; the others are only listed."""
    engineer: Engineer | None = None
    """What an LLM adds; None: the built-in rules do all of it."""
    max_touched: float = 1.0
    """Share of the pairs that edits may touch, all findings together."""
    _awake: bool = field(default=False, init=False)

    def read(self, state: RunState) -> Update:
        """Note what is read and through which lens."""
        with self.progress.stage("Reading the data through the lens"):
            self.store.save_dataset(self.run_id, self.bench.dataset)
            self.store.save_lens(self.run_id, self.bench.lens_summary())
        return {}

    def understand(self, state: RunState) -> Update:
        """Let the LLM, if there is one, read the spec and write examples for its rules."""
        if self.engineer is not None:
            with self.progress.stage(f"{self.engineer.author.name} reads the spec"):
                reading = self.engineer.understand(self.bench)
            self.store.save_spec_problems(self.run_id, reading.problems)
        return {}

    def forecast(self, state: RunState) -> Update:
        """Forecast what DPO on the data would teach, and have what was found named."""
        self._understand_again()
        with self.progress.stage("Forecasting"):
            report = self.toolbox.call(state["step"], "forecast_concepts", forecaster=self.forecaster)
        if self.engineer is not None and report.findings:
            with self.progress.stage("Linking what was found to the rules, and naming it"):
                report = self._recognised(self.engineer, report, partial(self.toolbox.call, state["step"] + 1))
        self.store.save_clauses(self.run_id, report.clauses)
        self.store.save_concepts(self.run_id, report.concepts)
        self.store.save_forecast(self.run_id, report.forecast)
        self.store.save_findings(self.run_id, report.findings)
        self._awake = True
        return {"step": state["step"] + 2}

    def judge(self, state: RunState) -> Update:
        """Put what breaks the spec in order: forbidden before missing before surprising."""
        found = self.store.load_findings(self.run_id)
        for finding in found:
            if finding.kind == "injection":
                reason = "its text is shown to no LLM; read the rows yourself"
                self.store.save_outcome(self.run_id, finding.finding_id, Outcome(kind="reported", reason=reason))
        findings = sorted(_traceable(found), key=lambda finding: KIND_ORDER.index(finding.kind))
        for finding in findings[self.max_findings :]:
            reason = f"the run works on {self.max_findings} findings at most"
            self.store.save_outcome(self.run_id, finding.finding_id, Outcome(kind="unfixed", reason=reason))
        ids = [finding.finding_id for finding in findings[: self.max_findings]]
        return {"findings": ids, "turn": ids, "parked": {}, **FRESH}

    def next_finding(self, state: RunState) -> Update:
        """Take up the finding whose turn it is; the first time, group the pairs that carry it and read a few."""
        if not state["turn"]:
            return {}
        if state["turn"][0] in state["parked"]:
            return {"calls": self._calls_made(), **state["parked"][state["turn"][0]]}
        self._wake(state)
        finding = self._finding(state)
        with self.progress.stage(self._title(state, "tracing")):
            clusters = self.toolbox.call(state["step"], "fetch_clusters", finding_id=finding.finding_id)
            if self.engineer is not None:
                clusters = self.engineer.describe(self.bench, clusters)
            self.store.save_clusters(self.run_id, finding.finding_id, clusters)
            rows = [cluster.rows[0] for cluster in clusters if cluster.rows][:EXCERPTS]
            if rows:
                self.toolbox.call(state["step"] + 1, "read_pairs", rows=rows, finding_id=finding.finding_id)
        return {"step": state["step"] + 2, "calls": self._calls_made(), **FRESH}

    def propose(self, state: RunState) -> Update:
        """Ask the planner, carry its action out, and put what is new beside what was kept."""
        self._wake(state)
        desk = Desk(self.toolbox, state["step"], state["turn"][0])
        with self.progress.stage(self._title(state, "planning")):
            action = self.planner.next_action(self._case(state), desk.look)
        state = {**state, "step": desk.step}
        edits, reason = self._carry_out(action, state)
        step = state["step"] + 1
        if edits:
            self.store.save_edits(self.run_id, edits, attempt=state["attempt"])
            testing = [*state["kept"], *(edit.edit_id for edit in edits)]
            return {"step": step, "testing": testing, "attempt": state["attempt"] + 1}
        if state["kept"] and state["settles"] < MAX_SETTLES:
            return {"step": step, "testing": state["kept"], "settles": state["settles"] + 1}
        self._refuse_rest(state["kept"])
        kind = action.outcome if isinstance(action, Stop) else "unfixed"
        return {"step": step, **self._close(state, Outcome(kind=kind, reason=reason))}

    def verify(self, state: RunState) -> Update:
        """Forecast again with the edits under test, all together."""
        self._wake(state)
        finding_id = state["turn"][0]
        with self.progress.stage(self._title(state, "verifying")):
            verdicts = self.toolbox.call(
                state["step"], "verify_edits", finding_id=finding_id, edit_ids=state["testing"]
            )
        self.store.save_verdicts(self.run_id, verdicts)
        return {"step": state["step"] + 1}

    def decide(self, state: RunState) -> Update:
        """Close the finding when every edit under test passed; else it waits for its turn with those that did."""
        verdicts = self.store.load_verdicts(self.run_id)
        kept = [edit_id for edit_id in state["testing"] if edit_id in verdicts and verdicts[edit_id].passed]
        refused = [edit_id for edit_id in state["testing"] if edit_id not in kept]
        if not refused:
            return self._close(state, Outcome(kind="fixed", reason=f"{len(kept)} edits passed together"))
        reached = {"attempt": state["attempt"], "settles": state["settles"], "testing": [], "kept": kept}
        reached |= {"refused": [*state["refused"], *refused]}
        own, *others = state["turn"]
        return {"turn": [*others, own], "parked": {**state["parked"], own: reached}, **FRESH}

    def conclude(self, state: RunState) -> Update:
        """Forecast once more with every edit that passed, and end the run."""
        self._wake(state)
        passed = [edit.edit_id for edit in self.store.passed_edits(self.run_id)]
        with self.progress.stage("Forecasting with the edits that passed"):
            report = self.toolbox.call(state["step"], "forecast_concepts", forecaster=self.forecaster, edits=passed)
        self.store.save_forecast(self.run_id, report.forecast, stage="after", remaining=report.findings)
        self._correct_outcomes({_matter(finding) for finding in report.findings})
        self.store.set_status(self.run_id, "done")
        return {"step": state["step"] + 1}

    def _correct_outcomes(self, left: Set[tuple[str | None, str]]) -> None:
        """Correct what became of findings by the forecast with all edits applied, which still shows those in `left`."""
        findings = {finding.finding_id: finding for finding in self.store.load_findings(self.run_id)}
        for finding_id, outcome in self.store.load_outcomes(self.run_id).items():
            remains = _matter(findings[finding_id]) in left
            if outcome.kind == "unfixed" and not remains:
                reason = "the edits of other findings bring it inside its limit"
                self.store.save_outcome(self.run_id, finding_id, Outcome(kind="fixed", reason=reason))
            if outcome.kind == "fixed" and remains:
                reason = f"{outcome.reason}, but with all edits applied the forecast still shows it"
                self.store.save_outcome(self.run_id, finding_id, Outcome(kind="unfixed", reason=reason))

    def _wake(self, state: RunState) -> None:
        """Bring a bench that was built for a resumed run to where the run stands.

        It gets the edits that the state knows, no others: those of a node that was killed half-way are in the store
        too, but a bench that already holds what it is about to propose might propose something else.
        """
        if self._awake:
            return
        self._understand_again()
        with self.progress.stage("Picking up where the run stopped"):
            report = self.toolbox.ask("forecast_concepts", forecaster=self.forecaster)
            if self.engineer is not None and report.findings:
                self._recognised(self.engineer, report, self.toolbox.ask)
            closed = {*state["findings"]} - {*state["turn"]}
            lists = [state, *(reached for own, reached in state["parked"].items() if own in state["turn"])]
            current = {edit_id for one in lists for name in ("testing", "kept", "refused") for edit_id in one[name]}
            edits = self.store.load_edits(self.run_id)
            self.bench.remember([edit for edit in edits if edit.finding_id in closed or edit.edit_id in current])
        self._awake = True

    def _understand_again(self) -> None:
        """Put the LLM's reading of the spec on a bench that lacks it; the answers are remembered and cost nothing."""
        if self.engineer is not None and self.bench.author is None:
            self.engineer.understand(self.bench)

    def _recognised(self, engineer: Engineer, report: Any, link: Callable[..., Any]) -> Any:
        """Return `report` after the LLM has said which rules the surprises are about, and what concepts are called."""
        links = engineer.link(_traceable(report.findings), report.clauses, self._passages)
        if links:
            link("link_surprises", links=links)
            report = self.toolbox.ask("forecast_concepts", forecaster=self.forecaster)
        engineer.name(self.bench, _traceable(report.findings), self._passages)
        return self.toolbox.ask("forecast_concepts", forecaster=self.forecaster)

    def _passages(self, finding_id: str) -> Any:
        return self.toolbox.ask("find_passages", finding_id=finding_id)

    def _carry_out(self, action: Action, state: RunState) -> tuple[list[Edit], str]:
        """Return the edits that an action brings beside the kept ones, and why there are none."""
        if isinstance(action, Stop):
            return [], action.reason
        try:
            with self.progress.stage(self._title(state, "proposing edits")):
                edits = self._ask_for_edits(action, state)
        except ToolError as error:
            return [], str(error)
        new = self._new_edits(edits, state)
        if edits and not new and not self._rows_left(state, len(state["kept"])):
            return [], f"edits may touch {self.max_touched:.0%} of the pairs at most, and they do"
        none = (
            "every edit that could be proposed has been refused" if edits else "no edit could be proposed for its rows"
        )
        return new, "" if new else none

    def _ask_for_edits(self, action: Propose | Synthesise, state: RunState) -> Sequence[Edit]:
        finding_id = state["turn"][0]
        if isinstance(action, Synthesise):
            asked: Sequence[Edit] = self.toolbox.call(
                state["step"],
                "synthesise_pairs",
                finding_id=finding_id,
                count=action.count,
                advice=action.advice,
                authored=self._room(state),
            )
            return asked
        proposed: Sequence[Edit] = self.toolbox.call(
            state["step"],
            "propose_edits",
            finding_id=finding_id,
            attempt=state["attempt"],
            kept=state["kept"],
            refused=state["refused"],
            void=self._void(finding_id),
            reasons=self._reasons(state["refused"]),
            kinds=action.kinds,
            advice=action.advice,
            authored=self._room(state),
        )
        return proposed

    def _room(self, state: RunState) -> int:
        """Return how many texts the LLM may be asked for now; 0 without one."""
        if self.engineer is None:
            return 0
        kinds = [self.store.load_finding(self.run_id, finding_id).kind for finding_id in state["turn"]]
        only_reported = 0 if self.engineer.planner.rules.fix_surprises else kinds.count("surprise")
        return self.engineer.room(state["calls"], len(kinds) - only_reported)

    def _calls_made(self) -> int:
        return 0 if self.engineer is None else self.engineer.asker.ledger.calls_made()

    def _reasons(self, edit_ids: Sequence[str]) -> dict[str, str]:
        verdicts = self.store.load_verdicts(self.run_id)
        return {edit_id: " ".join(verdicts[edit_id].reasons)[:300] for edit_id in edit_ids if edit_id in verdicts}

    def _void(self, finding_id: str) -> list[str]:
        """Return the edits of other findings that were refused."""
        verdicts = self.store.load_verdicts(self.run_id)
        others = [edit for edit in self.store.load_edits(self.run_id) if edit.finding_id != finding_id]
        return [edit.edit_id for edit in others if edit.edit_id in verdicts and not verdicts[edit.edit_id].passed]

    def _new_edits(self, edits: Sequence[Edit], state: RunState) -> list[Edit]:
        """Return those edits that were never refused and touch no row that a kept edit already mends."""
        mended = {edit.row for edit in self._edits(state["kept"])}
        seen = {*state["kept"], *state["refused"]}
        new = [edit for edit in edits if edit.edit_id not in seen and edit.row not in mended]
        return new[: self._rows_left(state, len(mended))]

    def _rows_left(self, state: RunState, mended: int) -> int:
        """Return how many more pairs may be touched, after those of other findings and the `mended` ones of this."""
        own = state["turn"][0]
        others = {edit.row for edit in self.store.passed_edits(self.run_id) if edit.finding_id != own}
        return max(0, int(self.max_touched * len(self.bench.dataset.pairs)) - len(others) - mended)

    def _edits(self, edit_ids: Sequence[str]) -> list[Edit]:
        wanted = set(edit_ids)
        return [edit for edit in self.store.load_edits(self.run_id) if edit.edit_id in wanted]

    def _refuse_rest(self, edit_ids: Sequence[str]) -> None:
        verdicts = self.store.load_verdicts(self.run_id)
        reason = "it passed only beside edits that were refused"
        self.store.save_verdicts(self.run_id, [_refused(verdicts[edit_id], reason) for edit_id in edit_ids])

    def _close(self, state: RunState, outcome: Outcome) -> Update:
        self.store.save_outcome(self.run_id, state["turn"][0], outcome)
        return {"turn": state["turn"][1:], **FRESH}

    def _case(self, state: RunState) -> Case:
        finding = self._finding(state)
        clauses = {clause.clause_id: clause for clause in self.store.load_clauses(self.run_id)}
        verdicts = self.store.load_verdicts(self.run_id)
        tried = [*state["kept"], *state["refused"]]
        return Case(
            finding=finding,
            clause=clauses.get(finding.clause_id or ""),
            n_pairs=len(self.bench.dataset.pairs),
            attempt=state["attempt"],
            refused=tuple(state["refused"]),
            verdicts=tuple(verdicts[edit_id] for edit_id in tried if edit_id in verdicts),
            clusters=self.store.load_clusters(self.run_id, finding.finding_id),
            tried=tuple(self._edits(tried)),
        )

    def _finding(self, state: RunState) -> Finding:
        return self.store.load_finding(self.run_id, state["turn"][0])

    def _title(self, state: RunState, doing: str) -> str:
        place = state["findings"].index(state["turn"][0]) + 1
        return f"Finding {place} of {len(state['findings'])}: {doing}"


def _traceable(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings that concern a concept of the lens; an injection is known by its words alone."""
    return [finding for finding in findings if finding.kind != "injection"]


def _matter(finding: Finding) -> tuple[str | None, str]:
    """Return what a finding is about, however it is broken."""
    return finding.clause_id, finding.concept_id


def _refused(verdict: Verdict, reason: str) -> Verdict:
    return verdict.model_copy(update={"passed": False, "reasons": (*verdict.reasons, reason)})
