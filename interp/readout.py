"""Readouts: which responses show a concept, told from the features of the lens.

A readout scores a response in two ways and adds them up. The *whole* part weighs each feature's maximum over the
response: what the response does at large (it refuses, it shouts, it is full of lists). The *local* part weighs what
fires together in a passage of a few tokens and takes the best passage: what it says in one place (a name, a phrase, a
link). Both are plain weights on features, so a readout also tells where in a text it fires, applies to any text that
the lens has read, and costs one sparse product.

How readouts are learnt stands in `learner`. Nothing here knows what a concept is called, or which clause asked for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from premortem.interp.pooling import Pooled, TokenRows, content_shares, ranges

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Unit = Literal["responses", "tokens"]
"""What an amount or an effect is a share of: responses that show a concept, or tokens on which it fires."""

PASSAGE = 8
"""Tokens of a passage."""
STRIDE = 4
"""Tokens between the beginnings of two passages."""
CHUNK = 256
"""Responses whose tokens are made wide at a time."""


class Passages(NamedTuple):
    """Where the passages of some responses begin and end, response after response."""

    begin: NDArray[np.int64]
    """`(n_passages,)` first token."""
    end: NDArray[np.int64]
    """`(n_passages,)` one behind the last token."""
    starts: NDArray[np.int64]
    """`(n + 1,)` where each response's passages begin; a response without tokens has none."""

    @classmethod
    def of(cls, starts: NDArray[np.int64]) -> Passages:
        """Lay passages over responses whose tokens begin at `starts` (n + 1,); the last one of each may be short."""
        lengths = np.diff(starts)
        counts = np.where(lengths > 0, np.maximum(-(-(lengths - PASSAGE) // STRIDE), 0) + 1, 0)
        begin = ranges(np.zeros(len(counts), dtype=np.int64), counts) * STRIDE + np.repeat(starts[:-1], counts)
        end = np.minimum(begin + PASSAGE, np.repeat(starts[1:], counts))
        return cls(begin, end, np.concatenate([[0], np.cumsum(counts)]))

    @property
    def spoken(self) -> NDArray[np.int64]:
        """The responses that have passages."""
        return np.flatnonzero(np.diff(self.starts) > 0)

    @property
    def owner(self) -> NDArray[np.int64]:
        """`(n_passages,)` the response of each passage."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def best(self, values: Floats) -> Floats:
        """Return each response's largest passage value; the smallest of all for a response without passages."""
        if not len(values):
            return np.zeros(len(self.starts) - 1)
        best = np.full(len(self.starts) - 1, values.min(), dtype=np.float64)
        best[self.spoken] = np.maximum.reduceat(values, self.starts[:-1][self.spoken])
        return best

    def best_of(self, responses: NDArray[np.int64], values: Floats) -> NDArray[np.int64]:
        """Return the passage with the largest of `values` (n_passages,) in each of `responses` (n,) that have some."""
        spans = zip(self.starts[responses].tolist(), self.starts[responses + 1].tolist(), strict=True)
        return np.asarray([a + int(np.argmax(values[a:b])) for a, b in spans], dtype=np.int64)

    def means(self) -> sparse.csr_matrix:
        """Return the averages over the tokens of each passage as a matrix, `(n_passages, n_tokens)`."""
        lengths = self.end - self.begin
        weight = np.repeat(1 / lengths, lengths).astype(np.float32)
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        shape = (len(lengths), int(self.end.max()) if len(lengths) else 0)
        return sparse.csr_matrix((weight, ranges(self.begin, lengths), indptr), shape)


@dataclass(frozen=True)
class Bag:
    """Some responses: what readouts score."""

    x: sparse.csr_matrix
    """`(n, d_sae)`: log1p of the maximum activation."""
    units: TokenRows
    """Square roots of log1p of the activations on each token, response after response, each token scaled to length 1,
    so that none outshouts the others."""
    starts: NDArray[np.int64]
    """`(n + 1,)`: where each response's tokens begin."""
    shares: sparse.csr_matrix | None = None
    """`(n, d_sae)`: share of tokens on which each feature fires, those that only end a response left out; None where
    they were not kept."""
    closing: NDArray[np.int64] | int = 0
    """`(n,)`, or one for all: how many tokens at the end of a response only end it."""

    def __len__(self) -> int:
        return int(self.x.shape[0])

    def runs(self) -> Iterator[tuple[int, NDArray[np.int64], TokenRows]]:
        """Yield CHUNK responses at a time: the number of the first, where each one's tokens begin, and their tokens."""
        for i in range(0, len(self), CHUNK):
            starts = self.starts[i : i + CHUNK + 1]
            yield i, starts - starts[0], self.units.between(starts[0], starts[-1])

    @cached_property
    def passages(self) -> Passages:
        """The passages of the responses."""
        return Passages.of(self.starts)


@dataclass(frozen=True)
class Part:
    """Weights on features, and what makes its score comparable: a mean and a deviation."""

    features: Sequence[int] | NDArray[np.int32] = ()
    weights: Sequence[float] | NDArray[np.float32] = ()
    mean: float = 0.0
    deviation: float = 1.0
    """The smaller, the more this part counts beside the other."""

    @classmethod
    def of(cls, dense: Floats, mean: float = 0.0, deviation: float = 1.0) -> Part:
        """Keep the nonzero entries of `dense` (d_sae,)."""
        kept = np.flatnonzero(dense)
        return cls(kept.astype(np.int32), dense[kept].astype(np.float32), mean, deviation)

    def __bool__(self) -> bool:
        return len(self.features) > 0

    def raw(self, rows: sparse.csr_matrix | TokenRows, d_sae: int) -> Floats:
        """Return the weighted sum of each of `rows` (n, d_sae), shape (n,)."""
        dense = np.zeros(d_sae, dtype=np.float32)
        dense[np.asarray(self.features, dtype=np.int64)] = self.weights
        return np.asarray(rows @ dense, dtype=np.float64).ravel()

    def standardised(self, values: Floats) -> Floats:
        """Return raw scores on the common scale."""
        return (values - self.mean) / self.deviation


@dataclass(frozen=True)
class Readout:
    """The sum of a whole and a local part, with a threshold; an empty part says nothing."""

    whole: Part
    local: Part
    threshold: float
    unit: Unit = "responses"
    """What its amount is a share of."""

    def strongest(self, n: int) -> list[tuple[int, float]]:
        """Return the `n` features with the largest weights on the common scale, as (feature, weight)."""
        total: dict[int, float] = {}
        for part in (self.whole, self.local):
            for feature, weight in zip(part.features, part.weights, strict=True):
                total[int(feature)] = total.get(int(feature), 0.0) + float(weight) / part.deviation
        return sorted(total.items(), key=lambda item: (-abs(item[1]), item[0]))[:n]

    def speaking(self, n: int) -> list[int]:
        """Return those of the `n` strongest features whose weights are positive: they speak for the concept."""
        return [feature for feature, weight in self.strongest(n) if weight > 0]

    def score(self, bag: Bag) -> Floats:
        """Return the score of each response, shape (n,)."""
        total, d_sae = np.zeros(len(bag)), bag.x.shape[1]
        if self.whole:
            total += self.whole.standardised(self.whole.raw(bag.x, d_sae))
        if self.local:
            total += self.local.standardised(best_passage(self.local.raw(bag.units, d_sae), bag.passages))
        return total

    def fires(self, bag: Bag) -> Bools:
        """Return which responses exceed the threshold, shape (n,)."""
        return self.score(bag) > self.threshold

    def moved(self, threshold: float) -> Readout:
        """Return the same scores with another threshold."""
        return replace(self, threshold=float(threshold))


def amounts(bag: Bag, readouts: Sequence[Readout], fires: Callable[[Readout], Bools] | None = None) -> Floats:
    """Return how much of each response shows each concept, 0 to 1, shape (n, n_concepts).

    In `responses`, 1 where it fires, as `fires` tells or, without it, the readout. In `tokens`, the share of tokens on
    which a feature with a positive weight fires, mean over those features; raises ValueError where shares of tokens
    were not kept.
    """
    found = np.zeros((len(bag), len(readouts)))
    by_token = [i for i, readout in enumerate(readouts) if readout.unit == "tokens"]
    for i, readout in enumerate(readouts):
        if readout.unit == "responses":
            found[:, i] = fires(readout) if fires else readout.fires(bag)
    if by_token:
        if bag.shares is None:
            raise ValueError("the shares of tokens were not kept")
        found[:, by_token] = of_concepts(bag.shares, [readouts[i] for i in by_token])
    return found


def of_concepts(of_features: sparse.csr_matrix, readouts: Sequence[Readout]) -> Floats:
    """Return the mean over the features that speak for each concept, (n, n_concepts), of a figure for each feature.

    `of_features` is `(n, d_sae)`.
    """
    speaking = [readout.speaking(of_features.shape[1]) for readout in readouts]
    counts = np.asarray([len(features) for features in speaking])
    weights = np.repeat(1 / np.maximum(counts, 1), counts)
    indptr, shape = np.concatenate([[0], np.cumsum(counts)]), (of_features.shape[1], len(readouts))
    means = sparse.csc_matrix((weights, np.concatenate(speaking).astype(np.int64), indptr), shape)
    return np.asarray((of_features @ means).toarray())


def best_passage(values: Floats, passages: Passages) -> Floats:
    """Return the largest mean of token `values` over a passage of each response, shape (n,)."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return passages.best((sums[passages.end] - sums[passages.begin]) / (passages.end - passages.begin))


def units_of(tokens: TokenRows) -> TokenRows:
    """Return activations as `Bag.units`; indices are shared."""
    values = np.empty_like(tokens.values)
    for begin, end in tokens.blocks():
        a, b = tokens.indptr[begin], tokens.indptr[end]
        logs = np.log1p(tokens.values[a:b].astype(np.float32))
        firing = np.diff(tokens.indptr[begin : end + 1])
        spoken = firing > 0
        scale = np.zeros(len(firing), dtype=np.float32)
        starts = (tokens.indptr[begin:end] - a)[spoken]
        if len(starts):
            scale[spoken] = 1 / np.sqrt(np.maximum(np.add.reduceat(logs, starts, dtype=np.float64), 1e-9))
        values[a:b] = np.sqrt(logs) * np.repeat(scale, firing)
    return TokenRows(tokens.indptr, tokens.indices, values)


def log_maxima(pooled: Pooled) -> sparse.csr_matrix:
    """Return log1p of each feature's maximum activation, `(n, d_sae)`."""
    x = sparse.csr_matrix(pooled.max, dtype=np.float32)
    x.data = np.log1p(np.maximum(x.data, 0.0))
    return x


def bag_of(*parts: Pooled, closing: NDArray[np.int64] | int = 0) -> Bag:
    """Make a bag of the responses of `parts`, one part after the other.

    `closing` (n,), the same for each part, is how many tokens at the end of a response only end it; see
    `content_shares`.
    """
    x = sparse.vstack([log_maxima(part) for part in parts]).tocsr()
    units = TokenRows.joined([units_of(part.tokens) for part in parts])
    x.sort_indices()
    lengths = np.concatenate([part.n_tokens for part in parts]).astype(np.int64)
    shares = sparse.vstack([content_shares(part, closing) for part in parts], format="csr")
    each = np.concatenate([np.broadcast_to(closing, len(part)) for part in parts])
    return Bag(x, units, np.concatenate([[0], np.cumsum(lengths)]), shares, each)


def signed_rows(fires: Bools, n_pairs: int) -> NDArray[np.int64]:
    """Return +1 where only the chosen response fires, -1 where only the rejected one does, else 0; shape (n_pairs,)."""
    return fires[:n_pairs].astype(np.int64) - fires[n_pairs:].astype(np.int64)


def sign_z(signs: NDArray[np.int64]) -> float:
    """Return McNemar's statistic of the discordant pairs, (b - c) / sqrt(b + c + 1); the 1 tames tiny counts."""
    return float(signs.sum() / np.sqrt(np.abs(signs).sum() + 1.0))


def best_agreement(scores: Floats, y: Bools, beta: float = 1.0) -> float:
    """Return the threshold on `scores` whose marks have the largest F-beta with `y`; beta above 1 favours recall."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(y[order])
    f_beta = (1 + beta**2) * hits / (np.arange(1, len(order) + 1) + beta**2 * y.sum())
    last = int(np.argmax(f_beta))
    below = scores[order[last + 1]] if last + 1 < len(order) else scores[order[last]] - 1.0
    return float((scores[order[last]] + below) / 2)


def prompt_groups(prompts: Sequence[str]) -> NDArray[np.int64]:
    """Number the distinct `prompts` in order of appearance; shape (n_pairs,)."""
    seen: dict[str, int] = {}
    return np.asarray([seen.setdefault(prompt, len(seen)) for prompt in prompts], dtype=np.int64)
