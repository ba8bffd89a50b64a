"""The tool `forecast_concepts`: what DPO on the data would teach, and where that breaks the spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from premortem.interp.discover import Discovery, led
from premortem.interp.forecast import NamedReadout, Reading, forecast, name_readout
from premortem.interp.forecasters import ForecasterName
from premortem.interp.growth import MIN_ROWS
from premortem.interp.matching import (
    ANSWERS,
    SAME,
    Match,
    answers_to,
    assign,
    gather,
    heard,
    match_clause,
    shared,
    stands_for,
)
from premortem.interp.one_sided import CONFIDENCE
from premortem.interp.readout import Readout, signed_rows
from premortem.interp.records import Clause, Concept, Finding, Forecast, Record
from premortem.interp.scope import exempt, exempting_words
from premortem.interp.verify import within
from premortem.tools.asked_for import asked_for
from premortem.tools.evidence import examples, given_examples, named_behaviours, spoken_clauses, spoken_library
from premortem.tools.findings import effect_and_rows, make_finding, measured, remeasured
from premortem.tools.injections import injections
from premortem.tools.link_surprises import link_to
from premortem.tools.start_rate import with_start_rate
from premortem.tools.workbench import Workbench

FRESH_SHARE = 0.5
"""Share of a surprise's rows that findings before it may not hold, beyond what they would hold of any rows."""
FRESH_ROWS = 4
"""Rows of a surprise that the findings before it do not hold, at least."""
MOST_BY_CHANCE = 1 - CONFIDENCE
"""How many concepts as near and as one-sided as a surprise chance may bring up in a search, as for its beginnings."""
MOST_EXPLAINED = 0.5
"""Share of the pairs up to which findings together explain what lies in their rows; wider ones do so one by one."""
SAME_ROWS = 0.5
"""A concept that shares this much of its rows (Jaccard) with a stronger finding is not reported again."""


class ForecastArgs(Record):
    """Arguments of `forecast_concepts`."""

    forecaster: ForecasterName | None = None
    """The forecaster to use; null: the run's own."""
    edits: tuple[str, ...] = ()
    """Edits (edit_id) to apply in memory first; none: the data as it is."""


class ForecastReport(Record):
    """What `forecast_concepts` returns."""

    forecast: Forecast
    """The effects."""
    concepts: tuple[Concept, ...]
    """The concepts they are about."""
    clauses: tuple[Clause, ...]
    """The clauses, with the concepts that stand for them."""
    findings: tuple[Finding, ...]
    """What breaks the spec, and what no clause thought of."""


def forecast_concepts(bench: Workbench, args: ForecastArgs) -> ForecastReport:
    """Forecast which concepts DPO on the data would amplify or suppress, and compare with the spec.

    With `edits` the same concepts are measured on the edited data, those of clauses that the data as it was respected
    too. Call it first: the other tools need its findings.
    """
    forecaster = args.forecaster or bench.settings.forecaster
    _prepare(bench, forecaster)
    if not args.edits:
        return _report(bench, bench.reading, forecaster, tuple(bench.findings.values()))
    after = bench.reading_after(bench.edits_of(args.edits))
    remeasured_all = (remeasured(bench, after, finding, forecaster) for finding in bench.findings.values())
    remaining = [finding for finding in remeasured_all if finding is not None]
    return _report(bench, after, forecaster, (*remaining, *_new_breaches(bench, after, remaining, forecaster)))


def _new_breaches(bench: Workbench, after: Reading, remaining: Sequence[Finding], forecaster: str) -> list[Finding]:
    """Return what breaks a clause on edited data by a concept that made no finding before; no rows are told twice."""
    known = {(finding.clause_id, finding.concept_id) for finding in bench.findings.values()}
    asked = [(c, concept) for c in bench.clauses for concept in c.concept_ids if (c.clause_id, concept) not in known]
    kept = list(remaining)
    for clause, concept_id in asked:
        finding = measured(bench, after, concept_id, forecaster, clause)
        if finding is not None and not any(_shared(finding, other) > SAME_ROWS for other in kept):
            kept.append(finding)
    return kept[len(remaining) :]


def _report(bench: Workbench, reading: Reading, forecaster: str, findings: tuple[Finding, ...]) -> ForecastReport:
    named = list(bench.concepts.values())
    as_it_is = reading is bench.reading
    consistency = {
        "told_apart": bench.told_apart if as_it_is else None,
        "parts_agree": bench.parts_agree if as_it_is and forecaster == "calibrated" else None,
    }
    return ForecastReport(
        forecast=forecast(reading, named, forecaster).model_copy(update=consistency),
        concepts=tuple(item.concept for item in named),
        clauses=bench.clauses,
        findings=(*findings, *injections(bench)),
    )


