"""Discovery: concepts that a dataset would teach and that nobody asked about.

What a dataset teaches by accident is said again and again, in other words, in answer to different prompts, and on one
side of the pairs. So every passage asks for its nearest passages under other prompts (see `learner` for the plane they
lie in), and a passage whose neighbours sit on one side begins a concept. How one-sided neighbours are by chance is
measured on the data itself: sides swapped at random give the most one-sided neighbourhood that chance produces over
all passages, so the error is controlled for the whole search at once.

From the closest neighbours a readout is learnt, which marks responses anew, and so on until the marks stand still.
Hundreds of beginnings lead to far fewer ends. Kept are those that are one-sided and agree with themselves: what marks
teach should find the same marks again. Where the lens has a feature that holds several of them (`featured`), it goes
first: four ways of saying the same are one concept.

`discover` never looks at the spec, and never at words. `led` begins at given texts instead: what somebody asks about
may be too rare, or too common on its side, for a blind search.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from premortem.interp.featured import featured
from premortem.interp.growth import (
    AGREED,
    LEAST_PURITY,
    MAX_OVERLAP,
    MIN_ROWS,
    Candidate,
    best_candidate,
    candidates,
    purity_of,
    widened,
)
from premortem.interp.learner import Learner
from premortem.interp.neighbours import CORE, Neighbourhoods, by_chance, neighbourhoods, one_sidedness
from premortem.interp.one_sided import CONFIDENCE
from premortem.interp.readout import Bag, Bools, Floats, Readout, sign_z, signed_rows
from premortem.interp.sides import Responses

SEEDS = 300
"""Beginnings tried, the most one-sided first."""
SAME_CORE = 0.75
"""Share of its core that a beginning may have in common with one that was tried."""
PERMUTATIONS = 50
SAME_ROWS = 0.8
"""F1 of the rows from which a feature's concept is one that passages led to as well; theirs is the closer readout."""
COVERED = 0.6
"""Share of its rows, beyond chance, that concepts kept before it may hold."""
MAX_CONCEPTS = 32


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
    by_chance: float = 0.0
    """How many such concepts chance brings up in the search that found it (see `neighbours.by_chance`); 0 where nobody
    searched blind."""

    @property
    def purity(self) -> float:
        """Lower bound of the share of discordant pairs on the majority's side; see `purity_bound`."""
        return purity_of(self.signs, float(np.sign(self.z)))


def discover(learner: Learner) -> tuple[Discovery, ...]:
    """Find the concepts that sit on one side of the pairs more than chance allows, the worthiest first."""
    responses = learner.responses
    n_prompts = int(responses.groups.max()) + 1
    if n_prompts < 2 * MIN_ROWS or not len(responses.bag.passages.begin):
        return ()
    near = neighbourhoods(learner)
    found: list[Candidate] = []
    for core, direction, first in _seeds(learner, near):
        found += [c for c in candidates(learner, core, first, direction) if c.purity >= LEAST_PURITY]
    grown = (part for candidate in _kept(_worthiest_first(found)) for part in widened(learner, candidate))
    sound = [candidate for candidate in grown if candidate.agreement >= AGREED]
    wider = [one for one in featured(learner) if not any(_same_rows(one, other) for other in sound)]
    kept = _kept([*wider, *_worthiest_first(sound)])
    described = ((candidate, describe(candidate.readout, responses, candidate.direction)) for candidate in kept)
    return tuple(replace(item, by_chance=by_chance(learner, near, one)) for one, item in described if item is not None)


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


def _same_rows(one: Candidate, other: Candidate) -> bool:
    """Whether two candidates have nearly the same rows, by F1."""
    a, b = (item.signs * item.direction > 0 for item in (one, other))
    return one.direction == other.direction and bool(2 * (a & b).sum() >= SAME_ROWS * (a.sum() + b.sum()))


def _worthiest_first(found: Sequence[Candidate]) -> list[Candidate]:
    return sorted(found, key=lambda candidate: candidate.worth, reverse=True)


def _kept(found: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates whose rows none before them of the same direction holds."""
    kept: list[tuple[Candidate, Bools]] = []
    for candidate in found:
        rows = candidate.signs * candidate.direction > 0
        same = [other for item, other in kept if item.direction == candidate.direction]
        if rows.sum() < MIN_ROWS or any((rows & o).sum() > MAX_OVERLAP * (rows | o).sum() for o in same):
            continue
        if same and _beyond_chance(rows, np.logical_or.reduce(same)) > COVERED:
            continue
        kept.append((candidate, rows))
        if len(kept) == MAX_CONCEPTS:
            break
    return [item for item, _ in kept]


def _beyond_chance(rows: Bools, others: Bools) -> float:
    """Return the share of `rows` that `others` hold, beyond what they hold of any rows (as Cohen's kappa does)."""
    usual = others.mean()
    return float((others[rows].mean() - usual) / max(1.0 - usual, 1e-9))


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
        best = best_candidate(learner, marks, scores, way)
        parts = [] if best is None else widened(learner, best)
        described = (describe(part.readout, learner.responses, way) for part in parts)
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
    best = max(candidates(learner, marks, None, way), key=lambda c: c.worth, default=None)
    return None if best is None else describe(best.readout, learner.responses, way)


def describe(readout: Readout, responses: Responses, direction: float) -> Discovery | None:
    """Return what `readout` finds in the pairs; None for fewer than MIN_ROWS rows, or the other `direction`."""
    signs = signed_rows(responses.fires(readout), responses.n_pairs)
    majority, minority = int((signs * direction > 0).sum()), int((signs * direction < 0).sum())
    if majority < MIN_ROWS or majority <= minority:
        return None
    return Discovery(readout, signs, sign_z(signs), 1.0 - minority / majority)
