"""Skill: how well a forecast said what training then did.

The learned shift of a concept is the mean over prompts of how much of it rollouts of the trained model show minus how
much those of the start model do, in the concept's unit. A forecast is held against it over all concepts that are seen
often enough, never over the strongest alone, which would flatter it. Rollouts are few, so the shifts are noisy
themselves: what a perfect forecast would reach is the reliability of the shifts, estimated from random halves of the
prompts and stepped up to all of them (Spearman 1910, Brown 1910). An R2 means nothing without that ceiling beside it,
nor without what a forecast from pairs with randomly swapped sides reaches.

Within topics the topic's own prompts are what is halved, resampled and counted, topic by topic: a half of all prompts
would hold now more, now less of a topic, and shifts would look noisier than they are.

One training is a draw itself: another seed shifts other concepts, and no forecast from the pairs alone knows which.
Where several trainings were run the learned shift is their mean, and `training_ceiling` tells how much of it a further
training on the same pairs would show as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from premortem.interp.effects import Z90, prompt_sums
from premortem.interp.errors import DataError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LEAST_CONCEPTS = 3
"""Concepts that a correlation needs."""
LEAST_PROMPTS = 4
"""Prompts that halves need."""
SPLITS = 200
"""Random halves of the prompts."""
RESAMPLES = 1000
"""Bootstrap samples of the prompts."""
NULL_QUANTILE = 0.95


@dataclass(frozen=True)
class Outcome:
    """What training did to some concepts."""

    shifts: Floats
    """`(n_prompts, n_concepts)`: how much rollouts show of the concept after training minus before, in its unit, -1 to
    1."""
    rates: Floats
    """`(n_concepts,)`: share of all rollouts, of both models, in which the concept is seen, 0 to 1."""
    each: tuple[Floats, ...] = ()
    """The shifts of each training, `(n_prompts, n_concepts)`, whose mean are `shifts`; none where there was one."""
    inside: Bools | None = None
    """`(n_prompts, n_concepts)`: which prompts belong to the topic within which each concept is told. All others have
    no shift, and those that do are so scaled that their mean over all prompts is that of the topic. None: no topics."""
    resolution: Floats | float = 0.0
    """`(n_concepts,)`: the least that one answer moves each learned shift by, in its unit; half of that is the least
    standard error, also where no answer differs from another."""

    @property
    def learned(self) -> Floats:
        """`(n_concepts,)`: the learned shift, -1 to 1."""
        return self.shifts.mean(0)

    @property
    def n_prompts(self) -> NDArray[np.int64]:
        """`(n_concepts,)`: the prompts that tell of each concept."""
        every = np.full(self.shifts.shape[1], len(self.shifts))
        return every if self.inside is None else self.inside.sum(0)

    def interval(self) -> tuple[Floats, Floats]:
        """Return the ends of each learned shift's 90% interval, with the prompt as the unit: Student's t.

        Within a topic it is over the topic's own prompts, two at least.
        """
        n, counts = self.n_prompts, True if self.inside is None else self.inside
        apart = (self.shifts * n / len(self.shifts) - self.learned) * counts
        error = np.maximum(np.sqrt(np.square(apart).sum(0) / (n - 1) / n), np.asarray(self.resolution) / 2)
        half = stats.t.ppf(0.95, n - 1) * error
        return self.learned - half, self.learned + half

    def seen(self, least_rate: float) -> Bools:
        """Return which concepts are seen in at least that share of rollouts, `(n_concepts,)`."""
        return np.asarray(self.rates >= least_rate)


@dataclass(frozen=True)
class Predicted:
    """A forecast of some concepts' shifts."""

    effect: Floats
    """`(n_concepts,)`, -1 to 1."""
    low: Floats
    """`(n_concepts,)`: lower end of the 90% interval."""
    high: Floats
    """`(n_concepts,)`: upper end."""
    called: NDArray[np.int64]
    """`(n_concepts,)`: +1 called amplified, -1 suppressed, 0 cannot tell."""
    swapped: Floats
    """`(n_swaps, n_concepts)`: effects from the same pairs with the sides of random prompts swapped; may be none."""
    by_prompt: Floats | None = None
    """`(n_prompts, n_concepts)`: what each prompt's pairs add to the effects, their means over prompts;
    None where they are not told apart."""
    inside: Bools | None = None
    """`(n_prompts, n_concepts)`: which prompts belong to the topic within which each concept is told; None: no topics.
    """


