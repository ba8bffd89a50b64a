"""Negations that ask for something: "don't forget the units", "never stop citing sources", "refuse such requests".

A negation before a verb that is one itself asks for what stands behind it, and a rule that tells the model to refuse
asks for refusals, though its words are those of rules that forbid. Where a third negation follows ("don't forget to
avoid jargon"), or a word that rations ("refuse less", "refuse only …"), the sentence is left to the other shapes.
"Never without being asked" forbids, where "never without a source" asks for one.
"""

from __future__ import annotations

import re

from premortem.agent.spec.shapes import Shape
from premortem.interp.records import Direction
from premortem.interp.scope import UNASKED

SUBJECT = (
    r"(?:it|they|(?:the|an|our) (?:\w+ )?(?:model|assistant|bot|helper|answers?|repl(?:y|ies)|responses?|system|agent)"
    r"|answers?|repl(?:y|ies)|responses?|you)"
)
"""Whom a rule tells what to do."""
_LEAD = r"^(?:and |but |also,? |please,? |so )*"
_NOT = (
    rf"(?:(?:{SUBJECT} (?:also )?)?(?:do not|don't|does not|doesn't|never)"
    rf"|{SUBJECT} (?:also )?(?:(?:must|should|shall|may|can|will)(?: not| never|n't)|cannot|mustn't))(?: ever)? "
)
_THIRD = (
    r"(?!(?:[:,]? (?:to|that|about|the rule|(?:it|you|we|they)(?: \w+)?|(?:the|an|any|our) \w+(?: \w+)?))*[:,]?"
    r" (?:not|never|no|avoid|don't|do not|mustn't|shouldn't|doesn't|cannot)\b)"
)
UNBIDDEN = rf"(?:{UNASKED}|without (?:the |any |prior |\w+['’]s? )*(?:permission|consent|approval|need)\b)"
"""A condition behind `never` that limits what is forbidden and asks for nothing."""
LOSE = (
    r"(?:ever |you dare )?(?:touch|lose|change|break|remove|drop|alter|tamper|tinker|mess|worry|forget|be surprised|let"
    r"|be (?:afraid|shy|too)|hesitate|fail|leave out|omit|skip|train that)\b"
)
"""Verbs that a negation turns into a wish to keep or to have."""
LACKING = rf"\b(?!{UNBIDDEN})without\b"
"""What is asked for behind a negation."""
_OPENING_IF = r"(?:(?:when|whenever|if|where)\b[^,:;]*, )?"
_FORGET = (
    r"(?:(?:forget|fail|hesitate|omit|neglect|miss)s?|skips?(?! (?:around|ahead|between|from|to)\b)|leaves? out"
    r"|overlooks?|be (?:afraid|shy)|sh(?:y|ies) away)\b"
)
_STOP = r"(?:(?:stop|quit|cease)s? (?=(?!(?:any|no|some|every)?thing\b|during\b)(?:\w+ly )?\w+ing\b)|ceases? to )"
_REFUSE = r"(?:refuse|decline|turn down|say no)\b"
_RATIONED = r"(?! (?:no|none|nobody|nothing|not)\b)(?!.*\b(?:less|fewer|without|only|rarely|seldom|sparingly)\b)"
_REFUSES = re.compile(
    rf"{_LEAD}{_OPENING_IF}(?:please |always )*(?:{SUBJECT} (?:must|should|shall|has to|have to|needs? to)"
    rf"(?: (?:always|also))? )?(?:\w+ly )?{_REFUSE}{_RATIONED}"
    r"|^(?:(?:any|all|every|such) )?(?:[\w-]+ ){0,2}(?:requests?|questions?|demands?|orders?)\b[^,;:]*"
    r" (?:must|should|shall|has to|have to|needs? to|is to|are to)(?: always)? be (?:refused|declined)\b"
)
_TWICE: dict[Direction, re.Pattern[str]] = {
    "encourage": re.compile(rf"{_LEAD}{_NOT}{_FORGET}{_THIRD}(?: (?:to|about|of|that|from)\b)?[ :,]*"),
    "keep": re.compile(rf"{_LEAD}{_NOT}{_STOP}"),
}
_UNBIDDEN = re.compile(rf"{_LEAD}(?:(?:\w+ )?no \w|{_NOT}(?!{_FORGET}))[^;]*\b{UNBIDDEN}")
_IS_NO_CHOICE = (
    r"(?!(?:need|have|know|work|want|care|belong|own|exist|see|remember|understand|sleep|come|live|seem|mind|like|get"
    r"|receive|expect)\b)"
)
_YOU = re.compile(
    rf"{_LEAD}{_OPENING_IF}you (?:also )?(?:(?:must|should|shall|may)(?: not|n't| never)(?: ever)?"
    rf"|(?:never|do not|don't|will not|will never|won't)(?: ever)?(?= {_IS_NO_CHOICE})"
    rf"(?!.*\b(?:keep|kept|stay|remain|go on|carry on)\b)) (?!{LOSE}|.*{LACKING})"
)
NEGATIONS: tuple[Shape, ...] = (*_TWICE.items(), ("avoid", _UNBIDDEN), ("encourage", _REFUSES), ("avoid", _YOU))
"""Shapes whose negations leave no doubt which way the rule goes."""


def behind_negations(rule: str, direction: Direction) -> str:
    """Return what a rule of two negations asks for; the whole rule where it has none or does not ask that way."""
    asked = _TWICE.get(direction)
    found = asked.match(rule.lower().replace("’", "'")) if asked else None
    return rule[found.end() :] if found else rule
