"""What sits on one side of the pairs: statistics of marks and of scores, chance and thresholds.

A mark says that a response shows something. Pairs in which only one response is marked are discordant, and what the
data teaches is their excess on one side. Nothing here knows where marks come from.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from premortem.interp.readout import Bools, Floats, signed_rows
from premortem.interp.sides import Responses

LARGEST = 0.45
"""Share of the responses that a concept may mark."""
PURE = 0.98
"""Share of a concept's discordant pairs on its own side, where it is marked well."""
BACKGROUND = (0.5, 0.95)
"""Least and largest share on that side that is believed of pairs which have nothing to do with the concept."""
DENSITY = 0.5
"""What a response just below a threshold costs, in the units of a log-likelihood ratio."""
VALLEY = 0.75
"""How far below a threshold is just below it, in standard deviations of all scores."""
CONFIDENCE = 0.8
"""Share of searches on pairs with randomly swapped sides that find nothing as one-sided."""
SWAPS = 200
"""Random swaps of sides behind `chance_level`."""


def purity_bound(majority: NDArray, total: NDArray) -> Floats:
    """Return Wilson's lower 95% bound of the share `majority / total`."""
    z = 1.6448536269514722
    n = np.maximum(total, 1e-9)
    share = majority / n
    centre = share + z**2 / (2 * n)
    spread = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.asarray((centre - spread) / (1 + z**2 / n), dtype=np.float64)


def one_sided_threshold(scores: Floats, n_pairs: int, direction: float, density: float = DENSITY) -> float:
    """Return the threshold above which the marks tell most of a concept on the side of `direction`.

    Of the pairs marked on one side only, PURE are on that side where the marks find the concept. Elsewhere it is the
    share seen when half of all responses are marked: one half where the sides do not differ at large, more where they
    do. Each pair adds the logarithm of the ratio of the two (Wald's sequential test, Page's CUSUM), so marks grow as
    long as they find the concept and stop where they begin to find other things; no label is needed for that.

    Other concepts of the same side would be taken in as well. Between two concepts scores are sparse, so a threshold
    pays `density` for every response just below it, within VALLEY standard deviations.
    """
    own, other = (scores[:n_pairs], scores[n_pairs:])[:: 1 if direction >= 0 else -1]
    ordered = np.sort(scores)
    cuts = ordered[::-1][: len(scores) // 2]
    both = _above(np.minimum(own, other), cuts)
    for_it, against = _above(own, cuts) - both, _above(other, cuts) - both
    usual = float(np.clip((for_it[-1] + 1) / (for_it[-1] + against[-1] + 2), *BACKGROUND))
    told = for_it * np.log(PURE / usual) + against * np.log((1 - PURE) / (1 - usual))
    told -= density * (_above(ordered, cuts - VALLEY * scores.std()) - _above(ordered, cuts))
    at = int(np.argmax(told[: int(LARGEST * len(scores))]))
    below = ordered[ordered < cuts[at]]
    return float((cuts[at] + below[-1]) / 2) if len(below) else float(cuts[at] - 1.0)


def _above(values: Floats, cuts: Floats) -> NDArray[np.int64]:
    """Return how many of `values` are at least as large as each of `cuts`."""
    return np.asarray(len(values) - np.searchsorted(np.sort(values), cuts, side="left"), dtype=np.int64)


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


def random_swaps(groups: NDArray[np.int64], n: int) -> Floats:
    """Return +1 or -1 for each pair and each of `n` random swaps of sides, `(n_pairs, n)`; the same every time.

    Pairs that share a prompt, by their number in `groups` (n_pairs,), are swapped together.
    """
    chance = np.random.default_rng(0)
    return np.asarray(chance.choice([-1.0, 1.0], size=(int(groups.max()) + 1, n))[groups])


def chance_level(signs: sparse.csr_matrix, groups: NDArray[np.int64], quantile: float = CONFIDENCE) -> float:
    """The largest |z| over all columns that swapping sides at random reaches, at `quantile` of the permutations.

    Pairs that share a prompt are swapped together.
    """
    flips = random_swaps(groups, SWAPS)
    largest = [np.abs(column_z(signs, flips[:, i : i + 20])).max(1) for i in range(0, SWAPS, 20)]
    return float(np.quantile(np.concatenate(largest), quantile))
