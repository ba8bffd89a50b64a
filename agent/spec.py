"""The model spec: Markdown in the user's own words, read into clauses.

Each sentence or bullet that says what answers should or should not do becomes a `Clause`. Reading is deliberately
plain: cue words give the direction ("never", "always", "keep"), prepositions open the scope, a percentage is the
limit, quoted phrases are examples, and what is left are the words of the behaviour. Which concepts of the data a
clause stands for is not decided here: the lens finds them (`interp.matching`). YAML front matter may set the data, the
model, the lens, limits and detectors; without any, the prose alone works.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from premortem.interp.errors import SpecError
from premortem.interp.records import Clause, Direction, content_id

AVOID = re.compile(
    r"\b(never|not|n't|no|avoid|without|stop|refrain|forbid|forbidden|less|fewer|rather than|instead of|nothing|"
    r"should ?n[o']t|must ?n[o']t|do ?n[o']t|does ?n[o']t|cannot|can't|may not|mustn't)\b",
    re.IGNORECASE,
)
KEEP = re.compile(
    r"\b(keep|keeps|continue|continues|still|remain|remains|stay|stays|maintain|preserve|go on)\b", re.IGNORECASE
)
ENCOURAGE = re.compile(
    r"\b(always|should|must|encourage|prefer|more|please|make sure|ensure|use|include|give|add|aim)\b",
    re.IGNORECASE,
)
SCOPE = re.compile(
    r"\b((?:when|whenever|if|unless|even (?:when|if)|above all|especially|except|in (?:answers?|replies|response)|"
    r"on (?:health|medical|legal|sensitive|topics|questions)|about (?:health|medical|legal))\b.*)$",
    re.IGNORECASE | re.DOTALL,
)
PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*(?:%|percent|per cent)", re.IGNORECASE)
QUOTED = re.compile(r"[\"“]([^\"“”]{2,120})[\"”]|`([^`]{2,120})`")
BULLET = re.compile(r"^\s*(?:[-*+•]|\d+[.)])\s+")
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
    ensure include prefer remain stay text sort sorts avoided dressed everywhere anywhere instead""".split()
)
DEFAULT_LIMIT = 0.01
"""Tolerated change in the share of responses, where a clause names none."""


class FrontMatter(BaseModel):
    """What the YAML block of a spec may set; every key is optional."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str | None = None
    """The preference data, relative to the spec's folder."""
    model: str | None = None
    """The model to be trained: `smollm2`, a folder or a hub id."""
    sae: str | None = None
    """The SAE: a folder, or RELEASE:SAE_ID of sae-lens."""
    second_sae: str | None = None
    """The SAE of the lens that judges the edits."""
    llm: str | None = None
    """The LLM that plans and rewrites."""
    limit: float | None = None
    """Limit of the clauses that name none, as a share from 0 to 1."""
    limits: dict[str, float] = {}
    """Limits by a word or phrase of the clause."""
    detectors: dict[str, str] = {}
    """Regular expressions by a word or phrase of the clause they belong to."""


class Spec(BaseModel):
    """A spec, read."""

    model_config = ConfigDict(frozen=True)

    text: str
    """The file's text."""
    front: FrontMatter
    """Its front matter."""
    clauses: tuple[Clause, ...]
    """Its rules, in order."""
    unread: tuple[str, ...] = ()
    """Bullets that say neither what answers should nor what they should not do, as far as could be told."""


