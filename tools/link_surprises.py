"""The tool `link_surprises`: surprises that somebody has recognised as what a rule of the spec is about.

Discovery finds a behaviour row by row and may not know that a rule in other words means it. Whoever can read both (an
LLM, a person) says so here; whether the rule is broken is still for the forecast to say.
"""

from __future__ import annotations

from collections.abc import Mapping

from premortem.interp.errors import ToolError
from premortem.interp.records import Clause, Finding, Record
from premortem.tools.findings import measured
from premortem.tools.start_rate import with_start_rate
from premortem.tools.workbench import Workbench


class Link(Record):
    """A surprise and the rule that is about it."""

    finding_id: str
    """The surprise."""
    clause_id: str
    """The rule."""


class LinkArgs(Record):
    """Arguments of `link_surprises`."""

    links: tuple[Link, ...]
    """What belongs together."""


def link_surprises(bench: Workbench, args: LinkArgs) -> tuple[Finding, ...]:
    """Turn the surprises that break the rule they are linked to into findings of that rule, and return those.

    A surprise whose effect respects its rule stays a surprise. Raises ToolError for a finding that is none and for a
    clause that the spec lacks; then nothing is changed.
    """
    about: dict[str, Clause] = {}
    for link in args.links:
        surprise = bench.finding(link.finding_id)
        clause = next((clause for clause in bench.clauses if clause.clause_id == link.clause_id), None)
        if surprise.kind != "surprise":
            raise ToolError(f"finding {link.finding_id} is no surprise: a rule is known for it")
        if clause is None:
            raise ToolError(f"the spec has no clause {link.clause_id!r}")
        about[link.finding_id] = clause
    return link_to(bench, about, bench.settings.forecaster)


def link_to(bench: Workbench, about: Mapping[str, Clause], forecaster: str) -> tuple[Finding, ...]:
    """Put findings of rules in the place of the surprises that break the rule they are about, and return them.

    `about` holds the rule of each surprise, by its finding_id.
    """
    linked: dict[str, Finding] = {}
    for finding_id, clause in about.items():
        found = measured(bench, bench.reading, bench.finding(finding_id).concept_id, forecaster, clause)
        if found is not None:
            linked[finding_id] = with_start_rate(bench, found)
    bench.link(linked)
    return tuple(linked.values())
