"""Candidate rewrites of one pair, made from its own words and grounded in where a concept fires.

The lens says where in a response the concept fires (`Span`s). From that come, least change first: the response without
those sentences or clauses; with sentences of another text in their place; a fresh sample of the start model; the same
sentences given to the other side, so that the pair no longer teaches them; a counter-pair beside it, in which what
shows the concept is the rejected response; the sides exchanged; the pair left out.
These are candidates. Which of them is good is not decided here: `quality` reads the text, `verify` the forecast.

All functions are pure. A text is laid out as the pieces of `sentences.split`, each piece's body is kept, changed or
dropped, and `_assemble` puts them together with white space, list numbers and quotes in order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rapidfuzz import fuzz

from premortem.interp.clauses import capitalise, cut_clause, open_marks
from premortem.interp.records import EditKind, Pair, Side, Span
from premortem.interp.sentences import Sentence, split
from premortem.interp.words import runs_on, words

KEEP_SHARE = 0.3
"""Least share of the letters that a cut must leave; below it the response is no longer the same answer."""
MIN_WORDS = 3
"""Least number of words that a cut must leave."""
MOST = 0.6
"""Where the concept fires in a larger share of a text than this, its sentences cannot be told from the answer."""
SAME = 85.0
"""rapidfuzz ratio, 0 to 100, above which two sentences count as the same."""

_OPENERS = re.compile(
    r"(?:(?:and|but|or|yet|so(?! (?:far|long|that|much|many)\b)),?|(?:however|moreover|furthermore|additionally|also|"
    r"besides|nevertheless|nonetheless|therefore|thus|hence|consequently|in addition|as a result|on the other hand|"
    r"that (?:being )?said|with that (?:being )?(?:said|in mind)|similarly|likewise|instead|meanwhile|then|by the way|"
    r"plus|otherwise|in contrast|for (?:example|instance)|in other words),)\s+(?=\S)",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"^([ \t]*\(?)(\d{1,3})([.)][ \t]+.*)$", re.DOTALL)
_BOLD = re.compile(r"(\*\*|__)[^*_\n]+\1:?")
LOWEST = 7
"""Level of a line in bold that stands for a heading; Markdown's own have 1 to 6."""
_Bodies = list[str | None]


class Candidate(NamedTuple):
    """One way to change a pair, not yet scored."""

    kind: EditKind
    """`rewrite`, `neutralise`, `synthesise` (a counter-pair), `flip` or `drop`."""
    side: Side | None
    """The side whose text changes; None for the last three."""
    text: str
    """That side's new text; for `synthesise` and `flip` the new chosen response; empty for `drop`."""
    how: str
    """What was done, for the edit's rationale."""


def excise(text: str, spans: Sequence[Span], *, keep_share: float = KEEP_SHARE, whole: bool = False) -> str | None:
    """Return `text` without the clauses that `spans` touch where grammar allows that, else without their sentences.

    `whole`: always without their sentences.

    None where nothing fires, or where less than `keep_share` of the letters would stay.
    """
    pieces = split(text)
    bodies = _bodies(text, pieces)
    for i in _firing(pieces, spans):
        bodies[i] = None if whole else cut_clause(text[pieces[i].body : pieces[i].stop], _local(pieces[i], spans))
    return _checked(text, pieces, bodies, keep_share)


def replace_sentences(text: str, spans: Sequence[Span], source: str) -> str | None:
    """Return `text` with each firing sentence replaced by the sentence of `source` nearest in place and words.

    A sentence that the text holds already, or that says what is being replaced, is not taken; where `source` runs out,
    the firing sentence goes. None where nothing could be replaced or every sentence fires.
    """
    pieces, bodies = split(text), _bodies(text, split(text))
    firing = _firing(pieces, spans)
    pool = _pool(source, [body for i, body in enumerate(bodies) if i not in firing and body])
    replaced = 0
    for i in firing:
        found = _nearest(bodies[i] or "", pieces[i].start / len(text), pool) if pieces[i].kind in _PLAIN else None
        bodies[i] = found
        replaced += found is not None
    return _checked(text, pieces, bodies, KEEP_SHARE) if replaced and len(firing) < len(pieces) else None


