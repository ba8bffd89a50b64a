"""Shows text of a dataset to an LLM as data: bounded, fenced, and with nothing in it that could act as a turn.

A pair may say "ignore your instructions", close a quotation early, or carry the control tokens by which a chat template
opens a system turn. An excerpt is cut to a length, its control tokens are broken so that no tokenizer takes them for
what they were, invisible characters are taken out, and it stands between two fences that hold a hash of the text: no
text can hold its own hash, so none can close its fence.

What an LLM copies from an excerpt bears these marks, and `restored` takes them back out of its answer.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

LENGTH = 700
"""Characters of an excerpt, where a prompt does not say otherwise."""
CUT = " […]"
SET_IN = "   "
"""Before every line of a list entry but its first."""
LINES = 40
"""Lines of one list entry that keep to themselves; what follows them runs on in the last."""

_TOKENS = re.compile(
    r"<(?=[|｜/]?[A-Za-z_|｜][^<>\n]{0,40}[|｜]?>)|<(?=</?SYS>>)|(?<=<)<(?=/?SYS)|\[(?=\[/?text )"
    r"|\[(?=/?(?:INST|THINK|IMG|AUDIO|ARGS|PREFIX|MIDDLE|SUFFIX|(?-i:[A-Z]{2,}(?:_[A-Z]+)+))\])",
    re.IGNORECASE,
)
_BROKEN = {"<": "‹", "[": "⁅"}
_UNPAIRED = {"<": re.compile("‹(?![^<>\n›]*›)"), "[": re.compile(r"⁅(?![^\[\]\n⁆]*⁆)")}
_JOINERS = "\u200c\u200d"
"""Unseen characters that belong to words of some scripts, and to some emoji."""
_JOINED = re.compile(rf"\S*[^\s{_JOINERS}][{_JOINERS}][^\s{_JOINERS}]\S*")
_AROUND = "\"'.,;:!?()[]{}<>*_\\“”‘’«»‹›،؛؟。、"
_UNSEEN = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\u00ad\U000e0000-\U000e007f]")


def defuse(text: str) -> str:
    """Return `text` without what a tokenizer or a template could take for control: tokens, tags, unseen characters."""
    seen = _UNSEEN.sub("", text)
    plain = "".join(c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs") else "\ufffd" for c in seen)
    return _TOKENS.sub(lambda found: _BROKEN[found[0]], plain)


def restored(text: str, shown: Sequence[str]) -> str | None:
    """Return what an LLM wrote after it had seen `shown`, with what `defuse` had changed in that as it was.

    That is the marks of broken tokens, and words with joiners (ZWJ, ZWNJ). None where a mark is left that `shown` does
    not hold: nobody knows what it stands for.
    """
    for plain, mark in _BROKEN.items():
        if not any(mark in one for one in shown):
            text = _UNPAIRED[plain].sub(plain, text)
            if mark in text:
                return None
    for one in shown:
        for found in reversed(list(_TOKENS.finditer(one))):
            piece = one[found.start() : _end(one, found.start())]
            text = text.replace(_BROKEN[found[0]] + piece[1:], piece)
    for word in sorted({word.strip(_AROUND) for one in shown for word in _JOINED.findall(one)}):
        plain = _UNSEEN.sub("", word)
        if not any(plain in one for one in shown):  # else nobody knows which of the two is meant
            text = re.sub(rf"(?<!\w){re.escape(plain)}(?!\w)", word.replace("\\", r"\\"), text)
    return text


def joined(text: str) -> bool:
    """Whether `text` holds joiners (ZWJ, ZWNJ)."""
    return any(joiner in text for joiner in _JOINERS)


def _end(text: str, start: int) -> int:
    """Return where the token that begins at `start` ends."""
    close = text.find(">" if text[start] == "<" else "]", start)
    return len(text) if close < 0 else close + 1


def cut(text: str, length: int = LENGTH) -> str:
    """Return the beginning of `text`, marked where it was cut."""
    return text if len(text) <= length else text[:length].rstrip() + CUT


def ends(text: str, length: int = LENGTH) -> str:
    """Return the beginning and, twice as long, the end of `text`, marked where the middle was cut.

    A prompt given as one string may hold a whole conversation: what is to be answered stands at its end.
    """
    if len(text) <= length:
        return text
    first = length // 3
    return f"{text[:first].rstrip()}{CUT} {text[len(text) - length + first :].lstrip()}"


def excerpt(text: str, length: int = LENGTH, *, both_ends: bool = False) -> str:
    """Return `text` cut, defused and fenced; `both_ends` keeps its end too and cuts the middle (see `ends`)."""
    shown = defuse(ends(text, length) if both_ends else cut(text, length))
    fence = hashlib.sha256(shown.encode()).hexdigest()[:8]
    return f"[[text {fence}]]\n{shown}\n[[/text {fence}]]"


def numbered(sentences: Sequence[Mapping[str, Any]], length: int = LENGTH, marked: int | None = None) -> str:
    """Return sentences (each with `text` and `marked`) as one fenced list, numbered from 1, the marked ones marked.

    Each is cut to `length` characters, a marked one to `marked` where that is given. The lines of code, or of a table,
    stay lines; those after the first are set in, so that none can be taken for an entry of the list.
    """
    shown = [
        f"{n}. MARKED: {_set_in(s['text'], marked or length, lines=None)}"
        if s["marked"]
        else f"{n}. {_set_in(s['text'], length)}"
        for n, s in enumerate(sentences, 1)
    ]
    return excerpt("\n".join(shown), sum(map(len, shown)) + len(shown))


def _set_in(text: str, length: int, lines: int | None = LINES) -> str:
    """Return `text` cut and defused, its lines after the first set in, without empty ones; no more than `lines`."""
    shown = [line.rstrip() for line in cut(text.strip(), length).splitlines() if line.strip()]
    if lines is not None and len(shown) > lines:
        shown = [*shown[: lines - 1], " ".join(" ".join(shown[lines - 1 :]).split())]
    return defuse(f"\n{SET_IN}".join(shown))


def set_out(text: str, old: str) -> str:
    """Return `text`, written for a list entry that showed `old`, without what `numbered` sets lines in by.

    A writer may copy that with the lines. It did where each line stands at least that much further in than those of
    `old` do.
    """
    lines, depth = text.split("\n"), _depth(old)
    if depth is None or (own := _depth(text)) is None or own < depth + len(SET_IN):
        return text
    return "\n".join((lines[0], *(line.removeprefix(SET_IN) for line in lines[1:])))


def _depth(text: str) -> int | None:
    """Return by how many spaces the lines after the first are all set in; None where there are none."""
    return min((len(line) - len(line.lstrip(" ")) for line in text.split("\n")[1:] if line.strip()), default=None)


def inline(text: str, length: int = 160) -> str:
    """Return `text` cut and defused on one line, for a name or a list entry."""
    return defuse(cut(" ".join(text.split()), length)).replace("\n", " ")
