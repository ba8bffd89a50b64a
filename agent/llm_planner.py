"""The planner that asks an LLM, one finding at a time.

It shows the LLM the finding, what was tried and why it was refused, and lets it look at pairs or at the rule's own
score before it acts. What the LLM may name is an enumeration of this very finding: its rows, the kinds of edit, the
open actions. There is no argument that could hold a path, an address or a command. It may give up only after something
was tried, and never asks for fewer new pairs than the built-in rules find necessary. The same look twice in a row, too
many looks, or answers that cannot be used end the LLM's part in the attempt, and the built-in rules choose.

Its advice goes to whoever writes texts, after it has read rows of the dataset and why edits were refused. Advice that
addresses its reader as an injected text would is dropped: it may be one that was passed on.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, create_model

from premortem.agent.asking import Asker, Question
from premortem.agent.planner import Action, BuiltinPlanner, Case, Look, Propose, Stop, Synthesise
from premortem.interp.addressed import addressed
from premortem.interp.errors import LlmStopped, LlmUnusable, ToolError
from premortem.interp.records import EditKind, Record
from premortem.prompts.rendering import load_prompt
from premortem.tools.author import MOST_NEW

MOST_LOOKS = 2
"""Times that the LLM may look before it acts, per attempt."""
ROWS_SHOWN = 20
"""Rows of a finding that the LLM may ask for."""
ROWS_READ = 4
"""Rows that one look returns, at most."""
ADVICE = 300
"""Characters of advice that are passed on."""
WHAT = {
    "read_pairs": f"look at up to {ROWS_READ} of the pairs responsible (`rows`)",
    "score_rule": "ask the model that will be trained how well its own reading of the rule agrees with the finding",
    "propose_edits": "have edits written for the pairs responsible; `kinds` in the order of preference (none: the "
    "usual order, least change first), `advice` for whoever writes them",
    "synthesise_pairs": "have `count` new pairs written that teach the missing behaviour, the dose at least, with "
    "`advice`",
    "give_up": "leave the finding as it is; `advice` gives the reason",
}
"""What each action does, for the LLM."""
DOSE = "as many of these pairs as the limit needs, those first that carry it most"
"""How many edits are proposed, for the LLM; `propose_edits` works the number out."""


@dataclass(frozen=True)
class LlmPlanner:
    """Asks an LLM; its rules for surprises and its bounds are the built-in planner's."""

    asker: Asker
    """Whom it asks."""
    rules: BuiltinPlanner
    """What decides where the LLM does not."""

    def next_action(self, case: Case, look: Look) -> Action:
        """Let the LLM look and choose; see `Planner.next_action`."""
        fallback = self.rules.next_action(case, look)
        if isinstance(fallback, Stop):
            return fallback
        seen: list[dict[str, str]] = []
        former: tuple[str, object] | None = None
        for looks in range(MOST_LOOKS + 1):
            tools = _tools(case, isinstance(fallback, Synthesise), looks < MOST_LOOKS, {item["tool"] for item in seen})
            try:
                chosen = self.asker.choose(_question(case, seen, tools, fallback), tools, _flat(tools))
            except (LlmStopped, LlmUnusable):
                return fallback
            name, arguments = chosen
            if (name, getattr(arguments, "rows", ())) == former:
                return fallback
            former = (name, getattr(arguments, "rows", ()))
            if name not in ("read_pairs", "score_rule"):
                return self._action(name, arguments, fallback)
            seen.append({"tool": name, "result": _looked(look, name, arguments)})
        return fallback

    def _action(self, name: str, arguments: Any, fallback: Action) -> Action:
        advice = " ".join(arguments.advice.split())[:ADVICE]
        if name == "give_up":
            return Stop(outcome="unfixed", reason=f"{self.asker.model} gave up: {advice or 'it gave no reason'}")
        advice = "" if addressed(arguments.advice) or addressed(advice) else advice
        if isinstance(fallback, Synthesise):
            most = min(2 * fallback.count, MOST_NEW)
            return Synthesise(count=max(fallback.count, min(arguments.count, most)), advice=advice)
        return Propose(kinds=tuple(dict.fromkeys(arguments.kinds)), advice=advice)