def transplant(text_from: str, spans: Sequence[Span], text_to: str) -> str | None:
    """Return `text_to` with the firing sentences of `text_from` put in at the same relative place.

    None where nothing fires, where the concept covers most of `text_from`, or where `text_to` has it all already.
    """
    pieces = split(text_from)
    firing = _firing(pieces, spans)
    covered = sum(pieces[i].stop - pieces[i].body for i in firing)
    if not firing or not text_to.strip() or covered > MOST * len(text_from.strip()):
        return None
    result = text_to
    for run in _runs(firing):
        block = text_from[pieces[run[0]].body : pieces[run[-1]].stop]
        if fuzz.partial_ratio(block, result) <= SAME:
            before = sum(p.stop - p.body for i, p in enumerate(pieces[: run[0]]) if i not in firing)
            own_line = "\n" in text_from[pieces[run[0] - 1].stop : pieces[run[0]].start] if run[0] else False
            result = _insert(result, block, before / max(1, len(text_from) - covered), own_line=own_line)
    return result if result != text_to else None


def candidates(
    pair: Pair, side: Side, spans: Sequence[Span], clauses: Sequence[Span], samples: Sequence[str] = ()
) -> list[Candidate]:
    """Return what could be done about the sentences `spans` of `side` firing, least change first, without repeats.

    `clauses` are the parts of those sentences that fire, where a sentence may keep the others.
    `samples` are whole texts to draw on, as the start model's with the concept switched off.
    """
    other: Side = "rejected" if side == "chosen" else "chosen"
    text, other_text = pair.text(side), pair.text(other)
    fresh = [framed(sample.strip(), text) for sample in samples]
    swaps = [replace_sentences(text, spans, sample) for sample in fresh]
    made: list[tuple[EditKind, Side | None, str | None, str]] = [
        ("rewrite", side, excise(text, clauses), "the part where the concept fires is taken out"),
        ("rewrite", side, excise(text, spans, whole=True), "the sentences where the concept fires are taken out"),
        ("rewrite", side, replace_sentences(text, spans, other_text), "sentences of the other response stand instead"),
        *[("rewrite", side, swap, "sentences of a fresh sample stand instead") for swap in swaps],
        *[("rewrite", side, sample, "answered anew by the start model") for sample in fresh],
        ("neutralise", other, transplant(text, spans, other_text), "the other response gets the same sentences"),
        *[("synthesise", None, sample, "a counter-pair prefers a fresh answer to it") for sample in fresh],
        ("synthesise", None, other_text, "a counter-pair prefers the other response to it"),
        ("flip", None, pair.text("rejected"), "the preference is turned round"),
        ("drop", None, "", "the pair is left out"),
    ]
    seen: set[tuple[str, str]] = {("rewrite", text), ("rewrite", other_text), ("rewrite", "")}
    kept: list[Candidate] = []
    for kind, where, new, how in made:
        if new is not None and (kind, new) not in seen:
            seen.add((kind, new))
            kept.append(Candidate(kind, where, new, how))
    return kept


