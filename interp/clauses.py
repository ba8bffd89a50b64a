"""Cut one clause out of a sentence, where what is left still reads as a sentence.

A concept often sits in an aside: a bracket, what follows the last comma, what comes before the first. Taking only that
out changes less than taking the sentence. Without a parser this is a matter of caution: a clause goes only where its
first word shows that the rest can stand alone, and the sentence goes whole in every other case.

The word lists are English; in another language only brackets, dashes, semicolons and emoji are cut.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from itertools import pairwise

from premortem.interp.sentences import inside, split, unbreakable
from premortem.interp.words import words

MIN_WORDS = 4
"""A sentence that keeps fewer words than this after a cut goes whole: shorter rests read as fragments."""

_SUBORDINATORS = frozenset(
    words(
        "after although as because before even given if like once provided since speaking though unless until when "
        "whenever where whereas wherever while whilst"
    )
)
_TRAILING = _SUBORDINATORS | frozenset(
    words(
        "and but especially giving including just leaving making much not or particularly so such thanks which who "
        "whom whose with without yet"
    )
)
_LEADING = _SUBORDINATORS | frozenset(
    words(
        "ah alas also and at besides but by despite during finally first for from hello here hey hi however in "
        "incidentally instead just lastly now of oh on otherwise second so still then therefore third thus to under "
        "well with within without yes yet"
    )
)
_JOINS = frozenset(words("and but nor or so yet"))
_HALVES = re.compile(r"\b(?:either|neither|whether|both)\b", re.IGNORECASE)
"""Words that promise another half of the sentence."""
_LEADS_ON = re.compile(r"\b(?:that|and|but|or|because|so|if|than)$", re.IGNORECASE)
"""A clause that ends so goes on behind an aside."""
_RELATIVES = frozenset(words("which who whom whose"))
_SEPARATOR = re.compile(r",\s+|;\s+|\s+[—–-]{1,2}\s+|—")
_BRACKET = re.compile(
    r"\s*\([^()\n]*\)|\s*\[[^\[\]\n]*\](?!\()|(?<=\w)\s*—[^—\n]+—(?=\s*\w)|(?<=\w)\s+–\s[^–\n]+\s–(?=\s\w)"
)
_TAIL = re.compile(r"[.!?…]*[\"”’')\]*_]*\s*$")
_QUOTED = re.compile(r"\"[^\"\n]*\"|“[^”\n]*”|\([^()\n]*\)")


@dataclass(frozen=True, slots=True)
class _Clause:
    start: int
    stop: int
    mark: str
    """The separator before it, without white space; empty for the first clause."""


def cut_clause(sentence: str, fires: list[tuple[int, int]]) -> str | None:
    """Return `sentence` without the clauses that `fires` (character ranges) touches, or None where that reads badly."""
    rest = _without_emoji(sentence, fires) or _without_brackets(sentence, fires) or _without_clauses(sentence, fires)
    if rest is None or rest == sentence or len(words(rest)) < MIN_WORDS or open_marks(rest) - open_marks(sentence):
        return None
    return rest


def clause_spans(text: str) -> list[tuple[int, int]]:
    """Return the (start, end) of every clause and aside of `text`, in order, a sentence without any as one.

    They tile the bodies of the sentences; finer units than sentences for whoever asks where a concept fires.
    """
    spans: list[tuple[int, int]] = []
    for piece in split(text):
        sentence = text[piece.body : piece.stop]
        guarded = unbreakable(sentence)
        edges = {clause.start for clause in _clauses(sentence)} if piece.kind in ("prose", "item") else {0}
        asides = [m.span() for m in _BRACKET.finditer(sentence) if not _crosses(m.span(), guarded)]
        edges |= {edge for aside in asides for edge in aside if piece.kind in ("prose", "item")}
        bounds = sorted(edges | {0, len(sentence)})
        spans += [(piece.body + a, piece.body + b) for a, b in pairwise(bounds) if sentence[a:b].strip()]
    return spans


def capitalise(text: str) -> str:
    """Put a capital on the first letter, past quotes and emphasis; a letter without one stays."""
    match = re.match(r"[\s\"'“‘(*_]*(\w)", text)
    upper = match[1].upper() if match else ""
    if match is None or len(upper) != 1:
        return text
    return text[: match.start(1)] + upper + text[match.end(1) :]


def open_marks(text: str) -> frozenset[str]:
    """Return the quotes, brackets and emphasis that `text` leaves without their other half."""
    twins = frozenset(mark for mark in ('"', "**", "```") if text.count(mark) % 2)
    return twins | {
        left
        for left, right in ("()", "[]", "{}", "“”", "（）", "「」", "『』", "【】", "《》")
        if text.count(left) != text.count(right)
    }


def _touches(start: int, stop: int, fires: list[tuple[int, int]]) -> bool:
    return any(begin < stop and end > start for begin, end in fires)


def _without_emoji(sentence: str, fires: list[tuple[int, int]]) -> str | None:
    """Take out emoji where the concept fires on nothing else."""
    hit = "".join(sentence[start:end] for start, end in fires)
    if not hit.strip() or not all(char.isspace() or _pictures(char) for char in hit):
        return None
    kept = (char for i, char in enumerate(sentence) if not (_pictures(char) and _touches(i, i + 1, fires)))
    return re.sub(r"(?<=\S)[ \t]{2,}", " ", "".join(kept)).strip()


def _pictures(char: str) -> bool:
    return unicodedata.category(char) in ("So", "Sk") or char in "\u200d\ufe0f\ufffd"


def _without_brackets(sentence: str, fires: list[tuple[int, int]]) -> str | None:
    """Take out the brackets and paired dashes that hold every firing."""
    guarded = unbreakable(sentence)
    asides = [m.span() for m in _BRACKET.finditer(sentence) if not _crosses(m.span(), guarded)]
    hit = [aside for aside in asides if _touches(*aside, fires)]
    if not hit or not all(any(a <= start and end <= b for a, b in hit) for start, end in fires):
        return None
    for start, end in reversed(hit):
        sentence = sentence[:start] + sentence[end:]
    return capitalise(sentence.strip())


def _crosses(span: tuple[int, int], guarded: list[tuple[int, int]]) -> bool:
    return inside(span[0], guarded) or inside(span[1], guarded)


def _without_clauses(sentence: str, fires: list[tuple[int, int]]) -> str | None:
    """Take out the clauses from the first to the last that fires, at an end of the sentence or between two commas."""
    clauses = _clauses(sentence)
    hit = [i for i, clause in enumerate(clauses) if _touches(clause.start, clause.stop, fires)]
    if not hit or len(hit) == len(clauses):
        return None
    first, last = hit[0], hit[-1]
    if last + 1 == len(clauses):
        rest = sentence[: clauses[first - 1].stop] + sentence[clauses[last].stop :]
        return rest if _may_trail(sentence, clauses, first) else None
    if first == 0:
        return capitalise(sentence[clauses[last + 1].start :]) if _may_lead(sentence, clauses, last + 1) else None
    head = sentence[: clauses[first - 1].stop]
    if _first(sentence, clauses[first]) not in _SUBORDINATORS | _RELATIVES or clauses[first].mark != ",":
        return None
    return (
        f"{head} {sentence[clauses[last + 1].start :]}"
        if _LEADS_ON.search(head)
        else head + sentence[clauses[last].stop :]
    )


def _clauses(sentence: str) -> list[_Clause]:
    guarded = unbreakable(sentence) + [match.span() for match in _QUOTED.finditer(sentence)]
    tail = _TAIL.search(sentence)
    end = tail.start() if tail else len(sentence)
    clauses, start, mark = [], 0, ""
    for separator in _SEPARATOR.finditer(sentence, 0, end):
        if not _crosses(separator.span(), guarded):
            clauses.append(_Clause(start, separator.start(), mark))
            start, mark = separator.end(), separator[0].strip()
    return [*clauses, _Clause(start, end, mark)]


def _may_trail(sentence: str, clauses: list[_Clause], at: int) -> bool:
    """Say whether the sentence can end before clause `at`."""
    if at == 1 and _first(sentence, clauses[0]) in _SUBORDINATORS:
        return False
    if clauses[at].mark != ",":
        return True
    first, length = _first(sentence, clauses[at]), len(words(sentence[clauses[at].start : clauses[at].stop]))
    if first in _JOINS:
        return length >= MIN_WORDS and at == 1 and not _HALVES.search(sentence[: clauses[at].start])
    return first in _TRAILING or first.endswith("ing")


def _may_lead(sentence: str, clauses: list[_Clause], at: int) -> bool:
    """Say whether the sentence can begin with clause `at`."""
    if _first(sentence, clauses[at]) in _TRAILING:
        return False
    if clauses[at].mark != ",":
        return True
    first = _first(sentence, clauses[0])
    return first in _LEADING or first.endswith(("ly", "ing"))


def _first(sentence: str, clause: _Clause) -> str:
    found = words(sentence[clause.start : clause.stop])
    return found[0] if found else ""
