"""What the everyday behaviours that a clause names say about each response.

Each behaviour of the library is a set of minimal pairs, with the behaviour and without. The lens reads both, a readout
is fitted to tell them apart, and it is then applied to the user's responses. A behaviour that has a pattern (a web
address, an emoji) is marked by it instead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from premortem.interp.matching import Evidence, phrase_pattern, stem
from premortem.interp.one_sided import sharpest_marks
from premortem.interp.readout import Bag, bag_of
from premortem.interp.records import LEAST_EXAMPLES, LEAST_WORDS, Clause, Content
from premortem.interp.words import spaced
from premortem.prompts.behaviours import Behaviour
from premortem.tools.workbench import Workbench

CONTRAST = "contrast"
"""Id of the behaviour that somebody wrote for one clause: a few examples, which name nothing by themselves."""
TOP_SHARE = 0.1
"""Share of responses that an everyday behaviour may mark at most."""


def named_behaviours(bench: Workbench, clause: Clause) -> list[Evidence]:
    """Return what each everyday behaviour that the clause names says, or else its own contrastive examples.

    A few examples that somebody has just written are no match for the library's.
    """
    own = None if bench.knows(clause) else bench.contrasts.get(clause.clause_id)
    return ([] if own is None else [evidence(bench, own)]) + [
        evidence(bench, behaviour) for behaviour in bench.behaviours.values() if names(clause, behaviour)
    ]


def names(clause: Clause, behaviour: Behaviour) -> bool:
    """Whether a word of the clause's behaviour is one of the behaviour's synonyms, by stem."""
    phrase = f" {' '.join(stem(word) for word in re.findall(r'[a-z]+', clause.behaviour.lower()))} "
    return any(
        f" {' '.join(stem(word) for word in synonym.lower().split())} " in phrase for synonym in behaviour.synonyms
    )


def evidence(bench: Workbench, behaviour: Behaviour) -> Evidence:
    """Return which of the data's responses show `behaviour`.

    A readout of minimal pairs ranks the data's responses well but its threshold does not carry over to them: it is put
    where the pairs are most one-sided.
    """
    if behaviour.pattern:
        pattern = re.compile(behaviour.pattern)
        marks = np.asarray([bool(pattern.search(text)) for text in bench.texts.responses])
        return Evidence(behaviour.id, marks, literal=True, examples=examples(bench, behaviour))
    responses = bench.reading.whole
    pairs = examples(bench, behaviour)
    scores = bench.reading.learner.fit_pairs(pairs).score(responses.bag)
    marks = sharpest_marks(scores, responses, TOP_SHARE)
    return Evidence(behaviour.id, marks, literal=behaviour.id != CONTRAST, scores=scores, examples=pairs)


def examples(bench: Workbench, behaviour: Behaviour) -> Bag:
    """Return the behaviour's minimal pairs through the main lens: those that show it, then those that do not."""
    texts = [(pair.prompt, pair.shown) for pair in behaviour.pairs]
    texts += [(pair.prompt, pair.absent) for pair in behaviour.pairs]
    return bag_of(bench.reader.encode_texts(texts)[bench.main.lens_id])


def given_examples(bench: Workbench, clause: Clause) -> Bag | None:
    """Return the sentences that the user gave as examples of a clause, as answers through the main lens.

    None where they are too few to say anything; words and short phrases are for the letter alone.
    """
    sentences = sentences_given(clause)
    return _spoken(bench, sentences) if len(sentences) >= LEAST_EXAMPLES else None


def sentences_given(clause: Clause) -> list[str]:
    """Return those of a clause's examples that are sentences."""
    return [example for example in clause.examples if len(spaced(example).split()) >= LEAST_WORDS]


def spoken_clauses(bench: Workbench, clauses: Sequence[Clause]) -> Bag:
    """Return the own words of each clause, then the behaviour of each, as answers through the main lens."""
    return _spoken(
        bench, [" ".join(own_words(clause)) for clause in clauses] + [clause.behaviour for clause in clauses]
    )


def own_words(clause: Clause) -> list[str]:
    """Return the words of a clause that stand in its text; an LLM may have added others, which say what it thinks of.

    All of them where none stands there.
    """
    return [word for word in clause.words if re.search(phrase_pattern(word), clause.text, re.IGNORECASE)] or list(
        clause.words
    )


def spoken_library(bench: Workbench) -> Bag:
    """Return what rules are usually about: names and descriptions of the everyday behaviours, said in the same way."""
    known = bench.behaviours.values()
    return _spoken(bench, [" ".join(one.synonyms) for one in known] + [one.description for one in known])


def _spoken(bench: Workbench, texts: Sequence[str]) -> Bag:
    words = "Give an example."
    templated = bench.reader.model.tokenizer.chat_template is not None
    asked: Content = ({"role": "user", "content": words},) if templated else f"{words}\n\n"
    return bag_of(bench.reader.encode_texts([(asked, text) for text in texts])[bench.main.lens_id])
