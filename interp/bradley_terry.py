"""Bradley-Terry: which signs win, in a ridge logistic regression, and how much each pair has a say in that.

The model is P(chosen wins) = sigma(signs @ beta + gamma * log_length). A coefficient is fitted on all pairs at once, so
how far it would be another on other prompts is in no single pair's difference. It is in what beta becomes without a
prompt, one Newton step from the fit (Pregibon 1981, Logistic regression diagnostics; over clusters as in Bell and
McCaffrey 2002, where it is called CR3). The plain sandwich (Huber 1967), which divides by no leverage, is far too
narrow here: with more concepts than pairs the fit separates the pairs and its residuals say little.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve
from scipy.optimize import minimize
from scipy.special import expit

from premortem.interp.readout import Floats

RIDGE = 1.0
"""Penalty per unit of beta squared, in pairs."""
LENGTH_RIDGE = 1e-3
"""The same of the length, which the fit leaves free: only so that what separates small data can be inverted."""
MOST = 10.0
"""Size of a coefficient, at most: a length without a penalty may separate small data perfectly."""


def bradley_terry(signs: Floats, log_length: Floats) -> Floats:
    """Fit beta (n_concepts,) with a ridge, and the length without, on `signs` (n, n_concepts), `log_length` (n,)."""
    return _fit(signs, log_length)[:-1]


def with_influence(signs: Floats, log_length: Floats, prompts: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return beta (n_concepts,) and how much of it each pair brings, `(n, n_concepts)`, on the average nothing.

    What the pairs of a prompt bring together is how far beta would change without that prompt, to first order;
    `prompts` (n,) numbers them.
    """
    x, beta = np.column_stack([signs, log_length]), _fit(signs, log_length)
    residual = expit(-(x @ beta))
    weight = residual * (1 - residual)
    moves = _inverse_times(x, weight)
    without = np.empty(len(x))
    order = np.argsort(prompts, kind="stable")
    for some in np.split(order, np.flatnonzero(np.diff(prompts[order])) + 1):
        if len(some) <= x.shape[1]:
            leverage = weight[some, None] * (x[some] @ moves[:, some])
            without[some] = np.linalg.solve(np.eye(len(some)) - leverage, residual[some])
        else:  # the same by Woodbury's identity, through the smaller matrix
            others = np.delete(np.arange(len(x)), some)
            score = solve(_curvature(x[others], weight[others]), x[some].T @ residual[some], assume_a="pos")
            without[some] = residual[some] + weight[some] * (x[some] @ score)
    brought = (moves[:-1] * without).T
    return beta[:-1], np.asarray(brought - brought.mean(0))


def _fit(signs: Floats, log_length: Floats) -> Floats:
    x = np.column_stack([signs, log_length])
    penalty = np.append(np.full(signs.shape[1], RIDGE), 0.0)

    def loss(beta: Floats) -> tuple[float, Floats]:
        margin = x @ beta
        value = np.logaddexp(0, -margin).sum() + 0.5 * (penalty * beta**2).sum()
        return float(value), -x.T @ expit(-margin) + penalty * beta

    start = np.zeros(x.shape[1])
    bounds = [(-MOST, MOST)] * len(start)
    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x)


def _penalty(k: int) -> Floats:
    return np.append(np.full(k - 1, RIDGE), LENGTH_RIDGE)


def _curvature(x: Floats, weight: Floats) -> Floats:
    """Return x' diag(weight) x + penalty, `(k, k)`."""
    return np.asarray((x.T * weight) @ x + np.diag(_penalty(x.shape[1])))


def _inverse_times(x: Floats, weight: Floats) -> Floats:
    """Return H^-1 x' (k, n) for H = x' diag(weight) x + penalty, through the smaller of n x n and k x k."""
    n, k = x.shape
    if n > k:
        return np.asarray(solve(_curvature(x, weight), x.T, assume_a="pos"))
    scaled = x.T / _penalty(k)[:, None]
    return np.asarray(scaled @ np.linalg.inv(np.eye(n) + weight[:, None] * (x @ scaled)))