@dataclass(frozen=True)
class Skill:
    """How well a forecast did. NaN where there is nothing to say."""

    n_concepts: int
    """Concepts seen often enough."""
    r2: float
    """Squared correlation of forecast and learned shift, 0 to 1; 0 where the correlation is negative."""
    low: float
    """Lower end of its 90% interval over resampled prompts."""
    high: float
    """Upper end."""
    ceiling: float
    """R2 that a perfect forecast would reach on shifts as noisy as these, 0 to 1."""
    slope: float
    """Of the learned shift on the forecast: 1 where a forecast point is a learned point."""
    sign_accuracy: float
    """Share of the concepts called amplified or suppressed that moved that way."""
    n_called: int
    """How many were called."""
    coverage: float
    """Share of concepts whose learned shift lies in the forecast's 90% interval."""
    reliability: float
    """Of the forecast itself, 0 to 1: how far forecasts from random halves of the prompts agree over the concepts,
    stepped up to all of them. It tells whether other pairs of the same kind would teach the same. Unlike `ceiling` it
    bounds no R2: training sees the very pairs that the forecast saw, so that their draw is no noise for it."""
    null: float
    """R2 that one in twenty forecasts from randomly swapped sides exceeds; NaN where swapping says nothing."""
    training_ceiling: float
    """R2 within reach of a forecast that knows what training does on average over seeds, 0 to 1; NaN for one training.
    """


class Yardstick:
    """An outcome to hold forecasts against; what does not depend on the forecast is worked out once."""

    def __init__(self, outcome: Outcome, *, least_rate: float = 0.02, seed: int = 0) -> None:
        """Take the concepts of `outcome` seen in at least `least_rate` of the rollouts.

        Raises DataError where fewer than LEAST_CONCEPTS are seen, or prompts are fewer than LEAST_PROMPTS, those of a
        topic for the concepts within it.
        """
        kept = outcome.seen(least_rate)
        n_prompts = int(outcome.n_prompts[kept].min(initial=len(outcome.shifts)))
        if kept.sum() < LEAST_CONCEPTS or n_prompts < LEAST_PROMPTS:
            raise DataError(
                f"skill needs {LEAST_CONCEPTS} concepts and {LEAST_PROMPTS} prompts; seen in {least_rate:.0%} of the "
                f"rollouts are {int(kept.sum())} concepts, over {n_prompts} prompts"
            )
        shifts, rng = outcome.shifts[:, kept], np.random.default_rng(seed)
        self._kept, self._learned = kept, shifts.mean(0)
        self._inside = None if outcome.inside is None else outcome.inside[:, kept]
        self._each = [each[:, kept] for each in outcome.each]
        self._resampled = _resampled(shifts, self._inside, rng)
        self._ceiling = ceiling(shifts, rng, self._inside)
        self._state = rng.bit_generator.state
        self._in_common: dict[str, float] = {}

    def measure(self, predicted: Predicted) -> Skill:
        """Return how well a forecast of the same concepts did, whichever were measured before."""
        kept, learned, rng = self._kept, self._learned, np.random.default_rng()
        rng.bit_generator.state = self._state
        effect, called = predicted.effect[kept], predicted.called[kept]
        low, high = _interval(effect, learned, self._resampled)
        right = (np.sign(learned) == called)[called != 0]
        nulls = [_r2(swapped, learned) for swapped in predicted.swapped[:, kept]]
        covered = (predicted.low[kept] <= learned) & (learned <= predicted.high[kept])
        return Skill(
            n_concepts=int(kept.sum()),
            r2=_r2(effect, learned),
            low=low,
            high=high,
            ceiling=self._ceiling,
            slope=_slope(effect, learned),
            sign_accuracy=float(right.mean()) if len(right) else float("nan"),
            n_called=len(right),
            coverage=float(covered.mean()),
            reliability=_reliability(predicted, kept, rng),
            null=float(np.quantile(nulls, NULL_QUANTILE)) if nulls else float("nan"),
            training_ceiling=self._training_ceiling(rng),
        )

    def _training_ceiling(self, rng: np.random.Generator) -> float:
        """Return what trainings have in common; where `rng` stands depends on what the reliability has drawn."""
        state = str(rng.bit_generator.state)
        if state not in self._in_common:
            self._in_common[state] = training_ceiling(self._each, rng, self._inside)
        return self._in_common[state]


