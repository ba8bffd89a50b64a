"""How well the two sides of the pairs can be told apart: how consistent a preference is.

Where nearly every pair prefers the same, training soon meets them all and its push ends, so that shifts stay behind
what was forecast; where the sides can hardly be told apart, there is little that a model could learn but the pairs
themselves. `tests/bench/skill.md` has the figures.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import GroupKFold, cross_val_predict

from premortem.interp.sides import Sides

FOLDS = 5
MOST_PAIRS = 1500
"""Pairs looked at, at most; more are drawn at random."""
WIDE = 2048
"""Features made wide at a time: rows that share many features are multiplied faster when they are dense."""
PENALTY = 10.0
"""Ridge penalty, in units of a pair's mean square."""


def told_apart(responses: Sides) -> float | None:
    """Return the share of pairs whose sides a linear probe tells apart under prompts it has not seen, 0.5 to 1 or so.

    The probe is a ridge regression without intercept on the differences, chosen minus rejected, in how many tokens each
    feature fires on, each in units of its root mean square. None for fewer than FOLDS prompts, or where no feature
    fires on one side more than on the other.
    """
    pairs = np.sort(np.random.default_rng(0).permutation(responses.n_pairs)[:MOST_PAIRS])
    prompts = responses.groups[pairs]
    if len(np.unique(prompts)) < FOLDS:
        return None
    chosen, rejected = responses.both(responses.shares)
    difference = (chosen[pairs] - rejected[pairs]).tocsr()
    squares = np.asarray(difference.multiply(difference).mean(0)).ravel()
    scale = np.divide(1.0, np.sqrt(squares), out=np.zeros_like(squares), where=squares > 0)
    similar = _products((difference @ sparse.diags(scale)).tocsc())
    size = float(np.trace(similar)) / len(pairs)
    if size == 0:
        return None
    probe = KernelRidge(alpha=PENALTY, kernel="precomputed")
    said = cross_val_predict(probe, similar / size, np.ones(len(pairs)), groups=prompts, cv=GroupKFold(FOLDS))
    return round(float((said > 0).mean()), 4)


def _products(rows: sparse.csc_matrix) -> NDArray[np.float64]:
    """Return the inner products of `rows` (n, d_sae) with each other, (n, n)."""
    products = np.zeros((rows.shape[0], rows.shape[0]))
    for begin in range(0, rows.shape[1], WIDE):
        some = rows[:, begin : begin + WIDE].toarray()
        products += some @ some.T
    return products
