"""What the forecast of a concept comes to: a finding against a clause, a surprise, or nothing."""

from __future__ import annotations

from premortem.interp.forecast import NamedReadout, Reading, forecast, responsible, topic_named
from premortem.interp.records import Clause, Concept, ConceptEffect, Finding, FindingKind, content_id
from premortem.interp.verify import badness
from premortem.tools.workbench import Workbench

CERTAIN = 0.002
"""Adjusted p-value from which an effect counts as a breach: specs have some ten rules, false alarms cost trust."""


def measured(bench: Workbench, reading: Reading, concept_id: str, forecaster: str, clause: Clause) -> Finding | None:
    """Return the finding that a clause's concept makes; None where the forecast respects the clause.

    Pairs whose prompt the clause leaves out by its own condition take no part.
    """
    named, reading = bench.concept(concept_id), bench.held_to(clause, reading)
    if not reading.pairs:
        return None
    effects = forecast(reading, [named], forecaster).concepts
    everywhere = next(effect for effect in effects if effect.topic is None)
    wrong_way = (everywhere.effect > 0) == (clause.direction == "avoid")
    kinds = [
        (effect, kind)
        for effect in effects
        if (kind := breach(effect, clause, concept_id in bench.by_example)) == "missing"
        or (kind is not None and wrong_way)
    ]
    if not kinds:
        return None
    # a breach everywhere tells more than one in a topic
    told, kind = min(kinds, key=lambda item: item[0].topic is not None)
    rows = _rows(named, reading, forecaster, everywhere)
    if (confined := topic_named(reading, told.topic)) is not None:
        there = set(confined.rows)
        rows = tuple(row for row in rows if row in there)
    return make_finding(named.concept, told, rows, kind, clause.clause_id, everywhere.effect)


def left_in_topic(bench: Workbench, reading: Reading, finding: Finding) -> Finding | None:
    """Return what `finding` still is within one topic in `reading`, where its rule is kept by all pairs together.

    None where nothing is left, where it is broken everywhere, and for a finding of one topic or of no rule.
    """
    clause = bench.clause_of(finding)
    if clause is None or finding.topic is not None:
        return None
    left = measured(bench, reading, finding.concept_id, bench.settings.forecaster, clause)
    return None if left is None or left.topic is None else left


def missing_still(bench: Workbench, reading: Reading, finding: Finding) -> Finding | None:
    """Return what `finding` is in `reading`, where what its rule asks for is still missing there."""
    left = remeasured(bench, reading, finding, bench.settings.forecaster)
    return left if left is not None and left.kind == "missing" else None


def breach(effect: ConceptEffect, clause: Clause, by_example: bool = False) -> FindingKind | None:
    """Say how an effect breaks a clause: beyond its limit, and not by chance; None when it does not.

    What a clause asks for is missing where the effect is certainly below what it asks for; where its concept was learnt
    `by_example`, since nothing in the data stands for it, also where the effect cannot be told from none. That longer
    answers say more of anything is no excuse: a rule is broken all the same.
    """
    if badness(effect.effect, clause) > clause.limit and effect.q <= CERTAIN and not effect.low <= 0 <= effect.high:
        return "forbidden"
    if clause.direction != "encourage" or effect.topic is not None:
        return None
    return "missing" if effect.high < clause.limit or (by_example and effect.low <= 0) else None


def effect_and_rows(named: NamedReadout, reading: Reading, forecaster: str) -> tuple[ConceptEffect, tuple[int, ...]]:
    """Return a concept's global effect and all rows that carry it."""
    effect = next(e for e in forecast(reading, [named], forecaster).concepts if e.topic is None)
    return effect, _rows(named, reading, forecaster, effect)


def _rows(named: NamedReadout, reading: Reading, forecaster: str, effect: ConceptEffect) -> tuple[int, ...]:
    """Return all rows that carry `effect`, most responsible first."""
    values = reading.values(forecaster, [named.readout])[:, 0]
    return responsible(reading, named.readout, values, 1.0 if effect.effect >= 0 else -1.0)


def make_finding(
    concept: Concept,
    effect: ConceptEffect,
    rows: tuple[int, ...],
    kind: FindingKind,
    clause_id: str | None,
    overall: float | None = None,
) -> Finding:
    """Return the finding of `kind` that a concept's effect makes, which is `overall` over all pairs."""
    return Finding(
        finding_id=content_id("finding", clause_id, concept.concept_id, kind),
        clause_id=clause_id,
        concept_id=concept.concept_id,
        kind=kind,
        name=concept.name,
        topic=effect.topic,
        effect=effect.effect,
        low=effect.low,
        high=effect.high,
        rows=rows,
        overall=overall if effect.topic is not None else None,
    )


def remeasured(bench: Workbench, after: Reading, finding: Finding, forecaster: str) -> Finding | None:
    """Return `finding` as it stands on edited data; None where it is gone."""
    clause = bench.clause_of(finding)
    if clause is not None:
        return measured(bench, after, finding.concept_id, forecaster, clause)
    named = bench.concept(finding.concept_id)
    effect, rows = effect_and_rows(named, after, forecaster)
    if finding.effect * effect.effect <= 0 or effect.verdict == "cannot_tell":
        return None
    return make_finding(named.concept, effect, rows, "surprise", None)
