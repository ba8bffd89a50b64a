"""Forecasters: several ways from the same pairs to effects, behind one interface.

All answer in one unit, the change in the share of responses that show a concept, so that they can be compared and
later be judged by real training. Which of them is right is an open question; none claims a figure here.

- `mean-difference`: share of pairs where only the chosen response fires minus the share where only the rejected does.
- `disparity`: the published statistic. Per pair, the mean over the concept's features of 1{share of tokens > tau} for
  the chosen minus the same for the rejected response (arXiv 2606.12360, appendix B.1).
- `logit`: Bradley-Terry. A ridge logistic regression of "this side was chosen" on the signs of all concepts at once
  with the log length difference unpenalised (length control as in arXiv 2510.26202); a concept's effect is its win
  rate over even odds, 2 sigma(beta) - 1, times the share of pairs in which the sides differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from premortem.interp.groups import TAU
from premortem.interp.readout import Readout, Sides

ForecasterName = Literal["mean-difference", "disparity", "logit"]
FORECASTERS: tuple[str, ...] = get_args(ForecasterName)
FITTED: tuple[ForecasterName, ...] = ("logit",)
"""Forecasters that are fitted on all pairs at once, so that what one pair adds depends on the others."""
FEATURES = 32
"""Features that speak for a concept in `disparity`, at most."""
RIDGE = 1.0
"""Penalty per unit of beta squared in `logit`, in pairs."""
Values = NDArray[np.float64]


def mean_difference(responses: Sides, readouts: Sequence[Readout]) -> Values:
    """Return chosen minus rejected amount per pair and concept, `(n_pairs, n_concepts)`, in each concept's unit."""
    sides = [responses.both(responses.amount(readout)) for readout in readouts]
    return np.stack([chosen - rejected for chosen, rejected in sides], 1)


def disparity(responses: Sides, readouts: Sequence[Readout]) -> Values:
    """Return u per pair and concept, `(n_pairs, n_concepts)`, over the features that speak for the concept."""
    fires = (responses.shares > TAU).tocsc()
    chosen, rejected = fires[: responses.n_pairs], fires[responses.n_pairs :]

    def u(readout: Readout) -> Values:
        features = [feature for feature, weight in readout.strongest(FEATURES) if weight > 0]
        difference = chosen[:, features].sum(1).astype(float) - rejected[:, features].sum(1).astype(float)
        return np.asarray(difference).ravel() / max(len(features), 1)

    return np.stack([u(readout) for readout in readouts], 1)


def logit(responses: Sides, readouts: Sequence[Readout]) -> Values:
    """Return the sign per pair times the concept's controlled win rate over even odds, `(n_pairs, n_concepts)`."""
    signs = np.sign(mean_difference(responses, readouts))
    chosen, rejected = responses.both(responses.lengths)
    beta = bradley_terry(signs, np.log1p(chosen) - np.log1p(rejected))
    return np.abs(signs) * (2 * expit(beta) - 1)


def bradley_terry(signs: Values, log_length: Values) -> Values:
    """Fit P(chosen wins) = sigma(signs @ beta + gamma * log_length) with a ridge on beta (n_concepts,)."""
    x = np.column_stack([signs, log_length])
    penalty = np.append(np.full(signs.shape[1], RIDGE), 0.0)

    def loss(beta: Values) -> tuple[float, Values]:
        margin = x @ beta
        value = np.logaddexp(0, -margin).sum() + 0.5 * (penalty * beta**2).sum()
        return float(value), -x.T @ expit(-margin) + penalty * beta

    start = np.zeros(x.shape[1])
    bounds = [(-10, 10)] * len(start)  # the unpenalised length may separate small data perfectly
    return minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x[:-1]


_TABLE: dict[str, Callable[[Sides, Sequence[Readout]], Values]] = {
    "mean-difference": mean_difference,
    "disparity": disparity,
    "logit": logit,
}


def values_per_pair(name: str, responses: Sides, readouts: Sequence[Readout]) -> Values:
    """Return what each pair adds to each concept's effect under forecaster `name`; the effect is the column mean."""
    if not readouts:
        return np.zeros((responses.n_pairs, 0))
    return _TABLE[name](responses, readouts)
