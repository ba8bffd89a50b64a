"""Where one sentence of a response ends and the next begins, with every character accounted for.

A rewrite removes or replaces whole sentences, so it needs boundaries that tile the text: joining the pieces gives the
text back, whatever it holds. `sentencex` knows abbreviations, initials and quotes in some 300 languages; it knows
little of Markdown. So the text is laid out in blocks first (a code fence or a table is one piece, a list item or a
heading never runs into the next line, a wrapped line goes on), `sentencex` reads each block, and boundaries that fall
inside something unbreakable (an address, a Markdown link, inline code, emphasis) are dropped.

Nothing here knows about concepts or spans.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

from sentencex import segment

Kind = Literal["prose", "item", "heading", "code", "table"]

_FENCE = re.compile(r"^[ \t]*(```|~~~)[^\n]*(?:\n.*?(?:^[ \t]*\1[ \t]*(?=\n|\Z)|\Z)|\Z)", re.MULTILINE | re.DOTALL)
_TABLE = re.compile(r"(?:^[ \t]*\|[^\n]*\|[ \t]*(?:\n|\Z)){2,}", re.MULTILINE)
_MARKER = re.compile(r"[ \t]*(?:[-*+•‣–][ \t]+|\(?(?:\d{1,3}[.)]|[A-Za-z]\))[ \t]+|#{1,6}[ \t]+|>[ \t]?)+")
_HEADING = re.compile(r"[ \t]*#{1,6}[ \t]")
_QUOTES = '"“”'
_LONG_QUOTE = 80
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_LINK = re.compile(r"!?\[[^\]\n]{0,300}\]\([^)\n]{0,500}\)")
_URL = re.compile(r"(?:https?://|ftp://|mailto:|www\.)[^\s<>\"”]+[^\s<>\"”.,;:!?)\]'*_]")
_HOST = re.compile(r"(?<![\w.-])[\w-]+(?:\.[\w-]+)*\.[a-z]{2,}\b(?:/[^\s<>\"”]*[^\s<>\"”.,;:!?)\]'*_])?")
_INLINE = re.compile(r"`[^`\n]+`|\*\*[^*\n]{1,200}\*\*|__[^_\n]{1,200}__|\$[^$\n]{1,200}\$(?!\d)")
_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)+")
_ENDED = re.compile(r"[.!?…。！？।][\"”’'»)\]*_」』）]*\s*$")


@dataclass(frozen=True, slots=True)
class Sentence:
    """One piece of a text: from `start` to `end`, the white space that follows it included."""

    start: int
    """First character, 0-based."""
    body: int
    """First character after a list marker, heading mark or indentation; equals `start` where there is none."""
    stop: int
    """One past the last character that is not white space."""
    end: int
    """One past the last character; the next sentence starts here."""
    kind: Kind
    """What it is; `code` and `table` stand for a whole fence or table."""


@lru_cache(maxsize=4096)
def split(text: str) -> tuple[Sentence, ...]:
    """Cut `text` into sentences that tile it: the first starts at 0, each starts where the last ended."""
    edges = [0, *sorted({edge for edge in _edges(text) if 0 < edge < len(text)}), len(text)]
    pieces = [(start, end) for start, end in pairwise(edges) if end > start]
    return tuple(_sentence(text, start, end) for start, end in _without_blanks(text, pieces))


def unbreakable(text: str) -> list[tuple[int, int]]:
    """Return the ranges no cut may enter: addresses, Markdown links, inline code, emphasis, numbers, code fences."""
    patterns = (_FENCE, _LINK, _URL, _HOST, _INLINE, _NUMBER)
    return sorted(match.span() for pattern in patterns for match in pattern.finditer(text))


def inside(position: int, ranges: Iterable[tuple[int, int]]) -> bool:
    """Say whether a cut before character `position` would enter one of `ranges`."""
    return any(start < position < end for start, end in ranges)


def put_into(text: str, sentence: str, *, late: bool) -> str:
    """Return `text` with `sentence` behind it, or else behind its own first sentence.

    Behind what ends like no sentence (a list, code) it gets a paragraph of its own.
    """
    pieces = split(text)
    place = len(text) if late or len(pieces) < 2 else pieces[0].end
    before, after = text[:place].strip(), text[place:].strip()
    between = " " if _ENDED.search(before) else "\n\n"
    return f"{before}{between if before else ''}{sentence}{' ' if after else ''}{after}"


def without_broken_end(text: str) -> str:
    """Return `text`, cut off by a limit of tokens, without the sentence, item or block that breaks off; may be empty.

    A sentence of prose that has its full stop was not cut, whatever came after it.
    """
    pieces = split(text)
    if pieces and pieces[-1].kind == "prose" and _ENDED.search(text):
        return text.strip()
    return text[: pieces[-2].stop].strip() if len(pieces) > 1 else ""


def _edges(text: str) -> Iterator[int]:
    """Yield where pieces may begin: around fences and tables, at lines, and at the sentences of each line."""
    guarded = unbreakable(text)
    gap = 0
    for start, end in [*_solid(text), (len(text), len(text))]:
        for block in _blocks(text, gap, start):
            yield block[0]
            yield from (edge for edge in _sentence_edges(text, *block) if not inside(edge, guarded))
        yield start
        gap = end


def _solid(text: str) -> list[tuple[int, int]]:
    """Return the fences and tables, each one piece, in order and without overlap."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(match.span() for pattern in (_FENCE, _TABLE) for match in pattern.finditer(text)):
        if end > start and (not found or start >= found[-1][1]):
            found.append((start, end))
    return found


