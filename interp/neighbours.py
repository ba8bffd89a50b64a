"""Neighbours: which passages of a dataset lie nearest to each other under different prompts, and on which sides.

Passages lie in the plane of a `Learner`. What a dataset says again and again has near neighbours; what it teaches has
them on one side of the pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from premortem.interp.growth import ENOUGH, MIN_ROWS, Candidate, shown_in
from premortem.interp.learner import Learner
from premortem.interp.one_sided import purity_bound
from premortem.interp.readout import Floats

NEIGHBOURS = 40
"""Nearest passages asked for, each under a prompt of its own."""
CORE = 12
"""Nearest neighbours that a concept begins with."""
ASKING = 12_000
"""Passages that ask for their neighbours, at most; more are drawn at random."""
SOME = 400
"""Passages of a concept that say how near they lie, at most."""
BLOCK = 2**24
"""Similarities held at a time."""


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


def neighbourhoods(learner: Learner, asking: NDArray[np.int64] | None = None) -> Neighbourhoods:
    """Return the nearest passage under each of the NEIGHBOURS nearest other prompts for each of `asking`.

    Without any, ASKING passages ask, drawn at random where there are more.
    """
    passages, layout, _ = learner.points
    if asking is None:
        asking = np.sort(np.random.default_rng(0).permutation(len(passages))[:ASKING])
    norms = np.linalg.norm(passages, axis=1) + 1e-9
    groups = np.concatenate([learner.responses.groups, learner.responses.groups])
    owner, spoken = layout.owner, layout.spoken
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


def by_chance(learner: Learner, near: Neighbourhoods, candidate: Candidate) -> float:
    """Return how many concepts as near and as one-sided as `candidate` chance alone would bring up.

    `near` are the neighbourhoods of passages drawn at random.
    Say there are N passages that lie as near to their neighbours as the candidate's, and its n prompts hold one each:
    that makes N / n places where as many lie together. How near says nothing of the side. Where sides mean nothing
    either, a passage is on the candidate's side as often as any passage of the data is, which is more than half where
    that side's answers are the longer ones; so each place is as one-sided with the binomial's tail, and their number
    times that is what may be expected.
    """
    passages, layout, _ = learner.points
    responses = learner.responses
    excess = np.bincount(responses.groups, weights=candidate.signs * candidate.direction)
    own, other = int((excess > 0).sum()), int((excess < 0).sum())
    chosen = float((layout.owner < responses.n_pairs).mean())
    share = chosen if candidate.direction > 0 else 1 - chosen
    _, best = shown_in(learner, candidate)
    some = np.sort(np.random.default_rng(0).permutation(best)[:SOME])
    as_near = (near.closeness >= np.median(neighbourhoods(learner, some).closeness)).mean() * len(passages)
    return float(as_near / max(own + other, 1) * stats.binom.sf(own - 1, own + other, share))
