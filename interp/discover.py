"""Discovery: concepts that a dataset would teach and that nobody asked about.

Every feature is tested for firing on one side of the pairs only (McNemar's statistic at several thresholds). What
counts as large is measured on the data itself: sides swapped at random, many times, give the largest statistic that
chance produces over all features, so the error is controlled for the whole search at once. The purest of those that
beat it seeds a readout (see `readout`), whose rows are then set aside while the search goes on, until nothing beats
chance.

The search never looks at the spec, and never at words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.preprocessing import normalize

from premortem.interp.readout import (
    FOLDS,
    Bools,
    Floats,
    Readout,
    Responses,
    best_agreement,
    even_odds,
    fit_readout,
    out_of_fold,
    sign_z,
    signed_rows,
)

QUANTILES = (0.0, 0.5, 0.75, 0.9, 0.96)
"""Thresholds tried for each feature, as quantiles of its nonzero maxima."""
PERMUTATIONS = 200
CONFIDENCE = 0.8
"""Share of searches on pairs with randomly swapped sides that find nothing as strong as what is reported."""
MIN_ROWS = 8
"""Rows a discovered concept needs."""
NOVELTY = 0.25
"""Share of a seed's rows that no concept found before may explain."""
HOPELESS = 1.5
"""A growing concept whose statistic falls below this is given up."""
APART = 0.2
"""Largest Jaccard index of the rows of two halves that count as two concepts."""
TOLERANCE = 0.03
"""Purity that marking again from averaged scores may lose."""
PATIENCE = 8
"""Seeds in a row that come to nothing before the search ends."""
MAX_CONCEPTS = 12
SEED_FDR = 0.1
"""False-discovery rate of the seeds; what grows from them must beat chance over the whole search."""
SCHEDULES = ((1.0, 1.0, 2.0, 2.0), (2.0, 2.0, 2.0))
"""F-measures of the rounds of self-training; above 1 they favour recall. The second is for seeds that shrink."""
PURE = 0.75
"""Lower bound of purity that is good enough to try no other schedule."""
MAX_OVERLAP = 0.5
"""Two concepts that share more of their rows than this (Jaccard) are one."""


@dataclass(frozen=True)
class Discovery:
    """A readout found without any label."""

    readout: Readout
    signs: NDArray[np.int64]
    """`(n_pairs,)`: +1 only the chosen response fires, -1 only the rejected one."""
    z: float
    """McNemar's statistic of `signs`."""
    precision: float
    """Estimated precision of the rows in the effect's direction: 1 - minority / majority of the discordant pairs."""

    @property
    def purity(self) -> float:
        """Lower bound of the share of discordant pairs on the majority's side; see `purity_bound`."""
        total = int(np.abs(self.signs).sum())
        return float(purity_bound(np.asarray((total + abs(int(self.signs.sum()))) / 2), np.asarray(total)))


def binary_signs(responses: Responses) -> tuple[sparse.csr_matrix, NDArray[np.int64], NDArray[np.float64]]:
    """Return, for each feature and threshold, the sign per pair.

    Returns `(signs (n_pairs, n_tests) sparse, feature (n_tests,), threshold (n_tests,))`.
    """
    x = responses.bag.x.tocsc()
    n = responses.n_pairs
    columns, features, thresholds = [], [], []
    for feature in range(x.shape[1]):
        start, end = x.indptr[feature], x.indptr[feature + 1]
        values, rows = x.data[start:end], x.indices[start:end]
        if len(values) < MIN_ROWS:
            continue
        for cut in np.unique(np.quantile(values, QUANTILES)):
            hit = rows[values > cut] if cut > values.min() else rows
            if len(hit) >= MIN_ROWS:
                columns.append(hit)
                features.append(feature)
                thresholds.append(float(cut) if cut > values.min() else 0.0)
    lengths = [len(hit) for hit in columns]
    flat = np.concatenate(columns) if columns else np.zeros(0, dtype=np.int64)
    test = np.repeat(np.arange(len(columns)), lengths)
    signs = sparse.coo_matrix((np.where(flat < n, 1, -1), (flat % n, test)), shape=(n, len(columns)))
    signs = signs.tocsr()  # sums +1 and -1 where both sides fire
    signs.eliminate_zeros()
    return signs, np.asarray(features), np.asarray(thresholds)


def column_z(signs: sparse.csr_matrix, flips: NDArray | None = None) -> NDArray[np.float64]:
    """McNemar's statistic of each column; with `flips` (n_pairs, n_swaps) of +-1, `(n_swaps, n_tests)`."""
    discordant = np.asarray(abs(signs).sum(0)).ravel()
    scale = np.sqrt(discordant + 1.0)
    if flips is None:
        return np.asarray(signs.sum(0)).ravel() / scale
    return np.asarray((signs.T @ flips).T) / scale