def _prepare(bench: Workbench, forecaster: str) -> None:
    """Find the concepts and the findings once; a second call changes nothing."""
    if bench.concepts:
        return
    for group in bench.groups:
        bench.concepts[group.concept.concept_id] = group
    bench.set_clauses([_with_exempt(bench, clause) for clause in bench.clauses])
    matched = _match_clauses(bench)
    findings = _clause_findings(bench, forecaster)
    claimed = _claimed(bench, matched, findings, forecaster)
    surprises = [
        name_readout(bench.reading, item.readout, "discovered")
        for item in bench.discoveries
        if item.by_chance <= MOST_BY_CHANCE
        and not any(_jaccard(item.signs, match.signs) > SAME_ROWS for match in claimed)
    ]
    for named in surprises:
        bench.concepts[named.concept.concept_id] = named
    findings += _surprises(bench, surprises, findings, forecaster)
    bench.findings = {finding.finding_id: finding for finding in findings}
    link_to(bench, _answering(bench, [f for f in findings if f.kind == "surprise"]), forecaster)
    bench.reading.forget_learner()


def _claimed(
    bench: Workbench, matched: Mapping[str, Sequence[Match]], findings: Sequence[Finding], forecaster: str
) -> list[Match]:
    """Return the matches that leave no surprise in what they hold: what breaks a clause, and a discovery that keeps it.

    What a clause's own words have led to, and does not break it, may be a worse view of what was found blind. And a
    discovery beyond the limit of its clause that is not certain enough to break it is told as a surprise, as it would
    be if no clause were about it.
    """
    blind = {id(item.readout) for item in bench.discoveries}
    broken = {(finding.clause_id, finding.concept_id) for finding in findings}
    return [
        match
        for clause in bench.clauses
        for match, concept_id in zip(matched[clause.clause_id], clause.concept_ids, strict=True)
        if (clause.clause_id, concept_id) in broken
        or (id(match.readout) in blind and _respects(bench, concept_id, clause, forecaster))
    ]


def _respects(bench: Workbench, concept_id: str, clause: Clause, forecaster: str) -> bool:
    """Whether the effect of a clause's concept, certain or not, is inside the clause's limit."""
    reading = bench.held_to(clause)
    if not reading.pairs:
        return True
    effect, _ = effect_and_rows(bench.concept(concept_id), reading, forecaster)
    return within(effect.effect, clause)


def _with_exempt(bench: Workbench, clause: Clause) -> Clause:
    """Return `clause` with what it leaves out of this data by its own condition."""
    words = exempting_words(clause, bench.texts.prompts)
    rows = bench.reading.rows[exempt(words, bench.texts.prompts)]
    return clause.model_copy(update={"exempt_words": words, "exempt_rows": tuple(rows.tolist())})


def _match_clauses(bench: Workbench) -> dict[str, list[Match]]:
    matched: dict[str, list[Match]] = {}
    filled: list[Clause] = []
    for clause in bench.clauses:
        evidence = gather(clause, bench.texts, named_behaviours(bench, clause))
        matched[clause.clause_id] = match_clause(clause, evidence, bench.reading.learner, bench.discoveries)
    matched = assign(matched, _meant(bench))
    for clause in bench.clauses:
        matches = matched[clause.clause_id]
        named = [name_readout(bench.reading, match.readout, clause.clause_id) for match in matches]
        if not named and clause.direction == "encourage" and (own := asked_for(bench, clause)) is not None:
            signs = signed_rows(bench.reading.responses.fires(own.readout), bench.reading.responses.n_pairs)
            matches.append(Match(own.readout, signs, "examples", False))
            named = [own]
        bench.concepts.update({item.concept.concept_id: item for item in named})
        filled.append(clause.model_copy(update={"concept_ids": tuple(item.concept.concept_id for item in named)}))
    bench.set_clauses(filled)
    return matched


def _meant(bench: Workbench) -> dict[str, Discovery]:
    """Return what stands for clauses, by clause_id: by the user's own examples, else by what the lens hears in them."""
    shown = _shown(bench)
    heard_too = {
        clause_id: found
        for clause_id, found in _heard(bench).items()
        if not any(shared(found, other) > SAME for other in shown.values())
    }
    return heard_too | shown


def _shown(bench: Workbench) -> dict[str, Discovery]:
    """Return the strongest discovery that fires on the examples the user gave of each clause, by clause_id."""
    given = {clause.clause_id: bag for clause in bench.clauses if (bag := given_examples(bench, clause)) is not None}
    best: dict[str, Discovery] = {}
    for found in bench.discoveries if given else ():
        strength = {key: stands_for(found.readout, bag, bench.reading.whole) for key, bag in given.items()}
        clause_id = max(strength, key=strength.__getitem__)
        if strength[clause_id] >= ANSWERS and (clause_id not in best or abs(found.z) > abs(best[clause_id].z)):
            best[clause_id] = found
    return best


