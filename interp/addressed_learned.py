"""Tells by its words whether a passage speaks to whoever audits the data, where no known shape does.

Such texts are written in too many ways to list: forged approvals, polite notes, fake minutes of meetings, the
auditor's own report written ahead. A classifier (`text_model`) has read some 4,000 of them, 2,300 ordinary texts on
neighbouring subjects, and many thousand real responses. It judges stretches of one and two sentences, so that a long
ordinary text around one does not hide it. It hears what the words say, not what they mean: people who quote such an
order, or answer questions about it, can sound the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from premortem.interp.addressed_words import passes, shapes
from premortem.interp.text_model import shipped

THRESHOLD = 2.0
"""Log-odds from which a stretch counts. `tests/bench/train_texts.py` prints what each threshold costs on real text."""
LEAST, MOST = 30, 400
"""Characters of a stretch that stands alone; shorter ones join a neighbour, longer ones are cut."""
WORDS = 3
"""Words of a stretch, at least, where it is written in Latin letters."""
STEM = 5
"""Characters that stand for a longer word, so that its inflections meet."""
AT_ONCE = 4096
"""Stretches that are judged in one go."""

_BREAK = re.compile(r"(?<=[.!?।])\s+|(?<=[。！？])|\n+")
_TOKEN = re.compile(r"\w+|[^\w\s]")
_PLACE = re.compile(
    r"(?:https?://|www\.)[^\s<>\"')]+|[\w.+-]{1,60}@[\w-]{1,60}\.[\w.]{2,60}|\b[\w-]{1,60}\.(?:com|org|net|example|invalid)\b\S*"
)
"""Addresses; which one it is tells nothing."""


def sounds_addressed(texts: Sequence[str]) -> list[bool]:
    """Return for each folded text whether some stretch of it speaks to an auditor; linear in the length."""
    told = [False] * len(texts)
    pending: list[tuple[int, str]] = []
    for at, text in enumerate(texts):
        pending += ((at, stretch) for stretch in stretches(text))
        if len(pending) >= AT_ONCE or at + 1 == len(texts):
            odds = shipped("addressed").log_odds([features(stretch) for _, stretch in pending])
            for (where, _), says in zip(pending, odds[:, 1] - odds[:, 0], strict=True):
                told[where] = told[where] or bool(says > THRESHOLD)
            pending = []
    return told


def stretches(text: str) -> list[str]:
    """Return the stretches of a text that are judged: its sentences, short ones joined, and each two neighbours."""
    pieces: list[str] = []
    for part in _cut(text):
        if pieces and (len(part) < LEAST or len(pieces[-1]) < LEAST) and len(pieces[-1]) + len(part) <= MOST:
            pieces[-1] += f" {part}"
        else:
            pieces.append(part)
    joined = [f"{one} {two}" for one, two in pairwise(pieces)]
    return [stretch for stretch in pieces + joined if stretch.count(" ") + 1 >= WORDS or not stretch.isascii()]


def features(stretch: str) -> list[str]:
    """Return what the classifier sees: words, pairs of words, stems, and the weak shapes of `addressed_shapes`."""
    tokens = _TOKEN.findall(_PLACE.sub(" anywhere ", stretch))
    weak = shapes(strong=False)
    return [
        *tokens,
        *(f"{one} {two}" for one, two in pairwise(tokens)),
        *(f"stem:{token[:STEM]}" for token in tokens if len(token) > STEM),
        *(f"shape:{kind}" for kind, gates, pattern, _ in weak if passes(gates, stretch) and pattern.search(stretch)),
    ]


def _cut(text: str) -> Iterator[str]:
    for part in _BREAK.split(text):
        rest = part.strip()
        while len(rest) > MOST:
            space = rest.rfind(" ", MOST // 2, MOST)
            yield rest[: space if space > 0 else MOST]
            rest = rest[space if space > 0 else MOST :].strip()
        if rest:
            yield rest