def chance_level(signs: sparse.csr_matrix, groups: NDArray[np.int64], quantile: float = CONFIDENCE) -> float:
    """The largest |z| over all columns that swapping sides at random reaches, at `quantile` of the permutations.

    Pairs that share a prompt are swapped together.
    """
    rng = np.random.default_rng(0)
    flips = rng.choice([-1.0, 1.0], size=(int(groups.max()) + 1, PERMUTATIONS))[groups]
    largest = [np.abs(column_z(signs, flips[:, i : i + 20])).max(1) for i in range(0, PERMUTATIONS, 20)]
    return float(np.quantile(np.concatenate(largest), quantile))


def purity_bound(majority: NDArray, total: NDArray) -> NDArray[np.float64]:
    """Return Wilson's lower 95% bound of the share of discordant pairs on the majority's side."""
    z = 1.6448536269514722
    n = np.maximum(total, 1e-9)
    share = majority / n
    centre = share + z**2 / (2 * n)
    spread = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (centre - spread) / (1 + z**2 / n)


def seed_level(signs: sparse.csr_matrix) -> float:
    """Return the |z| from which a column may seed a concept: Benjamini-Hochberg at 10% over exact sign tests."""
    total = np.asarray(abs(signs).sum(0)).ravel()
    majority = (total + np.abs(np.asarray(signs.sum(0)).ravel())) / 2
    p = np.minimum(2 * stats.binom.sf(majority - 1, total, 0.5), 1.0)
    good = stats.false_discovery_control(p) <= SEED_FDR
    return float(np.abs(column_z(signs))[good].min()) - 1e-9 if good.any() else np.inf


def discover(responses: Responses) -> tuple[Discovery, ...]:
    """Find the concepts that sit on one side of the pairs more than chance allows, purest first.

    Among the features that may seed a concept the purest comes first: a feature shared by two concepts beats chance by
    more than either's own, but has more pairs against it. Responses that a found concept explains never seed another.
    """
    signs, features, thresholds = binary_signs(responses)
    if not signs.shape[1]:
        return ()
    bar, seed_bar = chance_level(signs, responses.groups), seed_level(signs)
    free = {1.0: np.ones(responses.n_pairs, dtype=bool), -1.0: np.ones(responses.n_pairs, dtype=bool)}
    explained = np.zeros(2 * responses.n_pairs, dtype=bool)
    spent = np.zeros(len(features), dtype=bool)
    found: list[Discovery] = []
    in_vain = 0
    while len(found) < MAX_CONCEPTS and in_vain < PATIENCE:
        best, direction = _seed(signs, free, seed_bar, spent)
        if best is None:
            break
        spent |= features == features[best]
        marks = np.asarray(responses.bag.x[:, features[best]].todense()).ravel() > thresholds[best]
        inside = (marks & explained).sum() > marks.sum() / 2  # perhaps a part of what was found, with a name of its own
        grown = grow(responses, marks if inside else marks & ~explained, direction)
        if grown is None or abs(grown.z) <= bar or any(overlap(grown, other) > MAX_OVERLAP for other in found):
            free[direction] &= np.asarray(signs[:, best].todense()).ravel() * direction <= 0
            in_vain += 1
            continue
        in_vain = 0
        for part in split(responses, grown, bar):
            if not any(overlap(part, other) > MAX_OVERLAP for other in found):
                found.append(part)
            carriers = part.signs * direction > 0
            free[direction] &= ~carriers
            explained |= on_side(carriers, direction)
    return tuple(sorted(found, key=lambda item: -item.purity))


def _seed(signs: sparse.csr_matrix, free: dict[float, Bools], bar: float, spent: Bools) -> tuple[int | None, float]:
    """Return the purest column that beats `bar`, and its direction; None when none is left.

    `free` says, for each direction, which pairs no concept of that direction explains; a seed's rows must be free in
    large part.
    """
    z = column_z(signs)
    total = np.asarray(abs(signs).sum(0)).ravel()
    majority = (total + np.abs(np.asarray(signs.sum(0)).ravel())) / 2
    left = np.where(z > 0, _count(signs[free[1.0]], 1), _count(signs[free[-1.0]], -1))
    usable = (np.abs(z) > bar) & ~spent & (left >= NOVELTY * majority)
    bound = np.where(usable, purity_bound(majority, total), 0.0)
    best = int(np.argmax(bound))
    return (best, float(np.sign(z[best]))) if bound[best] > 0 else (None, 1.0)


def _count(signs: sparse.csr_matrix, direction: int) -> NDArray[np.float64]:
    """Count the entries of each column that have the sign `direction`."""
    return (np.asarray(abs(signs).sum(0)).ravel() + direction * np.asarray(signs.sum(0)).ravel()) / 2


def grow(responses: Responses, marks: Bools, direction: float | None = None) -> Discovery | None:
    """Grow a readout from weak `marks` (2 * n_pairs,); None when nothing stable or too little comes of them.

    Each round scores every response by the folds that did not see it, and marks anew where the scores agree best with
    the marks before: evenly, which drops what the lens does not recognise, or in favour of recall, which takes in what
    the marks missed. Of all rounds the marks that are one-sided beyond doubt are kept (`purity_bound`), because one
    round too many drifts to a neighbour.
    """
    best: tuple[float, Bools] | None = None
    for betas in SCHEDULES:
        if best is not None and best[0] >= PURE:
            break
        for y in _rounds(responses, marks, betas, direction):
            quality = _quality(y, responses.n_pairs, direction)
            if best is None or quality > best[0]:
                best = quality, y
    if best is None:
        return None
    return described(fit_readout(responses, _settled(responses, best[1], direction)), responses, direction)


