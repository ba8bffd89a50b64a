"""Tells whether a text of the dataset speaks to whoever audits the dataset: prompt injection.

The agent shows excerpts of pairs to an LLM. A text in them may try to be read as an order: it asks the reader to drop
its instructions, imitates a system turn or a tool's result, closes the excerpt it stands in, or says how the review
should end. Ordinary conversation about instructions, robots or reviews does none of that.

A text is first unmasked (`fold`: entities, escapes, invisible signs, accents), with look-alike letters, digits for
letters, spaced letters, rot13 and reversal as further readings where something suggests them. Then shapes are looked
for, each behind a cheap substring test: strong ones count alone, weak ones only two together or where people do not
see them (markup, base64). Words and shapes stand in `addressed_tongues` and `addressed_shapes`. Where no shape is
known, a classifier judges by the words (`addressed_learned`).

A reason is a cause to look, not a proof; and some texts pass. Whoever shows excerpts to an LLM must
treat all of them as data anyway. Nothing here removes anything.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from premortem.interp import addressed_shapes as marks
from premortem.interp.addressed_learned import sounds_addressed
from premortem.interp.addressed_words import LEET, LOOKALIKES, TURNED, Search, fold, passes, shapes, speaks, tongues
from premortem.interp.messages import plain
from premortem.interp.records import Pair

DEPTH = 2
"""How many layers of base64 or hexadecimal are taken off."""
BLOB = 24
"""Characters from which a run of letters and digits is decoded."""
NEAR = 70
"""Characters between words that belong together."""
OWN = 45
"""Characters between orders and the word that makes them the reader's own."""
FAR = 1 << 60
"""A place that no text reaches."""
TOGETHER = 300
"""Characters between two weak shapes that count together."""
TELLING = frozenset({"reader", "outcome", "stop", "leave", "new", "onward", "keep"})
"""Weak shapes that need no second one where people do not see the text."""

_DROPS, _READER = "asks the reader to ignore its instructions", "speaks to an AI that reviews"
_SOUNDS = "sounds like an order to whoever audits the data"
_LIKE = "\u0250-\u02af\u0370-\u058f\u1d00-\u1d7f\u212e\u2c60-\u2c7f"
_MIXED = re.compile(f"[a-z][{_LIKE}]|[{_LIKE}][a-z]")
_LEET = re.compile(r"[013457@$!|](?=[a-z])")
_SPACED = re.compile(r"[ .*_-]\w[ .*_-]\w[ .*_-]\w[ .*_-]\w")
_LETTERS = re.compile(r"(?<!\w)(?:\w[ .*_-]){5,}\w(?!\w)")
_BLOB = re.compile(r"[A-Za-z0-9+/_-]{24,}(?:\r?\n[A-Za-z0-9+/_-]{24,})*={0,2}")
_PAIRS = re.compile(r"[ :\n][0-9a-fA-F]{2}[ :\n][0-9a-fA-F]{2}[ :\n]")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}[\s:]?){12,}")
_SENTENCE = re.compile(r"(?<=[.!?।])\s+|(?<=[。！？])|\n\s*\n")
_PAUSE = re.compile(r"[:!](?!\d)")
_NEGATED = re.compile(r"(?:not|n't|never) (?:forget|ignore|disregard|neglect)")
_CLOSING, _CUE, _HIDDEN = re.compile(marks.CLOSING), re.compile(marks.CUE), re.compile(marks.HIDDEN, re.MULTILINE)


def addressed_pairs(pairs: Sequence[Pair]) -> list[str]:
    """Return for each of `pairs` why a text of it seems to speak to its auditor, "" where none does."""
    texts = [list(dict.fromkeys(_texts(pair))) for pair in pairs]
    reasons = iter(addressed_all([text for group in texts for text in group]))
    return [next(filter(None, [next(reasons) for _ in group]), "") for group in texts]


def addressed(text: str) -> str:
    """Return why `text` seems to speak to its auditor, "" if it does not; never raises, linear in the length."""
    return addressed_all([text])[0]


def addressed_all(texts: Sequence[str]) -> list[str]:
    """Return `addressed` of each text; much quicker than one by one."""
    found = [""] * len(texts)
    unknown: list[tuple[int, str]] = []
    for at, text in enumerate(texts):
        passages = []
        for passage in _passages(text, DEPTH):
            if reason := _reason(passage.text, unseen=passage.unseen):
                found[at] = passage.hidden or reason
                break
            passages.append((at, passage.text))
        else:
            unknown += passages
    for (at, _), sounds in zip(unknown, sounds_addressed([passage for _, passage in unknown]), strict=True):
        if sounds:
            found[at] = _SOUNDS
    return found


def _texts(pair: Pair) -> Iterator[str]:
    for part in (pair.prompt, pair.chosen, pair.rejected):
        yield from [part] if isinstance(part, str) else map(plain, part)


class _Passage(NamedTuple):
    text: str
    """A way to read a text or a part of it, folded."""
    unseen: bool
    """Whether people would not see it."""
    hidden: str
    """What it is called when it speaks to an auditor because of where it stands; empty: in the open."""


def _passages(text: str, depth: int, hidden: str = "") -> Iterator[_Passage]:
    """Yield the ways to read a text, and what it hides; `hidden` says where the text itself was found."""
    folded = fold(text)
    if markup := "\n\n".join(_markup(folded)):
        yield _Passage(markup, True, hidden or "hides instructions in markup")
    yield _Passage(folded, bool(hidden), hidden)
    yield from (_Passage(reading, masked, hidden) for reading, masked in _readings(folded))
    if depth and (decoded := "\n\n".join(_decoded(text))):
        yield from _passages(decoded, depth - 1, "hides instructions in base64")


