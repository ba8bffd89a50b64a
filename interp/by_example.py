"""Readouts of what no response of a dataset shows, learnt from examples alone.

What a rule asks for in vain cannot be found by a search of the data. But somebody can say what it looks like: some
sentences, or answers with it and without. Sentences are put into the data's own responses, another sentence of the data
into the same place for comparison, so that the pairs differ in nothing else and speak the data's own language. A
readout is learnt from them as from any minimal pairs (`learner`), and its threshold comes from the data: it is where
half of the examples that took no part in learning still fire. Where too many ordinary responses fire there (SEEN), the
lens cannot tell the behaviour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from premortem.interp.learner import Learner
from premortem.interp.pooling import Pooled
from premortem.interp.readout import Bag, Floats, Readout, bag_of
from premortem.interp.sentences import put_into, split

SEEN = 0.02
"""Share of the data's responses that may look as much like the behaviour as half of the examples do, at most."""
EACH = 8
"""Responses of the data that each sentence is put into."""
FOREIGN = range(20, 161)
"""Characters of a sentence of the data that is put beside one that shows the behaviour."""
FOLDS = 6
"""Parts that examples are learnt from but for one, at most."""


class Examples(NamedTuple):
    """Some examples as a lens reads them."""

    shown: Pooled
    """Responses that show the behaviour."""
    absent: Pooled
    """As many without it, in the same order."""


class Learnt(NamedTuple):
    """What examples have taught."""

    readout: Readout
    """The readout; at its threshold half of the examples held out still fire."""
    seen: float
    """Share of the data's responses that fire there."""


def planted(sentences: Sequence[str], texts: Sequence[str], seed: int) -> list[tuple[int, int, str, str]]:
    """Put each sentence into EACH of `texts`, and a sentence of another text into the same place.

    Returns (number of the sentence, number of the text, text that shows the behaviour, text without it); an empty list
    where `texts` have no sentence to put beside.
    """
    rng = np.random.default_rng(seed)
    said = [text[piece.body : piece.stop].strip() for text in texts for piece in split(text) if piece.kind == "prose"]
    foreign = [sentence for sentence in dict.fromkeys(said) if len(sentence) in FOREIGN]
    if not foreign:
        return []
    made = []
    for number, sentence in enumerate(sentences):
        for place, at in enumerate(rng.choice(len(texts), EACH, replace=len(texts) < EACH)):
            late, other = place % 2 == 0, foreign[int(rng.integers(len(foreign)))]
            shown, absent = (put_into(texts[at], one, late=late) for one in (sentence, other))
            made.append((number, int(at), shown, absent))
    return made


def learn(parts: Sequence[Examples], learner: Learner) -> Learnt | None:
    """Learn from examples; None where they teach nothing, or are of one part only.

    Each of `parts`, which show the behaviour in words of their own, is judged by what the others have taught. The share
    of responses at the threshold is told, whatever it is: who asks decides what is too much.
    """
    if len(parts) < 2:
        return None
    data = learner.responses.bag
    held_out = []
    for at, part in enumerate(parts):
        taught = _readout([*parts[:at], *parts[at + 1 :]], learner)
        held_out.append(_ranks(taught, bag_of(part.shown), data))
    seen = float(np.median(np.concatenate(held_out)))
    readout = _readout(parts, learner)
    if not (readout.whole or readout.local):
        return None
    return Learnt(readout.moved(float(np.quantile(readout.score(data), 1.0 - seen))), seen)


def _readout(parts: Sequence[Examples], learner: Learner) -> Readout:
    return learner.fit_pairs(bag_of(*(part.shown for part in parts), *(part.absent for part in parts)))


def _ranks(readout: Readout, examples: Bag, data: Bag) -> Floats:
    """Return, for each of `examples`, the share of `data` that scores as high or higher, shape (n_examples,)."""
    scores = np.sort(readout.score(data))
    return np.asarray(1.0 - np.searchsorted(scores, readout.score(examples), side="left") / max(len(scores), 1))