def _heard(bench: Workbench) -> dict[str, Discovery]:
    """Return what the lens hears in each clause that forbids something, by clause_id.

    It listens to the discoveries, and to what a search led by the clauses' own words brings up.
    """
    clauses = [clause for clause in bench.clauses if clause.words]
    if not any(clause.direction == "avoid" for clause in clauses):
        return {}
    spoken = spoken_clauses(bench, clauses)
    sought = led(bench.reading.learner, spoken, spoken_library(bench))
    answers = heard(bench.discoveries, sought, bench.reading.whole, spoken)
    return {
        clauses[answer.clause].clause_id: answer.discovery
        for answer in answers
        if clauses[answer.clause].direction == "avoid"
    }


def _clause_findings(bench: Workbench, forecaster: str) -> list[Finding]:
    """Return what breaks each clause; rows that another clause's or a stronger finding holds are not reported again.

    Of two rules about the same rows the stricter one has them: what mends it mends both.
    """
    kept: list[Finding] = []
    for clause in sorted(bench.clauses, key=lambda clause: clause.limit if clause.direction == "avoid" else 0.0):
        own = [measured(bench, bench.reading, concept_id, forecaster, clause) for concept_id in clause.concept_ids]
        for finding in sorted((f for f in own if f is not None), key=lambda f: -abs(f.everywhere)):
            if not any(_shared(finding, other) > SAME_ROWS for other in kept):
                kept.append(finding)
    place = {clause.clause_id: i for i, clause in enumerate(bench.clauses)}
    kept.sort(key=lambda finding: place[finding.clause_id or ""])
    return [with_start_rate(bench, finding) for finding in kept]


def _surprises(bench: Workbench, named: list[NamedReadout], findings: list[Finding], forecaster: str) -> list[Finding]:
    """Return the discovered concepts that no clause claims and whose rows no finding explains, purest first.

    What a forecast cannot tell, be it that longer answers say more of anything, is none: nobody has asked about it.
    """
    kept: list[Finding] = []
    told, n_pairs = [set(finding.rows) for finding in findings], len(bench.reading.pairs)
    for item in named:
        effect, rows = effect_and_rows(item, bench.reading, forecaster)
        if effect.verdict == "cannot_tell" or len(rows) < MIN_ROWS or not _is_fresh(rows, told, n_pairs):
            continue
        kept.append(make_finding(item.concept, effect, rows, "surprise", None))
        told.append(set(rows))
        if len(kept) == bench.settings.max_surprises:
            break
    return kept


def _is_fresh(rows: Sequence[int], told: Sequence[set[int]], n_pairs: int) -> bool:
    """Whether `rows` are not what the findings before hold, whose rows are `told`.

    The narrowest count together as long as they hold no more than MOST_EXPLAINED of the pairs: what holds nearly all
    pairs holds any rows. Each of the others counts by itself.
    """
    together: set[int] = set()
    wider: list[set[int]] = []
    for one in sorted(told, key=len):
        if len(together | one) <= MOST_EXPLAINED * n_pairs:
            together |= one
        else:
            wider.append(one)
    if sum(row not in together for row in rows) < FRESH_ROWS:
        return False
    return all(_fresh(rows, each, n_pairs) >= FRESH_SHARE for each in (together, *wider))


def _fresh(rows: Sequence[int], explained: set[int], n_pairs: int) -> float:
    """Return the share of `rows` that is not held by findings before, beyond what chance alone would let them hold.

    Where findings hold most of the data, they hold most of any rows; that explains nothing (Cohen's kappa does alike).
    """
    if not rows or len(explained) >= n_pairs:
        return 0.0
    held, by_chance = sum(row in explained for row in rows) / len(rows), len(explained) / n_pairs
    return 1.0 - max(0.0, held - by_chance) / (1.0 - by_chance)


def _shared(one: Finding, other: Finding) -> float:
    a, b = set(one.rows), set(other.rows)
    return len(a & b) / max(len(a | b), 1)


def _answering(bench: Workbench, surprises: Sequence[Finding]) -> dict[str, Clause]:
    """Return the clause whose examples each surprise's concept fires on most, by finding_id, where there is one.

    Examples are the user's own, three sentences at least, or else those that an LLM wrote with their counterparts.
    """
    if not surprises:
        return {}
    asked: list[tuple[Clause, Callable[[Readout], float]]] = []
    for clause in bench.clauses:
        if (own := given_examples(bench, clause)) is not None:
            asked.append((clause, partial(stands_for, given=own, responses=bench.reading.whole)))
        elif (written := bench.contrasts.get(clause.clause_id)) is not None:
            asked.append((clause, partial(answers_to, examples=examples(bench, written))))
    about: dict[str, Clause] = {}
    for surprise in surprises:
        readout = bench.concept(surprise.concept_id).readout
        strength = [answers(readout) for _, answers in asked]
        if strength and max(strength) >= ANSWERS:
            about[surprise.finding_id] = asked[int(np.argmax(strength))][0]
    return about


def _jaccard(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    def share(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
        return float((a & b).sum() / max(int((a | b).sum()), 1))

    return max(share(one > 0, other > 0), share(one < 0, other < 0))