def _readings(folded: str) -> Iterator[tuple[str, bool]]:
    """Yield other ways to read a text and whether people would not see them, where something suggests them."""
    if not folded.isascii() and _MIXED.search(folded):
        yield folded.translate(LOOKALIKES), False
    if len(_LEET.findall(folded)) > 2:
        yield folded.translate(LEET), False
    if _SPACED.search(folded):
        yield _LETTERS.sub(lambda found: re.sub(r"[ .*_-]", "", found[0]), folded.replace("  ", " \n")), False
    if any(map(folded.__contains__, TURNED)):
        yield from ((codecs.encode(folded, "rot13"), True), (folded[::-1], True))


def _markup(folded: str) -> Iterator[str]:
    """Yield what a browser would not show: comments, scripts, unseen elements, attributes."""
    for start, end in marks.BLOCKS:
        if start in folded:
            yield from (part.partition(end)[0] for part in folded.split(start)[1:])
    if "<" in folded or "]:" in folded:
        yield from (next(filter(None, found.groups()), "") for found in _HIDDEN.finditer(folded))


def _decoded(text: str) -> Iterator[str]:
    """Yield what the base64 and hexadecimal runs of a text say, where they say text."""
    if max(map(len, text.split()), default=0) < BLOB and not _PAIRS.search(text):
        return
    for pattern, decode in ((_HEX, lambda run: bytes.fromhex(re.sub(r"[\s:]", "", run))), (_BLOB, _from_base64)):
        for found in pattern.finditer(text):
            said = decode(found[0]).decode("utf-8", "ignore")
            if len(said) > 0.3 * len(found[0]) and sum(map(str.isprintable, said)) > 0.8 * len(said):
                yield said


def _from_base64(run: str) -> bytes:
    digits = re.sub(r"[\s=]", "", run).replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(digits[: len(digits) - (len(digits) % 4 == 1)] + "=" * (-len(digits) % 4))
    except binascii.Error:
        return b""


def _reason(text: str, *, unseen: bool) -> str:
    """Return the reason of the first shape in a folded text, "" if there is none."""
    for reason, gates, pattern, cue in shapes(strong=True):
        if passes(gates, text) and any(
            not cue or _CUE.search(text, hit.end(), hit.end() + cue) for hit in pattern.finditer(text)
        ):
            return reason
    return _by_closing(text) or _by_tongue(text) or _by_weak(text, unseen=unseen)


def _by_closing(text: str) -> str:
    opened: set[str] = set()
    for found in _CLOSING.finditer(text) if "</" in text else ():
        if found[1] and found[2] not in opened:
            return "closes the excerpt it stands in"
        opened.add(found[2])
    return ""


def _by_weak(text: str, *, unseen: bool) -> str:
    weak = shapes(strong=False)
    found = sorted(
        (hit.start(), kind) for kind, gates, pattern, _ in weak if passes(gates, text) for hit in pattern.finditer(text)
    )
    kinds = {kind for _, kind in found}
    close = any(kind != other and there - here < TOGETHER for (here, kind), (there, other) in pairwise(found))
    if close or (unseen and kinds & TELLING):
        return "tells how the review should end" if "outcome" in kinds else "gives orders to the reader"
    return ""


def _by_tongue(text: str) -> str:
    told, called = speaks(text, "drop"), speaks(text, "reader")
    for search in tongues("drop", "own", "orders") if told else ():
        if not (search.exotic and text.isascii()) and passes(search.gates, text):
            drop, own, orders = search.lists
            after = NEAR if search.verb_last else 0
            for part in _SENTENCE.split(_NEGATED.sub("", text)):
                at = _places(orders, part)
                if at and _near(at, _places(drop, part), NEAR, after) and _near(at, _places(own, part), OWN):
                    return _DROPS
    for search in tongues("reader", "things", "acts") if called else ():
        if not (search.exotic and text.isascii()) and passes(search.gates, text) and _called(search, text):
            return _READER
    return ""


def _called(search: Search, text: str) -> bool:
    """Whether a reader is named and told something right after a colon (or later, where verbs come last)."""
    reader, things, acts = search.lists
    readers = _places(reader, text)
    pauses, orders, objects = (_places(pattern, text) if readers else [] for pattern in (_PAUSE, acts, things))
    for place in readers:
        pause = _first(pauses, place)
        gap = _first(orders, pause) - pause
        if pause - place < NEAR and (gap < 4 or (search.verb_last and gap < NEAR and _near([place], objects, NEAR))):
            return True
    return False


def _places(pattern: re.Pattern[str], text: str) -> list[int]:
    return [found.start() for found in pattern.finditer(text)]


def _first(places: list[int], start: int) -> int:
    """Return the first place from `start` on, far away where there is none."""
    index = bisect_left(places, start)
    return places[index] if index < len(places) else FAR


def _near(first: list[int], second: list[int], before: int, after: int | None = None) -> bool:
    """Whether a place of the sorted `second` lies `before` or `after` (as far, if not given) one of `first`."""
    reach = before if after is None else after
    return any(bisect_left(second, place - before) < bisect_right(second, place + reach) for place in first)