def _blocks(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the lines between `start` and `end`, a line that a hard wrap broke joined to the one before."""
    last = stop = start
    for line in re.finditer(r"[^\n]*\n|[^\n]+", text[start:end]):
        if stop > start and not _goes_on(text[start:stop], text[last:stop], line[0]):
            yield start, stop
            start = stop
        last, stop = stop, stop + len(line[0])
    if stop > start:
        yield start, stop


def _goes_on(block: str, last: str, line: str) -> bool:
    """Say whether `line` continues the sentence that the `last` line of `block` left open."""
    if not line[:1].islower() or not last.strip() or re.search(r"[.!?:;。！？：；]\s*$", last):
        return False
    return not (_MARKER.match(line) or _HEADING.match(block))


def _sentence_edges(text: str, start: int, end: int) -> Iterator[int]:
    """Yield the ends of the sentences of a line, its marker set aside, those of a long quotation included."""
    marker = _MARKER.match(text, start, end)
    position = marker.end() if marker else start
    for piece in segment("en", _SURROGATE.sub("\ufffd", text[position:end])):
        if len(piece) > _LONG_QUOTE and piece[0] in _QUOTES and piece.rstrip()[-1] in _QUOTES:
            inner, closing = position + 1, position + len(piece.rstrip()) - 1
            for part in segment("en", _SURROGATE.sub("\ufffd", text[inner:closing])):
                inner += len(part)
                if inner < closing:
                    yield inner
        position += len(piece)
        yield position


def _without_blanks(text: str, pieces: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Give white space that stands alone to the piece before it (at the start of the text: to the one after)."""
    start: int | None = None
    last = 0
    for piece_start, piece_end in pieces:
        if text[piece_start:piece_end].strip() and start is not None and text[start:piece_start].strip():
            yield start, piece_start
            start = piece_start
        start = piece_start if start is None else start
        last = piece_end
    if start is not None:
        yield start, last


def _sentence(text: str, start: int, end: int) -> Sentence:
    piece = text[start:end]
    stop = start + len(piece.rstrip())
    lead = start + len(piece) - len(piece.lstrip())
    line = text.rfind("\n", 0, lead) + 1
    kind = _kind(text, piece, line, at_line_start=not text[line:lead].strip())
    marker = _MARKER.match(text, line, stop) if line >= start or not text[line:lead].strip() else None
    body = marker.end() if marker and kind in ("item", "heading") else lead
    return Sentence(start, min(max(body, lead), stop) if stop > lead else start, max(stop, start), end, kind)


def _kind(text: str, piece: str, line: int, *, at_line_start: bool) -> Kind:
    if at_line_start and _FENCE.match(piece.lstrip("\n")):
        return "code"
    if at_line_start and _TABLE.match(piece.lstrip("\n")):
        return "table"
    if _HEADING.match(text, line):
        return "heading"
    return "item" if _MARKER.match(text, line) else "prose"
