"""The model spec: Markdown in the user's own words, read into clauses.

Each sentence or bullet that says what answers should or should not do becomes a `Clause`. Which ones do, and what they
ask for, `sentences` knows. The rest is plain: a condition at either end is the scope, a percentage is the limit,
quoted phrases are examples, and what is left are the words of the behaviour. Which concepts of the data a
clause stands for is not decided here: the lens finds them (`interp.matching`). YAML front matter may set the data, the
model, the lens, limits, detectors and examples; without any, the prose alone works.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from premortem.agent.spec.layout import spec_sentences
from premortem.agent.spec.limits import PERCENT, told_limit, without_limit
from premortem.agent.spec.negations import UNBIDDEN, behind_negations
from premortem.agent.spec.quotes import examples, swapped
from premortem.agent.spec.rations import halves, rationed
from premortem.agent.spec.sentences import OPENING_SCOPE, SCOPE, WITHOUT, nearly_rules, rules
from premortem.agent.spec.shapes import told_by_shape
from premortem.agent.spec.words import QUOTED, content_words, names_something, without_emphasis
from premortem.interp.errors import SpecError
from premortem.interp.records import Clause, Direction, content_id

_UNBIDDEN = re.compile(rf"\b({UNBIDDEN}.*)$", re.IGNORECASE | re.DOTALL)
DEFAULT_LIMIT = 0.01
"""Tolerated change in the share of responses, where a clause names none."""


LIMIT_MEANS = (
    "limit is the tolerated share of answers, 0 to less than 1: 0.01 or '1%' for one percentage point; how many lines "
    "to read is the command's --limit"
)


def _share(value: Any) -> float:
    """Return a limit of the front matter as a share; raise ValueError where it is none."""
    percent = re.fullmatch(rf"\s*{PERCENT}\s*", value) if isinstance(value, str) else None
    try:
        share = float(percent[1].replace(",", ".")) / 100 if percent else float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{value!r} is no share; {LIMIT_MEANS}") from None
    if not 0 <= share < 1:
        raise ValueError(f"{value!r} would {'tolerate everything' if share >= 1 else 'mean nothing'}; {LIMIT_MEANS}")
    return share


Share = Annotated[float, BeforeValidator(_share)]


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
    limit: Share | None = None
    """Limit of the clauses that name none, as a share from 0 to less than 1."""
    limits: dict[str, Share] = {}
    """Limits by a word or phrase of the clause."""
    detectors: dict[str, str] = {}
    """Regular expressions by a word or phrase of the clause they belong to."""
    examples: dict[str, tuple[str, ...]] = {}
    """Sentences that show the behaviour, by a word or phrase of the clause they belong to."""


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
    """Bullets, and prose that may be meant as a rule, from which none was read."""

    @property
    def unmatched(self) -> tuple[str, ...]:
        """Keys of the front matter's `limits`, `detectors` and `examples` that stand in no rule: they apply to none."""
        named = dict.fromkeys([*self.front.limits, *self.front.detectors, *self.front.examples])
        return tuple(key for key in named if not any(_holds(clause.text, key) for clause in self.clauses))


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

    `rules_needed`: whether a text in which no rule is recognised is an error; an LLM may still find some.
    """
    front, body = _front_matter(text, source)
    clauses: list[Clause] = []
    unread: list[str] = []
    sentences = spec_sentences(body)
    nearly = nearly_rules(sentences)
    for sentence, direction in rules(sentences):
        clause = _clause(sentence.text, direction, front) if direction is not None else None
        if clause is not None and (names_something(clause.behaviour) or clause.examples or clause.detector):
            clauses.append(clause)
        elif sentence.kind == "bullet" or sentence.text in nearly:
            unread.append(sentence.text)
    if not clauses and rules_needed:
        raise SpecError(f"{source}: no rule found; say what answers should or should not do, one sentence per rule")
    distinct = tuple({clause.clause_id: clause for clause in clauses}.values())
    return Spec(text=text, front=front, clauses=distinct, unread=tuple(unread))


def _front_matter(text: str, source: str) -> tuple[FrontMatter, str]:
    match = re.match(r"(?:\s|<!--.*?-->)*---\s*\n(.*?)\n---\s*(?:\n|$)", text, re.DOTALL)
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
        raise SpecError(f"{source}: front matter, {where}: {_what_is_wrong(first)}") from error
    for name, pattern in front.detectors.items():
        try:
            re.compile(pattern)
        except re.error as error:
            raise SpecError(f"{source}: detector '{name}' is not a regular expression: {error}") from error
    return front, text[match.end() :]


def _what_is_wrong(problem: Mapping[str, Any]) -> str:
    """Return what pydantic found, in words for whoever writes a spec."""
    if problem["type"] == "extra_forbidden":
        return f"there is no such key; the keys are {', '.join(FrontMatter.model_fields)}"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    return str(problem["msg"])


def sentences_of(spec: Spec) -> list[str]:
    """Return all sentences of a spec, rules or not, in order."""
    _, body = _front_matter(spec.text, "spec")
    return [sentence.text for sentence, _ in rules(spec_sentences(body))]


def _clause(rule: str, direction: Direction, front: FrontMatter) -> Clause:
    plain = without_limit(without_emphasis(rule))
    told = told_by_shape(plain, direction) or (rationed(plain) if direction == "avoid" else None)
    asked = behind_negations(plain, direction)
    asked = asked if names_something(asked) else plain
    behaviour, scope = told if told and names_something(told[0]) else _scoped(asked, direction)
    unwanted = WITHOUT.search(behaviour)
    if direction == "avoid" and unwanted and (names_something(unwanted["what"]) or QUOTED.search(unwanted["what"])):
        behaviour = unwanted["what"].strip(" .")
    rejected = swapped(behaviour) if direction == "avoid" else None
    if rejected and QUOTED.search(rejected[1]):
        behaviour = rejected[1].strip(" .")
    if direction != "avoid":
        wanted, other = halves(behaviour)
        if names_something(wanted) or QUOTED.search(wanted):
            behaviour = wanted
        elif names_something(other):
            behaviour, direction = other.strip(" ."), "avoid"
    return clause_from(rule, front, behaviour=behaviour, direction=direction, scope=scope, limit=None)


def _scoped(rule: str, direction: Direction) -> tuple[str, str]:
    """Return what a rule is about and its condition, which stands at the end or at the beginning, if there is one."""
    unbidden = _UNBIDDEN.search(rule) if direction == "avoid" else None
    closing, opening = unbidden or SCOPE.search(rule), OPENING_SCOPE.match(rule)
    if closing and names_something(head := rule[: closing.start()].strip(" ,;:—-")):
        return head, closing[1].strip(" .")
    if opening and names_something(rest := rule[opening.end() :]):
        return rest, opening[0].strip(" ,:")
    return rule.strip(" ,;:—-"), ""


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
        limit=_limit(rule, direction, front, limit),
        words=content_words(behaviour),
        examples=(*examples(rule, direction), *_given(rule, front)),
        detector=next((pattern for name, pattern in front.detectors.items() if _holds(rule, name)), ""),
    )


def _given(rule: str, front: FrontMatter) -> Iterator[str]:
    """Yield the sentences that the front matter gives as examples of a rule, empty ones left out."""
    for key, sentences in front.examples.items():
        if _holds(rule, key):
            yield from filter(None, map(str.strip, sentences))


def _holds(rule: str, key: str) -> bool:
    """Whether a key of the front matter stands in a rule, so that what is set for it applies there."""
    return key.lower() in rule.lower()


def _limit(rule: str, direction: Direction, front: FrontMatter, read: float | None) -> float:
    """Return a rule's limit: as the front matter names it, as somebody `read` it, by its own words, or for all."""
    named = next((limit for name, limit in front.limits.items() if _holds(rule, name)), None)
    told = (named, read, told_limit(rule, direction), front.limit)
    return next((limit for limit in told if limit is not None), DEFAULT_LIMIT)
