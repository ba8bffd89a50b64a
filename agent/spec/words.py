"""The words of a rule: which may name a behaviour, and which only say how the rule is put."""

from __future__ import annotations

import re

SINGLE_QUOTED = r"(?<!\w)['‘]((?:[^'‘’\n]|(?<=\w)['’](?=\w)){2,120})['’](?!\w)"
"""Words in single quotes, which an apostrophe does not begin or end."""
SINGLE = re.compile(SINGLE_QUOTED)
QUOTED = re.compile(rf"[\"“]([^\"“”]{{2,120}})[\"”]|`([^`]{{2,120}})`|{SINGLE_QUOTED}")
WORD = re.compile(r"[a-z][a-z'’-]{2,}")
COMMON = frozenset(
    """a about above after again all also always an and another any anybody anyone answer answers are as ask asked
    asker asking asks assistant at be because been before being below both bring but by can cannot come could did do
    does doing don't down each else even ever every everything few for from further get give gives go good had has have
    having he help helpful her here him his how however i if in instead into is it its itself just keep kind least
    less let like made make makes many may me mention mentions might model more most much must my need needs never new
    no nobody none nor not nothing now of off on once one only or other others our out over own people person please
    point question questions rather really reply replies request requests respond response responses said same say
    says see she should since so some somebody someone something still stop such sure take tell than that the their
    them themselves then there these they thing things this those through to too topic topics try under unless until
    up upon us use used user users uses using very want wants was way we well were what when where whether which while
    who whole whom why will with within without word words would yes yet you your yourself avoid continue encourage
    ensure include prefer remain stay text sort sorts avoided dressed everywhere anywhere instead
    matters anything already around ought shall leave leaves leaving keeps kept lose loses quit skip omit drop refrain
    forbid banned allowed retained given whatever pls dont""".split()
)
"""Words that say how a rule is put."""
SIZES = frozenset(
    "first second third next last single two three four five ten small big large long short little".split()
)
"""Words that say how much of something or where: a rule may be about nothing else, but answers would not say them."""
CONTRACTED = re.compile(r"'(?:s|d|m|ll|re|ve)\Z|n't\Z")
_EMPHASIS = re.compile(
    r"(?P<code>`[^`]*`)|(?<![\w.])(?P<mark>[*_]{1,3})(?=\S)(?P<text>[^*_\n]+?)(?<=\S)(?P=mark)(?!\w)"
)


def without_emphasis(text: str) -> str:
    """Return Markdown `text` without the marks of bold and italics."""
    return _EMPHASIS.sub(lambda found: found["code"] or found["text"], text)


def content_words(text: str) -> tuple[str, ...]:
    """Return the words of `text` that may name a behaviour, lower case, in order, without repeats."""
    return tuple(dict.fromkeys(word for word in _words(text) if len(word) > 2 and word not in COMMON | SIZES))


def names_something(text: str) -> bool:
    """Whether `text` may name a behaviour, or at least how much or how long something is to be."""
    return any(len(word) > 2 and word not in COMMON for word in _words(text))


def _words(text: str) -> list[str]:
    plain = QUOTED.sub(lambda match: f" {match[match.lastindex or 0]} ", text.lower().replace("’", "'"))
    return [CONTRACTED.sub("", word.strip("'-")) for word in WORD.findall(plain)]
