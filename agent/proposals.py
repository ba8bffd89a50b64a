"""Carries out what a planner has chosen: asks the tools for edits, within what the run may touch and ask.

How many pairs may still be touched is told to the tools before anybody writes, so that no text is asked for in vain and
the workbench knows of no edit that will never be tested: such a one would keep its pair from other findings.

An attempt at what is missing adds to the one before. New pairs that were refused only because their set was too small
stand in the next, larger set again, and prompts that were used up are not drawn again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from premortem.agent.engineer import Engineer
from premortem.agent.journal import ToolCall
from premortem.agent.planner import Propose, Stop, Synthesise
from premortem.agent.state import RunState
from premortem.agent.store import Store
from premortem.agent.toolbox import Toolbox, Workbench
from premortem.interp.errors import ToolError
from premortem.interp.records import Edit


class Proposed(NamedTuple):
    """What came of an action."""

    edits: Sequence[Edit] = ()
    """The edits to test beside the kept ones."""
    reason: str = ""
    """Why there are none; empty where there are."""
    again: bool = False
    """Whether another attempt may find some."""
    cut: bool = False
    """Whether they take all the pairs that edits may touch."""


@dataclass(frozen=True)
class Proposals:
    """The edits of one run, as they are asked for."""

    run_id: str
    """The run."""
    bench: Workbench
    """What the tools work on."""
    toolbox: Toolbox
    """The tools."""
    store: Store
    """What was tried."""
    engineer: Engineer | None
    """What an LLM adds; None: nothing."""
    max_touched: float
    """Share of the pairs that edits may touch, all findings together."""

    def told(self, stop: Stop, state: RunState) -> str:
        """Return why nothing more is tried, with what the last attempt lacked."""
        more = [self._last_error(state), self._full if state.get("cut") else ""]
        return "; ".join(filter(None, (stop.reason, *more))) if stop.outcome == "unfixed" else stop.reason

    def carry_out(self, action: Propose | Synthesise, state: RunState) -> Proposed:
        """Return the edits that an action brings beside the kept ones, or why there are none."""
        room = self._rows_left(state)
        if not room:
            return Proposed(reason=self._full)
        try:
            edits = self._ask(action, state, room)
        except ToolError as error:
            return Proposed(reason=str(error), again=isinstance(action, Synthesise))
        new = self._new(edits, state, again=isinstance(action, Synthesise))
        if new:
            return Proposed(new, cut=len(new) >= room)
        if edits:
            return Proposed(
                reason=self._full if len(edits) >= room else "every edit that could be proposed has been refused"
            )
        return Proposed(reason="no edit could be proposed for its rows")

    @property
    def _full(self) -> str:
        return f"edits may touch {self.max_touched:.0%} of the pairs at most (--max-touched), and they do"

    def _ask(self, action: Propose | Synthesise, state: RunState, room: int) -> Sequence[Edit]:
        finding_id = state["turn"][0]
        if isinstance(action, Synthesise):
            asked: Sequence[Edit] = self.toolbox.call(
                state["step"],
                "synthesise_pairs",
                finding_id=finding_id,
                count=action.count,
                kept=state["kept"],
                refused=state["refused"],
                earlier=self._counts(state),
                room=room,
                advice=action.advice,
                authored=self._authored(state),
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
            room=room,
            advice=action.advice,
            authored=self._authored(state),
        )
        return proposed

    def _new(self, edits: Sequence[Edit], state: RunState, again: bool) -> list[Edit]:
        """Return those edits that touch no row that a kept edit already mends and were never refused.

        `again`: refused ones may be tried again, beside one that is new.
        """
        kept, refused = {*state["kept"]}, {*state["refused"]}
        mended = {edit.row for edit in self.store.load_edits(self.run_id) if edit.edit_id in kept}
        open_ones = [edit for edit in edits if edit.edit_id not in kept and edit.row not in mended]
        fresh = [edit for edit in open_ones if edit.edit_id not in refused]
        return open_ones if again and fresh else fresh

    def _rows_left(self, state: RunState) -> int:
        """Return how many more pairs may be touched, after those of other findings and the kept ones of this."""
        own = state["turn"][0]
        others = {edit.row for edit in self.store.passed_edits(self.run_id) if edit.finding_id != own}
        mended = {edit.row for edit in self.store.load_edits(self.run_id) if edit.edit_id in {*state["kept"]}}
        return max(0, int(self.max_touched * len(self.bench.dataset.pairs)) - len(others) - len(mended))

    def _counts(self, state: RunState) -> list[int]:
        """Return how many new pairs earlier attempts at the finding have asked for, each."""
        return [call.arguments["count"] for call in self._syntheses(state)]

    def _last_error(self, state: RunState) -> str:
        """Return why the last attempt at new pairs for the finding came to nothing; empty: it did not."""
        last = self._syntheses(state)[-1:]
        return last[0].result["error"] if last and isinstance(last[0].result, dict) else ""

    def _syntheses(self, state: RunState) -> list[ToolCall]:
        calls = self.store.load_tool_calls(self.run_id)
        asked = [call for call in calls if call.tool == "synthesise_pairs" and call.step < state["step"]]
        return [call for call in asked if call.arguments["finding_id"] == state["turn"][0]]

    def _authored(self, state: RunState) -> int:
        """Return how many texts the LLM may be asked for now; 0 without one."""
        if self.engineer is None:
            return 0
        kinds = [self.store.load_finding(self.run_id, finding_id).kind for finding_id in state["turn"]]
        only_reported = 0 if self.engineer.planner.rules.fix_surprises else kinds.count("surprise")
        return self.engineer.room(state["calls"], len(kinds) - only_reported)

    def _reasons(self, edit_ids: Sequence[str]) -> dict[str, str]:
        verdicts = self.store.load_verdicts(self.run_id)
        return {edit_id: " ".join(verdicts[edit_id].reasons)[:300] for edit_id in edit_ids if edit_id in verdicts}

    def _void(self, finding_id: str) -> list[str]:
        """Return the edits of other findings that were refused."""
        verdicts = self.store.load_verdicts(self.run_id)
        others = [edit for edit in self.store.load_edits(self.run_id) if edit.finding_id != finding_id]
        return [edit.edit_id for edit in others if edit.edit_id in verdicts and not verdicts[edit.edit_id].passed]
