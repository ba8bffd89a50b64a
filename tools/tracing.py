"""Where a finding's concept fires in a pair: the step from rows to sentences, shared by reading and proposing."""

from __future__ import annotations

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
    tokenizer = bench.reader.model.tokenizer
    tokens = tokenize(pair, tokenizer)
    if tokens is None:
        return side, ()
    encoded = bench.reader.encode([pair])[bench.main.lens_id]
    read = encoded.chosen if side == "chosen" else encoded.rejected
    pieces = [(piece.start, piece.end) for piece in split(pair.text(side))]
    offsets = response_offsets(pair, side, tokens, tokenizer)
    return side, spans(bench.concept(finding.concept_id).readout, read.tokens, bench.main.d_sae, offsets, pieces)
