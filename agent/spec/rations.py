"""Rules that ration something or put something else in its place.

"Use emojis only when asked" and "keep links to a minimum" are worded like rules that ask for emojis and links, and mean
fewer of them. "Be honest instead of flattering" asks for its first half; its other half is what nobody wants, so its
words must not count as wanted. Limits of length ("at most 90 words") are no rations: they say how, not what.
"""

from __future__ import annotations

import re

from premortem.agent.spec.negations import LOSE, SUBJECT
from premortem.agent.spec.shapes import LIMITING, THERE, WHEN, Shape
from premortem.agent.spec.words import QUOTED

_TOLD = rf"^(?:and |but |also,? |please,? |so )*(?:{SUBJECT} (?:must|should|shall|may|can|is to|are to) )?"
_DOES = (
    r"(?!(?:answer|reply|respond|speak|keep|stop|be|do|never|don't|no|not|a|an|the|this|that|it|they|we|you|i|for|in|on"
    r"|if|when|where|at|to|of|by|with|as|and|but|so|ask)\b)[a-z]+(?<!s)(?<!ed)"
)
_LITTLE = (
    r"(?:sparingly|rarely|seldom|in moderation|with restraint|only (?:rarely|sparingly|occasionally)"
    r"|as little as possible|(?:down )?to (?:a|the) (?:bare |strict )?minimum)"
)
_COUNTED = r"(?:(?:number|amount|count|share|rate|frequency|use) of )"
_PLAIN = r"(?![^,;:]*\b(?:is|are|was|were|be|has|have|does|do|matters?|means?|works?|counts?)\b[^,;:]* only\b)"
_WORDS = r"(?!.*\b(?:words?|sentences?|lines?|paragraphs?|characters?|pages?|minutes?)\b)"
_ONE = r"(?:a single|an?|\d+|<number>|one|two|three|four|five|six|seven|eight|nine|ten)"
_RATIONED: tuple[re.Pattern[str], ...] = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"{_TOLD}(?P<what>{_DOES} (?!to\b){_PLAIN}[^,;:]{{2,60}}?),? {LIMITING} (?P<where>(?!for\b){THERE}.+)",
        rf"{_TOLD}(?P<what>(?!(?:write|send|use)\b){_DOES}),? {LIMITING} (?P<where>{WHEN}\b.+)",
        rf"{_TOLD}(?:only|solely) (?P<what>{_DOES} [^,;:]{{2,60}}?),? (?P<where>{WHEN}\b.+)",
        rf"{_TOLD}(?P<what>{_DOES} [^,;:]{{2,60}}?),? {_LITTLE}[.!]*$",
        rf"{_TOLD}(?:only )?(?:rarely|seldom|sparingly) (?P<what>{_DOES} [^,;:]{{2,60}}?)[.!]*$",
        rf"{_TOLD}(?P<what>{_DOES}) as (?:few|little) (?P<thing>[^,;:]{{2,40}}?) as possible[.!]*$",
        r"^(?P<what>[^,;:]{2,60}?) (?:must|should|shall|is to|are to) be (?:used |kept |offered |given |made |added )?"
        rf"{_LITTLE}[.!]*$",
        r"^(?:we|i|people|(?:our )?(?:users|readers|customers)) (?:can|could) (?:\w+ly |well )?do without"
        r" (?P<what>[^,;:]+)",
        rf"{_TOLD}keep (?:the )?{_COUNTED}(?P<what>[^,;:]{{2,40}}?) (?:low|small|down|minimal)\b[^,;:]*$",
        rf"{_TOLD}keep (?P<what>(?!it\b|them\b|this\b|that\b)[^,;:]{{2,40}}?) (?:out|rare|few|minimal|{_LITTLE})[.!]*$",
        rf"{_TOLD}keep (?:the )?{_COUNTED}?(?P<what>[^,;:]{{2,40}}?) (?:under|below|within) [^,;:]{{0,12}}"
        r"(?:%|per ?cent)[^;:]*$",
        rf"{_TOLD}(?:use|include|add|insert) (?:at (?:the )?most|up to|(?:no|not) more than) {_ONE} {_WORDS}"
        r"(?P<what>[^,;:.!]{2,40}?)(?= (?:per|in|for|to)\b|[.!]|$)",
    )
)
RATIONS: tuple[Shape, ...] = tuple(("avoid", pattern) for pattern in _RATIONED)
"""Shapes that ask for less of something."""
_NOUN = r"(?:training|warning|meaning|opening|ending|heading|greeting|building|(?:any|no|every|some)?thing)\b"
_ASIDE = r"(?![^,]*,(?! (?:and|but|so|which)\b))"
_REJECTED = re.compile(
    r"(?P<head>.+?)(?:,? (?P<swap>instead of|rather than)"
    rf"|,? (?<!and )(?<!or )without(?= (?!{_NOUN})\w+ing\b)|, without"
    rf"|(?P<not>, (?:and |but )?| (?:and|but) )not{_ASIDE}(?! (?:just|only|merely|simply|necessarily|to be|{LOSE})\b))"
    r"\s(?P<tail>.+)",
    re.IGNORECASE | re.DOTALL,
)
_IMPERATIVE = re.compile(
    rf"{_TOLD}(?!(?:the|an?|it|they|we|i|you|our|my|this|that|these|those|all|each|every|there|\w+thing)\b)"
    r"[a-z]+(?<!s)(?<!ed) ",
    re.IGNORECASE,
)
_NEGATED = re.compile(r"\b(?:no|not|never|nothing|nobody|none|neither|nor|cannot|avoid|stop)\b|n't\b", re.IGNORECASE)


def rationed(rule: str) -> tuple[str, str] | None:
    """Return what a rule asks for less of and where it is allowed; None where it rations nothing."""
    plain = rule.replace("’", "'")
    found = next((found for pattern in _RATIONED if (found := pattern.match(plain))), None)
    if found is None:
        return None
    told = found.groupdict()
    return told.get("thing") or told["what"], f"except {told['where'].strip(' .')}" if told.get("where") else ""


def halves(rule: str) -> tuple[str, str]:
    """Return what a rule asks for, and what that is to take the place of; the second may be empty.

    A rule that begins with a negation has one half: "never answer without a source" asks for the source. What stands
    behind "without" has no place that something takes, and is left out.
    """
    masked = QUOTED.sub(lambda found: "\x01" * len(found[0]), rule)
    found = _REJECTED.fullmatch(masked)
    if found is None or _NEGATED.search(found["head"]):
        return rule, ""
    swapped = (found["swap"] or found["not"]) and _IMPERATIVE.match(masked)
    return rule[: found.end("head")].strip(" ,"), rule[found.start("tail") :] if swapped else ""