def measure_skill(predicted: Predicted, outcome: Outcome, *, least_rate: float = 0.02, seed: int = 0) -> Skill:
    """Hold one forecast against `outcome`; see `Yardstick`."""
    return Yardstick(outcome, least_rate=least_rate, seed=seed).measure(predicted)


def explained(effect: Floats, outcome: Outcome, least_rate: float = 0.02) -> float:
    """Return the R2 of `effect` (n_concepts,) alone, over the concepts that `measure_skill` would count."""
    kept = outcome.seen(least_rate)
    return _r2(effect[kept], outcome.learned[kept])


def ceiling(shifts: Floats, rng: np.random.Generator, inside: Bools | None = None) -> float:
    """Return the reliability of the mean of `shifts` (n_prompts, n_concepts) over concepts, 0 to 1.

    For two halves that correlate by r it is 2 r / (1 + r); r is the mean over SPLITS random halves. The squared
    correlation of the true shifts with the measured ones is this reliability, so no forecast does better but by chance.
    `inside` (n_prompts, n_concepts) marks the prompts of the topic within which each concept is told, four at least.
    """
    first, second = _half_means(shifts, inside, rng)
    r = float(np.mean([_correlation(a, b) for a, b in zip(first, second, strict=True)]))
    return max(2 * r / (1 + r), 0.0) if r > -1 else 0.0


def _reliability(predicted: Predicted, kept: Bools, rng: np.random.Generator) -> float:
    if predicted.by_prompt is None:
        return float("nan")
    inside = None if predicted.inside is None else predicted.inside[:, kept]
    return ceiling(predicted.by_prompt[:, kept], rng, inside)


def training_ceiling(each: Sequence[Floats], rng: np.random.Generator, inside: Bools | None = None) -> float:
    """Return the share of the variance over concepts of the mean shift that all trainings have in common, 0 to 1.

    `each` holds the shifts of every training, `(n_prompts, n_concepts)`, `inside` is that of `ceiling`. What they have
    in common is the covariance of one training on one half of the prompts with another training on the other half, so
    that neither the draw of a training nor that of the answers, some of which trainings share, is in it twice (the
    universe score variance of generalizability theory; Cronbach et al. 1972). NaN for fewer than two trainings.
    """
    if len(each) < 2:
        return float("nan")
    whole = np.mean(each, 0).mean(0)
    side_by_side = None if inside is None else np.tile(inside, (1, len(each)))
    halves = _half_means(np.hstack(each), side_by_side, rng)
    ones, others = (np.split(half, len(each), axis=1) for half in halves)
    common = [
        _covariance(a, b)
        for i, one in enumerate(ones)
        for j, other in enumerate(others)
        if i != j
        for a, b in zip(one, other, strict=True)
    ]
    variance = _covariance(whole, whole)
    return float(np.clip(np.mean(common) / variance, 0.0, 1.0)) if variance > 0 else 0.0


