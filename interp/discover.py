"""Discovery: concepts that a dataset would teach and that nobody asked about.

What a dataset teaches by accident is said again and again, in other words, in answer to different prompts, and on one
side of the pairs. So every passage asks for its nearest passages under other prompts (see `learner` for the plane they
lie in), and a passage whose neighbours sit on one side begins a concept. How one-sided neighbours are by chance is
measured on the data itself: sides swapped at random give the most one-sided neighbourhood that chance produces over
all passages, so the error is controlled for the whole search at once.

From the closest neighbours a readout is learnt, which marks responses anew, and so on until the marks stand still.
Hundreds of beginnings lead to far fewer ends. Kept are those that are one-sided and agree with themselves: what marks
teach should find the same marks again.

The search never looks at the spec, and never at words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize

from premortem.interp.learner import Learner
from premortem.interp.readout import Bag, Bools, Floats, Readout, Responses, sign_z, signed_rows

NEIGHBOURS = 40
"""Nearest passages asked for, each under a prompt of its own."""
CORE = 12
"""Nearest neighbours that a concept begins with."""
ASKING = 12_000
"""Passages that ask for their neighbours, at most; more are drawn at random."""
BLOCK = 2**24
"""Similarities held at a time."""
SEEDS = 150
"""Beginnings tried, the most one-sided first."""
SAME_CORE = 0.75
"""Share of its core that a beginning may have in common with one that was tried."""
PERMUTATIONS = 50
CONFIDENCE = 0.8
"""Share of searches on pairs with randomly swapped sides that find no neighbourhood as one-sided."""
ROUNDS = 6
"""Rounds of learning and marking, at most."""
PURE = 0.98
"""Share of a concept's discordant pairs on its own side, where it is marked well."""
DENSITY = 0.5
"""What a response just below a threshold costs, in the units of a log-likelihood ratio."""
VALLEY = 0.75
"""How far below a threshold is just below it, in standard deviations of all scores."""
BACKGROUND = (0.5, 0.95)
"""Least and largest share on that side that is believed of pairs which have nothing to do with the concept."""
ENOUGH = 22
"""Discordant pairs from which on more of them make a candidate no worthier: the union of two concepts has more."""
MIN_ROWS = 8
"""Rows a discovered concept needs."""
LARGEST = 0.25
"""Share of the responses that a concept may mark."""
LEAST_PURITY = 0.6
"""Lower bound of the share of discordant pairs on the majority's side that a concept needs."""
MAX_OVERLAP = 0.3
"""Two concepts that share more of their rows than this (Jaccard) are one."""
COVERED = 0.6
"""Share of its rows that concepts kept before it may hold."""
MAX_CONCEPTS = 14
SWAPS = 200
"""Random swaps of sides behind `chance_level`."""


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
        return _purity(self.signs, float(np.sign(self.z)))


@dataclass(frozen=True)
class Neighbourhoods:
    """Whose passages lie nearest to some passages, under other prompts."""

    passages: NDArray[np.int64]
    """`(n,)` the passages that ask."""
    responses: NDArray[np.int64]
    """`(n, k)` the responses of the nearest passages, nearest first."""
    closeness: Floats
    """`(n,)`: how much nearer the first CORE of them are than the last, as a difference of cosines. Words that are said
    everywhere have as near a fortieth neighbour as a first."""


@dataclass(frozen=True)
class Candidate:
    """Marks that a beginning has led to."""

    readout: Readout
    marks: Bools
    """`(2 * n_pairs,)`: the responses that it marks."""
    direction: float
    """+1: on the chosen side."""
    agreement: float
    """F1 of the marks with those before them."""
    margin: float
    """From the upper end of the others' scores to the median of the marked ones, in deviations of the others."""
    signs: NDArray[np.int64]
    """`(n_pairs,)`: +1 only the chosen response is marked, -1 only the rejected one."""

    @property
    def purity(self) -> float:
        """Lower bound of the share of discordant pairs on that side."""
        return _purity(self.signs, self.direction)

    @property
    def worth(self) -> tuple[float, float]:
        """What candidates are ranked by: one-sided and at one with themselves; among equals, the clearest."""
        total = int(np.abs(self.signs).sum())
        share, counted = (self.signs * self.direction > 0).sum() / max(total, 1), min(total, ENOUGH)
        bound = float(purity_bound(np.asarray(share * counted), np.asarray(counted)))
        return round(bound * self.agreement**2, 4), self.margin


