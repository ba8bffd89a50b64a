"""Names: what a concept is called, in words of the data, and whether the name holds.

A name is the few words (and pairs of words) that stand in the responses where the concept fires far more than in the
others: the log-odds ratio with an informative Dirichlet prior (Monroe, Colaresi and Quinn 2008, "Fightin' Words").
It is found on one half of the responses and tested on the other: how well does the presence of its words tell
responses where the concept fires (AUROC)? A name that fails says so; it is never hidden.

A second opinion comes from the concept's decoder direction (`directions`): a word that it makes likelier too counts
for more. In the middle of a small model that opinion is mostly noise, so it is heard only on words that the data
confirms.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer
from sklearn.metrics import roc_auc_score

from premortem.interp.effects import first_half
from premortem.interp.words import SPACELESS, spaced

TOKEN = r"(?u)https?://|www\.|[^\W_][\w'’]*[^\W_]|[^\w\s.,]{2,}|[!?]|[^\x00-\x7f]"
"""Words, the beginnings of web addresses, runs of signs, marks of tone, and single characters beyond ASCII."""
PLAIN_WORDS = ENGLISH_STOP_WORDS | {"don", "ll", "ve", "isn", "it's", "i'm", "you're", "that's", "don't"}
PASS = 0.7
"""AUROC on held-out responses from which a name counts as tested."""
WORDS = 4
SURE = 1.5
"""z-score from which a word goes with a concept."""
PROMOTED = 1.25
"""How much more a word counts that the concept's direction makes likelier."""
CHARACTER_ALONE = 0.8
"""How much less a single character counts in a script without spaces: two of them say more."""
PRIOR = 0.05
"""Weight of the prior, as pseudo-counts per occurrence in all responses."""


class Name(NamedTuple):
    """What a concept is called."""

    text: str
    """Its words."""
    tested: bool
    """Whether they held on responses that took no part in finding them."""
    score: float
    """AUROC of the words there; 0.5 is chance."""
    promoted: tuple[str, ...] = ()
    """Words that go with it in the data and that its direction makes likelier, strongest first."""


class Vocabulary:
    """Word and word-pair counts of all responses of a dataset, made once and used for every name."""

    def __init__(self, texts: Sequence[str], groups: NDArray[np.int64]) -> None:
        """Count the words of `texts` (n,); `groups` (n,) decides which half a text belongs to."""
        vectorizer = CountVectorizer(
            ngram_range=(1, 2),
            min_df=2,
            binary=True,
            max_features=60_000,
            token_pattern=TOKEN,
            stop_words=sorted(PLAIN_WORDS),
        )
        try:
            self.counts = vectorizer.fit_transform([spaced(text) for text in texts]).astype(np.float64).tocsr()
            self.words = vectorizer.get_feature_names_out()
        except ValueError:  # no word occurs twice
            self.counts, self.words = sparse.csr_matrix((len(texts), 0)), np.zeros(0, dtype=object)
        self.first_half = first_half(groups)

    def name(self, fires: NDArray[np.bool_], promoted: Sequence[str] = ()) -> Name:
        """Name a concept that fires in the responses `fires` (n,) and whose direction makes `promoted` likelier."""
        z = self._log_odds(fires & self.first_half, ~fires & self.first_half)
        heard = [self._place[word.lower()] for word in promoted if word.lower() in self._place]
        confirmed = [i for i in dict.fromkeys(heard) if z[i] > SURE]
        z[confirmed] *= PROMOTED
        z[self._characters] *= CHARACTER_ALONE
        best: list[int] = []
        for i in np.argsort(-z, kind="stable")[:40]:
            if z[i] > SURE and not any(self._contained(i, j) for j in best):
                best.append(int(i))
            if len(best) == WORDS:
                break
        name = ", ".join(_written(str(self.words[i])) for i in best) or "unnamed"
        score = self._auroc(best, fires)
        return Name(name, score >= PASS, score, tuple(str(self.words[i]) for i in confirmed[:WORDS]))

    @cached_property
    def _characters(self) -> NDArray[np.bool_]:
        return np.asarray([re.fullmatch(f"[{SPACELESS}]", str(word)) is not None for word in self.words], dtype=bool)

    @cached_property
    def _place(self) -> dict[str, int]:
        return {str(word): i for i, word in enumerate(self.words)}

    def _log_odds(self, inside: NDArray[np.bool_], outside: NDArray[np.bool_]) -> NDArray[np.float64]:
        """z-scores of the log-odds ratio of each word, inside against outside, with a Dirichlet prior."""
        if not inside.any() or not outside.any() or not len(self.words):
            return np.zeros(len(self.words))
        a, b = np.asarray(self.counts[inside].sum(0)).ravel(), np.asarray(self.counts[outside].sum(0)).ravel()
        prior = PRIOR * (a + b) + 0.01
        total = prior.sum()
        odds_a = (a + prior) / np.maximum(a.sum() + total - a - prior, 1e-9)  # 0 where there is one word only
        odds_b = (b + prior) / np.maximum(b.sum() + total - b - prior, 1e-9)
        return (np.log(odds_a) - np.log(odds_b)) / np.sqrt(1 / (a + prior) + 1 / (b + prior))

    def _contained(self, one: int, other: int) -> bool:
        a, b = str(self.words[one]).split(), str(self.words[other]).split()
        return bool(set(a) & set(b))

    def _auroc(self, words: list[int], fires: NDArray[np.bool_]) -> float:
        held_out = ~self.first_half
        y = fires[held_out]
        if not words or not 0 < y.sum() < len(y):
            return 0.5
        hits = np.asarray(self.counts[held_out][:, words].sum(1)).ravel()
        return float(roc_auc_score(y, hits))


def _written(words: str) -> str:
    """Return a pair of words as a text has it: without the space where the script has none."""
    return re.sub(rf"(?<=[{SPACELESS}]) (?=[{SPACELESS}])", "", words)
