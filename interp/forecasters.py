"""Forecasters: several ways from the same pairs to effects, behind one interface.

Each says what every pair adds to a concept's effect; the effect is the mean over pairs, in the concept's unit. Which of
them is right, real training decides (`agent validate`); what it has said so far stands in `tests/bench/skill.md`.

- `calibrated`: the weighted sum of `excess` and `tilt`. The first knows what the pairs show, also of what the model
  hardly says; the second knows what comes with it in the model's own answers. A concept that is told by response, not
  by token, is measured as in `mean-difference`. Weights fitted on real runs.
- `excess`: on how many more tokens a response shows a concept than the start model's own answers of that length would,
  chosen minus rejected. The gradient of DPO at the start raises every token of the chosen response against what the
  model expects, and lowers every token of the rejected one so; what the model does anyway moves nothing, and a long
  response pushes more than a short one. By its tokens at first; once its margin is met, a pair pushes no more, however
  long it is, so a response counts with the root of its tokens. A token counts by how much of it is news (see `news`).
  DPO tilts the policy by a factor (arXiv 2305.18290), so that what the model hardly says moves little and no share
  falls below zero: the excess over the concept's share in the data is the factor's logarithm, and the effect is what
  this makes of the share in the model's own answers. What is told by response is measured as in `mean-difference`.
- `pull`: the same, each token counted by how hard DPO pulls at it instead (see `sides`). Asks the start model how
  likely it finds each token, which costs some three times the reading.
- `mean-difference`: how much chosen responses show of a concept minus how much rejected ones do.
- `equal-length`: the same at equal length of both: the intercept of the regression of a pair's difference on its signed
  log length difference (length control as in arXiv 2510.26202, by a line).
- `disparity`: the published statistic. Per pair, the mean over the concept's features of 1{share of tokens > tau} for
  the chosen minus the same for the rejected response (arXiv 2606.12360, appendix B.1).
- `logit`: Bradley-Terry. A ridge logistic regression of "this side was chosen" on the signs of all concepts at once
  with the log length difference unpenalised (arXiv 2510.26202); a concept's effect is its win rate over even odds,
  2 sigma(beta) - 1, times the share of pairs in which the sides differ. Its interval is that of the fit (see
  `bradley_terry`).
- `own-gap`: how much chosen responses show of a concept minus how much the start model's own answers do. The gap that
  supervised fine-tuning closes (the projection difference of arXiv 2507.21509).
- `tilt`: DPO's optimum is the start policy tilted by exp(reward / beta) (arXiv 2305.18290), so to first order an effect
  is the covariance of the concept with the reward over the start model's own answers. The reward is where a
  Bradley-Terry fit on the shares of common features begins: strongly regularised, so that it stays a sum over pairs.
- `first-order`: the same covariance with what one small step of DPO does to the log-probability of each of those
  answers, by the model's gradients and without features (see `first_order`). A reference: it costs what an epoch of
  training does, and tells the order of effects, not their size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from premortem.interp.bradley_terry import with_influence
from premortem.interp.effects import prompt_sums
from premortem.interp.errors import DataError
from premortem.interp.groups import TAU
from premortem.interp.readout import Bag, Readout, amounts, of_concepts
from premortem.interp.sides import Sides, Weight

ForecasterName = Literal[
    "calibrated",
    "excess",
    "pull",
    "mean-difference",
    "equal-length",
    "disparity",
    "logit",
    "own-gap",
    "tilt",
    "first-order",
]
FORECASTERS: tuple[ForecasterName, ...] = get_args(ForecasterName)
DEFAULT: ForecasterName = "calibrated"
FITTED: tuple[ForecasterName, ...] = ("logit",)
"""Forecasters that are fitted on all pairs at once, so that what one pair adds depends on the others."""
DEAR: tuple[ForecasterName, ...] = ("first-order",)
"""Forecasters that cost about as much as training does: asked only by name."""
ONE_SIDED: tuple[ForecasterName, ...] = ("own-gap",)
"""Forecasters that look at the chosen side alone, so that swapping the sides of a pair does not turn its sign."""
TESTED: tuple[ForecasterName, ...] = ("calibrated", "excess", "pull", "tilt")
"""Forecasters that real runs have been compared with closely."""
FEATURES = 32
"""Features that speak for a concept in `disparity`, at most."""
COMMON = 0.25
"""Share of responses in which a feature fires to take part in the reward: how the own answers vary in a seldom one says
little, they are few."""
TILT = 0.025
"""How far training goes along the reward. Fitted on real runs."""
DATA_TOKENS = 10_000
"""Tokens that the data's share of a concept counts for beside the start model's answers, which are few."""
RARE = 0.01
"""Share of tokens added to the data's share of a concept, so that none is forecast to move by multiples of itself."""
REACH = 1.6
"""How far a training goes: what the factor's logarithm is in units of the relative excess. Fitted on real runs."""
MOST_LOG = 1.0
"""Size that the factor's logarithm never reaches: the more a concept is pushed, the sooner its push ends."""
STRAY = (1.3, 0.1, 0.45, 2.0)
"""How far training strays from a forecast, as standard deviations: in standard errors, since a training on few pairs is
a draw of its own; in deviations of the concept's amount over own answers, since it also goes where no pair points; and
as shares of the effect itself, towards zero and away from it, since nobody knows how far training will go. Fitted on
real runs, see `tests/bench/skill.md`."""
CALIBRATED: dict[ForecasterName, float] = {"excess": 0.55, "tilt": 0.55}
"""Weights of `calibrated`, by ridge regression on the larger runs of `tests/bench/skill.md` (`read_skill.py`)."""
LEAST_GROUPS = 10
"""Concepts told by token that a correlation of the parts of `calibrated` is taken over, at least."""
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Own:
    """Answers of the start model itself to prompts of the data."""

    bag: Bag
    """As the lens reads them."""
    prompts: NDArray[np.int64]
    """`(n_answers,)`: the number of each answer's prompt, as in `Sides.prompts`."""

    def expected(self, values: Values, prompts: NDArray[np.int64]) -> Values:
        """Return the mean of `values` (n_answers, k) for each of `prompts` (n,), and over all where none was asked."""
        asked = np.isin(prompts, self.prompts)
        means = prompt_sums(values, self.prompts) / np.maximum(np.bincount(self.prompts), 1)[:, None]
        known = np.where(asked, prompts, self.prompts[0])
        return np.where(asked[:, None], means[known], values.mean(0))