def read_spec(path: Path, rules_needed: bool = True) -> Spec:
    """Read the spec at `path`; `rules_needed` as in `parse_spec`.

    Raises:
        SpecError: the file is missing or not UTF-8, the front matter has unknown keys, or no rule is found.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise SpecError(f"{path}: no such file; write your rules in plain language there") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    return parse_spec(text, str(path), rules_needed)


def parse_spec(text: str, source: str = "spec", rules_needed: bool = True) -> Spec:
    """Read a spec from its text; raises SpecError as `read_spec` does.

    `rules_needed`: whether a text in which no cue word gives a rule away is an error; an LLM may still find some.
    """
    front, body = _front_matter(text, source)
    found, unread = rules(body)
    clauses = tuple(_clause(rule, front) for rule in found)
    if not clauses and rules_needed:
        raise SpecError(f"{source}: no rule found; say what answers should or should not do, one sentence per rule")
    distinct = tuple({clause.clause_id: clause for clause in clauses}.values())
    return Spec(text=text, front=front, clauses=distinct, unread=tuple(unread))


def _front_matter(text: str, source: str) -> tuple[FrontMatter, str]:
    match = re.match(r"---\s*\n(.*?)\n---\s*(?:\n|$)", text, re.DOTALL)
    if not match:
        return FrontMatter(), text
    try:
        values: Any = yaml.safe_load(match[1]) or {}
        front = FrontMatter.model_validate(values)
    except yaml.YAMLError as error:
        raise SpecError(f"{source}: the front matter is not valid YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "front matter"
        raise SpecError(f"{source}: front matter, {where}: {first['msg']}") from error
    for name, pattern in front.detectors.items():
        try:
            re.compile(pattern)
        except re.error as error:
            raise SpecError(f"{source}: detector '{name}' is not a regular expression: {error}") from error
    return front, text[match.end() :]


def rules(body: str) -> tuple[list[str], list[str]]:
    """Return the sentences of `body` that say what answers should or should not do, and the bullets without any."""
    found: list[str] = []
    unread: list[str] = []
    for block, bullet in _blocks(body):
        text = " ".join(block.split())
        sentences = [text] if len(text) < 40 else _sentences(text)
        told = [sentence for sentence in sentences if direction_of(sentence) is not None]
        found += told
        unread += [text] if bullet and not told else []
    return found, unread


def _blocks(body: str) -> list[tuple[str, bool]]:
    """Split Markdown into paragraphs and bullets, the latter marked True; headings, code fences and rules go."""
    body = re.sub(r"```.*?```", "", body, flags=re.DOTALL)
    blocks: list[tuple[str, bool]] = []
    fresh = True
    for line in body.splitlines():
        if not line.strip() or line.lstrip().startswith("#") or re.fullmatch(r"\s*[-*_]{3,}\s*", line):
            fresh = True
        elif fresh or BULLET.match(line):
            blocks.append((BULLET.sub("", line), BULLET.match(line) is not None))
            fresh = False
        else:
            blocks[-1] = (f"{blocks[-1][0]} {line.strip()}", blocks[-1][1])
    return blocks


def _sentences(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"(?<=[.!?;])\s+(?=[A-Z\"“*_])", text) if part.strip()]


def direction_of(sentence: str) -> Direction | None:
    """Return what `sentence` asks for: `avoid`, `keep` or `encourage`; None when it is no rule."""
    scope = SCOPE.search(sentence)
    head = sentence[: scope.start()] if scope and scope.start() > 8 else sentence
    keep, avoid, encourage = KEEP.search(head), AVOID.search(head), ENCOURAGE.search(head)
    if keep and re.search(
        r"\b(free|clear) (of|from)\b|\bfrom\b|\bout of\b|\baway\b", head[keep.end() :], re.IGNORECASE
    ):
        return "avoid"
    if keep and not (avoid and avoid.start() < keep.start()):
        return "keep"
    if avoid:
        return "avoid"
    if encourage:
        return "encourage"
    return "encourage" if _imperative(head) else None


def _imperative(sentence: str) -> bool:
    """Whether a sentence opens with a bare verb, as bullets of a spec do ("Answer in plain words")."""
    first = re.match(r"[*_]*([A-Za-z]+)", sentence)
    verbs = (
        "answer reply respond write explain decline refuse cite admit apologise apologize offer show speak begin end "
        "help be tell provide suggest ask stick talk say state describe list summarise summarize point warn check "
        "acknowledge address follow respect treat start finish focus choose quote name mention recommend translate"
    )
    return first is not None and first[1].lower() in verbs.split()


def sentences_of(spec: Spec) -> list[str]:
    """Return all sentences of a spec, rules or not, in order."""
    _, body = _front_matter(spec.text, "spec")
    found: list[str] = []
    for block, _ in _blocks(body):
        text = " ".join(block.split())
        found += [text] if len(text) < 40 else _sentences(text)
    return found


def _clause(rule: str, front: FrontMatter) -> Clause:
    scope = SCOPE.search(rule)
    cut = scope.start() if scope and scope.start() > 8 else len(rule)
    return clause_from(
        rule,
        front,
        behaviour=rule[:cut].strip(" ,;:—-"),
        direction=direction_of(rule) or "avoid",
        scope=rule[cut:].strip(" .") if scope else "",
        limit=None,
    )


def clause_from(
    rule: str, front: FrontMatter, *, behaviour: str, direction: Direction, scope: str, limit: float | None
) -> Clause:
    """Return the clause that a sentence makes, given what it is about; limits of the front matter come first."""
    return Clause(
        clause_id=content_id("clause", rule),
        text=rule,
        behaviour=behaviour,
        direction=direction,
        scope=scope,
        limit=_limit(rule, front) if limit is None or _named_limit(rule, front) is not None else limit,
        words=content_words(behaviour),
        examples=tuple(a or b for a, b in QUOTED.findall(rule)),
        detector=next((p for name, p in front.detectors.items() if name.lower() in rule.lower()), ""),
    )


def _named_limit(rule: str, front: FrontMatter) -> float | None:
    return next((limit for name, limit in front.limits.items() if name.lower() in rule.lower()), None)


def _limit(rule: str, front: FrontMatter) -> float:
    named = _named_limit(rule, front)
    if named is not None:
        return named
    percent = PERCENT.search(rule)
    if percent:
        return float(percent[1]) / 100
    return DEFAULT_LIMIT if front.limit is None else front.limit


def content_words(text: str) -> tuple[str, ...]:
    """Return the words of `text` that may name a behaviour, lower case, in order, without repeats."""
    plain = QUOTED.sub(lambda match: f" {match[1] or match[2]} ", text.lower().replace("’", "'"))
    words = [word.strip("'-") for word in WORD.findall(plain)]
    return tuple(dict.fromkeys(word for word in words if word not in COMMON and not word.endswith("n't")))
