"""Where a finding's concept fires in a pair: the step from rows to sentences, shared by reading and proposing."""

from __future__ import annotations

from collections.abc import Sequence

from premortem.interp.clauses import clause_spans
from premortem.interp.records import Finding, Pair, Side, Span
from premortem.interp.sentences import split
from premortem.interp.tokens import response_offsets, tokenize
from premortem.interp.trace import spans
from premortem.tools.workbench import Workbench


def carrying_side(finding: Finding) -> Side:
    """Return the side on which the concept fires in the finding's rows: chosen where the effect is a rise."""
    return "chosen" if finding.effect >= 0 else "rejected"


def finding_spans(bench: Workbench, finding: Finding, pair: Pair) -> tuple[Side, tuple[Span, ...]]:
    """Return the side that carries the finding's concept in `pair`, and the sentences that make it fire."""
    side = carrying_side(finding)
    pieces = [(piece.start, piece.end) for piece in split(pair.text(side))]
    return side, _traced(bench, finding, pair, pieces)


def firing_clauses(bench: Workbench, finding: Finding, pair: Pair, sentences: Sequence[Span]) -> tuple[Span, ...]:
    """Return the clauses and asides that make the concept fire in `sentences`; a sentence of one clause is its own."""
    found = clause_spans(pair.text(carrying_side(finding)))
    pieces = [clause for clause in found if any(span.start <= clause[0] < span.end for span in sentences)]
    if len(pieces) == len(sentences):
        return tuple(sentences)
    return _traced(bench, finding, pair, pieces)


def _traced(bench: Workbench, finding: Finding, pair: Pair, pieces: Sequence[tuple[int, int]]) -> tuple[Span, ...]:
    """Return those of `pieces` that make the concept fire; text outside them stays as it is."""
    side, tokenizer = carrying_side(finding), bench.reader.model.tokenizer
    tokens = tokenize(pair, tokenizer)
    if tokens is None:
        return ()
    encoded = bench.reader.encode([pair])[bench.main.lens_id]
    read = encoded.chosen if side == "chosen" else encoded.rejected
    inside = [
        (a, b) if any(start < b <= end for start, end in pieces) else (0, 0)
        for a, b in response_offsets(pair, side, tokens, tokenizer)
    ]
    return spans(bench.concept(finding.concept_id).readout, read.tokens, bench.main.d_sae, inside, pieces)
