"""The tool `propose_edits`: the smallest set of edits that should bring a finding inside its limit.

Where an author stands behind the bench (an LLM), it writes the first candidate for the most responsible pairs. For each
responsible pair, most responsible first, the built-in rewriter offers candidates from the least change to the greatest:
cut the part where the concept fires, put other sentences in its place, answer anew with the concept's features switched
off (from the second attempt on), let both sides carry it, put a counter-pair beside it, turn the preference round,
leave the pair out. The lens reads the candidates and the first one in which the concept is quiet is taken. Pairs are
added until the forecast meets the limit at the upper end of its interval, so the set is as small as certainty allows,
and then those of any topic in which the pairs left would still break the rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from math import ceil

import numpy as np
from pydantic import Field

from premortem.interp.effects import Z90
from premortem.interp.forecast import without_rows
from premortem.interp.quality import check_text
from premortem.interp.readout import bag_of
from premortem.interp.records import Clause, Edit, EditKind, Finding, Pair, Record, Side, content_id
from premortem.interp.rewrite import Candidate, candidates
from premortem.interp.start_model import Suppression
from premortem.tools.author import SHOWN, Hint
from premortem.tools.authored import authored, changed_part, hint_after
from premortem.tools.findings import left_in_topic
from premortem.tools.tracing import carrying_side, finding_spans, firing_clauses
from premortem.tools.verify_edits import implied_clause
from premortem.tools.workbench import Workbench

SPARE = 1.15
"""The set is this much larger than the dose asks, since some edits will not survive verification."""
SUPPRESSED = 16
"""Features of a concept that are switched off for a fresh answer, at most."""
MAX_NEW_TOKENS = 64
BUILT_IN = "built-in"
ALWAYS: frozenset[EditKind] = frozenset(("rewrite", "flip", "drop"))
"""Kinds of edit that a planner may ask for at any attempt."""
BATCH = 32
"""Rows whose candidates are read by the lens together."""


class ProposeArgs(Record):
    """Arguments of `propose_edits`."""

    finding_id: str
    """The finding to mend."""
    attempt: int = 0
    """How often edits for this finding were proposed before; later attempts skip the kinds that failed."""
    kept: tuple[str, ...] = ()
    """Edits (edit_id) of this finding that passed and stay: their pairs need no other."""
    refused: tuple[str, ...] = ()
    """Edits (edit_id) that a verdict refused; they are not proposed again."""
    void: tuple[str, ...] = ()
    """Edits (edit_id) of other findings that a verdict refused: their pairs are free again."""
    reasons: dict[str, str] = Field(default_factory=dict)
    """Why each of them was refused, by edit_id; whoever writes the next text is told."""
    kinds: tuple[EditKind, ...] = ()
    """Kinds of edit to use, the preferred first; none: all, the least change first."""
    room: int | None = Field(None, ge=0)
    """Edits to propose at most; null: as many as it takes."""
    advice: str = Field("", max_length=400)
    """A hint for whoever writes the texts; it is data and changes no rule."""
    authored: int = Field(0, ge=0)
    """How many pairs the author may be asked about, at most; the others get built-in edits."""


def propose_edits(bench: Workbench, args: ProposeArgs) -> tuple[Edit, ...]:
    """Propose the smallest set of edits whose forecast should meet the limit, most responsible pairs first.

    None where those that are kept should do. Nothing is accepted by proposing: `verify_edits` decides.
    """
    finding = bench.finding(args.finding_id)
    clause = bench.clause_of(finding) or implied_clause(finding)
    kept = [bench.edits[edit_id] for edit_id in args.kept]
    needed, gained = dose(finding, clause, len(bench.held_to(clause).pairs)), sum(map(_gain, kept))
    mended = {edit.row for edit in kept} | _countered(bench, finding, kept)
    rows = [row for row in _free_rows(bench, finding, args.void) if row not in mended]
    wanted = needed * SPARE - gained if gained < needed else 0.0
    most = len(rows) if args.room is None else args.room
    written = _written(bench, finding, clause, rows[: min(args.authored, ceil(wanted), most)], args)
    edits = _as_many(_edits_for(bench, finding, rows, args, written), wanted, most)
    more = _still_in_topics(bench, finding, rows, mended | {edit.row for edit in edits})
    edits += _as_many(_edits_for(bench, finding, more, args, written), len(more) * 2.0, most - len(edits))
    new_rows = count(bench.next_row)
    edits = [_in_new_row(edit, next(new_rows)) if edit.pair is not None else edit for edit in edits]
    bench.remember(edits)
    return tuple(edits)


def _written(
    bench: Workbench, finding: Finding, clause: Clause, rows: Sequence[int], args: ProposeArgs
) -> dict[int, Candidate]:
    """Return what the author writes for `rows`; what comes to nothing goes back to it once."""
    author = bench.author
    if author is None or not rows or (args.kinds and "rewrite" not in args.kinds):
        return {}
    refused = {edit.row: edit for edit_id in args.refused if (edit := bench.edits[edit_id]).author == author.name}
    hints = dict.fromkeys(rows, Hint(advice=args.advice))
    for row, edit in refused.items():
        tried = changed_part(edit.before, edit.after)[:SHOWN]
        hints[row] = Hint(advice=args.advice, tried=tried, why=args.reasons.get(edit.edit_id, "it was refused"))
    made = authored(bench, author, finding, clause, rows, hints)
    quiet = _quiet(bench, finding, list(made.items()))
    failed = [row for row in rows if row not in made or (row, made[row].text) not in quiet]
    for row in set(failed) & set(made):
        hints[row] = hint_after(hints[row], finding, bench.pair(row).text("chosen"), made[row].text)
    return made | authored(bench, author, finding, clause, failed, hints, again=True)


def dose(finding: Finding, clause: Clause, n_pairs: int) -> float:
    """Return how many pairs must lose the concept for the effect to meet the limit at the end of its interval.

    Where a rule asks for more of it: how many must gain it for the effect to reach the limit. Else:
    With k pairs left the effect is k / n and its standard error sqrt(k) / n, so the largest k with
    k + 1.645 sqrt(k) <= n * limit may stay.
    """
    if finding.topic is not None:
        return float(len(finding.rows))  # a breach within a topic only, judged there: nothing of it may stay
    if clause.direction == "encourage":  # it must rise from where it is to the limit
        return max((clause.limit - finding.everywhere) * n_pairs, 1.0)
    k = np.arange(len(finding.rows) + 1)
    allowed = n_pairs * clause.limit
    net = abs(finding.everywhere) * n_pairs
    may_stay = int(k[k + Z90 * np.sqrt(k) <= allowed].max(initial=0))
    return max(net - may_stay, 1.0)


def _as_many(offered: Iterator[Edit], gain: float, most: int) -> list[Edit]:
    """Return of the edits `offered` as many as it takes to gain so much, and no more than `most`."""
    taken: list[Edit] = []
    while gain > 0 and len(taken) < most and (edit := next(offered, None)) is not None:
        taken.append(edit)
        gain -= _gain(edit)
    return taken


def _still_in_topics(bench: Workbench, finding: Finding, rows: Sequence[int], mended: set[int]) -> list[int]:
    """Return which of `rows` are to be mended besides, since within a topic the rule would still be broken."""
    free, more = set(rows), list[int]()
    while (left := left_in_topic(bench, without_rows(bench.reading, [*mended, *more]), finding)) is not None:
        fresh = [row for row in left.rows if row in free]
        if not fresh:
            break
        more += fresh
    return more


def _countered(bench: Workbench, finding: Finding, kept: Sequence[Edit]) -> set[int]:
    """Return the finding's rows beside which one of the kept edits has put a counter-pair."""
    beside = {(edit.pair.prompt_key(), edit.pair.text("rejected")) for edit in kept if edit.pair is not None}
    pairs = (bench.pair(row) for row in (finding.rows if beside else ()))
    return {pair.row for pair in pairs if (pair.prompt_key(), pair.text("chosen")) in beside}


