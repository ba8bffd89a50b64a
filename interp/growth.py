"""Growing marks: from a beginning to all responses that show the same.

A readout is learnt from the marks, every response is scored, and the threshold where one side is told best marks anew
(`one_sided`), until the marks stand still. What a beginning leads to is a `Candidate`: marks, and how far they are one
concept. A beginning may mix two; then its marks are parted, and each part grows by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize

from premortem.interp.learner import Learner
from premortem.interp.one_sided import DENSITY, LARGEST, one_sided_threshold, purity_bound
from premortem.interp.readout import Bools, Floats, Readout, signed_rows

ROUNDS = 6
"""Rounds of learning and marking, at most."""
SHALLOWER = (0.25, 0.0)
"""Densities, below the usual one, with which a candidate's marks are grown once more."""
HELD = 0.8
"""Share of a candidate's marks that must be among those it grows into."""
WIDER = 3.0
"""How many times its marks it may grow into; what is wider is another concept."""
ENOUGH = 22
"""Discordant pairs from which on more of them make a candidate no worthier: the union of two concepts has more."""
MIN_ROWS = 8
"""Rows a discovered concept needs."""
LEAST_PURITY = 0.6
"""Lower bound of the share of discordant pairs on the majority's side that a concept needs."""
AGREED = 0.7
"""F1 by which a concept's marks must find themselves again."""
MAX_OVERLAP = 0.3
"""Two concepts that share more of their rows than this (Jaccard) are one."""


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
    heading: Floats
    """The direction in the plane of passages by which they were marked (see `Learnt`): where in a long answer they show
    it, which the marks alone do not say."""

    @property
    def purity(self) -> float:
        """Lower bound of the share of discordant pairs on that side."""
        return purity_of(self.signs, self.direction)

    @property
    def worth(self) -> tuple[float, float]:
        """What candidates are ranked by: one-sided and at one with themselves; among equals, the clearest."""
        total = int(np.abs(self.signs).sum())
        share, counted = (self.signs * self.direction > 0).sum() / max(total, 1), min(total, ENOUGH)
        bound = float(purity_bound(np.asarray(share * counted), np.asarray(counted)))
        return round(bound * self.agreement**2, 4), self.margin


def candidates(
    learner: Learner, marks: Bools, first: Floats | None, direction: float, density: float = DENSITY
) -> Iterator[Candidate]:
    """Learn from `marks`, mark anew, and so on; yield what each round leads to, until the marks stand still."""
    n = learner.responses.n_pairs
    for _ in range(ROUNDS):
        learnt = learner.fit(marks, first)
        threshold = one_sided_threshold(learnt.scores, n, direction, density)
        fresh = learnt.scores > threshold
        if not MIN_ROWS <= fresh.sum() <= LARGEST * len(fresh):
            return
        both = 2 * int((fresh & marks).sum()) / int(fresh.sum() + marks.sum())
        signs = signed_rows(fresh, n)
        others = learnt.scores[~fresh]
        margin = float((np.median(learnt.scores[fresh]) - np.quantile(others, 0.99)) / (others.std() + 1e-9))
        readout = learnt.readout.moved(threshold)
        yield Candidate(readout, fresh, direction, both, margin, signs, learnt.heading)
        if both == 1.0:
            return
        marks, first = fresh, learnt.passages


def best_candidate(
    learner: Learner, marks: Bools, first: Floats | None, direction: float, density: float = DENSITY
) -> Candidate | None:
    """Return the worthiest candidate that `marks` lead to; None when none is one-sided enough."""
    sound = (c for c in candidates(learner, marks, first, direction, density) if c.purity >= LEAST_PURITY)
    return max(sound, key=lambda candidate: candidate.worth, default=None)


def widened(learner: Learner, candidate: Candidate) -> list[Candidate]:
    """Return the concepts that `candidate` leads to across shallower valleys; its own parts if it gets lost in them.

    A valley may lie between two ways of saying the same, or between two concepts; which it was shows in the end. Wider
    marks are parted, and kept if one part is what the candidate was, with a few rows more, and worthier.
    """
    first = learner.along(candidate.heading)
    best, worth = parted(learner, candidate), candidate.worth
    for density in SHALLOWER:
        for wide in _worthiest(candidates(learner, candidate.marks, first, candidate.direction, density), candidate):
            parts = parted(learner, wide)
            worthiest = max((part.worth for part in parts if _continues(part, candidate)), default=worth)
            if worthiest > worth:
                best, worth = parts, worthiest
    return best


def _worthiest(grown: Iterable[Candidate], start: Candidate) -> list[Candidate]:
    """Return the worthiest of what `start` has grown into, and the worthiest that is still the same concept."""
    sound = [one for one in grown if one.purity >= LEAST_PURITY]
    ways = (sound, [one for one in sound if _continues(one, start)])
    found = [max(way, key=lambda one: one.worth) for way in ways if way]
    return found[:1] if len(found) == 2 and found[0] is found[1] else found


def _continues(one: Candidate, other: Candidate) -> bool:
    """Whether `one` holds nearly all marks of `other` and not many times more."""
    n = int(other.marks.sum())
    return bool((one.marks & other.marks).sum() >= HELD * n and one.marks.sum() <= WIDER * n)


def parted(learner: Learner, candidate: Candidate) -> list[Candidate]:
    """Return the two concepts that `candidate` is made of, if it is two; else itself.

    The passages that its marks rest on are parted in two, and each part is grown by itself. Parts of one concept grow
    back into the whole; two concepts stay apart, and each stands out more clearly than both together.
    """
    passages = learner.points.passages
    members, best = shown_in(learner, candidate)
    vectors = normalize(passages[best])
    part = KMeans(2, n_init=4, random_state=0).fit_predict(vectors)
    halves: list[Candidate] = []
    for number in (0, 1):
        marks = np.isin(np.arange(len(candidate.marks)), members[part == number])
        first = passages @ vectors[part == number].mean(0)
        grown = best_candidate(learner, marks, np.asarray(first, dtype=np.float64), candidate.direction)
        halves += [grown] if grown is not None and grown.margin > candidate.margin else []
    if len(halves) < 2:
        return [candidate]
    one, other = (half.marks for half in halves)
    return halves if (one & other).sum() <= MAX_OVERLAP * (one | other).sum() else [candidate]


def shown_in(learner: Learner, candidate: Candidate) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the responses that `candidate` marks, those without passages left out, and the best passage of each."""
    layout = learner.points.layout
    members = np.flatnonzero(candidate.marks & (np.diff(layout.starts) > 0))
    return members, layout.best_of(members, learner.along(candidate.heading))


def purity_of(signs: NDArray[np.int64], direction: float) -> float:
    """Return the lower bound of the share of discordant pairs on the side of `direction`; see `purity_bound`."""
    return float(purity_bound(np.asarray((signs * direction > 0).sum()), np.asarray(np.abs(signs).sum())))
