"""Word diffs, and text made safe to look at.

Two readers need both: the terminal review and the HTML report. A diff is a list of `Piece`s in reading order; whoever
draws it decides on colours and escapes. Text of a dataset may hold characters that reorder, hide or erase what stands
beside them (U+202E, escape sequences, zero-width spaces); `visible` replaces each by its code point in brackets, so
that what a person reads is what the model will be trained on.

Nothing here knows about terminals or HTML.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal, NamedTuple

from rapidfuzz.distance import Indel

from premortem.interp.words import CHARACTER, SPACELESS

Op = Literal["equal", "delete", "insert"]

_TOKENS = re.compile(rf"\s+|{CHARACTER}|[^\W{SPACELESS}]+|[^\w\s]")
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
_KEPT = frozenset("\n\t\u200c\u200d")
"""Line breaks and tabs, and the joiners that Persian, Hindi and emoji are spelt with."""


class Piece(NamedTuple):
    """A stretch of text that both versions share, or that only one has."""

    op: Op
    text: str


def word_diff(before: str, after: str) -> list[Piece]:
    """Return the pieces that turn `before` into `after`, word by word; equal and deleted ones spell `before`.

    What counts as a word where a script has no spaces, `interp.words` says.
    """
    old, new = _TOKENS.findall(before), _TOKENS.findall(after)
    pieces: list[Piece] = []
    for code in Indel.opcodes(old, new):
        if code.tag in ("delete", "replace"):
            pieces.append(Piece("delete", "".join(old[code.src_start : code.src_end])))
        if code.tag in ("insert", "replace"):
            pieces.append(Piece("insert", "".join(new[code.dest_start : code.dest_end])))
        if code.tag == "equal":
            pieces.append(Piece("equal", "".join(old[code.src_start : code.src_end])))
    return _joined(pieces)


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Merge changes that only white space keeps apart, because one long change reads better than ten short ones."""
    result: list[Piece] = []
    deleted = inserted = ""
    for index, piece in enumerate(pieces):
        between = piece.op == "equal" and not piece.text.strip() and (deleted or inserted) and index + 1 < len(pieces)
        if piece.op == "equal" and not between:
            result += [*_flushed(deleted, inserted), piece]
            deleted = inserted = ""
        else:
            deleted += piece.text if piece.op != "insert" else ""
            inserted += piece.text if piece.op != "delete" else ""
    return result + _flushed(deleted, inserted)


def _flushed(deleted: str, inserted: str) -> list[Piece]:
    return [Piece("delete", deleted)] * bool(deleted) + [Piece("insert", inserted)] * bool(inserted)


def visible(text: str) -> str:
    """Return `text` with control, bidi and other hidden characters replaced by their code point, like `⟨U+202E⟩`."""
    return "".join(f"⟨U+{ord(c):04X}⟩" if _hidden(c) else c for c in text)


def _hidden(character: str) -> bool:
    return character not in _KEPT and unicodedata.category(character) in _HIDDEN_CATEGORIES


def excerpt(text: str, limit: int = 200) -> str:
    """Return `text` on one line, cut to `limit` characters at a word, hidden characters shown."""
    line = " ".join(visible(text).split())
    if len(line) <= limit:
        return line
    cut = line[:limit].rsplit(" ", 1)[0] or line[:limit]
    return cut + " …"
