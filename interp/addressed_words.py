"""Makes of the tables of `addressed_tongues` and `addressed_shapes` what can be searched for.

All text is compared after `fold`: without disguise, lower case, no accents. Patterns are made once, when first asked
for, and each has gates before it: substrings that a text must hold to be worth the search. Nothing here decides.
"""

from __future__ import annotations

import html
import re
import unicodedata
from functools import cache
from typing import NamedTuple
from urllib.parse import unquote

from premortem.interp.addressed_shapes import STRONG, WEAK
from premortem.interp.addressed_tongues import TONGUES, VERB_LAST

Gates = tuple[tuple[tuple[str, ...], ...], ...]
"""Ways through, each made of sets of substrings; see `passes`."""

TURNED = "vafgehpg vtaber qvfertneq flfgrz nffvfgnag erivrj rqvgf snoitcurtsni tpmorp erongi".split()
"""Words that matter here, in rot13 or reversed."""

LOOKALIKES = str.maketrans(
    "авекмнорстухіјѕԁԛԝһгьпіαβεηικνορτυχγωԍɡɑℓօսո℮ⱴᴀʙᴄᴅᴇɢʜɪᴊᴋʟᴍɴᴏᴘʀᴛᴜᴠᴡʏᴢ",
    "abekmhopctyxijsdqwhrbniabenikvoptuxywggaloun" + "evabcdeghijklmnoprtuvwyz",
)
"""Cyrillic, Greek and other letters that look like Latin ones, lower case."""

LEET = str.maketrans("0134578@$!|", "oieastbasil")
"""Digits and signs that stand for letters."""

SHORT = 4
"""Characters from which a word is looked for as it is, and below which only between borders."""

_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]"
)
_TAGS = re.compile("[\U000e0020-\U000e007e]")
_ACCENTS = re.compile("[\u0300-\u036f\u0591-\u05c7\u064b-\u0655]")
_ESCAPES = re.compile(r"\\u\{?([0-9a-f]{4})\}?|\\x([0-9a-f]{2})", re.IGNORECASE)
_PERCENT = re.compile(r"%[0-9a-fA-F]{2}")


def fold(text: str) -> str:
    """Return `text` without disguise: entities and escapes resolved, nothing invisible, no accents, lower case."""
    for _ in range(4):
        before = text
        if "&" in text:
            text = html.unescape(text)
        if "\\" in text and len(_ESCAPES.findall(text)) > 3:
            text = _ESCAPES.sub(lambda found: chr(int(found[1] or found[2], 16)), text)
        if "%" in text and len(_PERCENT.findall(text)) > 2:
            text = unquote(text, errors="replace")
        if not text.isascii():
            text = _TAGS.sub(lambda found: chr(ord(found[0]) - 0xE0000), _UNSEEN.sub("", text))
            text = _ACCENTS.sub("", unicodedata.normalize("NFKD", text.lower()))
            text = unicodedata.normalize("NFC", text).replace("ı", "i").replace("đ", "d").replace("’", "'")
        text = text.lower()
        if text == before:
            break
    return text


def passes(gates: Gates, text: str) -> bool:
    """Whether a text holds a substring of each set of one way through."""
    return any(all(any(map(text.__contains__, group)) for group in way) for way in gates)


@cache
def shapes(*, strong: bool) -> list[tuple[str, Gates, re.Pattern[str], int]]:
    """Return reason, gates, pattern and reach of the cue of each shape."""
    table = STRONG if strong else WEAK
    return [(shape.reason, _gates(shape.gates), re.compile(shape.pattern, re.MULTILINE), shape.cue) for shape in table]


def speaks(text: str, name: str) -> bool:
    """Whether a text may hold a word of the list `name` of any language; much quicker than to try each."""
    long, short = _any_tongue(name, text.isascii())
    return any(map(text.__contains__, long)) or (short is not None and short.search(text) is not None)


@cache
def _any_tongue(name: str, only_ascii: bool) -> tuple[tuple[str, ...], re.Pattern[str] | None]:
    words = " ".join(getattr(tongue, name) for tongue in TONGUES.values())
    short = sorted({fold(word) for word in words.split() if len(word) < SHORT})
    long, short = (
        [word for word in found if word.isascii() or not only_ascii] for found in (_stems(words, SHORT), short)
    )
    border = "(?<![a-z0-9])(?:{})(?![a-z0-9])" if only_ascii else "(?:{})"
    return tuple(long), re.compile(border.format("|".join(short))) if short else None


class Search(NamedTuple):
    """What to look for in one language."""

    gates: Gates
    """Ways through of the first and the third list."""
    exotic: bool
    """Whether no text of ASCII letters passes them."""
    verb_last: bool
    """Whether a verb may follow its object."""
    lists: tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]
    """The patterns of three word lists."""


@cache
def tongues(one: str, two: str, three: str) -> list[Search]:
    """Return what to look for in each language that has these three word lists."""
    found = []
    for language, tongue in TONGUES.items():
        first, second, third = getattr(tongue, one), getattr(tongue, two), getattr(tongue, three)
        if first and second and third:
            groups = (_stems(first), _stems(third))
            exotic = any(not any(map(str.isascii, group)) for group in groups)
            lists = (_pattern(first), _pattern(second), _pattern(third))
            found.append(Search((groups,), exotic, language in VERB_LAST, lists))
    return found


def _gates(text: str) -> Gates:
    return tuple(
        tuple(tuple(word.replace("␣", " ") for word in group.split()) for group in way.split(" & "))
        for way in text.split(" | ")
    )


def _stems(words: str, shortest: int = 0) -> tuple[str, ...]:
    stems = {fold(word).replace("_", " ").partition("*")[0] for word in words.split() if len(word) >= shortest}
    return tuple(sorted(stem for stem in stems if not any(other != stem and other in stem for other in stems)))


def _pattern(words: str) -> re.Pattern[str]:
    """Return the pattern of a word list; scripts that write without spaces or join articles need no borders."""
    found = []
    for word in fold(words).split():
        shape = re.escape(word).replace(r"\*", r"\w{0,20}").replace("_", r"\s{1,2}")
        border = r"(?<![a-z0-9])%s(?![a-z0-9])" if word[0].isascii() else r"(?<!\w)%s(?!\w)"
        found.append(border % shape if word[0] < "\u0530" else shape)
    return re.compile("|".join(found))
