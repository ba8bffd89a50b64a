"""What speaks against an edited text, before any forecast is asked about it.

An edit that takes the concept away can still be a bad edit: the rest no longer answers its prompt, a sentence breaks
off, both sides now say the same. Each such objection is a sentence; no objection means the text may stand. Whether it
changes the forecast as wished is for `verify` to say. Nothing here loads a model: likelihoods come in as numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rapidfuzz import fuzz
from rapidfuzz.distance import LCSseq

from premortem.interp.clauses import open_marks
from premortem.interp.messages import holds_turn
from premortem.interp.records import Pair, Record, Side, Span
from premortem.interp.sentences import split
from premortem.interp.words import words

LIKELIHOOD_DROP = 0.8
"""Default of `QualityBounds.likelihood_drop`, in nats per token.

From 24 real answers of three datasets under the embedded model (old texts at -1.6 on average). Taking a random sentence
out cost 0.16 on average and 0.71 at most; putting in a sentence from another answer 0.44 and 0.95; leaving out a
quarter of the words at least 0.93; scrambling the letters of one sentence 2.4 on average; shuffling the words at least
2.1. A fluent answer to another prompt cost 0.69 on average and passes half the time: likelihood tells broken text, and
only partly a changed subject."""


class QualityBounds(Record):
    """How far an edited text may go from the old one."""

    likelihood_drop: float = LIKELIHOOD_DROP
    """Most that the mean log-likelihood under the start model may fall, in nats per token."""
    min_length: float = 0.3
    """Least length of the new text relative to the old one, counted in words; a cut that goes further is a new
    answer."""
    max_length: float = 2.0
    """Most length of the new text relative to the old one, counted in words."""
    min_words: int = 3
    """Fewer words than this are no answer, unless the old text had no more."""
    min_kept: float = 0.8
    """Least share of the old words outside the firing sentences that still stand, in order."""
    max_likeness: float = 0.95
    """Most likeness to the other side (share of characters in common, 0 to 1); above it the pair teaches nothing.
    Where the two sides were more alike before, what they were is the bound."""


def check_text(
    pair: Pair,
    side: Side,
    new_text: str,
    loglik_before: float | None,
    loglik_after: float | None,
    other_text: str,
    *,
    spans: Sequence[Span] | None = None,
    bounds: QualityBounds | None = None,
) -> tuple[str, ...]:
    """Return what speaks against `new_text` as the response of `side`, one sentence each; empty: nothing does.

    `loglik_before` and `loglik_after` are mean log-likelihoods of the old and new text under the start model, in nats
    per token (None: not measured, not judged). `other_text` is the other side as the edited pair has it. `spans` are
    where the concept fires in the old text; None where the new text is a new answer and likeness to the old means
    nothing.
    """
    limits = bounds or QualityBounds()
    old = pair.text(side)
    if not new_text.strip():
        return ("The new text is empty.",)
    reasons = [
        *_likelihood(loglik_before, loglik_after, limits),
        *_length(old, new_text, limits),
        *_other_side(old, new_text, pair.text("rejected" if side == "chosen" else "chosen"), other_text, limits),
        *(f"The new text {flaw}." for flaw in sorted(flaws(new_text) - flaws(old))),
    ]
    if spans is not None and (kept := kept_share(old, new_text, spans)) < limits.min_kept:
        reasons.append(
            f"Only {kept:.0%} of the words outside the firing sentences still stand; {limits.min_kept:.0%} are asked."
        )
    return tuple(reasons)


def kept_share(old: str, new: str, spans: Sequence[Span]) -> float:
    """Return the share of the words of `old` outside the sentences touched by `spans` that `new` has in order."""
    outside = [
        word
        for piece in split(old)
        if not any(span.start < piece.stop and span.end > piece.body for span in spans)
        for word in words(old[piece.body : piece.stop])
    ]
    return LCSseq.similarity(outside, words(new)) / len(outside) if outside else 1.0


def flaws(text: str) -> frozenset[str]:
    """Return what is visibly broken in `text`, as ends of "The text ..."."""
    body = text.strip()
    found = {f"leaves {mark} without its other half" for mark in open_marks(body)}
    found |= {words_ for pattern, words_ in _FLAWS if pattern.search(body)}
    if holds_turn(text):
        found.add("goes on with another turn of a dialogue")
    return frozenset(found)


_FLAWS = (
    (re.compile(r"[,;(\[–—，、；（「『]$|(?<=\s)-$"), "ends in the middle of a sentence"),
    (re.compile(r"[\w)\"”]:$|[\w）」』”]：$"), "ends with a colon that introduces nothing"),
    (re.compile(r"^(?:Human|Assistant):"), "starts with the name of a speaker"),
    (re.compile(r"^(?:[,;:!?)\]，、；：。！？）」』]|\.(?![\w.]))"), "starts with a stray mark"),
    (
        re.compile(r"[,;]\s*[.!?](?![\w.])|(?<!\.)\s\.(?=\s|$)|,\s*,|[，、；]\s*[。！？，、；]"),
        "has two marks in a row where a clause is missing",
    ),
    (re.compile(r"^[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]*$", re.MULTILINE), "has an empty list item"),
    (re.compile(r"\(\s*\)|（\s*）|「\s*」|\[\s*\](?!\()|\]\(\s*\)"), "has an empty bracket"),
)


def _likelihood(before: float | None, after: float | None, limits: QualityBounds) -> list[str]:
    if before is None or after is None or before - after <= limits.likelihood_drop:
        return []
    return [
        f"It answers its prompt less well: log-likelihood under the start model falls by {before - after:.2f} nats per "
        f"token, {limits.likelihood_drop:.2f} at most."
    ]


def _length(old: str, new: str, limits: QualityBounds) -> list[str]:
    had, has = len(words(old)), len(words(new))
    if has < min(limits.min_words, had):
        return [f"It has {has} words left, too few for an answer."]
    if had and not limits.min_length <= has / had <= limits.max_length:
        return [
            f"It is {has / had:.2f} times as long as before; {limits.min_length} to {limits.max_length} is allowed."
        ]
    return []


def _other_side(old: str, new: str, old_other: str, other: str, limits: QualityBounds) -> list[str]:
    if words(new) == words(other) and new.split() == other.split():
        return ["Both sides say the same."]
    likeness, likeness_before = fuzz.ratio(new, other) / 100, fuzz.ratio(old, old_other) / 100
    if likeness > max(limits.max_likeness, likeness_before):
        return [f"It is nearly the other side ({likeness:.0%} alike); {limits.max_likeness:.0%} is the most."]
    return []