Answers = Callable[[], Own]
"""Lets the start model answer; called only by a forecaster that needs it."""


def excess(responses: Sides, readouts: Sequence[Readout], answers: Answers | None = None) -> Values:
    """Return chosen minus rejected excess per pair and concept, `(n_pairs, n_concepts)`, in each concept's unit."""
    return _excess(responses, readouts, answers, "news")


def pull(responses: Sides, readouts: Sequence[Readout], answers: Answers | None = None) -> Values:
    """Return the same with each token counted by how hard DPO pulls at it, `(n_pairs, n_concepts)`."""
    return _excess(responses, readouts, answers, "pull")


def _excess(responses: Sides, readouts: Sequence[Readout], answers: Answers | None, weight: Weight) -> Values:
    """Return chosen minus rejected excess per pair and concept, tokens counted by `weight`."""
    found = responses.amounts(readouts)
    chosen, rejected = responses.both(found)
    values = np.asarray(chosen - rejected)
    by_token = [i for i, readout in enumerate(readouts) if readout.unit == "tokens"]
    if not by_token:
        return values
    told, shares, own = [readouts[i] for i in by_token], found[:, by_token], _asked(answers)
    said, lengths = amounts(own.bag, told), np.diff(own.bag.starts)
    n_own = int(lengths.sum())
    usual = lengths @ said / max(n_own, 1)
    written = responses.lengths @ shares / max(int(responses.lengths.sum()), 1)
    shown = (n_own * usual + DATA_TOKENS * written) / (n_own + DATA_TOKENS)
    chosen, rejected = responses.both(_above(responses, told, usual, weight))
    values[:, by_token] = chosen - rejected
    values[:, by_token] *= tilted(values[:, by_token].mean(0), written, shown)
    return values


def _above(responses: Sides, readouts: Sequence[Readout], usual: Values, weight: Weight) -> Values:
    """Return by how much each response shows each concept above its `usual` share (n,), `(2 * n_pairs, n)`.

    Tokens count by `weight`, a response by the root of its tokens; so scaled that both are 1 on the average.
    """
    tokens, firing = responses.weighed(weight)
    roots = np.sqrt(responses.lengths)
    per_root = float(roots.mean()) * float(tokens.sum()) / max(float(responses.lengths.sum()), 1e-12)
    weights = 1 / np.maximum(roots * per_root, 1e-12)
    return np.asarray((of_concepts(firing, readouts) - tokens[:, None] * usual) * weights[:, None])


