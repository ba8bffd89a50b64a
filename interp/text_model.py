"""A linear classifier of short texts over hashed features: small enough to ship, quick enough for every sentence.

Some things are said in too many ways for a list of words, such as that a sentence of a spec is a rule, or that a
passage speaks to whoever audits the data. A multinomial logistic regression over words and pairs of words, learned
from a few thousand examples, generalises to other wordings, and its weights are one array. What the features of a text
are is the caller's business: a function that returns strings. They are hashed (Weinberger et al. 2009), counted, damped
by 1 + log, and scaled to length 1.

The shipped models lie in `texts/`; `tests/bench/train_texts.py` makes them and says from what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

Features = Callable[[Any], Iterable[str]]
"""Returns the features of one text (or of whatever record stands for one)."""
ITERATIONS = 2_000


class TextModel:
    """Log-odds of labels for texts."""

    def __init__(self, weights: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        """Use `weights` of shape (labels, hashed features) and `bias` of shape (labels,)."""
        self.weights, self.bias = weights, bias

    @classmethod
    def fit(
        cls,
        features: Sequence[Iterable[str]],
        labels: NDArray[np.int64],
        buckets: int,
        strength: float,
        importance: NDArray[np.float64] | None = None,
    ) -> TextModel:
        """Learn from texts, given by their features, and their labels 0, 1, …, each of which must occur.

        `buckets`: hashed features; `strength`: inverse of the L2 penalty; `importance`: weight of each text, default 1.
        """
        learner = LogisticRegression(C=strength, max_iter=ITERATIONS)
        learner.fit(_hashed(features, buckets), labels, sample_weight=importance)
        weights, bias = learner.coef_, learner.intercept_
        if len(weights) == 1:  # two labels: one row says how much the second is likelier
            weights, bias = np.vstack([-weights / 2, weights / 2]), np.concatenate([-bias / 2, bias / 2])
        return cls(weights.astype(np.float32), bias.astype(np.float32))

    @classmethod
    def read(cls, data: bytes) -> TextModel:
        """Return the model that `to_bytes` wrote."""
        arrays = load(data)
        return cls(arrays["weights"].astype(np.float32), arrays["bias"].astype(np.float32))

    def to_bytes(self) -> bytes:
        """Return the model as a safetensors file, its weights in half precision."""
        weights = np.ascontiguousarray(self.weights, dtype=np.float16)  # safetensors writes the buffer as it lies
        return save({"weights": weights, "bias": np.ascontiguousarray(self.bias, dtype=np.float32)})

    def log_odds(self, features: Sequence[Iterable[str]]) -> NDArray[np.float32]:
        """Return the log-odds, up to a common term per text, of shape (texts, labels)."""
        if not features:
            return np.zeros((0, len(self.bias)), dtype=np.float32)
        hashed = _hashed(features, self.weights.shape[1])
        return np.asarray(hashed @ self.weights.T + self.bias, dtype=np.float32)


@lru_cache
def shipped(name: str) -> TextModel:
    """Return the model `name` of this package."""
    return TextModel.read((files("premortem.interp") / "texts" / f"{name}.safetensors").read_bytes())


def _hashed(features: Sequence[Iterable[str]], buckets: int) -> sparse.csr_matrix:
    hasher = HashingVectorizer(analyzer=_as_is, n_features=buckets, alternate_sign=False, norm=None, dtype=np.float32)
    counts = hasher.transform(features)
    counts.data = 1.0 + np.log(counts.data)
    return normalize(counts, copy=False)


def _as_is(features: Iterable[str]) -> Iterable[str]:
    """Return the features; half a surrogate pair, which no encoding holds, becomes a question mark."""
    return (text if text.isascii() else text.encode("utf-8", "replace").decode() for text in features)
