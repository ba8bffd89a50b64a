"""Concepts for what a rule asks for and no concept of the data stands for.

They are learnt from examples: sentences that the user gave, those that an LLM wrote for the rule, or the minimal pairs
of the everyday behaviours that the rule names. What is learnt through the main lens decides whether the data teaches
what is asked for, and which new pairs show it; the second lens learns the same examples by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from premortem.interp.by_example import FOLDS, SEEN, Examples, Learnt, learn, planted
from premortem.interp.forecast import NamedReadout, Reading, as_concept
from premortem.interp.names import Vocabulary
from premortem.interp.readout import Part, Readout
from premortem.interp.records import LEAST_EXAMPLES, Clause, Content
from premortem.interp.scope import is_conditional
from premortem.interp.words import words
from premortem.tools.authored import changed_part
from premortem.tools.evidence import names, own_words, sentences_given
from premortem.tools.workbench import Workbench

MANNERS = frozenset(
    words(
        "accurate appropriate balanced brief calm careful casual cheerful clear comprehensive concise "
        "confident consistent constructive correct courteous creative detailed direct empathetic encouraging "
        "engaging factual formal friendly gentle honest humble humorous impartial informal informative "
        "literal measured modest neutral nice objective patient playful pleasant polite precise professional "
        "readable relaxed relevant reliable respectful sensible serious simple sober structured supportive "
        "tactful terse thorough transparent truthful"
    )
)
"""Words for how something is said, which say little else."""
OF_ANSWERS = frozenset(
    words(
        "complete easy even fair good helpful kind long natural open personal plain positive quick short soft "
        "specific tone true useful warm style manner voice language wording tones length answer answers reply "
        "replies response responses"
    )
)
"""Words that say how an answer is to be where nothing else is named."""
SEEN_SECOND = 0.1
"""Share of the data's responses that may look like the behaviour to the second lens, which only judges."""
SPEAKS = 0.5
"""Share of an LLM's sentences with a word of MANNERS from which they speak of a manner instead of showing anything."""


class Example(NamedTuple):
    """A response with what is asked for, and the same without it."""

    number: int
    """Which example it is made of; those of one number stay together."""
    prompt: Content
    shown: str
    absent: str


def asked_for(bench: Workbench, clause: Clause) -> NamedReadout | None:
    """Return a concept of what `clause` asks for, learnt from examples; None without any, or where the lens fails.

    None for a wish under a condition: it would be measured, and taught, where nobody wants it. The bench keeps the
    examples for the second lens.
    """
    if is_conditional(clause):
        return None
    made = examples_of(bench, clause)
    learnt = learnt_from(bench, made)
    if learnt is None or learnt.seen > SEEN:
        return None
    named = _named(bench, clause, made, learnt.readout)
    bench.by_example[named.concept.concept_id] = partial(_second, bench, made)
    return named


def learnt_from(bench: Workbench, made: Sequence[Example]) -> Learnt | None:
    """Return what examples teach the main lens; None where they teach nothing."""
    return _learn(bench, made, bench.main.lens_id, bench.reading)


def _second(bench: Workbench, made: Sequence[Example], second: Reading) -> Readout:
    """Return what the second lens makes of the examples; where it cannot tell them, a readout that never fires."""
    learnt = _learn(bench, made, second.lens_id, second)
    return learnt.readout if learnt is not None and learnt.seen <= SEEN_SECOND else Readout(Part(), Part(), 0.0)


def examples_of(bench: Workbench, clause: Clause) -> list[Example]:
    """Return the examples of a clause from the first source that has enough; empty: none has."""
    if sentences := example_sentences(bench, clause):
        return _planted(bench, sentences)
    known = [pair for one in bench.behaviours.values() if names(clause, one) for pair in one.pairs]
    return [Example(number, pair.prompt, pair.shown, pair.absent) for number, pair in enumerate(known)]


def example_sentences(bench: Workbench, clause: Clause) -> list[str]:
    """Return sentences that show what a clause asks for: the user's, or else an LLM's; none where they are too few.

    An LLM's do not count for a manner: no single sentence is brief or friendly, and what it writes speaks of it.
    """
    written = bench.contrasts.get(clause.clause_id)
    told = [changed_part(pair.absent, pair.shown) for pair in written.pairs] if written is not None else []
    if is_manner(clause) or speaks_of_manner(told):
        told = []
    enough = (sentences for sentences in (sentences_given(clause), told) if len(sentences) >= LEAST_EXAMPLES)
    return next(enough, [])


def is_manner(clause: Clause) -> bool:
    """Whether all that a clause names is how answers are written, not what they say."""
    named = [word.lower() for word in own_words(clause)]
    return bool(named) and all(word in MANNERS | OF_ANSWERS or word.removesuffix("ly") in MANNERS for word in named)


def speaks_of_manner(sentences: Sequence[str]) -> bool:
    """Whether sentences that should show something speak of a manner instead: "Always be clear and polite."."""
    spoken = [bool(MANNERS & {word.lower() for word in words(sentence)}) for sentence in sentences]
    return bool(spoken) and sum(spoken) >= SPEAKS * len(spoken)


def _planted(bench: Workbench, sentences: Sequence[str]) -> list[Example]:
    pairs = bench.readable
    made = planted(sentences, [pair.text("chosen") for pair in pairs], bench.settings.seed)
    return [Example(number, pairs[at].prompt, shown, absent) for number, at, shown, absent in made]


def _learn(bench: Workbench, made: Sequence[Example], lens_id: str, reading: Reading) -> Learnt | None:
    n_parts = min(len({one.number for one in made}), FOLDS)
    read = []
    for part in range(n_parts):
        own = [one for one in made if one.number % n_parts == part]
        both = ([(one.prompt, one.shown) for one in own], [(one.prompt, one.absent) for one in own])
        read.append(Examples(*(bench.reader.encode_texts(texts, bench.progress)[lens_id] for texts in both)))
    return learn(read, reading.learner)


def _named(bench: Workbench, clause: Clause, made: Sequence[Example], readout: Readout) -> NamedReadout:
    """Name a concept by the words that examples with it have and those without lack; half of them test the name."""
    numbers = np.asarray([one.number for one in made])
    texts = [one.shown for one in made] + [one.absent for one in made]
    vocabulary = Vocabulary(texts, np.concatenate([numbers, numbers]))
    name = vocabulary.name(np.arange(len(texts)) < len(made))
    return as_concept(bench.main.lens_id, readout, name, clause.clause_id, f"{readout.threshold:.4f}")
