"""Readouts: which responses show a concept, told from a few labels and the features of the lens.

A readout scores a response in two ways and adds them up. The *whole* part weighs each feature's maximum over the
response: what the response does at large (it refuses, it shouts, it is full of lists). The *local* part weighs the
features that fire together on one token and takes the strongest tokens: what it says in one place (a name, a phrase, a
link). A planted sentence may be plain to the one and invisible to the other; their standardised sum was better than
either on every behaviour that we planted (`tests/bench/real-data.md`).

It starts from weak labels (a single feature that fires, a word, a detector) and is refined by self-training: fit,
score every response by the folds that did not see its prompt, label again. The local part is fitted as in
multiple-instance learning: a response that shows the concept need show it only on its best tokens.

Nothing here knows what a concept is called, or which clause of a spec asked for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from premortem.interp.pooling import EncodedPairs, Pooled, ranges

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FOLDS = 5
WHOLE_PENALTY = 0.3
"""Inverse L2 strength of the whole part, on log1p of maxima."""
LOCAL_PENALTY = 0.01
"""Inverse L2 strength of the local part, on log1p of token activations."""
PARTNER_WEIGHT = 5.0
"""Weight of a response that does not show the concept while the other side of its pair does: both answer one prompt, so
what they share is the topic and not the concept."""
BEST_TOKENS = 4
"""Tokens of a response that shows the concept which the local part learns from."""
READ_TOKENS = 2
"""Strongest tokens whose mean is a response's local score: one alone is often chance."""
BACKGROUND_TOKENS = 4000
"""Tokens drawn at random from responses that do not show the concept."""
QUIET_LEARNERS = 800
"""Responses without the concept that a fit learns from, beside the partners of those with it."""
LOCAL_ROUNDS = 3


@dataclass(frozen=True)
class Bag:
    """Some responses: what readouts score."""

    x: sparse.csr_matrix
    """`(n, d_sae)`: log1p of the maximum activation."""
    tokens: sparse.csr_matrix
    """`(n_tokens, d_sae)`: log1p of the activations, response after response."""
    starts: NDArray[np.int64]
    """`(n + 1,)`: where each response's tokens begin."""

    def __len__(self) -> int:
        return int(self.x.shape[0])

    def take(self, index: NDArray[np.int64]) -> Bag:
        """Return the responses `index`, in that order."""
        lengths = np.diff(self.starts)[index]
        return Bag(
            self.x[index],
            self.tokens[ranges(self.starts[:-1][index], lengths)],
            np.concatenate([[0], np.cumsum(lengths)]),
        )


@dataclass(frozen=True)
class Responses:
    """All responses of a dataset: chosen first, rejected below."""

    bag: Bag
    """`2 * n_pairs` responses."""
    groups: NDArray[np.int64]
    """`(n_pairs,)`: pairs with the same number share a prompt, and never straddle a fold."""
    lengths: NDArray[np.int64]
    """`(2 * n_pairs,)`: response tokens."""

    @property
    def n_pairs(self) -> int:
        """Number of pairs."""
        return len(self.groups)

    def both(self, values: NDArray) -> tuple[NDArray, NDArray]:
        """Split values per response into those of the chosen and those of the rejected side."""
        return values[: self.n_pairs], values[self.n_pairs :]


@dataclass(frozen=True)
class Part:
    """Weights on features, as a sparse vector, and what makes its score comparable: mean and standard deviation."""

    features: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    mean: float = 0.0
    deviation: float = 1.0

    @classmethod
    def of(cls, dense: Floats) -> Part:
        """Keep the nonzero entries of `dense` (d_sae,)."""
        kept = np.flatnonzero(dense)
        return cls(tuple(int(f) for f in kept), tuple(float(w) for w in dense[kept]))

    def __bool__(self) -> bool:
        return bool(self.features)

    def raw(self, matrix: sparse.csr_matrix) -> Floats:
        """Return the weighted sum of each row of `matrix` (n, d_sae), shape (n,)."""
        dense = np.zeros(matrix.shape[1])
        dense[list(self.features)] = self.weights
        return np.asarray(matrix @ dense).ravel()

    def standardised(self, values: Floats) -> Floats:
        """Return raw scores on the common scale."""
        return (values - self.mean) / self.deviation