def tilted(excess: Values, written: Values, shown: Values) -> Values:
    """Return what to multiply each concept's excess by, `(n_concepts,)`, so that it becomes a change of `shown`.

    That change is shown * (exp(log) - 1) with log = REACH * excess / (written + RARE) bent so that it stays below
    MOST_LOG, by a hyperbolic tangent: `written` is the concept's share of the data's tokens, `shown` that of the
    model's own, all `(n_concepts,)`.
    """
    per_excess = REACH / (written + RARE)
    log = per_excess * excess
    safe = np.where(np.abs(log) < 1e-9, 1e-9, log)
    return np.asarray(shown * per_excess * np.expm1(MOST_LOG * np.tanh(safe / MOST_LOG)) / safe)


def mean_difference(responses: Sides, readouts: Sequence[Readout], answers: Answers | None = None) -> Values:
    """Return chosen minus rejected amount per pair and concept, `(n_pairs, n_concepts)`, in each concept's unit."""
    chosen, rejected = responses.both(responses.amounts(readouts))
    return np.asarray(chosen - rejected)


def equal_length(responses: Sides, readouts: Sequence[Readout], answers: Answers | None = None) -> Values:
    """Return the difference of amounts minus what goes with the difference in length, `(n_pairs, n_concepts)`."""
    values, x = mean_difference(responses, readouts), log_length_difference(responses)
    centred = x - x.mean()
    variance = float(centred @ centred)
    slopes = centred @ values / variance if variance > 0 else np.zeros(values.shape[1])
    return np.asarray(values - np.outer(x, slopes))


def disparity(responses: Sides, readouts: Sequence[Readout], answers: Answers | None = None) -> Values:
    """Return u per pair and concept, `(n_pairs, n_concepts)`, over the features that speak for the concept."""
    fires = (responses.shares > TAU).tocsc()
    chosen, rejected = fires[: responses.n_pairs], fires[responses.n_pairs :]

    def u(readout: Readout) -> Values:
        features = readout.speaking(FEATURES)
        difference = chosen[:, features].sum(1).astype(float) - rejected[:, features].sum(1).astype(float)
        return np.asarray(difference).ravel() / max(len(features), 1)

    return np.stack([u(readout) for readout in readouts], 1)


def logit(responses: Sides, readouts: Sequence[Readout], answers: Answers | None = None) -> Values:
    """Return what each pair adds to the concept's controlled win rate over even odds, `(n_pairs, n_concepts)`.

    That is the share of it that is due to the sides differing in this pair, and how much the fit owes to the pair: so
    the values vary as the fit does.
    """
    signs = np.sign(mean_difference(responses, readouts))
    beta, influence = with_influence(signs, log_length_difference(responses), responses.groups)
    differ, wins = np.abs(signs), expit(beta)
    return np.asarray(differ * (2 * wins - 1) + 2 * wins * (1 - wins) * differ.mean(0) * len(signs) * influence)


def own_gap(responses: Sides, readouts: Sequence[Readout], answers: Answers | None = None) -> Values:
    """Return the chosen response's amount minus that of own answers to the same prompt, `(n_pairs, n_concepts)`."""
    own = _asked(answers)
    chosen, _ = responses.both(responses.amounts(readouts))
    return np.asarray(chosen - own.expected(amounts(own.bag, readouts), responses.prompts))


def tilt(responses: Sides, readouts: Sequence[Readout], answers: Answers | None = None) -> Values:
    """Return what each pair adds to the covariance of amount and reward over own answers, `(n_pairs, n_concepts)`.

    The reward of a response is its features' shares weighed by w, the mean over pairs of their differences in units of
    variance, as a Bradley-Terry fit begins; it is a sum over pairs, and so is the covariance.
    """
    own = _asked(answers)
    assert own.bag.shares is not None
    fires = np.asarray((responses.shares > 0).mean(0)).ravel()
    kept = np.flatnonzero(fires >= COMMON)
    shares, heard = (each.tocsc()[:, kept] for each in (responses.shares, own.bag.shares))
    variance = np.asarray(shares.multiply(shares).mean(0) - np.square(shares.mean(0))).ravel()
    said = amounts(own.bag, readouts)
    covariance = heard.T @ (said - said.mean(0)) / max(len(said), 1)
    chosen, rejected = responses.both(shares.tocsr())
    return np.asarray((chosen - rejected) @ (TILT * covariance / np.maximum(variance, 1e-12)[:, None]))


