"""Decides what to try next for one finding: propose edits, synthesise pairs, or stop.

The graph asks a `Planner` before each attempt and shows it a `Case`: the finding, the clause, the attempts so far and
the last verdicts with their reasons. The planner only chooses among the actions below. It never sees a path or a tool's
name, and it never says whether an edit is good: `verify_edits` does. `BuiltinPlanner` follows fixed rules; a planner
that asks an LLM has the same one method.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from premortem.agent.journal import OutcomeKind
from premortem.interp.records import Clause, Cluster, Edit, EditKind, Finding, Record, Verdict
from premortem.tools.author import MOST_NEW


class Case(Record):
    """What a planner knows when it chooses."""

    finding: Finding
    """What is to be mended."""
    clause: Clause | None
    """The rule that the finding breaks; null for a surprise."""
    n_pairs: int
    """Pairs in the dataset."""
    attempt: int
    """Attempts made so far for this finding."""
    refused: tuple[str, ...]
    """Edits (edit_id) that an attempt proposed and a verdict refused."""
    verdicts: tuple[Verdict, ...]
    """The last verdict of each edit that was tried for this finding, with its reasons."""
    clusters: tuple[Cluster, ...] = ()
    """The pairs that carry the finding, grouped."""
    tried: tuple[Edit, ...] = ()
    """The edits that those verdicts are about."""


class Propose(Record):
    """Ask for edits of existing pairs, other than the refused ones."""

    action: Literal["propose"] = "propose"
    """Tells the actions apart."""
    kinds: tuple[EditKind, ...] = ()
    """Kinds of edit, the preferred first; none: the tool's own order."""
    advice: str = ""
    """A hint for whoever writes the texts."""


class Synthesise(Record):
    """Ask for new pairs that teach what the finding misses."""

    action: Literal["synthesise"] = "synthesise"
    """Tells the actions apart."""
    count: int
    """How many pairs."""
    advice: str = ""
    """A hint for whoever writes the pairs."""


class Stop(Record):
    """Try nothing more for this finding."""

    action: Literal["stop"] = "stop"
    """Tells the actions apart."""
    outcome: OutcomeKind
    """How the finding is left if no edit of it has passed."""
    reason: str
    """Why, in one sentence for the user."""


Action = Propose | Synthesise | Stop


Look = Callable[..., str]
"""Calls a reading tool, `look("read_pairs", rows=…)`, and returns what it says as text; the call is written down."""


class Planner(Protocol):
    """Chooses the next action for a finding."""

    def next_action(self, case: Case, look: Look) -> Action:
        """Return what to do; called until it stops, an attempt brings nothing new, or all edits of a finding pass."""
        ...


@dataclass(frozen=True)
class BuiltinPlanner:
    """The planner that needs no LLM."""

    max_attempts: int = 3
    """Attempts per finding, at least 1."""
    fix_surprises: bool = False
    """Whether to propose edits for what no clause mentions."""
    max_new_share: float = 0.25
    """New pairs per finding, at most this share of the dataset, above 0."""

    def next_action(self, case: Case, look: Look) -> Action:
        """Propose while attempts are left; synthesise what is missing; only report what nobody asked to change."""
        if case.finding.kind == "surprise" and not self.fix_surprises:
            return Stop(outcome="reported", reason="no clause of the spec mentions it, so nothing was changed")
        if case.attempt >= self.max_attempts:
            return Stop(outcome="unfixed", reason=f"{case.attempt} attempts did not bring the forecast to the spec")
        if case.finding.kind == "missing":
            return Synthesise(count=self.new_pairs(case))
        return Propose()

    def new_pairs(self, case: Case) -> int:
        """Return how many pairs that show the behaviour lift the effect to the limit, doubled with each attempt.

        k pairs of effect 1 among n of effect e give (n e + k) / (n + k), so k = n (limit - e) / (1 - limit).
        """
        limit = min(case.clause.limit if case.clause else 0.0, 0.9)
        needed = case.n_pairs * max(limit - case.finding.effect, 0.0) / (1.0 - limit)
        most = max(1, math.floor(case.n_pairs * self.max_new_share))
        return min(most, MOST_NEW, max(4, math.ceil(needed)) * 2**case.attempt)
