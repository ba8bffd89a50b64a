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
from itertools import zip_longest
from typing import Any

from premortem.agent.desk import Desk
from premortem.agent.engineer import Engineer
from premortem.agent.journal import Outcome
from premortem.agent.planner import Case, Planner, Stop
from premortem.agent.proposals import Proposals, Proposed
from premortem.agent.state import FRESH, RunState, Update
from premortem.agent.store import Store
from premortem.agent.toolbox import Toolbox, Workbench
from premortem.interp.errors import PremortemError
from premortem.interp.progress import Progress
from premortem.interp.records import Edit, Finding, Verdict

KIND_ORDER = ("forbidden", "missing", "surprise")
EXCERPTS = 5
MAX_SETTLES = 3
"""How often the rest of a set is verified alone before all of it is refused."""


class ReadOtherwise(PremortemError):
    """A run's findings are not those of the data as it is read now: by another device, say."""


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

    @property
    def _proposals(self) -> Proposals:
        return Proposals(self.run_id, self.bench, self.toolbox, self.store, self.engineer, self.max_touched)

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
        return {"step": state["step"] + 2, "findings": [finding.finding_id for finding in report.findings]}

    def judge(self, state: RunState) -> Update:
        """Put what breaks the spec in order: forbidden before missing before surprising."""
        found = [one for one in self.store.load_findings(self.run_id) if one.finding_id in state["findings"]]
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
            by_place = zip_longest(*(cluster.rows for cluster in clusters))
            rows = [row for place in by_place for row in place if row is not None][:EXCERPTS]
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
        if isinstance(action, Stop):
            made = Proposed(reason=self._proposals.told(action, state))
        else:
            with self.progress.stage(self._title(state, "proposing edits")):
                made = self._proposals.carry_out(action, state)
        step = state["step"] + 1
        if made.edits:
            fresh = [edit for edit in made.edits if edit.edit_id not in state["refused"]]
            self.store.save_edits(self.run_id, fresh, attempt=state["attempt"])
            testing = [*state["kept"], *(edit.edit_id for edit in made.edits)]
            return {"step": step, "testing": testing, "attempt": state["attempt"] + 1, "cut": int(made.cut)}
        if state["kept"] and state["settles"] < MAX_SETTLES:
            return {"step": step, "testing": state["kept"], "settles": state["settles"] + 1}
        if made.again:
            return {"step": step, **_waiting(state, attempt=state["attempt"] + 1)}
        self._refuse_rest(state["kept"])
        kind = action.outcome if isinstance(action, Stop) else "unfixed"
        return {"step": step, **self._close(state, Outcome(kind=kind, reason=made.reason))}

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
        before = [edit_id for edit_id in state["refused"] if edit_id not in state["testing"]]
        return _waiting(state, kept=kept, refused=[*before, *refused])

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
                reason = "with the edits of other findings the forecast no longer shows it"
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
                report = self._recognised(self.engineer, report, self.toolbox.ask)
            if not {*state["turn"]} <= {finding.finding_id for finding in report.findings}:
                raise ReadOtherwise(f"run {self.run_id} was left with findings that the data does not show as read now")
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

    def _calls_made(self) -> int:
        return 0 if self.engineer is None else self.engineer.asker.ledger.calls_made()

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


def _waiting(state: RunState, **changes: Any) -> Update:
    """Return the update by which the current finding waits for its next turn, with `changes` in what it has reached."""
    known: Update = dict(state)
    reached = {**{name: known.get(name, FRESH[name]) for name in FRESH}, "testing": [], **changes}
    own, *others = state["turn"]
    return {"turn": [*others, own], "parked": {**state["parked"], own: reached}, **FRESH}


def _traceable(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings that concern a concept of the lens; an injection is known by its words alone."""
    return [finding for finding in findings if finding.kind != "injection"]


def _matter(finding: Finding) -> tuple[str | None, str]:
    """Return what a finding is about, however it is broken."""
    return finding.clause_id, finding.concept_id


def _refused(verdict: Verdict, reason: str) -> Verdict:
    return verdict.model_copy(update={"passed": False, "reasons": (*verdict.reasons, reason)})