def first_order(responses: Sides, readouts: Sequence[Readout], answers: Answers | None = None) -> Values:
    """Return what each pair adds to the covariance of amount and first step over own answers, `(n_pairs, n_concepts)`.

    A step is so long that, along the gradient of one pair, it changes the answers' log-probabilities by one nat on the
    average, as a standard deviation: how far training goes is not told.
    """
    own, raised = _asked(answers), responses.steps
    said = amounts(own.bag, readouts)
    usual = float(raised.std(1).mean())
    return np.asarray(raised @ (said - said.mean(0)) / max(raised.shape[1] * usual, 1e-12))


def calibrated(responses: Sides, readouts: Sequence[Readout], answers: Answers | None = None) -> Values:
    """Return the weighted sum of other forecasters' values per pair and concept, `(n_pairs, n_concepts)`."""
    values = excess(responses, readouts, answers)
    by_token = [i for i, readout in enumerate(readouts) if readout.unit == "tokens"]
    if by_token:
        tilted_to = tilt(responses, [readouts[i] for i in by_token], answers)
        values[:, by_token] = CALIBRATED["excess"] * values[:, by_token] + CALIBRATED["tilt"] * tilted_to
    return values


def parts_agree(responses: Sides, readouts: Sequence[Readout], answers: Answers | None = None) -> float | None:
    """Return Pearson's correlation of the effects of the two parts of `calibrated`, -1 to 1, to four digits.

    It is over those of `readouts` that are told by token; None for fewer than LEAST_GROUPS of them, or where either
    part says the same of all.
    """
    told = [readout for readout in readouts if readout.unit == "tokens"]
    if len(told) < LEAST_GROUPS:
        return None
    parts = np.stack([values_per_pair(name, responses, told, answers).mean(0) for name in CALIBRATED])
    if (np.ptp(parts, axis=1) <= 1e-9 * np.abs(parts).max(1)).any():
        return None
    return round(float(np.corrcoef(parts)[0, 1]), 4)


def tested(name: str, readouts: Sequence[Readout]) -> NDArray[np.bool_]:
    """Return for which concepts real runs have told what training makes of a forecast, `(n_concepts,)`.

    Those told by token, of `calibrated` and of what it is made of or much the same.
    """
    return np.asarray([name in TESTED and readout.unit == "tokens" for readout in readouts], dtype=bool)


def model_error(name: str, readouts: Sequence[Readout], answers: Answers | None) -> Callable[[Values], Values]:
    """Return what tells how far training strays from the column means of values (n_pairs, n_concepts) beyond chance.

    Standard deviations, `(2, n_concepts)`, towards zero and away from it; 0 where that is not `tested`.
    """
    known, spreads = tested(name, readouts), np.zeros(len(readouts))
    if known.any():
        spreads[known] = amounts(_asked(answers).bag, list(compress(readouts, known))).std(0)
    draw, drift, towards, away = STRAY

    def error(values: Values) -> Values:
        least = np.hypot(draw * values.std(0) / np.sqrt(len(values)), drift * spreads)
        effects = np.outer([towards, away], values.mean(0))
        return np.where(known, np.hypot(least, effects), 0.0)

    return error


def log_length_difference(responses: Sides) -> Values:
    """Return the log of the chosen response's tokens minus that of the rejected one's, `(n_pairs,)`."""
    chosen, rejected = responses.both(responses.lengths)
    return np.asarray(np.log1p(chosen) - np.log1p(rejected))


def _asked(answers: Answers | None) -> Own:
    if answers is None:
        raise DataError("this forecaster asks the start model for answers of its own, and there is no model to ask")
    return answers()


_TABLE: dict[str, Callable[[Sides, Sequence[Readout], Answers | None], Values]] = {
    "calibrated": calibrated,
    "excess": excess,
    "pull": pull,
    "mean-difference": mean_difference,
    "equal-length": equal_length,
    "disparity": disparity,
    "logit": logit,
    "own-gap": own_gap,
    "tilt": tilt,
    "first-order": first_order,
}


def values_per_pair(name: str, responses: Sides, readouts: Sequence[Readout], answers: Answers | None = None) -> Values:
    """Return what each pair adds to each concept's effect under forecaster `name`; the effect is the column mean.

    Raises DataError where the forecaster needs to ask the start model and cannot.
    """
    if not readouts:
        return np.zeros((responses.n_pairs, 0))
    return _TABLE[name](responses, readouts, answers)