@dataclass(frozen=True)
class Readout:
    """The sum of a whole and a local part, with a threshold; an empty part says nothing."""

    whole: Part
    local: Part
    threshold: float

    @property
    def features(self) -> tuple[int, ...]:
        """The features of both parts, ascending."""
        return tuple(sorted({*self.whole.features, *self.local.features}))

    def strongest(self, n: int) -> list[tuple[int, float]]:
        """Return the `n` features with the largest weights on the common scale, as (feature, weight)."""
        total: dict[int, float] = {}
        for part in (self.whole, self.local):
            for feature, weight in zip(part.features, part.weights, strict=True):
                total[feature] = total.get(feature, 0.0) + weight / part.deviation
        return sorted(total.items(), key=lambda item: (-abs(item[1]), item[0]))[:n]

    def score(self, bag: Bag) -> Floats:
        """Return the score of each response, shape (n,)."""
        total = np.zeros(len(bag))
        if self.whole:
            total += self.whole.standardised(self.whole.raw(bag.x))
        if self.local:
            total += self.local.standardised(strongest(self.local.raw(bag.tokens), bag.starts))
        return total

    def fires(self, bag: Bag) -> Bools:
        """Return which responses exceed the threshold, shape (n,)."""
        return self.score(bag) > self.threshold

    def moved(self, threshold: float) -> Readout:
        """Return the same scores with another threshold."""
        return replace(self, threshold=float(threshold))


def log_maxima(pooled: Pooled) -> sparse.csr_matrix:
    """Return log1p of each feature's maximum activation, `(n, d_sae)`."""
    x = sparse.csr_matrix(pooled.max, dtype=np.float32)
    x.data = np.log1p(np.maximum(x.data, 0.0))
    return x


def bag_of(*parts: Pooled) -> Bag:
    """Make a bag of the responses of `parts`, one part after the other."""
    x = sparse.vstack([log_maxima(part) for part in parts]).tocsr()
    tokens = sparse.vstack([part.tokens.matrix(x.shape[1]) for part in parts]).tocsr()
    tokens.data = np.log1p(tokens.data)
    x.sort_indices()
    tokens.sort_indices()
    lengths = np.concatenate([part.n_tokens for part in parts]).astype(np.int64)
    return Bag(x, tokens, np.concatenate([[0], np.cumsum(lengths)]))


def responses_of(encoded: EncodedPairs, groups: NDArray[np.int64]) -> Responses:
    """Stack both sides of `encoded`."""
    bag = bag_of(encoded.chosen, encoded.rejected)
    return Responses(bag, groups, np.diff(bag.starts))


def strongest(values: Floats, starts: NDArray[np.int64]) -> Floats:
    """Return the mean of each response's READ_TOKENS largest token values, shape (n,).

    A response without tokens gets the smallest value of all.
    """
    if not len(values):
        return np.zeros(len(starts) - 1)
    lengths = np.diff(starts)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    left, total = values.copy(), np.zeros(len(lengths))
    spoken = lengths > 0
    for round_ in range(READ_TOKENS):
        peak = np.full(len(lengths), -np.inf)
        peak[spoken] = np.maximum.reduceat(left, starts[:-1][spoken])
        total += np.where(lengths > round_, peak, 0.0)
        at_peak = np.flatnonzero(left == peak[owner])
        _, first = np.unique(owner[at_peak], return_index=True)
        left[at_peak[first]] = -np.inf
    return np.where(spoken, total / np.maximum(np.minimum(lengths, READ_TOKENS), 1), values.min())


def signed_rows(fires: Bools, n_pairs: int) -> NDArray[np.int64]:
    """Return +1 where only the chosen response fires, -1 where only the rejected one does, else 0; shape (n_pairs,)."""
    return fires[:n_pairs].astype(np.int64) - fires[n_pairs:].astype(np.int64)


def sign_z(signs: NDArray[np.int64]) -> float:
    """Return McNemar's statistic of the discordant pairs, (b - c) / sqrt(b + c + 1); the 1 tames tiny counts."""
    return float(signs.sum() / np.sqrt(np.abs(signs).sum() + 1.0))


def _logistic(x: sparse.csr_matrix, y: Bools, strength: float, weight: Floats) -> Floats:
    model = LogisticRegression(C=strength, class_weight="balanced", solver="liblinear", random_state=0)
    return model.fit(x, y, sample_weight=weight).coef_[0].astype(np.float64)