def _tools(case: Case, missing: bool, may_look: bool, used: Set[str]) -> dict[str, type[Record]]:
    """Return the argument models of the actions that are open, with the ids of this finding as enumerations."""
    shown = case.finding.rows[:ROWS_SHOWN]
    rows: Any = list[Literal[shown]] if shown else None  # type: ignore[valid-type]
    kinds: Any = list[Literal["rewrite", "flip", "drop"]] if case.attempt == 0 else list[EditKind]
    advice = (str, Field(description="In one sentence."))
    why = (str, Field(description="What is expected of it, in one sentence."))
    tools: dict[str, type[Record]] = {}
    if may_look and rows is not None:
        tools["read_pairs"] = _model("read_pairs", why=why, rows=(rows, Field(min_length=1, max_length=ROWS_READ)))
    if may_look and case.clause is not None and "score_rule" not in used:
        tools["score_rule"] = _model("score_rule", why=why)
    if missing:
        tools["synthesise_pairs"] = _model("synthesise_pairs", why=why, count=(int, Field(ge=1)), advice=advice)
    else:
        tools["propose_edits"] = _model("propose_edits", why=why, kinds=(kinds, Field(max_length=5)), advice=advice)
    if case.attempt:
        tools["give_up"] = _model("give_up", why=why, advice=advice)
    return tools


def _model(name: str, **fields: Any) -> type[Record]:
    return create_model(name, __base__=Record, __doc__=WHAT[name], **fields)


def _flat(tools: dict[str, type[Record]]) -> type[Record]:
    """Return one record with a field `action` and the arguments of all actions, for endpoints without tool calls."""
    fields: dict[str, Any] = {"action": (Literal[tuple(tools)], ...)}
    for model in tools.values():
        for name, info in model.model_fields.items():
            most = next((each.max_length for each in info.metadata if hasattr(each, "max_length")), None)
            fields.setdefault(name, (info.annotation, Field(description=info.description, max_length=most)))
    return create_model("action", __base__=Record, **fields)


def _looked(look: Look, name: str, arguments: Any) -> str:
    try:
        return look(name, rows=arguments.rows[:ROWS_READ]) if name == "read_pairs" else look(name)
    except ToolError as error:
        return f"it could not be served: {error}"


def _question(
    case: Case, seen: list[dict[str, str]], tools: dict[str, type[Record]], usual: Propose | Synthesise
) -> Question:
    finding, clause = case.finding, case.clause
    limit = f", limit {clause.limit:.0%}" if clause is not None else ""
    rendered = load_prompt("plan").render(
        rule=clause.text if clause is not None else "",
        kind=finding.kind,
        name=(clause.about if clause is not None else "") or finding.name,
        effect=f"{finding.effect:+.0%}{limit}",
        rows=f"{len(finding.rows)} pairs, such as {', '.join(map(str, finding.rows[:ROWS_SHOWN]))}"
        if finding.rows
        else "none",
        clusters=[cluster.name for cluster in case.clusters[:6]],
        dose=f"{usual.count} new pairs" if isinstance(usual, Synthesise) else DOSE,
        seen=seen,
        attempts=_attempts(case),
        actions=[{"name": name, "what": WHAT[name]} for name in tools],
    )
    return Question.of("plan", rendered, 600)


_FIGURES = re.compile(r"[-+]?\d[\d.,]*%?")


def _attempts(case: Case) -> list[dict[str, str]]:
    """Return why the verifier refused edits, the commonest reasons first; those that differ in figures alone count
    as one, told by the first of them."""
    kinds = {edit.edit_id: edit.kind for edit in case.tried}
    refused = [verdict for verdict in case.verdicts if verdict.edit_id in set(case.refused)]
    told: dict[tuple[str, str], str] = {}
    counted: Counter[tuple[str, str]] = Counter()
    for verdict in refused:
        for reason in verdict.reasons:
            key = kinds.get(verdict.edit_id, "rewrite"), _FIGURES.sub("#", reason)
            told.setdefault(key, reason)
            counted[key] += 1
    return [
        {"what": f"{n} edits of kind {key[0]} were refused", "reason": told[key]} for key, n in counted.most_common(4)
    ]
