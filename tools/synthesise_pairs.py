"""The tool `synthesise_pairs`: new pairs that teach what the data lacks.

The start model answers prompts of the dataset with the rule as its system message. Answers in which the concept fires
become chosen responses; the dataset's own response to that prompt in which it does not fire becomes the rejected one.
Prompts are the dataset's own, so the new pairs resemble it; an answer close to an existing response is left out.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field
from rapidfuzz import fuzz

from premortem.interp.errors import ToolError
from premortem.interp.readout import bag_of
from premortem.interp.records import Edit, Finding, Pair, Record, content_id
from premortem.interp.rewrite import whole_sentences
from premortem.tools.verify_edits import implied_clause
from premortem.tools.workbench import Workbench

TRIES = 3
"""Prompts asked per pair wanted; many answers will not show the behaviour."""
MOST_ASKED = 120
"""Prompts asked in one call, at most: a small model on two cores answers about one a second."""
MAX_NEW_TOKENS = 80
NEAR_DUPLICATE = 90.0
"""rapidfuzz ratio from which two responses count as the same."""


class SynthesiseArgs(Record):
    """Arguments of `synthesise_pairs`."""

    finding_id: str
    """A finding of kind `missing`."""
    count: int = Field(ge=1, le=2000)
    """How many pairs to make at most."""


def synthesise_pairs(bench: Workbench, args: SynthesiseArgs) -> tuple[Edit, ...]:
    """Make new pairs whose chosen response shows what the finding misses; `verify_edits` decides on them."""
    finding = bench.finding(args.finding_id)
    clause = bench.clause_of(finding) or implied_clause(finding)
    sources = _sources(bench, finding, min(args.count * TRIES, MOST_ASKED))
    answers = bench.start_model.sample(
        [pair.prompt for pair in sources],
        max_new_tokens=MAX_NEW_TOKENS,
        seed=bench.settings.seed,
        system=clause.text,
        progress=bench.progress,
    )
    pairs = _showing(bench, finding, sources, [whole_sentences(answer) for answer in answers])[: args.count]
    if not pairs:
        raise ToolError(f"the start model never showed '{finding.name}' when told to: {clause.text}")
    first = bench.next_row
    edits = tuple(_edit(finding, pair.model_copy(update={"row": first + i})) for i, pair in enumerate(pairs))
    bench.remember(edits)
    return edits


def _sources(bench: Workbench, finding: Finding, n: int) -> list[Pair]:
    """Draw pairs in which at least one response lacks the concept."""
    rng = np.random.default_rng(bench.settings.seed)
    pairs = [pair for pair in bench.readable if pair.row not in set(finding.rows)]
    return [pairs[i] for i in rng.permutation(len(pairs))[:n]]


def _showing(bench: Workbench, finding: Finding, sources: list[Pair], answers: list[str]) -> list[Pair]:
    """Return pairs of an answer that shows the concept with the source's response that does not."""
    readout = bench.concept(finding.concept_id).readout
    drafts = [
        source.with_text("chosen", answer)
        .with_text("rejected", source.text("chosen"))
        .model_copy(update={"row": i, "extra": {}})
        for i, (source, answer) in enumerate(zip(sources, answers, strict=True))
        if answer.strip() and fuzz.ratio(answer, source.text("chosen")) < NEAR_DUPLICATE
    ]
    if not drafts:
        return []
    encoded = bench.reader.encode(drafts, bench.progress)[bench.main.lens_id]
    fires = [readout.fires(bag_of(pooled)) for pooled in (encoded.chosen, encoded.rejected)]
    good = {row for row, chosen, rejected in zip(encoded.rows, *fires, strict=True) if chosen and not rejected}
    return [draft for draft in drafts if draft.row in good]


def _edit(finding: Finding, pair: Pair) -> Edit:
    return Edit(
        edit_id=content_id("edit", finding.finding_id, "synthesise", pair.prompt, pair.chosen),
        finding_id=finding.finding_id,
        row=pair.row,
        kind="synthesise",
        side=None,
        before="",
        after=pair.text("chosen"),
        rationale=f"the data does not teach “{finding.name}”; the start model's answer shows it",
        pair=pair,
    )
