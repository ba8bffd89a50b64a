"""Skill: how well a forecast said what training then did.

The learned shift of a concept is the mean over prompts of how much of it rollouts of the trained model show minus how
much those of the start model do, in the concept's unit. A forecast is held against it over all concepts that are seen
often enough, never over the strongest alone, which would flatter it. Rollouts are few, so the shifts are noisy
themselves: what a perfect forecast would reach is the reliability of the shifts, estimated from random halves of the
prompts and stepped up to all of them (Spearman 1910, Brown 1910). An R2 means nothing without that ceiling beside it,
nor without what a forecast from pairs with randomly swapped sides reaches.

One training is a draw itself: another seed shifts other concepts, and no forecast from the pairs alone knows which.
Where several trainings were run the learned shift is their mean, and `training_ceiling` tells how much of it a further
training on the same pairs would show as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from premortem.interp.effects import Z90, prompt_sums
from premortem.interp.errors import DataError

Floats = NDArray[np.float64]

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

    @property
    def learned(self) -> Floats:
        """`(n_concepts,)`: the learned shift, -1 to 1."""
        return self.shifts.mean(0)

    def interval(self) -> tuple[Floats, Floats]:
        """Return the ends of each learned shift's 90% interval, with the prompt as the unit."""
        half = Z90 * self.shifts.std(0, ddof=1) / np.sqrt(len(self.shifts))
        return self.learned - half, self.learned + half

    def seen(self, least_rate: float) -> NDArray[np.bool_]:
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
    stepped up to all of them. Like `ceiling`, a factor of the R2 within reach."""
    null: float
    """R2 that one in twenty forecasts from randomly swapped sides exceeds."""
    training_ceiling: float
    """R2 within reach of a forecast that knows what training does on average over seeds, 0 to 1; NaN for one training.
    """


def measure_skill(predicted: Predicted, outcome: Outcome, *, least_rate: float = 0.02, seed: int = 0) -> Skill:
    """Hold `predicted` against `outcome` over the concepts seen in at least `least_rate` of the rollouts.

    Raises DataError where fewer than LEAST_CONCEPTS are seen, or prompts are fewer than LEAST_PROMPTS.
    """
    kept = outcome.seen(least_rate)
    n_prompts = len(outcome.shifts)
    if kept.sum() < LEAST_CONCEPTS or n_prompts < LEAST_PROMPTS:
        raise DataError(
            f"skill needs {LEAST_CONCEPTS} concepts and {LEAST_PROMPTS} prompts; seen in {least_rate:.0%} of the "
            f"rollouts are {int(kept.sum())} concepts, over {n_prompts} prompts"
        )
    effect, shifts = predicted.effect[kept], outcome.shifts[:, kept]
    learned = shifts.mean(0)
    rng = np.random.default_rng(seed)
    low, high = _interval(effect, shifts, rng)
    called = predicted.called[kept]
    right = (np.sign(learned) == called)[called != 0]
    nulls = [_r2(swapped, learned) for swapped in predicted.swapped[:, kept]]
    inside = (predicted.low[kept] <= learned) & (learned <= predicted.high[kept])
    return Skill(
        n_concepts=int(kept.sum()),
        r2=_r2(effect, learned),
        low=low,
        high=high,
        ceiling=ceiling(shifts, rng),
        slope=_slope(effect, learned),
        sign_accuracy=float(right.mean()) if len(right) else float("nan"),
        n_called=len(right),
        coverage=float(inside.mean()),
        reliability=float("nan") if predicted.by_prompt is None else ceiling(predicted.by_prompt[:, kept], rng),
        null=float(np.quantile(nulls, NULL_QUANTILE)) if nulls else float("nan"),
        training_ceiling=training_ceiling([each[:, kept] for each in outcome.each], rng),
    )


def explained(effect: Floats, outcome: Outcome, least_rate: float = 0.02) -> float:
    """Return the R2 of `effect` (n_concepts,) alone, over the concepts that `measure_skill` would count."""
    kept = outcome.seen(least_rate)
    return _r2(effect[kept], outcome.learned[kept])


def ceiling(shifts: Floats, rng: np.random.Generator) -> float:
    """Return the reliability of the mean of `shifts` (n_prompts, n_concepts) over concepts, 0 to 1.

    For two halves that correlate by r it is 2 r / (1 + r); r is the mean over SPLITS random halves. The squared
    correlation of the true shifts with the measured ones is this reliability, so no forecast does better but by chance.
    """
    first, second = (half @ shifts for half in _halves(len(shifts), rng))
    r = float(np.mean([_correlation(a, b) for a, b in zip(first, second, strict=True)]))
    return max(2 * r / (1 + r), 0.0) if r > -1 else 0.0


def training_ceiling(each: Sequence[Floats], rng: np.random.Generator) -> float:
    """Return the share of the variance over concepts of the mean shift that all trainings have in common, 0 to 1.

    `each` holds the shifts of every training, `(n_prompts, n_concepts)`. What they have in common is the covariance of
    one training on one half of the prompts with another training on the other half, so that neither the draw of a
    training nor that of the answers, some of which trainings share, is in it twice (the universe score variance of
    generalizability theory; Cronbach et al. 1972). NaN for fewer than two trainings.
    """
    if len(each) < 2:
        return float("nan")
    whole = np.mean(each, 0).mean(0)
    first, second = _halves(len(each[0]), rng)
    ones, others = ([half @ shifts for shifts in each] for half in (first, second))
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


def _halves(n: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return SPLITS random halves of `n` prompts as weights, `(SPLITS, n)`, that sum to 1, and the other halves."""
    order = np.argsort(np.stack([rng.permutation(n) for _ in range(SPLITS)]), 1)
    first = order < n // 2
    return first / (n // 2), ~first / (n - n // 2)


def _covariance(a: Floats, b: Floats) -> float:
    return float((a - a.mean()) @ (b - b.mean())) / len(a)


def _interval(effect: Floats, shifts: Floats, rng: np.random.Generator) -> tuple[float, float]:
    """Return the ends of R2's 90% interval: normal on Fisher's z, its deviation from the bootstrap over prompts.

    Resampled shifts are noisier than the shifts and correlate less, so quantiles of the bootstrap would lie too low.
    """
    n = len(shifts)
    own = _fisher(_correlation(effect, shifts.mean(0)))
    weights = np.stack([np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(RESAMPLES)]) / n
    drawn = [_fisher(_correlation(effect, learned)) for learned in weights @ shifts]
    half = Z90 * float(np.std(drawn))
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
