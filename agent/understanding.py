"""What an LLM understands of a spec and of concepts: rules read with care, examples of a behaviour, names that hold.

The built-in reader goes by cue words; an LLM reads the sentences. It says which of them are rules, what each is about,
and which cannot be checked or contradict each other. A rule read the wrong way round
would be worse than none, so words that leave no doubt ("never", "keep") decide on the direction, and where there are
none, the LLM must read it the same way twice. For each rule it writes contrastive
examples; the lens reads those, so that what stands for the rule is found in the model's own terms. It names the
concepts of the findings, and each name is put to the test on passages that took no part in finding it.

Answers that cannot be used leave things as the built-in reader has them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Literal

from pydantic import Field

from premortem.agent.asking import Asker, Question
from premortem.agent.spec import Spec, clause_from, sentences_of
from premortem.agent.spec.problems import find_problems
from premortem.agent.spec.words import content_words, names_something
from premortem.interp.errors import LlmError
from premortem.interp.records import Clause, Direction, Record
from premortem.interp.sentences import put_into
from premortem.prompts.behaviours import Behaviour, Contrast, load_behaviours
from premortem.prompts.rendering import load_prompt

NEGATION = re.compile(r"^(?:not|no|never|without|avoiding|avoid)\b[\s:,]*", re.IGNORECASE)
CONTRASTS = 6
"""Contrastive examples per rule, at most."""
LONGEST_CONTRAST = 300
"""Characters of the sentence that makes one, at most."""
MOST_SAID = 8
"""Sentences of one answer, where the endpoint can be held to it."""
ENOUGH_CONTRASTS = 4
"""With fewer the LLM is asked for others."""
LEAST_CONTRASTS = 3
"""Fewer teach the lens nothing."""
WORDS = 8
"""Words that examples may add to a clause."""
NAME_PASSES = 0.8
"""Share of held-out choices between a passage with the concept and its opposite that a name must get right."""
MOST_SENTENCES = 120
"""A longer spec is left to the built-in reader."""


class RuleRead(Record):
    """Answer to the prompt `read_rule`."""

    is_rule: bool
    """Whether the sentence says what answers should or should not do."""
    behaviour: str
    """What an answer would show, without negation."""
    direction: Direction
    """What is asked for."""
    scope: str
    """When it applies; empty: always."""
    limit_percent: float | None
    """Share of answers that may break it, in per cent; null: the sentence names none."""


class DirectionRead(Record):
    """Answer to the prompt `check_direction`."""

    wanted: Literal["yes", "no"]
    """Whether the rule asks for the behaviour."""


class ContrastRead(Record):
    """Answer to the prompt `contrast`."""

    sentences: list[str] = Field(min_length=1, json_schema_extra={"maxItems": MOST_SAID})
    """Sentences with the behaviour; a small model that may write any number goes on for ever."""


class NameRead(Record):
    """Answer to the prompt `name_concept`."""

    name: str = Field(min_length=2)
    """The name."""


class ChoiceRead(Record):
    """Answer to the prompt `test_name`."""

    which: Literal["first", "second"]
    """The passage that the name fits better."""


class LinkRead(Record):
    """Answer to the prompt `link_rule`."""

    shared: str
    """What the passages have in common."""
    rule: int = Field(ge=0)
    """Number of the rule that is about it, from 1; 0: none."""


class ClustersRead(Record):
    """Answer to the prompt `describe_clusters`."""

    descriptions: list[str]
    """One phrase per cluster."""


class Reading(Record):
    """A spec as it was understood."""

    clauses: tuple[Clause, ...]
    """Its rules."""
    problems: tuple[str, ...] = ()
    """What the user should mend in it, one sentence each."""


class TestedName(Record):
    """A name and how it did."""

    name: str
    """The name."""
    score: float
    """Share of held-out choices that it got right, 0 to 1; 0.5 is chance."""

    @property
    def tested(self) -> bool:
        """Whether it passed."""
        return self.score >= NAME_PASSES


def read_rules(asker: Asker, spec: Spec) -> Reading:
    """Return the rules of `spec` as the LLM reads them; what it misreads stays as the built-in reader has it.

    A sentence that only the LLM takes for a rule must be read the same way twice.
    """
    sentences = sentences_of(spec)
    if not 0 < len(sentences) <= MOST_SENTENCES:
        return Reading(clauses=spec.clauses)
    prompt = load_prompt("read_rule")
    asked = [prompt.render(before=b, sentence=s) for b, s in zip(["", *sentences], sentences, strict=False)]
    answers = asker.ask_all([Question.of("read_rule", rendered, 400) for rendered in asked], RuleRead)
    read = {
        sentence: _without_negation(answer)
        for sentence, answer in zip(sentences, answers, strict=True)
        if not isinstance(answer, LlmError) and answer.is_rule and names_something(answer.behaviour)
    }
    built_in = {clause.text: clause for clause in spec.clauses}
    other = _confirmed(asker, {s: r for s, r in read.items() if _has_the_word(r, built_in.get(s))})
    clauses = [
        clause
        for sentence in sentences
        if (clause := _clause(sentence, read.get(sentence), built_in.get(sentence), sentence in other, spec))
    ]
    distinct = _distinct(clauses, built_in)
    problems = find_problems(asker, [clause.text for clause in distinct])
    return Reading(clauses=distinct, problems=problems)


def shown_by(clause: Clause) -> str:
    """Return what an answer shows that has the clause's behaviour; empty: nobody has said.

    The rule's own words say most, except where they are negated.
    """
    return clause.about if clause.direction == "avoid" else clause.behaviour


def write_contrasts(asker: Asker, clauses: Sequence[Clause]) -> dict[str, Behaviour]:
    """Return contrastive examples for each clause, by clause_id; a clause without usable ones is left out.

    Clauses of which nobody has said what they forbid get none. The LLM writes single sentences; each is put into one
    of the library's plain answers to everyday questions, at its end or behind its first sentence. Nothing else about
    the answer changes, so what the lens sees in the difference is the behaviour. (Asked to change whole answers, a
    small model repeats them.)
    """
    plain = [behaviour.pairs[0] for behaviour in load_behaviours()]
    prompt = load_prompt("contrast")
    asked = [clause for clause in clauses if shown_by(clause)]
    questions = [Question.of("contrast", prompt.render(behaviour=shown_by(clause)), 400) for clause in asked]
    said: list[dict[str, None]] = [{} for _ in asked]
    models = {text for example in prompt.examples for text in example["answer"]["sentences"]}
    asker.ask_all(questions, ContrastRead, [_collecting(sentences, models) for sentences in said])
    return {
        clause.clause_id: _behaviour(
            clause, [_put_into(plain[at % len(plain)], text, at) for at, text in enumerate([*sentences][:CONTRASTS])]
        )
        for clause, sentences in zip(asked, said, strict=True)
        if len(sentences) >= LEAST_CONTRASTS
    }


def _collecting(sentences: dict[str, None], models: Set[str]) -> Callable[[ContrastRead], None]:
    """Return a check that adds the sentences of each answer to `sentences` and refuses one while they are too few.

    A small model repeats itself, or copies the prompt's `models`, which show other behaviours; asked again it writes
    others.
    """

    def check(answer: ContrastRead) -> None:
        said = [" ".join(text.split()) for text in answer.sentences]
        sentences.update((text, None) for text in said if 0 < len(text) <= LONGEST_CONTRAST and text not in models)
        if len(sentences) < ENOUGH_CONTRASTS:
            what = "is yours" if models & {*said} else "of the sentences differ"
            raise ValueError(f"only {len(sentences)} {what}; write other ones, on other subjects")

    return check


def _put_into(plain: Contrast, sentence: str, at: int) -> Contrast:
    """Return the plain answer with and without `sentence`: at its end where `at` is even, else near its beginning."""
    shown = put_into(plain.absent, sentence, late=at % 2 == 0)
    return Contrast.model_validate({"prompt": plain.prompt, "with": shown, "without": plain.absent})


def _chosen_rightly(asker: Asker, purpose: str, duels: Sequence[tuple[str, str, str]]) -> list[bool | None]:
    """Return whether the LLM finds the passage that shows what is named, for each (name, showing, lacking).

    None where it gave no usable answer. The two stand first by turns, so that an LLM which always says the same gets
    half of them right.
    """
    prompt = load_prompt("test_name")
    first = [n % 2 == 0 for n in range(len(duels))]
    questions = [
        Question.of(
            purpose,
            prompt.render(name=name, first=on if leads else off, second=off if leads else on),
            100,
        )
        for (name, on, off), leads in zip(duels, first, strict=True)
    ]
    answers = asker.ask_all(questions, ChoiceRead)
    return [
        None if isinstance(answer, LlmError) else (answer.which == "first") == leads
        for answer, leads in zip(answers, first, strict=True)
    ]


def name_concepts(asker: Asker, passages: Mapping[str, tuple[Sequence[str], Sequence[str]]]) -> dict[str, TestedName]:
    """Return a tested name for each concept, by concept_id.

    `passages`: stretches of text in which the concept fires, and as many in which it does not (other passages of the
    same data, the other side's among them). The even ones find the name; the odd ones test it, each against its
    opposite.
    """
    usable = {key: (on, off) for key, (on, off) in passages.items() if min(len(on), len(off)) >= 4}
    prompt = load_prompt("name_concept")
    asked = [prompt.render(passages=list(on[::2]), absent=list(off[::2])) for on, off in usable.values()]
    named = asker.ask_all([Question.of("name_concept", rendered) for rendered in asked], NameRead)
    names = {key: a.name.strip()[:80] for key, a in zip(usable, named, strict=True) if not isinstance(a, LlmError)}
    held_out = {key: (on[1::2], off[1::2]) for key, (on, off) in usable.items()}
    scores = _scores(asker, "test_name", names, held_out)
    return {key: TestedName(name=names[key], score=score) for key, score in scores.items()}


def _scores(
    asker: Asker,
    purpose: str,
    names: Mapping[str, str],
    passages: Mapping[str, tuple[Sequence[str], Sequence[str]]],
) -> dict[str, float]:
    """Return the share of choices between a passage with and one without that each name gets right, by its key.

    A name of which fewer than two choices could be used has none.
    """
    duels = [(key, (name, on, off)) for key, name in names.items() for on, off in zip(*passages[key], strict=False)]
    right = _chosen_rightly(asker, purpose, [duel for _, duel in duels])
    marks: dict[str, list[bool]] = {key: [] for key in names}
    for (key, _), seen in zip(duels, right, strict=True):
        if seen is not None:
            marks[key].append(seen)
    return {key: sum(seen) / len(seen) for key, seen in marks.items() if len(seen) >= 2}


def link_rules(
    asker: Asker, rules: Sequence[Clause], passages: Mapping[str, tuple[Sequence[str], Sequence[str]]]
) -> dict[str, str]:
    """Return which rule (clause_id) is about which concept, for each key of `passages` where one is.

    `passages` are as in `name_concepts`. The even ones find the rule; on the odd ones its behaviour must tell passages
    with the concept from those without, as a name must.
    """
    usable = {key: (on, off) for key, (on, off) in passages.items() if min(len(on), len(off)) >= 4}
    rules = [clause for clause in rules if shown_by(clause)]
    if not rules or not usable:
        return {}
    prompt, texts = load_prompt("link_rule"), [clause.text for clause in rules]
    asked = [prompt.render(passages=list(on[::2]), absent=list(off[::2]), rules=texts) for on, off in usable.values()]

    def one_of_them(answer: LinkRead) -> None:
        if answer.rule > len(rules):
            raise ValueError(f"there are {len(rules)} rules; 0 stands for none")

    questions = [Question.of("link_rule", rendered, 200) for rendered in asked]
    answers = asker.ask_all(questions, LinkRead, [one_of_them] * len(questions))
    thought = {
        key: rules[answer.rule - 1]
        for key, answer in zip(usable, answers, strict=True)
        if not isinstance(answer, LlmError) and answer.rule
    }
    held_out = {key: (on[1::2], off[1::2]) for key, (on, off) in usable.items() if key in thought}
    scores = _scores(asker, "test_link", {key: shown_by(clause) for key, clause in thought.items()}, held_out)
    return {key: thought[key].clause_id for key, score in scores.items() if score >= NAME_PASSES}


def describe_clusters(asker: Asker, prompts: Sequence[Sequence[str]]) -> list[str]:
    """Return one phrase for each cluster of prompts; an empty list where nothing usable came back."""
    if not prompts:
        return []
    rendered = load_prompt("describe_clusters").render(clusters=[list(group) for group in prompts])

    def as_many(answer: ClustersRead) -> None:
        if len(answer.descriptions) != len(prompts):
            raise ValueError(f"there are {len(prompts)} groups, not {len(answer.descriptions)}")

    (found,) = asker.ask_all([Question.of("describe_clusters", rendered)], ClustersRead, [as_many])
    return [] if isinstance(found, LlmError) else [text.strip()[:80] for text in found.descriptions]


def _without_negation(read: RuleRead) -> RuleRead:
    """Return the rule with a behaviour that says what an answer shows: to keep "not lecturing" is to avoid lecturing.

    To avoid "not lecturing" is what small models say when they mean the same.
    """
    behaviour = NEGATION.sub("", read.behaviour).strip()
    if behaviour == read.behaviour.strip():
        return read
    return read.model_copy(update={"behaviour": behaviour, "direction": "avoid"})


def _distinct(clauses: Sequence[Clause], built_in: Mapping[str, Clause]) -> tuple[Clause, ...]:
    """Return the clauses without repeats: a sentence that only the LLM takes for a rule may explain the one before."""
    kept: dict[str, Clause] = {}
    for clause in sorted(clauses, key=lambda clause: clause.text not in built_in):
        about = set(content_words(clause.behaviour))
        if clause.text in built_in or not any(about <= set(other.words) for other in kept.values()):
            kept.setdefault(clause.clause_id, clause)
    return tuple(clause for clause in clauses if kept.get(clause.clause_id) is clause)


def _agree(read: RuleRead, clause: Clause) -> bool:
    return (read.direction == "avoid") == (clause.direction == "avoid")


def _has_the_word(read: RuleRead, built_in: Clause | None) -> bool:
    """Whether the LLM's direction could stand against the built-in reader's.

    Words such as "never" and "keep" leave no doubt. An "encourage" is what the built-in reader makes of a mere
    "should", and a sentence without any cue it takes for no rule; a "keep" there is a description.
    """
    if built_in is None:
        return read.direction != "keep"
    return built_in.direction == "encourage" and read.direction == "avoid"


def _confirmed(asker: Asker, read: Mapping[str, RuleRead]) -> set[str]:
    """Return the sentences whose direction the LLM reads the same way in a second question."""
    prompt = load_prompt("check_direction")
    asked = [prompt.render(rule=sentence, behaviour=rule.behaviour) for sentence, rule in read.items()]
    answers = asker.ask_all([Question.of("check_direction", rendered, 200) for rendered in asked], DirectionRead)
    return {
        sentence
        for (sentence, rule), answer in zip(read.items(), answers, strict=True)
        if not isinstance(answer, LlmError) and (answer.wanted == "no") == (rule.direction == "avoid")
    }


def _limit(sentence: str, read: RuleRead) -> float | None:
    """Return the share of answers that the LLM says may break the rule, where the sentence itself gives it."""
    share = read.limit_percent
    if not share or not 0 < share < 100 or read.direction == "encourage":
        return None
    answers = "of (?:the |all |our |its )?(?:answers|responses|replies|cases|time)"
    named = rf"(?<![\d.,]){share:g}\s?(?:%|percent|per cent) {answers}"
    return share / 100 if re.search(named, sentence, re.IGNORECASE) else None


def _scope(sentence: str, read: RuleRead, built_in: Clause | None) -> str:
    """Return the rule's condition as the LLM read it, if the sentence says so, else as the built-in reader did."""
    if built_in is None or (read.scope.strip() and read.scope.lower() in sentence.lower()):
        return read.scope
    return built_in.scope


def _clause(
    sentence: str, read: RuleRead | None, built_in: Clause | None, llm_decides: bool, spec: Spec
) -> Clause | None:
    """Return the clause of a sentence; behaviour and direction always come from the same reader."""
    if read is None or (built_in is None and not llm_decides):
        return built_in
    limit = _limit(sentence, read)
    clause = clause_from(
        sentence,
        spec.front,
        behaviour=read.behaviour if built_in is None or llm_decides else built_in.behaviour,
        direction=read.direction if built_in is None or llm_decides else built_in.direction,
        scope=_scope(sentence, read, built_in),
        limit=limit,
    )
    if not _agree(read, clause):  # its words are about the opposite
        return clause
    words = (*clause.words, *content_words(read.behaviour))
    return clause.model_copy(update={"words": tuple(dict.fromkeys(words)), "about": read.behaviour})


def _behaviour(clause: Clause, contrasts: Sequence[Contrast]) -> Behaviour:
    """Return the examples as a behaviour of the kind that the library holds.

    Its synonyms are words that half of the examples have gained and none had before; no contractions, which stand in
    any sentence.
    """
    before = {word for one in contrasts for word in content_words(one.absent)}
    gained = Counter(word for one in contrasts for word in content_words(one.shown) if word not in before)
    least = max(2, (len(contrasts) + 1) // 2)
    words = tuple(word for word, n in gained.most_common(WORDS) if n >= least and "'" not in word and "’" not in word)
    return Behaviour(
        id="contrast", description=clause.behaviour, synonyms=words or (clause.behaviour,), pairs=tuple(contrasts)
    )
