"""Scope: where a rule does not hold by its own words, "unless somebody asks" or "except in poems".

A condition that frees some prompts from a rule is checked where words can tell. A prompt frees its pair when it holds
what the condition names ("except in poems", "unless they ask for a poem"), or, where the condition is that somebody
asks for it, the first word that says what the rule is about (two where they stand together, as in "hot drinks"): later
words are as often where it happens ("no comments in code"). Such a pair counts neither as a breach nor in the share of
responses, and no edit touches it for that rule. Any other condition ("when you give a figure") names what cannot be
looked up, and whoever shows the rule says that it is not checked. English only; a condition that is not understood
frees nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import takewhile

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from premortem.interp.matching import COMMONPLACE
from premortem.interp.readout import Bools
from premortem.interp.records import Clause

_ASK = (
    r"(?:ask(?:s|ed|ing)?|request(?:s|ed|ing)?|want(?:s|ed)?|wish(?:es|ed)?|invit(?:es|ed)|prompt(?:s|ed)|call(?:s|ed)?"
    r"|(?:brings?|brought)(?: \w+)? up|(?:brings?|brought) \w+ in|mention(?:s|ed)?|rais(?:es?|ed))"
)
_ASKED = re.compile(rf"(?P<before>.*?)\b{_ASK}\b(?P<after>.*)", re.IGNORECASE | re.DOTALL)
_PASSIVE = re.compile(r"\b(?:is|are|was|were|been|being|gets?|got)(?: \w+ly)? $", re.IGNORECASE)
"""What is asked for stands before the verb."""
_UNLESS = re.compile(r"\s*(?:unless|except(?: when| where| if)?|but not when|save when)\b", re.IGNORECASE)
_EXCEPT = re.compile(r"\s*(?:except|other than|apart from|save) (?:in|on|about|during|inside|within)\b", re.IGNORECASE)
_WHEN = re.compile(r"\s*(?:when|whenever|if|where|while|as long as|so long as)\b", re.IGNORECASE)
_NOBODY_ASKS = re.compile(
    rf"\b(?:nobody|no one|none)(?: \w+){{0,3}}? {_ASK}\b|(?:\b(?:not|never)|n['’]t)(?: \w+){{0,2}}? {_ASK}\b",
    re.IGNORECASE,
)
UNASKED = (
    r"without (?:(?:ever |first )?(?:being|having been|getting) (?:\w+ly )?(?:asked|told|prompted|invited|requested)"
    r"(?! (?:why|how|what|twice|again)\b)(?: to\b)?"
    r"|(?:(?:the|an?|any|our|their) \w+|(?:any|some)(?:one|body)|them|people|users|customers|readers)(?: \w+ly| first)?"
    r" (?:asking|requesting|wanting)"
    r"|(?:an? |any |the |(?:user|person|reader|customer|client)s?['’]?s? |\w+ly |explicit |express |direct |clear "
    r"|prior )*(?:request|invitation)\b)"
)
"""A condition that nobody has asked for what a rule is about, as a regular expression for English."""
_UNASKED = re.compile(
    r"\b(?:out of (?:nowhere|the blue)|unprompted|unasked|unbidden|uninvited|unsolicited|unrequested|apropos of nothing"
    rf"|{UNASKED})",
    re.IGNORECASE,
)
"""The same without a condition of its own."""
_CONDITION = re.compile(
    r"\s*(?:when|whenever|if|unless|until|while|where|wherever|as long as|so long as|in|on|for|with|about|before|after"
    r"|once|between|as|at|by|during|since|except|other than|apart from|even|especially|above all|without)\b",
    re.IGNORECASE,
)
_END = re.compile(r"[;:.!?—–(]")
"""Where a condition ends at the latest; a new thought may follow."""
LISTED = 3
"""Words between two commas up to which they go on with a list."""
_WORD = re.compile(r"[^\W\d_][\w-]{2,}")
_PUTTING = frozenset(
    """ask asked asking asks request requests requested requesting wants wanted explicit explicitly clear clearly direct
    directly specific specifically express expressly user users person people asker reader readers customer
    customers client clients someone somebody anyone anybody question questions answer answers reply replies
    response responses conversation conversations message messages topic topics subject subjects context case
    cases really truly actually strictly absolutely first sense matter matters thing things kind kinds sort sorts
    way ways say says said talk talks talking tell tells telling give gives given giving use uses used using make
    makes made making write writes written add adds adding offer offers offered begin begins start starts open
    opens opening close closes end ends ending finish include includes including put puts show shows bring brings
    brought mention mentions mentioned word words sentence sentences text texts unasked unprompted unsolicited
    unbidden uninvited unrequested nowhere blue does did doing like new old own long short good bad just don doesn
    didn""".split()
)
"""Words that say how a rule or a condition is put."""
_PLAIN = ENGLISH_STOP_WORDS | _PUTTING


def is_conditional(clause: Clause) -> bool:
    """Whether a clause holds under a condition of its own, be it one that cannot be checked."""
    return _CONDITION.match(clause.scope) is not None


def exempting_words(clause: Clause, prompts: Sequence[str]) -> tuple[str, ...]:
    """Return the words that free a prompt from `clause` by its own condition, lower case; none: nothing does.

    Only what is forbidden has such prompts. A word of more than COMMONPLACE of `prompts` does not tell who asks.
    """
    if clause.direction != "avoid" or not prompts:
        return ()
    told = dict.fromkeys(_named(clause))
    return tuple(word for word in told if 0 < exempt([word], prompts).mean() <= COMMONPLACE)


def exempt(words: Iterable[str], prompts: Sequence[str]) -> Bools:
    """Return which of `prompts` hold one of `words`, in the singular or the plural, `(n_prompts,)`.

    Of what is named in two words ("hot drinks") a prompt must hold both.
    """
    told = np.zeros(len(prompts), dtype=bool)
    for named in words:
        patterns = [re.compile(rf"\b(?:{'|'.join(_forms(word))})\b", re.IGNORECASE) for word in named.split()]
        told |= np.asarray([all(pattern.search(prompt) for pattern in patterns) for prompt in prompts], dtype=bool)
    return told


def _forms(word: str) -> list[str]:
    """Return a word in the singular and the plural, as regular expressions, without what is a word of another kind."""
    singular = re.sub(r"ies$", "y", word) if word.endswith("ies") else re.sub(r"(?<!s)s$", "", word)
    forms = {word, singular, f"{singular}s", f"{singular}es", re.sub(r"y$", "ies", singular), re.sub(r"es$", "", word)}
    return [re.escape(form) for form in sorted(forms) if form == word or (len(form) > 2 and form not in _PLAIN)]


def _named(clause: Clause) -> tuple[str, ...]:
    """Return what the condition of `clause` names, and what the rule is about where it is about asking."""
    scope, own = clause.scope, _subject(clause)
    if (excepted := _EXCEPT.match(scope)) is not None:
        return _telling(_condition(scope[excepted.end() :]))
    if (unless := _UNLESS.match(scope)) is not None:
        condition = _condition(scope[unless.end() :])
        asked = _ASKED.match(condition)
        if asked is None:
            return own if re.fullmatch(r"\s*(?:on|by|at the|upon) request\s*", condition) else ()
        return (*_telling(asked["before"] if _PASSIVE.search(asked["before"]) else asked["after"]), *own)
    when = _WHEN.match(scope)
    condition = _condition(scope[when.end() :]) if when else ""
    if (nobody := _NOBODY_ASKS.search(condition)) is not None:
        return (*_telling(condition[nobody.end() :]), *own)
    return own if _UNASKED.search(clause.text) else ()


def _subject(clause: Clause) -> tuple[str, ...]:
    """Return the first word that says what the rule is about, with the one right behind it if that does too."""
    telling = _telling(" ".join(clause.words))
    if len(telling) > 1 and re.search(rf"\b{re.escape(telling[0])}\s+{re.escape(telling[1])}\b", clause.text.lower()):
        return (f"{telling[0]} {telling[1]}",)
    return telling[:1]


def _condition(text: str) -> str:
    """Return the first thought of `text`, with a list that it ends in."""
    first, *more = _END.split(text)[0].split(",")
    return ",".join([first, *takewhile(lambda item: len(item.split()) <= LISTED, more)])


def _telling(text: str) -> tuple[str, ...]:
    words = (word.lower() for word in _WORD.findall(text))
    return tuple(dict.fromkeys(word for word in words if word not in _PLAIN))