def by_prompt(values: Floats, prompts: NDArray[np.int64]) -> Floats:
    """Return what each prompt's pairs add to the column means of `values` (n_pairs, k), `(n_prompts, k)`.

    `prompts` (n_pairs,) numbers the pairs' prompts without gaps. The means over prompts are the means over pairs.
    """
    return prompt_sums(values, prompts) / np.bincount(prompts).mean()


def _half_means(values: Floats, inside: Bools | None, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return the means of `values` (n, k) over SPLITS random halves of the prompts and over the others, (SPLITS, k)."""
    first, second = np.empty((2, SPLITS, values.shape[1]))
    for own, columns in _by_topic(inside, values.shape):
        there = values[:, columns]
        first[:, columns], second[:, columns] = (half @ there for half in _halves(own, rng))
    return first, second


def _halves(own: Bools, rng: np.random.Generator) -> Floats:
    """Return SPLITS random halves of the prompts as weights that sum to 1, and the other halves, `(2, SPLITS, n)`.

    The prompts that are a topic's `own` (n,) and all others are halved apart, so that each half holds as much of the
    topic as all prompts do; a prompt with no like counts in both.
    """
    weights = np.zeros((2, SPLITS, len(own)))
    for some in (np.flatnonzero(own), np.flatnonzero(~own)):
        n, share = len(some), len(some) / len(own)
        if n < 2:
            weights[:, :, some] = share
            continue
        order = np.argsort(np.stack([rng.permutation(n) for _ in range(SPLITS)]), 1)
        first = order < n // 2
        weights[:, :, some] = share * np.stack([first / (n // 2), ~first / (n - n // 2)])
    return weights


def _by_topic(inside: Bools | None, shape: tuple[int, ...]) -> Iterator[tuple[Bools, NDArray[np.int64]]]:
    """Yield the prompts (n,) of each topic, and the columns told within it; all and all where there are no topics."""
    n, k = shape
    if inside is None:
        yield np.ones(n, dtype=bool), np.arange(k)
        return
    topics, which = np.unique(inside, axis=1, return_inverse=True)
    for i, own in enumerate(topics.T):
        yield own, np.flatnonzero(which.ravel() == i)


def _covariance(a: Floats, b: Floats) -> float:
    return float((a - a.mean()) @ (b - b.mean())) / len(a)


def _resampled(shifts: Floats, inside: Bools | None, rng: np.random.Generator) -> Floats:
    """Return the mean of `shifts` (n_prompts, k) over each bootstrap sample of the prompts, `(RESAMPLES, k)`.

    Each topic's own prompts are resampled by themselves.
    """
    resampled = np.empty((RESAMPLES, shifts.shape[1]))
    for some, columns in _by_topic(inside, shifts.shape):
        there = shifts[np.ix_(some, columns)]
        n = len(there)
        weights = np.stack([np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(RESAMPLES)])
        resampled[:, columns] = weights @ there / len(shifts)
    return resampled


def _interval(effect: Floats, learned: Floats, resampled: Floats) -> tuple[float, float]:
    """Return the ends of R2's 90% interval: normal on Fisher's z, its deviation from the bootstrap over prompts.

    Resampled shifts are noisier than the shifts and correlate less, so quantiles of the bootstrap would lie too low.
    """
    own = _fisher(_correlation(effect, learned))
    half = Z90 * float(np.std([_fisher(_correlation(effect, drawn)) for drawn in resampled]))
    return max(np.tanh(own - half), 0.0) ** 2, max(np.tanh(own + half), 0.0) ** 2


def _fisher(r: float) -> float:
    return float(np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12)))


def _correlation(a: Floats, b: Floats) -> float:
    """Pearson's correlation; 0 where one side does not vary."""
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else 0.0


def _r2(effect: Floats, learned: Floats) -> float:
    return max(_correlation(effect, learned), 0.0) ** 2


def _slope(effect: Floats, learned: Floats) -> float:
    centred = effect - effect.mean()
    spread = float(centred @ centred)
    return float(centred @ learned) / spread if spread > 0 else float("nan")