def _in_new_row(edit: Edit, row: int) -> Edit:
    """Return an edit that adds a pair, in the row `row`."""
    pair = edit.pair and edit.pair.model_copy(update={"row": row})
    return edit.model_copy(update={"row": row, "pair": pair})


def _gain(edit: Edit) -> float:
    """Return how many pairs lose the concept by an edit; a flip also takes one away from the other side."""
    return 2.0 if edit.kind == "flip" else 1.0


def _free_rows(bench: Workbench, finding: Finding, void: Sequence[str]) -> list[int]:
    """Return the finding's rows that no edit of another finding touches, but for those in `void`."""
    free = set(void)
    others = [edit for edit in bench.edits.values() if edit.finding_id != finding.finding_id]
    taken = {edit.row for edit in others if edit.edit_id not in free}
    return [row for row in finding.rows if row not in taken]


def _edits_for(
    bench: Workbench,
    finding: Finding,
    rows: Sequence[int],
    args: ProposeArgs,
    written: Mapping[int, Candidate],
) -> Iterator[Edit]:
    """Yield the best candidate for each of `rows`, in their order; what an author has `written` goes first."""
    for start in range(0, len(rows), BATCH):
        yield from _edits_of_batch(bench, finding, rows[start : start + BATCH], args, written)


def _edits_of_batch(
    bench: Workbench,
    finding: Finding,
    rows: Sequence[int],
    args: ProposeArgs,
    written: Mapping[int, Candidate],
) -> list[Edit]:
    samples = _samples(bench, finding, rows) if args.attempt else {}
    offers = {
        row: _offers(bench, finding, bench.pair(row), args, samples.get(row, ()), written.get(row)) for row in rows
    }
    quiet = _quiet(bench, finding, [(row, candidate) for row in rows for candidate in offers[row]])
    chosen: list[Edit] = []
    for row in rows:
        for candidate in offers[row]:
            if candidate.kind in ("flip", "drop") or (row, candidate.text) in quiet:
                by_author = bench.author is not None and candidate == written.get(row)
                author = bench.author.name if by_author and bench.author else BUILT_IN
                edit = _edit(finding, bench.pair(row), candidate, author)
                if edit.edit_id not in args.refused:
                    chosen.append(edit)
                    break
    return chosen


