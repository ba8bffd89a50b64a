"""The share of answers that a rule tolerates, where its own words name one.

Only what bounds the answers that may break a rule is such a share: "in more than 5% of answers", "at most 5% may",
"(limit: 3%)". Of a rule that at least 98% of answers must keep, the rest is what may break it. A percentage that says
how often something happens now, or what the rule is about, is none.
"""

from __future__ import annotations

import re

from premortem.agent.spec.words import QUOTED, without_emphasis
from premortem.interp.records import Direction

MOST_OF_REST = 0.5
"""Where at least so few answers keep a rule, the percentage means something else."""
PERCENT = r"(\d+(?:[.,]\d+)?)\s*(?:%|percent\b|per cent\b)"
"""A percentage, with a decimal point or comma."""
_OF_ANSWERS = (
    r" of (?:the |all |its |our |your )*"
    r"(?:answers?|repl(?:y|ies)|responses?|messages|conversations|chats|cases|outputs?|pairs)\b"
)
_OFTEN = rf"(?:{_OF_ANSWERS}| of the time\b)"
_FINE = (
    r"(?: (?:may|can|should)\b| (?:is|are|would be|will be|is still) (?:fine|ok|okay|enough|allowed|permitted"
    r"|acceptable|accepted|tolera\w+|bearable)\b)"
)
_IN = r"(?:of |in |about |some )*"
_MOST = re.compile(
    r"\b(?:at (?:the )?most|up to|(?:no|not) more than|fewer than|less than|under|below|max(?:imum)?\.?|within)"
    rf" {_IN}{PERCENT}(?={_OFTEN}|{_FINE}|[.,;)]|$)"
    rf"|\b(?:more than|over|above|beyond|exceed(?:s|ing)?) {_IN}{PERCENT}(?={_OFTEN})"
    rf"|(?<!at least ){PERCENT}(?:{_OFTEN}(?={_FINE}| at (?:the )?most\b| or (?:less|fewer)\b)|(?= at (?:the )?most\b))"
    rf"|\b(?:limit|tolerance)(?: is| of)?\s*[:=]?\s*{PERCENT}|\(\s*{PERCENT}\s*\)[.!]*$"
    rf"|\|\s*{PERCENT}\s*(?:\||$)",
    re.IGNORECASE,
)
_REST = re.compile(
    rf"\bat least {_IN}{PERCENT}{_OFTEN}"
    rf"|{PERCENT}{_OFTEN} (?:must|should|shall|have to|has to|need to|are to|is to) (?:always |all )?"
    r"(?:not|never|avoid|be (?:free|without|clear|clean)|do without|come without|contain no|have no|hold no|show no"
    r"|use no|stay (?:free|clear|away))\b",
    re.IGNORECASE,
)

_ASIDE = re.compile(
    rf"[\s,;:—–-]*\(?\b(?:limit|tolerance)(?: is| of)?\s*[:=]?\s*{PERCENT}(?:{_OFTEN})?\)?"
    rf"|\s*\(\s*{PERCENT}\s*\)(?=[.!]*$)"
    rf"|\s*\|\s*{PERCENT}\s*(?=\||$)|[;,]\s*(?:but |and )?(?:up to|at most) {_IN}{PERCENT}(?:{_OFTEN})?{_FINE}(?=\W*$)",
    re.IGNORECASE,
)


def without_limit(rule: str) -> str:
    """Return `rule` without a limit that is only added to it ("(limit: 3%)"); limits inside its sentence stay."""
    return _ASIDE.sub("", rule)


def told_limit(rule: str, direction: Direction) -> float | None:
    """Return the share of answers, 0 to less than 1, that may break `rule` by its own words; None: they name none.

    None for what is asked for, too, where a limit is the least rise: "90% of answers should" says where it should end.
    """
    if direction == "encourage":
        return None
    plain = QUOTED.sub(" ", without_emphasis(rule))
    if direction == "avoid" and (rest := _REST.search(plain)):
        share = round(1.0 - _share_of(rest), 6)
        return share if 0.0 < share <= MOST_OF_REST else None
    most = _MOST.search(plain)
    return _share_of(most) if most and _share_of(most) < 1.0 else None


def _share_of(found: re.Match[str]) -> float:
    return float(next(filter(None, found.groups())).replace(",", ".")) / 100
