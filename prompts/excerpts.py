"""Shows text of a dataset to an LLM as data: bounded, fenced, and with nothing in it that could act as a turn.

A pair may say "ignore your instructions", close a quotation early, or carry the control tokens by which a chat template
opens a system turn. An excerpt is cut to a length, its control tokens are broken so that no tokenizer takes them for
what they were, invisible characters are taken out, and it stands between two fences that hold a hash of the text: no
text can hold its own hash, so none can close its fence.
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

_TOKENS = re.compile(
    r"<(?=[|｜/]?[A-Za-z_|｜][^<>\n]{0,40}[|｜]?>)|\[(?=/?INST\])|<(?=</?SYS>>)|(?<=<)<(?=/?SYS)|\[\[(?=/?text )",
    re.IGNORECASE,
)
_UNSEEN = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\u00ad\U000e0000-\U000e007f]")


def defuse(text: str) -> str:
    """Return `text` without what a tokenizer or a template could take for control: tokens, tags, unseen characters."""
    seen = _UNSEEN.sub("", text)
    plain = "".join(c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs") else "\ufffd" for c in seen)
    return _TOKENS.sub(lambda found: "‹" if found[0].startswith("<") else "⁅", plain)


def cut(text: str, length: int = LENGTH) -> str:
    """Return the beginning of `text`, marked where it was cut."""
    return text if len(text) <= length else text[:length].rstrip() + CUT


def excerpt(text: str, length: int = LENGTH) -> str:
    """Return `text` cut, defused and fenced."""
    shown = defuse(cut(text, length))
    fence = hashlib.sha256(shown.encode()).hexdigest()[:8]
    return f"[[text {fence}]]\n{shown}\n[[/text {fence}]]"


def numbered(sentences: Sequence[Mapping[str, Any]], length: int = LENGTH) -> str:
    """Return sentences (each with `text` and `marked`) as one fenced list, numbered from 1, the marked ones marked."""
    lines = [f"{n}.{' MARKED:' if s['marked'] else ''} {inline(s['text'], length)}" for n, s in enumerate(sentences, 1)]
    return excerpt("\n".join(lines), len(lines) * (length + 20))


def inline(text: str, length: int = 160) -> str:
    """Return `text` cut and defused on one line, for a name or a list entry."""
    return defuse(cut(" ".join(text.split()), length)).replace("\n", " ")