def _learners(members: NDArray[np.int64], y: Bools) -> tuple[NDArray[np.int64], Floats]:
    """Return the responses that a fit learns from, with their weights: those that show the concept, the other sides of
    their pairs, and QUIET_LEARNERS of the rest at most."""
    partner = np.roll(y, len(y) // 2) & ~y
    rest = members[~y[members] & ~partner[members]]
    drawn = np.random.default_rng(0).permutation(rest)[:QUIET_LEARNERS]
    chosen = np.sort(np.concatenate([members[y[members] | partner[members]], drawn]))
    return chosen, np.where(partner[chosen], PARTNER_WEIGHT, 1.0)


def _fit_local(bag: Bag, y: Bools, weight: Floats) -> Floats:
    """Return token weights (d_sae,), learnt from all responses of `bag` with labels `y` and weights `weight`."""
    lengths = np.diff(bag.starts)
    shows = np.repeat(y, lengths)
    share = np.where(shows, 1 / max(shows.sum(), 1), -1 / max((~shows).sum(), 1))
    weights = np.asarray(bag.tokens.T @ share).ravel()
    drawn = np.random.default_rng(0).permutation(np.flatnonzero(~shows))[:BACKGROUND_TOKENS]
    for _ in range(LOCAL_ROUNDS):
        values = np.asarray(bag.tokens @ weights).ravel()
        best = top_tokens(values, bag.starts, BEST_TOKENS, y)
        hardest = top_tokens(values, bag.starts, READ_TOKENS, ~y)
        used = np.concatenate([best, hardest, drawn])
        owner = np.searchsorted(bag.starts, hardest, side="right") - 1
        each = np.concatenate([np.ones(len(best)), weight[owner], np.ones(len(drawn))])
        weights = _logistic(bag.tokens[used], np.arange(len(used)) < len(best), LOCAL_PENALTY, each)
    return weights


def top_tokens(values: Floats, starts: NDArray[np.int64], n: int, wanted: Bools) -> NDArray[np.int64]:
    """Return the indices of the `n` largest token values of each wanted response."""
    lengths = np.diff(starts)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((-values, owner))
    rank = np.arange(len(values)) - np.repeat(starts[:-1], lengths)
    return order[(rank < n) & wanted[owner]]


def _fit(bag: Bag, members: NDArray[np.int64], y: Bools) -> Readout:
    """Fit both parts to the labels of `members`; scores are standardised over those that do not show the concept."""
    chosen, weight = _learners(members, y)
    own, shows = bag.take(chosen), y[chosen]
    whole = Part.of(_logistic(own.x, shows, WHOLE_PENALTY, weight))
    local = Part.of(_fit_local(own, shows, weight))
    raw = whole.raw(own.x)[~shows]
    whole = replace(whole, mean=float(raw.mean()), deviation=float(raw.std()) + 1e-6)
    raw = strongest(local.raw(own.tokens), own.starts)[~shows]
    local = replace(local, mean=float(raw.mean()), deviation=float(raw.std()) + 1e-6)
    return Readout(whole, local, 0.0)


def out_of_fold(responses: Responses, y: Bools, splits: int = 1) -> Floats:
    """Score every response by a fit on the folds that hold none of its prompt's pairs; shape (2 * n_pairs,).

    With several `splits` into folds the scores are averaged, which steadies them.
    """
    groups = np.concatenate([responses.groups, responses.groups])
    folds = [fold for seed in range(splits) for fold in _folds(seed, groups, y)]
    scores = np.zeros(len(y))
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda fold: _fit(responses.bag, fold[0], y).score(responses.bag)[fold[1]], folds)
        for (_, test), part in zip(folds, found, strict=True):
            scores[test] += part / splits
    return scores


def _folds(seed: int, groups: NDArray[np.int64], y: Bools) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return (train, test) indices of folds that keep prompts together and both labels in each train part."""
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(np.zeros(len(y)), y, groups)
    return [(train, test) for train, test in folds if 0 < int(y[train].sum()) < len(train)]


def fit_readout(responses: Responses, y: Bools) -> Readout:
    """Fit a readout to the labels `y` (2 * n_pairs,); its threshold is where it agrees best with them (largest F1)."""
    readout = _fit(responses.bag, np.arange(len(y)), y)
    return readout.moved(best_agreement(readout.score(responses.bag), y))


def best_agreement(scores: Floats, y: Bools, beta: float = 1.0) -> float:
    """Return the threshold on `scores` whose marks have the largest F-beta with `y`; beta above 1 favours recall."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(y[order])
    f_beta = (1 + beta**2) * hits / (np.arange(1, len(order) + 1) + beta**2 * y.sum())
    last = int(np.argmax(f_beta))
    below = scores[order[last + 1]] if last + 1 < len(order) else scores[order[last]] - 1.0
    return float((scores[order[last]] + below) / 2)


def even_odds(scores: Floats, y: Bools) -> float:
    """Return the score at which a response is as likely to belong to those marked `y` as to the others.

    Both groups are taken as normal; the spread of the others is read off their upper tail, where it matters.
    """
    shown, others = scores[y], scores[~y]
    middle = float(np.median(others))
    spread = max((float(np.quantile(others, 0.99)) - middle) / stats.norm.ppf(0.99), 1e-6)
    grid = np.linspace(middle, float(shown.mean()), 400)
    inside = np.log(y.mean()) + stats.norm.logpdf(grid, shown.mean(), max(float(shown.std()), 1e-6))
    outside = np.log(1 - y.mean()) + stats.norm.logpdf(grid, middle, spread)
    likelier = np.flatnonzero(inside > outside)
    return float(grid[likelier[0]] if len(likelier) else shown.mean())


def prompt_groups(prompts: Sequence[str]) -> NDArray[np.int64]:
    """Number the distinct `prompts` in order of appearance; shape (n_pairs,)."""
    seen: dict[str, int] = {}
    return np.asarray([seen.setdefault(prompt, len(seen)) for prompt in prompts], dtype=np.int64)
