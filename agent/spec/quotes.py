"""Which of a rule's quotations show what it is about: "say A rather than B" wants the one and rejects the other.

Quoted phrases are evidence that is taken at its word, so a phrase that a rule recommends must never mark the answers
that break it.
"""

from __future__ import annotations

import re

from premortem.agent.spec.negations import SUBJECT
from premortem.agent.spec.rations import halves
from premortem.agent.spec.shapes import Shape
from premortem.agent.spec.words import QUOTED
from premortem.interp.records import Direction

_LEAD = rf"^(?:and |but |also,? |please,? |so |always )*(?:{SUBJECT} (?:must|should|shall) )?"
_SAYS = r"(?:say|write|use|answer|reply|put|prefer|type|call (?:it|them))"
PREFERRED: tuple[Shape, ...] = (
    (
        "encourage",
        re.compile(rf"{_LEAD}{_SAYS}\s+<quote>[ ,]*\b(?:rather than|instead of|not|and not)\b(?!.*<quote>)"),
    ),
)
"""Shapes that ask for a quotation in place of something that is not quoted."""
_NOT = r"(?:never|do not|don't|avoid|not|(?:it|they|you|the \w+) (?:must|should|shall) (?:not|never))\b"
_JOINT = r"(?:[,;:—–-]+\s*(?:but |and |rather |please |instead,? |just )*|\s+but (?:rather )?)"
_FIRST_REJECTED = re.compile(
    rf"^(?:and |but |please )*{_NOT}[^;]*?\x01+[^\x01;,]*?"
    rf"(?P<joint>{_JOINT}(?={_SAYS}\b)|[,;]?\s+but (?:rather |just )?(?=\x01))",
    re.IGNORECASE,
)


def swapped(rule: str) -> tuple[str, str] | None:
    """Return what a rule wants and what it rejects for that; None where it does not put one in place of the other."""
    masked = QUOTED.sub(lambda found: "\x01" * len(found[0]), rule.replace("’", "'"))
    if found := _FIRST_REJECTED.search(masked):
        return rule[found.end("joint") :], rule[: found.start("joint")]
    wanted, rejected = halves(rule)
    return (wanted, rejected) if rejected else None


def examples(rule: str, direction: Direction) -> tuple[str, ...]:
    """Return the phrases that `rule` quotes for what it asks for or forbids."""
    sides = swapped(rule) or ((halves(rule)[0], rule) if direction != "avoid" else (rule, rule))
    return tuple("".join(found) for found in QUOTED.findall(sides[direction == "avoid"]))