def _samples(bench: Workbench, finding: Finding, rows: Sequence[int]) -> dict[int, tuple[str, ...]]:
    """Return, for each row, the start model's own answer with the features that speak for the concept switched off."""
    if carrying_side(finding) == "rejected" or not Suppression.possible(bench.main):
        return {}
    readout = bench.concept(finding.concept_id).readout
    features = [feature for feature, weight in readout.strongest(SUPPRESSED) if weight > 0]
    answers = bench.start_model.sample(
        [bench.pair(row) for row in rows],
        max_new_tokens=MAX_NEW_TOKENS,
        seed=bench.settings.seed,
        suppress=Suppression.of_lens(bench.main, features),
        whole=True,
        progress=bench.progress,
    )
    return {row: (answer,) for row, answer in zip(rows, answers, strict=True) if answer.strip()}


def _offers(
    bench: Workbench,
    finding: Finding,
    pair: Pair,
    args: ProposeArgs,
    samples: Sequence[str],
    written: Candidate | None,
) -> list[Candidate]:
    """Return the candidates for one pair, best first, without those that a look at the text refuses."""
    side, spans = finding_spans(bench, finding, pair)
    offered = candidates(pair, side, spans, firing_clauses(bench, finding, pair, spans), samples)
    tried = {bench.edits[edit_id].kind for edit_id in args.refused if bench.edits[edit_id].row == pair.row}
    if side == "rejected":  # the data prefers what lacks the concept: changing the rejected text would hide it only
        order: tuple[EditKind, ...] = ("flip", "neutralise", "drop")
    else:
        later: tuple[EditKind, ...] = ("rewrite", "neutralise", "synthesise", "flip", "drop")
        order = ("rewrite", "flip", "drop") if args.attempt == 0 else later
    if "rewrite" in tried and args.attempt > 1:
        order = tuple(kind for kind in order if kind != "rewrite")
    if args.kinds:
        allowed = set(order) if side == "rejected" else ALWAYS | set(order)
        order = tuple(dict.fromkeys((*(kind for kind in args.kinds if kind in allowed), *order[-2:])))
    kept = [c for kind in order for c in offered if c.kind == kind]
    if written is not None:
        kept.insert(0, written)
    return [c for c in kept if c.side is None or _reads_well(bench, pair, c, side)]


def _reads_well(bench: Workbench, pair: Pair, candidate: Candidate, carrying: Side) -> bool:
    if candidate.side is None:
        return True
    other: Side = "rejected" if candidate.side == "chosen" else "chosen"
    return not check_text(
        pair, candidate.side, candidate.text, None, None, pair.text(other), bounds=bench.settings.quality
    )


def _quiet(bench: Workbench, finding: Finding, offered: Sequence[tuple[int, Candidate]]) -> set[tuple[int, str]]:
    """Return the candidates after which the pair, or the counter-pair, does not speak for the concept."""
    readout = bench.concept(finding.concept_id).readout
    offered = [(row, c) for row, c in offered if c.kind not in ("flip", "drop")]
    edited = [bench.pair(row).with_text(c.side or "chosen", c.text) for row, c in offered]
    edited = [pair.model_copy(update={"row": i}) for i, pair in enumerate(edited)]
    if not edited:
        return set()
    encoded = bench.reader.encode(edited, bench.progress)[bench.main.lens_id]
    carrying = carrying_side(finding)
    chosen_fires, rejected_fires = (readout.fires(bag_of(p)) for p in (encoded.chosen, encoded.rejected))
    speaks = chosen_fires & ~rejected_fires if carrying == "chosen" else rejected_fires & ~chosen_fires
    by_row = dict(zip(encoded.rows, speaks, strict=True))
    return {(row, c.text) for i, (row, c) in enumerate(offered) if not by_row.get(i, True)}


def _edit(finding: Finding, pair: Pair, candidate: Candidate, author: str = BUILT_IN) -> Edit:
    """Return the edit that a candidate makes; a counter-pair still bears the row of the pair that it stands beside."""
    counter = _counter_pair(pair, candidate.text) if candidate.kind == "synthesise" else None
    before = "" if counter else pair.text(candidate.side or "chosen")
    return Edit(
        edit_id=content_id("edit", finding.finding_id, pair.row, candidate.kind, candidate.side, candidate.text),
        finding_id=finding.finding_id,
        row=pair.row,
        kind=candidate.kind,
        side=candidate.side,
        before=before,
        after=candidate.text,
        rationale=f"{_why(finding)}; {candidate.how}",
        pair=counter,
        author=author,
    )


def _counter_pair(pair: Pair, chosen: str) -> Pair:
    """Return a new pair with the prompt of `pair` that prefers `chosen` to what `pair` prefers."""
    shown = pair.text("chosen")
    return pair.with_text("chosen", chosen).with_text("rejected", shown).model_copy(update={"extra": {}})


def _why(finding: Finding) -> str:
    where = "only the chosen response shows" if finding.effect >= 0 else "only the rejected response shows"
    return f"{where} “{finding.name}”"