def firing_sentences(text: str, spans: Sequence[Span]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the sentences of `text`, and the indices of those in which `spans` fire."""
    pieces = split(text)
    return tuple(text[piece.body : piece.stop] for piece in pieces), tuple(_firing(pieces, spans))


def put_sentences(text: str, new: Mapping[int, str | None]) -> str | None:
    """Return `text` with other sentences by index; None takes one out. None where nothing usable comes of it."""
    pieces = split(text)
    bodies = [new.get(i, body) for i, body in enumerate(_bodies(text, pieces))]
    return _checked(text, pieces, bodies, KEEP_SHARE)


_PLAIN = ("prose", "item")


def _bodies(text: str, pieces: Sequence[Sentence]) -> _Bodies:
    return [text[piece.body : piece.stop] for piece in pieces]


def _firing(pieces: Sequence[Sentence], spans: Sequence[Span]) -> list[int]:
    return [i for i, piece in enumerate(pieces) if _local(piece, spans)]


def _local(piece: Sentence, spans: Sequence[Span]) -> list[tuple[int, int]]:
    """Return the parts of `spans` inside the body of `piece`, counted from its first character."""
    cut = [(max(span.start, piece.body), min(span.end, piece.stop)) for span in spans]
    return [(start - piece.body, end - piece.body) for start, end in cut if start < end]


def _runs(indices: Sequence[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for i in indices:
        if runs and runs[-1][-1] == i - 1:
            runs[-1].append(i)
        else:
            runs.append([i])
    return runs


def _checked(text: str, pieces: Sequence[Sentence], bodies: _Bodies, keep_share: float) -> str | None:
    """Assemble, and return None where nothing changed, too little is left or a quote or bracket lost its half."""
    _drop_introductions(text, pieces, bodies)
    result = _assemble(text, pieces, bodies)
    left, had = len("".join(result.split())), len("".join(text.split()))
    if result == text or left < max(1.0, keep_share * had) or len(words(result)) < MIN_WORDS:
        return None
    return None if open_marks(result) - open_marks(text) else result


def _drop_introductions(text: str, pieces: Sequence[Sentence], bodies: _Bodies) -> None:
    """Drop a heading, and a line that ends in a colon, when all that it introduced is gone."""
    levels = [_level(text, piece) for piece in pieces]
    for i in range(len(pieces) - 2, -1, -1):
        body, piece = bodies[i], pieces[i]
        if body is None or bodies[i + 1] is not None:
            continue
        following = next((j for j in range(i + 1, len(pieces)) if bodies[j] is not None), None)
        gone = following is None or levels[following] > 0
        deeper = following is not None and levels[following] > levels[i]
        orphan = False
        if following is not None and not levels[i + 1] and pieces[i + 1].kind != "prose":
            after = pieces[following]
            sibling = after.kind == piece.kind == "item" and _indent(text, after) <= _indent(text, piece)
            orphan = after.kind == "prose" or sibling
        if (levels[i] and gone and not deeper) or (body.endswith((":", "：")) and (gone or orphan)):
            bodies[i] = None


def _level(text: str, piece: Sentence) -> int:
    """Return the level of a heading, 1 the highest, a line in bold below all others; 0 for what is none."""
    if piece.kind == "heading":
        return text[piece.start : piece.body].count("#")
    alone = "\n" in text[piece.stop : piece.end] or piece.end == len(text)
    return LOWEST if piece.kind == "prose" and alone and _BOLD.fullmatch(text[piece.body : piece.stop]) else 0


def _indent(text: str, item: Sentence) -> int:
    """Return how far a list item is set in, in columns."""
    mark = text[item.start : item.body].rsplit("\n", 1)[-1].expandtabs(4)
    return len(mark) - len(mark.lstrip())


def _assemble(text: str, pieces: Sequence[Sentence], bodies: _Bodies) -> str:
    """Put the bodies together; what a dropped one held together (marker, line break, quotes) stays."""
    out: list[str] = []
    marks = _renumbered(text, pieces, bodies)
    trail, lead, opener = "", "", ""
    fresh_paragraph = False
    for i, piece in enumerate(pieces):
        mark, body, after = marks.get(i, text[piece.start : piece.body]), bodies[i], text[piece.stop : piece.end]
        if body is None:
            closer, mine = _halves(text, pieces, bodies, i)
            if closer and out:
                out.append(closer)
            fresh_paragraph |= not out or "\n\n" in trail
            opener += mine
            lead = "" if "\n" in after else lead or mark
            trail = max(trail, after, key=lambda blank: blank.count("\n")) if out else ""
            continue
        if fresh_paragraph or (not out and i):
            body = _unconnected(body)
        out += [trail, _lead(lead, mark), opener, body]
        trail, lead, opener, fresh_paragraph = after, "", "", False
    return framed("".join(out).strip(), text)


def framed(new: str, old: str) -> str:
    """Return `new` with the white space around `old`, which a template without messages may count on."""
    lead, tail = old[: len(old) - len(old.lstrip())], old[len(old.rstrip()) :]
    return f"{lead}{new}{tail}" if new and old.strip() else new


def _lead(carried: str, own: str) -> str:
    return own if own.strip() or not carried else carried


def _unconnected(body: str) -> str:
    """Take off an opening that points back at a sentence that is no longer there."""
    rest = _OPENERS.sub("", body, count=1) if _OPENERS.match(body) else body
    return body if rest == body or len(words(rest)) < 2 else capitalise(rest)


def _halves(text: str, pieces: Sequence[Sentence], bodies: _Bodies, i: int) -> tuple[str, str]:
    """Return the closing and the opening mark that a dropped run leaves behind, told at its first piece."""
    if i and bodies[i - 1] is None:
        return "", ""
    last = i
    while last + 1 < len(pieces) and bodies[last + 1] is None:
        last += 1
    run = text[pieces[i].body : pieces[last].stop]
    for mark in ('"', "“”", "**", "()"):
        left, right = (mark[0], mark[1]) if mark in ("“”", "()") else (mark, mark)
        if run.count(left) % 2 if left == right else run.count(left) != run.count(right):
            if run.endswith(right):
                return right, ""
            return ("", left) if run.startswith(left) else ("", "")
    return "", ""


def _renumbered(text: str, pieces: Sequence[Sentence], bodies: _Bodies) -> dict[int, str]:
    """Return the marks of numbered items, by piece, with the gaps closed that dropped items leave."""
    marks: dict[int, str] = {}
    last: dict[str, tuple[int, int]] = {}
    for i, piece in enumerate(pieces):
        match = _NUMBERED.match(text[piece.start : piece.body]) if piece.kind == "item" else None
        if match is None:
            continue
        number, (was, now) = int(match[2]), last.get(match[1], (-1, -1))
        new = now + 1 if was == number - 1 else number
        last[match[1]] = (number, new if _line_kept(text, pieces, bodies, i) else new - 1)
        marks[i] = f"{match[1]}{new}{match[3]}"
    return marks


def _line_kept(text: str, pieces: Sequence[Sentence], bodies: _Bodies, i: int) -> bool:
    while bodies[i] is None and "\n" not in text[pieces[i].stop : pieces[i].end] and i + 1 < len(pieces):
        i += 1
    return bodies[i] is not None


def _pool(source: str, present: Sequence[str]) -> list[tuple[float, str]]:
    """Return (relative place, sentence) of what `source` has to offer and `present` does not hold."""
    pool = []
    for piece in split(source):
        body = source[piece.body : piece.stop]
        whole = not body.endswith((":", "：")) and not open_marks(body)
        usable = whole and piece.kind in _PLAIN and len(words(body)) >= MIN_WORDS
        if usable and all(fuzz.ratio(body, sentence) <= SAME for sentence in present):
            pool.append((piece.start / len(source), body))
    return pool


def _nearest(sentence: str, place: float, pool: list[tuple[float, str]]) -> str | None:
    """Take out of `pool` the sentence nearest in place and words, unless it says the same as `sentence`."""
    fit = [(1 - abs(where - place) + fuzz.token_set_ratio(s, sentence) / 100, where, s) for where, s in pool]
    fit = [entry for entry in fit if fuzz.ratio(entry[2], sentence) <= SAME]
    if not fit:
        return None
    _, where, best = max(fit, key=lambda entry: entry[0])
    pool.remove((where, best))
    return best if sentence[-1:] != "." or re.search(r"\W$", best) else best + "."


def _insert(text: str, block: str, place: float, *, own_line: bool) -> str:
    """Put `block` into `text` at the sentence boundary nearest to `place` (0 to 1)."""
    pieces = split(text)
    stops = [0, *(piece.stop for piece in pieces)]
    at = min(range(len(stops)), key=lambda j: abs(stops[j] / len(text) - place))
    if at == 0:
        glue = ("" if runs_on(block) else " ") if pieces[0].kind == "prose" else "\n\n"
        return text[: pieces[0].body - len(text[: pieces[0].body].lstrip())] + block + glue + text.lstrip()
    before = pieces[at - 1]
    head, tail = text[: before.stop], text[before.stop :]
    breaks = "\n" in tail[: before.end - before.stop] or at == len(pieces)
    if before.kind not in _PLAIN or "\n" in block or (own_line and breaks):
        return head + "\n\n" + block + (tail if breaks else "\n\n" + tail.lstrip())
    if runs_on(head):
        return head + ("。" if head[-1:].isalnum() else "") + block + tail
    stop = "." if head[-1:].isalnum() else ""
    return head + stop + " " + block + tail