def _settled(responses: Responses, marks: Bools, direction: float | None) -> Bools:
    """Mark again from scores averaged over several splits; the old marks stay where purity would be lost."""
    bar = _quality(marks, responses.n_pairs, direction) - TOLERANCE
    scores = out_of_fold(responses, marks, splits=3)
    fresh = scores > even_odds(scores, marks)
    sound = FOLDS <= fresh.sum() <= len(fresh) - FOLDS and _quality(fresh, responses.n_pairs, direction) >= bar
    return fresh if sound else marks


def _rounds(responses: Responses, marks: Bools, betas: Sequence[float], direction: float | None) -> Iterator[Bools]:
    """Yield the marks of each round of self-training, until they stand still or have lost their one-sidedness."""
    y = marks
    for beta in betas:
        if not FOLDS <= y.sum() <= len(y) - FOLDS:
            return
        scores = out_of_fold(responses, y)
        fresh = scores > best_agreement(scores, y, beta)
        signs = signed_rows(fresh, responses.n_pairs)
        if direction is not None and direction * sign_z(signs) < HOPELESS:
            return
        if FOLDS <= fresh.sum() <= len(y) - FOLDS:
            yield fresh
        if (fresh == y).all():
            return
        y = fresh


def _quality(marks: Bools, n_pairs: int, direction: float | None) -> float:
    signs = signed_rows(marks, n_pairs)
    majority = (signs * direction > 0).sum() if direction is not None else max((signs > 0).sum(), (signs < 0).sum())
    return float(purity_bound(np.asarray(majority), np.asarray(np.abs(signs).sum())))


def described(readout: Readout, responses: Responses, direction: float | None = None) -> Discovery | None:
    """Return what `readout` finds in the pairs; None for fewer than MIN_ROWS rows, or the other `direction`."""
    signs = signed_rows(readout.fires(responses.bag), responses.n_pairs)
    way = float(np.sign(signs.sum())) if direction is None else direction
    majority, minority = int((signs * way > 0).sum()), int((signs * way < 0).sum())
    if majority < MIN_ROWS or majority <= minority:
        return None
    return Discovery(readout, signs, sign_z(signs), 1.0 - minority / majority)


def sharpest_marks(scores: Floats, responses: Responses, largest: float) -> Bools:
    """Mark the responses above the threshold at which `scores` are most one-sided, in whichever direction.

    Thresholds mark at most the share `largest` of responses; that share is marked when swapping sides at random does as
    well as the best of them in more than one of twenty tries.
    """
    cuts = np.unique(np.quantile(scores, np.linspace(1 - largest, 0.995, 60)))
    signs = np.stack([signed_rows(scores > cut, responses.n_pairs) for cut in cuts], 1)
    columns = sparse.csr_matrix(signs.astype(np.float64))
    z = np.abs(column_z(columns))
    best = int(np.argmax(z)) if z.max() > chance_level(columns, responses.groups, 0.95) else 0
    return np.asarray(scores > cuts[best])


def on_side(rows: Bools, direction: float) -> Bools:
    """Mark the responses of `rows` (n_pairs,) on the side that an effect of `direction` sits on; (2 * n_pairs,)."""
    nobody = np.zeros_like(rows)
    return np.concatenate([rows, nobody] if direction > 0 else [nobody, rows])


def split(responses: Responses, whole: Discovery, bar: float) -> list[Discovery]:
    """Return `whole`, or the two concepts that it mixes.

    A seed that two concepts share grows into their union. So the responses that carry it are parted in two by what
    else fires in them, and each half is grown alone, the other half among the responses that do not show it. Halves
    that come out pure, beyond chance and apart are two concepts; the halves of one concept grow into each other.
    """
    direction = float(np.sign(whole.z))
    carriers = on_side(whole.signs * direction > 0, direction)
    index = np.flatnonzero(carriers)
    if len(index) < 2 * MIN_ROWS:
        return [whole]
    x = normalize(responses.bag.x[index])
    points = TruncatedSVD(min(8, len(index) - 1), random_state=0).fit_transform(x)
    labels = KMeans(2, n_init=4, random_state=0).fit_predict(points)
    halves = [grow(responses, np.isin(np.arange(len(carriers)), index[labels == label]), direction) for label in (0, 1)]
    parts = [half for half in halves if half is not None and abs(half.z) > bar]
    if len(parts) == 2 and overlap(*parts) < APART and min(part.purity for part in parts) >= whole.purity - TOLERANCE:
        return parts
    return [whole]


def overlap(one: Discovery, other: Discovery) -> float:
    """Jaccard index of the rows that carry each effect; 0 for effects of opposite direction."""
    if one.z * other.z < 0:
        return 0.0
    a, b = one.signs * np.sign(one.z) > 0, other.signs * np.sign(other.z) > 0
    return float((a & b).sum() / max(int((a | b).sum()), 1))
