"""Where the signature under a spec begins.

People end a spec as they end a letter: a name, "Best, Miriam", "-- The support team". None of this is a rule, and laid
out as short lines of its own it would make the prose above look like an introduction to a list. It is told by its
place, at the very end, and by its form: a closing formula, a dash that begins no list, or a name that stands alone
below whole sentences. A last line that says what to do or not to do is no signature, whatever stands before it.
"""

from __future__ import annotations

import re

MOST_LINES = 4
"""Lines of a signature, at most."""
MOST_WORDS = 6
"""Words of each of its lines, at most."""

_FORMULA = re.compile(
    r"(?:with )?(?:(?:(?:many|kind|kindest|best|warm|warmest|all my|lots of|our|all the|yours|very) )*"
    r"(?:thanks(?: (?:a lot|so much|again|all|everyone|everybody|in advance))?"
    r"|thank you(?: (?:so much|very much|all|everyone|again|in advance))?"
    r"|regards|best|cheers|love|yours|sincerely|truly|faithfully|respectfully|cordially|signed)"
    r"|(?:many|kind|best|warm|warmest) (?:wishes|greetings))"
    r"(?: from)?(?:\s*[,!.]+\s*(?P<who>.*))?",
    re.IGNORECASE,
)
"""A line that closes a letter, alone or with a name behind it."""
_DASH = re.compile(r"\s*(?:-{2,}|[—–―~])\s*(?=[^\W\d_])")
"""A dash before a name; a single hyphen begins a bullet."""
_ALONE = re.compile(r"\s*--\s*")
"""The line that mail programs put above a signature."""
_NAME = re.compile(r"[^\W\d_][\w.'’-]*(?:(?:, | & | and | of | de | van | von | for | the | )[^\W\d_][\w.'’-]*){0,5}")
_PARTICLES = frozenset("and of de van von for the".split())
_HOUSE = re.compile(
    r"(?:the|your|our) (?:[\w'’-]+ ){0,4}(?:team|crew|staff|desk|folks|department|office|group|committee|family|board)",
    re.IGNORECASE,
)
_ASKS = re.compile(
    r"\b(?:no|not|never|none|don'?t|do|avoid|without|always|must|should|shall|please|only|keep|stay|be|use|more|less"
    r"|fewer|stop|say|tell|ask|write|answers?|repl(?:y|ies))\b",
    re.IGNORECASE,
)
"""Words by which a short line is a rule and no name."""
_ENDED = re.compile(r"[.!?…][\"”’')\]*_]*\s*$")


def cut_signature(body: str) -> tuple[str, str]:
    """Return `body` without the signature at its end, and the signature; empty where there is none."""
    lines = body.rstrip().splitlines()
    filled = [at for at, line in enumerate(lines) if line.strip()]
    for is_signature in (_closes, _dashed, _named):
        for at in filled[-MOST_LINES:]:
            before = [line for line in lines[:at] if line.strip()]
            tail = [line.strip() for line in lines[at:] if line.strip()]
            if before and is_signature(tail, before):
                return "\n".join(lines[:at]) + "\n", "\n".join(lines[at:])
    return body, ""


def _closes(tail: list[str], before: list[str]) -> bool:
    """Whether a formula begins `tail`, and only names follow."""
    formula = _FORMULA.fullmatch(tail[0].strip("*_ "))
    return formula is not None and all(map(_may_sign, [formula["who"] or "", *tail[1:]]))


def _dashed(tail: list[str], before: list[str]) -> bool:
    """Whether `tail` stands behind a dash, with no other line of the spec that begins with one."""
    if _ALONE.fullmatch(tail[0]):
        return len(tail) > 1 and all(map(_may_sign, tail[1:]))
    dash = _DASH.match(tail[0])
    if dash is None or any(_DASH.match(line) for line in before) or before[-1].endswith(":"):
        return False
    return all(map(_may_sign, [tail[0][dash.end() :], *tail[1:]]))


def _named(tail: list[str], before: list[str]) -> bool:
    """Whether `tail` is a name alone below prose; where other lines are as short and open, it is one more of them."""
    prose = [line for line in before if not line.lstrip().startswith("#")]
    as_short = any(not _ENDED.search(line) and len(line.split()) <= MOST_WORDS for line in prose)
    below = bool(prose) and not as_short and _ENDED.search(before[-1]) is not None
    return below and len(tail) <= 2 and all(map(_is_name, tail))


def _is_name(line: str) -> bool:
    """Whether a line names people: every word but the small ones has a capital, or it is a team."""
    if not _may_sign(line) or line.isupper() or line.endswith("."):
        return False
    named = _NAME.fullmatch(line) is not None
    words = [word for word in re.findall(r"[^\W\d_][\w'’.-]*", line) if word not in _PARTICLES]
    return (named and bool(words) and all(word[0].isupper() for word in words)) or bool(_HOUSE.fullmatch(line))


def _may_sign(line: str) -> bool:
    return len(line.split()) <= MOST_WORDS and not _ASKS.search(line) and not _ENDED.search(line.removesuffix("."))
