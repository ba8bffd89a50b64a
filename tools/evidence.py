"""What the everyday behaviours that a clause names say about each response.

Each behaviour of the library is a set of minimal pairs, with the behaviour and without. The lens reads both, a readout
is fitted to tell them apart, and it is then applied to the user's responses. A behaviour that has a pattern (a web
address, an emoji) is marked by it instead.
"""

from __future__ import annotations

import re

import numpy as np

from premortem.interp.discover import sharpest_marks
from premortem.interp.matching import Evidence, stem
from premortem.interp.readout import Readout, Responses, bag_of, fit_readout
from premortem.interp.records import Clause
from premortem.prompts.behaviours import Behaviour
from premortem.tools.workbench import Workbench

TOP_SHARE = 0.1
"""Share of responses that an everyday behaviour may mark at most."""


def named_behaviours(bench: Workbench, clause: Clause) -> list[Evidence]:
    """Return what each everyday behaviour that `clause` names says about the responses."""
    return [evidence(bench, behaviour) for behaviour in bench.behaviours.values() if names(clause, behaviour)]


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
        return Evidence(behaviour.id, marks, literal=True)
    responses = bench.reading.responses
    scores = minimal_pair_readout(bench, behaviour).score(responses.bag)
    return Evidence(behaviour.id, sharpest_marks(scores, responses, TOP_SHARE), literal=True, scores=scores)


def minimal_pair_readout(bench: Workbench, behaviour: Behaviour) -> Readout:
    """Return a readout that tells the behaviour's minimal pairs apart through the main lens."""
    texts = [(pair.prompt, pair.shown) for pair in behaviour.pairs] + [
        (pair.prompt, pair.absent) for pair in behaviour.pairs
    ]
    pooled = bench.reader.encode_texts(texts)[bench.main.lens_id]
    n = len(behaviour.pairs)
    bag = bag_of(pooled)
    return fit_readout(Responses(bag, np.arange(n), np.diff(bag.starts)), np.arange(2 * n) < n)
