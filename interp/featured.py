"""Concepts that one feature of the lens stands for: what a dataset teaches in many words, or in none.

A search by passages finds what is said again nearly word for word. A tone, a mark, one intent in many wordings has no
such neighbourhood; but the lens may have a feature for it, and that feature fires on one side of the pairs. Each
feature that does so by more than chance over all features begins a concept, which is grown as any other (`growth`).
Kept is what is still the feature's own in the end: a feature that only led elsewhere says nothing of how wide the
concept is that it led to.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from premortem.interp.growth import AGREED, Candidate, best_candidate
from premortem.interp.learner import Learner
from premortem.interp.one_sided import CONFIDENCE, purity_bound, random_swaps
from premortem.interp.readout import Bools, Floats, best_agreement
from premortem.interp.sides import Responses

SPOKEN = 0.02
"""Share of its tokens on which a feature fires where a response shows it; so a longer response does not show more."""
LEAST_ROWS = 16
"""Discordant pairs that a feature needs."""
SEEDS = 60
"""Features that concepts are grown from, the most one-sided first."""
SWAPS = 50
"""Random swaps of sides behind the chance level."""
OWN = 0.8
"""Least F1 with which some share of the feature's tokens tells what has grown from it."""


class Seed(NamedTuple):
    """A feature that fires on one side."""

    feature: int
    marks: Bools
    """`(2 * n_pairs,)`: the responses that show it."""
    direction: float
    """+1: on the chosen side."""


def featured(learner: Learner) -> list[Candidate]:
    """Return what grows from single features and stays theirs, the purest first.

    How pure counts the rows too (`Candidate.purity`): of two ways to mark the same, the one that marks more of it.
    """
    shares = learner.responses.shares.tocsc()
    grown = ((seed, best_candidate(learner, seed.marks, None, seed.direction)) for seed in seeds(learner.responses))
    own = [
        candidate
        for seed, candidate in grown
        if candidate is not None
        and candidate.agreement >= AGREED
        and _told_by(shares[:, [seed.feature]].toarray().ravel(), candidate.marks) >= OWN
    ]
    return sorted(own, key=lambda candidate: -candidate.purity)


def seeds(responses: Responses) -> Iterator[Seed]:
    """Yield the features that fire on one side by more than chance, the most one-sided first, SEEDS at most."""
    n = responses.n_pairs
    shown = (responses.shares > SPOKEN).tocsc()
    signs = (shown[:n].astype(np.float64) - shown[n:].astype(np.float64)).tocsc()
    discordant = np.asarray(abs(signs).sum(0)).ravel()
    excess = np.asarray(signs.sum(0)).ravel()
    one_sided = _one_sidedness(excess, discordant)
    chance = _chance(signs, discordant, responses.groups)
    for feature in np.argsort(-one_sided, kind="stable")[:SEEDS]:
        if one_sided[feature] <= 0 or one_sided[feature] < chance:
            return
        marks = shown[:, [feature]].toarray().ravel()
        yield Seed(int(feature), marks, 1.0 if excess[feature] > 0 else -1.0)


def _one_sidedness(excess: Floats, discordant: Floats) -> Floats:
    """Return the lower bound of the majority's share; 0 for features with fewer than LEAST_ROWS discordant pairs."""
    bound = purity_bound((discordant + np.abs(excess)) / 2, discordant)
    return np.asarray(np.where(discordant >= LEAST_ROWS, bound, 0.0))


def _chance(signs: sparse.csc_matrix, discordant: Floats, groups: NDArray[np.int64]) -> float:
    """Return how one-sided the most one-sided feature is where sides are swapped at random, CONFIDENCE of the times."""
    swaps = random_swaps(groups, SWAPS).T
    return float(np.quantile([_one_sidedness(signs.T @ swap, discordant).max() for swap in swaps], CONFIDENCE))


def _told_by(share: Floats, marks: Bools) -> float:
    """Return the largest F1 with `marks` of any threshold on `share` (2 * n_pairs,)."""
    told = share > best_agreement(share, marks)
    return float(2 * (told & marks).sum() / max(told.sum() + marks.sum(), 1))