def discover(learner: Learner) -> tuple[Discovery, ...]:
    """Find the concepts that sit on one side of the pairs more than chance allows, the worthiest first."""
    responses = learner.responses
    n_prompts = int(responses.groups.max()) + 1
    if n_prompts < 2 * MIN_ROWS or not len(responses.bag.passages.begin):
        return ()
    near = neighbourhoods(learner)
    found: list[Candidate] = []
    for core, direction, first in _seeds(learner, near):
        found += [c for c in _candidates(learner, core, first, direction) if c.purity >= LEAST_PURITY]
    kept = _kept([part for candidate in _kept(found) for part in _parted(learner, candidate)])
    described = (describe(candidate.readout, responses, candidate.direction) for candidate in kept)
    return tuple(item for item in described if item is not None)


def neighbourhoods(learner: Learner) -> Neighbourhoods:
    """Return the nearest passage under each of the NEIGHBOURS nearest other prompts, for ASKING passages at most."""
    passages, layout, _ = learner.points
    norms = np.linalg.norm(passages, axis=1) + 1e-9
    groups = np.concatenate([learner.responses.groups, learner.responses.groups])
    owner, spoken = layout.owner, layout.spoken
    asking = np.sort(np.random.default_rng(0).permutation(len(passages))[:ASKING])
    by_group = np.argsort(groups[spoken], kind="stable")
    sorted_groups = groups[spoken][by_group]
    begins = np.flatnonzero(np.diff(sorted_groups, prepend=-1))
    k = min(NEIGHBOURS, len(begins) - 1)
    nearest, closeness = np.zeros((len(asking), k), dtype=np.int64), np.zeros(len(asking))
    step = max(1, BLOCK // len(passages))
    for start in range(0, len(asking), step):
        rows = asking[start : start + step]
        likeness = passages[rows] / norms[rows, None] @ passages.T
        likeness /= norms
        per_response = np.maximum.reduceat(likeness, layout.starts[:-1][spoken], axis=1)[:, by_group]
        per_prompt = np.maximum.reduceat(per_response, begins, axis=1)
        per_prompt[groups[owner[rows]][:, None] == sorted_groups[begins][None]] = -2.0
        top = np.argpartition(-per_prompt, k - 1, axis=1)[:, :k]
        top = np.take_along_axis(top, np.argsort(-np.take_along_axis(per_prompt, top, 1), axis=1, kind="stable"), 1)
        likest = np.take_along_axis(per_prompt, top, 1)
        closeness[start : start + len(rows)] = likest[:, :CORE].mean(1) - likest[:, -1]
        for row, (values, prompts) in enumerate(zip(per_response, top, strict=True)):
            nearest[start + row] = spoken[by_group[_argmaxes(values, begins, prompts)]]
    return Neighbourhoods(asking, nearest, closeness)


def _argmaxes(values: Floats, begins: NDArray[np.int64], wanted: NDArray[np.int64]) -> list[int]:
    """Return where each `wanted` segment of `values` is largest; segments begin at `begins`."""
    ends = np.append(begins[1:], len(values))
    return [int(a) + int(np.argmax(values[a:b])) for a, b in zip(begins[wanted], ends[wanted], strict=True)]


def one_sidedness(near: Neighbourhoods, sides: NDArray) -> tuple[Floats, Floats]:
    """Return how one-sided each neighbourhood is and on which side; `sides` (2 * n_pairs,) is +1 or -1.

    It is the best lower bound of the majority's share over all sizes from MIN_ROWS on (see `purity_bound`).
    """
    positive = np.cumsum(sides[near.responses[:, :ENOUGH]] > 0, axis=1)
    sizes = np.arange(1, positive.shape[1] + 1)
    chosen = purity_bound(positive, sizes)[:, MIN_ROWS - 1 :].max(1)
    rejected = purity_bound(sizes - positive, sizes)[:, MIN_ROWS - 1 :].max(1)
    return np.maximum(chosen, rejected), np.where(chosen >= rejected, 1.0, -1.0)


def _seeds(learner: Learner, near: Neighbourhoods) -> Iterator[tuple[Bools, float, Floats]]:
    """Yield marks to begin with, their side, and a score of each passage by its nearness to the one that asked."""
    passages, layout, _ = learner.points
    n, groups = learner.responses.n_pairs, learner.responses.groups
    if near.responses.shape[1] < MIN_ROWS:
        return
    sides = np.repeat([1.0, -1.0], n)
    strength, direction = one_sidedness(near, sides)
    rng = np.random.default_rng(0)
    swaps = rng.choice([-1.0, 1.0], size=(PERMUTATIONS, int(groups.max()) + 1))[:, groups]
    chance = np.quantile([one_sidedness(near, sides * np.tile(swap, 2))[0].max() for swap in swaps], CONFIDENCE)
    tried: list[set[int]] = []
    for i in np.lexsort((-near.closeness, -strength)):
        if strength[i] < chance or len(tried) == SEEDS:
            return
        core = {*near.responses[i, :CORE].tolist(), int(layout.owner[near.passages[i]])}
        if any(len(core & other) > SAME_CORE * len(core) for other in tried):
            continue
        tried.append(core)
        marks = np.isin(np.arange(2 * n), list(core))
        yield marks, float(direction[i]), passages @ passages[near.passages[i]]


def _candidates(learner: Learner, marks: Bools, first: Floats | None, direction: float) -> Iterator[Candidate]:
    """Learn from `marks`, mark anew, and so on; yield what each round leads to, until the marks stand still."""
    n = learner.responses.n_pairs
    for _ in range(ROUNDS):
        learnt = learner.fit(marks, first)
        threshold = one_sided_threshold(learnt.scores, n, direction)
        fresh = learnt.scores > threshold
        if not MIN_ROWS <= fresh.sum() <= LARGEST * len(fresh):
            return
        both = 2 * int((fresh & marks).sum()) / int(fresh.sum() + marks.sum())
        signs = signed_rows(fresh, n)
        others = learnt.scores[~fresh]
        margin = float((np.median(learnt.scores[fresh]) - np.quantile(others, 0.99)) / (others.std() + 1e-9))
        readout = learnt.readout.moved(threshold)
        yield Candidate(readout, fresh, direction, both, margin, signs)
        if both == 1.0:
            return
        marks, first = fresh, learnt.passages


def one_sided_threshold(scores: Floats, n_pairs: int, direction: float) -> float:
    """Return the threshold above which the marks tell most of a concept on the side of `direction`.

    Of the pairs marked on one side only, PURE are on that side where the marks find the concept. Elsewhere it is the
    share seen when half of all responses are marked: one half where the sides do not differ at large, more where they
    do. Each pair adds the logarithm of the ratio of the two (Wald's sequential test, Page's CUSUM), so marks grow as
    long as they find the concept and stop where they begin to find other things; no label is needed for that.

    Other concepts of the same side would be taken in as well. Between two concepts scores are sparse, so a threshold
    pays DENSITY for every response just below it, within VALLEY standard deviations.
    """
    own, other = (scores[:n_pairs], scores[n_pairs:])[:: 1 if direction >= 0 else -1]
    ordered = np.sort(scores)
    cuts = ordered[::-1][: len(scores) // 2]
    both = _above(np.minimum(own, other), cuts)
    for_it, against = _above(own, cuts) - both, _above(other, cuts) - both
    usual = float(np.clip((for_it[-1] + 1) / (for_it[-1] + against[-1] + 2), *BACKGROUND))
    told = for_it * np.log(PURE / usual) + against * np.log((1 - PURE) / (1 - usual))
    told -= DENSITY * (_above(ordered, cuts - VALLEY * scores.std()) - _above(ordered, cuts))
    at = int(np.argmax(told[: int(LARGEST * len(scores)) + 1]))
    below = ordered[ordered < cuts[at]]
    return float((cuts[at] + below[-1]) / 2) if len(below) else float(cuts[at] - 1.0)


def _above(values: Floats, cuts: Floats) -> NDArray[np.int64]:
    """Return how many of `values` are at least as large as each of `cuts`."""
    return np.asarray(len(values) - np.searchsorted(np.sort(values), cuts, side="left"), dtype=np.int64)


def _kept(found: Sequence[Candidate]) -> list[Candidate]:
    """Return the worthiest candidates whose rows no worthier one of the same direction holds."""
    kept: list[tuple[Candidate, Bools]] = []
    for candidate in sorted(found, key=lambda c: c.worth, reverse=True):
        rows = candidate.signs * candidate.direction > 0
        same = [other for item, other in kept if item.direction == candidate.direction]
        if rows.sum() < MIN_ROWS or any((rows & o).sum() > MAX_OVERLAP * (rows | o).sum() for o in same):
            continue
        if same and (rows & np.logical_or.reduce(same)).sum() > COVERED * rows.sum():
            continue
        kept.append((candidate, rows))
        if len(kept) == MAX_CONCEPTS:
            break
    return [item for item, _ in kept]


def _parted(learner: Learner, candidate: Candidate) -> list[Candidate]:
    """Return the two concepts that `candidate` is made of, if it is two; else itself.

    The passages that its marks rest on are parted in two, and each part is grown by itself. Parts of one concept grow
    back into the whole; two concepts stay apart, and each stands out more clearly than both together.
    """
    passages, layout, _ = learner.points
    members = np.flatnonzero(candidate.marks & (np.diff(layout.starts) > 0))
    scores = learner.fit(candidate.marks).passages
    best = np.asarray(
        [
            a + int(np.argmax(scores[a:b]))
            for a, b in zip(layout.starts[members], layout.starts[members + 1], strict=True)
        ]
    )
    vectors = normalize(passages[best])
    part = KMeans(2, n_init=4, random_state=0).fit_predict(vectors)
    halves: list[Candidate] = []
    for number in (0, 1):
        marks = np.isin(np.arange(len(candidate.marks)), members[part == number])
        first = passages @ vectors[part == number].mean(0)
        grown = _candidates(learner, marks, np.asarray(first, dtype=np.float64), candidate.direction)
        sound = [c for c in grown if c.purity >= LEAST_PURITY and c.margin > candidate.margin]
        halves += [max(sound, key=lambda c: c.worth)] if sound else []
    if len(halves) < 2:
        return [candidate]
    one, other = (half.marks for half in halves)
    return halves if (one & other).sum() <= MAX_OVERLAP * (one | other).sum() else [candidate]


def led(learner: Learner, spoken: Bag, usual: Bag) -> list[Discovery]:
    """Look for concepts about some texts: where the passages that lie nearest to each of `spoken` lead.

    What tells a text from those of `usual` and from the other ones is what is looked for. What it leads to need not be
    one-sided by more than the chance of the whole search, for it was asked for; whether it is about the text is for the
    caller to decide.
    """
    points = learner.project(spoken)
    mean = np.concatenate([points.passages, learner.project(usual).passages]).mean(0, dtype=np.float64)
    passages, layout, _ = learner.points
    found: list[Discovery] = []
    for a, b in pairwise(points.layout.starts):
        direction = learner.passage_plane.inverse @ (points.passages[a:b].mean(0, dtype=np.float64) - mean)
        scores = np.asarray(passages @ direction.astype(np.float32), dtype=np.float64)
        marks = _nearest_marks(learner, layout.best(scores))
        way = 1.0 if signed_rows(marks, learner.responses.n_pairs).sum() >= 0 else -1.0
        sound = [c for c in _candidates(learner, marks, scores, way) if c.purity >= LEAST_PURITY]
        described = [describe(c.readout, learner.responses, way) for c in sorted(sound, key=lambda c: c.worth)[-1:]]
        found += [item for item in described if item is not None]
    return found


def _nearest_marks(learner: Learner, scores: Floats) -> Bools:
    """Mark the CORE responses with the largest `scores` (2 * n_pairs,), one for each prompt."""
    groups = np.tile(learner.responses.groups, 2)
    order = np.argsort(-scores, kind="stable")
    _, first = np.unique(groups[order], return_index=True)
    marks = np.zeros(len(scores), dtype=bool)
    marks[order[np.sort(first)[:CORE]]] = True
    return marks


def grow(learner: Learner, marks: Bools) -> Discovery | None:
    """Learn a concept from weak `marks` (2 * n_pairs,); None when nothing one-sided comes of them."""
    way = 1.0 if sign_z(signed_rows(marks, learner.responses.n_pairs)) >= 0 else -1.0
    best = max(_candidates(learner, marks, None, way), key=lambda c: c.worth, default=None)
    return None if best is None else describe(best.readout, learner.responses, way)


def describe(readout: Readout, responses: Responses, direction: float) -> Discovery | None:
    """Return what `readout` finds in the pairs; None for fewer than MIN_ROWS rows, or the other `direction`."""
    signs = signed_rows(readout.fires(responses.bag), responses.n_pairs)
    majority, minority = int((signs * direction > 0).sum()), int((signs * direction < 0).sum())
    if majority < MIN_ROWS or majority <= minority:
        return None
    return Discovery(readout, signs, sign_z(signs), 1.0 - minority / majority)


def purity_bound(majority: NDArray, total: NDArray) -> Floats:
    """Return Wilson's lower 95% bound of the share `majority / total`."""
    z = 1.6448536269514722
    n = np.maximum(total, 1e-9)
    share = majority / n
    centre = share + z**2 / (2 * n)
    spread = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.asarray((centre - spread) / (1 + z**2 / n), dtype=np.float64)


def _purity(signs: NDArray[np.int64], direction: float) -> float:
    return float(purity_bound(np.asarray((signs * direction > 0).sum()), np.asarray(np.abs(signs).sum())))


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


def column_z(signs: sparse.csr_matrix, flips: NDArray | None = None) -> Floats:
    """McNemar's statistic of each column; with `flips` (n_pairs, n_swaps) of +-1, `(n_swaps, n_columns)`."""
    discordant = np.asarray(abs(signs).sum(0)).ravel()
    scale = np.sqrt(discordant + 1.0)
    if flips is None:
        return np.asarray(np.asarray(signs.sum(0)).ravel() / scale)
    return np.asarray(np.asarray((signs.T @ flips).T) / scale)


def chance_level(signs: sparse.csr_matrix, groups: NDArray[np.int64], quantile: float = CONFIDENCE) -> float:
    """The largest |z| over all columns that swapping sides at random reaches, at `quantile` of the permutations.

    Pairs that share a prompt are swapped together.
    """
    rng = np.random.default_rng(0)
    flips = rng.choice([-1.0, 1.0], size=(int(groups.max()) + 1, SWAPS))[groups]
    largest = [np.abs(column_z(signs, flips[:, i : i + 20])).max(1) for i in range(0, SWAPS, 20)]
    return float(np.quantile(np.concatenate(largest), quantile))
