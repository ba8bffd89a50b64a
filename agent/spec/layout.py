"""The sentences of a Markdown spec in their places: which heading, label or opening line leads to each.

Headings and code hold no rules, but headings lead to some. A part after a semicolon counts as a sentence when it begins
as another rule; else it belongs to the part before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from premortem.agent.spec.negations import LOSE, SUBJECT
from premortem.agent.spec.shapes import SAYS_OF_LABEL
from premortem.agent.spec.signature import cut_signature
from premortem.agent.spec.words import SINGLE, names_something, without_emphasis

SHORT_LEAD = 80
"""Characters up to which a line in bold or italics is a heading."""
BULLET = re.compile(
    r"^\s*(?:[-*+•‣▪◦●·–—→✓✔✗✘✅❌]\ufe0f?|\d{1,3}[.)]|\d{1,3}(?:\.\d{1,3})+[.)]?|[a-z][.)]|\d\ufe0f?\u20e3)\s+(?=\S)"
)
RAGGED = 0.6
"""Share of the longest line below which a line that is not the last shows that a paragraph was not wrapped."""
NARROW = 48
"""Characters of the longest line up to which nobody wraps a paragraph."""
LABEL_WORDS = 4
"""Words of a line that may be the heading of the lines below it, at most."""
_COMMENT = re.compile(r"(?P<code>```.*?```|`[^`\n]*`)|<!--.*?-->", re.DOTALL)
_FENCED = re.compile(r"```.*?```|^\s*~~~.*?^\s*~~~", re.DOTALL | re.MULTILINE)
_FENCE = re.compile(r"^\s*(?:```|~~~).*$", re.MULTILINE)
_TABLE_LINE = re.compile(r"\s*\|?(?:\s*:?-{2,}:?\s*\|)+\s*(?::?-{2,}:?)?\s*")
_TABLE_ROW = re.compile(r"\s*\|(.+)\|\s*")
_HEADING = re.compile(r"^\s*#{1,6}\s+(.*)")
_RULE_LINE = re.compile(r"\s*[-*_]{3,}\s*")
_BOLD_LINE = re.compile(r"[*_]{1,2}[^*_]*[*_]{1,2}[.:]?")
_BOLD_LEAD = re.compile(r"[*_]{1,2}([^*_]{2,50}?)(?:[.:?!][*_]{1,2}[.:]?|[*_]{1,2}(?:[.:]|\s+[-–—:]))\s+(?=\S)")
_BOLD_RULE = re.compile(
    r"[*_]{1,2}(?=(?:please )?(?:never|no|do not|don'?t|avoid|always|keep|you (?:must|should|never))\s)"
    r"(?:[^*_.:]*[^*_.:\s])[.!][*_]{1,2}",
    re.IGNORECASE,
)
"""A rule in bold or italics, which is no heading and no label."""
_END = re.compile(
    r"[.!?…]+[\"”’')\]*_]*\s+|;\s+|\s+[—–]\s+(?=(?:please|pls|don'?t|do not|never|leave|keep)\b)", re.IGNORECASE
)
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|vs|cf|Dr|Mr|Mrs|Ms|St)\.$")
_OF_ITS_OWN = re.compile(
    r"(?:and |but |also |please )*(?:(?:never|no|not|do not|don'?t|avoid|always|stop|less|fewer|more|keep \w+ing)\b"
    r"(?! (?:need|change|complaint|reason|objection|one|more|touch))(?!.{0,30}\b(?:it|them|that|those|these|this)\W*$)"
    rf"|{SUBJECT} (?:also )?(?:never|does not|doesn't|do not|don't|should|must|shall)\b)",
    re.IGNORECASE,
)
"""How a part after a semicolon begins that is another rule; others say more about the first."""

_SECOND = re.compile(
    r",? (?:and|but),? (?=(?P<no>(?:please )?(?:never(?! (?:\w+[^s]s|\w+ed|was|were|had|have|will|would|mind)\b)"
    r"|do not|don['’]?t|avoid|(?:must|should) not(?! be\b))\b)"
    r"|(?P<yes>(?:please )?(?:always(?! \w+[^s]s\b)|keep(?! \w+ing\b))\b)"
    r"|(?P<less>(?:less|fewer) \w)|(?P<more>more \w))"
    r"|, (?=(?P<but>never (?!(?:was|were|had|have|will|would|mind)\b)\w))",
    re.IGNORECASE,
)
"""Where a second rule begins in a sentence."""
_ORDERS = re.compile(
    rf"(?:please |always |and |but )*(?:{SUBJECT} (?:must|should|shall|has to|have to|needs? to)\b|(?:i|we) want\b"
    r"|(?!(?:it|they|you|an?|the|this|that|these|those|its?|he|she|we|i|my|our|your|their|in|on|at|for|if|when|as)\b)"
    r"(?!\w+(?<!s)(?:s|ed|ing)\b)(?!.*\b(?:is|are|was|were|has|have|had|does|did)\b)[a-z]+\b)",
    re.IGNORECASE,
)
"""How a sentence begins that may tell somebody what to do."""
_BEGINS_NO = re.compile(r"(?:and |but |please )*(?:never|no|not|do not|don['’]?t|avoid|without|stop)\b", re.IGNORECASE)
_HANGS = re.compile(
    rf"(?:and |but |,|please )*(?:(?:never|do not|don['’]?t|must not|should not) {LOSE}"
    r"|keep (?:it|that|this|them|things) (?:that way|up|so|as)\b"
    r"|(?:[^.]{0,40} )?(?:it|them|that|those|these|this)\W*$)",
    re.IGNORECASE,
)
"""How a part begins or ends that says more about the one before."""
_OF_SOMEBODY = re.compile(
    r"\b(?:who|which|that|where|when|if|because|they|we|users?|people|customers)\b", re.IGNORECASE
)
_UNDER_CONDITION = re.compile(
    r"(?:when|whenever|if|where|for|in|on|with|at|as|before|after|unless)\b[^,:]*,", re.IGNORECASE
)


class Sentence(NamedTuple):
    """A sentence of a spec in its place."""

    text: str
    """What it says, in one line."""
    kind: Literal["prose", "bullet"]
    """Where it stands."""
    lead: str
    """The heading above it, or the words that lead to it."""
    order: int = 0
    """Number of sentences before it."""
    listed: bool = False
    """Whether the spec has bullets anywhere, so that its prose is likelier to be background."""
    signed: bool = False
    """Whether it belongs to the signature below the spec, which asks for nothing."""


def spec_sentences(body: str) -> list[Sentence]:
    """Return the sentences of a Markdown text in order; headings and code hold none, but headings lead to some."""
    found: list[Sentence] = []
    heading = ""
    leads: list[tuple[float, str]] = []
    body, signature = cut_signature(_COMMENT.sub(lambda met: met["code"] or "", body))
    blocks = _blocks(body)
    listed = any(block.kind == "bullet" for block in blocks)
    for block, after in zip(blocks, [*blocks, None][1:], strict=True):
        text, kind = block.text, block.kind
        if kind == "heading" or (kind == "prose" and len(text) < SHORT_LEAD and _is_bold_line(text)):
            heading, leads = text.strip("*_#:. "), []
            continue
        if kind == "prose":
            leads = []
        elif after is not None and after.kind == "bullet" and _is_list_label(text):
            place = block.indent if after.indent > block.indent else block.indent - 0.5
            leads = [lead for lead in leads if lead[0] < block.indent - 0.5] + [(place, without_emphasis(text))]
            continue
        leads = [lead for lead in leads if lead[0] < block.indent]
        above = leads[-1][1] if leads else heading
        lead, rest = above, text
        own = None if _BOLD_RULE.match(text) else _BOLD_LEAD.match(text)
        if own:
            lead, rest = own[1], text[own.end() :]
        parts = list(_parts(rest))
        if own and parts and (not names_something(without_emphasis(parts[0])) or SAYS_OF_LABEL.match(parts[0])):
            lead, parts[0] = above, text[: own.end()] + parts[0]
        for part in parts:
            found.append(Sentence(part, "bullet" if kind == "bullet" else "prose", lead, len(found), listed))
        if kind == "prose" and parts and parts[-1].endswith(":"):
            leads = [(-1.0, parts[-1])]
    signed = [" ".join(line.split()) for line in signature.splitlines() if re.search(r"\w", line)]
    return found + [Sentence(line, "prose", "", len(found) + i, listed, True) for i, line in enumerate(signed)]


class _Block(NamedTuple):
    """A heading, a paragraph or a bullet, in one line."""

    text: str
    kind: str
    indent: int
    """Columns before a bullet."""


def _blocks(body: str) -> list[_Block]:
    """Split Markdown into headings, paragraphs and bullets, each in one line; code goes, if it is not most of the text.

    A paragraph whose lines were not wrapped is a list without bullets: each line stands alone. So does each row of a
    table, without its head.
    """
    prose = _FENCED.sub("", body)
    body = prose if 2 * len(prose) >= len(body) else _FENCE.sub("", body)
    blocks: list[tuple[list[str], str, int]] = []
    fresh = True
    for line in body.splitlines():
        heading = _HEADING.match(line)
        if _TABLE_LINE.fullmatch(line):
            blocks = blocks[:-1] if blocks and blocks[-1][1] == "row" else blocks
            continue
        if row := _TABLE_ROW.fullmatch(line):
            blocks.append(([" | ".join(cell.strip() for cell in row[1].split("|"))], "row", 0))
            fresh = True
            continue
        bullet = BULLET.match(line)
        label = not fresh and blocks[-1][1] == "bullet" and not bullet and _is_label(line)
        if heading or label or not line.strip() or _RULE_LINE.fullmatch(line):
            blocks += [([heading[1] if heading else line], "heading", 0)] if heading or label else []
            fresh = True
        elif fresh or bullet:
            indent = len(line.expandtabs(4)) - len(line.expandtabs(4).lstrip())
            blocks.append(([BULLET.sub("", line).strip()], "bullet" if bullet else "prose", indent if bullet else 0))
            fresh = False
        else:
            blocks[-1][0].append(line.strip())
    laid = (
        (*each, indent)
        for lines, kind, indent in blocks
        for each in (_by_line(lines) if kind == "prose" else [(lines, kind)])
    )
    joined = ((" ".join(" ".join(lines).split()), kind, indent) for lines, kind, indent in laid)
    return [_Block(text, "bullet" if kind == "row" else kind, indent) for text, kind, indent in joined]


def _by_line(lines: list[str]) -> Iterator[tuple[list[str], str]]:
    """Yield the blocks of a paragraph: itself if it was wrapped, else each line, labels as headings."""
    longest = max(map(len, lines))
    narrow = longest <= NARROW and not any(_END.search(line) for line in lines)
    if len(lines) < 2 or not (narrow or min(map(len, lines[:-1])) < RAGGED * longest):
        yield lines, "prose"
        return
    ended = sum(line.endswith((".", "!", "?")) for line in lines)
    kind = "bullet" if 2 * ended < len(lines) else "prose"
    shouted = _is_short(lines[0]) and lines[0].isupper() and not lines[1].isupper()
    for at, line in enumerate(lines):
        yield [line], "heading" if _is_label(line) or (at == 0 and shouted) else kind


def _is_label(line: str) -> bool:
    """Whether a line without a blank one behind it is the heading of what follows."""
    text = line.strip()
    return _is_short(text) and (text.endswith(":") or _is_bold_line(text))


def _is_list_label(text: str) -> bool:
    """Whether a bullet only leads to the bullets below it ("Avoid:")."""
    return without_emphasis(text).endswith(":") and len(list(_parts(text))) == 1


def _is_bold_line(text: str) -> bool:
    return _BOLD_LINE.fullmatch(text) is not None and not _BOLD_RULE.fullmatch(text)


def _is_short(line: str) -> bool:
    return len(line.split()) <= LABEL_WORDS


def _parts(text: str) -> Iterator[str]:
    """Yield the sentences of a block; quotations and brackets hold together."""
    start = 0
    quoted = [match.span() for match in SINGLE.finditer(text)]
    for end in _END.finditer(text):
        part = text[start : end.end()]
        whole = part.strip(" —–")
        unclosed = part.count("(") > part.count(")") or part.count('"') % 2 or part.count("“") > part.count("”")
        unclosed = unclosed or any(opens < end.start() and end.end() < closes for opens, closes in quoted)
        aside = whole.endswith((")", '"', "”", "'", "’")) and text[end.end() : end.end() + 1].islower()
        aside = aside or (whole.endswith(";") and not _OF_ITS_OWN.match(text, end.end()))
        if not (unclosed or aside or len(whole) < 4 or _ABBREVIATION.search(whole)):
            yield from _single_rules(whole)
            start = end.end()
    if text[start:].strip():
        yield from _single_rules(text[start:].strip())


def _single_rules(sentence: str) -> Iterator[str]:
    """Yield the rules that a sentence joins where the second goes another way ("be brief and do not use emojis")."""
    start = 0
    for joint in [] if _UNDER_CONDITION.match(sentence) else _SECOND.finditer(sentence):
        head, tail = sentence[start : joint.start()], sentence[joint.end() :]
        negated = _BEGINS_NO.match(head) is not None
        turns = not negated if joint["no"] or joint["but"] else negated or joint["yes"]
        if joint["less"] or joint["more"]:
            turns = re.search(r"\b(?:less|fewer)\b" if joint["more"] else r"\bmore\b", head, re.IGNORECASE) is not None
        open_ended = head.count("(") > head.count(")") or sum(map(head.count, '"“”')) % 2
        of_somebody = "," not in joint[0] and _OF_SOMEBODY.search(head)
        ordered = _ORDERS.match(head) or joint["less"] or joint["more"]
        own = ordered and names_something(head) and names_something(tail) and not _HANGS.match(tail)
        if turns and own and not (open_ended or of_somebody):
            yield head.strip()
            start = joint.end()
    yield sentence[start:].strip()
