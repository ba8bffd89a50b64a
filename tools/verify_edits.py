"""The tool `verify_edits`: forecast again with the edits applied, and decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from pydantic import Field

from premortem.interp.forecast import prompts_of, topic_named
from premortem.interp.quality import check_text
from premortem.interp.records import Clause, Edit, Finding, Pair, Record, Side, Span, Verdict, content_id
from premortem.interp.sentences import split
from premortem.interp.sides import Edited
from premortem.interp.tokens import tokenize
from premortem.interp.verify import EVERYWHERE, Guarded, SetOutcome, Where, judge_set, random_rows
from premortem.tools.findings import left_in_topic, missing_still
from premortem.tools.tracing import finding_spans
from premortem.tools.workbench import Workbench

CONTROL_DRAWS = 2
"""Random sets of edits of the same kinds that the forecast is made on."""


class VerifyArgs(Record):
    """Arguments of `verify_edits`."""

    finding_id: str
    """The finding that the edits answer."""
    edit_ids: tuple[str, ...] = Field(min_length=1)
    """The edits, all applied together."""


def verify_edits(bench: Workbench, args: VerifyArgs) -> tuple[Verdict, ...]:
    """Apply the edits in memory, forecast again, and return one verdict per edit.

    An edit passes when the set brings the effect inside the clause's limit and leaves no topic that breaks it, beats
    random edits of the same size, moves nothing else out, convinces a second lens, and its own text still answers the
    prompt.
    """
    finding = bench.finding(args.finding_id)
    edits = bench.edits_of(args.edit_ids)
    outcome = _judge(bench, finding, edits)
    quality = own_objections(bench, finding, edits)
    return tuple(_verdict(edit, outcome, quality.get(edit.edit_id, ())) for edit in edits)


def _verdict(edit: Edit, outcome: SetOutcome, own: Sequence[str]) -> Verdict:
    objections = (*own, *outcome.reasons)  # whoever writes the next text is told the beginning
    after = None if outcome.second_after is None else round(outcome.second_after, 6)
    told = [f"the effect goes from {outcome.before.effect:+.3f} to {outcome.after.effect:+.3f}"]
    beside = {"random edits": outcome.control, "second lens": after}
    told += [f"{name}: {value:+.3f}" for name, value in beside.items() if value is not None]
    praise = ("; ".join(told),)
    control = outcome.before.effect if outcome.control is None else outcome.control
    return Verdict(
        edit_id=edit.edit_id,
        passed=not objections,
        effect_before=round(outcome.before.effect, 6),
        effect_after=round(outcome.after.effect, 6),
        control_after=round(control, 6),
        collateral=outcome.collateral,
        second_lens=after,
        reasons=objections or praise,
    )


def _judge(bench: Workbench, finding: Finding, edits: Sequence[Edit]) -> SetOutcome:
    named = bench.concept(finding.concept_id)
    clause = bench.clause_of(finding) or implied_clause(finding)
    where = _where(bench, finding, clause)
    target = Guarded(finding.concept_id, finding.name, named.readout, clause, where)
    taught, second = bench.taught(named), bench.second_reading
    second_view = None
    if taught is not None and second is not None:
        second_view = (taught, second.responses, bench.edited(edits, second))
    after = bench.reading_after(edits)
    outcome = judge_set(
        target,
        bench.reading,
        after.responses,
        controls=_controls(bench, edits, where),
        others=_others(bench, finding),
        second=second_view,
        n_edits=len(edits),
        bounds=bench.settings.verify,
    )
    reasons = list(outcome.reasons)
    if (left := left_in_topic(bench, after, finding)) is not None:
        reasons.append(f"the rule is still broken within the topic '{left.topic}'")
    if not reasons and finding.kind == "missing" and (left := missing_still(bench, after, finding)) is not None:
        reasons.append(f"the effect of {left.effect:+.3f} ({left.low:+.3f} to {left.high:+.3f}) is not told from none")
    return replace(outcome, reasons=tuple(reasons))


def _where(bench: Workbench, finding: Finding, clause: Clause) -> Where:
    """Return the pairs that a finding is about: of its topic, if any, and none that its rule leaves out."""
    topic = topic_named(bench.reading, finding.topic)
    return Where(None if topic is None else prompts_of(bench.reading, topic.rows), bench.asked_for(clause))


def implied_clause(finding: Finding) -> Clause:
    """Return the clause that a surprise would break if someone had written it: no change in either direction."""
    return Clause(
        clause_id=content_id("implied", finding.finding_id),
        text="",
        behaviour=finding.name,
        direction="avoid" if finding.effect >= 0 else "keep",
        limit=0.01,
    )


def _others(bench: Workbench, finding: Finding) -> list[Guarded]:
    """Return every other concept, those of clauses with their clause."""
    clauses = {concept_id: clause for clause in bench.clauses for concept_id in clause.concept_ids}
    held = {concept_id: Where(left_out=bench.asked_for(clause)) for concept_id, clause in clauses.items()}
    return [
        Guarded(
            concept_id, named.concept.name, named.readout, clauses.get(concept_id), held.get(concept_id, EVERYWHERE)
        )
        for concept_id, named in bench.concepts.items()
        if concept_id != finding.concept_id
    ]


def _controls(bench: Workbench, edits: Sequence[Edit], where: Where) -> list[Edited]:
    """Return the data with as many random edits of the same kinds in pairs that the finding is about.

    Those are all pairs, those of its topic or those that its rule holds for, whether they carry the effect or not: how
    much edits do that know nothing is what is asked.
    """
    draws: list[Edited] = []
    for draw in range(CONTROL_DRAWS):
        random_edits = _random_edits(bench, edits, where, bench.settings.seed + draw)
        if random_edits:
            draws.append(bench.edited(random_edits, bench.reading))
    return draws


def _random_edits(bench: Workbench, edits: Sequence[Edit], where: Where, seed: int) -> list[Edit]:
    like = [edit for edit in edits if edit.kind != "synthesise"]
    rows = random_rows(bench.reading.rows[where.marks(bench.reading.responses)], len(like), seed)
    rng = np.random.default_rng(seed)
    return [_random_edit(bench, edit, row, rng) for edit, row in zip(like, rows, strict=False)]


def _random_edit(bench: Workbench, edit: Edit, row: int, rng: np.random.Generator) -> Edit:
    """Return an edit of the kind of `edit` on another row: a flip, a drop, or a sentence less on the same side."""
    pair = bench.pair(row)
    side: Side = edit.side or "chosen"
    before = pair.text(side)
    after = before
    if edit.kind in ("rewrite", "neutralise"):
        pieces = split(before)
        cut = pieces[int(rng.integers(len(pieces)))] if len(pieces) > 1 else None
        after = before if cut is None else (before[: cut.start] + before[cut.end :]).strip()
    update = {"row": row, "before": before, "after": after, "edit_id": content_id("control", edit.edit_id, row)}
    return edit.model_copy(update=update)


def own_objections(bench: Workbench, finding: Finding, edits: Sequence[Edit]) -> dict[str, tuple[str, ...]]:
    """Return what speaks against each edited text on its own, by edit_id, whatever set it stands in.

    A new pair's chosen response is held to its rejected one.
    """
    texts = [(edit, *_text_of(bench, edit)) for edit in edits if edit.side is not None or edit.pair is not None]
    before = _log_likelihoods(bench, [(pair, side, pair.text(side)) for _, pair, side in texts])
    after = _log_likelihoods(bench, [(pair, side, edit.after) for edit, pair, side in texts])
    return {
        edit.edit_id: _objections(bench, finding, edit, pair, side, old, new)
        for (edit, pair, side), old, new in zip(texts, before, after, strict=True)
    }


def _text_of(bench: Workbench, edit: Edit) -> tuple[Pair, Side]:
    """Return the pair as it is before `edit`, and the side whose text it changes."""
    if edit.pair is not None:
        return edit.pair.with_text("chosen", edit.pair.text("rejected")), "chosen"
    return bench.pair(edit.row), edit.side or "chosen"


def _objections(
    bench: Workbench, finding: Finding, edit: Edit, pair: Pair, side: Side, old: float | None, new: float | None
) -> tuple[str, ...]:
    other: Side = "rejected" if side == "chosen" else "chosen"
    return check_text(
        pair if edit.pair is None else pair.with_text(other, ""),  # a new pair had no other side to be like before
        side,
        edit.after,
        old,
        new,
        pair.text(other),
        spans=None if edit.pair is not None else _spans_to_keep_around(bench, finding, edit, pair),
        bounds=bench.settings.quality,
    )


def _spans_to_keep_around(bench: Workbench, finding: Finding, edit: Edit, pair: Pair) -> tuple[Span, ...] | None:
    """Return where the concept fires in the old text; None for a new answer, which owes the old one nothing."""
    carrying, spans = finding_spans(bench, finding, pair)
    fresh_answer = edit.kind == "neutralise" or carrying != edit.side or "anew" in edit.rationale
    return None if fresh_answer else spans


def _log_likelihoods(bench: Workbench, items: Sequence[tuple[Pair, Side, str]]) -> list[float | None]:
    """Return the mean log-likelihood of each text as the response of its pair and side; None where it is too long."""
    tokens = [tokenize(pair.with_text(side, text), bench.reader.model.tokenizer) for pair, side, text in items]
    wanted = [
        (t.prompt, t.chosen if side == "chosen" else t.rejected)
        for t, (_, side, _) in zip(tokens, items, strict=True)
        if t is not None
    ]
    found = iter(bench.start_model.log_likelihood(wanted) if wanted else ())
    return [None if t is None else float(next(found)) for t in tokens]
